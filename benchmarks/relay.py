"""A TCP relay that adds a round trip: a server on this machine, as far away as a real one.

    python -m benchmarks.relay --port 9050 --to 127.0.0.1:9000 --rtt 50

Connecting takes one round trip, and every byte half of one each way, as on a line of unlimited
bandwidth. It works below HTTP and TLS, so their own round trips are added by themselves. It is a
process of its own: its work takes no time from the interpreter that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.conftest import free_port

HOST = "127.0.0.1"

_CHUNK = 1 << 18
_UNDER_WAY = 256
"""The most chunks on one line and direction at once: enough for 1 GB/s at 50 ms."""


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


async def relay(port: int, server: tuple[str, int], rtt: float) -> asyncio.Server:
    """Return a running relay from ``port`` to ``server``, with ``rtt`` seconds of round trip."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        delay = Delay(rtt, time.monotonic())
        try:
            there, back = await asyncio.open_connection(*server)
        except OSError:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            await asyncio.gather(
                _carry(reader, back, delay.at_server),
                _carry(there, writer, delay.at_client),
            )
        writer.close()
        back.close()

    return await asyncio.start_server(serve, HOST, port, limit=_CHUNK)


async def _carry(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    due: Callable[[float], float],
) -> None:
    """Carry the bytes of ``source`` to ``target``, in order, each when it is ``due``; its end too.

    When one side breaks off, so does the other.
    """
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY)

    async def read() -> None:
        while data := await source.read(_CHUNK):
            await under_way.put((due(time.monotonic()), data))
        await under_way.put((due(time.monotonic()), b""))

    async def write() -> None:
        while True:
            when, data = await under_way.get()
            await asyncio.sleep(when - time.monotonic())
            if not data:
                if target.can_write_eof():
                    target.write_eof()
                return
            target.write(data)
            await target.drain()

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            tasks.create_task(write())
    except* OSError:
        target.transport.abort()


@contextlib.contextmanager
def relaying(host: str, port: int, rtt: float) -> Iterator[int]:
    """The port of a relay to that server, in a process of its own, for as long as the block."""
    own = free_port()
    command = [
        sys.executable, "-m", "benchmarks.relay", "--port", str(own), "--to", f"{host}:{port}",
        "--rtt", f"{rtt * 1e3}",
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


async def _main(port: int, server: tuple[str, int], rtt: float) -> None:
    relayed = await relay(port, server, rtt)
    sys.stdout.write(f"listening on port {port}\n")
    sys.stdout.flush()
    await relayed.serve_forever()


def main() -> None:
    """Relay until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True, help="where to listen")
    parser.add_argument("--to", required=True, help="host:port of the server")
    parser.add_argument("--rtt", type=float, default=50, help="milliseconds of a round trip")
    asked = parser.parse_args()
    host, _, port = asked.to.rpartition(":")
    # select(2) counts in microseconds. epoll_wait(2) ends up to a millisecond late.
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(_main(asked.port, (host, int(port)), asked.rtt / 1000))


if __name__ == "__main__":
    main()
