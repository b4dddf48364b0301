"""The dashboard of a store, for administrators: a page, or a tab of an app.

    with gr.Blocks() as admin:
        with gr.Tab("Files"):
            dashboard(store, allow=lambda request: request.username == "admin").render()

The parts of the page are HTML from ``templates/``. ``style.css`` uses the variables of Gradio's
theme, and follows the width of the page's place and not of the window.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import gradio as gr

from sessionstore.adapters.gradio.admin.snapshot import (
    INTERNAL,
    ORDERS,
    Sample,
    Snapshot,
    Watch,
    take_snapshot,
    watch,
)
from sessionstore.adapters.gradio.pieces import PRIVATE, STYLE, counted, renderer
from sessionstore.errors import SessionStoreError
from sessionstore.parsers import check_duration, show_duration

if TYPE_CHECKING:
    from sessionstore.plan import PlanRow
    from sessionstore.store import SessionStore

Allow = Callable[[gr.Request], bool]

ROWS: Final = 200
"""The default number of sessions, and of rows of the plan, on the page."""

PAGE_BACK: Final = """() => {
    const back = it => {
        it.dataset.page = (it.closest('.ssd-root')?.dataset[it.dataset.of] || 1) - 1;
        it.querySelector('.pager button[value="1"]')?.click();
    };
    setTimeout(() => document.querySelectorAll('.ssd .paged').forEach(back), 50);
    return [];
}"""
"""The script that shows in each new table the page of rows that the table before it had."""

_numbers = count(1)
"""A number for each dashboard of this process: its scripts find its own root element by it."""

_REFUSED: Final = (
    '<div class="ssd"><p class="note" role="note">Only administrators can see this page.</p></div>'
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
    handlers = _Handlers(store, allow, rows, every)
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
    root = f"ssd-{next(_numbers)}"
    gr.HTML(f"<style>{STYLE}</style>", padding=False)
    with gr.Column(elem_classes=["ssd-root", root]):
        with gr.Row():
            head = gr.HTML(padding=False)
            refresh = gr.Button("Refresh", size="sm", scale=0, min_width=110)
        overview = gr.HTML(padding=False)
        gr.HTML(_title("Sessions"), padding=False)
        order = gr.Radio(
            [(each.label, name) for name, each in ORDERS.items()], value="recent",
            label="Sort", show_label=False, container=False, elem_classes="ssd-sort",
        )  # fmt: skip
        internal = gr.Checkbox(
            label="Show internal sessions", container=False, elem_classes="ssd-internal"
        )
        sessions = gr.HTML(padding=False)
        with gr.Row():
            gr.HTML(_title("Next sweep"), padding=False)
            replan = gr.Button("Refresh plan", size="sm", scale=0, min_width=110)
            ask = gr.Button("Sweep now", size="sm", scale=0, min_width=110, elem_classes="ssd-ask")
            sweep = gr.Button(
                "Delete now", size="sm", variant="stop", scale=0, min_width=110,
                elem_classes="ssd-sure",
            )  # fmt: skip
            cancel = gr.Button("Cancel", size="sm", scale=0, min_width=90, elem_classes="ssd-sure")
        plan = gr.HTML(padding=False)
    shown = [head, overview, sessions]
    view = [order, internal]
    quiet = {"show_progress": "hidden", **PRIVATE}
    gr.on([refresh.click], handlers.refresh, view, [*shown, plan], **PRIVATE)
    page.load(handlers.refresh, view, [*shown, plan], **quiet)
    gr.on([order.change, internal.change], handlers.snapshot, view, shown, **quiet)
    replan.click(handlers.plan, None, [plan], **PRIVATE)
    ask.click(None, js=_asking(root, "true"))
    cancel.click(None, js=_asking(root, "false"))
    swept = sweep.click(handlers.sweep, view, [*shown, plan], **PRIVATE)
    swept.then(None, js=_asking(root, "false"))
    if every is not None:
        timer = gr.Timer(every.total_seconds())
        refreshed = timer.tick(handlers.refresh, view, [*shown, plan], **quiet)
        refreshed.then(None, js=PAGE_BACK)


def _asking(root: str, state: str) -> str:
    toggled = f"document.querySelector('.{root}').classList.toggle('asking', {state})"
    return f"() => {{ {toggled}; return []; }}"


def _title(text: str) -> str:
    return f'<div class="ssd"><h2>{text}</h2></div>'


class _Handlers:
    """The handlers of the page's events. Each returns HTML for the components of its event.

    ``view`` is the order of the sessions, and whether internal ones are shown.
    """

    def __init__(
        self, store: SessionStore, allow: Allow | None, rows: int, every: timedelta | None
    ) -> None:
        self._store = store
        self._every = every
        self._allow = allow
        self._rows = rows

    def snapshot(self, request: gr.Request, *view: Any) -> tuple[str, str, str]:
        return self._snapshot(request, *view) if self._is_allowed(request) else (_REFUSED, "", "")

    def plan(self, request: gr.Request) -> str:
        return self._plan(self._store.plan) if self._is_allowed(request) else _REFUSED

    def refresh(self, request: gr.Request, *view: Any) -> tuple[str, str, str, str]:
        return (*self.snapshot(request, *view), self.plan(request))

    def sweep(self, request: gr.Request, *view: Any) -> tuple[str, str, str, str]:
        """Run the sweep, and show the rows that it carried out."""
        allowed = self._is_allowed(request)
        done = self._plan(self._store.sweep, swept=True) if allowed else _REFUSED
        return (*self.snapshot(request, *view), done)

    def _is_allowed(self, request: gr.Request) -> bool:
        return self._allow is None or bool(self._allow(request))

    def _snapshot(
        self,
        request: gr.Request,
        order: str,
        internal: bool,  # noqa: FBT001 - Gradio passes the value of the checkbox by position
    ) -> tuple[str, str, str]:
        try:
            found = take_snapshot(self._store, order, self._rows)
        except SessionStoreError as error:
            return "", failure(error), ""
        exposed = self._allow is None and request.username is None
        return (
            head(found, self._store, self._every),
            overview(found, watch(self._store), self._store, exposed=exposed),
            sessions(found, self._rows, internal=internal),
        )

    def _plan(self, rows: Callable[[], list[PlanRow]], *, swept: bool = False) -> str:
        try:
            planned = plan(rows(), self._rows, swept=swept)
        except SessionStoreError as error:
            return failure(error)
        return planned + deletions(watch(self._store), self._store.now())


piece: Final = renderer(__package__)


def failure(error: Exception) -> str:
    """Render ``error``, raised by the store."""
    return piece("failure", error=error, kind=type(error).__name__)


def head(snapshot: Snapshot, store: SessionStore, every: timedelta | None = None) -> str:
    """Render the URL of ``store``, the time of ``snapshot`` and the interval of its refresh."""
    kind = type(store.backend).__name__.removesuffix("Backend")
    url = store.location or f"{kind} store"
    return piece(
        "head", url=url, engine=getattr(store.backend, "engine", ""), digest=store.backend.digest,
        at=snapshot.at, every=None if every is None else show_duration(every),
    )  # fmt: skip


def overview(snapshot: Snapshot, seen: Watch, store: SessionStore, *, exposed: bool) -> str:
    """Render the numbers of ``snapshot`` and of this process, and a warning if ``exposed``."""
    samples, limits = list(seen.samples), store.ledger.limits
    top = max((each.bytes for each in samples), default=0) or 1
    full = limits.max_store
    return piece(
        "overview", store=store, snapshot=snapshot, seen=seen, exposed=exposed, samples=samples,
        top=top,
        line=_line(samples, top), saved=max(snapshot.bytes - snapshot.stored.bytes, 0),
        low=snapshot.free is not None and snapshot.free < (limits.min_free or 0),
        fullest=_fullest(store), full=full,
        nearly_full=full is not None and snapshot.stored.bytes > full * 9 // 10,
    )  # fmt: skip


def _fullest(store: SessionStore) -> tuple[str, str, int, int] | None:
    """Return the owner nearest to a limit, the limit's name, what the owner has, and the most."""
    found = store.ledger.fullest()
    return None if found is None else (*found, getattr(store.limits, found[1]))


