"""Which file systems of fsspec can keep a store, and how each is made."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import fsspec

from sessionstore.backend import Location
from sessionstore.backends._fsspec_files import Files, LocalFiles, MemoryFiles
from sessionstore.errors import SettingsError

CHAINED = "fsspec+"
"""What stands before the name of a file system in the scheme of a URL."""

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
"""The object stores that are known to do what the protocol needs, and the package of each."""

KINDS: Mapping[str, type[Files]] = {
    **dict.fromkeys(PACKAGES, Files),
    "memory": MemoryFiles,
    "file": LocalFiles,
    "local": LocalFiles,
}

_CACHE = "it serves what it remembers, so that files that are gone stay and new ones are missed"
_ARCHIVE = "what it shows cannot be written to file by file"
_IN_PLACE = (
    "it writes files in place and dates them by no one clock, so that neither a file's wholeness "
    "nor its age is certain"
)
_LATE = "its listings may lag behind what was written"
_WRAPPER = "it stands for another file system; name that one"

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
"""What cannot keep a store, and why."""


@dataclass(frozen=True, slots=True)
class Where:
    """A file system and a path in it. Raises SettingsError for what cannot keep a store."""

    url: str
    protocol: str
    address: str
    """The URL as fsspec has it."""

    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, location: Location, storage_options: Mapping[str, Any]) -> Self:
        protocol = location.scheme.removeprefix(CHAINED)
        place = f"{location.netloc}{location.path}"
        if not place.strip("/"):
            raise SettingsError(
                f"url={location.url!r} is not right: name a bucket, container or directory, as in "
                f"{location.scheme}://bucket/prefix."
            )
        if found := {"*", "?", "[", "]"} & {*place}:
            raise SettingsError(
                f"url={location.url!r} is not right: fsspec takes {min(found)!r} in a path for a "
                "pattern; use another prefix."
            )
        return cls(location.url, protocol, f"{protocol}://{place}", storage_options)

    def __post_init__(self) -> None:
        if KINDS.get(self.protocol) is LocalFiles and os.name == "nt":
            raise SettingsError(
                f"url={self.url!r} is not right: Windows does not tell when a file was renamed; "
                "use file://."
            )
        if (why := REFUSED.get(self.protocol)) is not None:
            raise SettingsError(
                f"url={self.url!r} is not right: the file system {self.protocol!r} cannot keep a "
                f"store, because {why}."
            )

    def files(self) -> Files:
        """The file system, made anew. Raises what it raises for its settings."""
        kind = self._class()
        files = KINDS.get(self.protocol, Files)
        given = {
            **kind._get_kwargs_from_urls(self.address),  # noqa: SLF001 - how fsspec itself does it
            **files.arguments,
            **self.storage_options,
            "use_listings_cache": False,
            "skip_instance_cache": True,
        }
        return files(kind(**given), kind._strip_protocol(self.address))  # noqa: SLF001 - as above

    def warn(self) -> None:
        """Say so when nobody has tried this file system."""
        if self.protocol not in KINDS:
            warnings.warn(
                f"sessionstore has not been tried on the file system {self.protocol!r}. It has to "
                "show a file only when it is whole, list at once what was written, and tell times "
                "by the store's clock: let sessionstore.doctor look at it first.",
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
                f"url={self.url!r} is not right: fsspec knows no file system {self.protocol!r}."
            ) from error
