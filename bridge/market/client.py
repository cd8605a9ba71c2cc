"""One participant's HTTPS connection to SMP. It reports facts (first byte sent? status? body?); what they mean is decided elsewhere."""

import asyncio
import io
import ssl
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from types import SimpleNamespace, TracebackType
from typing import Final, Literal, Self

import aiohttp
from yarl import URL

from bridge.clock import Clock, Stamp
from bridge.market.echoes import LEAST, SHOWN
from bridge.platform import Exchange, Failure

DNS_CACHE_S: Final = 30  # an SMP that moved is found soon
SLOWEST_UPLOAD: Final = 16_000  # bytes a second: what a large call may take to leave, beside the time for its answer
READ_BLOCK: Final = 64 * 1024
WHOLE_BODY: Final = 256 * 1024


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
        context.load_cert_chain(settings.certificate_file, settings.key_file)
    return context


class _Facts(SimpleNamespace):
    """What tracing saw of one request."""

    first_byte: Stamp | None = None
    secret: str = ""


class _Lost(aiohttp.ClientError):
    """The connection was lost under a call. Not one of the errors after which aiohttp itself sends a PUT a second time."""


class _NotTrusted(aiohttp.ClientError):
    """The server ended the TLS handshake over our certificate."""


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


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """At most once: aiohttp repeats methods that HTTP calls idempotent when a kept connection breaks, and a Create by PUT is none."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError) and cause.reason in _OF_HANDSHAKE:
            raise _NotTrusted(str(error)) from error
        raise _Lost(str(error)) from error


class SmpClient(AbstractAsyncContextManager["SmpClient"]):
    """POSTs over warm TLS connections. Redirects are never followed, answers never decompressed, bodies capped, nothing sent twice."""

    def __init__(self, settings: ClientSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._base = URL(settings.base_url)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_request_chunk_sent.append(self._on_chunk)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=tls_context(self._settings),
                limit=self._settings.connections,
                keepalive_timeout=self._settings.idle_s,
                ttl_dns_cache=DNS_CACHE_S,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._settings.connect_s, sock_connect=self._settings.connect_s
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            skip_auto_headers=("User-Agent",),
            trace_configs=[trace],
            middlewares=(_once,),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    async def _on_chunk(
        self, _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestChunkSentParams
    ) -> None:
        facts = context.trace_request_ctx
        if facts.first_byte is None:
            facts.first_byte = self._clock.now()

    async def post(
        self, path: str, *, method: str, headers: Mapping[str, str], body: bytes, secret: str = ""
    ) -> Exchange:
        """Send these bytes once and report what happened; never raises for what a peer or a network can do.

        An answer's headers become evidence, and what is wrong with it is told: `secret` is taken out of both where a peer sends it back.
        """
        if self._http is None:
            raise RuntimeError("the client is used outside its context")
        facts = _Facts(secret=secret)
        try:
            limit_s = self._settings.connect_s + self._settings.answer_s + len(body) / SLOWEST_UPLOAD
            async with asyncio.timeout(limit_s):
                exchange = await self._exchange(path, method, headers, body, facts)
                return replace(exchange, headers=_without(exchange.headers, secret))
        except TimeoutError as error:
            failure = Failure.TIMEOUT if facts.first_byte else Failure.CONNECT_TIMEOUT
            return self._failed(facts, failure, error)
        except _NotTrusted as error:
            facts.first_byte = None  # it left us, but it reached nobody
            return self._failed(facts, Failure.TLS, error)
        except aiohttp.ClientConnectorDNSError as error:
            return self._failed(facts, Failure.DNS, error)
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError) as error:
            return self._failed(facts, Failure.TLS, error)
        except aiohttp.ClientConnectorError as error:
            return self._failed(facts, Failure.REFUSED, error)
        except (_Lost, aiohttp.ClientPayloadError, OSError) as error:
            return self._failed(facts, Failure.RESET, error)
        except (aiohttp.ClientError, ValueError) as error:
            return self._failed(facts, Failure.PROTOCOL, error)

    async def _exchange(
        self, path: str, method: str, headers: Mapping[str, str], body: bytes, facts: _Facts
    ) -> Exchange:
        assert self._http is not None
        url = self._base.joinpath(path.lstrip("/"), encoded=True)
        async with self._http.request(
            method,
            url,
            data=body
            if len(body) <= WHOLE_BODY
            else io.BytesIO(body),  # a large one leaves in pieces, the loop stays free
            headers=dict(headers),
            allow_redirects=False,
            proxy=self._settings.proxy,
            trace_request_ctx=facts,
        ) as answer:
            content = bytearray()
            async for block in answer.content.iter_chunked(READ_BLOCK):
                content += block
                if len(content) > self._settings.max_answer_bytes:
                    answer.close()
                    return self._failed(facts, Failure.TOO_LARGE, None, status=answer.status)
            return Exchange(
                sent=True,
                status=answer.status,
                headers=plain_headers(answer.headers.items()),
                body=bytes(content),
                retry_after_s=_retry_after(answer.headers.get("Retry-After", ""), self._clock),
                first_byte=facts.first_byte,
                answered=self._clock.now(),
            )

    def _failed(self, facts: _Facts, failure: Failure, error: BaseException | None, *, status: int = 0) -> Exchange:
        detail = f"{failure.value}: {error}" if error is not None and str(error) else failure.value
        if len(facts.secret) >= LEAST:  # the library may quote what the peer said
            detail = detail.replace(facts.secret, SHOWN)
        return Exchange(
            sent=facts.first_byte is not None,
            failure=failure,
            detail=_one_line(detail),
            status=status,
            first_byte=facts.first_byte,
            answered=self._clock.now(),
        )


def _without(headers: Mapping[str, str], secret: str) -> Mapping[str, str]:
    if len(secret) < LEAST or not any(secret in value for value in headers.values()):
        return headers
    return {name: value.replace(secret, SHOWN) for name, value in headers.items()}


def plain_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers with lower-case names. A byte that is no UTF-8, which aiohttp keeps as half a surrogate, becomes U+FFFD: evidence is Unicode."""
    return {_unicode(name.lower()): _unicode(value) for name, value in headers}


def _unicode(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _retry_after(text: str, clock: Clock) -> float | None:
    """RFC 9110 section 10.2.3: seconds, or an HTTP date."""
    if not text:
        return None
    if text.isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - a rare form

    try:
        when = parsedate_to_datetime(text)
        return max(0.0, when.timestamp() - clock.wall_ns() / 1e9)
    except (ValueError, OverflowError):
        return None


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:300]
