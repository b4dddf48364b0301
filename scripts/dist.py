"""Build the sdist and the wheel of a commit, so that two builds have equal bytes, and check them.

python scripts/dist.py      into dist/; `make dist` installs what this needs (the group "dist")

The sources are those of the commit (``git archive``), never of the work tree. All times in the
archives are the commit's (``SOURCE_DATE_EPOCH``); setuptools honours that in the wheel, and the
sdist is written again here with it, in the order of its names, without users. The wheel is built
from that sdist, so whoever has the sdist can build the same wheel.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


PROOF = """
from sessionstore import SessionStore
for url in ("memory://", "file:store"):
    with SessionStore.open(url) as store:
        assert store.session("visitor").put("a.txt", b"bytes").read() == b"bytes"
"""


def run(*command: str | Path, cwd: Path = ROOT, epoch: str = "") -> bytes:
    """Run a command with its errors shown; return its output."""
    environ = {**os.environ, "SOURCE_DATE_EPOCH": epoch} if epoch else None
    return subprocess.run(command, cwd=cwd, env=environ, check=True, stdout=subprocess.PIPE).stdout


def rewritten(sdist: Path, epoch: int) -> bytes:
    """Return the tar.gz of ``sdist`` with sorted names, one time, plain modes and no users."""
    plain = io.BytesIO()
    with (
        tarfile.open(sdist) as source,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            target.addfile(member, source.extractfile(member) if member.isfile() else None)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=epoch) as file:
        file.write(plain.getvalue())
    return packed.getvalue()


def build(out: Path, commit: str = "HEAD") -> list[Path]:
    """Build the sdist and the wheel of ``commit`` into ``out``; return their paths."""
    os.umask(0o022)  # the modes of unpacked files are in the wheel
    epoch = run("git", "log", "-1", "--format=%ct", commit).decode().strip()
    python_build = (sys.executable, "-m", "build", "--no-isolation")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "source"), Path(folder, "made")
        source.mkdir()
        with tarfile.open(fileobj=io.BytesIO(run("git", "archive", commit))) as archive:
            archive.extractall(source)  # noqa: S202 - made by git a moment ago
        run(*python_build, "--sdist", "--outdir", made, cwd=source, epoch=epoch)
        (first,) = made.iterdir()
        sdist = out / first.name
        sdist.write_bytes(rewritten(first, int(epoch)))
        with tarfile.open(sdist) as archive:
            archive.extractall(made)  # noqa: S202 - made above
        (unpacked,) = (path for path in made.iterdir() if path.is_dir())
        run(*python_build, "--wheel", "--outdir", out.resolve(), cwd=unpacked, epoch=epoch)
    return sorted(out.glob(f"{sdist.name.removesuffix('.tar.gz')}*"))


def check(made: list[Path]) -> None:
    """Raise an error unless a second build is equal, twine accepts both, and each works alone."""
    with tempfile.TemporaryDirectory() as folder:
        for path, again in zip(made, build(Path(folder, "again")), strict=True):
            if path.read_bytes() != again.read_bytes():
                raise SystemExit(f"Two builds of {path.name} have different bytes.")
        run(sys.executable, "-m", "twine", "check", "--strict", *made)
        for path in made:
            empty = Path(folder, path.name + ".venv")
            venv.create(empty, with_pip=True)
            python = empty / ("Scripts" if os.name == "nt" else "bin") / "python"
            run(python, "-m", "pip", "install", "--quiet", path.resolve(), cwd=empty)
            run(python, "-I", "-W", "error", "-c", PROOF, cwd=empty)


if __name__ == "__main__":
    files = build(ROOT / "dist")
    check(files)
    for file in files:
        sys.stdout.write(
            f"{file.relative_to(ROOT)}: {hashlib.sha256(file.read_bytes()).hexdigest()}\n"
        )
    sys.stdout.write(
        "Both are built twice with equal bytes, checked, and work in an empty place.\n"
    )
