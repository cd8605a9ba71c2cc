"""The writing side of SQLite: quick statements on the event loop, COMMIT in the thread, and the connection never wanted by both."""

import asyncio
import itertools
import random
import threading
import time

import apsw
import pytest
from failing_vfs import FULL, SYNC, FailingVfs

from bridge.clock import SystemClock
from bridge.errors import JournalFull, JournalUnusable
from bridge.journal import engine
from bridge.journal.sqlite import open_journal

HEAVY = 17


@pytest.fixture
async def made(tmp_path):
    """A writer, and how to look at its file."""
    journal = await opened(tmp_path / "journal.db")
    yield journal._writer
    await journal.close()


@pytest.fixture
def failing():
    """A disk that fails on command."""
    vfs = FailingVfs()
    yield vfs
    vfs.unregister()


async def opened(path, *, vfs=None):
    ids = itertools.count()
    return await open_journal(path, clock=SystemClock.here(), role="all", new_id=lambda: f"id-{next(ids)}", vfs=vfs)


def note(word, seen=None):
    """Work that writes an event of this subject and remembers which thread did it."""

    def work(tx):
        if seen is not None:
            seen.append((word, threading.get_ident()))
        tx.event(None, "acme", "noted", word, {})
        return word

    return work


def fail(tx):
    tx.event(None, "acme", "noted", "never", {})
    raise ValueError("no")


def noted(path):
    """Subjects in the order of their numbers, which have no hole."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = db.execute("SELECT number, subject FROM events WHERE kind = 'noted' ORDER BY number").fetchall()
    finally:
        db.close()
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
    return [subject for _, subject in rows]


async def test_quick_statements_run_on_the_loop_and_others_in_the_thread(made):
    seen = []
    for word, given in (("quick", {"quick": True}), ("many", {"quick": True, "weight": HEAVY}), ("plain", {})):
        assert (await made.run(note(word, seen), **given)).value == word
    here = threading.get_ident()
    assert [(word, at == here) for word, at in seen] == [("quick", True), ("many", False), ("plain", False)]


async def test_what_comes_in_one_turn_is_one_commit(made):
    done = await asyncio.gather(*(made.run(note(f"{n}"), quick=True) for n in range(4)))
    assert [one.value for one in done] == ["0", "1", "2", "3"]
    assert len({one.at for one in done}) == 1


async def test_what_comes_during_a_commit_is_the_next_one(made):
    first = asyncio.create_task(made.run(note("first"), quick=True))
    while not made._committing:
        await asyncio.sleep(0)
    rest = await asyncio.gather(*(made.run(note(f"{n}"), quick=True) for n in range(3)))
    assert (await first).at != rest[0].at
    assert len({one.at for one in rest}) == 1


def slow(writer, seconds):
    """Each commit of this writer takes so long more."""
    commit = writer._commit

    def slowly(*given):
        time.sleep(seconds)
        commit(*given)

    writer._commit = slowly


async def test_what_can_wait_goes_with_the_next_commit(made):
    lazy = asyncio.ensure_future(made.run(note("lazy"), quick=True, lazy=True))
    await asyncio.sleep(0)
    assert not lazy.done()
    other = await made.run(note("other"), quick=True)
    assert (await lazy).at == other.at


async def test_what_can_wait_does_not_wait_for_ever(made, tmp_path):
    began = time.monotonic()
    for word in ("alone", "again"):
        await made.run(note(word), quick=True, lazy=True)
    assert time.monotonic() - began >= 2 * engine._LAZY_S * 0.9
    assert noted(tmp_path / "journal.db") == ["alone", "again"]


async def test_what_can_wait_and_meets_a_commit_under_way_follows_it(made, tmp_path):
    slow(made, 2 * engine._LAZY_S)
    first = asyncio.ensure_future(made.run(note("first"), quick=True))
    while not made._committing:
        await asyncio.sleep(0)
    await made.run(note("lazy"), quick=True, lazy=True)
    await first
    assert noted(tmp_path / "journal.db") == ["first", "lazy"]


async def test_what_can_wait_is_on_disk_when_the_journal_is_closed(tmp_path):
    journal = await opened(tmp_path / "journal.db")
    lazy = asyncio.ensure_future(journal._writer.run(note("lazy"), quick=True, lazy=True))
    await asyncio.sleep(0)
    await journal.close()
    await lazy
    assert noted(tmp_path / "journal.db") == ["lazy"]


async def test_what_is_quickly_read_is_read_on_the_loop_unless_the_thread_reads(tmp_path):
    journal = await opened(tmp_path / "journal.db")
    reader, seen, reads, go_on = journal._reader, [], threading.Event(), threading.Event()

    def look(rows):
        seen.append(threading.get_ident() == threading.main_thread().ident)
        return rows.one("SELECT 7")[0]

    def long(_):
        reads.set()
        go_on.wait(10)

    assert await reader.run(look, quick=True) == 7
    thread = asyncio.ensure_future(reader.run(long))
    while not reads.is_set():
        await asyncio.sleep(0.001)
    behind = asyncio.ensure_future(reader.run(look, quick=True))
    await asyncio.sleep(0)
    go_on.set()
    await thread
    assert await behind == 7
    assert seen == [True, False]
    with pytest.raises(JournalUnusable, match="no such table"):
        await reader.run(lambda rows: rows.one("SELECT 1 FROM nowhere"), quick=True)
    await journal.close()
    with pytest.raises(JournalUnusable, match="the journal is closed"):
        await reader.run(look, quick=True)


async def test_the_loop_does_not_wait_for_another_process(made, tmp_path):
    seen, other = [], apsw.Connection(str(tmp_path / "journal.db"))
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(made.run(note("late", seen), quick=True))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done()
    other.execute("COMMIT")
    other.close()
    assert (await waiting).value == "late"
    assert seen[0][1] != threading.get_ident()


async def test_one_that_fails_takes_nothing_of_the_others_along(made, tmp_path):
    done = await asyncio.gather(
        made.run(note("a"), quick=True), made.run(fail, quick=True), made.run(note("b"), quick=True),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(done[1], ValueError)
    with pytest.raises(ValueError, match="no"):
        await made.run(fail, quick=True)
    await made.run(note("c"), quick=True)
    assert noted(tmp_path / "journal.db") == ["a", "b", "c"]


@pytest.mark.parametrize("quick", [True, False], ids=["on the loop", "in the thread"])
async def test_what_is_done_again_leaves_nothing_of_its_first_time(made, tmp_path, quick):
    """One of a transaction fails: the others' statements are in it once, their numbers have no hole, topics of the failed one are not told."""
    woken = made._wake.event("of the failed one")

    def failing(tx):
        tx.topics.add("of the failed one")
        return fail(tx)

    done = await asyncio.gather(
        *(made.run(note(word), quick=quick) for word in "abc"), made.run(failing, quick=quick), made.run(note("d"), quick=quick),
        return_exceptions=True,
    )  # fmt: skip
    assert [one.value for one in done if not isinstance(one, ValueError)] == ["a", "b", "c", "d"]
    assert isinstance(done[3], ValueError)
    assert noted(tmp_path / "journal.db") == ["a", "b", "c", "d"]
    assert not woken.is_set()


