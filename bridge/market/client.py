"""One participant's HTTPS connection to SMP. It reports facts (first byte sent? status? body?); what they mean is decided elsewhere."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from yarl import URL

from bridge.clock import Clock, Stamp, http_date_s
from bridge.market.connection import PIECE, Answer, Connection, Lost, NotHttp, Pool, Proxy, TooLarge
from bridge.market.echoes import LEAST, SHOWN
from bridge.market.peers import NO_PEER, peer_of
from bridge.measure.reach import Reach
from bridge.peers import load_own
from bridge.platform import Exchange, Failure

log = logging.getLogger(__name__)

_SERVER_ERROR: Final = 500
SLOWEST_UPLOAD: Final = 16_000  # bytes a second: what a large call may take to leave, beside the time for its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How to reach SMP. `idle_s` must stay below the server's own idle limit, or a POST meets a closing connection."""

    base_url: str
    connect_s: float = 10.0
    answer_s: float = 60.0
    idle_s: float = 50.0
    max_answer_bytes: int = 4 * 1024 * 1024
    connections: int = 4
    proxy: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    tls_minimum: Literal["1.2", "1.3"] = "1.2"


def tls_context(settings: ClientSettings) -> ssl.SSLContext:
    """TLS 1.2 (or the profile's 1.3) or newer, host name always checked, the participant's own CA and client certificate where configured."""
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.tls_minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    if settings.certificate_file:
        load_own(context, settings.certificate_file, settings.key_file)
    return context


