"""The journal's use cases over an engine: each is plain code handed to its writing or its reading side. A new call of the port is written here, once."""

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from bridge.clock import Clock, Stamp
from bridge.journal import alarms, holds, intake, outbound, returns, settling, standing, views, writebacks
from bridge.journal.access_cases import AccessCases, AccessReadCases
from bridge.journal.asset_cases import AssetCases, AssetReadCases
from bridge.journal.evidence import Evidence
from bridge.journal.key_cases import KeyCases, KeyReadCases
from bridge.journal.people_cases import HoldCases, PeopleCases
from bridge.journal.port import (
    AlarmCount,
    AlarmView,
    AnswerNote,
    Awaited,
    Candidate,
    DueCall,
    DueWriteBack,
    EventView,
    FastCall,
    Fence,
    Intake,
    ItemOutcome,
    ItemView,
    Member,
    NoneDue,
    OpenSubmission,
    Parked,
    ParkedReturn,
    ReturnMessage,
    SignedCall,
    Stamps,
    SubmissionView,
    WriteBackResult,
)
from bridge.journal.requeue import Again
from bridge.journal.sides import ReadSide, WakeSide, WriteSide
from bridge.journal.store import Rows, Tx
from bridge.journal.threads import Done
from bridge.model import Kind, Operation, Refusal
from bridge.submission import Admission, SubmissionState

T = TypeVar("T")

_BYTES_OF_ONE: Final = 1000  # of a return, for each item: what it weighs is known before it is read


class ReaderCases(HoldCases, AssetReadCases, KeyReadCases, AccessReadCases):
    """`bridge.journal.port.JournalReader` over an engine's reading side."""

    def __init__(self, reader: ReadSide) -> None:
        self._reader = reader

    async def close(self) -> None:
        """See the port."""
        await self._reader.close()

    async def snapshot(self, work: Callable[[Rows], T]) -> T:
        """The result of `work` on one snapshot, for what looks at the record as a whole."""
        return await self._reader.run(work)

    async def alarms(
        self, *, open_only: bool = True, participant: str = "", site: str = "", of_host: bool = False, limit: int = 1000
    ) -> Sequence[AlarmView]:
        """See the port."""
        asked = {"open_only": open_only, "of_host": of_host}
        return await self._reader.run(
            lambda rows: alarms.alarms(rows, participant=participant, site=site, limit=limit, **asked)
        )

    async def alarm_counts(self) -> Sequence[AlarmCount]:
        """See the port."""
        return await self._reader.run(alarms.counts)

    async def alarm_codes(self, site: str, participants: Sequence[str]) -> Sequence[str]:
        """See the port."""
        return await self._reader.run(lambda rows: alarms.codes_of(rows, site, participants))

    async def submissions(
        self,
        *,
        participant: str = "",
        participants: Sequence[str] | None = None,
        site: str = "",
        state: SubmissionState | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        before: str = "",
        limit: int = 100,
    ) -> Sequence[SubmissionView]:
        """See the port."""
        asked = views.asked(
            participant=participant, participants=participants, site=site, state=state, since_ns=since_ns, until_ns=until_ns, before=before,
        )  # fmt: skip
        found: list[SubmissionView] = []
        below = 0
        while len(found) < limit:
            look = functools.partial(views.submissions, terms=asked, limit=limit - len(found), below=below)
            more, below = await self._reader.run(look)
            found += more
            if not below:
                break
        return found

    async def submission(self, submission: str) -> SubmissionView | None:
        """See the port."""
        return await self._reader.run(lambda rows: views.submission(rows, submission))

    async def submission_items(self, submission: str) -> Sequence[ItemView]:
        """See the port."""
        return await self._reader.run(lambda rows: views.submission_items(rows, submission))

    async def events(self, subject: str, *, limit: int = 1000) -> Sequence[EventView]:
        """See the port."""
        return await self._reader.run(lambda rows: views.events(rows, subject, limit))

    async def member(self, participant: str, kind: Kind, key: str) -> Member:
        """See the port."""
        return await self._reader.run(lambda rows: standing.member(rows, participant, kind, key))

    async def counts(self) -> Mapping[str, int]:
        """See the port."""
        return await self._reader.run(views.counts)


