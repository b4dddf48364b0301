"""The values of a generator on a bucket: it goes on while their files are saved.

Gradio's queue calls ``Blocks.process_api`` for each value and then sends it to the page. If each
call waited for its files, a generator of five images would wait five times. So the calls return at
once, and the messages wait: each is sent in its turn, when the files of its value are saved. The
last call waits for all of them. After a failed save the next call raises its error, which ends the
event, and no later value is sent, since Gradio sends only the difference to the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sessionstore.adapters.gradio.events import Pins

MOST: Final = 32
"""The most files of an event that are saved at the same time while its generator goes on."""

_COMPLETED: Final = "process_completed"
_VALUES: Final = {"process_generating", "process_streaming", _COMPLETED}
"""The messages that carry values; Gradio sends the others also from other threads."""

current: Final[ContextVar[Frames | None]] = ContextVar("sessionstore_frames", default=None)
"""That of the queue's event that is processed now."""


class Frames:
    """The saves and the messages of one event in the queue."""

    def __init__(self) -> None:
        self._saves: list[asyncio.Task[Any]] = []
        """Those in progress, and the failed ones."""
        self._pins: Pins | None = None
        self._sender: asyncio.Task[None] | None = None
        """The task that sends the newest message that waits."""
        self._cut = False
        """Whether a value was not sent, because its save failed. Then no later one is."""

    async def add(self, saves: Iterable[asyncio.Task[Any]], pins: Pins) -> None:
        """Note the saves of a value, and their local copies; wait while they are too many."""
        self._saves += saves
        self._pins = pins
        self._forget_saved()
        while len(self._saves) > MOST and not any(save.done() for save in self._saves):
            await asyncio.wait(self._saves, return_when=asyncio.FIRST_COMPLETED)
            self._forget_saved()

    def raise_failure(self) -> None:
        """Raise the error of the first save that failed."""
        for save in self._saves:
            if save.done():
                save.result()

    async def saved(self) -> None:
        """Wait until no save is in progress, and raise the error of the first that failed."""
        if self._saves:
            await asyncio.wait(self._saves)
        self.raise_failure()

    def send(self, message: Any, send: Callable[[], None]) -> None:
        """Call ``send`` for a message of the queue, now or when the files before it are saved."""
        waits = self._saves or (self._sender is not None and not self._sender.done())
        if waits and message.msg in _VALUES:
            last = message.msg == _COMPLETED
            sending = self._send(list(self._saves), self._sender, send, last=last)
            self._sender = asyncio.create_task(sending)
        else:
            send()

    async def _send(
        self,
        saves: list[asyncio.Task[Any]],
        before: asyncio.Task[None] | None,
        send: Callable[[], None],
        *,
        last: bool,
    ) -> None:
        if before is not None:
            await before
        if saves:
            await asyncio.wait(saves)
            self._cut = self._cut or any(save.exception() for save in saves)
            self._forget_saved()
        if last or not self._cut:
            # Gradio forgets the queue of a page that was closed.
            with contextlib.suppress(KeyError):
                send()

    async def over(self) -> None:
        """Wait until all is saved and sent. The event is over, or was cancelled."""
        if self._saves:
            await asyncio.wait(self._saves)
            self._forget_saved()
        if self._sender is not None:
            await self._sender
        if self._pins is not None:  # a save that ended after the generator may have pinned a copy
            self._pins.release()

    def _forget_saved(self) -> None:
        self._saves = [save for save in self._saves if not save.done() or save.exception()]
