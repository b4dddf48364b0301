"""Images as content: Pillow's and numpy's become files in the format of the name."""

from __future__ import annotations

import builtins
import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sessionstore import Session, SettingsError
from sessionstore.images import encode, is_image
from sessionstore.testing import FakeClock
from tests.support.stores import memory_store

COLOURS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


@pytest.fixture
def session() -> Session:
    return memory_store(FakeClock()).session("alice")


def opened(session: Session, name: str) -> Image.Image:
    image = Image.open(session.open(name))
    image.load()
    return image


class TestFormat:
    @pytest.mark.parametrize(
        ("name", "form"),
        [
            ("a.png", "PNG"), ("a.webp", "WEBP"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"),
            ("a.gif", "GIF"), ("a.bmp", "BMP"), ("a.tiff", "TIFF"), ("a", "PNG"), (".b", "PNG"),
            ("x.y/a", "PNG"),
        ],
    )  # fmt: skip
    def test_is_that_of_the_suffix_and_png_without_one(
        self, session: Session, name: str, form: str
    ) -> None:
        session.put(name, Image.fromarray(COLOURS))
        assert opened(session, name).format == form

    @pytest.mark.parametrize("name", ["a.txt", "a.unknown", "a.psd"])
    def test_a_suffix_of_no_image_format_is_refused(self, session: Session, name: str) -> None:
        with pytest.raises(ValueError, match=r"names no image format: use \.png, \.webp or \.jpg"):
            session.put(name, Image.fromarray(COLOURS))
        assert session.files() == []

    def test_add_gives_png(self, session: Session) -> None:
        file = session.add(Image.fromarray(COLOURS))
        assert (file.name[-4:], opened(session, file.name).format) == (".png", "PNG")

    def test_add_takes_a_suffix(self, session: Session) -> None:
        assert opened(session, session.add(COLOURS, ".webp").name).format == "WEBP"


class TestPixels:
    @pytest.mark.parametrize("make", [Image.fromarray, lambda array: array], ids=["PIL", "numpy"])
    def test_come_back(self, session: Session, make: Callable[[Any], Any]) -> None:
        session.put("a.png", make(COLOURS))
        assert np.array_equal(np.asarray(opened(session, "a.png")), COLOURS)

    @pytest.mark.parametrize(
        ("shape", "mode"), [((5, 7), "L"), ((5, 7, 3), "RGB"), ((5, 7, 4), "RGBA")]
    )
    def test_of_an_array_are_grey_colour_or_colour_with_alpha(
        self, session: Session, shape: tuple[int, ...], mode: str
    ) -> None:
        session.put("a.png", np.zeros(shape, np.uint8))
        assert opened(session, "a.png").mode == mode

    def test_of_a_slice_come_back(self, session: Session) -> None:
        session.put("a.png", COLOURS[::2, ::-1])
        assert np.array_equal(np.asarray(opened(session, "a.png")), COLOURS[::2, ::-1])

    @pytest.mark.parametrize("name", ["a.jpg", "a.bmp", "a.ppm"])
    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
    def test_lose_their_alpha_where_the_format_has_none(
        self, session: Session, name: str, mode: str
    ) -> None:
        session.put(name, Image.new(mode, (7, 5)))
        assert opened(session, name).mode in {"RGB", "L"}

    @pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
    def test_keep_their_alpha_elsewhere(self, session: Session, name: str) -> None:
        session.put(name, Image.new("RGBA", (7, 5), (255, 0, 0, 128)))
        assert set(opened(session, name).getchannel("A").tobytes()) == {128}

    def test_the_image_given_stays_what_it_is(self, session: Session) -> None:
        image = Image.new("RGBA", (7, 5), (255, 0, 0, 128))
        session.put("a.jpg", image)
        assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (255, 0, 0, 128))


class TestRefusals:
    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((5, 7), np.float32), np.zeros((5, 7, 3), np.int64), np.zeros(7, np.uint8),
            np.zeros((5, 7, 2), np.uint8), np.zeros((5, 7, 5), np.uint8),
            np.zeros((2, 5, 7, 3), np.uint8), np.zeros((), np.uint8), np.zeros((5, 7), bool),
        ],
        ids=lambda array: f"{array.dtype}{array.shape}",
    )  # fmt: skip
    def test_another_shape_or_type_says_what_is_right(self, session: Session, array: Any) -> None:
        with pytest.raises(ValueError, match=r"uint8 of shape \(H, W\), .*; this one is"):
            session.put("a.png", array)
        assert session.files() == []

    def test_without_pillow_an_array_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = builtins.__import__

        def without_pillow(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("PIL"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_pillow)
        with pytest.raises(SettingsError, match=r"pip install 'sessionstore\[image\]'"):
            encode(COLOURS, ".png")


@pytest.mark.parametrize(
    "content", [b"bytes", io.BytesIO(), [b"a"], None, "text", memoryview(b"a")], ids=type
)
def test_nothing_else_is_an_image(content: object) -> None:
    assert not is_image(content)


def test_saving_bytes_loads_neither_library() -> None:
    program = (
        "import sys; from sessionstore import SessionStore;"
        "SessionStore.open('memory://').session('alice').put('a.png', b'cat').read();"
        "print(sorted({'PIL', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert out.stdout == "[]\n"
