"""Uploads over HTTP, saved while they are received and within the store's limits.

A request's body is one file (PUT, as ``curl -T`` and ``fetch(url, {body: file})`` send it) or a
form of several (``multipart/form-data``, RFC 7578). Its bytes go from the socket to the backend's
spool and are nowhere else whole, so a file of any size takes the same memory.
"""

from __future__ import annotations

from typing import Final

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from sessionstore.adapters.asgi.responses import PIECE
from sessionstore.names import own_name
from sessionstore.session import Session
from sessionstore.storedfile import PendingSave, StoredFile

_MOST_FILES: Final = 1000  # in one form, as in Starlette's own parser


_LONGEST_HEADERS: Final = 16_384  # bytes of one part's headers, which stay in memory


class Malformed(ValueError):
    """The request is not a valid upload. The message gives the reason."""


class Incoming:
    """Takes the bytes of a body. Its methods do I/O: call them in worker threads.

    ``saved`` has the files that are complete and saved.
    """

    def __init__(self) -> None:
        self.saved: list[StoredFile] = []
        self._file: PendingSave | None = None

    def begin(self, session: Session, name: str) -> None:
        self._file = session.pending_save(own_name(name), None, fresh=False)

    def write(self, data: bytes) -> None:
        """Take the next bytes of the body. Raises Malformed, LimitExceeded, InvalidName."""
        if self._file is not None:
            self._file.ingest.write(data)

    def finish(self) -> None:
        """End the body. Raises Malformed when it is incomplete."""
        file, self._file = self._file, None
        if file is not None:
            with file:
                self.saved.append(file.keep(file.ingest.finish()))

    def abort(self, error: BaseException) -> None:
        if self._file is not None:
            self._file.__exit__(None, error, None)


class Form(Incoming):
    """A body that is a form. Parts without a file name are ignored."""

    def __init__(self, session: Session, content_type: str) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        super().__init__()
        self._session = session
        self._field = self._value = self._disposition = b""
        self._headers = 0
        self._ended = False
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise Malformed("The form has no boundary: add it to the header Content-Type.")
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_part_end": super().finish,
                "on_end": self._end,
            },
        )

    def write(self, data: bytes) -> None:
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Malformed(f"The form cannot be read: {error}.") from error

    def finish(self) -> None:
        if not self._ended:
            raise Malformed("The form is incomplete: send it again.")

    def _part_begins(self) -> None:
        self._disposition = b""
        self._headers = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _count_header(self, length: int) -> None:
        self._headers += length
        if self._headers > _LONGEST_HEADERS:
            raise Malformed(
                f"The headers of a file in the form have more than {_LONGEST_HEADERS} bytes: "
                "use a shorter name."
            )

    def _header_ends(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _headers_end(self) -> None:
        name = _file_name(self._disposition)
        if not name:
            return  # a field, or a file input that was left empty
        if len(self.saved) >= _MOST_FILES:
            raise Malformed(f"The form has more than {_MOST_FILES} files: send several forms.")
        self.begin(self._session, name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.ingest.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def _file_name(disposition: bytes) -> str:
    """Return the file name in a part's Content-Disposition, empty without one.

    Browsers percent-encode only line breaks and quotes in it (the HTML standard,
    "multipart/form-data encoding algorithm").
    """
    from python_multipart.multipart import parse_options_header

    raw = parse_options_header(disposition)[1].get(b"filename", b"")
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(
            f"The file name {raw!r} in the form is not UTF-8: encode it as UTF-8."
        ) from error
    return name.replace("%0D", "\r").replace("%0A", "\n").replace("%22", '"')


async def receive(request: Request, into: Incoming) -> list[StoredFile]:
    """Write the body to ``into``, and return the files that it saved.

    Raises the errors of ``Incoming`` and of the backend, and Starlette's ClientDisconnect. After
    any error the incomplete file is removed; the files before it stay, in ``saved``.
    """
    try:
        piece = bytearray()
        async for chunk in request.stream():
            piece += chunk
            if len(piece) >= PIECE:
                await run_in_threadpool(into.write, bytes(piece))
                piece.clear()
        await run_in_threadpool(into.write, bytes(piece))
        await run_in_threadpool(into.finish)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(into.abort, error)
        raise
    return into.saved
