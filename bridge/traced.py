"""From what field and market tell of a submission to the reports that become its spans. Loaded only where `tracing:` is configured."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from bridge.clock import Clock, Stamp
from bridge.config.tracing import TracingOptions
from bridge.field.traces import FieldTraces
from bridge.flow import FlowPlan
from bridge.journal.port import DueWriteBack, OpenSubmission, WriteBackResult
from bridge.market.traces import MarketTraces
from bridge.metrics import Metrics
from bridge.model import ItemState
from bridge.platform import AnswerClass, Exchange
from bridge.spans import Attempt, Whose
from bridge.submission import SubmissionState
from bridge.tracing import Tracing

if TYPE_CHECKING:  # handed in by it
    from bridge.market.answers import Outgoing

NO_TOKEN: Final = "NO_TOKEN"  # noqa: S105 - beside the names of `Failure`: nothing left, for there was no login
REMEMBERED: Final = 4096  # submissions whose end was told
_WELL: Final = frozenset({"written", "read_back_ok"})


class Traced(MarketTraces, FieldTraces, AbstractAsyncContextManager["Traced"]):
    """The traces of one host. What it is told it only notes; `run` sends it, and leaving the context tries a last time, unless it was cancelled."""

    on = True

    def __init__(self, options: TracingOptions, *, role: str, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        self._ended: dict[str, None] = {}
        reports = {state: metrics.traces.labels(state) for state in ("sent", "refused", "dropped")}
        self._tracing = Tracing(options, role=role, count=lambda state, number: reports[state].inc(number))

    async def __aenter__(self) -> Self:
        await self._tracing.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or not issubclass(kind, asyncio.CancelledError):
                await self._tracing.finish()
        finally:
            await self._tracing.__aexit__(kind, error, trace)

    async def run(self) -> None:
        """Send what was noted until cancelled."""
        await self._tracing.run()

    # told in passing -------------------------------------------------------------------------------------------------

    def called(
        self, participant: str, out: "Outgoing", exchange: Exchange, answer: AnswerClass, stamps: Mapping[str, Stamp]
    ) -> None:
        """See `MarketTraces`."""
        whose = Whose(
            submission=out.submission,
            participant=participant,
            site=out.site,
            flow=out.flow,
            operation=out.operation.value,
            items=len(out.keys),
        )
        self._tracing.called(whose, stamps, self._attempt(out, exchange, answer))

    def _attempt(self, out: "Outgoing", exchange: Exchange, answer: AnswerClass) -> Attempt:
        failure = exchange.failure.name if exchange.failure is not None else "" if exchange.status else NO_TOKEN
        return Attempt(
            number=out.attempts,
            answer=answer.value,
            status=exchange.status,
            failure=failure,
            sent=exchange.first_byte,
            ended=exchange.answered or self._clock.now(),
        )

    def ended(
        self,
        submission: OpenSubmission,
        state: SubmissionState,
        stamps: Mapping[str, Stamp],
        *,
        cause: str,
        outcomes: Iterable[ItemState] = (),
    ) -> None:
        """See `MarketTraces`. A return and a status poll may tell the same end in the same moment; the first counts, for a root stands once."""
        if submission.id in self._ended:
            return
        self._ended[submission.id] = None
        if len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        whose = Whose(
            submission=submission.id,
            participant=submission.participant,
            site=submission.site,
            flow=submission.flow,
            operation=submission.operation.value,
            items=len(submission.items),
        )
        counted = Counter(outcome.value for outcome in outcomes)
        self._tracing.ended(whose, stamps, state, cause=cause, outcomes=counted)

    def told(
        self, plans: Mapping[str, FlowPlan], rows: Sequence[DueWriteBack], results: Sequence[WriteBackResult]
    ) -> None:
        """See `FieldTraces`: one span for what one submission told together and with the same end."""
        groups: dict[tuple[str, str], list[tuple[DueWriteBack, Stamp, Stamp]]] = {}
        for row, result in zip(rows, results, strict=True):
            if row.submission and row.settled is not None and result.stamp is not None and row.outcome.state.final:
                groups.setdefault((row.submission, result.state), []).append((row, row.settled, result.stamp))
        for (submission, state), group in groups.items():
            row, settled, _ = group[0]
            plan = plans[row.flow]
            whose = Whose(
                submission=submission,
                participant=plan.participant,
                site=row.site,
                flow=row.flow,
                operation=plan.operation.value,
                items=0,
            )
            written = max((stamp for _, _, stamp in group), key=lambda stamp: stamp.mono_ns)
            which = f"{row.id} {row.generation}"
            self._tracing.told(
                whose, settled, written, which=which, items=len(group), state=state, error=state not in _WELL
            )
