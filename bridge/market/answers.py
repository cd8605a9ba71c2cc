"""What each answer to a Create means for its submission: the move, the alarm, and what the gates of the participant learn from it (DOMAIN 5)."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from bridge.clock import Clock, Stamp
from bridge.errors import IllegalMove, JournalFull, TransactionKnown
from bridge.journal.port import AnswerNote, Fence, ItemOutcome, Journal, Overtaken, ParkedReturn
from bridge.lane import SignedCall
from bridge.latency import Wait
from bridge.market.calls import CallMaker, CreateReport
from bridge.market.pace import LONG_PAUSE_S, LONGEST_PAUSE_S, Pace
from bridge.market.report import MarketMetrics
from bridge.market.traces import MarketTraces
from bridge.market.tracker import Tracker
from bridge.model import Operation
from bridge.platform import AnswerClass, Exchange, ReportedError, Verdict, outcomes, sent_again
from bridge.submission import SubmissionState
from bridge.turns import aside

log = logging.getLogger(__name__)

FULL_PAUSE_S: Final = 1.0
MOST_REPEATS: Final = 100  # then a person decides
POISON_REFUSALS: Final = 3  # of one call, while others were taken: then it is this call, not the account or the path
_OF_THE_CALL: Final = 4  # the hundred of a status that speaks of this call alone (RFC 9110 section 15.5)

_S = SubmissionState


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A call under way. `attempts` counts those before it; `repeat` when the same message had left before and what became of it is in doubt.

    `waited` names what outside the host kept it from leaving earlier, None for nothing.
    """

    submission: str
    site: str
    flow: str
    operation: Operation
    keys: Sequence[str]
    call: SignedCall
    stamps: Mapping[str, Stamp]
    attempts: int = 0
    repeat: bool = False
    waited: Wait | None = None


@dataclass(slots=True)
class _Refused:
    """How often one call was refused in a way that no single record causes, and how many others had been taken before the first time."""

    times: int
    well_before: int


@dataclass(slots=True)
class _Taken:
    """One answer, and what was made of it."""

    out: Outgoing
    exchange: Exchange
    answer: AnswerClass
    stamps: Mapping[str, Stamp]
    cause: str
    transaction_id: str
    retry_ns: int
    pause_s: float | None = None
    moved: bool = False  # on disk; what is still to be done after it must not move the submission again, which may have left meanwhile

    @property
    def note(self) -> AnswerNote:
        """The answer as evidence."""
        return AnswerNote(
            status=self.exchange.status,
            headers=self.exchange.headers,
            body=self.exchange.body,
            detail=self.exchange.detail,
            transaction_id=self.transaction_id,
            stamps=self.stamps,
            peer=self.exchange.peer,
        )


