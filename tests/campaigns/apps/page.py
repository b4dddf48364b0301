"""A visitor with Gradio's page: the requests of the page, without its JavaScript."""

from __future__ import annotations

import http.cookiejar
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tests.campaigns.apps.notes import Notes, digest, urls_in
from tests.campaigns.apps.samples import SAMPLES, plausible
from tests.campaigns.apps.settings import Settings

PATIENCE: Final = 30.0
"""Seconds that an event may take."""


def client() -> httpx.Client:
    """Return an HTTP client with cookies of its own; it sends them over http too."""
    policy = http.cookiejar.DefaultCookiePolicy(secure_protocols=("http", "https"))
    jar = httpx.Cookies(http.cookiejar.CookieJar(policy))
    return httpx.Client(cookies=jar, timeout=PATIENCE, follow_redirects=True)


class Files:
    """Fetches the files that an app links to, and notes the responses."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def fetch(self, by: httpx.Client, step: str, value: Any) -> list[str]:
        """Fetch every file in ``value`` and note it below ``step``; return their URLs."""
        urls = list(dict.fromkeys(urls_in(value)))
        for number, url in enumerate(urls, 1):
            self.one(by, f"{step}, file {number}", url)
        return urls

    def one(self, by: httpx.Client, step: str, url: str) -> None:
        """Fetch the file at ``url``."""
        try:
            answer = by.get(self.here(url))
            ok = answer.status_code == httpx.codes.OK
            self.notes.add(step, ok, _described(answer))
            if ok and step.startswith("first: event 1"):
                head = by.head(self.here(url))
                self.notes.add(f"{step}, HEAD", head.is_success, _described(head))
                part = by.get(self.here(url), headers={"range": "bytes=2-5"})
                # Gradio's answer to a range lacks the file's name.
                described = f"{part.status_code} {digest(part.content)}"
                self.notes.add(f"{step}, range", part.is_success, described)
        except httpx.HTTPError as error:
            self.notes.add(step, ok=False, detail=repr(error))

    def here(self, url: str) -> str:
        """Return the URL of this app that a proxy serves as ``url``."""
        _, found, path = url.partition("/gradio_api/")
        if found:
            return f"{self.notes.url}/gradio_api/{path}"
        return url if urlsplit(url).scheme else self.notes.url + url


def _described(answer: httpx.Response) -> str:
    kind = answer.headers.get("content-type", "")
    place = answer.headers.get("content-disposition", "")
    return f"{answer.status_code} {digest(answer.content)} {kind} {place}"


class Page:
    """An open page of an app, and the visitor in front of it."""

    def __init__(self, name: str, notes: Notes, settings: Settings, files: Files) -> None:
        self.name, self.notes, self.settings, self.files = name, notes, settings, files
        self.client = client()
        self.session_hash = secrets.token_hex(6)
        self.given: list[str] = []
        """The URLs of all files that the page was given."""
        self.components: dict[int, dict[str, Any]] = {}
        self.values: dict[int, Any] = {}
        self.dependencies: list[dict[str, Any]] = []
        self._heartbeat: tuple[httpx.Response, Iterator[str]] | None = None

    def api(self, path: str) -> str:
        return f"{self.notes.url}/gradio_api/{path}"

    def open(self) -> bool:
        """Log in, load the page and its configuration, and open its heartbeat."""
        if self.settings.login is not None:
            name, password = self.settings.login
            form = {"username": name, "password": password}
            self.client.post(f"{self.notes.url}/login", data=form).raise_for_status()
        if self.settings.oauth:
            self.client.get(f"{self.notes.url}/login/huggingface")
        page = self.client.get(self.notes.url + "/")
        self.notes.add(f"{self.name}: page", page.is_success, str(page.status_code))
        answer = self.client.get(self.notes.url + "/config")
        if not self.notes.add(f"{self.name}: config", answer.is_success, str(answer.status_code)):
            return False
        config = answer.json()
        self._learn(config)
        self.dependencies = config["dependencies"]
        if config.get("connect_heartbeat"):
            self._beat()
        return True

    def _beat(self) -> None:
        request = self.client.build_request("GET", self.api(f"heartbeat/{self.session_hash}"))
        response = self.client.send(request, stream=True)
        lines = response.iter_lines()
        next(lines)
        self._heartbeat = response, lines  # when the lines are collected, the connection closes

    def leave(self) -> None:
        """Close the page."""
        if self._heartbeat is not None:
            self._heartbeat[0].close()
        self.client.close()

    def _learn(self, config: dict[str, Any]) -> None:
        for component in config["components"]:
            self.components[component["id"]] = component
            self.values[component["id"]] = component.get("props", {}).get("value")

    def look(self) -> None:
        """Fetch all that the page shows before any event."""
        for number, component in enumerate(self.components.values()):
            kind = component["type"]
            self._fetch(f"{self.name}: {kind} {number}", component.get("props", {}))

    def events(self, most: int) -> None:
        """Send each event of the page once, those of its load first."""
        waiting = sorted(self.dependencies, key=lambda each: not _is_load(each))
        sent = 0
        while waiting and sent < most:
            dependency = waiting.pop(0)
            if dependency.get("backend_fn"):
                sent += 1
                waiting += self.event(sent, dependency)
        # A generator's component streams may go on after their event; nothing here waits for them.

    def calls(self) -> None:
        """Call each function of a component that the app's settings name, as its script does."""
        for function, argument in self.settings.calls:
            has_it = (
                number
                for number, component in self.components.items()
                if function in component.get("server_fns", component["props"].get("server_fns", []))
            )
            body = {
                "session_hash": self.session_hash,
                "component_id": next(has_it),
                "fn_name": function,
                "data": argument,
            }
            step = f"{self.name}: call {function}"
            answer = self.client.post(self.api("component_server"), json=body)
            if self.notes.add(step, answer.is_success, answer.text):
                self._fetch(step, answer.json())

    def event(self, number: int, dependency: dict[str, Any]) -> list[dict[str, Any]]:
        """Send one event; return the dependencies that it has rendered."""
        step = f"{self.name}: event {number} {dependency.get('api_name') or ''}".rstrip()
        try:
            inputs = [self._input(each) for each in dependency["inputs"]]
            outputs = self._sent(dependency, inputs)
        except (httpx.HTTPError, EventError) as error:
            self.notes.add(step, False, f"{type(error).__name__} {error}")
            return []
        self.notes.add(step, True, [output.get("data") for output in outputs[-1:]])
        rendered: list[dict[str, Any]] = []
        for output in outputs:
            for target, value in zip(dependency["outputs"], output.get("data") or [], strict=False):
                self._update(target, value)
            config = output.get("render_config")
            if config is not None:
                self._learn(config)
                rendered = [each for each in config["dependencies"] if each.get("backend_fn")]
            self._fetch(step, [output.get("data"), config])
        return rendered

    def _fetch(self, step: str, value: Any) -> None:
        self.given += self.files.fetch(self.client, step, value)

    def _update(self, target: Any, value: Any) -> None:
        is_update = isinstance(value, dict) and value.get("__type__") == "update"
        if not is_update:
            self.values[target] = value
        elif "value" in value:
            self.values[target] = value["value"]

    def _input(self, target: int) -> Any:
        component = self.components.get(target, {"type": "state"})
        return plausible(component, self.values.get(target), self.upload)

    def upload(self, name: str) -> dict[str, Any]:
        """Upload a sample."""
        return upload(self.client, self.api("upload"), name, self.name)

    def _sent(self, dependency: dict[str, Any], inputs: list[Any]) -> list[dict[str, Any]]:
        body = {
            "data": inputs,
            "fn_index": dependency["id"],
            "session_hash": self.session_hash,
            "trigger_id": dependency["targets"][0][0] if dependency["targets"] else None,
            "event_data": None,
        }
        if dependency.get("queue") is False:
            answer = self.client.post(self.api("run/predict"), json=body)
            if not answer.is_success:
                raise EventError(f"{answer.status_code} {answer.text}")
            return [answer.json()]
        joined = self.client.post(self.api("queue/join"), json=body)
        if not joined.is_success:
            raise EventError(f"{joined.status_code} {joined.text}")
        return self._results(joined.json()["event_id"])

    def _results(self, event_id: str) -> list[dict[str, Any]]:
        params = {"session_hash": self.session_hash}
        outputs = []
        deadline = time.monotonic() + PATIENCE
        with self.client.stream("GET", self.api("queue/data"), params=params) as response:
            for line in response.iter_lines():
                if time.monotonic() > deadline:
                    raise EventError("no end")
                message = json.loads(line.removeprefix("data:")) if line else {}
                if message.get("event_id") != event_id:
                    continue
                if message["msg"] == "process_generating" and message.get("success", True):
                    outputs.append(message["output"])
                elif message["msg"] == "process_completed":
                    if not message["success"]:
                        raise EventError(str(message["output"].get("error")))
                    return [*outputs, message["output"]]
        raise EventError("the server closed the queue")


class EventError(Exception):
    """An event that failed."""


def upload(by: httpx.Client, url: str, name: str, visitor: str) -> dict[str, Any]:
    """Upload the sample ``name``, and return it as an input of an event.

    Each ``visitor`` has a text of their own; other samples are the same for all.
    """
    content = SAMPLES[name] + (visitor.encode() if name.endswith(".txt") else b"")
    answer = by.post(url, files={"files": (name, content)})
    if not answer.is_success:
        raise EventError(f"upload {answer.status_code} {answer.text}")
    path = answer.json()[0]
    meta = {"_type": "gradio.FileData"}
    return {"path": path, "orig_name": name, "size": len(content), "meta": meta}


def _is_load(dependency: dict[str, Any]) -> bool:
    return any(target[1] == "load" for target in dependency["targets"])
