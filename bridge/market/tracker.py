"""Follows each call to its result: returns first, status polls by the profile's plan. The same rule makes outcomes of both."""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from bridge.clock import Clock, Stamp
from bridge.errors import BridgeError, IllegalMove, JournalFull, RetryLater
from bridge.journal.port import AnswerNote, Fence, ItemOutcome, Journal, OpenSubmission, ParkedReturn
from bridge.market.calls import CallMaker, StatusReport
from bridge.market.client import SmpClient
from bridge.market.pace import LONG_PAUSE_S, LONGEST_PAUSE_S, Pace
from bridge.market.report import MarketMetrics
from bridge.market.token import AccountStopped, TokenKeeper
from bridge.market.traces import MarketTraces
from bridge.model import ErrorNote, HostReason, ItemState, Operation
from bridge.platform import AnswerClass, Exchange, Report, Verdict, outcomes, sent_again
from bridge.submission import SubmissionState, settled_state
from bridge.turns import aside, signing

log = logging.getLogger(__name__)

FULL_PAUSE_S: Final = 1.0
MOST_ARRIVED: Final = 1000  # returns that wait to be settled; then SMP is asked to come again
MOST_ARRIVED_BYTES: Final = 64 * 1024 * 1024
MOST_TOGETHER: Final = 16  # returns that are settled side by side
ITEM_BYTES: Final = 100  # of a result, about
_OVERDUE: Final = -1  # in the place of a poll's number: the moment after which a missing outcome is an alarm
_NOT_SENT: Final = frozenset({SubmissionState.WAITING, SubmissionState.RETRY_WAIT, SubmissionState.SET_ASIDE})


