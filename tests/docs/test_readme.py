"""The README and the other guides are run: snippets, commands, the table of settings, links."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionstore import registry
from sessionstore.settings.resolver import CORE
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = ROOT / "README.md"


def blocks(guide: Path, language: str) -> list[str]:
    fenced = re.findall(rf"^```{language}\n(.*?)^```$", guide.read_text(), re.DOTALL | re.MULTILINE)
    return list(fenced)


def snippets() -> Iterator[Any]:
    for guide in GUIDES:
        for number, code in enumerate(blocks(guide, "python"), start=1):
            yield pytest.param(code, id=f"{guide.name}-{number}")


def run(code: str, cwd: Path) -> str:
    """Run a snippet as a program of its own, as a reader does; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(cwd / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


LAUNCH = re.compile(r"^demo\.launch\(\)$", re.MULTILINE)

INSTEAD_OF_LAUNCH = """
from gradio_client import Client
from tests.support.patience import be_patient

be_patient()
_, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_port={port})
client = Client(url, verbose=False)
{visit}
demo.close()
"""

VISITS = {
    "README.md": """
with open(client.predict("teal", api_name="/paint"), "rb") as answer:
    print("an image:", answer.read(4))
""",
    "tutorial.md": """
with open(client.predict(api_name="/generate")[0], "rb") as answer:
    print("an image:", answer.read(4))
""",
}
"""What a visitor does on the app of a guide; on others it is enough that they are served."""


@pytest.mark.parametrize("code", [each for each in snippets() if not LAUNCH.search(each.values[0])])
def test_each_snippet_runs(code: str, tmp_path: Path) -> None:
    run(code, tmp_path)


def apps() -> list[tuple[Path, str]]:
    return [
        (guide, code) for guide in GUIDES for code in blocks(guide, "python") if LAUNCH.search(code)
    ]


@pytest.mark.parametrize(("guide", "code"), [pytest.param(*it, id=it[0].name) for it in apps()])
def test_each_gradio_app_is_served_and_answers(guide: Path, code: str, tmp_path: Path) -> None:
    visit = VISITS.get(guide.name, "")
    instead = INSTEAD_OF_LAUNCH.format(port=free_port(), visit=visit)

    printed = run(LAUNCH.sub(lambda _: instead, code), tmp_path)

    if visit:
        assert "an image: b'RIFF'" in printed
        assert len(list(tmp_path.glob("*/sessions/*/files/*.webp"))) == 1


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_the_gradio_app_fits_into_ten_lines_beside_its_imports() -> None:
    (code,) = (each for each in blocks(README, "python") if LAUNCH.search(each))
    lines = [line for line in code.splitlines() if line.strip()]

    assert len([line for line in lines if "import" not in line]) <= 10


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_each_make_target_named_is_there(guide: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"`?make ([a-z0-9-]+)", "\n".join(blocks(guide, "console")))
    named += re.findall(r"`make ([a-z0-9-]+)`", guide.read_text())

    assert set(named) <= targets


def test_each_console_block_is_a_command() -> None:
    for guide in GUIDES:
        for block in blocks(guide, "console"):
            assert re.match(r"\$ (make|pip|sessionstore|python) ", block), block


def test_each_extra_named_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(
        r"(?:sessionstore|'\.)\[([a-z0-9,]+)\]", "".join(map(Path.read_text, GUIDES))
    )

    assert named
    assert {each for names in named for each in names.split(",")} <= {
        *project["optional-dependencies"]
    }


def test_the_table_of_settings_is_complete() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)
    options = [key for scheme in registry.BUILTIN for key in registry.find(scheme).options]

    assert sorted(rows) == sorted({"url", *CORE, *options})


def test_each_link_to_a_file_leads_somewhere() -> None:
    for guide in GUIDES:
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", guide.read_text()):
            assert (guide.parent / link).exists(), f"{guide.name}: {link}"


def test_each_page_is_linked_from_another_page() -> None:
    linked = {
        (guide.parent / link).resolve()
        for guide in GUIDES
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", guide.read_text())
        if (guide.parent / link).resolve() != guide
    }
    assert [str(guide) for guide in GUIDES if guide not in {*linked, README}] == []


@pytest.fixture
def without_a_disk() -> Iterator[dict[str, str]]:
    """The variable for temporary files in memory, where there is room: SQLite waits for a disk."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as place:
        yield {"TMPDIR": place}


def test_the_backend_of_the_guide_passes_the_contract(
    tmp_path: Path, without_a_disk: dict[str, str]
) -> None:
    guide = ROOT / "docs" / "backends.md"
    (tmp_path / "sqlite_backend.py").write_text(blocks(guide, "python")[0])
    (tmp_path / "test_sqlite_backend.py").write_text(blocks(guide, "py")[0])

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--timeout=280",
            "-W",
            "error",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **without_a_disk},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"^1[0-9]{2} passed", done.stdout, re.MULTILINE)
