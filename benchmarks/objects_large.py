"""512 MB up and down, each in a process of its own, so that its memory is its own too.

Beside one bare request stands the same request with a digest of the bytes: made before it on the
way up, since it names the object, and as the bytes come on the way down. That is the floor for
whoever keeps content once and checks it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Figure

_SCRIPT = """
import hashlib, json, os, pathlib, resource, sys, time
what, endpoint, path, key = sys.argv[1:]
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
size = os.path.getsize(path)

def peak():  # KiB; getrusage's would count the parent's from before exec(2)
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

def read(stream, update=len):
    count = 0
    while part := stream.read(1 << 20):
        count += len(part)
        update(part)
    assert count == size

def digest(file):
    read(file, hashlib.sha256().update)
    file.seek(0)
    return file

name, engine, algorithm, way = what.split("-")
if name == "ours":
    from sessionstore import SessionStore
    url = f"s3://sessions/{engine}-{algorithm}?endpoint_url={endpoint}"
    store = SessionStore.open(url, engine=engine, digest=algorithm)
    session = store.session("one")
    session.put("small", b"x" * (1 << 20))
    session.read("small")
    if way == "up":
        work = lambda: session.put(key, pathlib.Path(path))
    else:
        work = lambda: read(session.open(key))
else:
    import boto3
    from botocore.config import Config
    client = boto3.client("s3", endpoint_url=endpoint, config=Config(
        s3={"payload_signing_enabled": False}, request_checksum_calculation="when_required",
        response_checksum_validation="when_required", read_timeout=300))
    client.put_object(Bucket="sessions", Key="small", Body=b"x" * (1 << 20))
    read_small = client.get_object(Bucket="sessions", Key="small")["Body"].read()
    first, update = (digest, hashlib.sha256().update) if algorithm != "none" else (iter, len)
    if way == "up":
        work = lambda: client.put_object(Bucket="sessions", Key=key, Body=first(open(path, "rb")))
    else:
        work = lambda: read(client.get_object(Bucket="sessions", Key=key)["Body"], update)
before, used, began = peak(), cpu(), time.perf_counter()
work()
print(json.dumps([time.perf_counter() - began, cpu() - used, (peak() - before) / 1024]))
"""


class Seen(NamedTuple):
    """Seconds by the clock, seconds of CPU, and MiB of memory beyond what was there."""

    wall: float
    cpu: float
    memory: float


BARE, BARE_DIGEST = "bare-boto3-none", "bare-boto3-sha256"

SIDES = {
    "boto3": "ours-boto3-sha256",
    "boto3, blake3": "ours-boto3-blake3",
    "obstore": "ours-obstore-sha256",
    "obstore, blake3": "ours-obstore-blake3",
}
"""What is measured beside the bare request: an engine and a digest."""


def figures(endpoint: str, path: Path, rounds: int) -> Iterator[Figure]:
    """Up and down in turn; ratios of the speed to one bare request that streams the same file."""
    seen: dict[str, list[Seen]] = {}
    for number in range(rounds):
        _make_new(path, number)
        for way in ("up", "down"):
            names = [BARE, BARE_DIGEST, *SIDES.values()]
            for name in names[:: 1 if number % 2 else -1]:
                side = f"{name}-{way}"
                seen.setdefault(side, []).append(_run(endpoint, side, path, f"large-{number}"))
    group = f"S3: {path.stat().st_size >> 20} MiB"
    for way, peer in (("up", "put_object"), ("down", "get_object")):
        bare, with_digest = seen[f"{BARE}-{way}"], seen[f"{BARE_DIGEST}-{way}"]
        for what, side in SIDES.items():
            ours = seen[f"{side}-{way}"]
            speed, beside = _speed(ours, bare), _beside(path, ours, bare, with_digest)
            goal = 0.85 if side.endswith("sha256") else None
            name = f"{way}, {what}: MB/s, of one bare {peer}"
            yield Figure(group, name, speed, "x", goal, "", beside, at_least=True)
            memory = {"bare": max(it.memory for it in bare)}
            most = max(it.memory for it in ours)
            yield Figure(group, f"{way}, {what}: more RSS", most, "MiB", 48, "most", memory)


def _beside(
    path: Path, ours: list[Seen], bare: list[Seen], with_digest: list[Seen]
) -> dict[str, float]:
    mib = path.stat().st_size >> 20
    return {
        "of one with a digest": _speed(ours, with_digest),
        "ours, MiB/s": mib / statistics.median(it.wall for it in ours),
        "bare, MiB/s": mib / statistics.median(it.wall for it in bare),
        "CPU s: ours": statistics.median(it.cpu for it in ours),
        "bare with a digest": statistics.median(it.cpu for it in with_digest),
        "bare": statistics.median(it.cpu for it in bare),
    }


def _speed(ours: list[Seen], theirs: list[Seen]) -> float:
    """Ours as a multiple of theirs, round by round."""
    return statistics.median(b.wall / o.wall for b, o in zip(theirs, ours, strict=True))


def _make_new(path: Path, number: int) -> None:
    """Let the file be other bytes in each round: the store keeps equal ones once."""
    with open(path, "r+b") as file:
        file.write(number.to_bytes(8, "big"))


def _run(endpoint: str, what: str, path: Path, key: str) -> Seen:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, what, endpoint, str(path), key],
        check=True, capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    return Seen(*json.loads(done.stdout))
