"""What a browser shall do with a file: the Content-Disposition header of RFC 6266."""

from __future__ import annotations

import re
from urllib.parse import quote

INLINE = frozenset(
    {
        "audio/aac",
        "audio/flac",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/wav",
        "audio/webm",
        "image/apng",
        "image/avif",
        "image/bmp",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/plain",
        "video/mp4",
        "video/ogg",
        "video/webm",
    }
)
"""Types that a browser shows without running anything in them. Not SVG, HTML, XML or PDF."""

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, section 3.2.1, besides letters and digits
_unsafe = re.compile(r'[^ -~]|["%\\]')


def disposition(name: str, media_type: str) -> str:
    """The header's value for a file: shown if its type is on the list, else saved.

    The name is its last segment. What RFC 6266 (appendix D) wants kept out of a plain ``filename``
    is replaced there by "_", and the true name follows as ``filename*``.
    """
    kind = "inline" if media_type in INLINE else "attachment"
    own = name.rpartition("/")[2]
    plain = _unsafe.sub("_", own)
    value = f'{kind}; filename="{plain}"'
    if plain != own:
        value += f"; filename*=UTF-8''{quote(own, safe=_ATTR_CHAR, errors='replace')}"
    return value
