"""The app and the nginx configuration of the pages on deployment, as processes on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import yaml  # type: ignore[import-untyped] # it comes with Gradio, its types do not

from tests.docs.test_readme import GUIDES, ROOT, blocks
from tests.gradio.test_browser import PATIENTLY
from tests.support.ports import free_port

EXAMPLE = ROOT / "examples" / "compose"
PAGES = "\n".join(guide.read_text() for guide in GUIDES)
START = 180.0
"""Seconds until a program that has not started is a failure."""

NGINX = """
daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log warn;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    {example}
}}
"""


@pytest.mark.parametrize("name", ["app.py", "Dockerfile", "compose.yaml", "nginx.conf"])
def test_a_page_shows_the_whole_file(name: str) -> None:
    assert (EXAMPLE / name).read_text().strip() in PAGES


@pytest.mark.parametrize(
    ("language", "parse"),
    [
        ("yaml", lambda text: list(yaml.safe_load_all(text))),
        ("toml", tomllib.loads),
        ("json", json.loads),
    ],
)
def test_each_configuration_of_a_page_can_be_parsed(
    language: str, parse: Callable[[str], object]
) -> None:
    found = [block for guide in GUIDES for block in blocks(guide, language)]

    assert found
    for block in found:
        parse(block)


@contextmanager
def running(place: Path, *command: str, url: str, **environ: str) -> Iterator[None]:
    """Run a program until the block ends; enter the block when it answers at ``url``."""
    with (
        (place / f"{Path(command[0]).name}-{url[-4:]}.log").open("wb") as log,
        subprocess.Popen(
            command, cwd=place, env={**os.environ, **environ}, stdout=log, stderr=log
        ) as process,
    ):
        try:
            deadline = time.monotonic() + START
            while not answers(url):
                assert process.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, f"nothing answers at {url}"
                time.sleep(0.1)  # another program is starting: there is no event to wait for
            yield
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


@pytest.mark.server
@pytest.mark.parametrize("path", ["/", "/shout"])
def test_behind_nginx_each_event_of_two_replicas_succeeds(
    path: str, tmp_path: Path, nginx_path: str
) -> None:
    """The second path is that of an app that is mounted below the root."""
    code = (EXAMPLE / "app.py").read_text()
    assert code.count('path="/"') == 1
    (tmp_path / "app.py").write_text(code.replace('path="/"', f'path="{path}"'))
    ports = {f"app-{number}": free_port() for number in (1, 2)}
    entrance = free_port()
    example = (EXAMPLE / "nginx.conf").read_text().replace("listen 80;", f"listen {entrance};")
    for name, port in ports.items():
        example = example.replace(f"{name}:7860", f"127.0.0.1:{port}")
    (tmp_path / "nginx.conf").write_text(NGINX.format(place=tmp_path, example=example))

    with ExitStack() as programs:
        for name, port in ports.items():
            programs.enter_context(
                running(
                    tmp_path, sys.executable, "-m", "uvicorn", "app:app", f"--port={port}",
                    "--timeout-graceful-shutdown=1", url=f"http://127.0.0.1:{port}/healthz",
                    HOSTNAME=name, SESSIONSTORE_URL="file:store", PYTHONPATH=str(ROOT),
                    GRADIO_TEMP_DIR=str(tmp_path / "cache"),
                )
            )  # fmt: skip
        url = f"http://127.0.0.1:{entrance}"
        configuration = ("-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
        programs.enter_context(running(tmp_path, nginx_path, *configuration, url=f"{url}/healthz"))
        served_by: set[str] = set()
        for _ in range(5):  # one time in 512 the ten visitors are all of one replica
            checked = subprocess.run(
                [*PATIENTLY, str(EXAMPLE / "check.py"), url + path.rstrip("/")],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert checked.returncode == 0, checked.stdout + checked.stderr
            assert "10 of 10 events" in checked.stdout
            served_by |= {name for name in ports if name in checked.stdout}
            if len(served_by) == len(ports):
                break

    assert served_by == {"app-1", "app-2"}
