"""The size cap: told in time, room made by itself, and a full journal that takes nothing can still become smaller."""

import asyncio
import itertools
import time
from contextlib import suppress

import pytest

from bridge.clock import SystemClock
from bridge.errors import JournalFull
from bridge.journal import sealing
from bridge.journal.archiver import Archiver, ArchiverSettings, Room
from bridge.journal.keeper import KeeperSettings, start_keeper
from bridge.journal.port import AnswerNote, Candidate, DueCall, ItemOutcome, SignedCall, WriteBackResult
from bridge.journal.sealer import Sealer, SealerSettings
from bridge.journal.sqlite import open_journal
from bridge.journal.verify import verify
from bridge.model import ItemState, Operation, Trigger
from bridge.submission import SubmissionState

CAP = 3_000_000
CLOCK = SystemClock.here()


class Desk:
    """A journal with a cap, and whole submissions at a word."""

    def __init__(self, path):
        self.path = path
        self.numbers = itertools.count()

    async def open(self, cap=CAP):
        self.journal = await open_journal(
            self.path, clock=CLOCK, role="all", new_id=lambda: f"s-{next(self.numbers)}", max_bytes=cap
        )
        self.field = await self.journal.acquire("field:s")
        self.market = await self.journal.acquire("market:acme")
        self.evidence = self.journal.evidence()
        return self

    async def accept(self, size=20_000):
        key = f"K{next(self.numbers)}"
        candidate = Candidate(
            site="s",
            flow="f",
            place=key,
            participant="acme",
            operation=Operation.ASSET_CREATE,
            trigger=Trigger.CHANGE,
            request=None,
            key=key,
            content=b"{}",
            digest=b"0" * 16,
            readings=b"r" * size,
            max_items=1,
        )
        return await self.journal.accept(self.field, [candidate])

    async def settle(self):
        """The next submission goes all its way, its write-back too."""
        due = await self.journal.next_call("acme", CLOCK.wall_ns(), allow=list(Operation))
        assert isinstance(due, DueCall)
        call = SignedCall(
            message_id=f"m{next(self.numbers)}",
            correlation_id="c",
            method="POST",
            path="/",
            headers={},
            body=b"b" * 500,
            kid="k",
            profile="p",
        )
        await self.journal.sending(self.market, due.submission, call, 1)
        note = AnswerNote(status=202, headers={}, body=b"{}", detail="", transaction_id=f"T{due.submission}")
        await self.journal.answered(self.market, due.submission, SubmissionState.AWAITING_RETURN, note)
        outcomes = [ItemOutcome(item=item.id, state=ItemState.REGISTERED) for item in due.items]
        await self.journal.settle(self.market, due.submission, SubmissionState.CONFIRMED, outcomes, cause="test")
        told, _ = await self.journal.due_writebacks("s", ["f"], CLOCK.wall_ns(), 100)
        await self.journal.wrote_back(
            self.field, [WriteBackResult(id=row.id, generation=row.generation, state="written") for row in told]
        )

    async def fill_to(self, share):
        """Whole submissions until this share of the cap is used."""
        while await self.evidence.used_bytes() < CAP * share:
            await self.accept()
            await self.settle()

    async def fill_up(self):
        """Records until no more are taken."""
        for size in (20_000, 1000, 1):
            with suppress(JournalFull):
                while True:
                    await self.accept(size)

    async def codes(self):
        return [alarm.code for alarm in await self.journal.alarms()]


@pytest.fixture
async def desk(tmp_path):
    desk = await Desk(tmp_path / "var" / "journal.db").open()
    yield desk
    await desk.journal.close()


async def until(condition, within_s=30):
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_full_journal_is_sealed_and_archived_and_takes_records_again(desk, tmp_path):
    """At the cap nothing more is taken; sealing and archiving need no room that is not there, and make some."""
    await desk.fill_to(0.8)
    await desk.fill_up()
    for _ in range(3):
        with pytest.raises(JournalFull):
            await desk.accept()
    sealer = await _lease_beyond(desk, sealing.SEALER)
    while (await desk.evidence.seal(sealer)).events:
        pass
    used = await desk.evidence.used_bytes()
    settings = ArchiverSettings(directory=tmp_path / "archive", after_s=0)
    report = await Archiver(settings, evidence=desk.evidence, journal=desk.journal, clock=CLOCK).archive(0)
    assert report.events > 100
    assert await desk.evidence.used_bytes() < used * 0.6
    for _ in range(20):
        await desk.accept()
    found = await verify(desk.evidence.read, archive_directory=tmp_path / "archive", anchor_file=None)
    assert found.faults == []
    assert desk.path.stat().st_size <= CAP * 1.05


