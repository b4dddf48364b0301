"""The tools that judge the code have exact versions, in one place that each environment obeys."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "scripts" / "constraints.txt"
TOOLS = {"mypy", "pyright", "ruff", "boto3-stubs"}

PYTHON = r"""#!/bin/sh
case "$2" in
venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
pip) printf '%s\n' "$@" >"$(dirname "$0")/pip-arguments" ;;
esac
"""
"""A program that scripts/venv takes for an interpreter. It keeps the arguments of pip in a file."""


def lines() -> list[str]:
    return [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]


def test_each_constraint_is_an_exact_version() -> None:
    assert [line for line in lines() if not re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line)] == []


def test_each_tool_has_its_constraint() -> None:
    assert {line.partition("==")[0] for line in lines()} >= TOOLS


def test_no_other_place_says_a_version_of_a_tool() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"].values()
    required = [each for group in groups for each in group if isinstance(each, str)]
    tools = [each for each in required if re.split(r"[\[=<>!~ ]", each)[0] in TOOLS]

    assert {each.partition("[")[0] for each in tools} == TOOLS


@pytest.mark.skipif(sys.platform == "win32", reason="scripts/venv is for a POSIX shell")
def test_an_environment_is_installed_with_the_constraints(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    command = [str(ROOT / "scripts" / "venv"), str(tmp_path / "venv"), "all", "test"]
    subprocess.run(
        command, cwd=ROOT, env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"}, check=True
    )

    asked = (tmp_path / "venv" / "bin" / "pip-arguments").read_text().split()
    assert asked[asked.index("--constraint") + 1] == "scripts/constraints.txt"
    assert asked[asked.index("--editable") + 1] == ".[all]"
    assert asked[asked.index("--group") + 1] == "test"


def test_types_are_read_as_the_running_interpreter_reads_them() -> None:
    """Beside a ``python_version`` older than the interpreter, numpy's newer types are misread."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]

    assert "python_version" not in settings


def test_each_action_is_fixed_by_a_commit_with_its_version_beside_it() -> None:
    workflows = (ROOT / ".github" / "workflows").glob("*.yml")
    used = [
        line.partition("uses:")[2].strip()
        for workflow in workflows
        for line in workflow.read_text().splitlines()
        if "uses:" in line
    ]
    assert used
    fixed = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [each for each in used if not fixed.fullmatch(each)] == []
