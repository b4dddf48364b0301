"""What loading the package takes, and opening a store: each time in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks import peers
from benchmarks.disks import Disk
from benchmarks.harness import OURS, Batch, Row

_ALONE = "Python alone"


def rows(disk: Disk) -> list[Row]:
    """CPU of whole processes, that of Python itself being in all of them."""
    folder = disk.fresh()
    folder.mkdir()
    # Compiled once, in the round that is thrown away, whatever the environment says of that.
    spared = {name: it for name, it in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled = spared | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}

    def process(code: str) -> Batch:
        command = [sys.executable, "-c", code]
        return lambda: lambda: subprocess.run(command, check=True, env=compiled, cwd=folder)

    loaded = {
        OURS: process("import sessionstore"),
        peers.name("fsspec", ""): process("import fsspec"),
        peers.name("diskcache", ""): process("import diskcache"),
        peers.name("boto3", ""): process("import boto3"),
        _ALONE: process("pass"),
    }
    opened = {
        OURS: process("import sessionstore; sessionstore.SessionStore.open('ours').close()"),
        peers.name("diskcache", "Cache"): process("import diskcache; diskcache.Cache('c').close()"),
        _ALONE: process("pass"),
    }
    return [
        Row("Start-up", "import sessionstore", loaded, None),
        Row("Start-up", "and open a store on a disk", opened, None),
    ]
