"""Importing the package is cheap: no library of an extra is loaded before it is needed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

HEAVY = [
    "PIL", "blake3", "boto3", "botocore", "fsspec", "gradio", "numpy", "obstore",
    "prometheus_client", "rich", "starlette", "typer",
]  # fmt: skip


def loaded_after(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter that has run ``code``."""
    report = "import json, sys; print(json.dumps([name for name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {report}"], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize(
    "code",
    [
        "import sessionstore",
        "import sessionstore.testing",
        "import sessionstore; sessionstore.SessionStore.open('memory://').close()",
        "import sessionstore.backends.local, sessionstore.backends.memory",
    ],
)
def test_no_library_of_an_extra_is_loaded(code: str) -> None:
    assert loaded_after(code).isdisjoint(HEAVY)


def test_the_check_above_can_fail() -> None:
    present = next(name for name in HEAVY if importlib.util.find_spec(name))

    assert present in loaded_after(f"import sessionstore, {present}")


def test_what_only_some_calls_need_is_loaded_by_them() -> None:
    found = loaded_after("import sessionstore; sessionstore.SessionStore.open('memory://').close()")
    always = loaded_after("pass")  # where coverage is measured, its own modules too
    assert (found - always).isdisjoint({"asyncio", "difflib", "fractions", "socket"})
