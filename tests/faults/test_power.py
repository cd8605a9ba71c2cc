"""Power loss: whatever the disk kept of what was not synced, everything that a caller was told is there, and the work goes on."""

import itertools
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from random import Random

import apsw
import pytest
from busy_journal import PARTICIPANT, SITES, BusyJournal, CountingClock, S
from fault_table import Row
from power_vfs import Disk, Recorder, RecordingVfs, materialise

from bridge.clock import SystemClock
from bridge.journal import engine, opening
from bridge.journal.sqlite import open_journal
from bridge.model import EmsState, ItemState
from bridge.submission import Admission

SEED = 20
PLANT = os.environ.get("SMP_BRIDGE_PLANT", "")  # the self-test of the faults plants a defect that this must find


@pytest.fixture
def memory():
    """A directory on a memory file system where there is one: what is brought back a thousand times needs no real disk."""
    shared = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="power-", dir=shared if os.access(shared, os.W_OK) else None))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def quick_checkpoints(monkeypatch):
    """The log is moved into the file every few commits, so that cuts fall into that too."""
    monkeypatch.setattr(engine, "_CHECKPOINT_PAGES", 40)


@pytest.fixture(autouse=True)
def plant(monkeypatch):
    """With `synchronous-off` nothing is synced before a caller is told, as a careless change of one line would have it."""
    if PLANT != "synchronous-off":
        return
    prepare = opening._prepare

    def careless(db, **options):
        prepare(db, **options)
        db.execute("PRAGMA synchronous = OFF")

    monkeypatch.setattr(opening, "_prepare", careless)


@contextmanager
def recording(directory):
    recorder = Recorder(directory)
    vfs = RecordingVfs(recorder)
    try:
        yield recorder, vfs.name
    finally:
        vfs.unregister()


async def opened(directory, clock, *, vfs=None):
    ids = itertools.count(1)
    return await open_journal(
        directory / "journal.db", clock=clock, role=f"r{next(OPENED)}", new_id=lambda: f"id-{next(ids)}", vfs=vfs
    )


OPENED = itertools.count()


async def recorded(directory, random, rounds):
    """A busy journal's whole life, from the second start to a clean end: what its disk saw, and the book."""
    made = await opened(directory, SystemClock.here())
    await made.close()  # the first start is another test
    with recording(directory) as (recorder, vfs):
        count = recorder.__len__
        journal = await opened(directory, CountingClock(count), vfs=vfs)
        busy = BusyJournal(journal, count, random)
        await busy.start()
        await busy.work(rounds)
        await journal.close()
    return recorder, busy.book


# ------------------------------------------------------------------------------------------------- what must be there


