"""Images as content: Pillow images and numpy arrays become the bytes of a file.

Neither library is loaded here: a value can be one of theirs only if the program has loaded it.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from sessionstore.errors import SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_ALPHA = {"JPEG": "RGB", "BMP": "RGB", "PPM": "RGB"}  # formats without alpha, and their mode

_CHANNELS = ((), (3,), (4,))  # after height and width of an array: grey, colour, with alpha


def is_image(content: object) -> bool:
    """Return whether this is a Pillow image or a numpy array."""
    if isinstance(content, bytes):  # the most common case
        return False
    classes = (("PIL.Image", "Image"), ("numpy", "ndarray"))
    return any(
        isinstance(content, getattr(sys.modules.get(module), name, ())) for module, name in classes
    )


def encode(content: Any, suffix: str) -> bytes:
    """Return the bytes of an image file in the format of ``suffix``, PNG without a suffix.

    ``content`` is a PIL image, or a numpy array of shape (H, W), (H, W, 3) or (H, W, 4) and dtype
    uint8. Raises ValueError for another shape or dtype, or a suffix that names no image format.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise SettingsError(
            "Saving an array as an image needs Pillow: pip install 'sessionstore[image]'."
        ) from error
    form = Image.registered_extensions().get(suffix.lower() or ".png")
    if form is None or form not in Image.SAVE:
        raise ValueError(f"{suffix!r} names no image format: use .png, .webp or .jpg.")
    image: Image.Image = content if isinstance(content, Image.Image) else _from_array(content)
    mode = _NO_ALPHA.get(form)
    if mode is not None and image.mode not in ("RGB", "L", "CMYK", "1"):
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def _from_array(array: Any) -> Image:
    from PIL import Image

    # shape[2:] is the shape without the height and width.
    if array.dtype != "uint8" or array.shape[2:] not in _CHANNELS or array.ndim < len("HW"):
        raise ValueError(
            "An image array is uint8 of shape (H, W), (H, W, 3) or (H, W, 4); this one is "
            f"{array.dtype} of shape {array.shape}."
        )
    return Image.fromarray(array)
