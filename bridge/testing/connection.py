"""One client's connection through a fault proxy, and the connection to the server that belongs to it."""

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from typing import Final, Protocol

from bridge.testing.lane import Lane, Then, Way

PIECE: Final = 64 * 1024
MOST_PIECES: Final = 16  # waiting in one direction; beyond it the sender feels the pressure
GOOD_BYE_S: Final = 1.0
_RESET: Final = struct.pack("ii", 1, 0)


class Owner(Protocol):
    """What a connection needs of its proxy."""

    upstream: tuple[str, int]
    server_tls: ssl.SSLContext | None
    client_tls: ssl.SSLContext | None
    server_hostname: str | None
    lanes: dict[Way, Lane]

    def stir(self) -> None:
        """Something passed."""

    def fall_silent(self) -> None:
        """A trap wants silence in both directions."""


class _Lost(Exception):
    """One side is gone without a good-bye, or is to be cut off."""


class _Ended(Exception):
    """One side has said good-bye for both directions."""


class _Side:
    """One end: the client or the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.ended = False
        # `drain` then waits until all is handed to the kernel. Under TLS a limit of 0 would count nothing at all as too much, for ever.
        writer.transport.set_write_buffer_limits(high=1, low=0)

    def reset(self) -> None:
        """End with RST: whatever was not sent is lost."""
        _make_reset(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()

    async def close(self) -> None:
        """End with FIN."""
        self.writer.close()
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(GOOD_BYE_S):
                await self.writer.wait_closed()

    def end(self) -> None:
        """Nothing more is sent to it."""
        if not self.ended and self.writer.can_write_eof():
            self.writer.write_eof()
        self.ended = True


class Connection:
    """`run` carries it to its end; it never raises for what a peer does. `reset` says how it ends when it is cancelled."""

    def __init__(self, owner: Owner, client: socket.socket) -> None:
        self.reset = True
        self.trapped = False
        self._owner = owner
        self._client = client
        self._sides: dict[Way, _Side] = {}

    async def run(self) -> None:
        """Connect to the server once neither direction is a blackhole, and pass bytes until both directions have ended or one side is lost."""
        try:
            await self._connect()
            async with asyncio.TaskGroup() as group:
                for way in Way:
                    group.create_task(self._carry(way))
            self.reset = False
        except* _Ended:
            self.reset = False
        except* (OSError, _Lost):
            self.reset = True
        finally:
            await self._close()

    def half_close(self, way: Way) -> None:
        """End one direction towards its receiver; what still comes that way is thrown away."""
        side = self._sides.get(way)
        if side is not None:
            side.end()

    async def _connect(self) -> None:
        owner = self._owner
        for lane in owner.lanes.values():
            await lane.passing()
        client = await _adopt(self._client, owner.server_tls)
        self._sides[Way.DOWN] = client
        host, port = owner.upstream
        name = (owner.server_hostname or host) if owner.client_tls else None
        self._sides[Way.UP] = _Side(
            *await asyncio.open_connection(host, port, ssl=owner.client_tls, server_hostname=name, limit=PIECE)
        )

    async def _carry(self, way: Way) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_PIECES)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(way, pieces))
            group.create_task(self._hand_on(way, pieces))

    async def _take(self, way: Way, pieces: "asyncio.Queue[tuple[float, bytes]]") -> None:
        """Read from the sender; the empty piece is its end."""
        lane = self._owner.lanes[way]
        reader = self._sides[Way.DOWN if way is Way.UP else Way.UP].reader
        loop = asyncio.get_running_loop()
        data = b"any"
        while data:
            await lane.passing()
            data = await reader.read(PIECE)
            await pieces.put((loop.time(), data))

    async def _hand_on(self, way: Way, pieces: "asyncio.Queue[tuple[float, bytes]]") -> None:
        lane, side = self._owner.lanes[way], self._sides[way]
        offset = 0
        while True:
            came_at, data = await pieces.get()
            await lane.late(came_at)
            await lane.passing()
            if not data:
                if not side.writer.can_write_eof():
                    raise _Ended  # TLS knows no half-closed connection here
                side.end()
                return
            if lane.faults.rewrite is not None:
                data = lane.faults.rewrite(data)
            while data:
                size = lane.slice() or len(data)
                piece, data = data[:size], data[size:]
                await lane.throttled(len(piece))
                await self._pass(way, piece, offset)
                offset += len(piece)

    async def _pass(self, way: Way, piece: bytes, offset: int) -> None:
        lane = self._owner.lanes[way]
        await lane.passing()
        sprung = lane.sprung(self, piece)
        if sprung is None:
            await self._send(way, lane.spoil(piece, offset))
            return
        trap, allowed = sprung
        await self._send(way, lane.spoil(piece[:allowed], offset))
        if trap.then is Then.CUT:
            self.trapped = True
            raise _Lost
        self._owner.fall_silent()
        await lane.passing()
        await self._send(way, lane.spoil(piece[allowed:], offset + allowed))

    async def _send(self, way: Way, data: bytes) -> None:
        side = self._sides[way]
        if data and not side.ended:
            side.writer.write(data)
            await side.writer.drain()
            self._owner.lanes[way].passed += len(data)
            self._owner.stir()

    async def _close(self) -> None:
        sides = list(self._sides.values())
        if self.reset:
            _make_reset(self._client)
            for side in sides:
                side.reset()
            await asyncio.sleep(0)  # an aborted transport closes its socket in the loop's next turn
        else:
            for side in sides:
                await side.close()
        if Way.DOWN not in self._sides:
            self._client.close()


async def _adopt(client: socket.socket, tls: ssl.SSLContext | None) -> _Side:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=PIECE)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=tls)
    return _Side(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


def _make_reset(found: socket.socket | None) -> None:
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
