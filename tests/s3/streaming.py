"""Save a large file and read it back, in a process of its own, and say what memory that took.

    python -m tests.s3.streaming URL MEGABYTES

Prints one line of JSON: MB/s each way, and by how many MB the process's peak grew.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sessionstore import Session, SessionStore

MB = 1_000_000
PIECE = random.Random(1).randbytes(MB)


def pieces(count: int) -> Iterator[bytes]:
    """So many MB, no two alike."""
    for number in range(count):
        yield number.to_bytes(8, "big") + PIECE[8:]


def peak() -> float:
    """The most memory this process ever had, in MB.

    Not by getrusage(2), which counts what the parent had before exec(2), and that is more.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MB


def read(session: Session, name: str) -> str:
    """The SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with session.open(name) as file:
        while chunk := file.read(MB):
            digest.update(chunk)
    return digest.hexdigest()


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    with SessionStore.open(url) as store:
        session = store.session("large")
        session.put("small", pieces(3))  # everything is imported and connected after this
        read(session, "small")
        began, before = time.perf_counter(), peak()
        file = session.put("large", pieces(count))
        saved, after_save = time.perf_counter(), peak()
        assert read(session, "large") == file.digest
        done, after_read = time.perf_counter(), peak()
    told = {
        "size": file.size,
        "up": count / (saved - began),
        "down": count / (done - saved),
        "memory up": after_save - before,
        "memory down": after_read - before,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
