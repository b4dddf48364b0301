"""What a visitor does, by kind of file. Each case raises when anything is not as it should be."""

from __future__ import annotations

import hashlib
import io
import wave
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.replicas import media
from tests.replicas.app import GREEN
from tests.replicas.visitor import Visitor

RED, BLUE = (210, 30, 20), (20, 40, 210)

Case = Callable[[Visitor], None]


def upload_and_predict(visitor: Visitor) -> None:
    content = media.text()

    assert visitor.call("digest", visitor.upload("in.txt", content)) == sha(content)


def file(visitor: Visitor) -> None:
    content = media.text()

    answer = visitor.call("file", visitor.upload("in.txt", content))

    assert twice(visitor, answer) == content[::-1]


def output_as_input(visitor: Visitor) -> None:
    """What one event returned is what the next one reads."""
    first = visitor.call("file", visitor.upload("in.txt", media.text()))

    assert visitor.call("digest", first) == sha(visitor.given(first))


def image(visitor: Visitor) -> None:
    answer = visitor.call("image", visitor.upload("red.png", media.picture(RED)))

    assert shows(twice(visitor, answer), inverse(RED))


def audio(visitor: Visitor) -> None:
    content = media.sound()

    answer = visitor.call("audio", visitor.upload("in.wav", content))

    assert samples(twice(visitor, answer)) == samples(content)[::-1]


def video_with_ranges(visitor: Visitor) -> None:
    content = media.video()
    output = visitor.call("video", visitor.upload("in.mp4", content))
    path = output["video"]["path"] if "video" in output else output["path"]

    whole = visitor.given({"path": path})

    assert whole.startswith(content)
    for wanted, part in ranges(whole):
        for _ in range(2):  # the second is the other replica's
            answer = visitor.client.get(
                visitor.api(f"file={path}"), headers={"Range": f"bytes={wanted}"}
            )
            assert answer.status_code == httpx.codes.PARTIAL_CONTENT
            assert answer.content == part
            assert "cookie" not in answer.headers


def ranges(whole: bytes) -> list[tuple[str, bytes]]:
    """The three forms of a range that a player sends, and what belongs into the answers."""
    middle = len(whole) // 2
    return [
        (f"{middle}-{middle + 999}", whole[middle : middle + 1000]),
        (f"{middle}-", whole[middle:]),
        ("-500", whole[-500:]),
    ]


def gallery(visitor: Visitor) -> None:
    pictures = [
        {"image": visitor.upload(f"{name}.png", media.picture(colour)), "caption": name}
        for name, colour in (("red", RED), ("blue", BLUE))
    ]

    answer = visitor.call("gallery", pictures)

    shown = [twice(visitor, each["image"]) for each in answer]
    expected = [inverse(RED), inverse(BLUE)] * 2
    assert all(shows(content, colour) for content, colour in zip(shown, expected, strict=True))


def chat_with_files(visitor: Visitor) -> None:
    """The second message comes with the whole talk, so the first one's files are read again."""
    talk: list[Any] = []
    sent: list[bytes] = []
    answered = 0
    for number in (1, 2):
        content = media.text()[: 1000 * number]
        upload = visitor.upload(f"{number}.txt", content)

        talk = visitor.call("converse", {"text": "", "files": [upload]}, talk)

        *_, uploaded, made = files(talk)
        assert f"{len(content)} bytes, {sum(map(len, sent)) + answered} before" in str(talk)
        assert twice(visitor, uploaded) == content
        answered += len(twice(visitor, made))
        sent.append(content)


def files(value: Any) -> list[dict[str, Any]]:
    """All files in an output, in order."""
    if isinstance(value, dict):
        return [value] if "path" in value else files([*value.values()])
    return [found for each in value for found in files(each)] if isinstance(value, list) else []


def example(visitor: Visitor) -> None:
    """The example's picture, and the result that was made of it when the app started."""
    config = visitor.get("/config").json()
    (samples,) = (each["props"]["samples"] for each in config["components"] if is_dataset(each))
    ((sample,),) = samples

    answer = visitor.call("load_example_output", 0)

    assert shows(twice(visitor, sample), GREEN)
    assert shows(twice(visitor, answer), inverse(GREEN))


def is_dataset(component: dict[str, Any]) -> bool:
    return bool(component["type"] == "dataset")


def default(visitor: Visitor) -> None:
    """The picture that the page shows from the beginning."""
    config = visitor.get("/config").json()
    (value,) = (
        each["props"]["value"]
        for each in config["components"]
        if each["props"].get("elem_id") == "default"
    )

    assert shows(twice(visitor, value), GREEN)


CASES: dict[str, Case] = {
    "upload, then an event": upload_and_predict,
    "file": file,
    "an output as the next input": output_as_input,
    "image": image,
    "audio": audio,
    "video, with ranges": video_with_ranges,
    "gallery": gallery,
    "chat with files": chat_with_files,
    "examples, cached": example,
    "a component's default": default,
}


def twice(visitor: Visitor, output: Any) -> bytes:
    """What both replicas serve: nginx takes them in turns."""
    first, second = visitor.given(output), visitor.given(output)
    assert first == second
    return first


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def inverse(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = colour
    return 255 - red, 255 - green, 255 - blue


def shows(content: bytes, colour: tuple[int, int, int]) -> bool:
    """Whether a picture is of this colour, as far as its format keeps colours."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=int)
    return bool(abs(pixels[20:].mean(axis=(0, 1)) - colour).max() < 12)


def samples(content: bytes) -> list[int]:
    with wave.open(io.BytesIO(content)) as reader:
        frames = reader.readframes(reader.getnframes())
    return [*np.frombuffer(frames, dtype="<i2").tolist()]
