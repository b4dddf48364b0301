"""Clients that are no page: MCP tools, ``gradio_client``, calls over HTTP, apps that load others.

The URL of a file in their results is a link, which answers a reader without cookies.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.external import from_spaces_blocks
from gradio_client import Client  # type: ignore[import-untyped]  # Gradio has no types for it
from mcp import ClientSession
from mcp.client import streamable_http
from mcp.client.sse import sse_client
from PIL import Image

from sessionstore import StoredFile
from sessionstore.adapters.gradio import session
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    LINGER,
    Heard,
    MakeReplicas,
    Replica,
    Tab,
    launched,
    replicas,
)

pytestmark = [
    GRADIO_S_OWN,
    pytest.mark.filterwarnings("ignore::Warning:pandas"),  # Gradio's own use of an old option
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # mcp's streams
]

TRANSPORTS = ["http", "sse"]
NAMES = ["made", "mine"]
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><rect width="8" height="8"/></svg>'


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def build(folder: Path) -> Callable[[], gr.Blocks]:
    """Return a maker of a demo; its handlers write below ``folder``."""

    def made(text: str) -> str:
        """Make a file."""
        path = folder / "note.txt"
        path.write_text(text)
        return str(path)

    def drawn(colour: str) -> Image.Image:
        """Draw a picture."""
        return Image.new("RGB", (8, 8), colour)

    def mine(text: str, request: gr.Request) -> StoredFile:
        """Save a file of the session."""
        return session(request).put("mine.txt", text.encode())

    def mine_at_once(text: str, request: gr.Request) -> StoredFile:
        """Save a file of the session, without the queue."""
        return session(request).put("at once.txt", text.encode())

    def names(text: str, request: gr.Request) -> str:
        """List the files of the session."""
        return " ".join([text, *(file.name for file in session(request).files())])

    def demo() -> gr.Blocks:
        blocks = gr.Blocks()
        with blocks:
            text, file, image = gr.Textbox(), gr.File(), gr.Image()
            gr.on(fn=made, inputs=text, outputs=file, api_name="made")
            gr.on(fn=drawn, inputs=text, outputs=image, api_name="drawn")
            gr.on(fn=mine, inputs=text, outputs=file, api_name="mine")
            gr.on(fn=mine_at_once, inputs=text, outputs=file, api_name="mine_at_once", queue=False)
            gr.on(fn=names, inputs=text, outputs=text, api_name="names")
        return blocks

    return demo


@asynccontextmanager
async def connected(replica: Replica, transport: str) -> AsyncIterator[ClientSession]:
    """An MCP client of the app, as the package ``mcp`` has it."""
    root = f"{replica.url}/gradio_api/mcp/"
    # The older name is that of the mcp that Gradio 5 takes.
    over_http: Any = vars(streamable_http).get("streamable_http_client")
    over_http = over_http or vars(streamable_http)["streamablehttp_client"]
    client: Any = over_http(root) if transport == "http" else sse_client(f"{root}sse", timeout=60)
    async with client as streams, ClientSession(streams[0], streams[1]) as mcp:
        await mcp.initialize()
        yield mcp


async def called(mcp: ClientSession, tool: str, **arguments: str) -> tuple[str, list[str]]:
    """Call a tool; gives the text of its result, and the kinds of its contents."""
    result = await mcp.call_tool(tool, arguments)
    assert not result.isError, result.content
    texts = [content.text for content in result.content if content.type == "text"]
    return texts[0], [content.type for content in result.content]


def url_in(text: str) -> str:
    found = re.search(r"http\S+", text)
    assert found is not None, text
    return found[0]


def fetched(url: str) -> httpx.Response:
    """Fetch as a program without cookies."""
    return httpx.get(url, follow_redirects=True)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_url_of_an_mcp_session_answers_while_the_session_lives(
    make: MakeReplicas, tmp_path: Path, transport: str
) -> None:
    replica = make(build(tmp_path), mcp_server=True)
    heard = Heard(replica.store, "ended", "dropped")

    async def main() -> dict[str, str]:
        async with connected(replica, transport) as mcp:
            tools = {"made": {"text": "note"}, "mine": {"text": "mine"}}
            tools["mine_at_once"] = {"text": "at once"}
            urls = {
                next(iter(arguments.values())): url_in((await called(mcp, tool, **arguments))[0])
                for tool, arguments in tools.items()
            }
            picture = url_in((await called(mcp, "drawn", colour="red"))[0])
            assert (await asyncio.to_thread(fetched, picture)).content.startswith(b"RIFF")
            for text, url in urls.items():
                assert (await asyncio.to_thread(fetched, url)).text == text
            return {**urls, "picture": picture}

    urls = asyncio.run(main())
    assert heard.next().kind == "ended"
    replica.rest()
    heard.all()  # a client may have ended it twice
    lingering = fetched(urls["picture"]).status_code
    replica.clock.advance(LINGER)
    assert heard.next().kind == "dropped"

    assert lingering == 200
    assert {fetched(url).status_code for url in urls.values()} == {403}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_mcp_session_has_files_of_its_own(
    make: MakeReplicas, tmp_path: Path, transport: str
) -> None:
    replica = make(build(tmp_path), mcp_server=True)

    async def main() -> tuple[str, str, str]:
        async with connected(replica, transport) as one, connected(replica, transport) as other:
            url = url_in((await called(one, "mine", text="secret"))[0])
            ones = (await called(one, "names", text="has"))[0]
            return ones, (await called(other, "names", text="has"))[0], url

    ones, others, url = asyncio.run(main())

    assert (ones, others) == ("has mine.txt", "has")
    assert fetched(url).text == "secret"
    without_the_proof = re.sub("/[0-9a-f]{32}/", f"/{'0' * 32}/", url)
    assert fetched(without_the_proof).status_code == 403


@pytest.mark.filterwarnings("ignore:Watermarking for SVG")  # Gradio's own, without a watermark
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_url_of_an_svg_picture_answers_while_the_session_lives(
    make: MakeReplicas, tmp_path: Path, transport: str
) -> None:
    (tmp_path / "square.svg").write_text(SVG)

    def square() -> str:
        """Draw a square."""
        return str(tmp_path / "square.svg")

    def demo() -> gr.Blocks:
        blocks = gr.Blocks()
        with blocks:
            gr.on(fn=square, outputs=gr.Image(type="filepath"), api_name="square")
        return blocks

    replica = make(demo, mcp_server=True)

    async def main() -> tuple[str, list[str]]:
        async with connected(replica, transport) as mcp:
            return await called(mcp, "square")

    text, kinds = asyncio.run(main())
    alive = fetched(url_in(text))
    for each in replica.store.sessions():
        each.drop()
    replica.look_again()

    assert kinds == ["image", "text"]
    assert (alive.status_code, alive.text) == (200, SVG)
    assert fetched(url_in(text)).status_code == 403


@pytest.mark.parametrize("keep_local", [True, False])
def test_a_picture_is_in_the_result_itself_too(
    make: MakeReplicas, tmp_path: Path, *, keep_local: bool
) -> None:
    replica = make(build(tmp_path), mcp_server=True, options={"keep_local": keep_local})

    async def main() -> tuple[str, list[str]]:
        async with connected(replica, "http") as mcp:
            return await called(mcp, "drawn", colour="red")

    text, kinds = asyncio.run(main())

    assert kinds == ["image", "text"]
    assert fetched(url_in(text)).content.startswith(b"RIFF")


def test_a_program_can_pass_the_url_of_its_result_on(make: MakeReplicas, tmp_path: Path) -> None:
    replica = make(build(tmp_path))
    client = Client(replica.url, verbose=False, download_files=False, analytics_enabled=False)
    answers = [client.predict("note", api_name=name) for name in ("/made", "/mine")]
    client.close()

    assert [fetched(answer["url"]).text for answer in answers] == ["note", "note"]


def test_calls_over_http_have_links(make: MakeReplicas, tmp_path: Path) -> None:
    replica = make(build(tmp_path))
    api = f"{replica.url}/gradio_api"
    run = httpx.post(f"{api}/run/made", json={"data": ["run"]}).raise_for_status().json()
    event = httpx.post(f"{api}/call/mine", json={"data": ["call"]}).raise_for_status().json()
    stream = httpx.get(f"{api}/call/mine/{event['event_id']}").text
    call = json.loads(stream.rpartition("data: ")[2])

    assert fetched(f"{api}/file={run['data'][0]['path']}").text == "run"
    assert fetched(call[0]["url"]).text == "call"


@pytest.mark.filterwarnings("ignore:The parameters have been moved")  # gr.load's own use
def test_an_app_that_loads_another_shows_its_files(make: MakeReplicas, tmp_path: Path) -> None:
    replica = make(build(tmp_path))

    def load(name: str, token: str | None) -> gr.Blocks:
        loaded: gr.Blocks = from_spaces_blocks(name, token)
        return loaded

    with launched(gr.load(f"{replica.url}/", src=load)) as url:
        tab = Tab(url)
        url_for_the_page = tab.call("made", "note")["url"]
        tab.client.close()

    # The page gets it through the app, which refuses to fetch from any host but Spaces.
    assert fetched(url_for_the_page.partition("/proxy=")[2]).text == "note"


def test_the_files_of_a_page_are_links_if_the_app_shares_them(
    make: MakeReplicas, tmp_path: Path
) -> None:
    replica = make(build(tmp_path), options={"share": True})
    tab = replica.tab().load()
    shared = tab.call("made", "note")

    assert fetched(tab.api(f"file={shared['path']}")).text == "note"
    assert tab.call("names", "has") == "has"


def test_the_files_of_a_page_are_no_links_otherwise(make: MakeReplicas, tmp_path: Path) -> None:
    replica = make(build(tmp_path))
    tab = replica.tab(headers={"x-gradio-user": "app"}).load()
    answers = [tab.call(name, "note") for name in ("made", "mine")]

    assert [tab.fetch(answer).text for answer in answers] == ["note", "note"]
    assert {fetched(tab.api(f"file={each['path']}")).status_code for each in answers} == {403}


def test_a_page_can_use_the_link_of_a_file_as_an_input(make: MakeReplicas, tmp_path: Path) -> None:
    def read(path: str) -> str:
        return Path(path).read_text()

    def demo() -> gr.Blocks:
        blocks = build(tmp_path)()
        with blocks:
            gr.on(fn=read, inputs=gr.File(), outputs=gr.Textbox(), api_name="read")
        return blocks

    replica = make(demo)
    program, page = replica.tab(), replica.tab().load()
    answer = program.call("made", "note")

    assert page.call("read", answer) == "note"


def test_no_link_that_was_not_given_out_is_served(make: MakeReplicas, tmp_path: Path) -> None:
    replica = make(build(tmp_path))
    one, other = replica.tab(), replica.tab()
    rounds = [
        [tab.call(name, f"{name} {number}")["path"] for tab in (one, other) for name in NAMES]
        for number in range(3)
    ]
    paths = [path for each in rounds for path in each]
    gone = {path for each in rounds[:2] for path in each if path.endswith("/mine.txt")}
    valid = [path for path in paths if path not in gone]
    shuffled = random.Random(7)
    forged = set(gone)  # of versions that were replaced since

    def mixed(parts: list[str], others: list[str]) -> list[str]:
        place = shuffled.randrange(-4, 0)
        return [*parts[:place], others[place], *parts[len(parts) + place + 1 :]]

    while len(forged) < 1000:
        parts = shuffled.choice(valid).split("/")
        match shuffled.randrange(4):
            case 0:  # forged
                parts[-2] = f"{shuffled.getrandbits(128):032x}"
            case 1:  # cut
                parts[-2] = parts[-2][: shuffled.randrange(32)]
            case 2:  # changed in one place
                place = shuffled.randrange(-4, -1)
                at = shuffled.randrange(len(parts[place]))
                digit = "0f"[parts[place][at] == "0"]
                parts[place] = parts[place][:at] + digit + parts[place][at + 1 :]
            case _:  # parts of two
                parts = mixed(parts, shuffled.choice(paths).split("/"))
        path = "/".join(parts)
        if path.rpartition("/")[0] not in {each.rpartition("/")[0] for each in valid}:
            forged.add(path)

    with httpx.Client() as reader:
        given_out = {reader.get(one.api(f"file={path}")).status_code for path in valid}
        served = [path for path in forged if reader.get(one.api(f"file={path}")).is_success]
    for each in replica.store.sessions():
        each.drop()
    replica.look_again()

    assert given_out == {200}
    assert served == []
    assert {fetched(one.api(f"file={path}")).status_code for path in valid} == {403}