class Tracker:
    """One participant's open submissions: two owner tasks, one for returns and one for polls."""

    def __init__(
        self,
        *,
        participant: str,
        journal: Journal,
        fence: Fence,
        maker: CallMaker,
        client: SmpClient,
        tokens: TokenKeeper,
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
        self._clock = clock
        self._metrics = metrics
        self._traces = traces or MarketTraces()
        self._arrived: deque[ParkedReturn] = deque()
        self._arrived_bytes = 0
        # The id behind which returns of an earlier run are still to be taken up (None: all were), those of this run meanwhile, and the last page.
        self._left_over: int | None = 0
        self._own: set[int] = set()
        self._taken_up: set[int] = set()
        self._wake_returns = asyncio.Event()
        self._wake_polls = asyncio.Event()
        self._polls: list[tuple[int, int, str, str]] = []
        self._open: dict[str, str] = {}
        self._kept_back: list[tuple[int, str, str]] = []

    # told by others --------------------------------------------------------------------------------------------------

    def sent(self, submission: str, transaction_id: str, *, sent_ns: int | None = None) -> None:
        """A submission has a transaction id now: plan its status polls. `sent_ns` (UTC) is when it went out, if that was before this start."""
        self._open[submission] = transaction_id
        passed_s = 0.0 if sent_ns is None else max(0.0, (self._clock.wall_ns() - sent_ns) / 1e9)
        self._plan(0, submission, transaction_id, passed_s=passed_s)
        self._push(self._maker.profile.spec.poll.overdue_s - passed_s, _OVERDUE, submission, transaction_id)

    def returned(self, message: ParkedReturn) -> None:
        """A return is on disk and can be settled."""
        if message.id in self._taken_up:
            return  # the page read a moment ago held it already
        if self._left_over is not None:
            self._own.add(message.id)
        self._put(message)

    def handed_out(self, messages: Sequence[ParkedReturn]) -> None:
        """A call has its answer, and these returns waited for that; they may have been looked at before."""
        stand = {message.id for message in self._arrived}
        if self._left_over is not None:
            self._own.update(message.id for message in messages)
        self._put(*(message for message in messages if message.id not in stand))

    def resume(self) -> None:
        """Polls may be signed again: those that came due meanwhile go now."""
        for poll in self._kept_back:
            self._push(0.0, *poll)
        self._kept_back.clear()

    @property
    def crowded(self) -> bool:
        """Whether so many returns wait to be settled that SMP should come again later."""
        return len(self._arrived) >= MOST_ARRIVED or self._arrived_bytes >= MOST_ARRIVED_BYTES

    def _put(self, *messages: ParkedReturn) -> None:
        self._arrived += messages
        self._arrived_bytes += sum(len(message.message.body) for message in messages)
        self._wake_returns.set()

    # owner tasks -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up what the journal holds, then follow returns and polls until cancelled."""
        for submission in await self._journal.open_submissions(self._participant):
            if submission.transaction_id and submission.state.asks_status:
                self.sent(submission.id, submission.transaction_id, sent_ns=submission.sent_ns)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_returns())
            group.create_task(self._follow_polls())

    async def _follow_returns(self) -> None:
        while True:
            self._wake_returns.clear()
            while self._arrived:
                await self._settle_together()
            if not await self._take_up():
                await self._wake_returns.wait()

    async def _settle_together(self) -> None:
        """The next returns side by side, so that one commit serves them all; those of one transaction one after the other, in order of arrival."""
        batch = [self._arrived.popleft()]
        known = {batch[0].message.transaction_id}
        while self._arrived and len(batch) < MOST_TOGETHER and "" not in known:
            if self._arrived[0].message.transaction_id in {"", *known}:
                break
            batch.append(self._arrived.popleft())
            known.add(batch[-1].message.transaction_id)
        results = await asyncio.gather(*(self._settle_kept(parked) for parked in batch), return_exceptions=True)
        again = []
        for parked, result in zip(batch, results, strict=True):
            if isinstance(result, JournalFull):
                again.append(replace(parked, found=None))  # what its commit saw may be old by then
            elif isinstance(result, BaseException):
                raise result
            else:
                self._arrived_bytes -= len(parked.message.body)
        if again:
            self._arrived.extendleft(reversed(again))
            await asyncio.sleep(FULL_PAUSE_S)

    async def _take_up(self) -> bool:
        """The next returns that an earlier run left, a page at a time; whether there were any."""
        if self._left_over is None:
            return False
        page = await self._journal.unsettled_returns(self._participant, after=self._left_over)
        self._left_over = page[-1].id if page else None
        self._put(*(message for message in page if message.id not in self._own))
        if page:
            self._taken_up = {message.id for message in page}
        else:
            self._own.clear()
        return bool(page)

    async def _settle_kept(self, parked: ParkedReturn) -> None:
        """A return that makes our own code fail is kept and told, and stands in nobody's way; the polls go on."""
        try:
            await self._settle_return(parked)
        except BridgeError:
            raise
        except Exception:
            log.exception("return_made_the_host_fail", extra={"participant": self._participant, "return": parked.id})
        else:
            return
        await self._journal.close_return(self._fence, parked.id, "quarantined")
        text = f"return {parked.message.message_id} made the host fail; the service's log says where"
        await self._journal.alarm(
            "QUARANTINE", participant=self._participant, subject=parked.message.message_id, text=text
        )

    async def _settle_return(self, parked: ParkedReturn) -> None:
        """Match one return to its submission and settle it; without a match it stays parked as an orphan."""
        read = await aside(len(parked.message.body), self._maker.read_return, parked.message)
        if read is None:
            await self._journal.close_return(self._fence, parked.id, "quarantined")
            return
        found = parked.found
        if found is None or found.transaction_id != read.transaction_id:
            found = await self._journal.find_submission(
                self._participant,
                transaction_id=read.transaction_id,
                message_id=read.answers_message_id,
                correlation_id=read.correlation_id,
            )
        if found is None:
            await self._journal.close_return(self._fence, parked.id, "orphan")
            return
        if found.state is SubmissionState.SENDING:
            return  # it overtook the answer to its own call, which hands it out again (`Journal.answered`)
        if found.state in _NOT_SENT:
            await self._disproved(found, parked)
            return
        if read.unknown_word:
            await self._unmapped(found.id, f"returned a result word that the profile does not map: {read.unknown_word}")
        stamps = {**found.stamps, "returned": parked.message.received}
        await self._settle(found, read.report, cause="return", return_id=parked.id, stamps=stamps)

    async def _disproved(self, found: OpenSubmission, parked: ParkedReturn) -> None:
        """A result for a call that SMP had answered as not taken: sending it again could register twice, so a person decides."""
        text = f"SMP returned a result for a call in {found.state.value}, which it had not taken by its own answer"
        if found.state is not SubmissionState.SET_ASIDE:
            try:
                await self._journal.settle(self._fence, found.id, SubmissionState.SET_ASIDE, [], cause=text)
            except IllegalMove:
                self._put(replace(parked, found=None))  # it has left in this very moment: look again
                return
        await self._journal.close_return(self._fence, parked.id, "conflict")
        await self._journal.alarm("CONFLICT", participant=self._participant, subject=found.id, text=text)

    async def _settle(
        self,
        found: OpenSubmission,
        report: Report,
        *,
        cause: str,
        stamps: Mapping[str, Stamp],
        return_id: int | None = None,
        answer: AnswerNote | None = None,
    ) -> None:
        keys = [item.key for item in found.items]
        verdicts = await aside(len(keys) * ITEM_BYTES, outcomes, keys, report, self._maker.semantics)
        state = SubmissionState.REJECTED if report.rejected else settled_state([verdict.state for verdict in verdicts])
        if report.rejected and found.state is SubmissionState.IN_DOUBT:
            state = settled_state([verdict.state for verdict in verdicts])
        stamps = {**stamps, "settled": self._clock.now()}
        moved = await self._journal.settle(
            self._fence,
            found.id,
            state,
            _results(found, verdicts),
            cause=cause,
            return_id=return_id,
            answer=answer,
            stamps=stamps,
            again=self._again(found, report),
        )
        self._open.pop(found.id, None)
        if moved:
            told = {"submission": found.id, "state": state.value, "by": cause, "items": len(verdicts)}
            log.info("submission_settled", extra={"participant": self._participant, **told})
            self._metrics.settled(self._participant, found, stamps)
            self._traces.ended(found, state, stamps, cause=cause, outcomes=[verdict.state for verdict in verdicts])

    def _again(self, found: OpenSubmission, report: Report) -> list[list[int]]:
        """The innocent of a refused batch, where the profile lets them go again; never those of a call that had ended before."""
        if found.state.terminal:
            return []
        keys = [item.key for item in found.items]
        resubmit = self._maker.profile.spec.resubmit_unnamed
        groups = sent_again(keys, report, self._maker.semantics, at_once=False, resubmit_unnamed=resubmit)
        return [[found.items[index].id for index in group] for group in groups]

    # status polls ----------------------------------------------------------------------------------------------------

    def _plan(self, attempt: int, submission: str, transaction_id: str, *, passed_s: float = 0.0) -> None:
        delay_s = self._maker.poll_delay_s(attempt)
        if delay_s is not None:
            self._push(delay_s - passed_s, attempt, submission, transaction_id)

    def _push(self, delay_s: float, attempt: int, submission: str, transaction_id: str) -> None:
        """By the monotonic clock: a wall clock that is set neither stops polls nor makes a call overdue."""
        due_ns = self._clock.mono_ns() + int(max(0.0, delay_s) * 1e9)
        planned = (due_ns, attempt, submission, transaction_id)
        heapq.heappush(self._polls, planned)
        if self._polls[0] is planned:  # else it is not what the task waits for
            self._wake_polls.set()

    async def _follow_polls(self) -> None:
        while True:
            self._wake_polls.clear()
            now = self._clock.mono_ns()
            while self._polls and self._polls[0][0] <= now:
                _, attempt, submission, transaction_id = heapq.heappop(self._polls)
                if submission not in self._open:
                    continue
                if attempt == _OVERDUE:
                    await self._overdue_kept(submission, transaction_id)
                else:
                    await self._poll_kept(attempt, submission, transaction_id)
            wait_s = max(0.001, (self._polls[0][0] - self._clock.mono_ns()) / 1e9) if self._polls else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake_polls.wait()
            except TimeoutError:
                continue

    async def _poll_kept(self, attempt: int, submission: str, transaction_id: str) -> None:
        """One poll; whatever comes of it short of an outcome, the next one is planned.

        While nothing may be signed, or the platform asked for a pause, it waits and counts for nothing.
        """
        if self._pace.held:
            self._kept_back.append((attempt, submission, transaction_id))
            return
        if (pause_s := self._pace.asked_s) > 0:
            self._push(pause_s, attempt, submission, transaction_id)
            return
        try:
            done = await self._poll(submission, transaction_id)
        except JournalFull:
            done = False
        if done:
            return
        if self._maker.poll_delay_s(attempt + 1) is not None:
            self._plan(attempt + 1, submission, transaction_id)
            return
        try:
            await self._give_up(submission)
        except JournalFull:
            self._push(FULL_PAUSE_S, attempt, submission, transaction_id)

    async def _poll(self, submission: str, transaction_id: str) -> bool:
        try:
            token = await self._tokens.get()
        except (RetryLater, AccountStopped):
            return False
        while (wait_s := self._pace.poll_wait_s()) > 0:  # noqa: ASYNC110 - time alone makes room
            await asyncio.sleep(wait_s)
        try:
            make = partial(self._maker.status, transaction_id, submission=submission)
            call = await signing(self._participant, make) if self._maker.blocks else make()
        except RetryLater:
            return False
        headers = {**call.headers, **self._maker.token_headers(token)}
        exchange = await self._client.post(call.path, method=call.method, headers=headers, body=call.body, secret=token)
        answer = self._maker.classify(exchange)
        if answer is AnswerClass.RETRY and exchange.retry_after_s:
            await self._pause(
                min(exchange.retry_after_s, LONGEST_PAUSE_S), f"status {exchange.status} to a status call"
            )
        if answer is AnswerClass.UNAUTHORISED:
            try:
                await self._tokens.renew(token)
            except (RetryLater, AccountStopped):
                return False
            return False
        if answer is not AnswerClass.ACCEPTED:
            return False
        read = self._maker.read_status(exchange, transaction_id)
        if read is None:
            told = {"participant": self._participant, "submission": submission, "status": exchange.status}
            log.warning("status_answer_unusable", extra=told)
            return False
        return await self._take_status(submission, read, exchange_note(exchange))

    async def _pause(self, asked_s: float, cause: str) -> None:
        """The platform wants a pause; of a long one a person hears, for calls wait for it too."""
        self._pace.pause(asked_s, cause)
        if asked_s > LONG_PAUSE_S:
            self._pace.told = True
            text = f"the platform takes no calls; again in {asked_s:.0f} s: {cause}"
            await self._journal.alarm("CIRCUIT_OPEN", participant=self._participant, text=text)

    async def _take_status(self, submission: str, read: StatusReport, note: AnswerNote) -> bool:
        if read.unknown_word:
            await self._unmapped(
                submission, f"answered a status word that the profile does not map: {read.unknown_word}"
            )
        if read.report is None:
            return False
        found = await self._journal.find_submission(self._participant, submission=submission)
        if found is None or found.state.terminal:
            self._open.pop(submission, None)
            return True
        await self._settle(found, read.report, cause="status", stamps=found.stamps, answer=note)
        return True

    async def _unmapped(self, submission: str, what: str) -> None:
        """A word of SMP's that nobody has told us the meaning of."""
        await self._journal.alarm("STATUS_WORD", participant=self._participant, subject=submission, text=f"SMP {what}")

    async def _overdue_kept(self, submission: str, transaction_id: str) -> None:
        try:
            await self._overdue(submission)
        except JournalFull:
            self._push(FULL_PAUSE_S, _OVERDUE, submission, transaction_id)

    async def _overdue(self, submission: str) -> None:
        found = await self._journal.find_submission(self._participant, submission=submission)
        if found is None or found.state.terminal:
            self._open.pop(submission, None)
        if found is None or found.state is not SubmissionState.AWAITING_RETURN:
            return
        await self._journal.settle(self._fence, submission, SubmissionState.OVERDUE, [], cause="no return in time")

    async def _give_up(self, submission: str) -> None:
        """The poll plan is over: a person decides, and the EMS is told that the outcome is unknown."""
        found = await self._journal.find_submission(self._participant, submission=submission)
        if found is None or found.state.terminal:
            self._open.pop(submission, None)
            return
        note = ErrorNote(
            code=str(int(HostReason.UNRESOLVED)),
            text="SMP gave no outcome; a person has to find out (submissions resolve)",
        )
        results = [ItemOutcome(item=item.id, state=ItemState.UNKNOWN, errors=(note,)) for item in found.items]
        moved = await self._journal.settle(
            self._fence, submission, SubmissionState.UNRESOLVED, results, cause=note.text
        )
        self._open.pop(submission, None)
        if not moved:  # it ended in this very moment
            return
        stamps = {**found.stamps, "settled": self._clock.now()}
        states = [result.state for result in results]
        self._traces.ended(found, SubmissionState.UNRESOLVED, stamps, cause="silence", outcomes=states)


def _results(found: OpenSubmission, verdicts: Sequence[Verdict]) -> list[ItemOutcome]:
    return [
        ItemOutcome(item=item.id, state=verdict.state, asset_id=verdict.asset_id, errors=verdict.errors)
        for item, verdict in zip(found.items, verdicts, strict=True)
    ]


def exchange_note(exchange: Exchange) -> AnswerNote:
    """An answer as evidence."""
    return AnswerNote(
        status=exchange.status, headers=exchange.headers, body=exchange.body, detail="", peer=exchange.peer
    )


def creates(operation: Operation) -> bool:
    """Whether this operation is a Create whose outcome has to be followed."""
    return operation in (Operation.ASSET_CREATE, Operation.UNIT_CREATE)
