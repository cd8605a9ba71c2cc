"""Kept HTTP/1.1 connections to one server: each carries one exchange at a time, and nothing on it is ever sent twice.

A library's client does much more than this, and takes more processor time for it than the rest of a record's way to SMP (docs/performance.md). What is
parsed is parsed by llhttp (the package httptools); TLS, names and sockets are the event loop's.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httptools

PIECE: Final = 64 * 1024
MOST_HEAD: Final = 64 * 1024  # bytes of status line and headers together
_FINAL: Final = 200  # a lower status is that of an interim answer, before the one that counts (RFC 9110 section 15.2)
_NO_BODY: Final = frozenset({204, 304})
_TUNNEL: Final = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n"
_NEXT_ADDRESS_S: Final = 0.25  # RFC 8305 section 8
_MUCH_HEAD: Final = f"more than {MOST_HEAD} bytes of headers"
_BUSY: Final = "the connection is in use"


class Lost(Exception):
    """The connection ended before the answer was whole; `__cause__` says why, where that is known."""


class NotHttp(Exception):
    """What came is no answer of HTTP/1.1."""


class TooLarge(Exception):
    """The answer's body is larger than allowed; `status` is the answer's."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@dataclass(slots=True)
class Answer:
    """A whole answer: header names in lower case, of several headers of one name the last; a byte that is no UTF-8 is U+FFFD, for evidence is Unicode."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that tunnels (CONNECT, RFC 9110 section 9.3.6), itself spoken to over TLS or not."""

    host: str
    port: int
    tls: bool = False


