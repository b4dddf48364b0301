"""Images for each visitor, which are deleted after the page closes, and a list that shows it.

Set SESSIONSTORE_URL (a directory is enough) and run it; ``make demo`` does both, and sets a linger
of five seconds. Open the page in two tabs, and close one.
"""

from __future__ import annotations

import random
from collections import deque
from datetime import UTC, datetime
from html import escape
from math import ceil

import gradio as gr
from PIL import Image, ImageDraw

from sessionstore import Session, SessionStore, StoredFile
from sessionstore.adapters.gradio import attach, my_files, session
from sessionstore.events import Event

SAME = "same picture.png"
"""The name of the picture that is identical for every visitor."""

store = SessionStore.open()


def draw(seed: float) -> Image.Image:
    """Draw three discs on a ground; the seed chooses their colours and places."""
    dice = random.Random(seed)  # noqa: S311 - colours, no secrets
    hue = dice.randrange(360)
    image = Image.new("RGB", (1200, 1200), f"hsl({hue}, 45%, 92%)")
    pen = ImageDraw.Draw(image)
    for turn, size in ((0, 420), (150, 300), (210, 190)):
        x, y = (dice.randrange(size, 1200 - size) for _ in "xy")
        colour = f"hsl({(hue + turn) % 360}, 70%, {dice.randrange(48, 66)}%)"
        pen.ellipse((x - size, y - size, x + size, y + size), fill=colour)
    return image.resize((400, 400), Image.Resampling.LANCZOS)  # smooth edges


Images = list[StoredFile]


def generate(images: Images, request: gr.Request) -> tuple[Images, Images]:
    """Save one more image in the visitor's session; return the list for the state and the page."""
    image = session(request).add(draw(random.random()), suffix=".png")  # noqa: S311 - as above
    return [image, *images], [image, *images]


def same(images: Images, request: gr.Request) -> tuple[Images, Images]:
    """Save the picture that every visitor can have; the store keeps one copy for all of them."""
    mine = session(request)
    if SAME not in mine:
        images = [mine.put(SAME, draw(7)), *images]
    return images, images


class Visitors:
    """The visitors of the page: a number for each, who is leaving, and who left."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, str | None], int] = {}
        self.leaving: dict[tuple[str, str | None], datetime] = {}
        self.gone: deque[str] = deque(maxlen=4)
        for kind in ("ended", "resumed", "dropped"):
            store.on(kind, self.hear)

    def number(self, visitor: tuple[str, str | None]) -> int:
        """Return the visitor's number: 1 for the first one that was seen."""
        return self.numbers.setdefault(visitor, len(self.numbers) + 1)

    def hear(self, event: Event) -> None:
        """Note who ended and when they will be deleted, who came back, and who was deleted."""
        visitor = (event.session_id or "", event.owner)
        if event.kind == "ended":
            self.leaving[visitor] = event.at + store.retention.linger
            return
        self.leaving.pop(visitor, None)
        if event.kind == "dropped" and visitor in self.numbers:
            what = f"{counted(event.files, 'image')}, {event.size / 1024:.1f} KiB deleted"
            self.gone.appendleft(f"<b>Visitor {self.number(visitor)}</b> left: {what}")

    def state(self, each: Session, me: Session) -> str:
        """Return a table row that shows one visitor."""
        visitor, usage = (each.id, each.owner), each.usage()
        who = f"Visitor {self.number(visitor)}" + (" (you)" if each == me else "")
        due = self.leaving.get(visitor)
        seconds = 0 if due is None else max(ceil((due - datetime.now(UTC)).total_seconds()), 0)
        state = "here" if due is None else f"deleted in {seconds} s"
        size, shown = f"{usage.bytes / 1024:.1f} KiB", f"<b><i>{state}</i></b>"
        cells = (who, counted(usage.files, "image"), size, shown)
        row = "".join(f"<span>{cell}</span>" for cell in cells)
        kind = "here" if due is None else "left"
        return f"<div class='visitor {kind}' title='Session {escape(each.id)}'>{row}</div>"


visitors = Visitors()
HINT = "<div class='hint'>Close a tab, and see it here.</div>"


def watch(request: gr.Request) -> str:
    """Return the list of visitors, the copies of the same picture, and who was deleted."""
    me = session(request)
    present = sorted(store.sessions(), key=lambda each: visitors.number((each.id, each.owner)))
    rows = "".join(visitors.state(each, me) for each in present)
    having = sum(SAME in each for each in present)
    copies = f"{counted(having, 'visitor')}, {'1 copy' if having else 'no copy'}"
    deleted = "".join(f"<div>{line}</div>" for line in visitors.gone)
    return (
        "<div class='watch'><div class='head'>Who is here</div>"
        f"<div class='visitors'>{rows}</div>"
        f"<div class='head'>The same picture</div><div class='big'>{copies}</div>"
        f"<div class='head'>Just deleted</div>{deleted or HINT}</div>"
    )


def counted(number: int, word: str) -> str:
    """Return "1 image", "2 images"."""
    return f"{number} {word}{'' if number == 1 else 's'}"


CSS = """
.watch {border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
  padding: .1rem 1.2rem 1.1rem; line-height: 1.6}
.watch .head {color: var(--body-text-color-subdued); font-size: .85rem; margin: 1rem 0 .2rem}
.watch .visitors {display: grid; grid-template-columns: 1fr auto auto auto;
  font-variant-numeric: tabular-nums; white-space: nowrap}
.watch .visitor {display: contents}
.watch .visitor span {padding: .35rem 0 .35rem .8rem; border-bottom: 1px solid
  var(--border-color-primary)}
.watch .visitor span:first-child {padding-left: 0}
.watch .visitor b {display: block; text-align: right; font-weight: 500}
.watch i {font-style: normal; border-radius: 1rem; padding: .1rem .6rem; font-size: .85em}
.watch .here i {background: #16a34a26; color: #15803d}
.watch .left i {background: #ea580c26; color: #c2410c}
.dark .watch .here i {color: #4ade80}
.dark .watch .left i {color: #fb923c}
.watch .left span:not(:last-child) {opacity: .55}
.watch .big {font-size: 1.25rem; font-weight: 600}
.watch .hint {color: var(--body-text-color-subdued)}
@media (max-width: 480px) {
  .watch .visitors {font-size: .85em}
  .watch .visitor span {padding-left: .5rem}
}
"""

with gr.Blocks(title="Files that leave with their visitor") as demo:
    gr.HTML(f"<style>{CSS}</style>", padding=False)
    gr.Markdown(
        "# Files that leave with their visitor\n"
        "Open this page in a second tab, press **Generate** there, close it, and watch it "
        "disappear here."
    )
    with gr.Tab("Pictures"), gr.Row():
        with gr.Column(scale=3):
            with gr.Row():
                button = gr.Button("Generate", variant="primary")
                twin = gr.Button("Use the same picture")
            gallery = gr.Gallery(
                label="Your images", columns=3, height="auto", object_fit="cover", interactive=False
            )
        with gr.Column(scale=2, min_width=350):
            view = gr.HTML(padding=False)
    with gr.Tab("My files"):
        my_files(store)
    images = gr.State([])
    gr.on([demo.load, button.click], generate, images, [images, gallery])
    twin.click(same, images, [images, gallery])
    gr.on([demo.load, gr.Timer(1).tick], watch, outputs=view, show_progress="hidden")

attach(demo, store)

if __name__ == "__main__":
    demo.launch()
