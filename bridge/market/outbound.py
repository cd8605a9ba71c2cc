"""The owner task of one participant's calls: take what is due, sign it, commit 2, send it, journal the answer."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from bridge.clock import Clock, Stamp
from bridge.errors import IllegalMove, JournalFull, Replaced, RetryLater
from bridge.journal.port import DueCall, Fence, Journal, NoneDue
from bridge.lane import FastCall, RenderedItem, SignedCall
from bridge.latency import Wait
from bridge.market.answers import FULL_PAUSE_S, Answers, Outgoing
from bridge.market.calls import CallMaker
from bridge.market.client import Begun, SmpClient
from bridge.market.pace import FAILURES_IN_A_ROW, LONG_PAUSE_S, Pace
from bridge.market.prepare import Poison, prepare, signed
from bridge.market.report import MarketMetrics
from bridge.market.token import AccountStopped, TokenKeeper
from bridge.market.traces import MarketTraces
from bridge.market.tracker import Tracker
from bridge.model import HostReason, Operation, Refusal
from bridge.platform import AnswerClass, Exchange
from bridge.submission import SubmissionState

log = logging.getLogger(__name__)

ALLOWED: Final = (Operation.ASSET_CREATE, Operation.UNIT_CREATE)
_OF_ATTEMPT: Final = frozenset({"sent", "answered", "returned", "settled"})  # a further one leaves its own
_FEW: Final = 100  # items that are out of the way in a moment
_KEPT: Final = 1  # slots for what waits
_AHEAD: Final = 16  # calls that are looked up together; a look takes about as long as a commit, and each would hold up the next call
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
        traces: MarketTraces | None = None,
    ) -> None:
        self._participant = participant
        self._journal = journal
        self._fence = fence
        self._maker = maker
        self._client = client
        self._tokens = tokens
        self._pace = pace
        self._traces = traces or MarketTraces()
        self._answers = Answers(
            participant=participant,
            journal=journal,
            fence=fence,
            maker=maker,
            tracker=tracker,
            pace=pace,
            clock=clock,
            traces=self._traces,
            metrics=metrics,
        )
        self._clock = clock
        self._metrics = metrics
        self._woken = journal.woken(f"market:{participant}")
        self._group: asyncio.TaskGroup | None = None
        self._busy = True
        self._short = False  # whether all that was due at the last look has left: what waits now came since then, and leaves with the next look
        self._behind = True  # something that is due may wait for a gate; only the journal can say that nothing does
        self._line: deque[DueCall] = deque()  # looked up, not yet started; the commit finds what changed since then
        self._no_logins = 0  # in a row
        self._told = False  # that nobody can log in
        self._closing = False
        self._ended = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many Create calls are under way."""
        return self._pace.in_flight

    # the fast lane ---------------------------------------------------------------------------------------------------

    def claim(self, operation: Operation) -> bool:
        """Take a send slot if every gate is open and nothing waits in front (then `send` or `release` follows); see `bridge.lane.FastLane`.

        What came a moment ago and is about to leave is not in front: of one asset the journal keeps the order, and a slot is left for the others.
        """
        if self._group is None or self._closing or operation is not Operation.ASSET_CREATE or not self._tokens.ready:
            return False
        quiet = not (self._busy or self._behind or self._woken.is_set())
        if not (self._pace.free() if quiet else self._short and not self._line and self._pace.slots() > _KEPT):
            return False
        self._pace.take()
        return True

    async def sign(
        self, keys: Sequence[str], items: Sequence[RenderedItem], stamps: Mapping[str, Stamp]
    ) -> FastCall | None:
        """Sign a call of these items; None when they exceed the profile's limits, or nothing may be signed any more."""
        if self._pace.held or self._maker.fit(Operation.ASSET_CREATE, items) < len(items):
            return None
        submission = self._maker.new_submission()
        try:
            call = await signed(self._maker, Operation.ASSET_CREATE, items, submission=submission, stamps=stamps)
        except RetryLater:  # it takes the longer way, and waits there
            return None
        except Exception:  # so does what meets a defect of ours: there it is set aside, here it would end its site's session again and again
            log.exception("call_not_made", extra={"participant": self._participant, "items": len(items)})
            return None
        return FastCall(submission=submission, keys=tuple(keys), call=call, market=self._fence)

    def send(self, fast: FastCall, journalled: Stamp, site: str, flow: str) -> None:
        """Let a journalled call leave. Once the sender has ended it stays SENDING on disk, which is in doubt at the next start."""
        if self._group is None:
            self.release()
            return
        try:
            begun = self._begin(fast.call)
        except Exception as error:  # noqa: BLE001 - a defect of ours
            # Whether a byte has left nobody knows: it ends the host, and the call is in doubt at the next start.
            self._group.create_task(_failed(error))
            return
        stamps = {**fast.call.stamps, "journalled": journalled}
        out = Outgoing(
            submission=fast.submission,
            site=site,
            flow=flow,
            operation=Operation.ASSET_CREATE,
            keys=fast.keys,
            call=fast.call,
            stamps=stamps,
            waited=self._waited(stamps),
        )
        self._group.create_task(self._send(out, begun))

    def _begin(self, call: SignedCall) -> Begun | None:
        """Its bytes are with a connection that is open already; None where it has to wait for something, which its task does."""
        if not self._tokens.ready:
            return None
        token = self._tokens.take()
        return self._client.begin(
            call.path, method=call.method, headers=self._headers(call, token), body=call.body, secret=token
        )

    def release(self) -> None:
        """A lent slot was not used."""
        self._pace.give_back(unused=True)
        self._ended.set()
        self._woken.set()

    # the owner task --------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A gate that others keep has opened: look at once what may leave."""
        self._pace.let_go()
        self._woken.set()

    def resume(self) -> None:
        """The account works again: what the refused logins held up leaves at once."""
        self._pace.close()
        self._woken.set()

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
        if self._pace.circuit_open and not self._pace.held:  # what is late is not for a wrong clock to say
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
        self._behind = True
        while True:
            if self._closing:
                return None
            if not self._pace.free():
                if self._pace.circuit_open or self._pace.held:  # for who knows how long
                    self._line.clear()
                return self._pace.wait_s()
            try:
                await self._tokens.get()
                if self._no_logins:
                    await self._logged_in()
                if not self._line and (none := await self._look()) is not None:
                    return max(0.001, (none.next_ns - self._clock.wall_ns()) / 1e9) if none.next_ns else None
                await self._start_all([self._line.popleft() for _ in range(min(len(self._line), self._pace.slots()))])
            except RetryLater as error:
                pause_s = self._pace.trip(str(error), delay_s=error.delay_s)
                if not self._tokens.ready and not self._tokens.blocked:  # else it is what signs, or has its own alarm
                    await self._not_logged_in(pause_s, str(error))
                return pause_s
            except AccountStopped as error:
                return self._pace.trip(str(error))
            except JournalFull:
                return FULL_PAUSE_S
            except Replaced:
                continue  # newer content came while it was signed
            except IllegalMove:
                log.exception("moved_meanwhile", extra={"participant": self._participant})
                return FULL_PAUSE_S

    async def _not_logged_in(self, pause_s: float, cause: str) -> None:
        """From the third time in a row a person hears of it, of a long pause at once; while the journal is full, at a later one."""
        self._no_logins += 1
        if not self._told and (self._no_logins >= FAILURES_IN_A_ROW or pause_s > LONG_PAUSE_S):
            with suppress(JournalFull):
                await self._answers.alarm(f"logging in fails; again in {pause_s:.0f} s: {cause}")
                self._told = True

    async def _logged_in(self) -> None:
        self._no_logins = 0
        if self._told:
            await self._answers.clear()
            self._told = False

    async def _look(self) -> NoneDue | None:
        """Fill the line with what is due."""
        due = await self._journal.next_calls(self._participant, self._clock.wall_ns(), allow=ALLOWED, most=_AHEAD)
        if isinstance(due, NoneDue):
            self._behind, self._short = False, True
            return due
        self._short = len(due) < _AHEAD and sum(len(one.items) for one in due) <= _FEW
        self._line.extend(due)
        return None

    async def _expire(self) -> float | None:
        """End what waits past its deadline although nothing may leave; returns when the next one will be due (None: none)."""
        try:
            while True:
                late, next_ns = await self._journal.past_deadline(self._participant, self._clock.wall_ns())
                if not late:
                    return max(0.001, (next_ns - self._clock.wall_ns()) / 1e9) if next_ns else None
                for submission in late:
                    await self._refuse(submission, SubmissionState.EXPIRED, EXPIRED)
        except (JournalFull, IllegalMove, Replaced):
            return FULL_PAUSE_S

    async def _refuse(self, submission: str, state: SubmissionState, refusal: Refusal) -> None:
        """End what will never leave."""
        await self._journal.refuse_waiting(self._fence, submission, state, refusal)
        found = (
            await self._journal.find_submission(self._participant, submission=submission) if self._traces.on else None
        )
        if found is not None:
            self._traces.ended(found, state, found.stamps, cause="host")

    async def _start_all(self, due: Sequence[DueCall]) -> None:
        """Start these. Raises what one of them raises; then the rest of the line is looked up anew."""
        try:
            await (self._start(due[0]) if len(due) == 1 else self._side_by_side(due))
        except BaseException:
            self._line.clear()
            raise

    async def _side_by_side(self, due: Sequence[DueCall]) -> None:
        """Start these so that one commit serves them all. Raises what one of them raises, after all were tried."""
        results = await asyncio.gather(*(self._start(one) for one in due), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:  # newer content for one of them is no reason to wait: whatever else happened goes first
            raise min(failed, key=lambda error: isinstance(error, Replaced))

    async def _start(self, due: DueCall) -> None:
        # What is in doubt left before, so it can neither expire nor be refused by us.
        doubtful = due.state is SubmissionState.IN_DOUBT
        if not doubtful and due.deadline_ns and due.deadline_ns <= self._clock.wall_ns():
            await self._refuse(due.submission, SubmissionState.EXPIRED, EXPIRED)
            return
        made = await prepare(self._maker, due, now_ns=self._clock.wall_ns())
        if isinstance(made, Poison) or (doubtful and isinstance(made, Refusal)):
            await self._journal.set_aside(self._fence, due.submission, made.text)
            return
        if isinstance(made, Refusal):
            await self._refuse(due.submission, SubmissionState.REJECTED, made)
            return
        if self._closing or not self._pace.free():  # it stands in line as before, and is given out again
            self._line.clear()
            return
        self._pace.take()  # before the commit, so that a stop waits for what is on disk as SENDING then
        try:
            journalled = await self._journal.sending(self._fence, due.submission, made.call, made.count)
        except BaseException:
            self._pace.give_back(unused=True)
            self._ended.set()
            raise
        assert self._group is not None
        out = Outgoing(
            submission=due.submission,
            site=due.site,
            flow=due.flow,
            operation=due.operation,
            keys=[item.key for item in due.items[: made.count]],
            call=made.call,
            stamps={**due.stamps, **made.call.stamps, "journalled": journalled},
            attempts=due.attempts,
            repeat=doubtful and due.call is not None,
            waited=due.waited or self._waited({**due.stamps, **made.call.stamps}),
        )
        self._group.create_task(self._send(out))

    # one call --------------------------------------------------------------------------------------------------------

    async def _send(self, out: Outgoing, begun: Begun | None = None) -> None:
        answer = AnswerClass.IN_DOUBT
        try:
            exchange, answer = await self._exchange(out.call, begun)
            seen = {hop: stamp for hop, stamp in out.stamps.items() if hop not in _OF_ATTEMPT}
            if exchange.first_byte is not None:
                seen["sent"] = exchange.first_byte
            if exchange.answered is not None and exchange.failure is None:
                seen["answered"] = exchange.answered
            self._metrics.answered(self._participant, out, answer, seen)
            if exchange.answered is not None:
                self._metrics.smp_date(self._participant, exchange.headers.get("date", ""), exchange.answered)
            await self._answers.take(out, exchange, answer, seen)
        finally:
            self._pace.give_back()
            self._ended.set()
            if self._behind or answer is not AnswerClass.ACCEPTED:  # else nothing waits that could leave now
                self._woken.set()

    def _waited(self, stamps: Mapping[str, Stamp]) -> Wait | None:
        """Which gate was shut since it was received, as far as the clock of this boot can tell."""
        received, signed = stamps.get("received"), stamps["signed"]
        if received is None or received.boot != signed.boot:
            return None
        return self._pace.shut_since(received.mono_ns)

    async def _exchange(self, call: SignedCall, begun: Begun | None) -> tuple[Exchange, AnswerClass]:
        """POST the signed bytes, unless that has `begun`; on a 401 renew the token once and send the same bytes again (DOMAIN 5)."""
        if begun is not None:
            token = begun.secret
            exchange = await self._client.finish(begun)
            answer = self._maker.classify(exchange)
        else:
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
        again, answer = await self._post(call, fresh)
        # The first byte left with the first try; what its 401 cost is SMP's time, as it is in `answered`.
        return replace(again, first_byte=exchange.first_byte or again.first_byte), answer

    async def _post(self, call: SignedCall, token: str) -> tuple[Exchange, AnswerClass]:
        headers = self._headers(call, token)
        exchange = await self._client.post(call.path, method=call.method, headers=headers, body=call.body, secret=token)
        return exchange, self._maker.classify(exchange)

    def _headers(self, call: SignedCall, token: str) -> Mapping[str, str]:
        return {**call.headers, **self._maker.token_headers(token)}


async def _failed(error: Exception) -> None:
    """A task that ends the group it is in."""
    raise error


def _sooner(one: float | None, other: float | None) -> float | None:
    """The shorter of two waits, where None is for ever."""
    return min((wait for wait in (one, other) if wait is not None), default=None)