class Found:
    """What stands in the journal that was brought back, read past the product."""

    def __init__(self, path):
        self.db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self.items = {
            row[0]: row[1:] for row in self.db.execute(
                "SELECT i.key, i.id, i.content, i.outcome FROM register r JOIN items i ON i.id = r.item"
            )
        }  # fmt: skip
        self.keys = dict(self.db.execute("SELECT id, key FROM items"))
        self.places = dict(self.db.execute("SELECT place, state FROM writebacks"))
        self.outcomes = {row[0]: row[1:] for row in self.db.execute("SELECT id, outcome, asset_id FROM items")}
        self.submissions = {
            row[0]: row[1:] for row in self.db.execute("SELECT id, state, transaction_id FROM submissions")
        }
        self.bodies = {
            (row[0], row[1]) for row in self.db.execute(
                "SELECT s.id, b.bytes FROM calls c JOIN submissions s ON s.seq = c.submission JOIN blobs b ON b.id = c.body"
            )
        }  # fmt: skip
        self.told = {
            row[0]: row[1:]
            for row in self.db.execute("SELECT follows, state, step FROM writebacks WHERE follows IS NOT NULL")
        }
        self.writebacks = {row[0]: row[1:] for row in self.db.execute("SELECT id, generation, step FROM writebacks")}

    def problems(self, book, cut):
        """Every promise of the book that does not hold after a cut at this moment."""
        yield from self._whole()
        yield from self._records(book, cut)
        yield from self._calls(book, cut)
        yield from self._results(book, cut)

    def _whole(self):
        check = self.db.execute("PRAGMA integrity_check").fetchall()
        if check != [("ok",)]:
            yield f"the file is broken: {check[:3]}"
        holes = self.db.execute(
            "SELECT writer, epoch FROM events GROUP BY participant, writer, epoch HAVING count(*) <> max(number)"
        ).fetchall()
        if holes:
            yield f"events are missing: {holes}"

    def _records(self, book, cut):
        """Acknowledged: the record is there, with the content acknowledged last, or a newer one that was on its way."""
        newest = {}
        for told, candidate in book.accepted:
            if told <= cut and told >= newest.get(candidate.key, (0, None))[0]:
                newest[candidate.key] = (told, candidate.content)
        later = {}
        for asked, candidate in book.offered:
            if asked <= cut:
                later.setdefault(candidate.key, set()).add(candidate.content)
        for key, (_, content) in newest.items():
            if key not in self.items:
                yield f"the EMS was acknowledged and {key} is gone"
            elif self.items[key][1] != content and content.startswith(b"second"):
                yield f"{key} holds older content than was acknowledged"
            elif self.items[key][1] not in later[key]:
                yield f"{key} holds what nobody sent"

    def _calls(self, book, cut):
        """A call that may have left stands as SENDING (in doubt after the start) or later, with its exact bytes."""
        for submission, steps in book.steps.items():
            told = [number for number, step in enumerate(steps) if step.told <= cut]
            if not told:
                continue
            allowed = {step.state for number, step in enumerate(steps) if number >= told[-1] and step.asked <= cut}
            allowed = {S.IN_DOUBT if state is S.SENDING else state for state in allowed}
            state = self.submissions.get(submission, ("nowhere",))[0]
            if state not in {one.value for one in allowed}:
                yield f"{submission} is {state}, but was told to be one of {sorted(one.value for one in allowed)}"
        for told, submission, body in book.bodies:
            if told <= cut and (submission, body) not in self.bodies:
                yield f"the signed bytes of {submission} are gone"
        for told, submission, transaction in book.transactions:
            if told <= cut and self.submissions.get(submission, ("", ""))[1] != transaction:
                yield f"{submission} lost its transaction id"

    def _results(self, book, cut):
        """Outcomes stand, and the EMS was told or will be."""
        for told, item, state, asset in book.outcomes:
            if told > cut:
                continue
            if self.outcomes.get(item) != (state.value, asset):
                yield f"the outcome of item {item} is {self.outcomes.get(item)}, not {state.value}"
            key = self.keys.get(item)
            if book.drifted.get(key, cut + 1) <= cut and self.places.get(key) == int(EmsState.DRIFT):
                continue  # the place was told that its record differs from what was sent, and that outlives the outcome
            ems, step = self.told.get(item, (None, None))
            if ems != int(state.ems) or step not in {"pending", "retry", "written", "read_back_ok"}:
                yield f"the EMS will not hear of item {item}: {ems} {step}"
        for told, row, generation in book.written:
            now, step = self.writebacks.get(row, (0, ""))
            if told <= cut and (now < generation or (now == generation and step != "read_back_ok")):
                yield f"write-back {row} was done and is {step} again"


