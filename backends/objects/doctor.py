"""Check whether a bucket is suitable for the object protocol, by requests of the engine's client.

All requests are below a prefix of their own, which is emptied at the end.
"""

from __future__ import annotations

import secrets
import statistics
import timeit
from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from typing import Final

from sessionstore._threads import run_together
from sessionstore.doctor import Check, Verdict
from sessionstore.errors import SessionStoreError
from sessionstore.model import Location

from . import keys
from .bucket import Bucket, StoreClock
from .client import BATCH, Multipart, NotFound, ObjectClient, Payload

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


Result = tuple[Verdict, str] | tuple[Verdict, str, str]
"""The fields of a ``Check`` after its name."""


class Examination:
    """The checks of one bucket and prefix. Each check passes the client's errors through."""

    def __init__(self, client: ObjectClient) -> None:
        self.client = client
        self.bucket: Final = Bucket(client, StoreClock())

    def checks(self) -> Generator[Check, None, None]:
        """Yield all checks in order; delete all objects and uploads at the end."""
        try:
            for name, check in (
                ("writing and reading", self._reads_back),
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
                try:
                    yield Check(name, *check())
                except (SessionStoreError, NotFound) as error:
                    words = str(error) or "an object that was just written is missing"
                    yield Check(name, "bad", words)
        finally:
            cleaned = Check("cleaning up", *self._clean_up())
        yield cleaned

    # The properties that the protocol relies on

    def _reads_back(self) -> Result:
        data = secrets.token_bytes(1000)
        self.bucket.put(keys.LAYOUT, MARKER)  # so that ``_marker`` believes an empty listing
        self.bucket.put("first", data)
        if self.bucket.read("first") != data:
            return "bad", "an object reads back with other bytes"
        self.bucket.put("first", data[::-1])
        if self.bucket.read("first") != data[::-1]:
            return "bad", "a replaced object reads back with its old bytes", "stale"
        return "good", "new and replaced objects read back correctly"

    def _lists_at_once(self) -> Result:
        missed = stale = 0
        for number in range(20):
            key = f"now/{number:02}"
            self.bucket.put(key, b"")
            missed += key not in self._listed("now/")
            self.client.delete([key])
            stale += key in self._listed("now/")
        if missed or stale:
            words = (
                f"of 20 objects {missed} were not listed after they were written, and {stale} were "
                "still listed after they were deleted: the store is not strongly consistent, and a "
                "sweep would delete referenced content"
            )
            return "bad", words, "late"
        return "good", "20 of 20 objects were listed after writing, and not after the delete"

    def _keys(self) -> Result:
        for key in ODD:
            self.bucket.put(key, b"")
        listed = self._listed("s/")
        if missing := [key for key in ODD if key not in listed]:
            return "bad", f"a key is not listed as it was written: {missing[0]}", "changed"
        return "good", "keys with every character and of the greatest length work"

    def _pages(self) -> Result:
        wanted = [f"many/{number:05}" for number in range(MANY)]
        run_together([partial(self.bucket.put, key, b"") for key in wanted], THREADS)
        pages = [[entry.key for entry in page.entries] for page in self.client.list("many/")]
        listed = [key for page in pages for key in page]
        after = self._listed("many/", start_after=wanted[BATCH - 1])
        if sorted(listed) != wanted or sorted(after) != wanted[BATCH:]:
            words = (
                f"of {MANY} objects {len(set(listed))} were listed, and {len(after)} instead of "
                f"{MANY - BATCH} after one of them: listings are incomplete, and a sweep would "
                "delete referenced content"
            )
            return "bad", words, "breaks off"
        words = f"all {MANY} objects are listed in {len(pages)} pages, and from any key on"
        if listed != wanted:
            return "note", f"{words}; they are not sorted", "no order"
        return "good", words

    def _deletes(self) -> Result:
        wanted = [f"many/{number:05}" for number in range(MANY)]
        self.client.delete(wanted[:BATCH])
        left = self._listed("many/")
        if sorted(left) != wanted[BATCH:]:
            words = f"of {BATCH} objects deleted at once {len(left) - MANY + BATCH} are still there"
            return "bad", words, "incomplete"
        self.client.delete([*wanted[BATCH:], "never/there"])
        return "good", f"{BATCH} objects in one request; a missing object is no error"

    def _clock(self) -> Result:
        before = datetime.now(UTC)
        date = self.client.put("clock", Payload.of(b""))
        listed = next(self.client.list("clock"))
        if not listed.entries:
            return "bad", "an object that was just written is not listed", "late"
        entry, date = listed.entries[0], date or listed.date
        here = f"this machine's clock differs by {_seconds(entry.modified - before)}"
        if date is None:
            words = f"responses show no Date, so the time is requested by a small object; {here}"
            return "good", words, "by a small object"
        if abs(date - entry.modified) > SKEW:
            words = (
                f"an object's time differs by {_seconds(entry.modified - date)} from the Date of "
                "the store's own response: synchronise the clocks of its servers"
            )
            return "bad", words, "skewed"
        return "good", f"objects and responses have one clock; {here}", "by Date"

    def _ranges(self) -> Result:
        data = bytes(range(256)) * 40
        self.bucket.put("range", data)
        for start, length in ((0, 10), (100, 100), (10_000, None), (0, None)):
            with self.client.get("range", start, length).stream as stream:
                end = None if length is None else start + length
                if stream.read() != data[start:end]:
                    words = f"a read of bytes {start} to {end} of an object returns other bytes"
                    return "bad", words, "wrong"
        return "good", "reads of a range return the requested bytes"

    def _large(self) -> Result:
        data = secrets.token_bytes(1000) * (PART // 1000 + 2)
        self.bucket.upload("large", Payload(BytesIO(data), 0, len(data)), PART)
        if self.bucket.read("large") != data:
            return "bad", "a multipart upload reads back with other bytes", "wrong"
        return "good", "a multipart upload reads back correctly"

    def _unfinished(self) -> Result:
        client = self.client
        if not isinstance(client, Multipart):
            if getattr(client, "sees_uploads", False):
                return "good", "the engine manages them itself; sweeps abort unfinished ones"
            words = (
                "this engine manages its multipart uploads, and cannot list those that a killed "
                "process left; remove them by a lifecycle rule, or by a process with engine=boto3"
            )
            return "note", words, "by a rule"
        upload = client.begin("unfinished")
        seen = any(listed.id == upload for listed in client.uploads("unfinished"))
        client.abort("unfinished", upload)
        if not seen:
            words = (
                "an unfinished upload is not listed, so a sweep cannot find the uploads of killed "
                "processes: let a lifecycle rule abort uploads after two days"
            )
            return "note", words, "not listed"
        if any(listed.id == upload for listed in client.uploads("unfinished")):
            return "bad", "an aborted upload is still listed", "stay"
        return "good", "they are listed until they are aborted"

    def _speed(self) -> Result:
        times: list[float] = []
        medians: list[str] = []
        for name, work in (
            ("PUT", lambda: self.bucket.put("speed", b"x" * 1000)),
            ("GET", lambda: self.bucket.read("speed")),
            ("LIST", lambda: self._listed("speed")),
        ):
            own = timeit.repeat(work, number=1, repeat=5)
            times += own
            medians.append(f"{name} {1000 * statistics.median(own):.0f} ms")
        words = ", ".join(medians)
        if statistics.median(times) > SLOW:
            words += ": a save takes three requests; is the store in another region?"
            return "note", words, "slow"
        return "good", words, ""

    # Requests

    def _listed(self, prefix: str, start_after: str = "") -> list[str]:
        return [entry.key for entry in self.bucket.entries(prefix, start_after=start_after)]

    def _clean_up(self) -> Result:
        try:
            for upload in [*self.client.uploads("")]:
                self.client.abort(upload.key, upload.id)
            self.bucket.delete([key for key in self._listed("") if key != keys.LAYOUT])
            self.bucket.delete([keys.LAYOUT])
        except SessionStoreError as error:
            words = f"objects below {PREFIX}... may be left in the store; delete them: {error}"
            return "bad", words, "left something"
        return "good", "nothing is left of this examination"


def examine(client: ObjectClient) -> Generator[Check, None, None]:
    """Yield the checks of a prefix that only ``client`` uses. Closes the client."""
    with closing(client), closing(Examination(client).checks()) as checks:
        yield from checks


def _seconds(difference: timedelta) -> str:
    return f"{abs(difference.total_seconds()):.0f} s"
