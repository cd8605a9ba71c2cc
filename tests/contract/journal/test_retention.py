"""Retention, on both engines and in a time that the tests move: what is settled and too old ends by itself, and nothing else does."""

import asyncio
import lzma
from functools import partial

import pytest

from bridge.envelope import Algorithm
from bridge.errors import LeaseHeld, NotPossible
from bridge.journal import archive, retention, sealing
from bridge.journal.archiver import ArchiveFailed, Archiver, ArchiverSettings
from bridge.journal.examine import examine
from bridge.journal.export import export
from bridge.journal.export_plan import Scope
from bridge.journal.retention import EVERY_S, FIRST_S, Retention
from bridge.journal.verify import verify
from bridge.keys import KeySigner, new_key, public_from_jwk, thumbprint
from bridge.model import ItemState
from bridge.submission import Admission

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
STEP = 6  # days; a longer one is a leap


class Desk:
    """A journal, its archive, and a retention of a year whose sleep moves the journal's own clock; `wrong` while that is known to be wrong."""

    def __init__(self, kit, directory):
        self.kit, self.directory, self.slept = kit, directory / "archive", []
        self.days, self.gone, self.watched, self.wrong = 0, {}, (), False
        self.evidence = kit.journal.evidence()
        archiver = Archiver(
            ArchiverSettings(directory=self.directory, after_s=30 * DAY_S),
            evidence=self.evidence,
            journal=kit.journal,
            clock=kit.clock,
        )
        self.archiver = archiver
        self.retention = Retention(
            YEAR_S,
            self.directory,
            archiver=archiver,
            evidence=self.evidence,
            journal=kit.journal,
            clock=kit.clock,
            wrong_clock=lambda: self.wrong,
            sleep=self.sleep,
        )

    async def round(self):
        """The round of a day after one: the first does nothing when the clock was moved since."""
        await self.retention.round()
        self.kit.clock.advance(DAY_S)
        return await self.retention.round()

    async def sleep(self, seconds):
        """A day of the task is six of the journal's, and the last one is two years on."""
        self.slept.append(seconds)
        if seconds == EVERY_S:
            self.days += STEP
            self.kit.clock.advance(STEP * DAY_S)
        if self.days > 730:
            raise asyncio.CancelledError
        await self.seal()
        left = await self.bytes_left()
        for word in self.watched:
            if word not in left:
                self.gone.setdefault(word, self.days)

    async def seal(self):
        fence = await self.kit.journal.acquire(sealing.SEALER)
        while (await self.evidence.seal(fence)).events:
            pass
        await self.kit.journal.release([fence])

    async def life(self, key, outcome=ItemState.REGISTERED):
        await self.kit.accept(self.kit.asset(key, f"content of {key}"))
        due = await self.kit.sent(f"T-{key}")
        parked = await self.kit.journal.park_return(
            self.kit.market, self.kit.returned(f"R-{key}", transaction_id=f"T-{key}")
        )
        await self.kit.settle(due, outcome, return_id=parked.return_id)
        await self.kit.write_all()
        await self.seal()
        return due.submission

    async def verify(self):
        await self.seal()
        return await verify(self.evidence.read, archive_directory=self.directory, anchor_file=None)

    async def faults(self):
        return [f"{fault.place}: {fault.text}" for fault in (await self.verify()).faults]

    async def rows(self, sql, *args):
        return await self.evidence.read(lambda rows: rows.all(sql, args))

    async def bytes_left(self):
        here = b"".join(row[0] for row in await self.rows("SELECT bytes FROM blobs"))
        return here + b"".join(lzma.decompress(path.read_bytes()) for path in self.directory.glob("*.xz"))


@pytest.fixture
async def desk(kit, tmp_path):
    return Desk(kit, tmp_path)


