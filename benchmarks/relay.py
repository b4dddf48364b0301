"""A TCP relay that adds a round trip: a server on this machine, as far away as a real one.

    python -m benchmarks.relay --port 9050 --to 127.0.0.1:9000 --rtt 50 [--mbit 1000]

Connecting takes one round trip, and every byte half of one each way. Each direction of a connection
has a line of its own, of ``--mbit`` megabits a second, or of unlimited bandwidth. It works below
HTTP and TLS, so their own round trips are added by themselves. It is a process of its own: its work
takes no time from the interpreter that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.ports import free_port

HOST = "127.0.0.1"

_UNDER_WAY = 64 << 20
"""The most bytes of one direction at once: enough for 1 GB/s at 50 ms."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Compute when bytes arrive; ``rtt`` in seconds, ``opened`` the time of the connection.

    The kernel accepts a connection at once, so the client believes too early that it is connected.
    Bytes that it sends within the first round trip are counted as sent at the end of it.
    """

    rtt: float
    opened: float

    def at_server(self, sent: float) -> float:
        """Return when bytes that the client sent at ``sent`` arrive at the server."""
        return max(sent, self.opened + self.rtt) + self.rtt / 2

    def at_client(self, sent: float) -> float:
        """Return when bytes that the server sent at ``sent`` arrive at the client."""
        return max(sent, self.opened + self.rtt / 2) + self.rtt / 2


class Direction(asyncio.Protocol):
    """One end of a connection: what it receives is written to ``other`` when it is due.

    An event loop's own streams and queues would take several times the processor time, which is
    time that the measured program lacks.
    """

    def __init__(self, due: Callable[[float], float], rate: float) -> None:
        self._due = due
        self._rate = rate
        self._free = 0.0  # when the line has delivered what was sent before
        self._under_way: deque[bytes | None] = deque()
        self._size = 0
        self._ended = 0  # of the two: what it receives, what is written to it
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes | None] | None = []
        """What is written before the connection is made, which may take long on a busy machine."""
        self.other: Direction | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        early, self._early = self._early, None
        for data in early or ():
            self.write(data)

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _UNDER_WAY and self._transport is not None:
            self._transport.pause_reading()
        self._send(data)

    def eof_received(self) -> bool:
        self._send(None)
        self._end_one()
        return True  # what is written to it goes on

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if error is not None and self.other is not None:
            self.other.break_off()

    def _send(self, data: bytes | None) -> None:
        self._under_way.append(data)
        self._free = max(self._due(time.monotonic()), self._free) + len(data or b"") / self._rate
        asyncio.get_running_loop().call_at(self._free, self._arrive)

    def _arrive(self) -> None:
        data = self._under_way.popleft()  # the oldest, whichever timer this is
        self._size -= len(data or b"")
        if self._size <= _UNDER_WAY and self._transport is not None:
            self._transport.resume_reading()
        if self.other is not None:
            self.other.write(data)

    def write(self, data: bytes | None) -> None:
        """Write to this end; None is the end of the bytes."""
        if self._early is not None:
            self._early.append(data)
            return
        if self._transport is None or self._transport.is_closing():
            return
        if data is None:
            with contextlib.suppress(OSError):  # the other side has broken off
                self._transport.write_eof()
            self._end_one()
        else:
            self._transport.write(data)

    def break_off(self) -> None:
        """End without what is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _end_one(self) -> None:
        self._ended += 1
        if self._ended == 2 and self._transport is not None:  # noqa: PLR2004 - see ``_ended``
            self._transport.close()


async def relay(
    port: int, server: tuple[str, int], rtt: float, rate: float = math.inf
) -> asyncio.Server:
    """Return a running relay from ``port`` to ``server``, with ``rtt`` seconds of round trip.

    ``rate`` is in bytes a second.
    """
    loop = asyncio.get_running_loop()
    opening = set[asyncio.Task[None]]()

    def accepted() -> Direction:
        delay = Delay(rtt, time.monotonic())
        here, there = Direction(delay.at_server, rate), Direction(delay.at_client, rate)
        task = loop.create_task(_connect(here, there, server))
        opening.add(task)
        task.add_done_callback(opening.discard)
        return here

    return await loop.create_server(accepted, HOST, port)


async def _connect(here: Direction, there: Direction, server: tuple[str, int]) -> None:
    """Connect to the ``server``."""
    there.other, here.other = here, there
    try:
        await asyncio.get_running_loop().create_connection(lambda: there, *server)
    except OSError:
        here.break_off()


@contextlib.contextmanager
def relaying(host: str, port: int, rtt: float, mbit: float = math.inf) -> Iterator[int]:
    """The port of a relay to that server, in a process of its own, for as long as the block."""
    own = free_port()
    command = [
        sys.executable, "-m", "benchmarks.relay", "--port", str(own), "--to", f"{host}:{port}",
        "--rtt", f"{rtt * 1e3}", "--mbit", f"{mbit}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it listens
            yield own
        finally:
            process.terminate()


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _main(port: int, server: tuple[str, int], rtt: float, rate: float) -> None:
    relayed = await relay(port, server, rtt, rate)
    sys.stdout.write(f"listening on port {port}\n")
    sys.stdout.flush()
    await relayed.serve_forever()


def main() -> None:
    """Relay until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True, help="where to listen")
    parser.add_argument("--to", required=True, help="host:port of the server")
    parser.add_argument("--rtt", type=float, default=50, help="milliseconds of a round trip")
    parser.add_argument("--mbit", type=float, default=math.inf, help="megabits a second")
    asked = parser.parse_args()
    host, _, port = asked.to.rpartition(":")
    # select(2) counts in microseconds. epoll_wait(2) ends up to a millisecond late.
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(_main(asked.port, (host, int(port)), asked.rtt / 1000, asked.mbit * 1e6 / 8))


if __name__ == "__main__":
    main()
