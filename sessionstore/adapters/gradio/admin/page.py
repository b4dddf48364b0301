"""The administrator's view of a store, as a page or as a tab of an app's own.

    with gr.Blocks() as admin:
        with gr.Tab("Files"):
            dashboard(store, allow=lambda request: request.username == "admin").render()

Gradio runs each handler here in a worker thread, so a store that is slow to answer stops nobody
else's page.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import gradio as gr

from sessionstore.adapters.gradio.admin import render
from sessionstore.adapters.gradio.admin.snapshot import ORDERS, look, watch
from sessionstore.errors import SessionStoreError
from sessionstore.parsers import check_duration

if TYPE_CHECKING:
    from sessionstore.retention import PlanRow
    from sessionstore.store import SessionStore

Allow = Callable[[gr.Request], bool]

ROWS: Final = 200
"""Sessions, and rows of the plan, on the page."""

# "Not for clients" has another name in each: api_name until Gradio 5, api_visibility from 6 on.
_PRIVATE: Final[dict[str, Any]] = (
    {"api_visibility": "private"}
    if "api_visibility" in inspect.signature(gr.on).parameters
    else {"api_name": False}
)


def dashboard(
    store: SessionStore,
    *,
    allow: Allow | None = None,
    rows: int = ROWS,
    every: timedelta | None = None,
) -> gr.Blocks:
    """A page that shows what is in ``store`` and what the next sweep does, and can run it.

    It is the administrator's view: ids and owners of all visitors stand in it. Everybody who
    reaches the app reaches it, unless the app asks for a login or ``allow(request)`` says no, which
    is asked before each answer. Launch or mount it by itself; inside an app's own blocks (a tab, a
    column) it becomes a part of them, made there or brought there with ``render()``.

    A look lists all sessions and the content, and counts the files of ``rows`` sessions, chosen by
    the order that the page is sorted in; so many rows are shown. With ``every`` an open page looks
    again that often; on a bucket a look takes three requests for each row, so the default is the
    button. Raises ValueError when ``rows`` is not at least 1, or ``every`` not longer than zero or
    longer than a hundred years.
    """
    if rows < 1:
        raise ValueError(f"A page has at least one row: rows={rows}.")
    if every is not None:
        check_duration("every", every)
    watch(store)
    view = _View(store, allow, rows)
    page = gr.Blocks(title="Files of visitors", analytics_enabled=False)
    with page, warnings.catch_warnings():
        # Gradio 5 warns that what it calls api_name has another name in 6, which it does not take.
        warnings.simplefilter("ignore", DeprecationWarning)
        _lay_out(page, view, every)
    if page.parent is not None:
        # Made inside an app's blocks, so it is in its place; Gradio would show it twice.
        vars(page)["render"] = lambda: page
    return page


def _lay_out(page: gr.Blocks, view: _View, every: timedelta | None) -> None:
    gr.HTML(f"<style>{render.STYLE}</style>", padding=False)
    with gr.Column(elem_classes="ssd-root"):
        with gr.Row():
            head = gr.HTML(padding=False)
            refresh = gr.Button("Refresh", size="sm", scale=0, min_width=110)
        overview = gr.HTML(padding=False)
        gr.HTML(render.piece("title", text="Sessions"), padding=False)
        order = gr.Radio(
            [(each.label, name) for name, each in ORDERS.items()], value="recent",
            label="Sort", show_label=False, container=False, elem_classes="ssd-sort",
        )  # fmt: skip
        sessions = gr.HTML(padding=False)
        with gr.Row():
            gr.HTML(render.piece("title", text="Next sweep"), padding=False)
            again = gr.Button("Plan again", size="sm", scale=0, min_width=110)
            sweep = gr.Button("Sweep now", size="sm", variant="primary", scale=0, min_width=110)
        plan = gr.HTML(padding=False)
    looked = [head, overview, sessions]
    quiet = {"show_progress": "hidden", **_PRIVATE}
    gr.on([refresh.click], view.all, [order], [*looked, plan], **_PRIVATE)
    page.load(view.all, [order], [*looked, plan], **quiet)
    order.change(view.look, [order], looked, **quiet)
    again.click(view.plan, None, [plan], **_PRIVATE)
    sweep.click(view.sweep, [order], [*looked, plan], **_PRIVATE)
    if every is not None:
        again_and_again = gr.Timer(every.total_seconds())
        looks = again_and_again.tick(view.all, [order], [*looked, plan], **quiet)
        looks.then(None, js=render.SCROLL_BACK)


class _View:
    """Answers the page's events, each with HTML for the components that it names."""

    def __init__(self, store: SessionStore, allow: Allow | None, rows: int) -> None:
        self._store = store
        self._allow = allow
        self._rows = rows

    def look(self, order: str, request: gr.Request) -> tuple[str, str, str]:
        """Head, overview and sessions."""
        if not self._is_allowed(request):
            return render.piece("refused"), "", ""
        return self._look(order, request)

    def plan(self, request: gr.Request) -> str:
        """The plan."""
        return (
            self._plan(self._store.plan) if self._is_allowed(request) else render.piece("refused")
        )

    def all(self, order: str, request: gr.Request) -> tuple[str, str, str, str]:
        """``look`` and ``plan``."""
        return (*self.look(order, request), self.plan(request))

    def sweep(self, order: str, request: gr.Request) -> tuple[str, str, str, str]:
        """Sweep; then ``look``, and what was done."""
        if not self._is_allowed(request):
            return (*self.look(order, request), render.piece("refused"))
        done = self._plan(self._store.sweep, swept=True)
        return (*self._look(order, request), done)

    def _is_allowed(self, request: gr.Request) -> bool:
        return self._allow is None or bool(self._allow(request))

    def _look(self, order: str, request: gr.Request) -> tuple[str, str, str]:
        try:
            found = look(self._store, order, self._rows)
        except SessionStoreError as error:
            return "", render.failure(error), ""
        exposed = self._allow is None and request.username is None
        return (
            render.head(found, self._store),
            render.overview(found, watch(self._store), self._store, exposed=exposed),
            render.sessions(found, self._rows),
        )

    def _plan(self, ask: Callable[[], list[PlanRow]], *, swept: bool = False) -> str:
        try:
            return render.plan(ask(), self._rows, swept=swept)
        except SessionStoreError as error:
            return render.failure(error)