async def brought_back(directory, book, cut):
    """Open with the product's own code, recover, and list every broken promise; then the same is asked for again, and nothing is created twice."""
    clock = SystemClock.here()
    journal = await opened(directory, clock)
    try:
        fields = {site: await journal.acquire(f"field:{site}") for site in SITES}
        market = await journal.acquire(f"market:{PARTICIPANT}")
        await journal.recover(market)
        found = Found(directory / "journal.db")
        problems = list(found.problems(book, cut))
        doubtful = sum(state == "IN_DOUBT" for state, _ in found.submissions.values())
        for told, message in book.returns:
            if told <= cut and (await journal.park_return(market, message)).verdict != "duplicate":
                problems.append(f"SMP got its 202 and {message.message_id} is gone")
        refused = {key for key, (_, _, outcome) in found.items.items() if outcome == ItemState.REFUSED.value}
        for site, fence in fields.items():
            again = [c for told, c in book.accepted if told <= cut and c.site == site and c.key not in refused]
            intake = await journal.accept(fence, again)
            new = [c.key for c, a in zip(again, intake.accepted, strict=True) if a.admission is Admission.NEW]
            problems += [f"{key} would be created twice" for key in new]
        found.db.close()
    finally:
        await journal.close()
    return problems, doubtful


class Tally:
    """The cuts of one run and what was broken."""

    def __init__(self):
        self.cuts = 0
        self.doubtful = 0
        self.broken = []
        self.slowest_s = 0.0

    async def cut(self, files, directory, book, moment, kind):
        self.cuts += 1
        materialise(files, directory)
        started = time.monotonic()
        try:
            problems, doubtful = await brought_back(directory, book, moment)
        except Exception as error:
            problems, doubtful = [f"it does not open: {error!r}"], 0
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        self.doubtful = max(self.doubtful, doubtful)
        self.broken += [f"operation {moment}, {kind}: {problem}" for problem in problems]
        shutil.rmtree(directory)
        return bool(problems)


async def replayed(recorder, book, memory, *, random, torn, between):
    """Cut at each sync and at each word, with everything or nothing of what was not synced, and `torn` parts of it; and at `between` further moments."""
    moments = set(recorder.syncs()) | book.moments() | {0, len(recorder)}
    moments |= {random.randint(0, len(recorder)) for _ in range(between)}
    disk, tally = Disk(recorder), Tally()
    for moment in sorted(moments):
        disk.advance(moment)
        variants = [("nothing more", disk.only_synced())]
        if disk.uncertain:
            variants.append(("everything", disk.everything()))
            variants += [("torn", disk.some(random)) for _ in range(torn)]
        for kind, files in variants:
            await tally.cut(files, memory / f"cut-{tally.cuts}", book, moment, kind)
        if len(tally.broken) > 20:
            break
    return tally


