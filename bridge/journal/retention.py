"""Retention: what is settled and older than the configured time ends by itself, from the beginning of each participant's chain.

Evidence goes by segments: old settled blocks move to the archive first, then each segment whose newest event is too old is retired, as long as nothing
older of that participant is still here. So a chain is cut at one place, its first block that is left names the hash before it, and an event says so.
The order is: the commit with the event, then the file. Rows that keep a record beside the evidence lose it too; who is registered stays.

What went cannot come back, so a clock that leapt is not believed at once: between the leap and the first deletion lies a day, in which it is noticed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from bridge.clock import Clock
from bridge.errors import Fenced, JournalFull, LeaseHeld
from bridge.journal import archive, sealing
from bridge.journal.archive import SegmentRow
from bridge.journal.archiver import ArchiveFailed, Archiver, unlisted
from bridge.journal.evidence import Evidence
from bridge.journal.files import sync_directory
from bridge.journal.held import Leases, held
from bridge.journal.port import Fence
from bridge.journal.segments import SegmentContent, SegmentDamaged, read_content
from bridge.journal.store import Rows, Tx, dump
from bridge.model import ItemState
from bridge.submission import SubmissionState

log = logging.getLogger(__name__)

RETIRED: Final = "retired"  # the kind of the event
EVERY_S: Final = 86_400.0
FIRST_S: Final = 300.0  # a start has other things to do
LEAP_NS: Final = (
    7 * 86_400 * 1_000_000_000
)  # more than this between two daily rounds: the host was off, or its clock was set
WAIT_NS: Final = (
    23 * 3600 * 1_000_000_000
)  # after a leap; an hour less than a day, for a slewed clock may bring the next round a little early
_LOOKED: Final = "retention_looked"  # in the journal's own facts: when the last round was, by this machine's clock
_LEAPT: Final = "retention_leapt"  # likewise: the last round that found a leap
_STEP: Final = 500
_TERMINAL: Final = frozenset(state.value for state in SubmissionState if state.terminal)
_LIVE: Final = dump([state.value for state in ItemState if state.live])
_IDS: Final = "(SELECT CAST(value AS BIGINT) FROM json_each(?))"


class Cut(NamedTuple):
    """The last block of a participant that was retired, and its hash; number 0: none was."""

    number: int
    hash: bytes


NO_CUT: Final = Cut(0, b"")


@dataclass(slots=True, kw_only=True)
class Retired:
    """What one round ended; `waits` where it did not look, for the clock is not believed."""

    waits: bool = False
    segments: int = 0
    events: int = 0
    rows: int = 0


# ---------------------------------------------------------------------------------------------------------------- rows


def cut_of(rows: Rows, participant: str) -> Cut:
    """Where this participant's chain begins now."""
    found = sealing.meta(rows, f"{RETIRED}:{participant}")
    if found is None:
        return NO_CUT
    number, hash_ = orjson.loads(found)
    return Cut(number, bytes.fromhex(hash_))


def cut_in(data: str) -> Cut:
    """The cut that an event of the kind `retired` tells."""
    try:
        said = orjson.loads(data)
        return Cut(int(said["up_to"]), bytes.fromhex(said["hash"]))
    except (ValueError, TypeError, KeyError):  # not written by us
        return NO_CUT


def told(rows: Rows, participant: str) -> Cut:
    """The latest cut that an event in the journal tells."""
    read = rows.all("SELECT data FROM events WHERE participant = ? AND kind = ?", (participant, RETIRED))
    return max((cut_in(data) for (data,) in read), default=NO_CUT)


def ended_ns(rows: Rows, participant: str) -> int:
    """When the newest evidence happened that events in the journal say was retired; 0 where none says so."""
    read = rows.all("SELECT data FROM events WHERE participant = ? AND kind = ?", (participant, RETIRED))
    return max((int(orjson.loads(data).get("last_ns", 0)) for (data,) in read), default=0)


def old_blocks(rows: Rows, before_ns: int) -> bool:
    """Whether the journal itself holds evidence that is too old."""
    return rows.one("SELECT 1 FROM blocks WHERE last_ns < ? LIMIT 1", (before_ns,)) is not None


def over(rows: Rows, participant: str, before_ns: int) -> list[SegmentRow]:
    """The segments that may go, oldest first: too old, and with nothing of an earlier block elsewhere."""
    known = sorted(archive.segments(rows, participant), key=lambda row: row.blocks[-1][1])
    old = [row for row in known if row.emptied and row.last_ns < before_ns]
    kept = [row.blocks[0][0] for row in known if row not in old]
    first = rows.one("SELECT min(number) FROM blocks WHERE participant = ?", (participant,))
    kept += [first[0]] if first and first[0] else []
    stays = min(kept, default=0)
    return [row for row in old if stays and row.blocks[-1][1] < stays]


