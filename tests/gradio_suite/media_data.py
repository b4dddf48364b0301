"""A stand-in for Gradio's ``client/python/test/media_data.py``, which its source archive lacks.

It has the same names, for files of the archive: paths are relative to its top, where tests run.
"""

from __future__ import annotations

from gradio_client.utils import encode_file_to_base64  # type: ignore[import-untyped]  # it has none

_FILES = "test/test_files"


def _media(path: str) -> dict[str, str]:
    return {"path": path, "data": encode_file_to_base64(path)}


BASE64_IMAGE = encode_file_to_base64(f"{_FILES}/bus.png")
BASE64_AUDIO = _media("gradio/media_assets/audio/audio_sample.wav")
BASE64_MICROPHONE = BASE64_AUDIO
BASE64_VIDEO = _media(f"{_FILES}/video_sample.mp4")
BASE64_FILE = _media(f"{_FILES}/sample_file.pdf")
