"""The dashboard's looks, as HTML. Whatever a visitor could have written passes ``escape``.

Colours and fonts are the variables of Gradio's theme, so light, dark and an app's own theme hold
here too. The layout follows the width it is given, not the window's: in a narrow place a table's
rows become cards.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape as escape_html
from typing import TYPE_CHECKING, Final

from sessionstore.adapters.gradio.admin.snapshot import ORDERS
from sessionstore.parsers import show_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sessionstore.adapters.gradio.admin.snapshot import Look, Row, Sample, Watch
    from sessionstore.retention import PlanRow
    from sessionstore.store import SessionStore

_PERCENT: Final = 100
_WIDTH, _HEIGHT = 600, 120
_STATES: Final = {
    "live": "its page is open, or was a moment ago",
    "quiet": "no sign of life for a while; dropped when it is idle for too long",
    "lingering": "its visitor left; dropped when the linger is over",
    "shared": "the app's own files, for everyone",
    "adapter": "kept by the app's adapter beside the visitors' files, and swept like them",
    "nameless": "it does not say whose it is, and is shown by its stored name; see verify()",
}
_SORT: Final = (
    "this.closest('.ssd-root').querySelector('.ssd-sort input[value=' + this.value + ']').click()"
)
"""A heading is a label of the switch above the table, which is what a phone shows."""

_EXPOSED: Final = (
    '<p class="note warn" role="note"><b>Nothing protects this page.</b> It shows every visitor\'s '
    "session, and whoever can open it can run the sweep. Ask for a login "
    "(<code>launch(auth=...)</code>), or say who may see it "
    "(<code>dashboard(store, allow=...)</code>).</p>"
)

_SCROLL: Final = (
    "(this.closest('.ssd-root') || {dataset: {}}).dataset[this.dataset.of] = this.scrollTop"
)
"""A table remembers how far it was scrolled where a new one can find it."""

SCROLL_BACK: Final = """() => {
    const back = it => { it.scrollTop = it.closest('.ssd-root')?.dataset[it.dataset.of] || 0 };
    setTimeout(() => document.querySelectorAll('.ssd .scroll').forEach(back), 50);
    return [];
}"""
"""What a page does after it looked again by itself: whoever reads a table goes on reading."""

_TEMPLATES: Final = str.maketrans({each: f"&#{ord(each)};" for each in "{}$`"})


def escape(text: str) -> str:
    """Text as HTML, also in an attribute, with nothing in it that Gradio's templates would run.

    From Gradio 6 on a ``gr.HTML`` is a template, where braces and ``$`` have a meaning.
    """
    return escape_html(text).translate(_TEMPLATES)


def frame(body: str) -> str:
    """A piece of the dashboard, in the place that its style holds for."""
    return f'<div class="ssd">{body}</div>'


def head(look: Look, store: SessionStore) -> str:
    """What store this is."""
    kind = type(store.backend).__name__.removesuffix("Backend")
    return frame(
        f'<h1>Files of visitors</h1><p class="dim">{escape(kind)} store · '
        f"{escape(store.backend.digest)} · as of {_time(look.at)}</p>"
    )


def refused() -> str:
    """What everybody else sees."""
    return frame('<p class="note" role="note">This page is for the app\'s administrators.</p>')


def trouble(error: Exception) -> str:
    """The store does not answer."""
    return frame(
        '<div class="note bad" role="alert"><b>The store does not answer.</b> '
        f"{escape(str(error))} <span class=dim>({escape(type(error).__name__)})</span></div>"
    )


def overview(look: Look, seen: Watch, store: SessionStore, *, exposed: bool) -> str:
    """The numbers, the chart and the health; with a warning when anybody can see them."""
    cards = [
        _card("Sessions", f"{look.sessions - look.own:,}", f"{look.live:,} live"),
        _card("Files", *_files(look)),
        _card("Content kept", show_size(look.stored.bytes), f"{look.stored.blobs:,} blobs"),
        _card("Saved by deduplication", *_spared(look, seen)),
    ]
    chart = _panel("Content over time", _chart(seen.samples))
    return frame(
        f'{_EXPOSED if exposed else ""}<div class="cards">{"".join(cards)}</div>'
        f'<div class="panels">{chart}{_panel("Health", _health(look, seen, store))}</div>'
    )


def _card(label: str, number: str, below: str) -> str:
    return (
        f'<div class="card"><span class="dim">{label}</span><strong>{number}</strong>'
        f'<span class="dim">{below}</span></div>'
    )


def _panel(title: str, body: str) -> str:
    return f'<section class="panel"><h3>{title}</h3>{body}</section>'


def _files(look: Look) -> tuple[str, str]:
    if look.whole:
        return f"{look.files:,}", show_size(look.bytes)
    return f"{look.files:,}", f"{show_size(look.bytes)} in the {len(look.rows):,} sessions below"


def _spared(look: Look, seen: Watch) -> tuple[str, str]:
    """What equal bytes would take more: of the whole store, else of what this process saved."""
    if look.whole:
        spared = max(look.bytes - look.stored.bytes, 0)
        share = f"{_share(spared, look.bytes)} of {show_size(look.bytes)}"
        return show_size(spared), share + _bar(spared, look.bytes)
    return (
        show_size(seen.spared_bytes),
        f"{seen.spared:,} of {seen.saved:,} saves by this process" + _bar(seen.spared, seen.saved),
    )


def _share(part: int, whole: int) -> str:
    return f"{_PERCENT * part // whole if whole else 0} %"


def _bar(part: int, whole: int) -> str:
    width = _PERCENT * part / whole if whole else 0
    return f'<span class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i></span>'


def _chart(samples: Sequence[Sample]) -> str:
    if not samples:
        return '<p class="dim">No measurement yet.</p>'
    first, last = samples[0], samples[-1]
    top = max(1, *(sample.bytes for sample in samples))
    span = (last.at - first.at).total_seconds()
    points = [
        (_WIDTH * (sample.at - first.at).total_seconds() / span, _y(sample.bytes, top))
        for sample in samples
    ] if span > 0 else [(0, _y(last.bytes, top)), (_WIDTH, _y(last.bytes, top))]  # fmt: skip
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<div class="chart"><span class="dim top">{show_size(top)}</span>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="From {show_size(first.bytes)} to {show_size(last.bytes)}">'
        f'<polygon points="0,{_HEIGHT} {line} {_WIDTH},{_HEIGHT}"/>'
        f'<polyline points="{line}" vector-effect="non-scaling-stroke"/></svg>'
        f'<div class="axis dim"><span>{_clock(first.at)}</span><span>{_clock(last.at)}</span></div>'
        f'<p class="dim">{_count(len(samples), "measurement")}, one with each sweep and look of '
        "this process.</p></div>"
    )


def _y(size: int, top: int) -> float:
    """From the top of the picture; a line at the very edge would be cut in half."""
    return _HEIGHT - 2 - (_HEIGHT - 12) * size / top


def _health(look: Look, seen: Watch, store: SessionStore) -> str:
    facts = [_fact("good", "Backend", f"answered in {look.seconds * 1000:.0f} ms")]
    if look.free is not None:
        low = store.ledger.limits.min_free
        short = low is not None and look.free < low
        facts.append(_fact("bad" if short else "good", "Room", f"{show_size(look.free)} free"))
    full = store.ledger.limits.max_store
    if full is not None:
        text = f"{_share(look.stored.bytes, full)} of {show_size(full)}"
        kind = "warn" if look.stored.bytes > full * 9 // 10 else "good"
        facts.append(_fact(kind, "Limit of the store", text + _bar(look.stored.bytes, full)))
    facts.append(_last_sweep(look, seen))
    if seen.refused:
        text = f"{_count(seen.refused, 'save')} over a limit since {_clock(seen.since)}"
        facts.append(_fact("warn", "Refused", text))
    return f'<ul class="facts">{"".join(facts)}</ul>'


def _last_sweep(look: Look, seen: Watch) -> str:
    if seen.sweep is None:
        return _fact("idle", "Last sweep", f"none by this process since {_clock(seen.since)}")
    kind, what = {
        "sweep_finished": ("good", "finished"),
        "sweep_held": ("warn", "held back"),
    }.get(seen.sweep.kind, ("bad", "failed"))
    when = _ago(look.at - seen.sweep.at)
    return _fact(kind, "Last sweep", f"{what} {when}: {escape(seen.sweep.reason)}")


def _fact(kind: str, name: str, text: str) -> str:
    return f'<li><i class="dot {kind}"></i><span class="dim">{name}</span><span>{text}</span></li>'


def sessions(look: Look, most: int) -> str:
    """The page of sessions."""
    if not look.rows:
        return frame('<p class="note">There is no session yet.</p>')
    largest = max(row.bytes for row in look.rows)
    body = "".join(_session(row, look.at, largest) for row in look.rows)
    headings = "".join(
        _heading(*it, look) for it in (
            ("Session", ""), ("Owner", ""), ("State", ""), ("Last active", "active"),
            ("Oldest file", "oldest"), ("Files", "files"), ("Size", "bytes"),
        )
    )  # fmt: skip
    return frame(
        f'<div class="scroll" data-of="sessions" onscroll="{_SCROLL}"><table class="sessions">'
        f"<thead><tr>{headings}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="dim">{_page(look, most)}</p>'
    )


def _page(look: Look, most: int) -> str:
    if look.whole:
        own = f", and {look.own:,} of the app's own" if look.own else ""
        return f"All {_count(look.sessions - look.own, 'session')}{own}."
    of_them = look.order.label.lower() if look.order.by_record else "recently active"
    also = "" if look.order.by_record else ", sorted among themselves"
    return (
        f"The {most:,} {of_them} of {look.sessions:,} sessions{also}. Files and sizes are counted "
        "for these alone."
    )


def _heading(label: str, column: str, look: Look) -> str:
    orders = [name for name, order in ORDERS.items() if order.column == column]
    if not orders:
        return f'<th scope="col">{label}</th>'
    now = next((name for name in orders if ORDERS[name] is look.order), None)
    others = [name for name in orders if name != now] or orders
    kind = "number" if column in {"files", "bytes"} else "time"
    sorted_by = ' aria-sort="descending"' if now else ""
    arrow = "" if now is None else ('<b aria-hidden="true"> ↑</b>' if now == "idle" else
                                    '<b aria-hidden="true"> ↓</b>')  # fmt: skip
    return (
        f'<th scope="col" class="{kind}"{sorted_by}><button type="button" value="{others[0]}" '
        f'title="Sort: {ORDERS[others[0]].label}" onclick="{_SORT}">{label}{arrow}</button></th>'
    )


def _session(row: Row, now: datetime, largest: int) -> str:
    name = "shared files" if row.state == "shared" else row.key.id
    oldest = "none" if row.oldest is None else _since(now, row.oldest)
    return (
        f'<tr><th scope="row" title="{escape(row.key.id)}"><code>{escape(name)}</code></th>'
        f'<td data-label="Owner">{_owner(row.key.owner)}</td>'
        f'<td data-label="State">{_badge(row.state, _STATES[row.state])}</td>'
        f'<td data-label="Last active">{_since(now, row.active)}</td>'
        f'<td data-label="Oldest file">{oldest}</td>'
        f'<td data-label="Files" class="number">{row.files:,}</td>'
        f'<td data-label="Size" class="number">{show_size(row.bytes)}{_bar(row.bytes, largest)}'
        "</td></tr>"
    )


def _owner(owner: str | None) -> str:
    if owner is None:
        return '<span class="dim">nobody</span>'
    return f'<code title="{escape(owner)}">{escape(owner)}</code>'


def _badge(kind: str, title: str) -> str:
    return f'<span class="badge {kind}" title="{title}">{kind}</span>'


def plan(rows: Sequence[PlanRow], most: int, *, swept: bool = False) -> str:
    """What the next sweep would do, or what one has done."""
    going = [row for row in rows if row.action != "hold"]
    held = [row for row in rows if row.action == "hold"]
    if not rows:
        done = "It was swept: nothing was over its time." if swept else (
            "Nothing is over its time: the next sweep would delete no file."
        )  # fmt: skip
        return frame(f'<p class="note">{done}</p>')
    size = f" ({show_size(sum(row.size for row in going))})" if going else ""
    done = "Swept: deleted" if swept else "The next sweep deletes"
    first = [*going, *held][:most]
    more = f" The first {most:,} are shown." if len(rows) > most else ""
    return frame(
        f'<p class="summary"><b>{done} {_what(going)}{size}</b>, '
        f"{'held' if swept else 'holds'} {_what(held)}.{more}</p>"
        f'<div class="scroll" data-of="plan" onscroll="{_SCROLL}"><table class="plan">'
        '<thead><tr><th scope="col">Action</th>'
        '<th scope="col">Session</th><th scope="col">File</th><th scope="col" class="number">Size'
        '</th><th scope="col">Reason</th></tr></thead>'
        f"<tbody>{''.join(map(_planned, first))}</tbody></table></div>"
    )


def _what(rows: Iterable[PlanRow]) -> str:
    names = [row.name is None for row in rows]
    sessions, files = sum(names), len(names) - sum(names)
    counts = [(sessions, "session"), (files, "file")]
    return " and ".join(_count(*each) for each in counts if each[0]) or "nothing"


def _planned(row: PlanRow) -> str:
    name = '<span class="dim">all of it</span>' if row.name is None else (
        f'<code title="{escape(row.name)}">{escape(row.name)}</code>'
    )  # fmt: skip
    return (
        f'<tr><td data-label="Action">{_badge(row.action, row.action)}</td>'
        f'<th scope="row" title="{escape(row.session_id)}"><code>{escape(row.session_id)}</code>'
        f'</th><td data-label="File">{name}</td>'
        f'<td data-label="Size" class="number">{show_size(row.size)}</td>'
        f'<td data-label="Reason" class="reason">{escape(row.reason)}</td></tr>'
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _since(now: datetime, then: datetime) -> str:
    return f'<time datetime="{then.isoformat()}" title="{_time(then)}">{_ago(now - then)}</time>'


def _ago(duration: timedelta) -> str:
    """A duration for a glance."""
    minutes, seconds = divmod(max(duration // timedelta(seconds=1), 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    first = next((place for place, (count, _) in enumerate(units) if count), None)
    if first is None:
        return "now"
    shown = units[first : first + (2 if hours or days else 1)]
    return " ".join(f"{count}{unit}" for count, unit in shown if count) + " ago"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M:%S} UTC"