def retire(tx: Tx, fence: Fence, row: SegmentRow, content: SegmentContent, retention_s: float) -> None:
    """A segment's time is over: the journal forgets it, and an event says up to which block the chain is gone. Its file may go then."""
    tx.check(fence)
    last = max(content.blocks, key=lambda stored: stored.block.number)
    cut = max(cut_of(tx, row.participant), Cut(last.block.number, last.hash))
    tx.run("DELETE FROM archived WHERE segment = ?", (row.id,))
    tx.run("DELETE FROM segments WHERE id = ?", (row.id,))
    sealing.set_meta(tx, f"{RETIRED}:{row.participant}", dump([cut.number, cut.hash.hex()]))
    said = {"up_to": cut.number, "hash": cut.hash.hex(), "events": row.events, "last_ns": row.last_ns}
    tx.event(fence, row.participant, RETIRED, row.name, said | {"retention_s": retention_s})


def ended(rows: Rows, before_ns: int, after: int) -> tuple[list[int], int | None]:
    """Of the next submissions behind the row `after` those that ended before, and where to go on (None: the rest is younger)."""
    page = rows.all(
        "SELECT s.seq, s.state, s.stamps FROM submissions s WHERE s.seq > ? ORDER BY s.seq LIMIT ?", (after, _STEP)
    )
    mine = [seq for seq, state, stamps in page if state in _TERMINAL and 0 < _newest(stamps) < before_ns]
    going_on = bool(page) and (bool(mine) or _newest(page[-1][2]) < before_ns)
    return mine, page[-1][0] if going_on else None


def _newest(stamps: str) -> int:
    return max((stamp[0] for stamp in orjson.loads(stamps).values()), default=0)


def kept_of(rows: Rows, submissions: Sequence[int]) -> tuple[list[int], list[int]]:
    """What these still keep of their records: items whose content stands for nothing any more, and calls with headers (row ids)."""
    ids = dump(list(submissions))
    items = rows.all(
        f"SELECT i.id FROM items i LEFT JOIN register r ON r.item = i.id WHERE i.submission IN {_IDS} AND length(i.content) > 0"  # noqa: S608
        " AND (r.item IS NULL OR i.outcome NOT IN (SELECT value FROM json_each(?)))",
        (ids, _LIVE),
    )
    calls = rows.all(f"SELECT id FROM calls WHERE submission IN {_IDS} AND headers <> ''", (ids,))  # noqa: S608
    return [row[0] for row in items], [row[0] for row in calls]


def forget(tx: Tx, items: Sequence[int], calls: Sequence[int]) -> None:
    """Empty them."""
    tx.run(
        f"UPDATE items SET content = ?, digest = ?, errors = '[]' WHERE id IN {_IDS}",  # noqa: S608
        (b"", b"", dump(list(items))),
    )
    tx.run(f"UPDATE calls SET headers = '' WHERE id IN {_IDS}", (dump(list(calls)),))  # noqa: S608


def forget_beside(tx: Tx, before_ns: int) -> None:
    """Headers of old returns, and rows about people that were over before then. The newest row of a table stays: its number is not given out again."""
    tx.run(
        "UPDATE returns SET headers = '' WHERE received_ns < ? AND verdict <> '' AND headers <> ''",
        (before_ns,),
    )
    for table, over_ in (
        ("alarms", "cleared_ns > 0 AND cleared_ns < ?"),
        ("approvals", "state <> 'open' AND decided_ns < ?"),
        ("holds", "released_ns > 0 AND released_ns < ?"),
    ):
        tx.run(f"DELETE FROM {table} WHERE {over_} AND id < (SELECT max(id) FROM {table})", (before_ns,))  # noqa: S608
    tx.run("DELETE FROM access_tokens WHERE expires_ns < ?", (before_ns,))


# ------------------------------------------------------------------------------------------------------------ the task


def _noted(tx: Tx, looked: str, leapt: str | None) -> None:
    sealing.set_meta(tx, _LOOKED, looked)
    sealing.set_meta(tx, _LEAPT, leapt)


