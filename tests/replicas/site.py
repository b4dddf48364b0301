"""The replicas, each with a disk of its own at the same path, and nginx in front of them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support import seaweed
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
REPLICAS = 2

START = 120.0
"""Seconds until a program that has not started is a failure."""

PATIENCE = 60.0
"""Seconds until something that the page does not show is a failure."""

IMPATIENCE = 8.0
"""The same without a store, where much of what the page is asked to show never comes."""

LINGER = 2.0
"""Seconds."""

SERVED_BY = "x-replica"
"""The header in which nginx says which replica answered."""

SEEN = "disk"
"""The name of the directory that is each replica's own disk, as seen from inside."""

PREFIX = "replicas"
"""Where in the bucket the store is."""

_MOUNT = 'mount --bind "$0" "$1" && cd "$1" && shift && exec "$@"'

_NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {place}/nginx.pid;
error_log {place}/error.log warn;
events {{ }}
http {{
    log_format requests escape=json '{{"replica": "$upstream_addr", "status": $status, '
        '"method": "$request_method", "uri": "$uri", "session": "$event_session"}}';
    access_log {place}/access.log requests;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    client_max_body_size {largest};

    # A queued event is two requests that must reach one process: POST queue/join names its
    # session in the body, GET queue/data in the query. One without the queue is a single request,
    # POST run/..., and needs that process for gr.State. Nothing else is bound to a replica.
    map $request_body $joined_session {{
        "~\\"session_hash\\": *\\"(?<hash>[^\\"]+)\\"" $hash;
    }}
    map $arg_session_hash $event_session {{
        "" $joined_session;
        default $arg_session_hash;
    }}
    map $upstream_addr $answered_by {{
        "~(?<last>[^ ,]+)$" $last;
    }}
    upstream any {{
        {servers}
    }}
    upstream of_the_event {{
        hash $event_session consistent;
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_buffering off;
        proxy_request_buffering off;
        proxy_read_timeout 1h;
        add_header X-Replica $upstream_addr always;
        location / {{
            proxy_pass http://any;
        }}
        {events}
    }}
}}
"""

_BY_SESSION = """
        location ~ ^/gradio_api/(queue|run)/ {
            client_body_buffer_size 1m;
            proxy_request_buffering on;
            proxy_pass http://of_the_event;
        }
"""
"""All events of a page go to one replica, as with sticky sessions."""

_BY_EVENT = """
        location = /gradio_api/queue/join {
            add_header X-Replica $upstream_addr always;
            add_header Set-Cookie "joined_at=$answered_by; Path=/";
            proxy_pass http://any;
        }
        location ~ ^/gradio_api/queue/(data|cancel) {
            proxy_pass http://$cookie_joined_at;
        }
"""
"""Each event goes to the next replica, and its second half where its first one went."""


def namespaces() -> list[str] | None:
    """The command that gives a program mounts of its own; None where that is not permitted."""
    for options in (["--mount"], ["--mount", "--map-root-user"]):
        command = ["unshare", *options, "--propagation", "private"]
        with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
            check = [*command, "sh", "-c", "mount --bind /tmp /tmp"]
            subprocess.run(check, check=True, capture_output=True)
            return command
    return None


@dataclass
class Replica:
    """A process of the app. What it has on its disk is at ``disk`` as seen from outside."""

    number: int
    place: Path
    port: int
    environment: dict[str, str]
    program: str = "tests.replicas.app"
    disk: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def log(self) -> Path:
        return self.place / f"replica-{self.number}.log"

    def start(self) -> None:
        """Start it, on an empty disk."""
        command = namespaces()
        assert command is not None
        self.starts += 1
        self.disk = self.place / f"disk-{self.number}-{self.starts}"
        for name in ("tmp", "cache"):
            (self.disk / name).mkdir(parents=True)
        seen = self.place / SEEN
        seen.mkdir(exist_ok=True)
        program = [sys.executable, "-m", self.program]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "sh", "-c", _MOUNT, str(self.disk), str(seen), *program],
                env={**os.environ, **self.environment, "GRADIO_SERVER_PORT": str(self.port)},
                cwd=self.place,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Return when it answers."""
        assert self.process is not None
        deadline = time.monotonic() + START
        while not answers(self.url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"replica {self.number} does not start\n{self.said()}")
            time.sleep(0.05)  # another program is starting: there is no event to wait for

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-5000:]

    def holds(self, path: str) -> bool:
        """Whether what it sees as this path is on its disk."""
        return (self.disk / Path(path).relative_to(self.place / SEEN)).exists()

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass(frozen=True)
class Request:
    """A line of nginx's log: a request that has been answered, and by whom."""

    replica: str
    status: int
    method: str
    uri: str
    session: str

    @classmethod
    def of(cls, line: dict[str, Any]) -> Request:
        """From a line; of several replicas that nginx tried, the last one answered."""
        return cls(**{**line, "replica": line["replica"].split(", ")[-1]})


@dataclass(frozen=True)
class Site:
    """What a visitor reaches, at ``url``."""

    url: str
    replicas: list[Replica]
    log: Path
    patience: float
    """Seconds in which its page shows what it is asked for, or does not."""
    bucket: seaweed.Server | None

    def requests(self, since: int = 0) -> list[Request]:
        """What nginx has logged, but for the first ``since`` requests."""
        lines = self.log.read_text().splitlines()[since:]
        return [Request.of(json.loads(line)) for line in lines]

    def references(self, digests: set[str]) -> list[str]:
        """The names of the objects by which any session in the store has one of these contents."""
        if self.bucket is None:
            return []
        pages = self.bucket.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=seaweed.BUCKET, Prefix=f"{PREFIX}/s/")
        keys = (each["Key"] for page in found for each in page.get("Contents", ()))
        return [key for key in keys if not digests.isdisjoint(key.split("."))]

    def shift(self) -> None:
        """Send one request, or none: or else the same request of each visitor is one replica's."""
        if random.random() < 0.5:
            httpx.get(f"{self.url}/config")

    def other(self, address: str) -> Replica:
        """A replica that is not the one at this address."""
        return next(each for each in self.replicas if each.address != address)

    def mend(self) -> None:
        """Start the replicas that were killed, and return when they answer."""
        dead = [each for each in self.replicas if each.process is None]
        for each in dead:
            each.start()
        for each in dead:
            each.wait()

    def begin(self) -> None:
        """Return when nginx sends requests to all replicas."""
        for each in self.replicas:
            each.wait()
        eventually(START, self._all_take_part)

    def _all_take_part(self) -> bool:
        config = f"{self.url}/config"
        try:
            answered = [httpx.get(config).headers[SERVED_BY] for _ in self.replicas]
        except httpx.TransportError:  # nginx itself is starting
            return False
        return {*answered} == {each.address for each in self.replicas}