async def test_both_take_turns_whatever_comes(made, tmp_path, monkeypatch):
    """The log is moved at each commit, so that the thread has work of its own behind each; nobody waits for ever, nothing is lost."""
    monkeypatch.setattr(engine, "_CHECKPOINT_PAGES", 1)
    drawn = random.Random(11)

    async def caller(name):
        for n in range(25):
            weight = drawn.choice([1, 1, 1, 5, HEAVY, 1000])
            await made.run(note(f"{name}.{n}"), weight=weight, quick=drawn.random() < 0.8)
            if drawn.random() < 0.3:
                await asyncio.sleep(drawn.choice([0, 0.001]))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for name in range(8):
            group.create_task(caller(name))
    found = noted(tmp_path / "journal.db")
    assert sorted(found) == sorted(f"{name}.{n}" for name in range(8) for n in range(25))
    for name in range(8):  # each caller's own order
        assert [one for one in found if one.startswith(f"{name}.")] == [f"{name}.{n}" for n in range(25)]


async def test_closing_serves_what_was_handed_in(tmp_path):
    journal = await opened(tmp_path / "journal.db")
    given = ({"quick": True}, {"quick": True, "weight": 1000}, {"quick": True}, {})
    asked = [asyncio.create_task(journal._writer.run(note(f"{n}"), **given[n])) for n in range(4)]
    await asyncio.sleep(0)
    await journal.close()
    assert {(await one).value for one in asked} == {"0", "1", "2", "3"}
    assert sorted(noted(tmp_path / "journal.db")) == ["0", "1", "2", "3"]
    with pytest.raises(JournalUnusable, match="the journal is closed"):
        await journal._writer.run(note("after"), quick=True)


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "with others"])
async def test_a_sync_that_fails_ends_all(tmp_path, failing, others):
    await (await opened(tmp_path / "journal.db")).close()
    journal = await opened(tmp_path / "journal.db", vfs=failing.name)
    await journal._writer.run(note("before"), quick=True)
    failing.fail("-wal", "sync", SYNC)
    asked = [asyncio.create_task(journal._writer.run(note("lost"), quick=True)) for _ in range(1 + others)]
    for one in asked:
        with pytest.raises(JournalUnusable):
            await one
    failing.heal()
    for quick in (True, False):
        with pytest.raises(JournalUnusable):
            await journal._writer.run(note("never"), quick=quick)
    await journal.close()


async def test_a_full_disk_is_told_and_goes_by(tmp_path, failing):
    await (await opened(tmp_path / "journal.db")).close()
    journal = await opened(tmp_path / "journal.db", vfs=failing.name)
    failing.fail("-wal", "write", FULL)
    with pytest.raises(JournalFull):
        await journal._writer.run(note("later"), quick=True)
    assert journal.full
    failing.heal()
    await journal._writer.run(note("again"), quick=True)
    assert not journal.full
    await journal.close()
    assert noted(tmp_path / "journal.db") == ["again"]
