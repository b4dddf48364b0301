"""The media type of a name, and the Content-Disposition that a browser gets with it.

The type comes from our own table: equal on every machine and backend.

The system's table (``mimetypes``) differs between machines, and a package can change it. Types are
those registered with IANA (https://www.iana.org/assignments/media-types); for an extension without
a registered type, the type in common use.
"""

from __future__ import annotations

import re
from urllib.parse import quote

UNKNOWN = "application/octet-stream"

TYPES = {
    "aac": "audio/aac",
    "apng": "image/apng",
    "avi": "video/vnd.avi",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "bz2": "application/x-bzip2",
    "css": "text/css",
    "csv": "text/csv",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip",
    "flac": "audio/flac",
    "gif": "image/gif",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "gz": "application/gzip",
    "heic": "image/heic",
    "htm": "text/html",
    "html": "text/html",
    "ico": "image/vnd.microsoft.icon",
    "ipynb": "application/x-ipynb+json",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "log": "text/plain",
    "m4a": "audio/mp4",
    "m4v": "video/mp4",
    "md": "text/markdown",
    "mid": "audio/midi",
    "mjs": "text/javascript",
    "mkv": "video/matroska",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "npy": "application/x-npy",
    "npz": "application/x-npz",
    "obj": "model/obj",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "ogv": "video/ogg",
    "opus": "audio/ogg",
    "otf": "font/otf",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "ply": "model/ply",
    "png": "image/png",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "py": "text/x-python",
    "rtf": "application/rtf",
    "srt": "application/x-subrip",
    "stl": "model/stl",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "toml": "application/toml",
    "ts": "video/mp2t",
    "tsv": "text/tab-separated-values",
    "ttf": "font/ttf",
    "txt": "text/plain",
    "vtt": "text/vtt",
    "wav": "audio/wav",
    "weba": "audio/webm",
    "webm": "video/webm",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
    "zst": "application/zstd",
}

INLINE = frozenset(
    {
        "audio/aac", "audio/flac", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/wav",
        "audio/webm", "image/apng", "image/avif", "image/bmp", "image/gif", "image/jpeg",
        "image/png", "image/webp", "text/plain", "video/mp4", "video/ogg", "video/webm",
    }
)  # fmt: skip
"""Types that a browser shows without running code in them. Not SVG, HTML, XML or PDF."""

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, section 3.2.1, besides letters and digits
_unsafe = re.compile(r'[^ -~]|["%\\]')


def media_type(name: str) -> str:
    """Return the type of a file name by its last extension, in any case."""
    _, dot, extension = name.rpartition("/")[2].rpartition(".")
    return TYPES.get(extension.lower(), UNKNOWN) if dot else UNKNOWN


def disposition(name: str, media_type: str) -> str:
    """Return the Content-Disposition of a file: inline if its type is in ``INLINE``, or attachment.

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
