"""Everything public has its place in the documentation."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

import pytest

from sessionstore.events import KINDS
from tests.core.test_public_names import VERBS, WITHOUT_IO
from tests.docs.test_readme import GUIDES, ROOT

REFERENCE = ROOT / "docs" / "reference"
MODULES = [
    "sessionstore",
    "sessionstore.adapters.asgi",
    "sessionstore.adapters.gradio",
    "sessionstore.doctor",
    "sessionstore.testing",
]
PROSE = "\n".join(guide.read_text() for guide in GUIDES if REFERENCE not in guide.parents)


def documented() -> set[str]:
    """What the reference takes from docstrings."""
    pages = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    return set(re.findall(r"^::: ([\w.]+)", pages, re.MULTILINE))


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_is_in_the_reference(module: str) -> None:
    names = {f"{module}.{name}" for name in importlib.import_module(module).__all__}
    # A module's entry of its own shows all members.
    whole = "sessionstore.errors" in documented()
    errors = importlib.import_module("sessionstore.errors")

    missing = names - documented()
    assert whole
    assert {name for name in missing if not hasattr(errors, name.rpartition(".")[2])} == set()


def test_what_the_reference_names_is_there() -> None:
    for name in documented():
        module, _, member = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), member), name


def members() -> Iterator[str]:
    for table in (VERBS, WITHOUT_IO):
        for names in table.values():
            yield from names


@pytest.mark.parametrize("name", sorted(set(members())))
def test_a_guide_tells_of_each_member(name: str) -> None:
    assert re.search(rf"\b{name}\b`|\.{name}\b|`{name}\b", PROSE)


def commands() -> list[str]:
    """The names of the command line's commands."""
    from typer.main import get_command

    app = importlib.import_module("sessionstore.cli.app").app
    return sorted(getattr(get_command(app), "commands", {}))


def test_a_guide_tells_of_each_command() -> None:
    guide = (ROOT / "docs" / "cli.md").read_text()

    assert commands()
    assert [name for name in commands() if not re.search(rf"sessionstore {name}\b", guide)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_guide_tells_of_each_event(kind: str) -> None:
    assert re.search(rf'[`"]{kind}[`"]', PROSE)