async def _lease_beyond(desk, lease):
    """The service took this lease when it started; here the journal is full already."""
    await desk.journal.close()
    await desk.open(cap=CAP + 200_000)
    fence = await desk.journal.acquire(lease)
    await desk.evidence.write(lambda tx: tx.all(f"PRAGMA max_page_count = {CAP // 4096}"))
    await desk.fill_up()
    return fence


async def test_a_person_is_told_in_time_and_again_when_there_is_room(desk):
    """The alarm stands from 80 % on, and ends below 70 %; between them nothing changes."""
    fence = await desk.journal.acquire(sealing.SEALER)
    room = Room()
    sealer = Sealer(
        SealerSettings(anchor=None, max_bytes=CAP),
        evidence=desk.evidence,
        alarms=desk.journal,
        fence=fence,
        woken=desk.journal.woken("events"),
        clock=CLOCK,
        room=room,
    )
    await desk.fill_to(0.55)
    await sealer.round()
    assert (await desk.codes(), room._level) == ([], 0)
    await desk.fill_to(0.75)
    await sealer.round()
    assert (await desk.codes(), room._level) == ([], 1)
    await desk.fill_to(0.81)
    await sealer.round()
    assert await desk.codes() == ["JOURNAL_LARGE"]
    (alarm,) = await desk.journal.alarms()
    assert "3 MB" in alarm.text
    assert alarm.runbook
    for share, codes in ((0.74, ["JOURNAL_LARGE"]), (0.6, [])):
        while await desk.evidence.used_bytes() > CAP * share:
            await desk.evidence.write(lambda tx: tx.run("DELETE FROM blobs WHERE id = (SELECT min(id) FROM blobs)"))
        await sealer.round()
        assert await desk.codes() == codes


async def test_little_room_moves_evidence_by_itself(desk, tmp_path):
    """From 60 % on what is older than asked for goes; from 80 % on younger evidence too, but never the last hour's."""
    clock = _Later(CLOCK)
    settings = KeeperSettings(
        anchor=tmp_path / "anchor" / "a.json", archive=tmp_path / "archive", max_bytes=CAP, seal_every_s=0.05
    )
    keeper = await start_keeper(settings, desk.journal, clock=clock)
    task = asyncio.get_running_loop().create_task(keeper.run())
    try:
        await desk.fill_to(0.7)

        async def tried():
            return (tmp_path / "archive").is_dir() and keeper._room._level == 1

        await until(tried)
        assert not list((tmp_path / "archive").glob("*.xz"))  # nothing is 30 days old
        clock.days = 2  # the journal's own clock stays: to the archiver its evidence is two days old
        await desk.fill_to(0.81)

        async def smaller():
            return await desk.evidence.used_bytes() < CAP * 0.6

        await until(smaller)

        async def quiet():
            return "JOURNAL_LARGE" not in await desk.codes()

        await desk.accept()
        await until(quiet)
    finally:
        task.cancel()
        await asyncio.wait({task})
    await keeper.finish()
    found = await verify(desk.evidence.read, archive_directory=tmp_path / "archive", anchor_file=settings.anchor)
    assert found.faults == []
    assert found.segments >= 1


class _Later:
    """A clock that is some days ahead."""

    def __init__(self, clock):
        self._clock, self.days = clock, 0

    def now(self):
        found = self._clock.now()
        return found._replace(wall_ns=self.wall_ns())

    def wall_ns(self):
        return self._clock.wall_ns() + self.days * 86_400 * 10**9

    def mono_ns(self):
        return time.monotonic_ns()


async def test_only_what_makes_room_goes_beyond_the_cap(desk):
    """A little beyond, for that one commit; the cap holds again afterwards, also when the work failed."""
    await desk.fill_up()

    def big(tx):
        tx.blob("acme", b"x" * 100_000)

    def failing(tx):
        big(tx)
        raise ValueError

    with pytest.raises(JournalFull):
        await desk.evidence.write(big)
    with pytest.raises(ValueError):
        await desk.evidence.write_beyond(failing)
    with pytest.raises(JournalFull):
        await desk.evidence.write(big)
    await desk.evidence.write_beyond(big)
    with pytest.raises(JournalFull):
        await desk.evidence.write(big)
