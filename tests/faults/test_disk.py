"""A disk that is full, read-only or failing, and a journal that was damaged: nothing is acknowledged that is not on disk, and nothing is reset."""

import asyncio
import functools
import itertools
import os
import shutil
import time
from pathlib import Path

import apsw
import pytest
from admin import get, value
from failing_vfs import SYNC, WRITE, FailingVfs
from fault_table import Row
from processes import world
from service import fill, linked, made_alarm, service, until_words, words
from small_disk import small_disk

import bridge.app
import bridge.journal.configured
from bridge.clock import SystemClock
from bridge.errors import JournalUnusable
from bridge.journal.port import Candidate
from bridge.journal.sqlite import open_journal
from bridge.model import Operation, Trigger
from bridge.sandbox import Knobs
from bridge.submission import Admission

SUPPORT = Path(__file__).parents[1] / "support"
HELD = Knobs(returns="hold", retry_delay_s=0.2, retries=1000)


def unsealed(directory):
    """A configuration whose journal is written by nothing but the work itself."""
    return {"journal": {"path": str(directory / "var/journal.db"), "seal_every": "1h"}}


def counted(made, ems, places, **changes):
    """A row's counts, taken from the sandbox's ledger and the EMS's own memory."""
    creates = [made.ledger.creates(ems.fields[place]["reference"]) for place in places]
    told = [ems.last(place) for place in places]
    return Row(**{
        "rounds": 1, "requested": len(places), "accepted_once": sum(count == 1 for count in creates),
        "in_doubt": sum(word == 5 and count == 0 for word, count in zip(told, creates, strict=True)),
        "lost": sum(count == 0 and word not in {4, 5, 7} for word, count in zip(told, creates, strict=True)),
        "twice": sum(count > 1 for count in creates), **changes,
    })  # fmt: skip


def acked(ems):
    return {place for places, ok in ems.acked if ok for place in places}


# -------------------------------------------------------------------------------------------------------- a full disk


async def test_full_disk_stops_the_acknowledging_and_nothing_else(tmp_path, table):
    """Filled with records waiting, calls out and returns under way: no word to EMS or SMP, the host says why it is not ready; with room all goes on alone."""
    with small_disk(tmp_path / "var", 6) as disk:
        async with service(tmp_path, knobs=HELD.model_copy()) as made:
            ems = await linked(made)
            places = fill(ems, 60)
            ems.request("assets", *places[:20])
            await until_words(ems, places, {2: 20, None: 40})
            await made.until_states("AWAITING_RETURN")
            disk.fill()
            before = len(ems.acked)
            pushing = made._group.create_task(push(made))  # the returns of what is out, until they are taken
            for place in places[20:]:
                ems.request("assets", place)
            await until_refused(made)
            await asyncio.sleep(1.5)  # long enough for several tries
            assert len(ems.acked) == before
            assert words(ems, places) == {2: 20, None: 40}
            assert {entry.status for entry in made.ledger.returns} == {503}
            status, text = await get(made, "/health/ready")
            assert status == 503
            assert "the journal is full" in text
            _, metrics = await get(made, "/metrics")
            assert value(metrics, "smp_bridge_journal", what="full") == 1
            disk.make_room()
            started = time.monotonic()
            made.knobs.returns = "push"
            await until_words(ems, places, {3: 60})
            recovery_s = time.monotonic() - started
            await pushing
            assert acked(ems) == set(places)
            await made_alarm(made, "JOURNAL_FULL")
            assert (await get(made, "/health/ready"))[0] == 200
            _, metrics = await get(made, "/metrics")
            assert value(metrics, "smp_bridge_journal", what="full") == 0
            assert set(await made.states()) == {"CONFIRMED"}
            table.add(counted(made, ems, places, fault="disk full", recovery_s=recovery_s))


async def push(made):
    """Let the held returns go, each until it is taken."""
    while not await made.sandbox.release():
        await asyncio.sleep(0.02)