class JournalCases(PeopleCases, AssetCases, KeyCases, AccessCases, ReaderCases):
    """`bridge.journal.port.Journal` over an engine's sides; leases and the end are the engine's own.

    A call that is cancelled while it waits may still be committed.
    """

    def __init__(
        self,
        writer: WriteSide,
        reader: ReadSide,
        wake: WakeSide,
        *,
        clock: Clock,
        owner: str,
        new_id: Callable[[], str],
        aside: Callable[[], ReadSide] | None = None,
    ) -> None:
        super().__init__(reader)
        self._aside = aside
        self._writer = writer
        self._wake = wake
        self._clock = clock
        self._owner = owner
        self._new_id = new_id
        self._offered: dict[str, int] = {}
        self._evidence: Evidence | None = None
        self._counting: ReadSide | None = None

    @property
    def full(self) -> bool:
        """See the port."""
        return self._writer.full

    async def close(self) -> None:
        """See the port."""
        if self._evidence is not None:
            await self._evidence.close()
        if self._counting is not None:
            await self._counting.close()
        await super().close()
        await self._writer.close()
        self._wake.close()

    async def counts(self) -> Mapping[str, int]:
        """See the port. It looks at every submission that there ever was, so it has a reading side of its own: calls and returns wait for the other."""
        if self._counting is None and self._aside is not None:
            self._counting = self._aside()
        return await (self._counting or self._reader).run(views.counts)

    def woken(self, topic: str) -> asyncio.Event:
        """See the port."""
        return self._wake.event(topic)

    def evidence(self) -> Evidence:
        """The evidence of this journal, on a reading side of its own where the engine has one; closed with the journal."""
        if self._evidence is None:
            self._evidence = Evidence(self._writer, self._aside() if self._aside else self._reader, self._clock)
        return self._evidence

    # field side ------------------------------------------------------------------------------------------------------

    async def accept(
        self,
        fence: Fence,
        candidates: Sequence[Candidate],
        fast: FastCall | None = None,
        *,
        told: Callable[[Intake | None], None] | None = None,
    ) -> Intake:
        """See the port."""

        def heard(
            done: "Done[Intake] | None",
        ) -> None:  # evaluated, it would cost each call of `accept` what a statement does
            assert told is not None
            told(None if done is None else _stamped(done))

        done = await self._writer.run(
            lambda tx: intake.accept(tx, self._new_id, fence, candidates, fast),
            weight=len(candidates),
            quick=True,
            told=heard if told is not None else None,
        )
        return _stamped(done)

    async def preview(self, candidates: Sequence[Candidate]) -> Sequence[Admission]:
        """See the port."""
        now_ns = self._clock.wall_ns()
        return await self._reader.run(lambda rows: intake.preview(rows, candidates, now_ns))

    async def awaited(self, site: str) -> Sequence[Awaited]:
        """See the port."""
        return await self._reader.run(lambda rows: intake.awaited(rows, site))

    async def due_writebacks(
        self, site: str, flows: Sequence[str], now_ns: int, limit: int
    ) -> tuple[Sequence[DueWriteBack], int]:
        """See the port."""

        def work(rows: Rows) -> tuple[Sequence[DueWriteBack], int]:
            if holds.unreconciled(rows, site):
                return [], 0
            return writebacks.due(rows, site, flows, now_ns, limit)

        return await self._reader.run(work, quick=True)

    async def wrote_back(self, fence: Fence, results: Sequence[WriteBackResult], *, lazy: bool = False) -> None:
        """See the port."""
        note = functools.partial(writebacks.wrote_back, fence=fence, results=results)
        await self._writer.run(note, weight=len(results), quick=True, lazy=lazy)

    async def retry_stuck(self, fence: Fence, site: str, flows: Sequence[str]) -> None:
        """See the port."""
        await self._writer.run(lambda tx: writebacks.retry_stuck(tx, fence, site, flows))

    # market side -----------------------------------------------------------------------------------------------------

    async def recover(self, fence: Fence, *, repeats: bool = False) -> Sequence[str]:
        """See the port."""
        return (await self._writer.run(lambda tx: outbound.recover(tx, fence, repeats=repeats))).value

    async def next_call(self, participant: str, now_ns: int, *, allow: Sequence[Operation]) -> DueCall | NoneDue:
        """See the port."""
        due = await self.next_calls(participant, now_ns, allow=allow, most=1)
        return due if isinstance(due, NoneDue) else due[0]

    async def next_calls(
        self, participant: str, now_ns: int, *, allow: Sequence[Operation], most: int
    ) -> Sequence[DueCall] | NoneDue:
        """See the port."""
        due = await self._reader.run(lambda rows: outbound.next_calls(rows, participant, now_ns, allow, most))
        if isinstance(due, NoneDue):
            return due
        for call, revision in due:
            self._offered[call.submission] = revision
        return [call for call, _ in due]

    async def past_deadline(self, participant: str, now_ns: int) -> tuple[Sequence[str], int]:
        """See the port."""
        return await self._reader.run(lambda rows: outbound.past_deadline(rows, participant, now_ns))

    async def sending(self, fence: Fence, submission: str, call: SignedCall, items: int) -> Stamp:
        """See the port."""
        revision, rest = self._offered.pop(submission, None), self._new_id()

        def work(tx: Tx) -> None:
            outbound.sending(tx, fence, submission, call, items, signed_revision=revision, rest_id=rest)

        return (await self._writer.run(work, weight=items, quick=True)).at

    async def answered(
        self,
        fence: Fence,
        submission: str,
        state: SubmissionState,
        answer: AnswerNote,
        *,
        retry_ns: int = 0,
        cause: str = "",
        items: int = 1,
    ) -> Sequence[ParkedReturn]:
        """See the port."""

        def work(tx: Tx) -> list[ParkedReturn]:
            return outbound.answered(tx, fence, submission, state, answer, retry_ns=retry_ns, cause=cause)

        return (await self._writer.run(work, weight=items, quick=True)).value

    async def settle(
        self,
        fence: Fence,
        submission: str,
        state: SubmissionState,
        outcomes: Sequence[ItemOutcome],
        *,
        cause: str,
        return_id: int | None = None,
        answer: AnswerNote | None = None,
        stamps: Stamps | None = None,
        again: Sequence[Sequence[int]] = (),
    ) -> bool:
        """See the port."""
        parts = [Again(submission=self._new_id(), items=items) for items in again]

        def work(tx: Tx) -> bool:
            return settling.settle(
                tx,
                fence,
                submission,
                state,
                outcomes,
                cause=cause,
                return_id=return_id,
                answer=answer,
                stamps=stamps,
                again=parts,
            )

        return (await self._writer.run(work, weight=len(outcomes), quick=True)).value

    async def refuse_waiting(self, fence: Fence, submission: str, state: SubmissionState, refusal: Refusal) -> None:
        """See the port."""
        seen = self._offered.pop(submission, None)

        def work(tx: Tx) -> None:
            settling.refuse_waiting(tx, fence, submission, state, refusal, seen_revision=seen)

        await self._writer.run(work)

    async def park_return(self, fence: Fence, message: ReturnMessage) -> Parked:
        """See the port."""
        weight = 1 + len(message.body) // _BYTES_OF_ONE
        return (await self._writer.run(lambda tx: returns.park(tx, fence, message), weight=weight, quick=True)).value

    async def close_return(self, fence: Fence, return_id: int, verdict: str) -> None:
        """See the port."""

        def work(tx: Tx) -> None:
            tx.check(fence)
            returns.close_return(tx, fence, return_id, verdict)

        await self._writer.run(work)

    async def unsettled_returns(self, participant: str, *, after: int = 0, limit: int = 100) -> Sequence[ParkedReturn]:
        """See the port."""
        return await self._reader.run(lambda rows: returns.unsettled(rows, participant, after, limit))

    async def find_submission(
        self,
        participant: str,
        *,
        transaction_id: str = "",
        message_id: str = "",
        correlation_id: str = "",
        submission: str = "",
    ) -> OpenSubmission | None:
        """See the port."""
        return await self._reader.run(
            lambda rows: views.find_submission(
                rows,
                participant,
                transaction_id=transaction_id,
                message_id=message_id,
                correlation_id=correlation_id,
                submission=submission,
            )
        )

    async def open_submissions(self, participant: str) -> Sequence[OpenSubmission]:
        """See the port."""
        return await self._reader.run(lambda rows: views.open_submissions(rows, participant))

    # people ----------------------------------------------------------------------------------------------------------

    async def alarm(
        self,
        code: str,
        *,
        participant: str = "",
        site: str = "",
        subject: str = "",
        text: str = "",
        clear: bool = False,
    ) -> None:
        """See the port."""

        def work(tx: Tx) -> None:
            if clear:
                tx.clear_alarm(code, participant=participant, site=site, subject=subject)
            else:
                tx.raise_alarm(code, participant=participant, site=site, subject=subject, text=text)

        await self._writer.run(work)

    async def ack_alarm(
        self, alarm: int, by: str, note: str = "", *, more: Mapping[str, str] | None = None
    ) -> AlarmView:
        """See the port."""
        return (await self._writer.run(lambda tx: alarms.acknowledge(tx, alarm, by, note, more or {}))).value


def _stamped(done: Done[Intake]) -> Intake:
    intake = done.value
    return Intake(accepted=intake.accepted, fast=intake.fast, journalled=done.at)
