"""A large upload, and an event that returns it: what an attached app costs beside plain Gradio.

    python -m benchmarks.large_uploads --size 5000 --rounds 1
    python -m benchmarks.large_uploads --size 5000 --signed

Megabytes. The attached app gets the file in pieces, request by request as the script in the page
sends them, the plain one in Gradio's one request. Each round starts both apps anew, in turn, on a
local disk, in a memory that is full of cached pages. With ``--signed`` the file goes by presigned
URLs to a bucket of SeaweedFS, and what is measured is ``finish``, in a process of its own that
finished a small one before.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from benchmarks.attach import SIDES, Served, served
from benchmarks.harness import cpu_seconds, most_memory

MB = 1_000_000
PIECE = 8 << 20
"""The bytes of a request of the page, ``upload_pieces`` of ``attach``."""

BLOCK = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}
SPARE = 300 * MB  # of memory that is left free
PARTS = 8  # URLs that are asked for at a time


@dataclass
class File:
    """A file of ``size`` bytes that no other one equals, and the digest of what was read of it."""

    size: int
    digest: Any = field(default_factory=hashlib.sha256)

    def blocks(self) -> Iterator[bytes]:
        block = os.urandom(BLOCK)
        for start in range(0, self.size, BLOCK):
            data = (secrets.token_bytes(16) + block[16:])[: self.size - start]
            self.digest.update(data)
            yield data

    def pieces(self, size: int = PIECE) -> Iterator[bytes]:
        piece = bytearray()
        for block in self.blocks():
            piece += block
            while len(piece) >= size:
                yield bytes(piece[:size])
                del piece[:size]
        if piece:
            yield bytes(piece)


class Seen(NamedTuple):
    """CPU seconds of upload and event; memory beyond what was there, and the disk, in bytes."""

    upload: float
    event: float
    memory: int
    disk: int

    @property
    def cpu(self) -> float:
        return self.upload + self.event


def measured(side: str, folder: Path, size: int) -> Seen:
    """Upload a small file and a large one, and have an event return each."""
    with served(side, folder) as server:
        send = whole if side == "plain" else in_pieces
        echo(server, send(server, File(20 * MB)))
        pid, disk, file = server.process.pid, on_disk(folder), File(size)
        before, begun = most_memory(pid), server.cpu_seconds()
        path = send(server, file)
        sent = server.cpu_seconds()
        returned = echo(server, path)
        ended = server.cpu_seconds()
        with open(returned, "rb") as bytes_:
            if hashlib.file_digest(bytes_, "sha256").digest() != file.digest.digest():
                raise RuntimeError("The app has other bytes.")
        time.sleep(1)  # what the answer did not wait for
        memory, disk = most_memory(pid) - before, on_disk(folder) - disk
        return Seen(sent - begun, ended - sent, memory, disk)


def whole(server: Served, file: File) -> str:
    """Upload as Gradio's client does, in one request."""
    mark = secrets.token_hex(16)
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="film.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{mark}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        yield from file.blocks()
        yield tail

    headers = {
        "Content-Type": f"multipart/form-data; boundary={mark}",
        "Content-Length": str(len(head) + file.size + len(tail)),
    }
    url = f"{server.url}/app/gradio_api/upload"
    answer = server.client.post(url, headers=headers, content=body()).raise_for_status()
    return str(answer.json()[0])


def in_pieces(server: Served, file: File) -> str:
    """Upload as the script in an attached page does."""
    url, client = f"{server.url}/app/gradio_api/upload/pieces", server.client
    name = base64.b64encode(b"film.bin").decode()
    told = {**TUS, "Upload-Length": str(file.size), "Upload-Metadata": f"filename {name}"}
    place = client.post(url, headers=told).raise_for_status().headers["Location"].split("/")[-1]
    offset = 0
    for piece in file.pieces():
        here = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        client.patch(f"{url}/{place}", headers={**TUS, **here}, content=piece).raise_for_status()
        offset += len(piece)
    return str(client.get(f"{url}/{place}", headers=TUS).raise_for_status().json())


def echo(server: Served, path: str) -> str:
    """Have an event return the file; return its path then."""
    given = {"path": path, "meta": {"_type": "gradio.FileData"}}
    (answer,) = server.call("echo", "the visitor", given)
    return str(answer["path"])


def fill_memory(folder: Path) -> None:
    """Leave no memory free, by pages of a sparse file, which the kernel gives to who needs them.

    So it is on a server that runs for days. On a virtual machine memory that is free may be the
    host's: to get it back takes up to 2 s of CPU for each GiB, of whom comes first.
    """
    free = Path("/proc/meminfo").read_text().split("MemFree:")[1].split()[0]
    sparse = folder / "sparse"
    with sparse.open("a+b", buffering=0) as file:
        os.truncate(sparse, sparse.stat().st_size + max((int(free) << 10) - SPARE, 0))
        file.seek(0)
        while file.read(BLOCK):
            pass