async def until_refused(made, within_s=20):
    """Until SMP was told to come back later."""
    async with asyncio.timeout(within_s):
        while not any(entry.status == 503 for entry in made.ledger.returns):
            await asyncio.sleep(0.05)


async def test_answer_that_finds_no_room_is_kept_until_there_is_some(tmp_path, table):
    """The disk fills while SMP works on a call: its answer is written down when there is room, the call is neither lost nor in doubt nor sent again."""
    with small_disk(tmp_path / "var", 6) as disk:
        async with service(tmp_path, knobs=Knobs(answer_delay_s=0.6)) as made:
            ems = await linked(made)
            places = fill(ems, 10)
            ems.request("assets", *places)
            async with asyncio.timeout(10):
                while not made.ledger.of("asset.create"):
                    await asyncio.sleep(0.01)
            disk.fill()
            async with asyncio.timeout(10):
                while not made.ledger.of("asset.create")[0].status:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(1.2)  # long enough for a second try
            assert await made.states() == ["SENDING"]
            disk.make_room()
            started = time.monotonic()
            await until_words(ems, places, {3: 10})
            assert await made.states() == ["CONFIRMED"]
            row = counted(
                made, ems, places, fault="disk full while a call is out", recovery_s=time.monotonic() - started
            )
            table.add(row)


async def test_full_disk_at_the_start_is_said(tmp_path):
    """One clear line with a hint and exit status 1; with room the same command works."""
    with small_disk(tmp_path / "disk", 4) as disk:
        async with world(tmp_path, assets=4) as made:
            made.journal = disk.directory / "journal.db"
            made.environment["SMP_BRIDGE_JOURNAL"] = str(made.journal)
            first = await made.run()
            await first.until("ready")
            assert await first.stop() == 0
            disk.fill()
            refused(await ended(made), "full", "make room")
            disk.make_room()
            again = await made.run()
            await again.until("ready")
            await made.ems["rugby"].request_assets()
            await made.until_words("rugby", "registered", 4)


async def ended(made, *arguments):
    """What a process that refuses to start ends with."""
    process = await made.run(*arguments)
    return await process.ended(30), process


def refused(end, *texts, what=""):
    """Status 1, the texts and a hint on standard error, and no traceback."""
    code, process = end
    said = "\n".join(str(event.get("event", "")) + str(event.get("trace", "")) for event in process.events)
    assert code == 1, f"{what}: {code} {said}"
    assert "Traceback" not in said, what
    assert "hint:" in said, what
    for text in texts:
        assert text in said, what


# ------------------------------------------------------------------------------------------------- a disk that fails


@pytest.mark.parametrize(("verb", "code"), [("sync", SYNC), ("write", WRITE)])
async def test_one_failed_write_ends_the_service(tmp_path, table, monkeypatch, verb, code):
    """It does not go on as if the disk were well again: no word to EMS or SMP, the host ends, and its successor on a good disk settles everything.

    A call whose commit failed never left. Should the disk hold it as SENDING all the same, it is in doubt afterwards.
    """
    vfs = FailingVfs()
    monkeypatch.setattr(bridge.journal.configured, "open_journal", functools.partial(open_journal, vfs=vfs.name))
    async with service(tmp_path, knobs=HELD.model_copy(), host=unsealed(tmp_path)) as made:
        ems = await linked(made)
        places = fill(ems, 20)
        ems.request("assets", *places[:10])
        await until_words(ems, places, {2: 10, None: 10})
        await until_quiet(made)
        before = len(ems.acked)
        vfs.fail("-wal", verb, code, times=1)
        ems.request("assets", *places[10:])
        made.mortal = True
        assert isinstance(root(await made.crashed()), JournalUnusable)
        assert len(ems.acked) == before
        assert vfs.failed
        vfs.heal()
        started = time.monotonic()
        await made.start()
        ems.request("assets", *places[10:])  # not acknowledged, so asked again
        made.knobs.returns = "push"
        await made.release()
        await ems.until(lambda: words(ems, places) in ({3: 20}, {3: 10, 5: 10}), 30)
        row = counted(made, ems, places, fault=f"disk: one {verb} fails", recovery_s=time.monotonic() - started)
    vfs.unregister()
    table.add(row)