@contextlib.contextmanager
def serving(
    place: Path,
    bucket: seaweed.Server | None,
    nginx: str,
    largest: str = "0",
    program: str = "tests.replicas.app",
    **environment: str,
) -> Iterator[Site]:
    """The app on its replicas: attached to a store in the bucket, or plain Gradio without one.

    ``largest`` is what nginx takes as the size of a request's body; 0 for any. Each event of
    another ``program`` goes to the next replica.
    """
    port = free_port()
    seen = place / SEEN
    settings = {
        **seaweed.ENVIRONMENT,
        "PYTHONPATH": str(ROOT),
        "SESSIONSTORE_URL": "" if bucket is None else bucket.url(PREFIX),
        "SESSIONSTORE_LINGER": f"{LINGER}s",
        "SESSIONSTORE_SECRET": "the same on all replicas",
        "GRADIO_TEMP_DIR": str(seen / "cache"),
        "GRADIO_EXAMPLES_CACHE": str(seen / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "TMPDIR": str(seen / "tmp"),
        **environment,
    }
    replicas = [Replica(n + 1, place, free_port(), settings, program) for n in range(REPLICAS)]
    patience = IMPATIENCE if bucket is None else PATIENCE
    site = Site(f"http://127.0.0.1:{port}", replicas, place / "access.log", patience, bucket)
    with contextlib.ExitStack() as stack:
        for each in replicas:
            stack.callback(each.kill)
            each.start()
        events = _BY_SESSION if program == "tests.replicas.app" else _BY_EVENT
        settings = {"largest": largest, "events": events}
        stack.enter_context(_proxy(place, nginx, port, replicas, settings))
        site.begin()
        yield site


@contextlib.contextmanager
def _proxy(
    place: Path, nginx: str, port: int, replicas: list[Replica], settings: dict[str, str]
) -> Iterator[None]:
    servers = " ".join(f"server {each.address} fail_timeout=1s;" for each in replicas)
    config = place / "nginx.conf"
    config.write_text(_NGINX.format(place=place, port=port, servers=servers, **settings))
    process = subprocess.Popen([nginx, "-c", str(config), "-e", str(place / "error.log")])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def eventually(seconds: float, condition: Callable[[], bool]) -> float:
    """Wait until the condition holds, and say for how long; a failure when it takes longer."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"it took longer than {seconds} s")
        time.sleep(0.05)  # another process is waited for, and it tells nobody
    return time.monotonic() - begun
