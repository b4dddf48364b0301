"""What is published works without the source tree: the wheel, the sdist, an editable install.

Builds are made from copies in which ``sessionstore/backends`` is not a link but a text file, as git
leaves it where links cannot be made. Nothing is fetched: the build tools are those of the
environment that runs the tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ["pyproject.toml", "README.md", "LICENSE", "sessionstore", "backends"]

PROOF = """
import importlib, pkgutil, sys
import sessionstore, sessionstore.backends
from sessionstore import FileNotStored, SessionStore

for each in pkgutil.walk_packages(sessionstore.backends.__path__, "sessionstore.backends."):
    try:
        importlib.import_module(each.name)
    except ModuleNotFoundError as error:  # of an extra, none of which is installed here
        if error.name.startswith("sessionstore"):
            raise
for url in ("memory://", "file:proof"):
    with SessionStore.open(url) as store:
        session = store.session("visitor")
        saved = session.put("a/b.txt", b"bytes")
        assert saved.read() == session.read("a/b.txt") == b"bytes"
        session.drop()
        try:
            session.read("a/b.txt")
        except FileNotStored:
            continue
        sys.exit("the file outlived its session")
print(sessionstore.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_of_the_source(folder: Path, *, with_link: bool = False) -> Path:
    """The source as a clone with ``core.symlinks=false`` has it, or with the link."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / part, folder / part)
    link = folder / "sessionstore" / "backends"
    if not with_link and link.is_symlink():
        target = link.readlink().as_posix()
        link.unlink()
        link.write_text(target)
    return folder


def build(source: Path, kind: str, out: Path) -> Path:
    run(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, cwd=source)
    (made,) = out.iterdir()
    return made


def prove_in_fresh_environment(wheel: Path, folder: Path) -> Path:
    """Install the wheel alone into a new environment, run ``PROOF`` there; where it was found."""
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    return Path(run(python, "-I", "-W", "error", "-c", PROOF, cwd=folder).strip())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_of_the_source(tmp_path_factory.mktemp("source"))
    return build(source, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_of_the_source(tmp_path_factory.mktemp("source"))
    return build(source, "wheel", tmp_path_factory.mktemp("wheel"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_wheel_works_without_the_source(wheel: Path, tmp_path: Path) -> None:
    found = prove_in_fresh_environment(wheel, tmp_path)

    assert found.is_relative_to(tmp_path / "venv")


def test_a_wheel_built_from_the_sdist_works_too(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4
        archive.extractall(tmp_path, **safely)  # type: ignore[arg-type]  # a name of a filter
    (unpacked,) = tmp_path.iterdir()
    again = build(unpacked, "wheel", tmp_path / "out")

    found = prove_in_fresh_environment(again, tmp_path)

    assert found.is_relative_to(tmp_path / "venv")


def test_an_editable_install_works_where_the_link_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = copy_of_the_source(tmp_path / "source")
    hook = "from setuptools.build_meta import build_editable; build_editable('dist')"
    run(sys.executable, "-c", hook, cwd=source)
    (editable,) = (source / "dist").glob("*.whl")

    found = prove_in_fresh_environment(editable, tmp_path)

    assert found.is_relative_to(source)


def test_the_wheel_has_every_module_and_nothing_else(wheel: Path) -> None:
    modules = {
        path.relative_to(ROOT).as_posix().replace("backends/", "sessionstore/backends/", 1)
        for folder in ("backends", "sessionstore")
        for path in (ROOT / folder).rglob("*.py")
        if (ROOT / "sessionstore" / "backends") not in path.parents
    }
    pages = ROOT / "sessionstore" / "adapters" / "gradio"
    data = {
        path.relative_to(ROOT).as_posix()
        for path in pages.rglob("*.*")
        if path.suffix in {".css", ".html", ".js"}
    }
    shipped = {name for name in names_in(wheel) if ".dist-info/" not in name}

    assert data
    assert shipped == {*modules, *data, "sessionstore/py.typed"}


def test_the_link_makes_no_difference(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = copy_of_the_source(tmp_path / "source", with_link=True)

    assert names_in(build(source, "wheel", tmp_path / "out")) == names_in(wheel)


def test_no_package_of_the_source_is_left_out_of_the_list() -> None:
    """``packages`` in pyproject.toml is written by hand; a new sub-package has to be added."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    folders = {path.parent for path in (ROOT / "sessionstore").rglob("__init__.py")}
    folders |= {path.parent for path in (ROOT / "backends").rglob("__init__.py")}
    names = {
        ".".join(folder.relative_to(ROOT).parts).replace("sessionstore.backends", "backends")
        for folder in folders
    }

    assert listed == {re.sub(r"^backends", "sessionstore.backends", name) for name in names}


def test_the_metadata_says_what_was_decided(wheel: Path) -> None:
    metadata = metadata_of(wheel)

    assert metadata["Name"] == "sessionstore"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "s3", "fsspec", "obstore", "gradio", "asgi", "cli", "image", "blake3", "metrics", "all",
    }  # fmt: skip


def test_nothing_is_required_without_an_extra_and_nothing_has_an_upper_bound(wheel: Path) -> None:
    required = metadata_of(wheel).get_all("Requires-Dist", [])

    assert [each for each in required if "extra ==" not in each] == []
    assert [
        each for each in required if "<" in each.split(";")[0] or "==" in each.split(";")[0]
    ] == []


def test_two_builds_of_a_commit_have_equal_bytes(tmp_path: Path) -> None:
    """Built in different folders, with different modes of new files, a while apart."""
    program = (
        "import os, sys; os.umask(int(sys.argv[1]));"
        "from dist import Path, build; build(Path(sys.argv[2]))"
    )
    for folder, umask in (("one", "0"), ("other", "63")):
        command = (sys.executable, "-c", program, umask, tmp_path / folder)
        run(*command, cwd=ROOT / "scripts")
    one, other = (sorted((tmp_path / folder).iterdir()) for folder in ("one", "other"))

    assert [path.suffix for path in one] == [".whl", ".gz"]
    assert [path.name for path in one] == [path.name for path in other]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_the_license_is_shipped(wheel: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        in_sdist = {Path(name).name for name in archive.getnames()}

    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names_in(wheel))
    assert "LICENSE" in in_sdist
