"""The fsspec backend: which file systems it takes, how it writes to each, and what fails."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from sessionstore import BackendUnavailable, LimitExceeded, SessionStore, SettingsError
from sessionstore.backends.fsspec import FsspecBackend, filesystems
from sessionstore.backends.fsspec.backend import FsspecClient, storage_options
from sessionstore.backends.fsspec.errors import CLASSES, CODES, ERRNOS, translate
from sessionstore.backends.fsspec.filesystems import LocalFiles, _time
from sessionstore.backends.fsspec.protocols import KINDS, PACKAGES, REFUSED, Where
from sessionstore.backends.objects.client import NotFound, Payload
from sessionstore.registry import find
from sessionstore.settings.resolver import resolve

MARKER = b'{"version": 1}'


def where(url: str, **options: Any) -> Where:
    found = resolve(url, {}, {}, Path())
    return Where.of(found.location, options)


@pytest.fixture
def local(tmp_path: Path) -> FsspecClient:
    """A client of a directory with a store's marker."""
    client = FsspecClient(where(f"fsspec+file://{tmp_path}"))
    client.put("layout", Payload.of(MARKER))
    client.opening = False
    return client


def keys(client: FsspecClient, prefix: str = "") -> list[str]:
    return [entry.key for page in client.list(prefix) for entry in page.entries]


# Which file systems


@pytest.mark.parametrize("scheme", ["gs", "az", "hf", "fsspec+s3", "fsspec+memory", "fsspec+x"])
def test_the_scheme_leads_to_the_backend(scheme: str) -> None:
    assert find(scheme) is FsspecBackend


@pytest.mark.parametrize("protocol", REFUSED)
def test_what_cannot_keep_a_store_is_refused(protocol: str) -> None:
    with pytest.raises(SettingsError, match=f"'{protocol}' cannot hold a store, because "):
        SessionStore.open(f"fsspec+{protocol}://host/path")


def test_no_file_system_is_both_taken_and_refused() -> None:
    assert set(KINDS) & set(REFUSED) == set()


def test_every_file_system_that_fsspec_knows_is_judged_or_warned_of() -> None:
    assert {"s3", "gs", "az", "hf", "memory", "file"} <= set(KINDS)
    assert {"simplecache", "http", "sftp", "zip", "dir"} <= set(REFUSED)


