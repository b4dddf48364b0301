"""The imports of the product: no circle, and no arrow that points upwards.

Imports are read from the source, also those for type checkers alone and those inside functions: a
reader follows them all.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

UPWARDS = [
    ("sessionstore", "sessionstore.adapters"),
    ("sessionstore", "sessionstore.backends"),
    ("sessionstore", "sessionstore.cli"),
    ("sessionstore", "sessionstore.testing"),
    ("sessionstore.adapters.asgi", "sessionstore.adapters.gradio"),
    ("sessionstore.adapters", "sessionstore.backends"),
    ("sessionstore.backends", "sessionstore.adapters"),
    ("sessionstore.backends.local", "sessionstore.backends.objects"),
    ("sessionstore.backends.local", "sessionstore.backends.s3"),
    ("sessionstore.backends.objects", "sessionstore.backends.local"),
    ("sessionstore.backends.objects", "sessionstore.backends.s3"),
    ("sessionstore.backends.objects", "sessionstore.backends.fsspec"),
    ("sessionstore.model", "sessionstore.backend"),
    ("sessionstore.base", "sessionstore.store"),
]
"""(who, what): modules of the package "who" import nothing of "what".

``sessionstore`` alone stands for its own modules, without the packages below it.
"""

PACKAGES = {"adapters", "backends", "cli", "testing"}
"""The packages above or beside the core."""


def sources() -> dict[str, Path]:
    """Return every module of the product: its dotted name and its file."""
    files = [
        path
        for folder in ("sessionstore", "backends")
        for path in (ROOT / folder).rglob("*.py")
        if ROOT / "sessionstore" / "backends" not in path.parents
    ]
    return {name_of(path): path for path in files}


def name_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "backends":
        parts.insert(0, "sessionstore")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def targets(node: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Give the dotted names that an import statement may load: modules, or names in them."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module.split(".") if is_package else module.split(".")[:-1]
            package = package[: len(package) - node.level + 1]
            base = ".".join([*package, *([base] if base else [])])
        for alias in node.names:
            yield f"{base}.{alias.name}"


@functools.cache
def graph() -> dict[str, set[str]]:
    """Return the modules that each module of the product imports."""
    modules = sources()
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        is_package = path.name == "__init__.py"
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            for target in targets(node, name, is_package=is_package):
                module = target if target in modules else target.rpartition(".")[0]
                if module in modules and module != name:
                    found[name].add(module)
    return found


def is_in(module: str, package: str) -> bool:
    if package == "sessionstore":
        return module.split(".")[1:2] == [] or module.split(".")[1] not in PACKAGES
    return module == package or module.startswith(f"{package}.")


def upwards(arrows: dict[str, set[str]], who: str, what: str) -> list[str]:
    return sorted(
        f"{module} imports {target}"
        for module, imported in arrows.items()
        if is_in(module, who)
        for target in imported
        if is_in(target, what)
    )


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the modules of a circle, empty when there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_runs_in_a_circle() -> None:
    arrows = graph()

    assert "sessionstore.store" in arrows
    assert "sessionstore.base" in arrows["sessionstore.store"]
    assert circle(arrows) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


@pytest.mark.parametrize(("who", "what"), UPWARDS)
def test_nothing_below_imports_from_above(who: str, what: str) -> None:
    assert upwards(graph(), who, what) == []


def test_an_arrow_that_points_upwards_is_found() -> None:
    arrows = {"sessionstore.store": {"sessionstore.backends.local.backend"}}

    assert upwards(arrows, "sessionstore", "sessionstore.backends") == [
        "sessionstore.store imports sessionstore.backends.local.backend"
    ]


def test_imports_inside_backends_are_relative() -> None:
    """The folder ``backends/`` reads as a package of its own that way."""
    absolute = [
        f"{path.name}:{node.lineno}"
        for name, path in sources().items()
        if name.startswith("sessionstore.backends")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("sessionstore.backends")
    ]

    assert absolute == []
