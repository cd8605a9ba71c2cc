"""The owner task of one participant's calls: take what is due, sign it, commit 2, send it, journal the answer."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from bridge.clock import Clock, Stamp
from bridge.errors import IllegalMove, JournalFull, Replaced, RetryLater
from bridge.journal.port import AnswerNote, DueCall, Fence, ItemOutcome, Journal, NoneDue
from bridge.lane import FastCall, SignedCall, Slot
from bridge.market.calls import CallMaker
from bridge.market.client import SmpClient
from bridge.market.pace import LONGEST_PAUSE_S, Pace
from bridge.market.prepare import prepare
from bridge.market.report import MarketMetrics
from bridge.market.token import AccountStopped, TokenKeeper
from bridge.market.tracker import Tracker
from bridge.model import ErrorNote, HostReason, Operation, Refusal
from bridge.platform import AnswerClass, Exchange, outcomes
from bridge.submission import SubmissionState

log = logging.getLogger(__name__)

ALLOWED: Final = (Operation.ASSET_CREATE, Operation.UNIT_CREATE)
FULL_PAUSE_S: Final = 1.0
EXPIRED: Final = Refusal(reason=HostReason.EXPIRED, text="it could not be sent before the flow's deadline")


class Outbound:
    """One participant's calls. It is also that participant's part of the fast lane: `claim` lends a send slot to the field side."""

    def __init__(
        self,
        *,
        participant: str,
        journal: Journal,
        fence: Fence,
        maker: CallMaker,
        client: SmpClient,
        tokens: TokenKeeper,
        tracker: Tracker,
        pace: Pace,
        clock: Clock,
        metrics: MarketMetrics,
    ) -> None:
        self._participant = participant
        self._journal = journal
        self._fence = fence
        self._maker = maker
        self._client = client
        self._tokens = tokens
        self._tracker = tracker
        self._pace = pace
        self._clock = clock
        self._metrics = metrics
        self._woken = journal.woken(f"market:{participant}")
        self._group: asyncio.TaskGroup | None = None
        self._busy = True
        self._closing = False
        self._ended = asyncio.Event()
        self._retries: dict[str, int] = {}

    @property
    def in_flight(self) -> int:
        """How many Create calls are under way."""
        return self._pace.in_flight

    # the fast lane ---------------------------------------------------------------------------------------------------

    def claim(self, operation: Operation) -> Slot | None:
        """A send slot if every gate is open and nothing waits in front; see `bridge.lane.FastLane`."""
        if (
            self._group is None
            or self._closing
            or self._busy
            or self._woken.is_set()
            or operation is not Operation.ASSET_CREATE
        ):
            return None
        if not self._pace.free() or not self._tokens.ready:
            return None
        self._pace.take()
        return _LentSlot(self)

    def sign(
        self, keys: Sequence[str], items: Sequence[Mapping[str, object]], stamps: Mapping[str, Stamp]
    ) -> FastCall | None:
        """Render and sign a call of these items; None when they exceed the profile's limits."""
        rendered = [self._maker.render(Operation.ASSET_CREATE, item) for item in items]
        if self._maker.fit(Operation.ASSET_CREATE, rendered) < len(rendered):
            return None
        submission = self._maker.new_submission()
        call = self._maker.create(Operation.ASSET_CREATE, rendered, submission=submission, stamps=stamps)
        return FastCall(submission=submission, keys=tuple(keys), call=call, market=self._fence)

    def send(self, fast: FastCall, journalled: Stamp) -> None:
        """Let a journalled call leave. Once the sender has ended it stays SENDING on disk, which is in doubt at the next start."""
        if self._group is None:
            self.release()
            return
        stamps = {**fast.call.stamps, "journalled": journalled}
        self._group.create_task(self._send(fast.submission, Operation.ASSET_CREATE, fast.keys, fast.call, stamps))

    def release(self) -> None:
        """A lent slot was not used."""
        self._pace.give_back(unused=True)
        self._ended.set()
        self._woken.set()

    # the owner task --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is due until cancelled; on the way out, calls under way are finished first."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    await self._turn()
            finally:
                self._group = None

    async def drain(self, within_s: float) -> None:
        """Claim nothing more and wait until the calls under way are answered, for at most this long."""
        self._closing = True
        try:
            async with asyncio.timeout(within_s):
                while self._pace.in_flight:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            log.warning(
                "stopped_with_calls_under_way", extra={"participant": self._participant, "calls": self._pace.in_flight}
            )

    async def _turn(self) -> None:
        self._woken.clear()
        self._busy = True
        wait_s = await self._drain()
        if self._pace.circuit_open:
            wait_s = _sooner(wait_s, await self._expire())
        self._busy = False
        self._metrics.circuit(self._participant, open_=self._pace.circuit_open)
        try:
            async with asyncio.timeout(wait_s):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _drain(self) -> float | None:
        """Start every call that may leave now; returns how long to wait for time alone (None: until woken)."""
        while True:
            if self._closing:
                return None
            if not self._pace.free():
                return self._pace.wait_s()
            try:
                await self._tokens.get()
                due = await self._journal.next_call(self._participant, self._clock.wall_ns(), allow=ALLOWED)
                if isinstance(due, NoneDue):
                    return max(0.001, (due.next_ns - self._clock.wall_ns()) / 1e9) if due.next_ns else None
                await self._start(due)
            except RetryLater as error:
                return self._pace.trip(str(error), delay_s=error.delay_s)
            except AccountStopped as error:
                return self._pace.trip(str(error))
            except JournalFull:
                return FULL_PAUSE_S
            except Replaced:
                continue  # newer content came while it was signed
            except IllegalMove:
                log.exception("moved_meanwhile", extra={"participant": self._participant})
                return FULL_PAUSE_S

    async def _expire(self) -> float | None:
        """End what waits past its deadline although nothing may leave; returns when the next one will be due (None: none)."""
        try:
            while True:
                late, next_ns = await self._journal.past_deadline(self._participant, self._clock.wall_ns())
                if not late:
                    return max(0.001, (next_ns - self._clock.wall_ns()) / 1e9) if next_ns else None
                for submission in late:
                    await self._journal.refuse_waiting(self._fence, submission, SubmissionState.EXPIRED, EXPIRED)
        except (JournalFull, IllegalMove, Replaced):
            return FULL_PAUSE_S

    async def _start(self, due: DueCall) -> None:
        if due.deadline_ns and due.deadline_ns <= self._clock.wall_ns():
            await self._journal.refuse_waiting(self._fence, due.submission, SubmissionState.EXPIRED, EXPIRED)
            return
        made = prepare(self._maker, due)
        if isinstance(made, Refusal):
            await self._journal.refuse_waiting(self._fence, due.submission, SubmissionState.REJECTED, made)
            return
        if self._closing:
            return
        self._pace.take()  # before the commit, so that a stop waits for what is on disk as SENDING then
        try:
            journalled = await self._journal.sending(self._fence, due.submission, made.call, made.count)
        except BaseException:
            self._pace.give_back(unused=True)
            self._ended.set()
            raise
        self._retries[due.submission] = due.attempts
        assert self._group is not None
        keys = [item.key for item in due.items[: made.count]]
        stamps = {**due.stamps, **made.call.stamps, "journalled": journalled}
        self._group.create_task(self._send(due.submission, due.operation, keys, made.call, stamps))

    # one call --------------------------------------------------------------------------------------------------------

    async def _send(
        self,
        submission: str,
        operation: Operation,
        keys: Sequence[str],
        call: SignedCall,
        stamps: Mapping[str, Stamp],
    ) -> None:
        try:
            exchange, answer = await self._exchange(call)
            seen = dict(stamps)
            if exchange.first_byte is not None:
                seen["sent"] = exchange.first_byte
            if exchange.answered is not None and exchange.failure is None:
                seen["answered"] = exchange.answered
            self._metrics.answered(self._participant, answer, seen)
            done = False
            while not done:
                try:
                    await self._journalled(submission, operation, keys, exchange, answer, seen)
                    done = True
                except JournalFull:
                    await asyncio.sleep(FULL_PAUSE_S)
        finally:
            self._retries.pop(submission, None)
            self._pace.give_back()
            self._ended.set()
            self._woken.set()

    async def _exchange(self, call: SignedCall) -> tuple[Exchange, AnswerClass]:
        """POST the signed bytes; on a 401 renew the token once and send the same bytes again (DOMAIN 5)."""
        try:
            token = await self._tokens.get()
        except (RetryLater, AccountStopped) as error:
            # Not one byte of the call has left, so it is certainly not processed.
            return Exchange(sent=False, detail=str(error), status=0), AnswerClass.RETRY
        exchange, answer = await self._post(call, token)
        if answer is not AnswerClass.UNAUTHORISED:
            return exchange, answer
        try:
            fresh = await self._tokens.renew(token)
        except (RetryLater, AccountStopped):
            return exchange, answer
        return await self._post(call, fresh)

    async def _post(self, call: SignedCall, token: str) -> tuple[Exchange, AnswerClass]:
        headers = {**call.headers, **self._maker.token_headers(token)}
        exchange = await self._client.post(call.path, method=call.method, headers=headers, body=call.body)
        return exchange, self._maker.classify(exchange)

    async def _journalled(
        self,
        submission: str,
        operation: Operation,
        keys: Sequence[str],
        exchange: Exchange,
        answer: AnswerClass,
        stamps: Mapping[str, Stamp],
    ) -> None:
        if answer is AnswerClass.ACCEPTED:
            await self._accepted(submission, exchange, stamps)
        elif answer is AnswerClass.REJECTED:
            await self._rejected(submission, keys, exchange, stamps)
        elif answer is AnswerClass.IN_DOUBT:
            await self._moved(submission, SubmissionState.IN_DOUBT, exchange, stamps, cause=_cause(exchange))
            await self._journal.alarm(
                "IN_DOUBT", participant=self._participant, subject=submission, text=_cause(exchange)
            )
        elif answer is AnswerClass.RETRY:
            retry_ns = self._clock.wall_ns() + int(self._retry_delay_s(submission, exchange) * 1e9)
            await self._moved(
                submission, SubmissionState.RETRY_WAIT, exchange, stamps, cause=_cause(exchange), retry_ns=retry_ns
            )
        else:
            pause_s = self._pace.trip(_cause(exchange))
            await self._moved(submission, SubmissionState.WAITING, exchange, stamps, cause=_cause(exchange))
            text = f"sending paused for {pause_s:.0f} s: {_cause(exchange)}"
            await self._journal.alarm("CIRCUIT_OPEN", participant=self._participant, text=text)
        told = {"submission": submission, "operation": operation.value, "items": len(keys), "class": answer.value}
        log.info("call_answered", extra={"participant": self._participant, "status": exchange.status, **told})

    async def _accepted(self, submission: str, exchange: Exchange, stamps: Mapping[str, Stamp]) -> None:
        read = self._maker.read_answer(exchange)
        if not read.transaction_id:
            cause = read.problem or "the answer holds no transaction id"
            await self._moved(submission, SubmissionState.IN_DOUBT, exchange, stamps, cause=cause)
            await self._journal.alarm("IN_DOUBT", participant=self._participant, subject=submission, text=cause)
            return
        self._pace.close()
        await self._journal.alarm("CIRCUIT_OPEN", participant=self._participant, clear=True)
        note = _note(exchange, stamps, transaction_id=read.transaction_id)
        parked = await self._journal.answered(
            self._fence, submission, SubmissionState.AWAITING_RETURN, note, cause="accepted"
        )
        self._tracker.sent(submission, read.transaction_id)
        for message in parked:
            self._tracker.returned(message)

    async def _rejected(
        self, submission: str, keys: Sequence[str], exchange: Exchange, stamps: Mapping[str, Stamp]
    ) -> None:
        found = await self._journal.find_submission(self._participant, submission=submission)
        if found is None:
            return
        verdicts = outcomes(keys, self._maker.read_rejection(exchange), self._maker.semantics)
        results = [
            ItemOutcome(item=item.id, state=verdict.state, asset_id=verdict.asset_id, errors=verdict.errors)
            for item, verdict in zip(found.items, verdicts, strict=True)
        ]
        await self._journal.settle(
            self._fence,
            submission,
            SubmissionState.REJECTED,
            results,
            cause=f"refused with {exchange.status}",
            answer=_note(exchange, stamps),
            stamps={**stamps, "settled": self._clock.now()},
        )

    async def _moved(
        self,
        submission: str,
        state: SubmissionState,
        exchange: Exchange,
        stamps: Mapping[str, Stamp],
        *,
        cause: str,
        retry_ns: int = 0,
    ) -> None:
        parked = await self._journal.answered(
            self._fence, submission, state, _note(exchange, stamps), retry_ns=retry_ns, cause=cause
        )
        for message in parked:
            self._tracker.returned(message)

    def _retry_delay_s(self, submission: str, exchange: Exchange) -> float:
        attempt = self._retries.get(submission, 0)
        delays_s = self._maker.profile.spec.retry.delays_s
        delay_s = delays_s[min(attempt, len(delays_s) - 1)]
        # Never sooner than SMP asked for.
        asked_s = min(exchange.retry_after_s or 0.0, LONGEST_PAUSE_S)
        return max(delay_s * (0.9 + 0.2 * self._maker.jitter()), asked_s)


