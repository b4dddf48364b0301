"""Small media that every browser plays as they are, each with bytes that no other has."""

from __future__ import annotations

import io
import secrets
import struct
import wave
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS = 6.0
"""How long the video and the sound are."""

_RATE = 8000
_VIDEO = Path(__file__).with_name("two-colours.mp4")
"""Three seconds of red, three of blue: H.264, 96x64. Its index (``moov``) comes last."""


def text() -> bytes:
    return secrets.token_hex(2000).encode()


def picture(colour: tuple[int, int, int]) -> bytes:
    """A PNG of one colour, but for one row."""
    pixels = np.full((48, 64, 3), colour, dtype=np.uint8)
    pixels[0] = np.frombuffer(secrets.token_bytes(64 * 3), dtype=np.uint8).reshape(64, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def sound() -> bytes:
    """A WAV of noise."""
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(_RATE)
        writer.writeframes(secrets.token_bytes(2 * int(_RATE * SECONDS)))
    return out.getvalue()


def video(padding: int = 3_000_000) -> bytes:
    """An MP4 whose index is behind so many bytes of nothing that a player must ask for it.

    The padding is a ``free`` box (ISO 14496-12, 8.1.2) between the frames and the index, so the
    offsets in the index stay right.
    """
    content = _VIDEO.read_bytes()
    index = content.index(b"moov") - 4
    return content[:index] + box(b"free", secrets.token_bytes(padding)) + content[index:]


def box(kind: bytes, content: bytes) -> bytes:
    """A box of an MP4: length, kind, content."""
    return struct.pack(">I4s", 8 + len(content), kind) + content
