"""The dashboard of a store, for administrators: a page, or a tab of an app.

    with gr.Blocks() as admin:
        with gr.Tab("Files"):
            dashboard(store, allow=lambda request: request.username == "admin").render()

Gradio runs each handler in a worker thread, so a slow store does not block other pages.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import gradio as gr

from sessionstore.adapters.gradio.admin import render
from sessionstore.adapters.gradio.admin.snapshot import ORDERS, take_snapshot, watch
from sessionstore.errors import SessionStoreError
from sessionstore.parsers import check_duration

if TYPE_CHECKING:
    from sessionstore.retention import PlanRow
    from sessionstore.store import SessionStore

Allow = Callable[[gr.Request], bool]

ROWS: Final = 200
"""The default number of sessions, and of rows of the plan, on the page."""

# An event that is not part of the API: api_name=False until Gradio 5, api_visibility from 6 on.
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
    """Return a page that shows ``store`` and the plan of its next sweep, and can run the sweep.

    The page is for administrators: it shows the ids and owners of all visitors. Everyone who can
    open the app can open it, unless the app requires a login or ``allow(request)``, called before
    each response, returns False. Launch or mount it by itself, or make it inside the blocks of an
    app (a tab, a column); a page made elsewhere is put there with ``render()``.

    A refresh lists all sessions and blobs, and counts the files of the ``rows`` sessions that the
    page shows, chosen by its order. With ``every`` an open page refreshes at that interval; without
    it, on request only, because on a bucket a refresh takes three requests for each row. Raises
    ValueError if ``rows`` is below 1, or ``every`` is not longer than zero or is longer than a
    hundred years.
    """
    if rows < 1:
        raise ValueError(f"invalid rows={rows}: give at least 1.")
    if every is not None:
        check_duration("every", every)
    watch(store)
    handlers = _Handlers(store, allow, rows)
    page = gr.Blocks(title="sessionstore", analytics_enabled=False)
    with page, warnings.catch_warnings():
        # Gradio 5 warns that api_name has a new name in Gradio 6, but does not accept the new name.
        warnings.simplefilter("ignore", DeprecationWarning)
        _lay_out(page, handlers, every)
    if page.parent is not None:
        # The page was made inside the blocks of an app: a call of render() would show it twice.
        vars(page)["render"] = lambda: page
    return page


def _lay_out(page: gr.Blocks, handlers: _Handlers, every: timedelta | None) -> None:
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
            replan = gr.Button("Refresh plan", size="sm", scale=0, min_width=110)
            sweep = gr.Button("Sweep now", size="sm", variant="primary", scale=0, min_width=110)
        plan = gr.HTML(padding=False)
    shown = [head, overview, sessions]
    quiet = {"show_progress": "hidden", **_PRIVATE}
    gr.on([refresh.click], handlers.refresh, [order], [*shown, plan], **_PRIVATE)
    page.load(handlers.refresh, [order], [*shown, plan], **quiet)
    order.change(handlers.snapshot, [order], shown, **quiet)
    replan.click(handlers.plan, None, [plan], **_PRIVATE)
    sweep.click(handlers.sweep, [order], [*shown, plan], **_PRIVATE)
    if every is not None:
        timer = gr.Timer(every.total_seconds())
        refreshed = timer.tick(handlers.refresh, [order], [*shown, plan], **quiet)
        refreshed.then(None, js=render.SCROLL_BACK)


class _Handlers:
    """The handlers of the page's events. Each returns HTML for the components of its event."""

    def __init__(self, store: SessionStore, allow: Allow | None, rows: int) -> None:
        self._store = store
        self._allow = allow
        self._rows = rows

    def snapshot(self, order: str, request: gr.Request) -> tuple[str, str, str]:
        """Return the head, the overview and the sessions, sorted by ``order``."""
        if not self._is_allowed(request):
            return render.piece("refused"), "", ""
        return self._snapshot(order, request)

    def plan(self, request: gr.Request) -> str:
        """Return the plan of the next sweep."""
        return (
            self._plan(self._store.plan) if self._is_allowed(request) else render.piece("refused")
        )

    def refresh(self, order: str, request: gr.Request) -> tuple[str, str, str, str]:
        """Return the results of ``snapshot`` and ``plan``."""
        return (*self.snapshot(order, request), self.plan(request))

    def sweep(self, order: str, request: gr.Request) -> tuple[str, str, str, str]:
        """Run the sweep, and return ``snapshot`` and the rows that the sweep carried out."""
        if not self._is_allowed(request):
            return (*self.snapshot(order, request), render.piece("refused"))
        done = self._plan(self._store.sweep, swept=True)
        return (*self._snapshot(order, request), done)

    def _is_allowed(self, request: gr.Request) -> bool:
        return self._allow is None or bool(self._allow(request))

    def _snapshot(self, order: str, request: gr.Request) -> tuple[str, str, str]:
        try:
            found = take_snapshot(self._store, order, self._rows)
        except SessionStoreError as error:
            return "", render.failure(error), ""
        exposed = self._allow is None and request.username is None
        return (
            render.head(found, self._store),
            render.overview(found, watch(self._store), self._store, exposed=exposed),
            render.sessions(found, self._rows),
        )

    def _plan(self, rows: Callable[[], list[PlanRow]], *, swept: bool = False) -> str:
        try:
            return render.plan(rows(), self._rows, swept=swept)
        except SessionStoreError as error:
            return render.failure(error)
