"""What a stranger may hold open at a listener, and for how long, before anything of it is understood (DOMAIN 9 rows 24 to 26).

Connections are counted per source from the moment they are accepted, before the costly handshake; one too many is closed at once.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from bridge.errors import BridgeError
from bridge.market.flood import Network, address_of, source_of

log = logging.getLogger(__name__)

LONGEST_HEADER: Final = (
    32 * 1024
)  # more than a signature may have, so that our own gate refuses it like any other (401)
SHUTDOWN_S: Final = 5.0
BACKLOG: Final = 128
PAUSE_S: Final = 1.0  # before another try where the process has no descriptor left


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Seconds for a TLS handshake, for the head of a request and for an answer to be read, between two requests, and for which the rest of a refused body is still read, so that its sender sees the answer; connections per source and in all.

    An answer has a second more for each `slowest` bytes of it: metrics and lists over a slow line are read, however long.
    A source is an IPv4 address or an IPv6 network of 64 bits, which is what one subscriber gets.
    """

    handshake_s: float = 10.0
    head_s: float = 10.0
    idle_s: float = 60.0
    linger_s: float = 2.0
    slowest: int = 16 * 1024
    per_source: int = 128
    in_all: int = 512


class PublicListener:
    """Serves an application to strangers, over TLS where there is a `context`. `refused` counts a reason; `malformed` answers what is no HTTP. Where networks are `allowed`, nobody else is heard."""

    def __init__(
        self,
        application: web.Application,
        *,
        bounds: Bounds,
        context: ssl.SSLContext | None,
        refused: Callable[[str], None],
        malformed: Callable[[], web.Response],
        allowed: Sequence[Network] = (),
    ) -> None:
        self.bounds = bounds
        self.refused = refused
        self.malformed = malformed
        self._context = context
        self._allowed = allowed
        self._sources: Counter[str] = Counter()
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._options: dict[str, Any] = {
            "access_log": None,
            "max_field_size": LONGEST_HEADER,
            "auto_decompress": False,
            "lingering_time": bounds.linger_s,
            "keepalive_timeout": bounds.idle_s,
        }
        self._runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=SHUTDOWN_S, **self._options)

    @property
    def connections(self) -> int:
        """How many stand, those in their handshake among them."""
        return self._sources.total()

    async def start(self, stack: AsyncExitStack, host: str, port: int, passed: socket.socket | None) -> int:
        """Listen, on the socket that was passed if there is one; returns the port. The stack ends it. Raises `BridgeError`."""
        await self._runner.setup()
        stack.push_async_callback(self._runner.cleanup)
        server = self._runner.server
        assert server is not None
        server.request_factory = _noting(server.request_factory)
        stack.push_async_callback(self._close)
        try:
            self._sockets = [passed] if passed is not None else await _bound(host, port)
        except OSError as error:
            raise BridgeError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint="does another process hold this port? Stop it, or change `listeners` in bridge.yaml",
            ) from error
        for listening in self._sockets:
            listening.setblocking(False)
            self._start(self._accept(listening, server))
        return int(self._sockets[0].getsockname()[1])

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self) -> None:
        for listening in self._sockets:
            listening.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, address = await loop.sock_accept(listening)
            except OSError as error:  # no descriptor left, or whoever came has gone
                log.warning("not_accepted", extra={"reason": error.strerror})
                await asyncio.sleep(PAUSE_S)
                continue
            if not self._may_come(address[0]):
                connected.close()
                self.refused("source_not_allowed")
                continue
            source = source_of(address[0])
            if self._sources[source] >= self.bounds.per_source or self.connections >= self.bounds.in_all:
                connected.close()
                self.refused("too_many_connections")
                continue
            self._sources[source] += 1
            self._start(self._take(connected, server, source))

    async def _take(self, connected: socket.socket, server: web.Server, source: str) -> None:
        """The handshake; then the connection is the protocol's, which gives its place back when it ends."""
        loop, secure = asyncio.get_running_loop(), self._context is not None
        release = _Once(lambda: self._release(source))
        try:
            await loop.connect_accepted_socket(
                lambda: _Connection(self, server, release, self._options),
                connected,
                ssl=self._context,
                ssl_handshake_timeout=self.bounds.handshake_s if secure else None,
                ssl_shutdown_timeout=SHUTDOWN_S if secure else None,
            )
        except (OSError, EOFError):  # ssl.SSLError and time-outs are OSErrors
            release()
            self.refused("handshake")
        except BaseException:
            release()
            raise

    def _may_come(self, address: str) -> bool:
        found = address_of(address)
        return not self._allowed or (found is not None and any(found in network for network in self._allowed))

    def _release(self, source: str) -> None:
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]


class _Once:
    """A callback that works at its first call."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work

    def __call__(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()


class _Connection(RequestHandler):
    """aiohttp's protocol with a limit on the time that a head and the reading of an answer may take, and our own answer to what is no HTTP."""

    __slots__ = ("_busy", "_listener", "_release", "_timer", "_wire")

    def __init__(
        self, listener: PublicListener, server: web.Server, release: Callable[[], None], options: dict[str, Any]
    ) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._listener = listener
        self._release = release
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._wire: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = transport
        super().connection_made(transport)
        self._arm(self._too_slow)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire = None
        self._disarm()
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._busy and self._timer is None:  # the first bytes of a further head
            self._arm(self._too_slow)

    async def start(self) -> None:
        try:
            await super().start()
        finally:
            self._leave()

    def force_close(self) -> None:
        super().force_close()
        self._leave()

    def _leave(self) -> None:
        """The end of an answer may still lie in our buffer as the connection is closed; it has its time to be read, and no more."""
        left = 0 if self._wire is None else self._wire.get_write_buffer_size()
        if left:
            self._disarm()
            self._arm(self._not_read, more_s=left / self._listener.bounds.slowest)

    def head_done(self) -> None:
        """A request was taken up."""
        self._busy = True
        self._disarm()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        self._arm(self._not_read, more_s=(resp.content_length or 0) / self._listener.bounds.slowest)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._disarm()
            self._busy = not request.content.is_eof()  # the rest of a refused body is no head

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The library's own answer would repeat the peer's bytes and tell the parser's reason."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        answer = self._listener.malformed()
        answer.force_close()
        return answer

    def _arm(self, end: Callable[[], None], more_s: float = 0.0) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._listener.bounds.head_s + more_s, end)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._listener.refused("head_too_slow")
        self.force_close()

    def _not_read(self) -> None:
        """Who asks on and reads no answer fills the buffers on both sides; what lies in them is not waited for."""
        self._timer = None
        self._listener.refused("answer_not_read")
        if self._wire is not None:
            self._wire.abort()


def _noting(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """The factory of requests, which also tells a connection that its head is complete."""

    def made(message: Any, payload: Any, protocol: RequestHandler, writer: Any, task: Any) -> web.BaseRequest:
        if isinstance(protocol, _Connection):
            protocol.head_done()
        return make(message, payload, protocol, writer, task)

    return made


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of this host; port 0 means any one, the same for all."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made.append(listening := socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = port or (made[0].getsockname()[1] if len(made) > 1 else 0)
            listening.bind((address[0], chosen, *address[2:]))
            listening.listen(BACKLOG)
    except OSError:
        for listening in made:
            listening.close()
        raise
    return made
