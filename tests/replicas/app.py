"""The app that the replicas serve: one function for each kind of file that Gradio handles.

Each function reads its whole input and makes a new file of it, outside of Gradio's cache, as an
app's own code does. SESSIONSTORE_URL attaches the app to that store; when it is empty, the app is
plain Gradio.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from tests.replicas import media
from tests.support.patience import be_patient

SWEEP_EVERY = timedelta(seconds=5)
"""Copies that nobody asks for go with a sweep."""

GREEN = (20, 200, 40)
"""The colour of the picture that the app itself comes with."""


def digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reverse(path: str) -> str:
    return made(".txt", Path(path).read_bytes()[::-1])


def invert(pixels: Any) -> Any:
    return 255 - pixels


def turn(sound: tuple[int, Any]) -> tuple[int, Any]:
    rate, samples = sound
    return rate, np.flipud(samples)


def lengthen(path: str) -> str:
    """The video with an empty box behind its end."""
    return made(".mp4", Path(path).read_bytes() + media.box(b"free", b"the app's own"))


def exhibit(pictures: list[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """Each picture inverted, once from memory and once as a file."""
    inverted = [255 - pixels for pixels, _ in pictures]
    return [*((each, "memory") for each in inverted), *((saved(each), "file") for each in inverted)]


def reply(message: dict[str, Any], history: list[dict[str, Any]]) -> tuple[str, str]:
    """How many bytes came with this message and with those before, and a file to keep."""
    came = sum(len(Path(path).read_bytes()) for path in message["files"])
    before = sum(len(Path(path).read_bytes()) for path in paths(history))
    return f"{came} bytes, {before} before", made(".txt", media.text())


def chat(message: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    said, path = reply(message, history)
    return {"text": said, "files": [path]}


def converse(message: dict[str, Any], history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with this message and the answer to it."""
    said, path = reply(message, history)
    sent = [{"role": "user", "content": {"path": each}} for each in message["files"]]
    answer = [{"role": "assistant", "content": each} for each in (said, {"path": path})]
    return [*history, *sent, *answer]


def paths(value: Any) -> list[str]:
    """The paths of all files in a chat's history, however deep."""
    if isinstance(value, dict):
        return [value["path"]] if "path" in value else paths([*value.values()])
    return [path for each in value for path in paths(each)] if isinstance(value, list) else []


def made(suffix: str, content: bytes) -> str:
    """A new file with this content."""
    with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as file:
        file.write(content)
    return file.name


def saved(pixels: Any) -> str:
    path = made(".png", b"")
    Image.fromarray(pixels).save(path)
    return path


def build() -> gr.Blocks:
    own = Path("own.png").absolute()
    Image.new("RGB", (64, 48), GREEN).save(own)
    demo = gr.Blocks(title="Replicas")
    with demo:
        gr.Image(str(own), label="default", elem_id="default")
        with gr.Row():
            file = gr.File(label="file", elem_id="file-in")
            result = gr.Textbox(label="digest", interactive=True, elem_id="digest-out")
            file_out = gr.File(label="reversed", elem_id="file-out")
        with gr.Row():
            image = gr.Image(label="image", elem_id="image-in")
            image_out = gr.Image(label="inverted", elem_id="image-out")
        gr.Examples([[str(own)]], image, image_out, invert, cache_examples=True, elem_id="examples")
        with gr.Row():
            sound = gr.Audio(label="sound", elem_id="audio-in")
            sound_out = gr.Audio(label="turned", elem_id="audio-out")
        with gr.Row():
            video = gr.Video(label="video", elem_id="video-in")
            video_out = gr.Video(label="longer", elem_id="video-out")
        with gr.Row():
            gallery = gr.Gallery(label="pictures", type="numpy", elem_id="gallery-in")
            gallery_out = gr.Gallery(label="exhibition", elem_id="gallery-out")
        press("digest", digest, file, result)
        press("file", reverse, file, file_out)
        press("image", invert, image, image_out)
        press("audio", turn, sound, sound_out)
        press("video", lengthen, video, video_out)
        press("gallery", exhibit, gallery, gallery_out)
        with gr.Row():
            message = gr.MultimodalTextbox(label="message", elem_id="message-in")
            talk = gr.Chatbot(label="talk", elem_id="talk")
        press("converse", converse, [message, talk], talk)
        gr.ChatInterface(
            chat,
            multimodal=True,
            chatbot=gr.Chatbot(elem_id="chat"),
            textbox=gr.MultimodalTextbox(elem_id="chat-in"),
        )
    return demo


def press(name: str, fn: Any, given: Any, out: gr.components.Component) -> None:
    """A button that runs the function, and an endpoint of the same name."""
    gr.Button(f"run {name}", elem_id=f"{name}-run").click(fn, given, out, api_name=name)


def main() -> None:
    demo = build()
    if os.environ["SESSIONSTORE_URL"]:
        from sessionstore import SessionStore
        from sessionstore.adapters.gradio import attach, my_files

        store = SessionStore.open()
        with demo:
            my_files(store)
        attach(demo, store, sweep_every=SWEEP_EVERY)
    be_patient()
    demo.launch(quiet=True)


if __name__ == "__main__":
    main()