async def test_a_year_later_it_is_gone_by_itself_and_the_chain_is_whole(desk):
    """First the old, in its own time the young: readings, calls, returns, headers and events. Who is registered stays, and is not created again."""
    kit = desk.kit
    await desk.life("old-1")
    await desk.life("old-2", ItemState.REFUSED)
    kit.clock.advance(100 * DAY_S)
    await desk.life("young")
    await desk.life("last")
    desk.watched = (b"content of old-1", b"content of old-2", b"content of young")
    with pytest.raises(asyncio.CancelledError):
        await desk.retention.run()
    assert desk.slept[:2] == [FIRST_S, EVERY_S]
    # To the next look after its year; the clock was 100 days on already when the first sleep began.
    old, other, young = (desk.gone[word] for word in desk.watched)
    assert old == other
    assert 265 < old <= 265 + 2 * STEP
    assert 365 < young <= 365 + 2 * STEP
    report = await desk.verify()
    assert [f"{fault.place}: {fault.text}" for fault in report.faults] == []
    assert report.chains[0].retired > 0
    assert await desk.rows("SELECT count(*) FROM calls WHERE headers <> '' AND submission < 4") == [(0,)]
    assert await desk.rows("SELECT count(*) FROM returns WHERE headers <> '' AND message_id <> 'R-last'") == [(0,)]
    contents = dict(await desk.rows("SELECT key, content FROM items"))
    assert (contents["old-1"], contents["old-2"]) == (b"content of old-1", b"")
    (again,) = (await kit.accept(kit.asset("old-1", "content of old-1"))).accepted
    assert again.admission is Admission.REPEAT
    told = await desk.rows("SELECT data FROM events WHERE kind = 'retired' ORDER BY id")
    assert told
    assert list(desk.directory.iterdir()) == []


async def test_nothing_goes_before_what_is_older_and_not_settled(desk):
    """A chain is cut at one place: one open submission keeps all that came after it, until somebody ends it."""
    kit = desk.kit
    await kit.accept(kit.asset("open", "content of open"))
    due = await kit.sent("T-open")
    await kit.write_all()
    await desk.seal()
    await desk.life("settled")
    await desk.life("last")
    kit.clock.advance(DAY_S)
    assert (await desk.archiver.archive(0)).segments == 1  # moved for want of room, and young
    assert (await desk.round()).segments == 0
    kit.clock.advance(2 * YEAR_S)
    assert (await desk.round()).segments == 0
    assert b"content of settled" in await desk.bytes_left()
    assert len(list(desk.directory.iterdir())) == 1
    assert await desk.faults() == []
    await kit.settle(due)
    await kit.write_all()
    kit.clock.advance(2 * YEAR_S)
    await desk.life("much later")
    assert (await desk.round()).segments >= 1
    assert b"content of settled" not in await desk.bytes_left()
    assert await desk.faults() == []


async def test_a_chain_that_was_cut_without_a_word_is_a_fault(desk):
    """What says so is an event, not the note of where the chain begins; and a cut chain is one all the same."""
    kit = desk.kit
    await desk.life("old")
    await desk.life("last")
    kit.clock.advance(2 * YEAR_S)
    await desk.life("new")
    await desk.round()
    assert await desk.faults() == []
    cut = await desk.evidence.read(lambda rows: retention.cut_of(rows, "acme"))
    assert cut.number >= 1
    await desk.evidence.write(lambda tx: sealing.set_meta(tx, "retired:acme", None))
    (fault, *_) = await desk.faults()
    assert fault.startswith("block")
    assert "missing" in fault
    (first,) = await desk.evidence.read(lambda rows: sealing.stored_blocks(rows, "acme", cut.number + 1, 1))
    await desk.evidence.write(
        lambda tx: sealing.set_meta(tx, "retired:acme", f'[{first.block.number},"{first.hash.hex()}"]')
    )
    await desk.evidence.write(lambda tx: tx.run("DELETE FROM blocks WHERE number = ?", (first.block.number,)))
    assert any("no event says that they were retired" in fault for fault in await desk.faults())


async def test_a_round_that_was_cut_off_is_finished_by_the_next(desk, monkeypatch):
    """The journal forgot the segment and its file is still there: the next round deletes it; a person's work on the archive is waited for."""
    kit = desk.kit
    await desk.life("old")
    await desk.life("last")
    kit.clock.advance(DAY_S)
    await desk.archiver.archive(0)
    assert (await desk.round()).segments == 0
    kit.clock.advance(2 * YEAR_S)
    (path,) = desk.directory.iterdir()
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "no")))
    with pytest.raises(OSError, match="no"):
        await desk.round()
    monkeypatch.undo()
    assert path.exists()
    assert await desk.faults() == []
    await desk.round()
    assert not path.exists()
    assert await desk.faults() == []
    fence = await kit.journal.acquire(archive.ARCHIVE)
    if kit.engine.name == "postgres":
        other = await kit.engine.open("cli")
        with pytest.raises(LeaseHeld):
            await other.acquire(archive.ARCHIVE)
    await kit.journal.release([fence])


