"""512 MB up and down, each in a process of its own, so that its memory is its own too."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from benchmarks.harness import Figure

_SCRIPT = """
import json, os, pathlib, resource, sys, time
what, endpoint, path, key = sys.argv[1:]
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
size = os.path.getsize(path)

def peak():  # KiB; getrusage's would count the parent's from before exec(2)
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

def read(stream):
    count = 0
    while part := stream.read(1 << 20):
        count += len(part)
    assert count == size

if what.startswith("ours"):
    from sessionstore import SessionStore
    digest = what.partition("-blake3")[1].strip("-") or "sha256"
    store = SessionStore.open(f"s3://sessions/{digest}?endpoint_url={endpoint}", digest=digest)
    session = store.session("one")
    session.put("small", b"x" * (1 << 20))
    session.read("small")
    if what.endswith("up"):
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
    if what.endswith("up"):
        work = lambda: client.put_object(Bucket="sessions", Key=key, Body=open(path, "rb"))
    else:
        work = lambda: read(client.get_object(Bucket="sessions", Key=key)["Body"])
before, used, began = peak(), cpu(), time.perf_counter()
work()
print(json.dumps([time.perf_counter() - began, cpu() - used, (peak() - before) / 1024]))
"""


class Seen(NamedTuple):
    """Seconds by the clock, seconds of CPU, and MiB of memory beyond what was there."""

    wall: float
    cpu: float
    memory: float


def figures(endpoint: str, path: Path, rounds: int) -> Iterator[Figure]:
    """Up and down in turn; ratios of the speed to one bare request that streams the same file."""
    seen: dict[str, list[Seen]] = {}
    for number in range(rounds):
        _make_new(path, number)
        for what in ("up", "down"):
            names = [f"bare-{what}", f"ours-{what}", f"ours-blake3-{what}"]
            for name in names[:: 1 if number % 2 else -1]:
                seen.setdefault(name, []).append(_run(endpoint, name, path, f"large-{number}"))
    mib = path.stat().st_size >> 20
    group = f"S3 by {peers.name('boto3', '')}: {mib} MiB"
    for what, peer in (("up", "put_object"), ("down", "get_object")):
        bare, ours, blake3 = (seen[f"{each}-{what}"] for each in ("bare", "ours", "ours-blake3"))
        ratio = statistics.median(b.wall / o.wall for b, o in zip(bare, ours, strict=True))
        yield Figure(group, f"{what}: MB/s, of one bare {peer}", ratio, "x", 0.85, "", {
            "with blake3": statistics.median(
                b.wall / o.wall for b, o in zip(bare, blake3, strict=True)
            ),
            "ours, MiB/s": mib / statistics.median(it.wall for it in ours),
            "bare, MiB/s": mib / statistics.median(it.wall for it in bare),
            "CPU, ours to bare": statistics.median(it.cpu for it in ours)
            / statistics.median(it.cpu for it in bare),
        }, at_least=True)  # fmt: skip
        yield Figure(group, f"{what}: more RSS", max(it.memory for it in ours), "MiB", 48, "most",
                     {"bare": max(it.memory for it in bare)})  # fmt: skip


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
