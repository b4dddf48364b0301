"""The choke point for user strings: what is accepted, what is refused, and how it is stored."""

from __future__ import annotations

import ntpath
import posixpath
import re
import unicodedata
from pathlib import PurePath

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sessionstore.errors import InvalidName
from sessionstore.names import (
    decode,
    encode,
    file_name,
    fresh_name,
    is_sid,
    session_key,
    shared_key,
)
from tests.support.hostile import CLASSES, HOSTILE, label

STORED = re.compile(r"[a-z0-9._!-]{1,200}")
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"} | {
    f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789\u00b9\u00b2\u00b3"
}

any_text = st.text(st.characters(exclude_categories=()))  # surrogates too
tricky_text = st.text("aAbzCON019._-!/\\ :\u00e9e\u0301\u212a\0", max_size=12)
strings = st.one_of(
    st.sampled_from(HOSTILE),
    any_text,
    tricky_text,
    st.lists(st.sampled_from([each for each in HOSTILE if len(each) < 99]), max_size=4).map(
        "".join
    ),
    st.builds(lambda text, times: text * times, tricky_text, st.integers(1, 99)),
)


def is_legal(name: str) -> bool:
    """The rule for file names, said once more."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        return False
    parts = raw.split(b"/")
    return len(raw) <= 1024 and all(
        part not in {b"", b".", b".."} and len(part) <= 255 and b"\0" not in part for part in parts
    )


legal_hostile = [each for each in HOSTILE if is_legal(each)]
refused_hostile = [each for each in HOSTILE if not is_legal(each)]
# Many of the strings are no legal names. Known ones beside them keep Hypothesis from filtering too
# much.
names = st.one_of(st.sampled_from(legal_hostile), strings.filter(is_legal))


def folded(stored: str) -> str:
    """The stored form as the most careless file system would compare it."""
    for form in ("NFC", "NFD", "NFKC"):
        stored = unicodedata.normalize(form, stored).casefold()
    return stored.strip(". ")


def test_the_corpus_is_large_and_has_no_string_twice() -> None:
    assert len(HOSTILE) >= 150
    assert len(HOSTILE) == len(set(HOSTILE))
    assert all(CLASSES.values())
    assert legal_hostile
    assert refused_hostile


# File names


@given(strings)
def test_a_file_name_is_accepted_unchanged_or_refused(name: str) -> None:
    try:
        accepted = file_name(name)
    except InvalidName:
        assert not is_legal(name)
    else:
        assert is_legal(name)
        assert accepted == name


@pytest.mark.parametrize("name", refused_hostile, ids=label)
def test_a_refusal_is_one_short_printable_sentence(name: str) -> None:
    with pytest.raises(InvalidName) as refusal:
        file_name(name)
    message = str(refusal.value)
    assert message.startswith("The file name ")
    assert message.endswith(".")
    assert message.isprintable()
    assert len(message) < 150


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("", "is empty; give it at least one character"),
        ("/etc/passwd", 'is absolute; leave out the "/" in front'),
        ("a/../b", 'has an empty, "." or ".." part; leave that part out'),
        ("a/", 'has an empty, "." or ".." part; leave that part out'),
        ("a\0b", "has a NUL character; leave it out"),
        ("a\udc80", "is not valid Unicode; replace its lone surrogates"),
        ("x" * 300, "has a part of 300 bytes of UTF-8; shorten it to 255"),
        ("dir/" * 300 + "x", "is too long; shorten it to 1024 bytes of UTF-8"),
        ("\u20ac" * 1024, "is too long; shorten it to 1024 bytes of UTF-8"),
    ],
    ids=label,
)
def test_a_refusal_says_what_to_change(name: str, advice: str) -> None:
    with pytest.raises(InvalidName, match=re.escape(advice)):
        file_name(name)
    with pytest.raises(InvalidName, match=re.escape(advice)):
        encode(name)


@pytest.mark.parametrize("wrong", [None, 7, b"a.png", PurePath("a.png"), ["a.png"]], ids=repr)
def test_what_is_not_a_str_is_a_type_error(wrong: object) -> None:
    for function in (file_name, encode, session_key, fresh_name):
        with pytest.raises(TypeError, match="give it as a str"):
            function(wrong)  # type: ignore[arg-type]  # the wrong type is the point


class Liar(str):
    """A ``str`` that shows and compares as another one than it holds."""

    __slots__ = ()

    def __str__(self) -> str:
        return "../../secret"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("other.png")


def test_a_subclass_of_str_counts_as_the_text_it_holds() -> None:
    assert type(file_name(Liar("a.png"))) is str
    assert encode(Liar("B.png")) == "!b.png"
    assert session_key(Liar("k3j9x")) == session_key("k3j9x")


# Stored forms


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("cat.png", "cat.png"),
        ("a_b-c..d", "a_b-c..d"),
        ("Photo.PNG", "!photo.!p!n!g"),
        ("aBc", "a!bc"),
        ("frames/0001.png", "frames!-0001.png"),
        ("a b!", "a!040b!041"),
        ("caf\u00e9", "caf!303!251"),
        (".profile", "!056profile"),
        ("...", "!056.!056"),
        ("a.", "a!056"),
        ("-rf", "!055rf"),
        ("con", "!143on"),
        ("lpt9.tar.gz", "!154pt9.tar.gz"),
        ("nul.", "!156ul!056"),
        ("Con", "!con"),
        ("conf", "conf"),
        ("a/con", "a!-con"),
        ("C:\\a", "!c!072!134a"),
        ("a" * 200, "a" * 200),
        ("a" * 201, "aaaaaaaaaaaaaaaaaaaaaaaa!!a92efd82109373e58f9a2056dee01e80"),
        ("A" * 101 + ".PNG", "aaaaaaaaaaaaaaaaaaaaaaaa!!cd4ddcd0b82cd293b23a84e511db2a08.png"),
        ("\u00e9" * 70, "!!78dcf717205d89b75e2a5721fa2aa5a2"),
    ],
    ids=label,
)
def test_the_stored_form_never_changes_since_stores_outlive_the_code(
    name: str, stored: str
) -> None:
    assert encode(name) == stored


@given(names)
def test_a_stored_form_is_one_plain_segment(name: str) -> None:
    stored = encode(name)
    assert STORED.fullmatch(stored)
    assert stored[0] not in ".-"
    assert stored[-1] != "."
    assert stored.partition(".")[0] not in DEVICES


@given(names)
def test_a_name_comes_back_from_its_stored_form(name: str) -> None:
    stored = encode(name)
    by_digest = "!!" in stored and len(name.encode()) > 200 // len("!000")
    assert decode(stored) == (None if by_digest else name)


@given(names, names)
def test_two_names_never_meet_on_a_file_system_that_folds_them(one: str, other: str) -> None:
    assert (folded(encode(one)) == folded(encode(other))) == (one == other)


@given(
    names,
    st.sampled_from(
        [
            str.casefold,
            str.swapcase,
            str.strip,
            lambda name: unicodedata.normalize("NFC", name),
            lambda name: unicodedata.normalize("NFD", name),
            lambda name: unicodedata.normalize("NFKC", name),
            lambda name: name.rstrip(". "),
            lambda name: name + ".",
            lambda name: name + " ",
            lambda name: name.replace("\\", "/"),
            lambda name: name.partition(":")[0],
            lambda name: name[:200],
            encode,
        ]
    ),
)
def test_twins_never_meet(name: str, twin_of: object) -> None:
    assert callable(twin_of)
    twin = twin_of(name)
    if is_legal(twin):
        assert (folded(encode(twin)) == folded(encode(name))) == (twin == name)
    else:
        with pytest.raises(InvalidName):
            file_name(twin)


def test_no_two_names_of_the_corpus_meet() -> None:
    assert len({folded(encode(name)) for name in legal_hostile}) == len(legal_hostile)


@given(
    st.one_of(
        any_text,
        st.text("abz019._!-", max_size=12),
        st.lists(st.sampled_from(["!", "a", ".", "-", "!056", "!-", "!303", "!251", "con"])).map(
            "".join
        ),
        st.from_regex(r"(?:[a-z0-9_.-]|![a-z-]|![0-7]{3}){1,20}", fullmatch=True),
        st.builds(lambda name, cut: encode(name)[cut:], names, st.integers(0, 9)),
        st.sampled_from(HOSTILE),
    )
)
@example("!101")
@example("!056!056")
@example("a!-")
@example("con")
@example("!a" * 101)
@example("a\n")
def test_decode_takes_only_what_encode_makes(stored: str) -> None:
    name = decode(stored)
    assert name is None or encode(name) == stored


@given(names)
def test_a_stored_form_stays_directly_inside_its_folder_on_every_system(name: str) -> None:
    for system, root in ((posixpath, "/var/lib/app"), (ntpath, "C:\\app"), (ntpath, "\\\\h\\s\\a")):
        for segment in (encode(name), session_key(name).sid):
            path = system.normpath(system.join(root, segment))
            assert system.split(path) == (root, segment)


# Fresh names


def test_fresh_names_differ_and_stand_for_themselves() -> None:
    made = [fresh_name(".webp") for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{20}\.webp", name) and encode(name) == name for name in made)


def test_a_fresh_name_needs_no_suffix() -> None:
    assert re.fullmatch("[0-9a-f]{20}", fresh_name())


@pytest.mark.parametrize(
    "suffix", [".", "png", "/../a", "./a", ".a/b", ".a\0", ".\udc80", "." * 256]
)
def test_a_suffix_that_is_none_is_refused(suffix: str) -> None:
    with pytest.raises(InvalidName):
        fresh_name(suffix)


# Session keys

identities = st.tuples(strings, st.none() | strings)


@given(identities)
@example(("a", "None"))
@example(("\0", "\0"))
@example(("x" * 23 + "/y", None))
@example(("\u00e9" * 512, "a" * 1024))
def test_any_id_and_owner_give_a_stored_name_or_are_refused(
    identity: tuple[str, str | None],
) -> None:
    try:
        key = session_key(*identity)
    except InvalidName:
        assert any(not is_identity(each) for each in identity if each is not None)
    else:
        assert all(is_identity(each) for each in identity if each is not None)
        assert re.fullmatch(r"[a-z0-9-]{34,57}", key.sid)
        assert is_sid(key.sid)
        assert (key.id, key.owner) == identity


def is_identity(text: str) -> bool:
    """The rule for ids and owners, said once more."""
    try:
        return 1 <= len(text.encode()) <= 1024
    except UnicodeEncodeError:
        return False


valid = strings.filter(is_identity)


@given(valid, st.none() | valid, valid, st.none() | valid)
@example("a", None, "a", "None")
@example("a", "b", "ab", None)
@example("ab", "c", "a", "bc")
@example("a", "\0", "a\0", None)
@example("a", "b", "b", "a")
@example("a", "b", "a", "B")
@example("caf\u00e9", "a", "cafe\u0301", "a")
def test_another_id_or_owner_is_another_session(
    one: str, its_owner: str | None, other: str, other_owner: str | None
) -> None:
    assume((one, its_owner) != (other, other_owner))
    assert session_key(one, its_owner).sid != session_key(other, other_owner).sid


@given(valid, st.none() | valid)
@example("shared", None)
def test_the_shared_session_is_out_of_reach(name: str, owner: str | None) -> None:
    assert session_key(name, owner).sid != shared_key().sid


def test_the_stored_name_of_a_session_never_changes_since_stores_outlive_the_code() -> None:
    assert session_key("k3j9x").sid == "k3j9x-c2497940849649e93d9f57b520cee7c1"
    assert session_key("../../etc/Passwd", "alice").sid == (
        "etc-passwd-bbe5a7052eeb3f5eb5ef982297a7fdee"
    )
    assert session_key("\u00e9").sid == "session-e13ef4fbcd15ec72dbdc779c887f7864"
    assert shared_key().sid == "shared-3250638500b83f5a2f48e43d61c7abd7"


@pytest.mark.parametrize(
    ("name", "owner", "advice"),
    [
        ("", None, "The session id is empty"),
        ("a", "", "The owner is empty"),
        ("\ud800", None, r"The session id '\\ud800' is not valid Unicode"),
        ("a", "\udfff", r"The owner '\\udfff' is not valid Unicode"),
        ("a" * 1025, None, "The session id 'a{27}...a{28}' is too long; shorten it to 1024 bytes"),
        ("a", "\u00e9" * 512 + "a", "The owner '.*' is too long; shorten it to 1024 bytes"),
    ],
    ids=label,
)
def test_an_id_or_owner_that_no_store_can_keep_is_refused(
    name: str, owner: str | None, advice: str
) -> None:
    with pytest.raises(InvalidName, match=advice):
        session_key(name, owner)


def test_what_session_key_cannot_have_made_is_no_sid() -> None:
    zeros = "0" * 32
    wrong = [zeros, f"-{zeros}", f"a-{zeros[1:]}", f"A-{zeros}", f"a--b-{zeros}", f"a-{zeros}\n"]
    wrong += [f"{'a' * 25}-{zeros}", *(set(HOSTILE) - set(CLASSES["stored forms"]))]
    assert [text for text in wrong if is_sid(text)] == []
