"""Random images in a directory for each visitor, which is deleted after the page closes.

Set SESSIONSTORE_URL (a directory is enough) and run it; ``make demo`` does both.
"""

from __future__ import annotations

import os
import random

import gradio as gr
from PIL import Image, ImageOps

from sessionstore import SessionStore, StoredFile
from sessionstore.adapters.gradio import attach, session

# Visitors usually have five minutes to come back. For a demo, five seconds are enough.
os.environ.setdefault("SESSIONSTORE_LINGER", "5s")
store = SessionStore.open()


def draw() -> Image.Image:
    """Draw an orb of two random colours."""
    hue, turn = random.uniform(0, 180), random.uniform(60, 180)  # noqa: S311 - colours, no secrets
    inner, outer = (f"hsl({angle:.3f}, 85%, 60%)" for angle in (hue, hue + turn))
    return ImageOps.colorize(Image.radial_gradient("L").resize((400, 400)), inner, outer)


def generate(
    history: list[StoredFile], request: gr.Request
) -> tuple[StoredFile, list[StoredFile], list[StoredFile]]:
    """Save one more image in the visitor's session."""
    image = session(request).add(draw(), suffix=".webp")
    return image, [image, *history], [image, *history]


def watch(request: gr.Request) -> str:
    """Return the number of the visitor's images and of other visitors' directories."""
    mine = session(request)
    others = sum(other != mine for other in store.sessions())
    return (
        f"**Your directory:** `sessions/{mine.sid}` · images: {len(mine.files())}  \n"
        f"**Other visitors' directories:** {others}"
    )


with gr.Blocks(title="State Cleanup") as demo:
    gr.Markdown("# State Cleanup\nClose this page, and its directory is deleted a moment later.")
    status = gr.Markdown(container=True)
    with gr.Row():
        with gr.Column():
            picture = gr.Image(label="Generated image", height=420, interactive=False)
            button = gr.Button("Generate", variant="primary")
        gallery = gr.Gallery(label="Your images", show_label=False, columns=3, height=484)
    history = gr.State([], delete_callback=lambda kept: print(f"STATE DELETED: {len(kept)}"))
    gr.on([demo.load, button.click], generate, history, [picture, history, gallery])
    gr.on([demo.load, gr.Timer(1).tick], watch, outputs=status, show_progress="hidden")

attach(demo, store)

if __name__ == "__main__":
    demo.launch()