class Connection(asyncio.Protocol):
    """One connection: `exchange` sends one call and waits for its whole answer."""

    def __init__(self, most_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._most_bytes = most_bytes
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._flowing: asyncio.Future[None] | None = None  # set while the transport's buffer is full
        self._parser: Any = None
        self._answer = Answer(0)
        self._head_bytes = 0
        self._header_bytes = 0
        self._in_body = False
        self._until_end = False
        self._leaving = False  # a part of the call's body is still to be written
        self.kept_since = 0.0
        self.peer: Mapping[str, str] | None = None
        """What its server showed of itself (`bridge.market.peers`), once somebody looked."""

    @property
    def usable(self) -> bool:
        """Whether another call may go out on it."""
        return self._transport is not None and not self._transport.is_closing() and self._waiter is None

    @property
    def transport(self) -> asyncio.Transport | None:
        """The loop's transport, None once it is lost."""
        return self._transport

    async def exchange(self, head: bytes, body: bytes, first: Callable[[], None]) -> Answer:
        """The answer to one call; `first` is called when its first byte is handed to the connection. Raises `Lost`, `NotHttp` or `TooLarge`; the connection is of no further use then, nor after a cancellation."""
        if len(body) <= PIECE:
            return await self.whole(self.start(head, body, first))
        transport, waiter = self._opened()
        try:
            transport.write(head)
            await self._write(transport, body, first)
        except BaseException:
            self.abort()
            raise
        return await self.whole(waiter)

    def start(self, head: bytes, body: bytes, first: Callable[[], None]) -> asyncio.Future[Answer]:
        """Hand a call of at most `PIECE` bytes to the connection; what comes of it is for `whole` to wait for. Raises `Lost`."""
        transport, waiter = self._opened()
        try:
            self._put(transport, head, body)
        except BaseException:
            self.abort()
            raise
        first()
        return waiter

    def _put(self, transport: asyncio.Transport, head: bytes, body: bytes) -> None:
        transport.write(head + body)

    async def whole(self, answer: asyncio.Future[Answer]) -> Answer:
        """The answer once it is whole; see `exchange`."""
        try:
            return await answer
        except BaseException:
            self.abort()
            raise

    def _opened(self) -> tuple[asyncio.Transport, asyncio.Future[Answer]]:
        """Begin an exchange: what it is written to, and what its answer will be."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise Lost("it was closed before the call")
        if self._waiter is not None:
            raise RuntimeError(_BUSY)
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        self._waiter = waiter
        self._parser = httptools.HttpResponseParser(self)
        self._answer, self._head_bytes, self._header_bytes = Answer(0), 0, 0
        self._in_body = self._until_end = False
        return transport, waiter

    async def _write(self, transport: asyncio.Transport, body: bytes, first: Callable[[], None]) -> None:
        """A large body leaves in pieces, so that the loop stays free, and no further once the answer is there."""
        view, waiter = memoryview(body), self._waiter
        self._leaving = True
        for start in range(0, len(body), PIECE):
            if waiter is None or waiter.done():
                return
            transport.write(view[start : start + PIECE])
            self._leaving = start + PIECE < len(body)
            if not start:
                first()
            if self._flowing is not None:
                await self._flowing
            else:
                await asyncio.sleep(0)

    def close(self) -> None:
        """End it in good order."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    # what the loop tells ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if (
            self._waiter is None or self._waiter.done()
        ):  # nobody asked: whatever it is, it is no answer to the next call
            self.abort()
            return
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, TooLarge | NotHttp) else NotHttp(str(error)))
        except httptools.HttpParserUpgrade:
            self._fail(NotHttp("the server wants to speak another protocol"))
        else:
            if not self._in_body and self._head_bytes > MOST_HEAD:
                self._fail(NotHttp(_MUCH_HEAD))

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. Without a length the answer ends with the connection (RFC 9112 section 6.3)."""
        if self._until_end and self._waiter is not None and not self._waiter.done():
            self._end(keep=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self.resume_writing()
        if exc is None and self._until_end and self._waiter is not None:
            self._end(keep=False)
        lost = Lost(str(exc) if exc else "the server closed the connection")
        lost.__cause__ = exc
        self._fail(lost)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._flowing is None:
            self._flowing = self._loop.create_future()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        flowing, self._flowing = self._flowing, None
        if flowing is not None and not flowing.done():
            flowing.set_result(None)

    # what the parser tells -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins. Behind the one that was asked for there is none, not even in the same segment."""
        if self._waiter is None:
            raise NotHttp("more came than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; one that comes behind the body is none (RFC 9110 section 6.5.1)."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MOST_HEAD:
            raise NotHttp(_MUCH_HEAD)
        if self._in_body:
            return
        self._answer.headers[name.decode("utf-8", "replace").lower()] = value.decode("utf-8", "replace").strip()

    def on_headers_complete(self) -> None:
        """The status line and all headers are here."""
        answer = self._answer
        answer.status = self._parser.get_status_code()
        self._in_body = answer.status >= _FINAL
        sized = "content-length" in answer.headers or "transfer-encoding" in answer.headers
        self._until_end = self._in_body and not sized and answer.status not in _NO_BODY

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if len(self._answer.body) + len(body) > self._most_bytes:
            raise TooLarge(self._answer.status)
        self._answer.body += body

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was an interim one."""
        if self._in_body:
            self._end(keep=bool(self._parser.should_keep_alive()))
        else:
            self._answer = Answer(0)

    def _end(self, *, keep: bool) -> None:
        waiter, self._waiter = self._waiter, None
        self._parser = None
        if waiter is not None and not waiter.done():
            waiter.set_result(self._answer)
        if self._leaving:  # the server would take the next call for the rest of this one
            self.abort()
        elif not keep:
            self.close()

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        self._parser = None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        self.abort()


class Pool:
    """At most `most` connections to one server; the one that was used last is used first, and none that was idle for longer than `idle_s`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        context: Callable[[], Awaitable[ssl.SSLContext]],
        most: int,
        idle_s: float,
        most_bytes: int,
        proxy: Proxy | None = None,
    ) -> None:
        """`context` gives the TLS of the next connection."""
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._port = port
        self._context = context
        self._idle_s = idle_s
        self._most_bytes = most_bytes
        self._proxy = proxy
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._room = most
        self._line: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        """Whether `take` gives a connection that is open already, without waiting."""
        kept = self._idle[-1] if self._idle and self._room else None
        return kept is not None and kept.usable and self._loop.time() - kept.kept_since < self._idle_s

    def take_now(self) -> Connection:
        """The connection that `take` would give; only when `ready`."""
        self._room -= 1
        kept = self._idle.pop()
        self._busy.add(kept)
        return kept

    async def take(self) -> Connection:
        """A connection for one call, which is given back with `give`. Raises what connecting raises: `OSError`, `ssl.SSLError`, `Lost`, `NotHttp`."""
        await self._enter()
        try:
            while self._idle:
                kept = self._idle.pop()
                if kept.usable and self._loop.time() - kept.kept_since < self._idle_s:
                    self._busy.add(kept)
                    return kept
                kept.close()
            made = await self._connect()
        except BaseException:
            self._leave()
            raise
        self._busy.add(made)
        return made

    async def _enter(self) -> None:
        """Wait for room, in line. Asyncio's semaphore is not used, for `take_now` could not have it without a turn of the loop."""
        if self._room:
            self._room -= 1
            return
        place = self._loop.create_future()
        self._line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given room in the same moment
                self._leave()
            raise

    def _leave(self) -> None:
        """Give the room to the first in line."""
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._room += 1

    def give(self, connection: Connection) -> None:
        """The call on it has ended, well or not."""
        self._busy.discard(connection)
        self._leave()
        if not connection.usable:
            return
        connection.kept_since = self._loop.time()
        self._idle.append(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle_s, self._tidy)

    async def close(self) -> None:
        """End all connections."""
        if self._timer is not None:
            self._timer.cancel()
        ended: Sequence[Connection] = [*self._idle, *self._busy]
        self._idle.clear()
        for connection in ended:
            connection.close()  # says so to the server
        await asyncio.sleep(0)
        for connection in ended:
            connection.abort()  # and waits for no answer to that
        await asyncio.sleep(0)

    def _tidy(self) -> None:
        """End what was idle for too long."""
        now = self._loop.time()
        old = [kept for kept in self._idle if now - kept.kept_since >= self._idle_s or not kept.usable]
        self._idle = [kept for kept in self._idle if kept not in old]
        for kept in old:
            kept.close()
        first = min((kept.kept_since for kept in self._idle), default=None)
        self._timer = None if first is None else self._loop.call_at(first + self._idle_s, self._tidy)

    async def _connect(self) -> Connection:
        def made() -> Connection:
            return Connection(self._most_bytes)

        context = await self._context()
        if self._proxy is None:
            _, connection = await self._loop.create_connection(
                made, self._host, self._port, ssl=context, happy_eyeballs_delay=_NEXT_ADDRESS_S
            )
            return connection
        return await self._tunnelled(made(), self._proxy, context)

    async def _tunnelled(self, connection: Connection, proxy: Proxy, context: ssl.SSLContext) -> Connection:
        """Through the proxy's tunnel; what the proxy says otherwise is its refusal."""
        to_proxy = context if proxy.tls else None
        transport, tunnel = await self._loop.create_connection(
            lambda: _Tunnel(self._loop),
            proxy.host,
            proxy.port,
            ssl=to_proxy,
            server_hostname=proxy.host if proxy.tls else None,
        )
        try:
            host = f"[{self._host}]" if ":" in self._host else self._host
            target = f"{host}:{self._port}".encode()
            transport.write(_TUNNEL % (target, target))
            await tunnel.opened
            inner = await self._loop.start_tls(transport, connection, context, server_hostname=self._host)
        except BaseException:
            transport.abort()
            raise
        if inner is None:
            raise Lost("it was closed right after its handshake")
        connection.connection_made(inner)
        return connection


class _Tunnel(asyncio.Protocol):
    """The answer of a proxy to CONNECT; `opened` is done when it let us through."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.opened: asyncio.Future[None] = loop.create_future()
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. A proxy sends nothing of the server's before we sent it something."""
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if self.opened.done() or (not found and len(head) <= MOST_HEAD):
            return
        status = head.split(b"\r\n", 1)[0].split(b" ")
        if len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1][:1] == b"2" and not rest:
            self.opened.set_result(None)
            return
        line = head[:80].split(b"\r\n", 1)[0].decode("utf-8", "replace")
        self.opened.set_exception(ConnectionRefusedError(f"the proxy refused: {line}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionRefusedError("the proxy closed the connection"))