class _LentSlot:
    """A send slot in the field side's hands."""

    __slots__ = ("_fast", "_outbound")

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._fast: FastCall | None = None

    def sign(
        self, keys: Sequence[str], items: Sequence[Mapping[str, object]], stamps: Mapping[str, Stamp]
    ) -> FastCall | None:
        """See `bridge.lane.Slot`."""
        self._fast = self._outbound.sign(keys, items, stamps)
        return self._fast

    def send(self, journalled: Stamp) -> None:
        """See `bridge.lane.Slot`."""
        if self._fast is None:
            raise RuntimeError("nothing was signed in this slot")
        self._outbound.send(self._fast, journalled)

    def release(self) -> None:
        """See `bridge.lane.Slot`."""
        self._outbound.release()


class Lanes:
    """The fast lane of all participants of this process."""

    def __init__(self) -> None:
        self._outbound: dict[str, Outbound] = {}

    def add(self, participant: str, outbound: Outbound) -> None:
        """Let `claim` find this participant's calls."""
        self._outbound[participant] = outbound

    def claim(self, participant: str, operation: Operation) -> Slot | None:
        """See `bridge.lane.FastLane`."""
        outbound = self._outbound.get(participant)
        return None if outbound is None else outbound.claim(operation)


def _sooner(one: float | None, other: float | None) -> float | None:
    """The shorter of two waits, where None is for ever."""
    return min((wait for wait in (one, other) if wait is not None), default=None)


def _cause(exchange: Exchange) -> str:
    return exchange.detail or f"status {exchange.status}"


def _note(exchange: Exchange, stamps: Mapping[str, Stamp], *, transaction_id: str = "") -> AnswerNote:
    return AnswerNote(
        status=exchange.status,
        headers=exchange.headers,
        body=exchange.body,
        detail=exchange.detail,
        transaction_id=transaction_id,
        stamps=stamps,
    )


def host_error(reason: HostReason, text: str) -> ErrorNote:
    """A refusal of the host's own as an error note."""
    return ErrorNote(code=str(int(reason)), text=text)
