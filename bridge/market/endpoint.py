"""The public end point for returns: verify over the raw bytes, write durably, answer 2xx, and only then let anyone act on it.

Every failed authenticity check gives the same 401 (RFC 9457 problem body); which check it was is counted and logged on our side alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from bridge.clock import Clock
from bridge.envelope import BodyRefused, Refusal, SignatureRefused
from bridge.errors import Fenced, JournalFull, JournalUnusable, RetryLater
from bridge.journal.port import Fence, Journal, Parked, ParkedReturn, ReturnMessage
from bridge.market.client import plain_headers
from bridge.market.flood import Flood, Flooded, source_of
from bridge.market.peers import peer_of
from bridge.market.report import MarketMetrics
from bridge.market.returns import Freshness, MessageRefused, ReturnReader
from bridge.market.tracker import Tracker
from bridge.market.unknown_keys import Kept, UnknownKeys
from bridge.turns import aside, signing

log = logging.getLogger(__name__)

BODY_S: Final = 30.0
RECEIPT_S: Final = 10.0  # for a signature under a receipt; most senders wait longer for an answer
RETRY_AFTER_S: Final = 5
_TITLES: Final[Mapping[int, str]] = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request time-out",
    409: "Conflict",
    411: "Length required",
    413: "Content too large",
    415: "Unsupported media type",
    429: "Too many requests",
    503: "Try again later",
}


NOT_KNOWN_YET: Final = frozenset({Refusal.KID_UNKNOWN, Refusal.CERTIFICATE_UNKNOWN})
OF_CERTIFICATES: Final = frozenset(
    {Refusal.CERTIFICATE_NOT_CHAINED, Refusal.CERTIFICATE_NOT_YET_VALID, Refusal.CERTIFICATE_EXPIRED}
)
_NAMELESS: Final[Mapping[str, str]] = {"Server": "smp-bridge"}  # else aiohttp tells its own and Python's version


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """One participant's side of the end point."""

    participant: str
    reader: ReturnReader
    tracker: Tracker
    fence: Fence


