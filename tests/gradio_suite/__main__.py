"""Run Gradio's tests twice and compare. Exit status 0: the same failures, and files read back."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PLACE = ROOT / ".gradio-suite"

FILES = (
    "test_state_holder",
    "test_ranged_response",
    "test_no_growth",
    "test_queueing",
    "test_helpers",
    "test_blocks",
    "test_chat_interface",
    "test_processing_utils",
    "test_routes",
    "components",
)
DELIBERATE = {
    "test/test_routes.py::TestRoutes::test_delete_cache": "it is Gradio's own sweeper that deletes "
    "everything when an app stops; attach replaces it, and takes its ages for the store's",
    "test/test_routes.py::TestRoutes::test_response_attachment_format": "it asks for a file that "
    "somebody laid into the cache directory; attach serves what a visitor was given",
    **dict.fromkeys(
        (
            "test/test_blocks.py::TestTempFile::test_file_component_uploads[File]",
            "test/test_blocks.py::TestTempFile::test_file_component_uploads[UploadButton]",
            "test/test_blocks.py::TestTempFile::test_no_empty_audio_files",
            "test/test_blocks.py::TestTempFile::test_no_empty_image_files",
            "test/test_blocks.py::TestTempFile::test_no_empty_video_files",
            "test/test_blocks.py::TestTempFile::test_pil_images_hashed",
            "test/test_blocks.py::test_static_files_single_app",
        ),
        "it counts the files in the cache directory; attach also has those of a program's results "
        "there, under the paths of their links",
    ),
}
"""Tests of what ``attach`` changes on purpose, and how. They have to fail with it."""

READ_BACKS = 50
"""What the run has to have more of, or it has not tried the reading."""

RERUNS = 3
TIMEOUT = 120
"""Seconds that a test may take."""

BAD = ("failed", "missing")


@dataclass
class Run:
    """What came of the tests, by name, and what the plug-in counted."""

    outcomes: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Run) -> None:
        self.outcomes |= other.outcomes
        self.counts += other.counts

    def failed(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if self.outcomes.get(name, "missing") in BAD}

    def summary(self) -> str:
        return ", ".join(f"{n} {what}" for what, n in Counter(self.outcomes.values()).items())


@dataclass(frozen=True)
class Suite:
    """Gradio's tests, unpacked, and an interpreter that has what they need."""

    tree: Path
    python: Path

    def run(self, what: str, *, attached: bool) -> Run:
        """Run a file, a folder or one test, in a process of its own."""
        with tempfile.NamedTemporaryFile(suffix=".json") as report:
            environment = {
                **os.environ,
                "PYTHONPATH": f".{os.pathsep}{ROOT}",
                "GRADIO_ANALYTICS_ENABLED": "False",
                "HF_HUB_OFFLINE": "1",
                "GRADIO_SUITE_ATTACH": "1" if attached else "0",
                "GRADIO_SUITE_REPORT": report.name,
            }
            command = [
                *_alone(), str(self.python), "-m", "pytest", "-q", "--tb=short", "-o", "addopts=",
                f"--timeout={TIMEOUT}", "-p", "no:cacheprovider", "-p", "tests.gradio_suite.plugin",
                what,
            ]  # fmt: skip
            log = PLACE / f"{'attached' if attached else 'plain'}-{_safe(what)}.log"
            with log.open("wb") as out:
                subprocess.run(
                    command, cwd=self.tree, env=environment, stdout=out, stderr=out, check=False
                )
            told = Path(report.name).read_text()
        if not told:
            raise SystemExit(f"gradio-suite: pytest did not come to its end, see {log}")
        read = json.loads(told)
        return Run(read["outcomes"], Counter(read["counts"]))


def _alone() -> list[str]:
    """A command that gives a program a network of its own: tests use fixed ports, and some try to
    reach the internet, which here is never there. Nothing where that is not permitted.
    """
    command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"']
    with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
        subprocess.run([*command, "true"], check=True, capture_output=True)
        return command
    return []


def _safe(name: str) -> str:
    return "".join(each if each.isalnum() or each in "_-" else "-" for each in name)[-100:]


