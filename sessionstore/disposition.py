"""The Content-Disposition header of RFC 6266: a browser shows the file, or saves it."""

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
"""Types that a browser shows without running code in them. Not SVG, HTML, XML or PDF."""

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, section 3.2.1, besides letters and digits
_unsafe = re.compile(r'[^ -~]|["%\\]')


def disposition(name: str, media_type: str) -> str:
    """Return the header's value for a file: inline if its type is in ``INLINE``, else attachment.

    The file name is the last segment of ``name``. Characters that RFC 6266 (appendix D) excludes
    from a plain ``filename`` are replaced by "_", and the true name follows as ``filename*``.
    """
    kind = "inline" if media_type in INLINE else "attachment"
    own = name.rpartition("/")[2]
    plain = _unsafe.sub("_", own)
    value = f'{kind}; filename="{plain}"'
    if plain != own:
        value += f"; filename*=UTF-8''{quote(own, safe=_ATTR_CHAR, errors='replace')}"
    return value
