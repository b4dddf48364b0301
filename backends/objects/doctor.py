"""Check whether a bucket is suitable for the object protocol, by requests of the engine's client.

All requests are below a prefix of their own, which is emptied at the end.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import BytesIO

from sessionstore.doctor import Check
from sessionstore.errors import BackendUnavailable, SessionStoreError
from sessionstore.model import Location

from . import keys
from .client import BATCH, Entry, Multipart, NotFound, ObjectClient, Payload

PREFIX = "doctor-"

MARKER = b'{"version": 0, "what": "sessionstore.doctor was here"}'

PART = 5 << 20
"""The smallest part of a multipart upload on S3, in bytes."""

MANY = BATCH + 5
"""A number of objects that needs more than one page."""

THREADS = 16

SLOW = 0.25
"""Seconds: a request to a store nearby takes less. A save takes three requests."""

SKEW = timedelta(minutes=1)
"""The clock skew allowed between servers of one store: a tenth of the shortest grace, 10 min."""

ODD = (
    "s/a-0123456789abcdef/f/!2f.b_c-d.e/0",
    "s/" + "x" * 200 + "/f/" + "y" * 200 + "/" + "z" * 200 + "/" + "w" * 200 + "/" + "v" * 80,
)
"""Every kind of character in the store's keys, and the longest possible key."""


def scratch(location: Location) -> Location:
    """Return a location below the store's with a random name, which no other process uses."""
    own = f"{PREFIX}{secrets.token_hex(4)}"
    return location._replace(path=f"{location.path.rstrip('/')}/{own}")