class _Answer(Exception):
    """Ends a request with this status; `reason` stays on our side."""

    def __init__(self, status: int, reason: str, *, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class ReturnsEndpoint:
    """Takes returns for every participant of this process."""

    def __init__(
        self,
        inboxes: Iterable[Inbox],
        *,
        journal: Journal,
        clock: Clock,
        metrics: MarketMetrics,
        client_names: frozenset[str] = frozenset(),
        flood: Flood | None = None,
        body_s: float = BODY_S,
    ) -> None:
        self._inboxes = {inbox.reader.path: inbox for inbox in inboxes}
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._client_names = client_names
        self._unknown = UnknownKeys()
        self._flood = flood or Flood(clock.mono_ns)
        self._body_s = body_s

    def application(self) -> web.Application:
        """One route per participant, and the same plain body for everything else."""
        app = web.Application(middlewares=[self._uniform])
        for path in self._inboxes:
            app.router.add_post(path, self._receive)
        return app

    def malformed(self) -> web.Response:
        """The answer to what is no HTTP request at all: the same body as any other 400."""
        self._metrics.refused("bad_http")
        return _problem(400)

    @web.middleware
    async def _uniform(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Unknown paths and methods answer like everything else here: a problem body without a hint."""
        try:
            return await handler(request)
        except _Answer as answer:
            self._metrics.refused(answer.reason)
            log.info("return_refused", extra={"status": answer.status, "reason": answer.reason, "peer": request.remote})
            return _problem(answer.status, answer.retry_after_s)
        except web.HTTPException as error:
            self._metrics.refused(f"http_{error.status}")
            return _problem(error.status)
        except Exception:  # a defect of ours: the library's own page would name itself, and nobody would count it
            self._metrics.refused("host_failed")
            log.exception("return_made_the_host_fail", extra={"peer": request.remote})
            return _problem(500)

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        received = self._clock.now()
        inbox = self._inboxes.get(request.path)
        if inbox is None or request.query_string:
            raise _Answer(404, "unknown_path")
        self._check_client(request)
        if inbox.tracker.crowded:
            raise _Answer(503, "too_many_returns")
        for check in MEDIA_CHECKS:
            check(request, inbox.reader)
        body = await _read(request, inbox.reader.max_body_bytes, self._body_s)
        headers = plain_headers(request.headers.items())
        source = source_of(request.remote)
        try:
            tokens = [request.headers.getall(name, []) for name in inbox.reader.signature_headers]
            read = await aside(
                len(body), inbox.reader.read, body, tokens, headers, received, flood=self._flood, source=source
            )
        except SignatureRefused as error:
            await self._withdrawn(inbox, error)
            if error.reason in NOT_KNOWN_YET:
                name = inbox.participant
                kept = Kept(
                    participant=name, source=source, body=body, tokens=tokens, headers=headers, received=received
                )
                self._unknown.keep(kept)
            raise _Answer(401, error.reason.value) from error
        except Flooded as error:
            await self._flooded(inbox, source)
            raise _Answer(429, "flood", retry_after_s=error.retry_after_s) from error
        except BodyRefused as error:
            raise _Answer(400, error.reason) from error
        except MessageRefused as error:
            await self._misdirected(inbox, error)
            raise _Answer(error.status, error.reason) from error
        message = replace(_whole(read.message), peer=peer_of(request.transport))
        return await self._park(inbox, message, read.freshness)

    async def look_again(self, participant: str) -> int:
        """Verify again what came with an unknown `kid`, as of when it came; returns how many were good and are stored now.

        Those whose key is still unknown, or for which the journal has no room, stay.
        """
        inbox = next((one for one in self._inboxes.values() if one.participant == participant), None)
        return sum([await self._again(inbox, kept) for kept in self._unknown.take(participant)]) if inbox else 0

    async def _again(self, inbox: Inbox, kept: Kept) -> bool:
        try:
            read = await aside(
                len(kept.body), inbox.reader.read, kept.body, kept.tokens, kept.headers, kept.received,
                flood=self._flood, source=kept.source,
            )  # fmt: skip
            await self._park(inbox, _whole(read.message), read.freshness)
        except SignatureRefused as error:
            if error.reason in NOT_KNOWN_YET:
                self._unknown.keep(kept)
            return False
        except Flooded:
            self._unknown.keep(kept)
            return False
        except _Answer as answer:
            if answer.status == 503:
                self._unknown.keep(kept)
            return False
        except (BodyRefused, MessageRefused):
            return False
        log.info("unknown_key_verified", extra={"participant": inbox.participant, "kid": read.message.kid})
        return True

    def _check_client(self, request: web.Request) -> None:
        """Where the caller's certificate must have one of these names, another certificate of the same authority is not enough."""
        if not self._client_names:
            return
        shown = request.transport.get_extra_info("peercert") if request.transport is not None else None
        if not self._client_names & set(_names_of(shown or {})):
            raise _Answer(403, "client_certificate")

    async def _misdirected(self, inbox: Inbox, error: MessageRefused) -> None:
        """SMP's own key signed it for somebody else: a person should know (DOMAIN 9 row 12)."""
        if error.status == 403:
            await self._alarm(inbox, "MISDIRECTED", f"SMP signed a message that is not for this entry: {error.reason}")

    async def _withdrawn(self, inbox: Inbox, error: SignatureRefused) -> None:
        """Somebody signs with a key of SMP's that was withdrawn, or shows a certificate that cannot be taken: a person should know (DOMAIN 9 row 13).

        The message is refused all the same. Anybody can make a certificate with the agreed subject: that is told once a minute.
        """
        if not error.kid:
            return
        with suppress(_Answer):
            if error.reason in OF_CERTIFICATES:
                if self._flood.worth_telling(f"{inbox.participant} {error.reason.value}"):
                    text = f"a message was refused ({error.reason.value}); its certificate has the SHA-256 thumbprint {error.kid}"
                    await self._alarm(inbox, "CERTIFICATE_REFUSED", text)
                return
            text = f"a message was refused ({error.reason.value}); it was signed with SMP's key {error.kid}"
            await self._alarm(inbox, "KEY_REFUSED", text)

    async def _flooded(self, inbox: Inbox, source: str) -> None:
        """Told once a minute: each telling is a commit."""
        if self._flood.worth_telling(inbox.participant):
            await self._alarm(inbox, "FLOOD", f"too many messages with a bad signature came from {source or 'nowhere'}")

    async def _alarm(self, inbox: Inbox, code: str, text: str) -> None:
        """One row per participant and code, counted again each time, so that a flood makes no rows."""
        try:
            await self._journal.alarm(code, participant=inbox.participant, text=text)
        except JournalFull as full:
            raise _Answer(503, "journal_full") from full
        except (JournalUnusable, Fenced) as failed:
            raise _Answer(503, "journal_failed") from failed

    async def _park(self, inbox: Inbox, message: ReturnMessage, freshness: Freshness) -> web.Response:
        try:
            parked = await self._journal.park_return(inbox.fence, message)
        except JournalFull as error:
            raise _Answer(503, "journal_full") from error
        except (JournalUnusable, Fenced) as error:  # the host ends over it; SMP tries again at its successor
            raise _Answer(503, "journal_failed") from error
        self._metrics.returned(f"{parked.verdict}{'_late' if freshness is Freshness.LATE else ''}")
        if parked.verdict == "conflict":
            raise _Answer(409, "same_id_other_content")
        if parked.verdict == "new" and not message.quarantined:
            inbox.tracker.returned(ParkedReturn(id=parked.return_id, message=message, found=parked.found))
        if message.quarantined:
            await self._alarm(inbox, "QUARANTINE", message.quarantined)
        return await self._receipt(inbox, message, parked)

    async def _receipt(self, inbox: Inbox, message: ReturnMessage, parked: Parked) -> web.Response:
        """While what signs receipts is away SMP is asked to come again: the message is stored, and its repeat gets the receipt."""
        make = partial(
            inbox.reader.receipt,
            message.message_id,
            parked.receipt_ns,
            duplicate=parked.verdict == "duplicate",
            quarantined=bool(message.quarantined),
        )
        try:
            async with asyncio.timeout(RECEIPT_S):
                made = await signing(inbox.reader.participant, make) if inbox.reader.blocks else make()
        except (RetryLater, TimeoutError) as error:
            raise _Answer(503, "receipt_not_signed") from error
        status, body, headers = made
        return web.Response(status=status, body=body, headers={**headers, **_NAMELESS})


def _names_of(certificate: Mapping[str, Any]) -> Iterator[str]:
    """The common name and the DNS names of a certificate as `ssl` gives it."""
    yield from (value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    yield from (value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName")


def _check_coding(request: web.Request, reader: ReturnReader) -> None:
    del reader
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise _Answer(415, "content_encoding")


def _check_type(request: web.Request, reader: ReturnReader) -> None:
    if hdrs.CONTENT_TYPE not in request.headers or request.content_type not in reader.content_types:
        raise _Answer(415, "content_type")


def _check_charset(request: web.Request, reader: ReturnReader) -> None:
    del reader
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise _Answer(415, "charset")


# Compressed bodies, other media types and other character sets are refused before anything is read (DOMAIN 9 rows 23 and 27).
MEDIA_CHECKS: Final[Sequence[Callable[[web.Request, ReturnReader], None]]] = (
    _check_coding,
    _check_type,
    _check_charset,
)


def _whole(message: ReturnMessage) -> ReturnMessage:
    """The message with the checks named, too, that it passed before it was read."""
    before = [check.__name__.removeprefix("_check_") for check in MEDIA_CHECKS]
    return replace(message, checks=" ".join((*before, "size", message.checks)))


async def _read(request: web.Request, limit: int, within_s: float) -> bytes:
    """The raw body, at most `limit` bytes and so many seconds."""
    if (request.content_length or 0) > limit:
        raise _Answer(413, "body_too_large")
    content = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for block in request.content.iter_any():
                content += block
                if len(content) > limit:
                    raise _Answer(413, "body_too_large")
    except TimeoutError as error:
        raise _Answer(408, "body_too_slow") from error
    except (web.RequestPayloadError, ConnectionError) as error:  # its framing is broken, or the rest never came
        raise _Answer(400, "bad_body") from error
    return bytes(content)


def _problem(status: int, retry_after_s: int = RETRY_AFTER_S) -> web.Response:
    """RFC 9457 with no hint which check failed."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status}
    headers = {"Retry-After": str(retry_after_s), **_NAMELESS} if status in (429, 503) else _NAMELESS
    answer = web.Response(
        status=status, body=orjson.dumps(body), content_type="application/problem+json", headers=headers
    )
    if status in (400, 408, 413):
        answer.force_close()
    return answer