class Answers:
    """One participant's answers on their way into the journal."""

    def __init__(
        self,
        *,
        participant: str,
        journal: Journal,
        fence: Fence,
        maker: CallMaker,
        tracker: Tracker,
        pace: Pace,
        clock: Clock,
        traces: MarketTraces,
        metrics: MarketMetrics,
    ) -> None:
        self._participant = participant
        self._journal = journal
        self._fence = fence
        self._maker = maker
        self._tracker = tracker
        self._pace = pace
        self._clock = clock
        self._traces = traces
        self._metrics = metrics
        self._well = 0
        self._refused: dict[str, _Refused] = {}

    async def take(self, out: Outgoing, exchange: Exchange, answer: AnswerClass, stamps: Mapping[str, Stamp]) -> None:
        """Learn from one answer, then journal it and the move it causes, for as long as it takes to find room on the disk."""
        read = self._maker.read_answer(exchange) if answer is AnswerClass.ACCEPTED else CreateReport()
        cause = _cause(exchange)
        if answer is AnswerClass.ACCEPTED and not read.transaction_id:
            answer, cause = AnswerClass.IN_DOUBT, read.problem or "the answer holds no transaction id"
        taken = _Taken(out, exchange, answer, stamps, cause, read.transaction_id, self._retry_ns(out, exchange))
        taken.pause_s = self._learn(taken)
        self._traces.called(self._participant, out, exchange, answer, stamps)
        while True:
            try:
                await self._journalled(taken)
                break
            except JournalFull:
                await asyncio.sleep(FULL_PAUSE_S)
        if read.errors and taken.answer is AnswerClass.ACCEPTED:
            await self._taken_with_errors(out.submission, read.errors)
        told = {"submission": out.submission, "operation": out.operation.value, "items": len(out.keys)}
        log.log(
            logging.DEBUG if answer is AnswerClass.ACCEPTED else logging.INFO,
            "call_answered",
            extra={"participant": self._participant, "status": exchange.status, "class": answer.value, **told},
        )

    # what the gates learn, once ---------------------------------------------------------------------------------------

    def _learn(self, taken: _Taken) -> float | None:
        """Close or open the participant's circuit; returns the pause in seconds when this answer caused one that a person should hear of."""
        answer, exchange = taken.answer, taken.exchange
        if answer in (AnswerClass.ACCEPTED, AnswerClass.REJECTED):  # only a well account on a well path gets these
            self._well += 1
            self._refused.pop(taken.out.submission, None)
            self._pace.close()
            return None
        if answer is AnswerClass.IN_DOUBT:
            return self._doubt(taken)
        if answer is AnswerClass.RETRY:
            asked_s = min(exchange.retry_after_s or 0.0, LONGEST_PAUSE_S)
            if asked_s:
                self._pace.pause(asked_s, taken.cause)
            pause_s = self._pace.failed(taken.cause, self._maker.profile.spec.retry.delays_s)
            return asked_s if asked_s > LONG_PAUSE_S else pause_s
        pause_s = self._pace.trip(taken.cause)
        refused = self._refused.setdefault(taken.out.submission, _Refused(0, self._well))
        refused.times += 1
        self._behind(taken, pause_s)
        return pause_s

    def _doubt(self, taken: _Taken) -> float | None:
        exchange = taken.exchange
        if exchange.failure is None and exchange.status // 100 == _OF_THE_CALL:
            return None  # a conflict, say: the platform and the path are well
        pause_s = self._pace.doubted(taken.cause)
        if pause_s is not None:
            self._behind(taken, pause_s)
        return pause_s

    def _behind(self, taken: _Taken, pause_s: float) -> None:
        """Behind what waits: the next try is another call, if there is one."""
        taken.retry_ns = self._clock.wall_ns() + int(2 * pause_s * 1e9)

    def _poisonous(self, submission: str) -> bool:
        """Whether this call was refused again and again while others were taken: then it is neither the account nor the path."""
        refused = self._refused.get(submission)
        return refused is not None and refused.times >= POISON_REFUSALS and self._well > refused.well_before

    # what is journalled, until it is on disk ---------------------------------------------------------------------------

    async def _journalled(self, taken: _Taken) -> None:
        if taken.answer is AnswerClass.ACCEPTED:
            await self._accepted(taken)
        elif taken.answer is AnswerClass.REJECTED:
            await self._rejected(taken)
        elif taken.answer is AnswerClass.IN_DOUBT:
            await self._doubtful(taken)
        elif taken.answer is AnswerClass.RETRY:
            await self._moved(taken, _S.RETRY_WAIT, retry_ns=taken.retry_ns)
            if taken.pause_s is not None:
                what = "the platform takes no calls" if taken.exchange.status else "the platform cannot be reached"
                await self.alarm(f"{what}; again in {taken.pause_s:.0f} s: {taken.cause}")
        else:
            await self._our_fault(taken)

    async def _accepted(self, taken: _Taken) -> None:
        await self.clear()
        try:
            parked = await self._journal.answered(
                self._fence,
                taken.out.submission,
                _S.AWAITING_RETURN,
                taken.note,
                cause="accepted",
                items=len(taken.out.keys),
            )
        except TransactionKnown as error:
            taken.answer, taken.cause = AnswerClass.IN_DOUBT, str(error)
            taken.transaction_id, taken.retry_ns = "", 0  # the same message would get the same answer
            await self._doubtful(taken)
            return
        self._tracker.sent(taken.out.submission, taken.transaction_id)
        if parked:
            self._tracker.handed_out(parked)

    async def _taken_with_errors(self, submission: str, errors: Sequence[ReportedError]) -> None:
        """Two statements in one answer: what becomes of the items its result says, and a person has to know that it may not say it all."""
        first, more = errors[0], f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        about = f" of {first.reference}" if first.reference else ""
        text = f"the platform took the call and named an error{about} in the same answer{more}: {first.code} {first.text}; its result counts"
        log.warning("call_taken_with_errors", extra={"participant": self._participant, "submission": submission})
        with suppress(JournalFull):
            await self._journal.alarm("CONFLICT", participant=self._participant, subject=submission, text=text)

    async def _rejected(self, taken: _Taken) -> None:
        await self.clear()
        out, maker = taken.out, self._maker
        found = await self._journal.find_submission(self._participant, submission=out.submission)
        if found is None:
            return
        report = maker.read_rejection(taken.exchange)
        verdicts = outcomes(out.keys, report, maker.semantics)
        results = [
            ItemOutcome(item=item.id, state=verdict.state, asset_id=verdict.asset_id, errors=verdict.errors)
            for item, verdict in zip(found.items, verdicts, strict=True)
        ]
        resubmit = maker.profile.spec.resubmit_unnamed
        groups = sent_again(out.keys, report, maker.semantics, at_once=True, resubmit_unnamed=resubmit)
        stamps = {**taken.stamps, "settled": self._clock.now()}
        try:
            await self._journal.settle(
                self._fence,
                out.submission,
                _S.REJECTED,
                results,
                cause=f"refused with {taken.exchange.status}",
                answer=taken.note,
                stamps=stamps,
                again=[[found.items[index].id for index in group] for group in groups],
            )
        except Overtaken as overtaken:
            await self._overtaken(taken, overtaken.returns, verdicts)
            return
        self._metrics.settled(self._participant, found, stamps)
        told = [verdict.state for verdict in verdicts]
        self._traces.ended(found, _S.REJECTED, stamps, cause="answer", outcomes=told)

    async def _overtaken(self, taken: _Taken, returns: Sequence[ParkedReturn], refused: Sequence[Verdict]) -> None:
        """Refused, and its signed result had come before: that one says what became of the call, and nothing of it goes again."""
        status, submission = taken.exchange.status, taken.out.submission
        for parked in returns:
            if await self._says_else(taken.out, parked, refused):
                text = (
                    f"the call was answered with {status} after its return had said something else; the return counts"
                )
                await self._journal.alarm("CONFLICT", participant=self._participant, subject=submission, text=text)
        taken.cause = f"refused with {status}, after a result of it had been returned"
        await self._moved(taken, _S.IN_DOUBT, retry_ns=0)

    async def _says_else(self, out: Outgoing, parked: ParkedReturn, refused: Sequence[Verdict]) -> bool:
        """Whether a return gives other states than the answer to its own call."""
        read = await aside(len(parked.message.body), self._maker.read_return, parked.message)
        if read is None:
            return False
        said = outcomes(out.keys, read.report, self._maker.semantics)
        return [verdict.state for verdict in said] != [verdict.state for verdict in refused]

    async def _doubtful(self, taken: _Taken) -> None:
        """In doubt: never sent again, unless the platform recognises a message that it has seen; and not for ever even then."""
        repeats = self._maker.profile.spec.recognises_repeats and taken.out.attempts < MOST_REPEATS
        retry_ns = taken.retry_ns if repeats else 0
        await self._moved(taken, _S.IN_DOUBT, retry_ns=retry_ns)
        if taken.pause_s is not None:
            text = (
                f"what becomes of one call after the other is in doubt; again in {taken.pause_s:.0f} s: {taken.cause}"
            )
            await self.alarm(text)

    async def _our_fault(self, taken: _Taken) -> None:
        """Refused in a way that no single record causes: everything waits, unless it is this call after all."""
        submission = taken.out.submission
        await self._moved(taken, _S.WAITING, retry_ns=taken.retry_ns)
        if self._poisonous(submission) and not taken.out.repeat:
            text = f"refused {self._refused.pop(submission).times} times while other calls were taken: {taken.cause}"
            with suppress(IllegalMove):  # a person was quicker
                await self._journal.set_aside(self._fence, submission, text)
        await self.alarm(f"sending paused for {taken.pause_s or 0:.0f} s: {taken.cause}")

    async def clear(self) -> None:
        """Sending goes on: the alarm ends, unless the platform asked for a pause that is not over."""
        if self._pace.told and not self._pace.asked_s:  # else it may be the answer to an earlier call
            await self._journal.alarm("CIRCUIT_OPEN", participant=self._participant, clear=True)
            self._pace.told = False

    async def alarm(self, text: str) -> None:
        """Tell a person why nothing is sent."""
        self._pace.told = True
        await self._journal.alarm("CIRCUIT_OPEN", participant=self._participant, text=text)

    async def _moved(self, taken: _Taken, state: SubmissionState, *, retry_ns: int) -> None:
        if taken.moved:
            return
        cause = taken.cause
        if taken.out.repeat and state is not _S.IN_DOUBT:
            # This attempt was certainly not processed, which says nothing of the one before it.
            state, cause = _S.IN_DOUBT, f"still in doubt; sent again, and {cause}"
            if taken.out.attempts >= MOST_REPEATS or self._poisonous(taken.out.submission):
                retry_ns = 0  # a person decides; it would only stand in the way of the others
                self._refused.pop(taken.out.submission, None)
        parked = await self._journal.answered(
            self._fence,
            taken.out.submission,
            state,
            taken.note,
            retry_ns=retry_ns,
            cause=cause,
            items=len(taken.out.keys),
        )
        taken.moved = True
        if parked:
            self._tracker.handed_out(parked)

    def _retry_ns(self, out: Outgoing, exchange: Exchange) -> int:
        """When it may go again (UTC ns): by the profile's table with jitter, never sooner than SMP asked for."""
        delays_s = self._maker.profile.spec.retry.delays_s
        delay_s = delays_s[min(out.attempts, len(delays_s) - 1)] * (0.9 + 0.2 * self._maker.jitter())
        asked_s = min(exchange.retry_after_s or 0.0, LONGEST_PAUSE_S)
        return self._clock.wall_ns() + int(max(delay_s, asked_s) * 1e9)


def _cause(exchange: Exchange) -> str:
    return exchange.detail or f"status {exchange.status}"
