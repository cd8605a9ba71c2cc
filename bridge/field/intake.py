"""From arrivals to the journal: evaluate, claim a send slot if one is free, commit 1, and only then acknowledge."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.api import MOST_REPLY, Arrival
from bridge.clock import Clock, Stamp
from bridge.errors import JournalFull
from bridge.field.readings import Ahead, candidate_of, evidence
from bridge.field.report import FieldMetrics
from bridge.flow import Evaluated, FlowPlan
from bridge.journal.port import Candidate, Fence, Intake, Journal
from bridge.lane import FastCall, FastLane, RenderedItem, Slot
from bridge.model import HostReason, Kind, Record, Refusal
from bridge.submission import Admission
from bridge.turns import Turns

log = logging.getLogger(__name__)

FULL_PAUSE_S: Final = 1.0


@dataclass(slots=True)
class _Batch:
    candidates: list[Candidate] = field(default_factory=list)
    evaluated: list[Evaluated] = field(default_factory=list)
    plans: list[FlowPlan] = field(default_factory=list)


class IntakeDesk:
    """The way of the records of one site into the journal. Several sessions of the site may call it at the same time."""

    def __init__(
        self,
        *,
        site: str,
        plans: Mapping[str, FlowPlan],
        journal: Journal,
        fence: Fence,
        clock: Clock,
        metrics: FieldMetrics,
        lane: FastLane | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        self._site = site
        self._plans = plans
        self._journal = journal
        self._fence = fence
        self._clock = clock
        self._metrics = metrics
        self._lane = lane
        self._sleep = sleep
        self._on_full = on_full
        self._ahead = Ahead(plans)

    def ahead(self, record: Record) -> None:
        """See `bridge.api.SessionContext`: prepare a record whose arrival is not complete yet."""
        self._ahead.look(record)

    async def take(
        self, arrivals: Sequence[Arrival], look: Callable[[Sequence[Candidate]], Awaitable[None]] | None = None
    ) -> Intake:
        """Journal these arrivals in one commit, acknowledge them in order, and return what they became. `look` sees them before.

        While the journal is full nothing is acknowledged and the source is kept waiting (DESIGN, "Full disk").
        """
        batch = await self._evaluate(record for arrival in arrivals for record in arrival.records)
        if look is not None:
            await look(batch.candidates)
        intake = await self._commit(batch)
        for arrival in arrivals:
            arrival.ack(not _unreadable(arrival))
        self._say_refused(batch, intake)
        turns, admitted = Turns(), Counter[tuple[str, Admission]]()
        for plan, accepted, candidate in zip(batch.plans, intake.accepted, batch.candidates, strict=True):
            if turns.over:
                await turns.give()
            admitted[plan.name, accepted.admission] += 1
            stamps = candidate.stamps
            self._metrics.stage(self._site, plan.name, "mapped", stamps["received"], stamps["mapped"])
            self._metrics.stage(self._site, plan.name, "journalled", stamps["mapped"], intake.journalled)
        for (flow, admission), count in admitted.items():
            self._metrics.admitted(self._plans[flow], admission, count)
        return intake

    async def refuse_unregistered(self, plan: FlowPlan, place: str, request: str, received: Stamp) -> None:
        """A `message` request whose registration never came: refuse it into the EMS."""
        refusal = Refusal(
            reason=HostReason.NO_REGISTRATION,
            text=f"no registration was found for {place} within {plan.registration_wait_s:g} s; publish it retained before the request",
        )
        candidate = candidate_of(plan, Evaluated(key=None, refusal=refusal), place)
        candidate.request, candidate.stamps = request, {"received": received}
        candidate.deadline_ns = self._clock.wall_ns() + plan.deadline_ns
        batch = _Batch(candidates=[candidate], evaluated=[Evaluated(key=None)], plans=[plan])
        await self._commit(batch)

    async def _evaluate(self, records: Iterable[Record]) -> _Batch:
        batch, turns = _Batch(), Turns()
        for record in records:
            if turns.over:
                await turns.give()
            plan = self._plans[record.flow]
            prepared = self._ahead.take(record)
            candidate, mapped = prepared.candidate, self._clock.now()
            batch.plans.append(plan)
            batch.evaluated.append(prepared.evaluated)
            batch.candidates.append(candidate)
            candidate.request, candidate.readings = record.request, evidence(record, prepared)
            candidate.deadline_ns = mapped.wall_ns + plan.deadline_ns
            candidate.stamps = stamps = {"received": record.received, "mapped": mapped}
            if prepared.source_ns:
                stamps["source"] = Stamp(prepared.source_ns, 0, "")
                self._metrics.source(self._site, plan.name, record.received.wall_ns - prepared.source_ns)
            if record.reply:
                candidate.reply = self._reply(record)
        self._warn(batch)
        return batch

    def _reply(self, record: Record) -> str:
        """What an adapter wants to have back with the answer; one that is too long is an adapter's mistake, and no reason to refuse the record."""
        if record.request is None or len(record.reply) > MOST_REPLY:
            why = f"{len(record.reply)} characters, at most {MOST_REPLY}" if record.request else "there is no request"
            log.error("reply_not_kept", extra={"site": self._site, "flow": record.flow, "problem": why})
            return ""
        return record.reply

    def _say_refused(self, batch: _Batch, intake: Intake) -> None:
        """One line for what was refused together: how many records of which flow, for which reasons; the texts may hold values and stay in the journal."""
        refused: dict[str, Counter[str]] = {}
        for plan, accepted, candidate in zip(batch.plans, intake.accepted, batch.candidates, strict=True):
            if accepted.admission is Admission.INVALID and candidate.refusal is not None:
                refused.setdefault(plan.name, Counter())[candidate.refusal.reason.name.lower()] += 1
        for flow, reasons in refused.items():
            log.warning("records_refused", extra={"site": self._site, "flow": flow, "reasons": dict(reasons)})

    def _warn(self, batch: _Batch) -> None:
        """What the rules find unusual: counted one by one, logged once for what came together."""
        found = [
            (plan, text)
            for plan, evaluated in zip(batch.plans, batch.evaluated, strict=True)
            for text in evaluated.unusual
        ]
        for plan, _ in found:
            self._metrics.unusual(plan)
        if found:
            plan, text = found[0]
            log.warning(
                "records_unusual", extra={"site": self._site, "flow": plan.name, "count": len(found), "first": text}
            )

    async def _commit(self, batch: _Batch) -> Intake:
        slot, fast = await self._claim(batch)
        while True:
            try:
                if slot is None:
                    return await self._journal.accept(self._fence, batch.candidates)
                return await self._once(batch.candidates, slot, fast)
            except JournalFull as error:
                log.error("journal_full", extra={"site": self._site, "error": str(error)})
                slot = fast = None  # the slot is given back while there is no room
                self._on_full()
                await self._sleep(FULL_PAUSE_S)

    async def _once(self, candidates: Sequence[Candidate], slot: Slot, fast: FastCall | None) -> Intake:
        """One commit with a send slot. Its call leaves, or the slot goes back, the moment the commit is known, whoever still waits for it then."""
        lent = _Lent(slot, fast, candidates)
        try:
            return await self._journal.accept(self._fence, candidates, fast, told=lent.told)
        except asyncio.CancelledError:
            await lent.known()
            raise
        except BaseException:
            lent.told(None)
            raise

    async def _claim(self, batch: _Batch) -> tuple[Slot | None, FastCall | None]:
        """Sign the first flow's new-looking items as one call when a slot is free for it (the quiet path costs one commit)."""
        if self._lane is None:
            return None, None
        chosen: dict[str, int] = {}
        rendered: list[RenderedItem] = []
        plan: FlowPlan | None = None
        for index, candidate in enumerate(batch.candidates):
            wire = batch.evaluated[index].rendered
            if wire is None or candidate.key is None or candidate.operation.kind is Kind.UNIT:
                continue
            current = batch.plans[index]
            plan = plan or current
            if current is plan and candidate.key not in chosen and len(chosen) < plan.max_items:
                chosen[candidate.key] = index
                rendered.append(wire)
        if plan is None or plan.linger_ns:
            return None, None
        slot = self._lane.claim(plan.participant, plan.operation)
        if slot is None:
            return None, None
        stamps = batch.candidates[next(iter(chosen.values()))].stamps
        fast = None
        try:
            fast = await slot.sign(list(chosen), rendered, stamps)
        finally:
            if fast is None:
                slot.release()
        if fast is None:
            return None, None
        rows = tuple(chosen.values())
        return slot, FastCall(submission=fast.submission, keys=fast.keys, call=fast.call, market=fast.market, rows=rows)


class _Lent:
    """A send slot while a commit is under way that may use it."""

    __slots__ = ("_candidates", "_fast", "_known", "_slot")

    def __init__(self, slot: Slot, fast: FastCall | None, candidates: Sequence[Candidate]) -> None:
        self._slot: Slot | None = slot
        self._fast = fast
        self._candidates = candidates
        self._known: asyncio.Future[None] | None = None

    def told(self, intake: Intake | None) -> None:
        """What became of the commit, None when it failed; the first word counts."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        try:
            if intake is None or not intake.fast or self._fast is None:
                slot.release()
            else:
                first = self._candidates[self._fast.rows[0]]
                slot.send(intake.journalled, first.site, first.flow)
        finally:
            if self._known is not None and not self._known.done():
                self._known.set_result(None)

    async def known(self) -> None:
        """Wait until it is known: a commit under way will be on disk, and then its call has to leave."""
        if self._slot is not None:
            self._known = asyncio.get_running_loop().create_future()
            await self._known


def _unreadable(arrival: Arrival) -> bool:
    """A request none of whose records could be read at all is answered as unreadable (DOMAIN 6, layout 2, status 4)."""
    return bool(arrival.records) and all(record.problem and not record.fields for record in arrival.records)
