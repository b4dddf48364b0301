"""The visitor's own files: a page, or a tab of an app.

    with gr.Blocks() as demo:
        with gr.Tab("My files"):
            my_files(store)
    attach(demo, store)

The parts of the page are HTML from ``templates/``, with the dashboard's style and ``style.css``.
"""

from __future__ import annotations

import base64
import unicodedata
import warnings
import weakref
from collections.abc import Callable
from importlib.resources import files
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import gradio as gr

from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.events import sender_of
from sessionstore.adapters.gradio.file_routes import SERVICE
from sessionstore.adapters.gradio.mine.listing import OwnFile, OwnFiles, Receipt
from sessionstore.adapters.gradio.mine.route import offer
from sessionstore.adapters.gradio.pieces import PRIVATE, STYLE, renderer, span
from sessionstore.adapters.visitor_errors import reply_to
from sessionstore.errors import SessionStoreError, SettingsError
from sessionstore.media import INLINE, media_type
from sessionstore.plan import UNLESS_USED, Going

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sessionstore.adapters.gradio.attached_store import Service
    from sessionstore.store import SessionStore

ROWS: Final = 200
"""The default number of files on the page."""

_THUMBNAIL: Final = 4 << 20
"""Bytes up to which a picture is its own thumbnail."""

_STYLE: Final = STYLE + files(__package__).joinpath("style.css").read_text("utf-8")
_KINDS: Final = {"image": "img", "audio": "audio", "video": "video", "text": "pre"}
"""The elements that show a file on the page, by the first part of its type."""

_numbers = count(1)
_piece: Final = renderer(__package__)


def my_files(store: SessionStore, *, rows: int = ROWS) -> gr.Blocks:
    """Return a page on which visitors see, fetch and delete everything that is kept of them.

    That is the files of all sessions of the visitor's owner (the login name, else the cookie), also
    of other tabs, with unused uploads and the run history. Each has its size and the time when it
    goes. A client without a login or cookie sees nothing, and neither does another owner.

    Make it inside the blocks of an app that is attached to ``store`` (a tab, a column), or mount it
    by itself and attach it; a page made elsewhere is put there with ``render()``. It shows the
    ``rows`` newest files; all are in the zip, and deleted by **Delete all**. Raises ValueError if
    ``rows`` is below 1.
    """
    if rows < 1:
        raise ValueError(f"invalid rows={rows}: give at least 1.")
    offer(store)
    page = gr.Blocks(title="My files", analytics_enabled=False)
    with page, warnings.catch_warnings():
        # Gradio 5 warns that api_name has a new name in Gradio 6, but does not accept the new name.
        warnings.simplefilter("ignore", DeprecationWarning)
        _lay_out(page, _Handlers(store, rows))
    if page.parent is not None:
        # The page was made inside the blocks of an app: a call of render() would show it twice.
        vars(page)["render"] = lambda: page
    return page


def _lay_out(page: gr.Blocks, handlers: _Handlers) -> None:
    root = f"ssm-{next(_numbers)}"
    gr.HTML(f"<style>{_STYLE}</style>", padding=False)
    with gr.Column(elem_classes=["ssd-root", "ssm-root", root]):
        with gr.Row():
            gr.HTML('<div class="ssd"><h1>My files</h1></div>', padding=False)
            refresh = gr.Button(
                "Refresh", size="sm", scale=0, min_width=110, elem_classes="ssm-refresh"
            )
            ask = gr.Button("Delete all", size="sm", scale=0, min_width=110, elem_classes="ssd-ask")
            everything = gr.Button(
                "Delete all now", size="sm", variant="stop", scale=0, min_width=130,
                elem_classes="ssd-sure",
            )  # fmt: skip
            cancel = gr.Button("Cancel", size="sm", scale=0, min_width=90, elem_classes="ssd-sure")
        note = gr.HTML(padding=False)
        listing = gr.HTML(padding=False)
        which = gr.Textbox(visible=False)
        one = gr.Button("Delete", elem_classes="ssm-one")
    quiet = {"show_progress": "hidden", **PRIVATE}
    chosen = f"() => [document.querySelector('.{root}').dataset.which || '']"
    refresh.click(handlers.refresh, None, [note, listing], **PRIVATE)
    tabs = _tabs_around(page)
    for tab in tabs:
        tab.select(handlers.refresh, None, [note, listing], **quiet)
    if tabs:  # most visitors never open it
        page.load(None, js=_IF_SEEN.replace("ROOT", root))
    else:
        page.load(handlers.refresh, None, [note, listing], **quiet)
    one.click(handlers.delete, [which], [note, listing], js=chosen, **quiet)
    ask.click(None, js=_asking(root, "true"))
    cancel.click(None, js=_asking(root, "false"))
    deleted = everything.click(handlers.delete_all, None, [note, listing], **PRIVATE)
    deleted.then(None, js=_asking(root, "false"))


def _asking(root: str, state: str) -> str:
    toggled = f"document.querySelector('.{root}').classList.toggle('asking', {state})"
    return f"() => {{ {toggled}; return []; }}"