class _Tls:
    """The TLS of the next connection: as its files are now, for a renewed certificate needs no restart."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._seen = self._files()
        self._context = tls_context(settings)

    async def __call__(self) -> ssl.SSLContext:
        """Made anew when a file is another than before; as it was while they cannot be used, such as a certificate whose key is not there yet."""
        files = self._files()
        if files != self._seen:
            try:
                self._context = await asyncio.to_thread(tls_context, self._settings)
                self._seen = files
            except OSError as error:  # ssl.SSLError is one
                told = {"url": self._settings.base_url, "reason": str(error)}
                log.warning("tls_files_unusable", extra=told)
        return self._context

    def _files(self) -> list[tuple[int, ...]]:
        """What tells one version of each file from the next."""
        settings = self._settings
        return [_version(path) for path in (settings.ca_file, settings.certificate_file, settings.key_file)]


def _version(path: str | None) -> tuple[int, ...]:
    try:
        found = Path(path).stat() if path else None
    except OSError:
        found = None
    return () if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)


class _Facts:
    """What is known of one call so far."""

    __slots__ = ("_clock", "first_byte", "peer", "secret")

    def __init__(self, clock: Clock, secret: str) -> None:
        self._clock = clock
        self.first_byte: Stamp | None = None
        self.peer = NO_PEER
        self.secret = secret

    def left(self) -> None:
        """Its first byte was handed to the connection."""
        self.first_byte = self._clock.now()


@dataclass(slots=True)
class Begun:
    """A call whose bytes were handed to a connection; `SmpClient.finish` waits for its answer and gives the connection back."""

    connection: Connection
    answer: asyncio.Future[Answer]
    facts: _Facts
    limit_s: float

    @property
    def secret(self) -> str:
        """The secret that it carries."""
        return self.facts.secret


# In TLS 1.3 the server judges a client's certificate when the client already sends; it reads nothing of that before it is content (RFC 8446 section 4.4.2.4).
_OF_HANDSHAKE: Final = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_ACCESS_DENIED",
    }
)


class SmpClient(AbstractAsyncContextManager["SmpClient"]):
    """POSTs over warm TLS connections. Redirects are never followed, answers never decompressed, bodies capped, nothing sent twice."""

    def __init__(self, settings: ClientSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._base = URL(settings.base_url)
        self._starts: dict[tuple[str, str], bytes] = {}
        self._pool: Pool | None = None
        self.reach = Reach()
        """Whether SMP answers. An answer of any kind says so; one of its own faults (5xx) is an error all the same."""

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._pool = Pool(
            self._base.raw_host or "",
            self._base.port or 443,
            context=_Tls(settings),
            most=settings.connections,
            idle_s=settings.idle_s,
            most_bytes=settings.max_answer_bytes,
            proxy=_proxy(settings.proxy),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await self._pool.close()

    async def post(
        self, path: str, *, method: str, headers: Mapping[str, str], body: bytes, secret: str = ""
    ) -> Exchange:
        """Send these bytes once and report what happened; never raises for what a peer or a network can do.

        An answer's headers become evidence, and what is wrong with it is told: `secret` is taken out of both where a peer sends it back.
        """
        if self._pool is None:
            raise RuntimeError("the client is used outside its context")
        pool, facts = self._pool, _Facts(self._clock, secret)

        async def exchanged() -> Exchange:
            return await self._exchange(pool, self._head(method, path, headers, body), body, facts)

        return await self._within(self._limit_s(body), exchanged, facts)

    def begin(
        self, path: str, *, method: str, headers: Mapping[str, str], body: bytes, secret: str = ""
    ) -> Begun | None:
        """Hand these bytes to a connection now, for `finish` to wait; None, and nothing was done, where `post` is what it takes."""
        if self._pool is None or len(body) > PIECE or not self._pool.ready:
            return None
        try:
            head = self._head(method, path, headers, body)
        except ValueError:
            return None
        facts, connection = _Facts(self._clock, secret), self._pool.take_now()
        return Begun(connection, connection.start(head, body, facts.left), facts, self._limit_s(body))

    async def finish(self, begun: Begun) -> Exchange:
        """What became of a call that has begun; see `post`."""

        async def exchanged() -> Exchange:
            return await self._answered(begun.connection, begun.connection.whole(begun.answer), begun.facts)

        return await self._within(begun.limit_s, exchanged, begun.facts)

    def _limit_s(self, body: bytes) -> float:
        return self._settings.connect_s + self._settings.answer_s + len(body) / SLOWEST_UPLOAD

    async def _within(self, limit_s: float, exchanged: Callable[[], Awaitable[Exchange]], facts: _Facts) -> Exchange:
        """What it comes to, failures too."""
        try:
            async with asyncio.timeout(limit_s):
                return await exchanged()
        except TimeoutError as error:
            failure = Failure.TIMEOUT if facts.first_byte else Failure.CONNECT_TIMEOUT
            return self._failed(facts, failure, error)
        except Lost as error:
            return self._lost(facts, error)
        except TooLarge as error:
            return self._failed(facts, Failure.TOO_LARGE, None, status=error.status)
        except (NotHttp, ValueError) as error:
            return self._failed(facts, Failure.PROTOCOL, error)

    async def _exchange(self, pool: Pool, head: bytes, body: bytes, facts: _Facts) -> Exchange:
        try:
            if pool.ready:
                connection = await pool.take()
            else:
                async with asyncio.timeout(self._settings.connect_s):
                    connection = await pool.take()
        except TimeoutError as error:
            return self._failed(facts, Failure.CONNECT_TIMEOUT, error)
        except socket.gaierror as error:
            return self._failed(facts, Failure.DNS, error)
        except ssl.SSLError as error:  # and a certificate that is not the host's
            return self._failed(facts, Failure.TLS, error)
        except OSError as error:
            return self._failed(facts, Failure.REFUSED, error)
        return await self._answered(connection, connection.exchange(head, body, facts.left), facts)

    async def _answered(self, connection: Connection, exchange: Awaitable[Answer], facts: _Facts) -> Exchange:
        """The answer that comes on this connection, which goes back to its pool then."""
        if connection.peer is None:
            connection.peer = peer_of(connection.transport)
        facts.peer = connection.peer
        try:
            answer = await exchange
        finally:
            assert self._pool is not None
            self._pool.give(connection)
        answered = self._clock.now()
        self.reach.good(answered.wall_ns)
        if answer.status >= _SERVER_ERROR:
            self.reach.noted(answered.wall_ns, f"SMP answered {answer.status}")
        return Exchange(
            sent=True,
            status=answer.status,
            headers=_without(answer.headers, facts.secret),
            body=bytes(answer.body),
            retry_after_s=_retry_after(answer.headers, self._clock),
            first_byte=facts.first_byte,
            answered=answered,
            peer=facts.peer,
        )

    def _head(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Everything before the body. Raises `ValueError` for a header that would end before its end."""
        start = self._starts.get((method, path)) or self._start(method, path)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if not lines.count("\r") == lines.count("\n") == len(headers) or "\0" in lines:  # it would end there
            raise ValueError("a header holds a control character")
        return b"%b%bContent-Length: %d\r\n\r\n" % (start, lines.encode(), len(body))

    def _start(self, method: str, path: str) -> bytes:
        """The lines that are the same for each call of this path."""
        url = self._base.joinpath(path.lstrip("/"), encoded=True)
        host = url.raw_host or ""
        name = f"[{host}]" if ":" in host else host
        authority = name if url.is_default_port() else f"{name}:{url.port}"
        text = (
            f"{method} {url.raw_path_qs} HTTP/1.1\r\nHost: {authority}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        )
        start = self._starts[method, path] = text.encode()
        return start

    def _lost(self, facts: _Facts, error: Lost) -> Exchange:
        """The connection ended under a call: what was sent may have been processed, unless it was the handshake that was ended."""
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError) and cause.reason in _OF_HANDSHAKE:
            facts.first_byte = None  # it left us, but it reached nobody
            return self._failed(facts, Failure.TLS, error)
        return self._failed(facts, Failure.RESET, error)

    def _failed(self, facts: _Facts, failure: Failure, error: BaseException | None, *, status: int = 0) -> Exchange:
        detail = f"{failure.value}: {error}" if error is not None and str(error) else failure.value
        if len(facts.secret) >= LEAST:  # the library may quote what the peer said
            detail = detail.replace(facts.secret, SHOWN)
        detail, now = _one_line(detail), self._clock.now()
        self.reach.bad(now.wall_ns, detail)
        return Exchange(
            sent=facts.first_byte is not None,
            failure=failure,
            detail=detail,
            status=status,
            first_byte=facts.first_byte,
            answered=now,
            peer=facts.peer,
        )


def _without(headers: Mapping[str, str], secret: str) -> Mapping[str, str]:
    if len(secret) < LEAST or not any(secret in value for value in headers.values()):
        return headers
    return {name: value.replace(secret, SHOWN) for name, value in headers.items()}


def _proxy(url: str | None) -> Proxy | None:
    if url is None:
        return None
    parts = URL(url)
    return Proxy(parts.raw_host or "", parts.port or 0, tls=parts.scheme == "https")


def plain_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers with lower-case names. A byte that is no UTF-8, which aiohttp's server keeps as half a surrogate, becomes U+FFFD: evidence is Unicode."""
    return {_unicode(name.lower()): _unicode(value) for name, value in headers}


def _unicode(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """RFC 9110 section 10.2.3: seconds, or an HTTP date, which is one of the peer's clock: it is compared with the peer's `Date` where there is one."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until_s = http_date_s(text) if text else None
    if until_s is None:
        return None
    made_s = http_date_s(headers.get("date", ""))
    return max(0.0, until_s - (clock.wall_ns() / 1e9 if made_s is None else made_s))


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:300]