def prepared() -> Suite:
    """Download and unpack what is not there yet."""
    version = importlib.metadata.version("gradio")
    if Path(tempfile.gettempdir()).resolve() in PLACE.resolve().parents:
        raise SystemExit("gradio-suite: run it in a checkout that is not below the temp directory.")
    PLACE.mkdir(exist_ok=True)
    tree = PLACE / f"gradio-{version}"
    if not (tree / "ready").exists():
        shutil.rmtree(tree, ignore_errors=True)
        _unpack(_downloaded(version))
        stand_in = tree / "client/python/test/media_data.py"
        stand_in.parent.mkdir(parents=True)
        shutil.copy(HERE / "media_data.py", stand_in)
        (tree / "ready").touch()
    return Suite(tree, _interpreter(version))


def _downloaded(version: str) -> Path:
    archive = PLACE / f"gradio-{version}.tar.gz"
    if not archive.exists():
        _say(f"downloading the source of gradio {version} (45 MB)")
        options = ["--no-binary", ":all:", "--no-deps", "--quiet", "--dest", str(PLACE)]
        command = [sys.executable, "-m", "pip", "download", *options, f"gradio=={version}"]
        subprocess.run(command, check=True)
    return archive


def _unpack(archive: Path) -> None:
    """Only tests and what they read: the package itself is the installed one. The options of
    pytest in pyproject.toml are Gradio's, instead of ours.
    """
    folders = ("test", "gradio/test_data", "gradio/media_assets")
    top = archive.name.removesuffix(".tar.gz")
    wanted = (f"{top}/pyproject.toml", *(f"{top}/{folder}/" for folder in folders))
    with tarfile.open(archive) as tar:
        members = [each for each in tar if each.name.startswith(wanted)]
        tar.extractall(PLACE, members, filter="data")


def _interpreter(version: str) -> Path:
    """A virtual environment of its own: these tests need much that ours do not."""
    venv = PLACE / "venv"
    ready = venv / f".ready-{version}"
    if not ready.exists():
        make = [str(ROOT / "scripts/venv"), str(venv), "gradio,image", ""]
        subprocess.run(make, cwd=ROOT, check=True)
        options = ["--quiet", "-r", str(HERE / "requirements.txt")]
        command = [str(venv / "bin/python"), "-m", "pip", "install", *options]
        subprocess.run([*command, f"gradio[mcp,oauth]=={version}"], check=True)
        ready.touch()
    return venv / "bin/python"


def compare(suite: Suite, files: Iterable[str]) -> bool:
    """Both runs, what differs, and whether that is nothing."""
    plain, attached = Run(), Run()
    for name in files:
        what = f"test/{name}" if (suite.tree / "test" / name).is_dir() else f"test/{name}.py"
        runs = [suite.run(what, attached=each) for each in (False, True)]
        for total, run, side in zip((plain, attached), runs, ("without", "attached"), strict=True):
            total.add(run)
            _say(f"{name}, {side}: {run.summary()}")
    names = {*plain.outcomes, *attached.outcomes}
    known = {name for name in DELIBERATE if name in names}
    stale = known - attached.failed(names)
    suspects = (plain.failed(names) ^ attached.failed(names)) - known
    different = sorted({*stale, *(name for name in suspects if _differs(suite, name))})
    _conclude(plain, attached, sorted(known - stale), different)
    return not different and attached.counts["read-backs"] > READ_BACKS


def _conclude(plain: Run, attached: Run, known: list[str], different: list[str]) -> None:
    names = {*plain.outcomes, *attached.outcomes}
    for name in sorted((plain.failed(names) & attached.failed(names)) - {*known}):
        _say(f"fails in both: {name}")
    for name in known:
        _say(f"on purpose: {name}: {DELIBERATE[name]}")
    for name in different:
        _say(f"DIFFERENT: {name}")
    _say(f"without:  {plain.summary()}")
    _say(f"attached: {attached.summary()}")
    _say(", ".join(f"{n} {what}" for what, n in sorted(attached.counts.items())))
    if attached.counts["read-backs"] <= READ_BACKS:
        _say(f"Too few files were read back: more than {READ_BACKS} have to be.")


def _differs(suite: Suite, name: str) -> bool:
    """Whether a test that failed in one of the runs does so every time, and only there."""
    failures = {
        attached: sum(
            bool(suite.run(name, attached=attached).failed([name])) for _ in range(RERUNS)
        )
        for attached in (False, True)
    }
    _say(
        f"alone: {name} fails {failures[False]} of {RERUNS} without, {failures[True]} of {RERUNS} "
        "attached"
    )
    return (failures[True] > 0) != (failures[False] > 0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=FILES, choices=FILES, metavar="FILE")
    options = parser.parse_args()
    return 0 if compare(prepared(), options.only) else 1


if __name__ == "__main__":
    sys.exit(main())