_IF_SEEN: Final = """() => {
    const show = () => {
        const root = document.querySelector('.ROOT');
        if (root?.offsetParent) root.querySelector('.ssm-refresh').click();
    };
    setTimeout(show, 100);
    return [];
}"""
"""The script that makes the list when the app is opened, if its tab is the one that is shown."""


def _tabs_around(page: gr.Blocks) -> list[gr.Tab]:
    """Return the tabs that the page was made in: the list is made when one is opened."""
    tabs: list[gr.Tab] = []
    block: Any = page.parent
    while block is not None:
        tabs += [block] if isinstance(block, gr.Tab) else []
        block = block.parent
    return tabs


class _Handlers:
    """The handlers of the page's events. Each returns HTML: a note, and the list of the files."""

    def __init__(self, store: SessionStore, rows: int) -> None:
        self._store = weakref.ref(store)
        self._rows = rows

    def refresh(self, request: gr.Request) -> tuple[str, str]:
        return self._answer(request, lambda _: "")

    def delete(self, which: str, request: gr.Request) -> tuple[str, str]:
        return self._answer(request, lambda own: _receipt(own.delete(which)))

    def delete_all(self, request: gr.Request) -> tuple[str, str]:
        return self._answer(request, lambda own: _receipt(own.delete_all()))

    def _answer(self, request: gr.Request, act: Callable[[OwnFiles], str]) -> tuple[str, str]:
        service, sender = self._service(request), sender_of(request)
        if sender is None or sender.owner is None:
            return "", _piece("nobody")
        session_id = None if sender.visitor is None else sender.visitor.id
        own = OwnFiles(service.files, sender.owner, session_id)
        try:
            note = act(own)
            return note, self._list(service, own.listed(), sender.owner, request)
        except SessionStoreError as error:
            return _piece("failed", words=reply_to(error).words), ""

    def _service(self, request: gr.Request) -> Service:
        """Return the app's service. Raises SettingsError if it is not attached to the store."""
        connection = compat.connection_of(request)
        service: Service | None = None
        if connection is not None:
            service = connection.scope.get(SERVICE, lambda: None)()
        if service is None or service.store is not self._store():
            raise SettingsError(
                "my_files(store) is in an app that is not attached to this store: call "
                "attach(demo, store) before launch()."
            )
        return service

    def _list(self, service: Service, own: list[OwnFile], owner: str, request: gr.Request) -> str:
        limits, store = service.store.limits, service.store
        used = sum(reference.size for file in own for _, reference in file.copies)
        base = compat.root_of(request)
        return _piece(
            "files",
            rows=[_row(file, service, owner, base) for file in own[: self._rows]],
            total=len(own), size=sum(file.size for file in own),
            used=used, most=limits.max_owner, now=store.now(), zip=f"{base}{compat.ZIP}",
        )  # fmt: skip


def _row(file: OwnFile, service: Service, owner: str, base: str) -> dict[str, Any]:
    """Return what the template shows of a file."""
    kind, size = media_type(file.name), file.size
    given = service.files.give(*file.copies[0], owner)
    url = f"{base}/gradio_api/file={quote(str(service.files.paths.absolute(given.name)))}"
    suffix = file.name.rpartition("/")[2].rpartition(".")[2] if "." in file.name else ""
    return {
        "name": _visible(file.name), "base": file.name.rpartition("/")[2], "size": size,
        "places": file.places, "saved": file.newest.created, "which": file.which,
        "url": "" if file.is_parts else url,
        "view": _KINDS.get(kind.partition("/")[0], "") if kind in INLINE else "",
        "picture": kind in INLINE and kind.startswith("image/") and size <= _THUMBNAIL,
        "suffix": _visible(suffix[:4]).upper() or "FILE",
        "goes": _goes(file.goings, service.store.retention.linger, service.store.now()),
        "why": file.goings[0].reason,
    }  # fmt: skip


def _goes(goings: list[Going], linger: timedelta, now: datetime) -> str:
    """Return when the last copy of a file is deleted, in words."""
    fixed = [going.at for going in goings if not going.with_page]
    if None in fixed:
        return "only by you"
    last = max((at for at in fixed if at is not None), default=None)
    left = "" if last is None else f"in {span(last - now) or 'a moment'}"
    if len(fixed) == len(goings):
        return left
    leaving = f"{span(linger)} after you leave" if linger else "when you leave"
    if left:
        return f"{leaving}, {left} at the earliest"
    ends = [going.at for going in goings if going.at and going.reason != UNLESS_USED]
    return f"{leaving}, in {span(max(ends) - now) or 'a moment'} at the latest" if ends else leaving


def _visible(name: str) -> str:
    """Return a name without characters that are not seen, or that turn the text around."""
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each) in {"Cc", "Cf", "Zl", "Zp"} else each
        for each in name
    )


def _receipt(made: Receipt | None) -> str:
    if made is None:
        return _piece("gone")
    document = base64.b64encode(made.document().encode()).decode()
    return _piece("receipt", receipt=made, document=document)
