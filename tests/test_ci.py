"""In CI no test of a real program is skipped; elsewhere it is, and says for want of what."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

@pytest.mark.browser
def test_in_a_browser(chromium_path): pass

def test_of_another_platform(): pytest.skip("not here")
"""
MARKERS = "[pytest]\nmarkers =\n    browser: real\n    server: real\n"


def run(folder: Path, **environ: str) -> str:
    """What pytest prints for ``TESTS`` beside our conftest.py, on a machine with no program."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "pytest.ini").write_text(MARKERS)
    (folder / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PATH": str(folder), "PYTHONPATH": "", **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_elsewhere_both_are_skipped_with_their_reason(tmp_path: Path) -> None:
    out = run(tmp_path)

    assert "2 skipped" in out
    assert "chromium is not installed" in out


def test_in_ci_the_browser_test_fails_and_the_other_is_skipped(tmp_path: Path) -> None:
    out = run(tmp_path, SESSIONSTORE_CI="1")

    assert "1 skipped, 1 error" in out
    assert "which is a failure under SESSIONSTORE_CI=1" in out


def test_in_ci_a_file_skipped_whole_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "test_whole.py").write_text(
        "import pytest\npytest.skip('no such library', allow_module_level=True)\n"
    )

    assert "ERROR test_whole.py" in run(tmp_path, SESSIONSTORE_CI="1")
