"""A journal that was damaged is refused and left alone, a torn end of its log is absent; nothing is reset and nothing repaired."""

import itertools
import os
import shutil
import time
from pathlib import Path

import apsw
import pytest
from fault_table import Row
from processes import world
from refusing import ended, refused, registered

from bridge.clock import SystemClock
from bridge.journal.port import Candidate
from bridge.journal.sqlite import open_journal
from bridge.model import Operation, Trigger
from bridge.submission import Admission


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


async def test_a_damaged_journal_is_refused_and_left_alone(tmp_path, table):
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
        started = time.monotonic()
        again = await made.run()
        await again.until("ready")
        assert await made.states() == ["CONFIRMED"] * 2
        recovery_s = time.monotonic() - started
        table.add(registered(made, "journal damaged, emptied, newer; put right", rounds=3, recovery_s=recovery_s))


@pytest.mark.parametrize("damage", ["cut", "garbled"])
async def test_a_torn_end_of_the_log_is_simply_absent(tmp_path, table, damage):
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
    # What was torn off is what nobody was told of: it was asked for again, above.
    kept = len(keys) - 1 + (intake.accepted[0].admission is Admission.NEW)
    table.add(
        Row(
            fault=f"journal: the log's end {damage}",
            rounds=1,
            requested=len(keys),
            accepted_once=kept,
            lost=len(keys) - kept,
        )
    )


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
