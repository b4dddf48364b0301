"""Visitors of the soak: what one does from coming to leaving, by the library and by Gradio's page.

What each does is drawn from its number alone, so a run can be had again.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import gradio as gr

from sessionstore import Session, SessionStore
from sessionstore.names import session_key
from tests.support.gradio_rig import Tab, picture, save

LARGE: Final = 1_500_000
"""Bytes of one file in ten: more than is kept in memory at once."""

SECRET: Final = "of the soak, and of nothing else at all"
"""A bucket cannot keep a secret, and Gradio's paths are made with one."""

TTL: Final = timedelta(seconds=3)

HOT: Final = 20
"""Contents that visitors share, so that half of all saves find their content in the store."""


def content(rng: random.Random) -> bytes:
    """Some bytes: half of them others have too, one in ten is large."""
    seed = rng.randrange(HOT) if rng.random() < 0.5 else rng.getrandbits(64)
    size = LARGE if rng.random() < 0.1 else rng.randrange(20_000)
    return random.Random(f"{seed} {size}").randbytes(size)


def by_library(store: SessionStore, number: int, seed: int | None = None) -> None:
    """Come, use every verb of the library, and leave in one of four ways.

    Visitors of one ``seed`` save the same bytes; without one it is the ``number``.
    """
    rng = random.Random(number if seed is None else seed)
    session = store.session(f"visitor {number}", f"owner {number % 7}" if number % 3 else None)
    if not number % 5:
        _look_once(session)
        return
    data = content(rng)
    session.put("a.bin", data)
    session.put("brief.txt", b"brief", ttl=TTL)
    added = session.add(content(rng), suffix=".webp")
    if session.read("a.bin") != data:
        raise AssertionError(f"Visitor {number} read other bytes than were saved.")
    added.read(10, 5)
    added.local_path().read_bytes()
    with added.open() as stream:  # left half read
        stream.read(10)
    with session.open("written.txt", "wb") as file:
        file.write(b"written")
    with session.directory() as path:
        (path / "made.txt").write_bytes(b"made")
    _refused(session)
    asyncio.run(_with_twins(session))
    session.touch()
    session.put("a.bin", b"replaced")
    session.get("a.bin").local_path()
    session.delete("a.bin", "never there")
    store.on("saved", lambda _: None)()
    session.usage()
    _leave(session, number)


def _look_once(session: Session) -> None:
    """Ask for a local copy, delete its file, and leave."""
    session.put("once.txt", b"once").local_path()
    session.delete("once.txt")
    session.drop()


async def _with_twins(session: Session) -> None:
    await session.put_async("twin.txt", b"twin")
    await session.read_async("twin.txt")


def _refused(session: Session) -> None:
    """Begin a save that does not come to its end."""

    def breaks() -> Any:
        yield b"some"
        raise ZeroDivisionError

    try:
        session.put("never.bin", breaks())
    except ZeroDivisionError:
        return
    raise AssertionError("What a source raises must pass through.")


def _leave(session: Session, number: int) -> None:
    match number % 4:
        case 0:
            session.drop()
        case 1:
            session.end()
        case 2:
            session.end()
            session.resume()
            session.put("back.txt", b"back")
            session.end()
        case _:  # without a word: the sweep has to find out
            return


def reopened(url: str) -> None:
    """Open the store once more, as another process would, and close it."""
    with SessionStore.open(url, secret=SECRET) as store:
        store.shared.put("seen.txt", b"seen")
        store.shared.get("seen.txt").local_path()
        store.secret()


# Gradio


def pass_on(file: str) -> str:
    return file


def demo() -> gr.Blocks:
    """An app that saves a file, makes a picture, and gives an upload back."""
    made: gr.Blocks
    with gr.Blocks() as made:
        text, file = gr.Textbox(), gr.File()
        gr.on(fn=save, inputs=text, outputs=gr.File(), api_name="save")
        gr.on(fn=picture, inputs=text, outputs=gr.Image(), api_name="picture")
        gr.on(fn=pass_on, inputs=file, outputs=gr.File(), api_name="pass_on")
    return made


def by_gradio(url: str, number: int, over: threading.Semaphore, seed: int | None = None) -> None:
    """Load the page with its heartbeat, make and fetch files, upload some, and close the page.

    ``seed`` is as in ``by_library``.
    """
    seed = number if seed is None else seed
    tab = Tab(url, over=over)
    if number % 4:
        tab.load()
    else:  # a client without a heartbeat: it is idle at some time, and that is all that is known
        tab.get("/").raise_for_status()
    try:
        for made in (tab.call("save", f"{seed}.txt"), tab.call("picture", "red")):
            tab.fetch(made).raise_for_status()
        data = random.Random(seed).randbytes(5000)
        back = tab.call("pass_on", tab.upload("up.bin", data))
        if tab.fetch(back, Range="bytes=0-9").content != data[:10]:
            raise AssertionError(f"Gradio visitor {number} got other bytes than were uploaded.")
        tab.upload("unused.bin", data[:100])
    finally:
        tab.leave()


# Leaks, to see that they are found

_kept: list[object] = []


def leak_thread(_: SessionStore, __: int) -> None:
    forever = threading.Event()
    threading.Thread(target=forever.wait, daemon=True).start()
    _kept.append(forever)


def leak_descriptor(_: SessionStore, __: int) -> None:
    _kept.append(os.open(os.devnull, os.O_RDONLY))


def leak_socket(_: SessionStore, __: int) -> None:
    _kept.append(socket.socket())


def leak_timer(store: SessionStore, number: int) -> None:
    store._timers.at(session_key(f"leaked {number}"), store.now() + timedelta(days=36500))


def leak_folder(_: SessionStore, __: int) -> None:
    tempfile.mkdtemp()


def leak_file(store: SessionStore, number: int) -> None:
    store.shared.put(f"leaked {number}", b"")


def leak_memory(_: SessionStore, number: int) -> None:
    _kept.append([Path(f"{number}"), bytes(8_000)])


LEAKS: Final[dict[str, Callable[[SessionStore, int], None]]] = {
    name.removeprefix("leak_"): leak
    for name, leak in list(globals().items())
    if name.startswith("leak_")
}


def end_leaks() -> None:
    """Give back what was leaked on purpose."""
    for each in _kept:
        if isinstance(each, threading.Event):
            each.set()
        elif isinstance(each, int):
            os.close(each)
        elif isinstance(each, socket.socket):
            each.close()
    _kept.clear()
