"""From the journal into the EMS: check the record's key in its place, write the outcome, read it back."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from bridge.api import Address, Outcome, OutcomeField, Quality, Reading, Session, Write, Written
from bridge.clock import Clock
from bridge.errors import JournalFull, LinkError
from bridge.field.report import FieldMetrics
from bridge.field.suspects import BREAKS, Suspects
from bridge.field.traces import FieldTraces
from bridge.flow import FlowPlan
from bridge.journal.port import DueWriteBack, Fence, Journal, WriteBackResult
from bridge.turns import Turns

log = logging.getLogger(__name__)

RETRY_DELAYS_S: Final = (1, 2, 4, 8, 16, 30, 30, 30, 30, 30)
T = TypeVar("T")

CALL_S: Final = 300.0
FULL_PAUSE_S: Final = 1.0
BATCH: Final = 64  # read and written together
COMMIT: Final = 16  # results of one commit, for others wait behind it
HUNG_UP: Final = f"{BREAKS} links ended while this outcome, or others of its flow, were written"
_TOLD: Final = frozenset({"written", "read_back_ok"})


class WriteBacks:
    """The write-backs of one adapter of a site, on whatever session is open."""

    def __init__(
        self,
        *,
        site: str,
        plans: Mapping[str, FlowPlan],
        journal: Journal,
        fence: Fence,
        clock: Clock,
        metrics: FieldMetrics,
        traces: FieldTraces | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._site = site
        self._plans = plans
        self._journal = journal
        self._fence = fence
        self._clock = clock
        self._metrics = metrics
        self._traces = traces or FieldTraces()
        self._sleep = sleep
        self._targets = {name: targets(plan.outcome) for name, plan in plans.items()}
        self._suspects = Suspects()

    async def run(self, session: Session, talk: asyncio.Lock | None = None) -> None:
        """Write what is due until the session ends (`LinkError`) or the task is cancelled. `talk` is held while the session reads and writes."""
        talk = talk or asyncio.Lock()
        flows = list(self._plans)
        self._suspects.opened()
        await self._with_room(lambda: self._journal.retry_stuck(self._fence, self._site, flows))
        woken = self._journal.woken(self._fence.lease)
        while True:
            woken.clear()
            due, next_ns = await self._journal.due_writebacks(self._site, flows, self._clock.wall_ns(), BATCH)
            if due:
                now, given_up = self._suspects.choose(due)
                results = [self._ended(row, "stuck", HUNG_UP) for row in given_up]
                if now:
                    async with talk:
                        results += await self._tried(session, now)
                lazy = not any(row.outcome.state.final for row in due)
                for start in range(0, len(results), COMMIT):
                    part = results[start : start + COMMIT]
                    await self._with_room(functools.partial(self._journal.wrote_back, self._fence, part, lazy=lazy))
                if len(due) == BATCH or len(now) < len(due) or not all(result.state in _TOLD for result in results):
                    continue  # more may be due; else only what comes now is, and whoever brings it wakes us
            timeout_s = max(0.001, (next_ns - self._clock.wall_ns()) / 1e9) if next_ns else None
            try:
                async with asyncio.timeout(timeout_s):
                    await woken.wait()
            except TimeoutError:
                continue

    async def _with_room(self, commit: Callable[[], Awaitable[None]]) -> None:
        """Commit once the journal has room; a full disk is no reason to give up a good link."""
        while True:
            try:
                return await commit()
            except JournalFull as error:
                log.error("journal_full", extra={"site": self._site, "error": str(error)})
                await self._sleep(FULL_PAUSE_S)

    async def _tried(self, session: Session, due: Sequence[DueWriteBack]) -> list[WriteBackResult]:
        try:
            results = await self._write(session, due)
        except BaseException:  # whoever sees first that the link has ended cancels the others
            self._suspects.ended(due)
            raise
        self._suspects.taken(due)
        return results

    async def _write(self, session: Session, due: Sequence[DueWriteBack]) -> list[WriteBackResult]:
        moved = await self._moved(session, due)
        here = [row for row in due if row.id not in moved]
        turns = Turns()
        writes: list[tuple[int, Write]] = []
        for row in here:
            await turns.give()
            writes += [(row.id, write) for write in self._writes(row)]
        answers = await in_time(session.write([write for _, write in writes])) if writes else []
        # By row, for several requests of one place may be told at once.
        written = {(id_, entry.address): entry for (id_, _), entry in zip(writes, answers, strict=True)}
        back = await self._read_back(session, here, written)
        results = []
        for row in due:
            await turns.give()
            results.append(self._result(row, moved, written, back, checked=session.can_read))
            self._report(row, results[-1])
        self._traces.told(self._plans, due, results)
        return results

    def _report(self, row: DueWriteBack, result: WriteBackResult) -> None:
        final = row.outcome.state.final
        self._metrics.wrote_back(self._plans[row.flow], result.state, final=final)
        if final and row.settled is not None and result.stamp is not None and result.state in _TOLD:
            self._metrics.stage(self._site, row.flow, "written_back", row.settled, result.stamp)

    async def _moved(self, session: Session, due: Sequence[DueWriteBack]) -> dict[int, str]:
        """Rows whose place now holds another record, or whose key cannot be read: nothing is written there."""
        keyed = [row for row in due if row.key] if session.can_read else []
        if not keyed:
            return {}
        readings = await in_time(session.read([self._key_address(row) for row in keyed]))
        found: dict[int, str] = {}
        for row, reading in zip(keyed, readings, strict=True):
            key = self._key(row, reading)
            if key is None:
                found[row.id] = "retry"
            elif key != row.key:
                found[row.id] = "moved"
        return found

    def _key_address(self, row: DueWriteBack) -> Address:
        return Address(row.flow, row.place, self._plans[row.flow].key_field)

    def _key(self, row: DueWriteBack, reading: Reading) -> str | None:
        """The key that the place holds now, mapped as the flow maps it; None when it cannot be read."""
        if reading.quality is not Quality.GOOD:
            return None
        plan = self._plans[row.flow]
        return plan.mapper.key_of({plan.key_field: reading}) or ""

    def _writes(self, row: DueWriteBack) -> list[Write]:
        values = self._plans[row.flow].values(row.outcome)
        return [
            Write(
                address=Address(row.flow, row.place, target),
                value=values[target],
                request=row.outcome.request,
                reply=row.reply,
            )
            for target in self._targets[row.flow]
        ]

    async def _read_back(
        self, session: Session, rows: Sequence[DueWriteBack], written: Mapping[tuple[int, Address], Written]
    ) -> dict[Address, Reading]:
        """Read final outcomes back; words of progress are soon overwritten and are not worth the EMS's time."""
        if not session.can_read:
            return {}
        addresses = [
            address
            for row in rows
            if row.outcome.state.final
            for target in self._targets[row.flow]
            if not written[row.id, (address := Address(row.flow, row.place, target))].error
        ]
        if not addresses:
            return {}
        return dict(zip(addresses, await in_time(session.read(addresses)), strict=True))

    def _result(
        self,
        row: DueWriteBack,
        moved: Mapping[int, str],
        written: Mapping[tuple[int, Address], Written],
        back: Mapping[Address, Reading],
        *,
        checked: bool,
    ) -> WriteBackResult:
        verdict = moved.get(row.id)
        if verdict == "moved":
            return self._ended(row, "moved", "another record stands in this place now; nothing was written")
        if verdict:
            return self._again(row, f"the key field {self._plans[row.flow].key_field} cannot be read")
        addresses = [Address(row.flow, row.place, target) for target in self._targets[row.flow]]
        mine = {address: written[row.id, address] for address in addresses}
        problems = [f"{_name(address)}: {entry.error}" for address, entry in mine.items() if entry.error]
        problems += [
            f"{_name(address)}: read back {back[address].value!r} ({back[address].quality.value}), wrote {entry.value!r}"
            for address, entry in mine.items()
            if address in back and (back[address].quality is not Quality.GOOD or back[address].value != entry.value)
        ]
        if problems:
            return self._again(row, "; ".join(problems)[:1000])
        return self._ended(row, "read_back_ok" if checked and row.outcome.state.final else "written", "")

    def _ended(self, row: DueWriteBack, state: str, error: str) -> WriteBackResult:
        return WriteBackResult(id=row.id, generation=row.generation, state=state, error=error, stamp=self._clock.now())

    def _again(self, row: DueWriteBack, error: str) -> WriteBackResult:
        if row.attempts + 1 >= len(RETRY_DELAYS_S):
            return self._ended(row, "stuck", error)
        next_ns = self._clock.wall_ns() + RETRY_DELAYS_S[row.attempts] * 1_000_000_000
        return WriteBackResult(id=row.id, generation=row.generation, state="retry", error=error, next_ns=next_ns)


async def in_time(call: Awaitable[T]) -> T:
    """A session has limits of its own; one that hangs all the same is left, so that outcomes go on over a new one."""
    try:
        async with asyncio.timeout(CALL_S):
            return await call
    except TimeoutError as error:
        raise LinkError(f"the session did not end a call within {CALL_S:g} s") from error


def _name(address: Address) -> str:
    return address.name.value if isinstance(address.name, OutcomeField) else address.name


def targets(outcome: Outcome) -> tuple[OutcomeField, ...]:
    """The outcome fields that a site configured; all of them for an adapter whose outcome model names none by itself."""
    given = outcome.model_dump(by_alias=True, exclude_none=True)
    named = tuple(target for target in OutcomeField if target.value in given)
    return named or tuple(OutcomeField)
