"""The public names: exactly these, each documented, each verb with its async twin."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import sessionstore
from sessionstore import Session, SessionStore, SessionStoreError, SignedUpload, StoredFile, Upload

NAMES = [
    "BackendUnavailable", "Corrupted", "FileNotStored", "InvalidName", "LimitExceeded", "Limits",
    "Retention", "Session", "SessionStore", "SessionStoreError", "SettingsError", "SignedUpload",
    "StoredFile", "Upload", "UploadConflict",
]  # fmt: skip

VERBS = {
    SessionStore: [
        "close", "copy_to", "open", "plan", "sessions", "sweep", "usage", "verify",
    ],
    Session: [
        "add", "begin_signed_upload", "begin_upload", "delete", "directory", "drop", "end", "files",
        "get", "open", "put", "read", "resume", "signed_upload", "touch", "upload", "usage",
    ],
    StoredFile: ["local_path", "open", "read", "url"],
    Upload: ["abort", "finish", "refresh", "write"],
    SignedUpload: ["abort", "finish", "missing", "refresh", "urls"],
}  # fmt: skip
"""The verbs that may do I/O."""

WITHOUT_IO = {
    SessionStore: {"on", "session", "shared", "sweeping"},
    Session: {"id", "owner"},
    StoredFile: {
        "created", "digest", "expires", "media_type", "name", "session_id", "size",
    },
    Upload: {"expires", "finished", "id", "metadata", "name", "offset", "size"},
    SignedUpload: {
        "expires", "finished", "id", "metadata", "name", "part_size", "parts", "size",
    },
}  # fmt: skip

FOR_ADAPTERS = {
    SessionStore: {
        "clock", "drop", "drops_at_restart", "emit", "end", "live_interval", "location", "now",
        "on_removed", "presigned", "redirects", "resume", "secret", "touch_interval", "url",
        "use_local_copies", "wrap",
    },
    Session: {"check", "key", "pending_save", "sid", "store"},
    StoredFile: {"is_there", "reference", "session", "stream"},
    Upload: {"add", "disputed", "is_there", "key", "remove", "tail", "writing"},
    SignedUpload: {"is_there", "key", "remove"},
}  # fmt: skip
"""What adapters and the classes among themselves use; an app has no need of them."""

TWINS = [(cls, verb) for cls, verbs in VERBS.items() for verb in verbs]


def members(cls: type) -> Iterator[tuple[str, Any]]:
    return (
        (name, member)
        for each in reversed(cls.__mro__[:-1])  # the public class and our bases below it
        for name, member in vars(each).items()
        if not name.startswith("_")
    )


def test_all_is_exact_and_sorted() -> None:
    assert sessionstore.__all__ == NAMES == sorted(NAMES)


def test_nothing_else_of_ours_is_public_in_the_package() -> None:
    public = {name for name in vars(sessionstore) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(sessionstore, name))}

    assert public - modules == {*NAMES, "annotations"}


@pytest.mark.parametrize(("cls", "verb"), TWINS)
def test_each_verb_has_a_twin_with_the_same_parameters(cls: type, verb: str) -> None:
    plain, twin = getattr(cls, verb), getattr(cls, f"{verb}_async")

    assert inspect.signature(twin).parameters == inspect.signature(plain).parameters


@pytest.mark.parametrize(("cls", "verb"), TWINS)
def test_each_twin_is_awaited_or_entered(cls: type, verb: str) -> None:
    twin = inspect.unwrap(getattr(cls, f"{verb}_async"))

    assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin)


@pytest.mark.parametrize("cls", VERBS)
def test_no_verb_is_missing_from_the_lists_above(cls: type) -> None:
    """A new public method has to be put into one of them, or get a twin."""
    twins = {f"{verb}_async" for verb in VERBS[cls]}
    known = {*VERBS[cls], *twins, *WITHOUT_IO[cls], *FOR_ADAPTERS[cls]}

    assert {name for name, _ in members(cls)} <= known


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(sessionstore, name))


@pytest.mark.parametrize("cls", VERBS)
def test_each_public_member_has_a_docstring_of_its_own(cls: type) -> None:
    bare = [name for name, each in members(cls) if callable(each) or isinstance(each, property)]

    assert [name for name in bare if not inspect.getdoc(getattr(cls, name))] == []


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("ed") or "Error" in name])
def test_every_error_is_in_the_one_tree(name: str) -> None:
    assert issubclass(getattr(sessionstore, name), SessionStoreError)
