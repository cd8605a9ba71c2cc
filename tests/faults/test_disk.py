"""A disk that is full, read-only or failing: nothing is acknowledged that is not on disk, and nothing is reset."""

import asyncio
import functools
import time
from pathlib import Path

import pytest
from admin import get, value
from failing_vfs import SYNC, WRITE, FailingVfs
from fault_table import Row
from processes import world
from refusing import ended, refused, registered
from service import fill, linked, made_alarm, service, until_words, words
from small_disk import small_disk

import bridge.app
import bridge.journal.configured
from bridge.errors import JournalUnusable
from bridge.journal.sqlite import open_journal
from bridge.sandbox import Knobs

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
            answered = {entry.status for entry in made.ledger.returns if entry.status or entry.problem}
            assert answered == {503}  # one more may be under way
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


async def test_full_disk_at_the_start_is_said(tmp_path, table):
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
            started = time.monotonic()
            again = await made.run()
            await again.until("ready")
            await made.ems["rugby"].request_assets()
            await made.until_words("rugby", "registered", 4)
            table.add(registered(made, "disk full at the start", "rugby", recovery_s=time.monotonic() - started))


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
        await until_refused(made)
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
async def test_a_failing_disk_ends_the_process_in_plain_words(tmp_path, table, command):
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
        started = time.monotonic()
        again = await made.run()
        await again.until("ready")
        await made.until_told("derby", within_s=40)
        assert made.created("rugby") == [1] * 10
        told = [
            (item.state, made.sandbox.ledger.creates(item.reference))
            for ems in made.ems.values()
            for item in ems.items().values()
        ]
        row = Row(
            fault=f"disk: {command} fails", rounds=1, requested=20, accepted_once=told.count(("registered", 1)),
            in_doubt=told.count(("in_doubt", 0)), lost=20 - len(told), recovery_s=time.monotonic() - started,
        )  # fmt: skip
        table.add(row)


# -------------------------------------------------------------------------------------------------- a read-only disk


async def test_read_only_disk_at_the_start_is_said(tmp_path, table):
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
            started = time.monotonic()
            again = await made.run()
            await again.until("ready")
            await made.ems["derby"].request_assets()
            await made.until_words("derby", "registered", 4)
            assert await made.states() == ["CONFIRMED"] * 2
            table.add(registered(made, "disk read-only at the start", recovery_s=time.monotonic() - started))


async def test_a_place_that_cannot_be_written_is_said(tmp_path):
    """The journal's directory is a file, or below one."""
    async with world(tmp_path, assets=1) as made:
        (tmp_path / "file").write_text("not a directory")
        made.environment["SMP_BRIDGE_JOURNAL"] = str(tmp_path / "file/journal.db")
        refused(await ended(made), "cannot be opened", "journal.path")