def _line(samples: Sequence[Sample], top: int) -> str:
    """Return the points of ``samples`` in the view box of the chart, 600 wide and 120 high."""
    if not samples:
        return ""
    first, last = samples[0], samples[-1]
    span = last.at - first.at
    points = [(0.0, last.bytes), (1.0, last.bytes)]
    if span > timedelta(0):
        points = [((each.at - first.at) / span, each.bytes) for each in samples]
    # The line stays away from the edges: they would cut off half of its width.
    return " ".join(f"{600 * x:.1f},{118 - 108 * size / top:.1f}" for x, size in points)


def sessions(snapshot: Snapshot, limit: int, *, internal: bool = False) -> str:
    """Render at most ``limit`` sessions of ``snapshot``, with ``internal`` also the app's own."""
    rows = [row for row in snapshot.rows if internal or row.state not in INTERNAL]
    largest = max((row.bytes for row in rows), default=0)
    return piece(
        "sessions", snapshot=snapshot, rows=rows, limit=limit, orders=ORDERS, largest=largest
    )


def deletions(seen: Watch, now: datetime) -> str:
    """Render the newest deletions of this process (``seen``)."""
    return piece("deletions", deleted=list(seen.deleted), now=now, since=seen.since)


def plan(rows: Sequence[PlanRow], limit: int, *, swept: bool = False) -> str:
    """Render at most ``limit`` of ``rows``: the plan of a sweep, or its result if ``swept``."""
    deleted = [row for row in rows if row.action != "hold"]
    held = [row for row in rows if row.action == "hold"]
    return piece(
        "plan", rows=[*deleted, *held][:limit], total=len(rows), swept=swept,
        deleted=_number_of(deleted), held=_number_of(held) if held else None,
        size=sum(row.size for row in deleted) if deleted else None,
    )  # fmt: skip


def _number_of(rows: Sequence[PlanRow]) -> str:
    sessions = sum(row.name is None for row in rows)
    counts = [(sessions, "session"), (len(rows) - sessions, "file")]
    return " and ".join(counted(*each) for each in counts if each[0]) or "nothing"
