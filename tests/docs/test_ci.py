"""In CI no test of a real program is skipped; elsewhere it is, and says for want of what.

And a run ends, whatever its tests do.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
CONFTEST = Path(__file__).parents[1] / "conftest.py"

TESTS = """
import pytest

@pytest.mark.browser
def test_in_a_browser(chromium_path): pass

def test_of_another_platform(): pytest.skip("not here")
"""
MARKERS = "[pytest]\nmarkers =\n    browser: real\n    server: real\n"

TWICE = """
import threading

def stubborn():
    try:
        threading.Event().wait()
    finally:
        threading.Event().wait()

def test_hangs(): stubborn()
"""
AFTER_A_FAILURE = """
import threading, pytest

def stubborn(): threading.Event().wait()

@pytest.fixture
def left():
    yield
    stubborn()

def test_hangs(left): assert not "good"
"""
NEVER_ENDS = """
import threading

def test_leaves_a_thread(): threading.Thread(target=threading.Event().wait).start()
"""
STOPPED = """
import threading

def test_before(): pass

def test_is_stopped(): threading.Event().wait()
"""

INTERRUPTIBLE = """
import signal, sys, pytest

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.main())
"""
"""A shell starts what runs in the background with SIGINT ignored, and its children inherit that."""

ENOUGH = 12
"""Files of tests, of which each of two workers has finished some when the last one hangs."""


def run(folder: Path, **environ: str) -> str:
    """What pytest prints for ``TESTS`` beside our conftest.py, on a machine with no program."""
    shutil.copy(CONFTEST, folder)
    (folder / "test_it.py").write_text(TESTS)
    return run_pytest(folder, **environ).stdout


def run_pytest(folder: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        **asked(folder, *options, **environ), capture_output=True, text=True, check=False
    )


def asked(folder: Path, *options: str, **environ: str) -> dict[str, Any]:
    """pytest in that folder, as arguments of a subprocess."""
    (folder / "pytest.ini").write_text(MARKERS)
    return {
        "args": [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", *options],
        "cwd": folder,
        "env": {**os.environ, "PATH": str(folder), "PYTHONPATH": "", **environ},
    }


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


def impatient(folder: Path) -> None:
    """Our conftest.py, in which a hang is one after seconds."""
    text = CONFTEST.read_text()
    changed = re.sub(r"^HANGS = \d+$", "HANGS = 6", text, flags=re.MULTILINE)
    assert changed != text
    (folder / "conftest.py").write_text(changed)


@pytest.mark.parametrize("source", [TWICE, AFTER_A_FAILURE])
def test_a_test_that_no_error_ends_fails_and_says_where_it_stood(
    tmp_path: Path, source: str
) -> None:
    impatient(tmp_path)
    (tmp_path / "test_it.py").write_text(source)

    done = run_pytest(tmp_path, "-n1", "--timeout=2")

    assert done.returncode == 1
    assert "crashed while running 'test_it.py::test_hangs'" in done.stdout
    assert re.search(r'test_it.py", line \d+ in stubborn', done.stderr)


def test_a_run_ends_although_a_worker_was_ended(tmp_path: Path) -> None:
    """xdist gives a worker's finished files out again, and then waits for their tests for ever."""
    impatient(tmp_path)
    for number in range(ENOUGH):
        (tmp_path / f"test_{number:02}.py").write_text("def test_it(): pass\n")
    (tmp_path / "test_hangs.py").write_text(TWICE)
    ours = tomllib.loads(PYPROJECT.read_text())["tool"]["pytest"]["ini_options"]["addopts"]

    done = run_pytest(tmp_path, *ours, "-n2", "--dist=loadfile", "--timeout=2")

    assert done.returncode != 0
    assert f"1 failed, {ENOUGH} passed" in done.stdout


def test_a_run_that_a_thread_keeps_from_ending_fails_and_says_so(tmp_path: Path) -> None:
    impatient(tmp_path)
    (tmp_path / "test_it.py").write_text(NEVER_ENDS)

    done = run_pytest(tmp_path)

    assert "1 passed" in done.stdout
    assert done.returncode == 1
    assert "threading.py" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_run_that_is_stopped_says_what_it_was_at(tmp_path: Path) -> None:
    shutil.copy(CONFTEST, tmp_path)  # on a busy machine seconds are no hang
    (tmp_path / "test_it.py").write_text(STOPPED)
    asks = asked(tmp_path, "-v", "-n1")
    asks["args"][1:3] = ["-c", INTERRUPTIBLE]

    with subprocess.Popen(**asks, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = b""
        try:
            while b"test_is_stopped" not in said:
                said += (piece := os.read(process.stdout.fileno(), 4096))
                assert piece, said
            process.send_signal(signal.SIGINT)
            said += process.stdout.read()
        finally:
            process.kill()

    assert b"KeyboardInterrupt" in said
    assert re.findall(b"UNDER WAY (.*)", said) == [b"test_it.py::test_is_stopped"]
