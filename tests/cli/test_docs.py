"""docs/cli.md says what the commands say of themselves.

python -m tests.cli.test_docs       writes the part that is made from them
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sessionstore.cli.app import app
from sessionstore.cli.output import Status

GUIDE = Path(__file__).parents[2] / "docs" / "cli.md"
MARK = "<!-- commands -->\n"


def commands() -> dict[str, Any]:
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # of a group
    return found


def described(name: str, command: Any) -> str:
    """A command, its arguments and its options, as Markdown."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join(["sessionstore", name, *(each.metavar for each in arguments)])
    rows = [f"| `{each.metavar}` | {each.help} |" for each in arguments]
    rows += [f"| `{_spelled(each)}` | {each.help} |" for each in options if each.name != "help"]
    head = "| argument or option | meaning |\n|---|---|\n"
    return f"### {usage}\n\n{inspect.cleandoc(command.help)}\n\n{head}" + "\n".join(rows) + "\n"


def _spelled(option: Any) -> str:
    return ", ".join(option.opts) + (f" {option.metavar}" if option.metavar else "")


def reference() -> str:
    return "\n".join(described(name, command) for name, command in commands().items())


def test_the_guide_is_up_to_date() -> None:
    assert GUIDE.read_text().partition(MARK)[2].strip() == reference().strip()


@pytest.mark.parametrize("name", commands())
def test_each_command_and_each_of_its_options_has_help(name: str) -> None:
    command = commands()[name]
    assert command.help
    assert [each.name for each in command.params if not each.help] == []


@pytest.mark.parametrize("name", commands())
def test_each_command_has_an_example_of_itself(name: str) -> None:
    assert f"Example: sessionstore {name}" in commands()[name].help


def test_each_exit_status_is_documented() -> None:
    told = {int(n) for n in re.findall(r"^\| ([0-9]+) \|", GUIDE.read_text(), re.MULTILINE)}
    assert told == set(Status)


if __name__ == "__main__":
    GUIDE.write_text(GUIDE.read_text().partition(MARK)[0] + MARK + "\n" + reference())
