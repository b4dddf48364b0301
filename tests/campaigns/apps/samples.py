"""Sample files, and plausible inputs for every component of Gradio."""

from __future__ import annotations

import io
import math
import struct
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw

Upload = Callable[[str], dict[str, Any]]
"""Uploads the sample of that name, and returns it as an input of an event."""

_VIDEO: Final = Path(__file__).parents[2] / "replicas/two-colours.mp4"


def _picture() -> bytes:
    image = Image.new("RGB", (24, 16), "orange")
    ImageDraw.Draw(image).line((0, 0, 23, 15), fill="navy", width=2)
    return _saved(image)


def _saved(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _sound() -> bytes:
    stream = io.BytesIO()
    tone = [int(9000 * math.sin(2 * math.pi * 440 * moment / 8000)) for moment in range(1600)]
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack(f"<{len(tone)}h", *tone))
    return stream.getvalue()


def _archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(zipfile.ZipInfo("inside.txt"), "inside")
    return stream.getvalue()


SAMPLES: Final[dict[str, bytes]] = {
    "cat.png": _picture(),
    "layer.png": _saved(Image.new("RGBA", (24, 16), (0, 0, 255, 60))),
    "tone.wav": _sound(),
    "clip.mp4": _VIDEO.read_bytes(),
    "table.csv": b"a,b\n1,2\n3,4\n",
    "notes.txt": "Some notes, in a file: åß∂\n".encode(),
    "page.pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "cube.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "data.json": b'{"a": [1, 2]}\n',
    "some.zip": _archive(),
}

_KINDS: Final = {
    "image": "cat.png",
    "audio": "tone.wav",
    "video": "clip.mp4",
    "text": "notes.txt",
    "file": "notes.txt",
}

FILES: Final = {
    "image": "cat.png",
    "simpleimage": "cat.png",
    "audio": "tone.wav",
    "video": "clip.mp4",
    "model3d": "cube.obj",
    "file": "notes.txt",
    "uploadbutton": "notes.txt",
}
"""The sample for each component that has one file as its value."""


def sample_for(props: dict[str, Any], otherwise: str = "notes.txt") -> str:
    """Return the name of a sample that a component with these ``props`` accepts."""
    for kind in props.get("file_types") or []:
        if kind in _KINDS:
            return _KINDS[kind]
        ending = next((name for name in SAMPLES if name.endswith(kind.lstrip("*"))), None)
        if ending is not None:
            return ending
    return otherwise


def plausible(component: dict[str, Any], value: Any, upload: Upload) -> Any:  # noqa: C901, PLR0911, PLR0912 - a table of the components
    """Return an input for a component of ``/config`` that has ``value`` in the page.

    A visitor fills in empty fields, and gives every field of files a file.
    """
    kind, props = component["type"], component.get("props", {})
    if kind in {"state", "browserstate", "dataset", "button", "loginbutton", "duplicatebutton"}:
        return value
    if props.get("interactive") is False and value is not None:
        return value
    match kind:
        case "file" | "uploadbutton":
            one = upload(sample_for(props))
            if props.get("file_count", "single") == "single":
                return one
            return [one, upload(sample_for(props, "table.csv"))]
        case _ if kind in FILES:
            return upload(FILES[kind])
        case "imageeditor":
            picture, layer = upload("cat.png"), upload("layer.png")
            return {"background": picture, "layers": [layer], "composite": picture}
        case "imageslider":
            return [upload("cat.png"), upload("layer.png")]
        case "gallery":
            pictures = [upload("cat.png"), upload("layer.png")]
            return [{"image": picture, "caption": None} for picture in pictures]
        case "multimodaltextbox":
            return {"text": "look at these", "files": [upload("cat.png"), upload("notes.txt")]}
        case "textbox" | "textarea" | "code" | "markdown" | "html":
            return value or "hello"
        case "number" | "slider":
            return props.get("minimum", 3) if value is None else value
        case "checkbox":
            return bool(value)
        case "radio" | "dropdown":
            chosen = _first_choice(props) if value in (None, []) else value
            several = props.get("multiselect") and not isinstance(chosen, list)
            return [chosen] if several else chosen
        case "checkboxgroup":
            return value or [_first_choice(props)]
        case "colorpicker":
            return value or "#ff8800"
        case "datetime":
            return value or "2026-01-02 03:04:05"
        case "json":
            return {"a": 1} if value is None else value
        case "dataframe":
            return value or {"headers": ["a", "b"], "data": [["1", "2"]], "metadata": None}
        case "chatbot":
            return value or []
        case "fileexplorer":
            return value or []
        case "timer":
            return props.get("value", 1)
    return value


def _first_choice(props: dict[str, Any]) -> Any:
    choices = props.get("choices") or [None]
    first = choices[0]
    return first[1] if isinstance(first, list | tuple) else first
