"""Traces on their way to a collector: reports are queued in passing; one task beside everything else makes spans of them and sends them.

It never stands in anybody's way: the queue is bounded and loses its oldest, each try is timed, and so is the last one at a stop.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

import aiohttp

from bridge.clock import Stamp
from bridge.config.tracing import TracingOptions
from bridge.spans import Attempt, Span, Whose, call_spans, end_spans, sampled, told_spans, trace_id
from bridge.submission import SubmissionState
from bridge.turns import Turns

log = logging.getLogger(__name__)

MOST: Final = 4096  # reports that wait: about half a minute of 50 submissions a second, three each
BATCH: Final = 128  # reports of one POST
GATHER_S: Final = 1.0
ANSWER_S: Final = 10.0
FINISH_S: Final = 2.0
DELAYS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
LONGEST_PAUSE_S: Final = 60.0
MOST_ANSWER: Final = 64 * 1024
_AGAIN: Final = frozenset({429, 502, 503, 504})  # OTLP, "Failures": all others are for good


Report = Callable[[], list[Span]]


class _Batch(NamedTuple):
    reports: int
    body: bytes


class _Refused(Exception):
    """The collector will never take this batch."""


class _Later(Exception):
    """The collector may take this batch later, not before `delay_s` have passed."""

    def __init__(self, reason: str, delay_s: float = 0.0) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class Tracing(AbstractAsyncContextManager["Tracing"]):
    """The traces of one process. `count` is told of reports that were `sent`, `refused` by the collector, or `dropped`, and how many."""

    def __init__(self, options: TracingOptions, *, role: str, count: Callable[[str, int], None]) -> None:
        from bridge.otlp import CONTENT_TYPE, Encoder, refused_spans  # noqa: PLC0415 - of an extra

        self._options = options
        self._count = count
        self._encoder = Encoder({"service.name": options.service_name, "smp_bridge.role": role})
        self._refused_spans = refused_spans
        self._content_type = CONTENT_TYPE
        self._queue: deque[Report] = deque()
        self._taken: list[Report] = []
        self._batch: _Batch | None = None
        self._some = asyncio.Event()
        self._plenty = asyncio.Event()
        self._failures = 0
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cafile=self._options.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=1),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    # told in passing -------------------------------------------------------------------------------------------------

    def called(self, whose: Whose, stamps: Mapping[str, Stamp], attempt: Attempt) -> None:
        """A call was made, or tried. `stamps` is not changed after that."""
        self._put(whose, partial(call_spans, whose, stamps, attempt))

    def ended(
        self,
        whose: Whose,
        stamps: Mapping[str, Stamp],
        state: SubmissionState,
        *,
        cause: str,
        outcomes: Mapping[str, int],
    ) -> None:
        """A submission came to its end."""
        self._put(whose, partial(end_spans, whose, stamps, state, cause=cause, outcomes=outcomes))

    def told(
        self, whose: Whose, settled: Stamp, written: Stamp, *, which: str, items: int, state: str, error: bool
    ) -> None:
        """Outcomes reached their places in the EMS, or never will."""
        self._put(
            whose, partial(told_spans, whose, settled, written, which=which, items=items, state=state, error=error)
        )

    def _put(self, whose: Whose, report: Report) -> None:
        ratio = self._options.sample_ratio
        if ratio < 1 and not sampled(trace_id(whose.submission), ratio):
            return
        if len(self._queue) >= MOST:
            self._queue.popleft()
            self._count("dropped", 1)
        self._queue.append(report)
        self._some.set()
        if len(self._queue) >= BATCH:
            self._plenty.set()

    # the task --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is queued until cancelled; a collector that fails is tried again, ever more rarely."""
        while True:
            if self._batch is None:
                await self._gather()
            try:
                await self._send()
            except _Later as error:
                await asyncio.sleep(max(error.delay_s, DELAYS_S[min(self._failures, len(DELAYS_S)) - 1]))

    async def finish(self, within_s: float = FINISH_S) -> None:
        """The last try, at a stop, after `run` has ended: what cannot be sent in this time is dropped."""
        with suppress(TimeoutError, _Later):
            async with asyncio.timeout(within_s):
                while self._batch is not None or self._taken or self._queue:
                    await self._send()
        left = len(self._queue) + (self._batch.reports if self._batch else len(self._taken))
        if left:
            self._count("dropped", left)
            log.warning("traces_dropped_at_the_stop", extra={"reports": left})

    async def _gather(self) -> None:
        """Wait for a whole batch, or for what comes within a moment of its first: a POST for each report costs far more than its spans."""
        await self._some.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._plenty.wait()

    async def _send(self) -> None:
        """One batch: the one that is under way, or the next. Raises `_Later`."""
        if self._batch is None:
            self._batch = await self._next_batch()
        if self._batch is None:
            return
        try:
            await self._post(self._batch)
        except _Later as error:
            self._failing(str(error))
            raise
        except _Refused as error:
            self._count("refused", self._batch.reports)
            self._failing(str(error))
        else:
            self._count("sent", self._batch.reports)
            self._well()
        self._batch = None
        self._taken = []

    async def _next_batch(self) -> _Batch | None:
        """The next reports as they are sent; None when they cannot be written as OTLP, a defect of ours that stops nobody."""
        while self._queue and len(self._taken) < BATCH:
            self._taken.append(self._queue.popleft())
        if not self._queue:
            self._some.clear()
        if len(self._queue) < BATCH:
            self._plenty.clear()
        turns = Turns()
        spans: list[Span] = []
        for report in self._taken:
            await turns.give()
            try:
                spans += report()
            except Exception:
                log.exception("trace_made_the_host_fail")
        try:
            return _Batch(len(self._taken), await self._encoder.request(spans, turns))
        except Exception:
            log.exception("traces_made_the_host_fail")
        self._count("dropped", len(self._taken))
        self._taken = []
        return None

    async def _post(self, batch: _Batch) -> None:
        """One POST. Raises `_Later` or `_Refused`."""
        assert self._http is not None
        headers = {name: secret.reveal() for name, secret in self._options.headers.items()}
        headers["Content-Type"] = self._content_type
        try:
            async with self._http.post(
                self._options.endpoint, data=batch.body, headers=headers, allow_redirects=False
            ) as answer:
                body = await answer.content.read(MOST_ANSWER)
                status, asked = answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _Later(type(error).__name__) from error
        if status in _AGAIN:
            asked_s = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 0.0
            raise _Later(f"status {status}", min(asked_s, LONGEST_PAUSE_S))
        if status // 100 != 2:
            raise _Refused(f"status {status}")
        if refused := self._refused_spans(body):
            raise _Refused(f"{refused} spans of a batch were refused")

    def _failing(self, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            where = urlsplit(self._options.endpoint).hostname
            log.warning("traces_not_sent", extra={"collector": where, "reason": reason})

    def _well(self) -> None:
        if self._failures:
            log.info("traces_sent_again", extra={"failures": self._failures})
        self._failures = 0