async def test_return_that_cannot_be_written_gets_503_and_ends_the_service(tmp_path, monkeypatch):
    """SMP keeps a return whose sync failed, and its successor takes it."""
    vfs = FailingVfs()
    monkeypatch.setattr(bridge.journal.configured, "open_journal", functools.partial(open_journal, vfs=vfs.name))
    monkeypatch.setattr(bridge.app, "RENEW_S", 1.0)
    async with service(tmp_path, knobs=HELD.model_copy(), host=unsealed(tmp_path)) as made:
        ems = await linked(made)
        places = fill(ems, 5)
        ems.request("assets", *places)
        await until_words(ems, places, {2: 5})
        await until_quiet(made)
        vfs.fail("-wal", "sync", SYNC, times=1)
        made.mortal = True
        pushing = made._group.create_task(push(made))
        assert isinstance(root(await made.crashed()), JournalUnusable)
        assert 503 in {entry.status for entry in made.ledger.returns}
        assert not {entry.status for entry in made.ledger.returns} & {200, 202}
        await made.start()
        await pushing
        await until_words(ems, places, {3: 5})
    vfs.unregister()


async def until_quiet(made):
    """The call is answered and told: the next commit is the one that the test makes."""
    await made.until_states("AWAITING_RETURN")
    async with asyncio.timeout(10):
        while (await made.read(lambda journal: journal.counts()))["writebacks.pending"]:
            await asyncio.sleep(0.02)


