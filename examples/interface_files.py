"""Upload a picture; get private previews in other sizes, and a zip of everything.

The upload, the previews and the zip are saved in the visitor's session and deleted when the page
closes. Set SESSIONSTORE_URL (a directory is enough) and run it.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import gradio as gr
from PIL import Image

from sessionstore import SessionStore, StoredFile
from sessionstore.adapters.gradio import attach, session

WIDTHS = (512, 256, 128)


def resize(upload: str | None, request: gr.Request) -> tuple[list[StoredFile], StoredFile]:
    """Save the upload and its previews; return the previews and a zip of everything."""
    if upload is None:
        raise gr.Error("Choose a picture first.")
    mine = session(request)
    mine.put(f"original/{Path(upload).name}", Path(upload))
    previews = []
    for width in WIDTHS:
        with Image.open(upload) as picture:
            picture.thumbnail((width, width))
            previews.append(mine.put(f"preview/{width}.webp", picture))
    with mine.open("pictures.zip", "wb") as target, ZipFile(target, "w") as bundle:
        for file in mine.files():
            if file.name != "pictures.zip":
                bundle.writestr(file.name, file.read())
    return previews, mine.get("pictures.zip")


demo = gr.Interface(
    resize,
    gr.Image(type="filepath", label="Your picture"),
    [gr.Gallery(label="Previews", columns=3), gr.File(label="All of it")],
    title="Picture sizes",
    description="Your files are private, and are deleted when you close the page.",
    flagging_mode="never",
)
attach(demo, SessionStore.open())

if __name__ == "__main__":
    demo.launch()