class Retention:
    """Ends what is too old, soon after the start and then daily; one at a time on one journal, under the lease `archive.ARCHIVE`."""

    def __init__(
        self,
        retention_s: float,
        directory: Path,
        *,
        archiver: Archiver,
        evidence: Evidence,
        journal: Leases,
        clock: Clock,
        wrong_clock: Callable[[], bool],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._retention_s = retention_s
        self._directory = directory
        self._archiver = archiver
        self._evidence = evidence
        self._journal = journal
        self._clock = clock
        self._wrong_clock = wrong_clock
        self._sleep = sleep
        self._told = True  # by an earlier run, perhaps

    async def run(self) -> None:
        """Until cancelled."""
        await self._sleep(FIRST_S)
        while True:
            try:
                done = await self.round()
            except (ArchiveFailed, JournalFull, OSError) as error:
                log.warning("retention_failed", extra={"cause": str(error)})
                await self._tell(f"what is older than `journal.retention` stays: {error}")
            except (LeaseHeld, Fenced):  # somebody else works on the archive, or took it over
                pass
            else:
                if not done.waits:
                    await self._tell("")
                if done.segments or done.rows:
                    log.info("retired", extra={"segments": done.segments, "events": done.events, "rows": done.rows})
            await self._sleep(EVERY_S)

    async def round(self) -> Retired:
        """End what is too old now, by a clock that can be believed. Raises `LeaseHeld`, `Fenced`, `ArchiveFailed`, `JournalFull` and `OSError`."""
        now_ns = self._clock.wall_ns()
        before_ns = now_ns - int(self._retention_s * 1e9)
        done = Retired()
        if self._wrong_clock() or await self._leapt(now_ns):
            cause = "the clock is wrong, or more than 7 days lay between two rounds less than a day ago"
            log.warning("retention_waits", extra={"cause": cause})
            done.waits = True
            return done
        problem: Exception | None = None
        if await self._evidence.read(lambda rows: old_blocks(rows, before_ns)):
            try:
                await self._archiver.archive(self._retention_s)
            except ArchiveFailed as error:  # of one participant, perhaps, and what moved before is in nobody's way
                problem = error
        if self._directory.is_dir():
            async with self._archiver.alone, held(self._journal, archive.ARCHIVE) as fence:
                problem = await self._segments(fence, before_ns, done) or problem
        await self._rows(before_ns, done)
        if problem is not None:
            raise problem
        return done

    async def _leapt(self, now_ns: int) -> bool:
        """Whether so much lay between two rounds, less than a day ago, that the clock may have been set; without one before nobody knows.

        The day passes by the journal and not by rounds: a restart, or another process on the same journal, makes the next one after minutes.
        """
        last, leapt = await self._evidence.read(lambda rows: (sealing.meta(rows, _LOOKED), sealing.meta(rows, _LEAPT)))
        if last is None or now_ns - int(last) > LEAP_NS:
            leapt = str(now_ns)
        await self._evidence.write_beyond(partial(_noted, looked=str(now_ns), leapt=leapt))
        return leapt is not None and 0 <= now_ns - int(leapt) < WAIT_NS

    async def _segments(self, fence: Fence, before_ns: int, done: Retired) -> Exception | None:
        """What is in the way of one participant's is in nobody else's: the first problem is told when all were looked at."""
        await self._tidy()
        problem: Exception | None = None
        for participant in await self._evidence.read(archive.participants):
            try:
                for row in await self._evidence.read(partial(over, participant=participant, before_ns=before_ns)):
                    await self._segment(fence, row, done)
            except (ArchiveFailed, OSError) as error:
                problem = problem or error
        return problem

    async def _segment(self, fence: Fence, row: SegmentRow, done: Retired) -> None:
        path = self._directory / row.name
        try:
            content = await asyncio.to_thread(read_content, path)
        except SegmentDamaged as error:
            raise ArchiveFailed(f"{row.name} is damaged: {error}", hint="run `journal verify`") from error
        step = partial(retire, fence=fence, row=row, content=content, retention_s=self._retention_s)
        await self._evidence.write_beyond(step)
        path.unlink()
        await asyncio.to_thread(sync_directory, self._directory)
        done.segments += 1
        done.events += row.events

    async def _tidy(self) -> None:
        """Files that an earlier round had no time left to delete: the journal has forgotten them, and its chain begins behind them."""
        known = await self._evidence.read(archive.segments)
        journal = await self._evidence.read(archive.journal_id)
        for name in unlisted(self._directory, known):
            try:
                content = await asyncio.to_thread(read_content, self._directory / name)
            except SegmentDamaged:  # `journal verify` tells of it
                continue
            cut = await self._evidence.read(partial(cut_of, participant=content.head.participant))
            if content.head.journal == journal and content.blocks and content.numbers[-1][1] <= cut.number:
                (self._directory / name).unlink()

    async def _rows(self, before_ns: int, done: Retired) -> None:
        after: int | None = 0
        while after is not None:
            found, after = await self._evidence.read(partial(ended, before_ns=before_ns, after=after))
            items, calls = await self._evidence.read(partial(kept_of, submissions=found))
            if items or calls:
                await self._evidence.write_beyond(partial(forget, items=items, calls=calls))
                done.rows += len(items) + len(calls)
        await self._evidence.write_beyond(partial(forget_beside, before_ns=before_ns))

    async def _tell(self, problem: str) -> None:
        """The archive's alarm, under a name of its own: what the archiver says of itself is another."""
        if not problem and not self._told:
            return
        try:
            await self._journal.alarm("ARCHIVE", subject="retention", text=problem, clear=not problem)
            self._told = bool(problem)
        except JournalFull:  # its own alarm stands
            log.warning("alarm_waits")