def root(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@pytest.mark.parametrize("command", ["-wal sync", "journal.db read"])
async def test_a_failing_disk_ends_the_process_in_plain_words(tmp_path, command):
    """`smp-bridge run` ends with status 1, one line and a hint, no traceback; started again on a good disk it tells every EMS its outcome."""
    async with world(tmp_path, assets=10, knobs=Knobs(answer_delay_s=0.05, retries=1000, retry_delay_s=0.2)) as made:
        commands = tmp_path / "disk-commands"
        made.environment["DISK_COMMANDS"] = str(commands)
        made.code = (
            f"import os, sys; sys.path.insert(0, {str(SUPPORT)!r}); from failing_vfs import CommandedVfs;"
            " vfs = CommandedVfs(os.environ['DISK_COMMANDS']); from bridge.cli import main; main()"
        )
        process = await made.run()
        await process.until("ready")
        await made.ems["rugby"].request_assets()
        await made.until_words("rugby", "registered", 10)
        commands.write_text(command)
        await made.ems["derby"].request_assets()
        refused((await process.ended(30), process), "the journal failed", "check the disk")
        commands.unlink()
        again = await made.run()
        await again.until("ready")
        await made.until_told("derby", within_s=40)
        assert made.created("rugby") == [1] * 10


# -------------------------------------------------------------------------------------------------- a read-only disk


async def test_read_only_disk_at_the_start_is_said(tmp_path):
    """One clear line with a hint and exit status 1; mounted for writing again, the same command works and everything is there."""
    with small_disk(tmp_path / "disk", 8) as disk:
        async with world(tmp_path, assets=4) as made:
            made.journal = disk.directory / "journal.db"
            made.environment["SMP_BRIDGE_JOURNAL"] = str(made.journal)
            first = await made.run()
            await first.until("ready")
            await made.ems["rugby"].request_assets()
            await made.until_words("rugby", "registered", 4)
            assert await first.stop() == 0
            disk.remount("ro")
            refused(await ended(made), "Read-only file system", "can the service write there")
            disk.remount("rw")
            again = await made.run()
            await again.until("ready")
            await made.ems["derby"].request_assets()
            await made.until_words("derby", "registered", 4)
            assert await made.states() == ["CONFIRMED"] * 2


async def test_a_place_that_cannot_be_written_is_said(tmp_path):
    """The journal's directory is a file, or below one."""
    async with world(tmp_path, assets=1) as made:
        (tmp_path / "file").write_text("not a directory")
        made.environment["SMP_BRIDGE_JOURNAL"] = str(tmp_path / "file/journal.db")
        refused(await ended(made), "cannot be opened", "journal.path")


# ------------------------------------------------------------------------------------------------- a damaged journal


def middle(data):
    """Pages of nonsense in the middle of the file."""
    first = len(data) // 8192 * 4096
    return data[:first] + b"\xa5" * 16384 + data[first + 16384 :]


def newer(data):
    """Written by a later major version."""
    return data[:60] + (2 * 10_000 + 1).to_bytes(4, "big") + data[64:]


def emptied(data):
    """Nothing is left."""
    return b""


async def test_a_damaged_journal_is_refused_and_left_alone(tmp_path):
    """Broken in the middle, emptied, newer: exit status 1 and what to do; not one byte is changed, and restored it goes on. (Other damage: test_journal_sqlite.)"""
    async with world(tmp_path, assets=20) as made:
        process = await made.run()
        await process.until("ready")
        for site, ems in made.ems.items():
            await ems.request_assets()
            await made.until_words(site, "registered", 20)
        assert await process.stop() == 0
        good = made.journal.read_bytes()
        assert not Path(f"{made.journal}-wal").exists()
        for damage in (middle, newer, emptied):
            bad = damage(good)
            made.journal.write_bytes(bad)
            refused(await ended(made), str(made.journal), "", what=damage.__doc__)
            assert made.journal.read_bytes() == bad, damage.__doc__
        made.journal.write_bytes(good)
        again = await made.run()
        await again.until("ready")
        assert await made.states() == ["CONFIRMED"] * 2


@pytest.mark.parametrize("damage", ["cut", "garbled"])
async def test_a_torn_end_of_the_log_is_simply_absent(tmp_path, damage):
    """A last transaction that is half there was never told to anybody: what is in front of it stands, the file is whole, the numbers have no holes."""
    keys = [f"K{number}" for number in range(10)]
    path = await powerless_copy(tmp_path, keys)
    log = Path(f"{path}-wal")
    data = bytearray(log.read_bytes())
    if damage == "cut":
        del data[-2000:]
    else:
        data[-3000:-1000] = os.urandom(2000)
    log.write_bytes(data)
    journal = await opened(path)
    fence = await journal.acquire("field:north")
    found = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    assert [key for (key,) in found.execute("SELECT key FROM items ORDER BY id")] == keys[:-1]
    assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found.close()
    intake = await journal.accept(fence, [asset(keys[-1])])
    assert intake.accepted[0].admission is Admission.NEW
    (view,) = await journal.submissions()
    numbers = [event.number for event in await journal.events(view.id) if event.epoch < fence.epoch]
    assert numbers == list(range(1, len(keys)))
    await journal.close()


async def opened(path):
    ids = itertools.count(1)
    return await open_journal(
        path, clock=SystemClock.here(), role="all", new_id=lambda: f"id-{path.parent.name}-{next(ids)}"
    )


async def powerless_copy(directory, keys):
    """The files of a journal that took these records one by one and was never closed, its log never moved into the file."""
    (directory / "before").mkdir()
    (directory / "after").mkdir()
    journal = await opened(directory / "before/journal.db")
    fence = await journal.acquire("field:north")
    for key in keys:
        await journal.accept(fence, [asset(key)])
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(directory / "before" / name, directory / "after" / name)
    await journal.close()
    return directory / "after/journal.db"


def asset(key):
    return Candidate(
        site="north", flow="assets", place=key, participant="acme", operation=Operation.ASSET_CREATE, trigger=Trigger.REQUEST,
        request="1", key=key, content=key.encode(), digest=key.encode(), readings=b"readings",
    )  # fmt: skip
