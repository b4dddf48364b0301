"""The memory of a process that receives a large upload in pieces, as the system counts it."""

from __future__ import annotations

import io
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sessionstore.backends.objects.client import Payload
from sessionstore.content import TempSpool
from sessionstore.uploads import PIECE
from tests.support import seaweed

ALLOWANCE = 64 << 10
"""KiB that a process may take more, of which malloc(3) keeps most for its threads."""

RECEIVES = """
import os, pathlib, queue, sys, threading
from sessionstore import SessionStore
from sessionstore.uploads import PIECE

def peak():  # KiB; getrusage's would count what the parent had before exec(2)
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

def piece():
    block = os.urandom(16) + bytes(range(256)) * 4096
    return (block[start : start + (1 << 20)] for start in [0] * (PIECE >> 20))

def receive(session, name, count):
    upload = session.begin_upload(name, count * PIECE)
    for number in range(count):
        on_the_next_thread(lambda: session.upload(upload.id).write(number * PIECE, piece()))
    on_the_next_thread(lambda: session.upload(upload.id).finish())

def serve(calls):
    while True:
        calls.get()()
        done.put(None)

threads, done = [queue.Queue() for _ in range(16)], queue.Queue()
for calls in threads:
    threading.Thread(target=serve, args=[calls], daemon=True).start()

def on_the_next_thread(call):
    threads.append(threads.pop(0))
    threads[0].put(call)
    done.get(timeout=300)

with SessionStore.open(sys.argv[1], settings=False, engine=sys.argv[2]) as store:
    session = store.session("tab", "ada")
    receive(session, "small", 2)
    before = peak()
    receive(session, "large", 32)
    print(session.get("large").size, peak() - before)
"""


@pytest.mark.server
@pytest.mark.parametrize("engine", ["boto3", "obstore"])
def test_a_large_upload_takes_little_memory(seaweed_server: seaweed.Server, engine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RECEIVES, seaweed_server.url(f"memory-{engine}"), engine],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env={**os.environ, **seaweed.ENVIRONMENT},
    )  # fmt: skip
    size, more = map(int, done.stdout.split())
    assert size == 32 * PIECE
    assert more <= ALLOWANCE


def test_a_spooled_piece_is_sent_without_a_copy_in_memory() -> None:
    data = os.urandom(1 << 20) * 2
    spool = TempSpool()
    spool.write(data)
    sent = Payload(spool.file, 0, len(data)).mapped()
    spool.close()

    assert isinstance(sent, mmap.mmap)
    assert sent[:] == data


@pytest.mark.parametrize("start", [0, 2])
def test_other_bytes_are_sent_as_they_are(start: int) -> None:
    data = b"--abc--"
    assert Payload(data, start, 3).mapped() == data[start : start + 3]
    assert Payload(io.BytesIO(data), start, 3).mapped() == data[start : start + 3]