class Examination:
    """The checks of one bucket and prefix. Each check passes the client's errors through."""

    def __init__(self, client: ObjectClient) -> None:
        self.client = client
        self._times: list[float] = []

    def checks(self) -> Generator[Check, None, None]:
        """Yield all checks in order; delete all objects and uploads at the end."""
        yield self._guarded("writing and reading", self._reads_back)
        try:
            for name, check in (
                ("listing after writing", self._lists_at_once),
                ("keys", self._keys),
                ("paging", self._pages),
                ("deleting", self._deletes),
                ("clock", self._clock),
                ("ranges", self._ranges),
                ("large objects", self._large),
                ("unfinished uploads", self._unfinished),
                ("speed", self._speed),
            ):
                yield self._guarded(name, check)
        finally:
            cleaned = self._clean_up()
        yield cleaned

    def _guarded(self, name: str, check: Callable[[], Check]) -> Check:
        try:
            return check()
        except (SessionStoreError, NotFound) as error:
            return Check(name, "bad", str(error) or "an object that was just written is missing")

    # The properties that the protocol relies on

    def _reads_back(self) -> Check:
        data = secrets.token_bytes(1000)
        self._put(keys.LAYOUT, MARKER)  # so that ``_marker`` believes an empty listing
        self._put("first", data)
        if self._read("first") != data:
            return Check("writing and reading", "bad", "an object reads back with other bytes")
        self._put("first", data[::-1])
        if self._read("first") != data[::-1]:
            words = "a replaced object reads back with its old bytes"
            return Check("writing and reading", "bad", words, "stale")
        return Check("writing and reading", "good", "new and replaced objects read back correctly")

    def _lists_at_once(self) -> Check:
        missed = stale = 0
        for number in range(20):
            key = f"now/{number:02}"
            self._put(key, b"")
            missed += key not in self._listed("now/")
            self.client.delete([key])
            stale += key in self._listed("now/")
        if missed or stale:
            words = (
                f"of 20 objects {missed} were not listed after they were written, and {stale} were "
                "still listed after they were deleted: the store is not strongly consistent, and a "
                "sweep would delete referenced content"
            )
            return Check("listing after writing", "bad", words, "late")
        words = "20 of 20 objects were listed after they were written, and not after the delete"
        return Check("listing after writing", "good", words)

    def _keys(self) -> Check:
        for key in ODD:
            self._put(key, b"")
        listed = self._listed("s/")
        if missing := [key for key in ODD if key not in listed]:
            words = f"a key is not listed as it was written: {missing[0]}"
            return Check("keys", "bad", words, "changed")
        return Check("keys", "good", "keys with every character and of the greatest length work")

    def _pages(self) -> Check:
        wanted = [f"many/{number:05}" for number in range(MANY)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: self._put(key, b""), wanted))
        pages = [[entry.key for entry in page.entries] for page in self.client.list("many/")]
        listed = [key for page in pages for key in page]
        after = self._listed("many/", start_after=wanted[BATCH - 1])
        if sorted(listed) != wanted or sorted(after) != wanted[BATCH:]:
            words = (
                f"of {MANY} objects {len(set(listed))} were listed, and {len(after)} instead of "
                f"{MANY - BATCH} after one of them: listings are incomplete, and a sweep would "
                "delete referenced content"
            )
            return Check("paging", "bad", words, "breaks off")
        words = f"all {MANY} objects are listed in {len(pages)} pages, and from any key on"
        if listed != wanted:
            return Check("paging", "note", f"{words}; they are not sorted", "no order")
        return Check("paging", "good", words)

    def _deletes(self) -> Check:
        wanted = [f"many/{number:05}" for number in range(MANY)]
        self.client.delete(wanted[:BATCH])
        left = self._listed("many/")
        if sorted(left) != wanted[BATCH:]:
            words = f"of {BATCH} objects deleted at once {len(left) - MANY + BATCH} are still there"
            return Check("deleting", "bad", words, "incomplete")
        self.client.delete([*wanted[BATCH:], "never/there"])
        return Check(
            "deleting", "good", f"{BATCH} objects in one request; a missing object is no error"
        )

    def _clock(self) -> Check:
        before = datetime.now(UTC)
        date = self.client.put("clock", Payload.of(b""))
        entry, listed = self._entry("clock")
        date = date or listed
        here = f"this machine's clock differs by {_seconds(entry.modified - before)}"
        if date is None:
            words = f"responses show no Date, so the time is requested by a small object; {here}"
            return Check("clock", "good", words, "by a small object")
        if abs(date - entry.modified) > SKEW:
            words = (
                f"an object's time differs by {_seconds(entry.modified - date)} from the Date of "
                "the store's own response: synchronise the clocks of its servers"
            )
            return Check("clock", "bad", words, "skewed")
        return Check("clock", "good", f"objects and responses have one clock; {here}", "by Date")

    def _ranges(self) -> Check:
        data = bytes(range(256)) * 40
        self._put("range", data)
        for start, length in ((0, 10), (100, 100), (10_000, None), (0, None)):
            with self.client.get("range", start, length).stream as stream:
                end = None if length is None else start + length
                if stream.read() != data[start:end]:
                    words = f"a read of bytes {start} to {end} of an object returns other bytes"
                    return Check("ranges", "bad", words, "wrong")
        return Check("ranges", "good", "reads of a range return the requested bytes")

    def _large(self) -> Check:
        size = PART + 1000
        data = secrets.token_bytes(1000) * (size // 1000 + 1)
        whole = Payload(BytesIO(data), 0, size)
        client = self.client
        if isinstance(client, Multipart):
            upload = client.begin("large")
            parts = [
                client.upload_part("large", upload, 1, whole.part(0, PART)),
                client.upload_part("large", upload, 2, whole.part(PART, size - PART)),
            ]
            client.complete("large", upload, parts)
        else:
            client.put("large", whole)
        if self._read("large") != data[:size]:
            words = "a multipart upload reads back with other bytes"
            return Check("large objects", "bad", words, "wrong")
        return Check("large objects", "good", "a multipart upload reads back correctly")

    def _unfinished(self) -> Check:
        client = self.client
        if not isinstance(client, Multipart) and getattr(client, "sees_uploads", False):
            words = "the engine manages its multipart uploads; sweeps abort unfinished ones"
            return Check("unfinished uploads", "good", words)
        if not isinstance(client, Multipart):
            words = (
                "this engine manages its multipart uploads, and cannot list those that a killed "
                "process left; remove them by a lifecycle rule, or by a process with engine=boto3"
            )
            return Check("unfinished uploads", "note", words, "by a rule")
        upload = client.begin("unfinished")
        seen = any(listed.id == upload for listed in client.uploads("unfinished"))
        client.abort("unfinished", upload)
        if not seen:
            words = (
                "an unfinished upload is not listed, so a sweep cannot find the uploads of killed "
                "processes: let a lifecycle rule abort uploads after two days"
            )
            return Check("unfinished uploads", "note", words, "not listed")
        if any(listed.id == upload for listed in client.uploads("unfinished")):
            return Check("unfinished uploads", "bad", "an aborted upload is still listed", "stay")
        return Check("unfinished uploads", "good", "they are listed until they are aborted")

    def _speed(self) -> Check:
        medians = ", ".join(
            f"{name} {1000 * statistics.median(self._timed(work)):.0f} ms"
            for name, work in (
                ("PUT", lambda: self._put("speed", b"x" * 1000)),
                ("GET", lambda: self._read("speed")),
                ("LIST", lambda: self._listed("speed")),
            )
        )
        slowest = statistics.median(self._times)
        if slowest > SLOW:
            words = f"{medians}: a save takes three requests; is the store in another region?"
            return Check("speed", "note", words, "slow")
        return Check("speed", "good", medians, "")

    # Requests

    def _timed(self, work: Callable[[], object]) -> Sequence[float]:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        self._times += times
        return times

    def _put(self, key: str, data: bytes) -> None:
        self.client.put(key, Payload.of(data))

    def _read(self, key: str) -> bytes:
        with self.client.get(key).stream as stream:
            return stream.read()

    def _listed(self, prefix: str, start_after: str = "") -> list[str]:
        pages = self.client.list(prefix, start_after=start_after)
        return [entry.key for page in pages for entry in page.entries]

    def _entry(self, key: str) -> tuple[Entry, datetime | None]:
        for page in self.client.list(key):
            for entry in page.entries:
                if entry.key == key:
                    return entry, page.date
        raise BackendUnavailable(
            f"The object {key} was just written and is not listed: the store is not strongly "
            "consistent; use another bucket."
        )

    def _clean_up(self) -> Check:
        name = "cleaning up"
        try:
            for upload in [*self.client.uploads("")]:
                self.client.abort(upload.key, upload.id)
            left = [key for key in self._listed("") if key != keys.LAYOUT]
            for start in range(0, len(left), BATCH):
                self.client.delete(left[start : start + BATCH])
            self.client.delete([keys.LAYOUT])
        except SessionStoreError as error:
            words = f"objects below {PREFIX}... may be left in the store; delete them: {error}"
            return Check(name, "bad", words, "left something")
        return Check(name, "good", "nothing is left of this examination")


def examine(client: ObjectClient) -> Generator[Check, None, None]:
    """Yield the checks of a prefix that only ``client`` uses. Closes the client."""
    with closing(client), closing(Examination(client).checks()) as checks:
        yield from checks


def _seconds(difference: timedelta) -> str:
    return f"{abs(difference.total_seconds()):.0f} s"