def on_disk(folder: Path) -> int:
    """The bytes that the files below take; one with several names once."""
    files: dict[int, int] = {}
    for where, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(where, name), follow_symlinks=False)
            files[status.st_ino] = status.st_blocks * 512
    return sum(files.values())


def compare(size: int, rounds: int, directory: Path | None) -> None:
    """Measure both sides in turn, and print a table."""
    found: dict[str, list[Seen]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(dir=directory) as memory:
        for number in range(rounds):
            for side in SIDES[:: 1 if number % 2 else -1]:
                fill_memory(Path(memory))
                with tempfile.TemporaryDirectory(dir=directory) as folder:
                    found[side].append(measured(side, Path(folder, side), size * MB))
    print(f"A file of {size} MB, {rounds} rounds; CPU in seconds, memory and disk in MiB:\n")
    print("| | CPU | upload | event | more memory | on the disk |\n|---|---:|---:|---:|---:|---:|")
    for side, seen in found.items():
        cpu, upload, event = (
            statistics.median(getattr(each, name) for each in seen)
            for name in ("cpu", "upload", "event")
        )
        most, disk = (
            max(getattr(each, what) for each in seen) >> 20 for what in ("memory", "disk")
        )
        print(f"| {side} | {cpu:.2f} | {upload:.2f} | {event:.2f} | {most} | {disk} |")
    pairs = zip(found["attached"], found["plain"], strict=True)
    ratios = sorted(ours.cpu / theirs.cpu for ours, theirs in pairs)
    middle = statistics.median(ratios)
    print(
        f"\nCPU, attached of plain: {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), reach 2.0"
    )


class Finished(NamedTuple):
    """Seconds by the clock and of CPU, and the bytes of memory beyond what was there."""

    wall: float
    cpu: float
    memory: int


def finish(url: str, upload: str) -> Finished:
    """Finish a signed upload in this process."""
    from sessionstore import SessionStore

    with SessionStore.open(url) as store:
        signed = store.session("the visitor").signed_upload(upload)
        memory, cpu, begun = most_memory(), cpu_seconds(), time.perf_counter()
        signed.finish()
        took, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
        return Finished(took, cpu, most_memory() - memory)


def signed(size: int) -> None:
    """Upload by presigned URLs, and print what ``finish`` takes."""
    from sessionstore import SessionStore
    from tests.support import seaweed

    with ExitStack() as stack:
        os.environ.update(seaweed.ENVIRONMENT)
        server = stack.enter_context(seaweed.serving(seaweed.program() or "weed"))
        url = server.url("large")
        store = stack.enter_context(SessionStore.open(url))
        client = stack.enter_context(httpx.Client(timeout=300))
        spawned = multiprocessing.get_context("spawn")  # its memory is its own
        finisher = stack.enter_context(ProcessPoolExecutor(1, spawned))
        session = store.session("the visitor")
        for each in (40 * MB, size * MB):  # the first use of anything takes memory for good
            file = File(each)
            upload = session.begin_signed_upload("film.bin", file.size)
            urls: dict[int, str] = {}
            for number, data in enumerate(file.pieces(upload.part_size), 1):
                if number not in urls:
                    urls = upload.urls(range(number, min(number + PARTS, upload.parts + 1)))
                client.put(urls[number], content=data).raise_for_status()
            finished = finisher.submit(finish, url, upload.id).result()
        saved = session.get("film.bin")
        right = saved.digest == file.digest.hexdigest() and not upload.missing()
        read = hashlib.sha256()
        with saved.open() as stream:
            while chunk := stream.read(BLOCK):
                read.update(chunk)
    right = right and read.hexdigest() == saved.digest
    wall, cpu, memory = finished
    print(
        f"{size} MB by presigned URLs: {'every byte' if right else 'WRONG BYTES'}; finish took "
        f"{wall:.1f} s, {cpu:.1f} s of CPU, {memory >> 20} MiB more memory"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_uploads")
    parser.add_argument("--size", type=int, default=200, help="megabytes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--signed", action="store_true")
    parser.add_argument("--directory", type=Path, help="where to write (a temporary directory)")
    asked = parser.parse_args()
    if asked.signed:
        signed(asked.size)
    else:
        compare(asked.size, asked.rounds, asked.directory)


if __name__ == "__main__":
    main()
