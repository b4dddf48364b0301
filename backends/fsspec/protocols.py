"""The file systems of fsspec: those that can hold a store, and how each is made."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import fsspec

from sessionstore.errors import SettingsError
from sessionstore.model import Location

from .filesystems import Files, LocalFiles, MemoryFiles

CHAINED = "fsspec+"
"""The prefix of a file system's name in the scheme of a URL."""

PACKAGES: Mapping[str, str] = {
    "s3": "s3fs>=2024",
    "s3a": "s3fs>=2024",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "oss": "ossfs",
}
"""The object stores that meet the needs of the protocol, and the package of each."""

KINDS: Mapping[str, type[Files]] = {
    **dict.fromkeys(PACKAGES, Files),
    "memory": MemoryFiles,
    "file": LocalFiles,
    "local": LocalFiles,
}

_CACHE = "it is a cache, which may show deleted files and miss new ones"
_ARCHIVE = "it does not support writing single files"
_IN_PLACE = (
    "it writes files in place and its times are not from one clock, so a file may be incomplete "
    "and its age is uncertain"
)
_LATE = "its listings may lag behind the writes"
_WRAPPER = "it is a wrapper of another file system; name that one"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("simplecache", "filecache", "blockcache", "cached"), _CACHE),
    **dict.fromkeys(
        ("zip", "tar", "libarchive", "reference", "git", "github", "gist", "data", "http", "https"),
        _ARCHIVE,
    ),
    **dict.fromkeys(
        ("ftp", "sftp", "ssh", "smb", "webdav", "hdfs", "webhdfs", "dbfs", "jlab",
         "jupyter", "root", "asynclocal"),
        _IN_PLACE,
    ),
    **dict.fromkeys(("gdrive", "dropbox", "box", "wandb", "dvc", "lakefs"), _LATE),
    **dict.fromkeys(("dir", "generic", "asyncwrapper", "dask"), _WRAPPER),
}  # fmt: skip
"""The file systems that cannot hold a store, with the reason."""


@dataclass(frozen=True, slots=True)
class Where:
    """A file system and a path in it. Raises SettingsError if it cannot hold a store."""

    url: str
    protocol: str
    address: str
    """The URL in the form of fsspec."""

    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, location: Location, storage_options: Mapping[str, Any]) -> Self:
        protocol = location.scheme.removeprefix(CHAINED)
        path = f"{location.netloc}{location.path}"
        if not path.strip("/"):
            raise SettingsError(
                f"invalid url={location.url!r}: name a bucket, container or directory, as in "
                f"{location.scheme}://bucket/prefix."
            )
        if wildcards := {"*", "?", "[", "]"} & {*path}:
            raise SettingsError(
                f"invalid url={location.url!r}: {min(wildcards)!r} is a wildcard in a path of "
                "fsspec; use another prefix."
            )
        return cls(location.url, protocol, f"{protocol}://{path}", storage_options)

    def __post_init__(self) -> None:
        if KINDS.get(self.protocol) is LocalFiles and os.name == "nt":
            raise SettingsError(
                f"invalid url={self.url!r}: Windows does not record when a file was renamed; use "
                "file://."
            )
        if (why := REFUSED.get(self.protocol)) is not None:
            raise SettingsError(
                f"invalid url={self.url!r}: the file system {self.protocol!r} cannot hold a store, "
                f"because {why}; use another one, listed in docs/fsspec.md."
            )

    def files(self) -> Files:
        """Return a new instance of the file system. Its errors for wrong settings pass through."""
        kind = self._class()
        files = KINDS.get(self.protocol, Files)
        arguments = {
            **kind._get_kwargs_from_urls(self.address),  # noqa: SLF001 - as fsspec.core itself does
            **files.arguments,
            **self.storage_options,
            "use_listings_cache": False,
            "skip_instance_cache": True,
        }
        return files(kind(**arguments), kind._strip_protocol(self.address))  # noqa: SLF001 - as above

    def warn(self) -> None:
        """Emit a warning if sessionstore was not tested with this file system."""
        if self.protocol not in KINDS:
            warnings.warn(
                f"sessionstore was not tested with the file system {self.protocol!r}. It must show "
                "a file only when it is complete, list a file as soon as it is written, and have "
                "times of the store's clock: check it with sessionstore.doctor first.",
                stacklevel=2,
            )

    def _class(self) -> Any:
        try:
            return fsspec.get_filesystem_class(self.protocol)
        except ImportError as error:
            package = PACKAGES.get(self.protocol, error.name or self.protocol)
            raise SettingsError(
                f"url={self.url!r} needs a package that is not installed: pip install '{package}'."
            ) from error
        except ValueError as error:
            raise SettingsError(
                f"invalid url={self.url!r}: fsspec has no file system {self.protocol!r}; check the "
                "spelling, or install the package that registers it."
            ) from error
