"""What all tests share: a clean environment, and the real programs that are installed."""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

IN_CI = os.environ.get("SESSIONSTORE_CI") == "1"
"""Whether a skipped test of a real program is a failure."""

REAL = {"browser", "server"}
"""The marks of tests that need a real program."""

# A developer's own settings must not reach a test, nor this file's variable the library.
for _name in [name for name in os.environ if name.startswith("SESSIONSTORE_")]:
    del os.environ[_name]

# Under these pytest shows differences whole. The broken backends of test_kit_catches.py return
# megabytes that differ, and comparing those line by line takes it minutes for each.
for _name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(_name, None)

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nobody is told of our tests

HANGS = 420
"""Seconds until a process whose test, or whose end, takes longer is ended, with all its stacks.

The ``timeout`` in pyproject.toml is over earlier and fails the test alone, but it only raises an
error in the main thread: not in one that waits within a library, and once, so that a clean-up that
waits for the same again is not ended. A run that never ends says less than one that fails.
"""

_stderr = pytest.StashKey[int]()

settings.register_profile(  # a slow machine is no failure
    "sessionstore", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sessionstore")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_stderr] = os.dup(2)  # the real one: during a test it is captured


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # one of xdist waits for the others, and is ended by it
        _end_if_it_hangs(config)  # threads that never end keep a process from ending


def pytest_collection_finish() -> None:
    """Keep the garbage collector from the half million objects of what is imported, which stays."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    _end_if_it_hangs(item.config)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """A failure is no end: pytest's own plugin has cancelled it, for debuggers."""
    _end_if_it_hangs(node.config)


def _end_if_it_hangs(config: pytest.Config) -> None:
    """Watched by a thread that needs no lock of Python's. Begins anew at each call."""
    faulthandler.dump_traceback_later(HANGS, exit=True, file=config.stash[_stderr])


_under_way: set[str] = set()


@pytest.hookimpl(tryfirst=True)  # before it is shown, and may be stopped for that
def pytest_runtest_logstart(nodeid: str) -> None:
    _under_way.add(nodeid)


def pytest_runtest_logfinish(nodeid: str) -> None:
    _under_way.discard(nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Of a run that was stopped from outside, also what it was at."""
    for nodeid in sorted(_under_way):
        terminalreporter.write_line(f"UNDER WAY {nodeid}")


def _program(*names: str) -> str:
    """The path of the first of these programs that there is. Skips the test without any."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])  # nginx is not for everyone
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    if found is None:
        pytest.skip(f"{names[0]} is not installed (on Debian: apt-get install {names[0]})")
    return found


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The system's Chromium; mark its tests ``browser``."""
    return _program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def nginx_path() -> str:
    """The system's nginx; mark its tests ``server``."""
    return _program("nginx")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    report.outcome = "failed"
    report.longrepr = f"Skipped, which is a failure under SESSIONSTORE_CI=1: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    real = REAL & {mark.name for mark in item.iter_markers()}
    if IN_CI and real and report.skipped and not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:  # a file skipped whole would hide its tests' marks
        _refuse_skip(report)
    return report