async def test_a_clock_that_leapt_ends_nothing_before_the_next_day(desk):
    """A machine that wakes up in 2036, or one whose clock is known to be wrong: what would go waits for a day on which it is believed."""
    kit = desk.kit
    await desk.life("old")
    await desk.life("last")
    await desk.retention.round()
    kit.clock.advance(10 * YEAR_S)
    await desk.life("in 2036")
    assert (await desk.retention.round()).segments == 0
    kit.clock.advance(-10 * YEAR_S)
    assert (await desk.round()).segments == 0
    assert b"content of old" in await desk.bytes_left()
    desk.wrong = True
    kit.clock.advance(10 * YEAR_S)
    assert (await desk.round()).segments == 0
    assert b"content of old" in await desk.bytes_left()
    desk.wrong = False
    assert (await desk.round()).segments == 1
    assert b"content of old" not in await desk.bytes_left()
    assert await desk.faults() == []


async def test_a_start_after_a_leap_does_not_shorten_the_day(desk):
    """Each start looks after five minutes, and so does each further process on the journal: that is not the day on which somebody notices."""
    kit = desk.kit
    await desk.life("old")
    await desk.life("last")
    await desk.retention.round()
    kit.clock.advance(10 * YEAR_S)
    for _ in range(3):
        kit.clock.advance(FIRST_S)
        assert (await desk.retention.round()).segments == 0
    assert b"content of old" in await desk.bytes_left()
    kit.clock.advance(DAY_S)
    assert (await desk.retention.round()).segments == 1


async def test_the_alarm_stands_until_what_is_old_has_ended(desk):
    """A run of the archiver's that went well says nothing of it, nor does a day that waits; a start in between does not leave it standing for ever."""

    async def standing(retention):
        async def sleep(seconds):
            if seconds == EVERY_S:
                raise asyncio.CancelledError

        retention._sleep = sleep
        with pytest.raises(asyncio.CancelledError):
            await retention.run()
        return [alarm.code for alarm in await desk.kit.journal.alarms()]

    async def fails():
        raise ArchiveFailed("a file is gone")

    desk.retention.round = fails
    assert await standing(desk.retention) == ["ARCHIVE"]
    await desk.archiver._try(0)
    started = Desk(desk.kit, desk.directory.parent).retention
    assert await standing(started) == ["ARCHIVE"]
    desk.kit.clock.advance(DAY_S)
    assert await standing(started) == []


async def test_what_is_retired_while_it_is_verified_is_no_fault(desk):
    """The walk had its list of segments already when the oldest was deleted."""
    kit = desk.kit
    await desk.life("old")
    await desk.life("last")
    kit.clock.advance(DAY_S)
    await desk.archiver.archive(0)
    kit.clock.advance(2 * YEAR_S)
    await desk.life("new")
    await desk.seal()
    asked, retired = desk.evidence.read, []

    async def read(work):
        value = await asked(work)
        if isinstance(value, retention.Cut) and not retired:
            retired.append(await desk.round())
            await desk.seal()
        return value

    report = await verify(read, archive_directory=desk.directory, anchor_file=None)
    assert retired[0].segments >= 1
    assert [f"{fault.place}: {fault.text}" for fault in report.faults] == []
    assert report.chains[0].retired > 0


async def test_a_segment_that_is_gone_is_in_nobody_elses_way(desk):
    """One participant's file was taken away: that is told, and what is old of the others, and in the rows, ends all the same."""
    kit = desk.kit
    for number in range(2):
        await kit.accept(kit.asset(f"A{number}"), kit.asset(f"B{number}", participant="beta"))
        await desk.seal()
    await desk.evidence.write(lambda tx: tx.run("UPDATE submissions SET state = 'EXPIRED'"))
    await desk.evidence.write(lambda tx: tx.run("UPDATE writebacks SET step = 'written'"))
    for name in ("a", "b"):
        await kit.journal.alarm("CONFLICT", participant="acme", subject=name, text="somebody")
        await kit.journal.alarm("CONFLICT", participant="acme", subject=name, clear=True)
    kit.clock.advance(DAY_S)
    assert (await desk.archiver.archive(0)).segments == 2
    kit.clock.advance(2 * YEAR_S)
    ours, theirs = sorted(desk.directory.iterdir())
    ours.unlink()
    with pytest.raises(OSError, match=ours.name):
        await desk.round()
    assert not theirs.exists()
    assert await desk.rows("SELECT subject FROM alarms") == [("b",)]
    assert [row.participant for row in await desk.evidence.read(archive.segments)] == ["acme"]