def row(fault, book, tally):
    """The table's row: what was acknowledged in the whole life; lost is what some cut lost of it."""
    keys = {candidate.key for _, candidate in book.accepted}
    lost = len({line for line in tally.broken if "gone" in line or "open" in line})
    twice = len({line for line in tally.broken if "twice" in line})
    return Row(
        fault=fault, rounds=tally.cuts, requested=len(keys), accepted_once=len(keys), lost=lost, twice=twice,
        recovery_s=tally.slowest_s, broken="\n".join(tally.broken[:8]),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ tests


@pytest.mark.usefixtures("quick_checkpoints")
async def test_every_cut_of_the_power_keeps_every_word(tmp_path, memory, table):
    """At each sync, at each word and in between: what was acknowledged is there, what may have left is in doubt or later, nothing is created twice."""
    random = Random(SEED)
    recorder, book = await recorded(tmp_path, random, rounds=12)
    names = {made.name for made in recorder.operations if made.kind.value == "write"}
    assert names == {"journal.db", "journal.db-wal"}, "checkpoints and commits are recorded"
    assert len(book.accepted) > 100
    assert {step.state for steps in book.steps.values() for step in steps} >= {
        S.SENDING,
        S.RETRY_WAIT,
        S.IN_DOUBT,
        S.CONFIRMED,
    }
    tally = await replayed(recorder, book, memory, random=random, torn=2, between=60)
    table.add(row("power lost (seed 20)", book, tally))
    assert tally.doubtful > 3, "cuts fell while calls were out"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quick_checkpoints")
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_cut_of_a_longer_life(tmp_path, memory, table, seed):
    """More rounds, more seeds, more torn variants of each moment."""
    random = Random(seed)
    recorder, book = await recorded(tmp_path, random, rounds=15)
    tally = await replayed(recorder, book, memory, random=random, torn=4, between=300)
    table.add(row(f"power lost, long (seed {seed})", book, tally))


async def test_power_lost_in_the_first_start_leaves_nothing_in_the_way(tmp_path, memory):
    """Whatever is left of a half-made journal, the next start makes a whole one; nothing had been promised."""
    with recording(tmp_path) as (recorder, vfs):
        journal = await opened(tmp_path, SystemClock.here(), vfs=vfs)
        await journal.close()
    first = next(number for number, made in enumerate(recorder.operations) if made.name == "journal.db")
    random, disk = Random(SEED), Disk(recorder)
    for moment in range(first):
        disk.advance(moment)
        for number, files in enumerate((disk.only_synced(), disk.everything(), disk.some(random))):
            directory = memory / f"{moment}-{number}"
            materialise(files, directory)
            journal = await opened(directory, SystemClock.here())
            await journal.acquire("field:north")
            await journal.close()
            assert not (directory / "journal.db.new").exists()
            shutil.rmtree(directory)


async def test_power_lost_while_the_journal_is_brought_back(tmp_path, memory):
    """A second cut in the middle of the recovery of the first one: still everything is there."""
    random = Random(SEED)
    recorder, book = await recorded(tmp_path, random, rounds=3)
    disk = Disk(recorder)
    moment = max(word for word in book.moments() if word < len(recorder) - 30)
    disk.advance(moment)
    first = memory / "first"
    materialise(disk.some(random), first)
    with recording(first) as (again, vfs):
        journal = await opened(first, SystemClock.here(), vfs=vfs)
        market = await journal.acquire(f"market:{PARTICIPANT}")
        await journal.recover(market)
        await journal.close()
    tally, second = Tally(), Disk(again)
    for number in range(len(again) + 1):
        second.advance(number)
        for files in (second.only_synced(), second.some(random)):
            await tally.cut(files, memory / f"second-{tally.cuts}", book, moment, f"second cut at {number}")
    assert not tally.broken
    assert tally.cuts > 20


@pytest.mark.skipif(PLANT != "", reason="a defect is planted already")
@pytest.mark.usefixtures("quick_checkpoints")
@pytest.mark.parametrize("mode", ["OFF", "NORMAL"])
async def test_a_journal_that_does_not_sync_is_found_out(tmp_path, memory, monkeypatch, mode):
    """The replay is able to fail: with less than synchronous=FULL acknowledged records are gone."""
    prepare = opening._prepare

    def careless(db, **options):
        prepare(db, **options)
        db.execute(f"PRAGMA synchronous = {mode}")

    with monkeypatch.context() as patched:
        patched.setattr(opening, "_prepare", careless)
        recorder, book = await recorded(tmp_path, Random(SEED), rounds=2)
    tally = await replayed(recorder, book, memory, random=Random(SEED), torn=0, between=0)
    assert any("acknowledged" in line for line in tally.broken)
    assert any("202" in line for line in tally.broken) or len(tally.broken) > 20


async def test_each_word_comes_after_a_sync(tmp_path):
    """No word without a sync since it was asked for: the replay's cut at each sync is a cut at what each word stands on.

    The word may be told a few writes later, when the writer has already begun on the next batch.
    """
    recorder, book = await recorded(tmp_path, Random(SEED), rounds=2)
    syncs = recorder.syncs()
    asked = {id(candidate): number for number, candidate in book.offered}
    words = [(asked[id(candidate)], told) for told, candidate in book.accepted]
    words += [(step.asked, step.told) for steps in book.steps.values() for step in steps]
    assert len(words) > 20
    bare = [word for word in words if not any(word[0] < sync <= word[1] for sync in syncs)]
    assert not bare