@pytest.mark.parametrize(
    ("scheme", "protocol"), [("gs", "gs"), ("az", "az"), ("fsspec+oss", "oss")]
)
def test_a_missing_package_is_named(
    scheme: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("gcsfs", "adlfs", "ossfs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError) as raised:
        SessionStore.open(f"{scheme}://bucket/prefix")
    assert f"pip install '{PACKAGES[protocol]}'" in str(raised.value)


def test_an_unknown_file_system_is_named() -> None:
    with pytest.raises(SettingsError, match="fsspec has no file system 'nowhere'"):
        where("fsspec+nowhere://bucket/prefix").files()


def test_one_that_nobody_tried_is_warned_of() -> None:
    class Other(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
        protocol = "other"
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            stripped: str = super()._strip_protocol(path.replace("other://", "memory://"))
            return stripped

    fsspec.register_implementation("other", Other, clobber=True)
    with pytest.warns(UserWarning, match="was not tested with the file system 'other'"):
        store = SessionStore.open("fsspec+other://untried/prefix")
    with store:
        store.session("a").put("f", b"1")
        assert store.session("a").read("f") == b"1"


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("fsspec+memory://", "name a bucket, container or directory"),
        ("fsspec+file:///", "name a bucket, container or directory"),
        ("fsspec+s3://bucket/a*b", "'*' is a wildcard in a path"),
        ("fsspec+s3://bucket/a%5Bb", "'[' is a wildcard in a path"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as raised:
        where(url)
    assert remedy in str(raised.value)


# Settings


@pytest.mark.parametrize(
    ("value", "expected"),
    [('{"anon": true}', {"anon": True}), ({"key": "k"}, {"key": "k"}), ("{}", {})],
)
def test_storage_options(value: object, expected: object) -> None:
    assert storage_options(value) == expected


@pytest.mark.parametrize("value", ["", "[1]", "key=k", 7, {1: 2}])
def test_other_storage_options_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="write a table, or JSON such as"):
        storage_options(value)


def test_storage_options_are_in_no_message() -> None:
    for given in ('{"secret": "s3cr3t"', "s3cr3t"):
        with pytest.raises(SettingsError) as raised:
            resolve("gs://bucket/x", {"storage_options": given}, {}, Path())
        assert "s3cr3t" not in str(raised.value)
    assert "s3cr3t" not in repr(where("fsspec+s3://bucket/x", secret="s3cr3t"))


def test_no_cache_whatever_the_user_says(tmp_path: Path) -> None:
    place = where(f"fsspec+file://{tmp_path}", use_listings_cache=True, skip_instance_cache=False)
    one, other = place.files().fs, place.files().fs
    assert one is not other
    assert one.storage_options["use_listings_cache"] is False


def test_arguments_that_it_does_not_take(tmp_path: Path) -> None:
    class Strict(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
        def __init__(self, **options: Any) -> None:
            if "nonsense" in options:
                raise TypeError("unexpected keyword argument 'nonsense'")
            super().__init__(**options)

    fsspec.register_implementation("file", Strict, clobber=True)
    try:
        with pytest.raises(SettingsError, match="check storage_options"):
            SessionStore.open(f"fsspec+file://{tmp_path}", storage_options={"nonsense": 1})
    finally:
        fsspec.register_implementation("file", LocalFileSystem, clobber=True)


# What fails


class ClientError(Exception):
    """As botocore has it."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def translated(code: str, status: int) -> OSError:
    """What s3fs makes of it."""
    error = OSError(errno.EINVAL, "Invalid argument")
    error.__cause__ = ClientError(code, status)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            translated("PreconditionFailed", 412),
            BackendUnavailable,
            "was changed while it was read",
        ),
        (translated("Unknown", 412), BackendUnavailable, "was changed while"),
        (translated("InvalidAccessKeyId", 403), SettingsError, "no valid credentials were found"),
        (OSError(errno.ENOSPC, "No space left"), LimitExceeded, "set max_store"),
        (OSError(errno.EDQUOT, "Quota exceeded"), LimitExceeded, "set max_store"),
        (PermissionError("no"), SettingsError, "may list, read, write and delete there"),
        (FileNotFoundError("bucket"), SettingsError, "there is no such bucket"),
        (TimeoutError("slow"), BackendUnavailable, "did not answer in time"),
        (ConnectionResetError("reset"), BackendUnavailable, "nothing answers"),
        (TypeError("unexpected"), SettingsError, "check storage_options"),
        (RuntimeError("something else"), BackendUnavailable, "something else"),
        (OSError(errno.EINVAL, "Invalid argument"), BackendUnavailable, "Invalid argument"),
    ],
)
def test_every_failure_is_ours(error: Exception, kind: type[Exception], words: str) -> None:
    first = translate(error, "save an object", "gs://b/p", opening=True)
    later = translate(error, "save an object", "gs://b/p", opening=False)
    assert type(first) is kind
    assert type(later) is (kind if kind is LimitExceeded else BackendUnavailable)
    assert words in str(first)
    assert str(later).startswith("Could not save an object in gs://b/p: ")


def test_every_row_can_be_told() -> None:
    for row in (*CLASSES.values(), *CODES.values(), *ERRNOS.values()):
        assert "x" in row.why.format(detail="x")


def test_a_missing_object_is_not_found(local: FsspecClient) -> None:
    with pytest.raises(NotFound):
        local.get("nothing")


def test_a_closed_client_says_so(local: FsspecClient) -> None:
    local.close()
    with pytest.raises(BackendUnavailable, match="the store is closed"):
        local.put("k", Payload.of(b""))


# Listing


def test_listings(local: FsspecClient) -> None:
    for name in ("a/1", "a/1.x", "a/10", "a/2", "a/2.y/3", "b/1"):
        local.put(name, Payload.of(b""))
    assert keys(local, "a/") == ["a/1", "a/1.x", "a/10", "a/2", "a/2.y/3"]
    assert keys(local, "a/1") == ["a/1", "a/1.x", "a/10"]
    assert keys(local, "a/2") == ["a/2", "a/2.y/3"]
    assert keys(local, "a") == ["a/1", "a/1.x", "a/10", "a/2", "a/2.y/3"]
    assert keys(local, "layout") == ["layout"]
    assert keys(local, "nothing/") == []
    pages = [[it.key for it in page.entries] for page in local.list("a/1", page_size=2)]
    assert pages == [["a/1", "a/1.x"], ["a/10"]]
    assert [it.key for page in local.list("a/", start_after="a/10") for it in page.entries] == [
        "a/2",
        "a/2.y/3",
    ]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions hold for users only")
def test_a_directory_that_cannot_be_listed_is_no_empty_one(
    local: FsspecClient, tmp_path: Path
) -> None:
    local.put("s/x/1", Payload.of(b""))
    (tmp_path / "s" / "x").chmod(0)
    try:
        with pytest.raises(BackendUnavailable):
            keys(local, "s/")
    finally:
        (tmp_path / "s" / "x").chmod(0o700)


def test_a_directory_that_fails_to_be_listed_ends_the_listing(
    local: FsspecClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put("s/x/1", Payload.of(b""))
    local.put("s/y/1", Payload.of(b""))
    really = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("/y"):
            raise OSError(errno.EIO, "Input/output error")
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BackendUnavailable, match="Input/output error"):
        keys(local, "s/")


class Walking(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """One that has no flat listing of its own, and a directory that fails."""

    protocol = "walking"
    cachable = False
    find = fsspec.AbstractFileSystem.find

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        if path.endswith("/broken"):
            raise OSError(errno.EIO, "Input/output error")
        return super().ls(path, detail, **more)


def test_fsspec_s_own_walk_passes_over_what_fails_and_ours_does_not() -> None:
    fs = Walking()
    files = filesystems.Files(fs, "/walking-root")
    for name in ("s/fine/1", "s/broken/1"):
        files.put(name, Payload.of(b""))
    assert [*fs.find("/walking-root/s")] == ["/walking-root/s/fine/1"]
    with pytest.raises(OSError, match="Input/output error"):
        list(files.tree("s"))


@pytest.mark.parametrize("prefix", ["s/", "b/", "i/", "s/x/", "b/ab/cd", "sweep"])
def test_nothing_is_listed_where_the_marker_is_gone(local: FsspecClient, prefix: str) -> None:
    assert keys(local, prefix) == []
    local.delete(["layout"])
    local._marker._seen = float("-inf")
    with pytest.raises(BackendUnavailable, match="'layout' is not there either"):
        keys(local, prefix)


def test_times_of_every_kind() -> None:
    expected = datetime(2026, 11, 22, 18, 35, 30, tzinfo=UTC)
    for told in (
        expected,
        expected.timestamp() + 0.9,
        "2026-11-22T18:35:30.123Z",
        "2026-11-22T18:35:30",
        expected.replace(tzinfo=None),
        expected.astimezone(tz=datetime.now().astimezone().tzinfo),
    ):
        assert _time(told) == expected


def test_a_file_system_without_times_is_refused() -> None:
    files = filesystems.Files(MemoryFileSystem(), "/x")
    with pytest.raises(BackendUnavailable, match="does not report when a file was stored"):
        files.found({"name": "a", "size": 1, "type": "file"})


def test_the_client_s_own_time_is_not_the_store_s() -> None:
    files = filesystems.Files(MemoryFileSystem(), "/x")
    told = {"mtime": "1999-01-01T00:00:00Z", "uploaded_at": "2026-01-01T00:00:00Z"}  # as of hf
    assert files.found({"name": "a", "size": 1, **told}).modified.year == 2026


# A local disk


def test_nobody_sees_a_file_before_it_is_whole(local: FsspecClient) -> None:
    seen: list[list[str]] = []

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.append(keys(local, "b/"))
            return super().read(size)

    local.put("b/x", Payload(Slow(b"x" * 1000), 0, 1000))
    assert seen
    assert set(map(tuple, seen)) == {()}
    assert keys(local, "b/") == ["b/x"]


def test_a_write_that_fails_leaves_nothing(local: FsspecClient, tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(BackendUnavailable, match="Input/output error"):
        local.put("b/x", Payload(Failing(b"x" * 1000), 0, 1000))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "layout"]


def test_what_a_dead_writer_left_is_found(local: FsspecClient, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir(exist_ok=True)
    (tmp_path / "tmp" / "dead").write_bytes(b"half")
    (upload,) = local.uploads("b/")
    local.abort(upload.key, upload.id)
    assert list(local.uploads("b/")) == []
    assert not (tmp_path / "tmp" / "dead").exists()


def test_directories_that_are_empty_go(local: FsspecClient, tmp_path: Path) -> None:
    local.put("s/x/f/name/1", Payload.of(b""))
    local.put("s/x/f/other/1", Payload.of(b""))
    local.delete(["s/x/f/name/1", "s/never/there"])
    assert sorted(path.name for path in (tmp_path / "s" / "x" / "f").iterdir()) == ["other"]
    local.delete(["s/x/f/other/1"])
    assert not (tmp_path / "s").exists()


def test_a_reference_is_as_old_as_its_rename_and_content_as_its_writing(
    local: FsspecClient, tmp_path: Path
) -> None:
    for key in ("b/x", "s/x"):
        local.put(key, Payload.of(b""))
        os.utime(tmp_path / key, (1000, 1000))  # as if it had been written long before it was moved
    entries = {it.key: it.modified for page in local.list("") for it in page.entries}
    assert entries["b/x"] == datetime.fromtimestamp(1000, UTC)
    assert entries["s/x"] > datetime.now(UTC) - timedelta(minutes=5)


def test_a_directory_taken_away_under_a_save(
    local: FsspecClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, left = os.replace, [3]

    def replace(source: str, target: str) -> None:
        if left[0] and "/s/" in target:
            left[0] -= 1
            os.rmdir(os.path.dirname(target))
        really(source, target)

    monkeypatch.setattr(os, "replace", replace)
    local.put("s/x/f/name/1", Payload.of(b"kept"))
    assert keys(local, "s/") == ["s/x/f/name/1"]
    assert left == [0]


def test_a_listing_beside_replacements_always_shows_one(tmp_path: Path) -> None:
    files = LocalFiles(LocalFileSystem(auto_mkdir=True), str(tmp_path))
    files.put("s/0", Payload.of(b""))
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            files.put(f"s/{number + 1}", Payload.of(b""))
            files.delete([f"s/{number}"])
            number += 1

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        looks = [len(list(files.tree("s"))) for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert min(looks) >= 1


# Reading in memory


def test_two_readers_in_memory_do_not_share_a_position() -> None:
    client = FsspecClient(where("fsspec+memory://two-readers/x"))
    client.put("a", Payload.of(b"0123456789"))
    one, other = client.get("a").stream, client.get("a").stream
    assert (one.read(3), other.read(3), one.read(3)) == (b"012", b"012", b"345")
    with client.get("a", 4, 3).stream as stream:
        assert stream.read() == b"456"


@pytest.mark.parametrize("url", ["fsspec+memory://app/{}", "fsspec+file://{}"])
def test_a_store_opens_and_opens_again(url: str, tmp_path: Path) -> None:
    url = url.format(tmp_path)
    with SessionStore.open(url, grace="20m") as store:
        store.session("a").put("f", b"1")
    with SessionStore.open(url) as store:
        assert store.session("a").read("f") == b"1"
        store.session("a").drop()
        store.sweep()
        assert store.usage().files == 0
    with pytest.raises(SettingsError, match="the store was made with 20m"):
        SessionStore.open(url, grace="1h")
