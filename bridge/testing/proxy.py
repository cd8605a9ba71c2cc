"""A TCP proxy that makes faults: links that break, fall silent, crawl, come late or change bytes. It listens on loopback.

    async with FaultProxy("127.0.0.1", 4840) as proxy:
        …                                            # let the client connect to 127.0.0.1:proxy.port
        await proxy.cut()                            # every open connection is reset, on both sides
        await proxy.refuse()                         # nobody listens …
        await proxy.listen()                         # … and now the same port does again
        proxy.set(blackhole=True)                    # what comes is taken, and nothing answers
        proxy.set(Way.UP, rate_bytes_per_s=1000)     # slow towards the server
        proxy.trap(Way.DOWN, at=b"HTTP/1.1 2")       # the next good answer is cut before its first byte
        proxy.clear()                                # all well again

`python -m bridge.testing HOST:PORT` runs one by hand, with the same words at its prompt.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Final, Self

from bridge.testing.connection import Connection
from bridge.testing.lane import Faults, Lane, Then, Trap, Way

__all__ = ["FaultProxy", "Faults", "Then", "Way", "loopback"]

LOOPBACK: Final = "127.0.0.1"
BACKLOG: Final = 128


class FaultProxy:
    """Entered as an async context manager; then `port` is where it listens. Every knob may be turned while connections are open.

    With `server_tls` it is a TLS server to its clients, and with `client_tls` a TLS client (of `server_hostname`) to its server, so that traps and
    garbled bytes reach what is inside; without them it passes bytes as they are. `listener` makes the listening socket, bound and not listening yet,
    for a port (0 for a free one): in another network namespace, say.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        seed: int = 0,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        listener: Callable[[int], socket.socket] | None = None,
    ) -> None:
        self.upstream = (host, port)
        """Where new connections go; may change at any time."""
        self.server_tls = server_tls
        self.client_tls = client_tls
        self.server_hostname = server_hostname
        self.host = LOOPBACK
        self.port = 0
        self.accepted = 0
        """Connections that clients made."""
        self.cuts = 0
        """Connections that were reset by a cut or a trap."""
        random = Random(seed)  # noqa: S311 - faults, not secrets
        self.lanes = {way: Lane(random) for way in Way}
        self._listener = listener or loopback
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._moved = asyncio.Event()
        self._stack = AsyncExitStack()

    @property
    def open(self) -> int:
        """Connections that stand now."""
        return len(self._connections)

    @property
    def listening(self) -> bool:
        """Whether clients can connect."""
        return self._accepting is not None

    def passed(self, way: Way) -> int:
        """Bytes that were handed on in this direction."""
        return self.lanes[way].passed

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.push_async_callback(self._end)
            await self.listen()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # whole links -----------------------------------------------------------------------------------------------------

    async def cut(self) -> int:
        """Reset every open connection on both sides, now; returns how many. New ones are taken."""
        tasks = dict(self._connections)
        for connection, task in tasks.items():
            connection.reset = True
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())
        self.cuts += len(tasks)
        self._stir()
        return len(tasks)

    async def refuse(self) -> None:
        """Stop listening, so that connects are refused; open connections stay. The port stays ours."""
        if self._accepting is None or self._socket is None:
            return
        task, self._accepting = self._accepting, None
        task.cancel()
        await asyncio.wait({task})
        self._socket.close()
        self._socket = self._listener(
            self.port
        )  # bound and not listening: a connect is refused, and nobody else gets the port

    async def listen(self) -> None:
        """Take connections, again on the same port after `refuse`."""
        if self._accepting is not None:
            return
        if self._socket is None:
            self._socket = self._listener(self.port)
        self._socket.setblocking(False)
        self._socket.listen(BACKLOG)
        self.host, self.port = self._socket.getsockname()[:2]
        self._accepting = self._group.create_task(self._accept(self._socket))

    def half_close(self, way: Way) -> None:
        """End this direction of every open connection as if its sender had nothing more to say (FIN); the other one goes on. Not with TLS."""
        for connection in list(self._connections):
            connection.half_close(way)

    # what passes -----------------------------------------------------------------------------------------------------

    def set(self, way: Way | None = None, **faults: Any) -> None:
        """Set `Faults` of one direction, or of both. Raises `ValueError` or `TypeError` for a value or a name that cannot be."""
        for lane in self._lanes(way):
            lane.change(**faults)
        self._stir()

    def trap(self, way: Way, *, at: bytes = b"", after: int = 0, times: int = 1, then: Then = Then.CUT) -> None:
        """Cut a connection (or fall silent in both directions) once `after` more bytes passed in this direction, counted from the next byte or from `at`.

        Whichever connections meet it first, so many `times`; bytes before it pass. An `at` that came in two pieces has partly passed already.
        """
        self.lanes[way].traps.append(Trap(at=at, after=after, times=times, then=then))

    def clear(self) -> None:
        """No fault of what passes any more, no trap. What `refuse` closed stays closed until `listen`."""
        for lane in self.lanes.values():
            lane.traps.clear()
            lane.change(**{name: getattr(Faults(), name) for name in Faults.__slots__})
        self._stir()

    async def until(self, condition: Callable[[], bool], within_s: float = 10.0) -> None:
        """Wait until this holds; it is looked at whenever something happened here. Raises `TimeoutError`."""
        async with asyncio.timeout(within_s):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    # ---------------------------------------------------------------------------------------------------------------------

    def _lanes(self, way: Way | None) -> list[Lane]:
        return list(self.lanes.values()) if way is None else [self.lanes[way]]

    def _stir(self) -> None:
        self._moved.set()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listening)
            self.accepted += 1
            connection = Connection(self, client)
            task = self._group.create_task(connection.run())
            self._connections[connection] = task
            task.add_done_callback(lambda _, mine=connection: self._ended(mine))  # type: ignore[misc]
            self._stir()

    def _ended(self, connection: Connection) -> None:
        del self._connections[connection]
        if connection.trapped:
            self.cuts += 1
        self._stir()

    # what a connection needs of its proxy ----------------------------------------------------------------------------

    def stir(self) -> None:
        """Something passed."""
        self._stir()

    def fall_silent(self) -> None:
        """A trap wants silence in both directions."""
        self.set(blackhole=True)

    async def _end(self) -> None:
        await self.cut()
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
        if self._socket is not None:
            self._socket.close()


def loopback(port: int) -> socket.socket:
    """A socket bound to this port of loopback (0: a free one), not listening yet."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((LOOPBACK, port))
    return made