async def test_what_one_participant_cannot_archive_is_in_nobody_elses_way(desk):
    """A run was cut off before the journal was emptied, and its file is gone since: what is old of the others, and in the rows, ends each time all the same."""
    kit = desk.kit
    for name in ("acme", "beta"):
        for number in range(2):
            await kit.accept(kit.asset(f"{name}{number}", participant=name))
            await desk.seal()
    await desk.evidence.write(lambda tx: tx.run("UPDATE submissions SET state = 'EXPIRED'"))
    await desk.evidence.write(lambda tx: tx.run("UPDATE writebacks SET step = 'written'"))
    for name in ("a", "b"):
        await kit.journal.alarm("CONFLICT", participant="acme", subject=name, text="somebody")
        await kit.journal.alarm("CONFLICT", participant="acme", subject=name, clear=True)
    kit.clock.advance(DAY_S)
    empty = desk.archiver._empty

    async def cut_off(fence, segment, content):
        if content.head.participant == "acme":
            raise RuntimeError("cut off")
        await empty(fence, segment, content)

    desk.archiver._empty = cut_off
    with pytest.raises(RuntimeError, match="cut off"):
        await desk.archiver.archive(0)
    (ours,) = desk.directory.iterdir()
    ours.unlink()
    desk.archiver._empty = empty
    with pytest.raises(ArchiveFailed, match=ours.name):
        await desk.archiver.archive(0)
    (theirs,) = desk.directory.iterdir()
    kit.clock.advance(2 * YEAR_S)
    with pytest.raises(ArchiveFailed, match=ours.name):
        await desk.round()
    assert not theirs.exists()
    assert await desk.rows("SELECT subject FROM alarms") == [("b",)]
    assert await desk.rows("SELECT 1 FROM blocks WHERE participant = 'acme'") != []


async def test_an_export_says_what_had_its_time(desk, tmp_path):
    """A span that reaches back further than the chain, and a submission whose beginning is gone: the manifest says up to which block, and so does who checks it."""
    kit, key = desk.kit, new_key(Algorithm.ES256)
    signer = KeySigner(thumbprint(key), Algorithm.ES256, key)
    old = await desk.life("old")
    await desk.life("last")
    kit.clock.advance(2 * YEAR_S)
    new = await desk.life("new")
    await desk.round()
    await desk.seal()
    await desk.evidence.sign_heads(signer)
    cut = await desk.evidence.read(partial(retention.cut_of, participant="acme"))
    now_ns = kit.clock.wall_ns()

    async def exported(name, **scope):
        file = tmp_path / f"{name}.zip"
        where = {"archive_directory": desk.directory, "file": file, "now_ns": now_ns}
        done = await export(desk.evidence.read, Scope(participant="acme", **scope), signer, **where)
        report = examine(file, {signer.kid: public_from_jwk(None, signer.public_jwk())})
        assert report.wrong == ""
        return done.retired, report.manifest["retired"], report.notes

    told = f"blocks 1 to {cut.number} had their time before it was exported: what they held of this is not here"
    assert await exported("all", from_ns=0, to_ns=now_ns) == (cut.number, cut.number, [told])
    assert await exported("late", from_ns=now_ns - 10**12, to_ns=now_ns) == (0, 0, [])
    assert await exported("new", submission=new) == (0, 0, [])
    with pytest.raises(NotPossible, match="no sealed evidence") as gone:
        await exported("old", submission=old)
    assert f"blocks 1 to {cut.number} had their time and are gone" in gone.value.hint


async def test_rows_about_people_end_too(desk):
    """Alarms that were cleared, holds that were released, requests that were decided and tokens that ended, all long ago; the newest row of each stays."""
    kit = desk.kit
    for name in ("a", "b"):
        await kit.journal.alarm("CONFLICT", participant="acme", subject=name, text="somebody")
        await kit.journal.alarm("CONFLICT", participant="acme", subject=name, clear=True)
    await kit.journal.alarm("STUCK", participant="acme", subject="stands", text="x")
    kit.clock.advance(2 * YEAR_S)
    await desk.round()
    assert await desk.rows("SELECT subject FROM alarms") == [("stands",)]


async def test_archiving_for_want_of_room_and_retention_wait_for_each_other(desk):
    """One process has one lease for both: side by side neither takes it from the other."""
    await desk.life("old")
    await desk.life("last")
    desk.kit.clock.advance(2 * YEAR_S)
    await desk.life("new")
    report, done = await asyncio.gather(desk.archiver.archive(0), desk.round())
    assert report.segments + done.segments >= 1
    assert await desk.faults() == []
