"""What only the SQLite engine has: its file, its size, its commits, its evidence on disk."""

import asyncio
import hashlib
import itertools
import threading
from contextlib import suppress
from pathlib import Path

import apsw
import pytest
from failing_vfs import FULL, READ, SYNC, WRITE, FailingVfs

from bridge.clock import Stamp, SystemClock
from bridge.errors import JournalFull, JournalUnusable
from bridge.journal import engine, opening, views
from bridge.journal.port import Candidate, FastCall, Fence, SignedCall
from bridge.journal.sqlite import SqliteJournal, open_journal, open_reader
from bridge.model import Operation, Trigger


async def opened(
    path: Path, *, checkpoint: bool = True, max_bytes: int = 0, role: str = "all", vfs: str | None = None, clock=None
) -> SqliteJournal:
    ids = itertools.count()
    return await open_journal(
        path,
        clock=clock or SystemClock.here(),
        role=role,
        new_id=lambda: f"{role}-{next(ids)}",
        checkpoint=checkpoint,
        max_bytes=max_bytes,
        vfs=vfs,
    )


def candidate(key: str, readings: bytes = b"readings") -> Candidate:
    return Candidate(
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
        readings=readings,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def rows(path: Path, sql: str) -> list[tuple]:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def header(path: Path, **pragmas: int) -> None:
    db = apsw.Connection(str(path))
    for name, value in pragmas.items():
        db.execute(f"PRAGMA {name} = {value}")
    db.close()


# ------------------------------------------------------------------------------------------------------------- opening


async def test_unreadable_file_is_refused_and_left_alone(path):
    """Not a database: the start is refused with a hint, and the bytes stay."""
    path.write_bytes(b"not a journal at all" * 1000)
    with pytest.raises(JournalUnusable) as refused:
        await opened(path)
    assert refused.value.hint
    assert path.read_bytes() == b"not a journal at all" * 1000


async def test_emptied_file_is_refused(path):
    """A journal that was cut to nothing is not started anew."""
    path.touch()
    with pytest.raises(JournalUnusable):
        await opened(path)
    assert path.stat().st_size == 0


async def test_half_made_journal_of_a_cut_off_start_is_made_anew(path):
    """A power cut while the first start made the file leaves no half journal in its place, and the next start makes a whole one."""
    for left in (b"", b"\xff" * 5000):
        made = path.with_name("journal.db.new")
        made.write_bytes(left)
        path.with_name("journal.db.new-journal").write_bytes(left)
        journal = await opened(path)
        await journal.close()
        assert path.stat().st_size > 4096
        assert not made.exists()
        assert not path.with_name("journal.db.new-journal").exists()
        path.unlink()


async def test_log_without_its_file_is_refused_and_left_alone(path):
    """Half of a journal (only `-wal` was restored) is never taken for a new one's."""
    log = path.with_name("journal.db-wal")
    log.write_bytes(b"frames" * 100)
    with pytest.raises(JournalUnusable, match="is gone") as refused:
        await opened(path)
    assert refused.value.hint
    assert log.read_bytes() == b"frames" * 100
    assert not path.exists()


async def test_torn_file_is_refused_or_fails_loudly(path):
    """A damaged schema page is found at the start."""
    journal = await opened(path)
    await journal.close()
    damaged = bytearray(path.read_bytes())
    damaged[100:4096] = b"\xff" * 3996
    path.write_bytes(damaged)
    with pytest.raises(JournalUnusable):
        await opened(path)


@pytest.mark.parametrize("where", ["middle", "end", "short"])
async def test_damage_behind_the_schema_is_refused_and_left_alone(path, where):
    """A page of nonsense in the middle or at the end, or pages that are gone: nobody works on such a file, and nothing of it is changed."""
    journal = await opened(path)
    fence = await journal.acquire("field:s")
    await journal.accept(fence, [candidate(f"K{number}", b"x" * 900) for number in range(400)])
    await journal.close()
    damaged = bytearray(path.read_bytes())
    pages = len(damaged) // 4096
    if where == "short":
        del damaged[-4096 * 3 :]
    else:
        first = (pages // 2 if where == "middle" else pages - 4) * 4096
        damaged[first : first + 4 * 4096] = b"\xa5" * (4 * 4096)
    path.write_bytes(damaged)
    with pytest.raises(JournalUnusable) as refused:
        await opened(path)
    assert "backup" in refused.value.hint
    assert path.read_bytes() == damaged


async def test_foreign_database_is_refused(path):
    """Another program's tables are not ours to migrate."""
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(JournalUnusable, match="not a journal"):
        await opened(path)
    assert rows(path, "SELECT name FROM sqlite_schema") == [("theirs",)]


async def test_newer_major_version_is_refused(path):
    """It names both versions and what to do."""
    journal = await opened(path)
    await journal.close()
    header(path, user_version=(opening.MAJOR + 1) * 10_000 + 1)
    with pytest.raises(JournalUnusable, match="major version 2") as refused:
        await opened(path)
    assert refused.value.hint


async def test_newer_minor_version_is_opened(path):
    """Migrations only add: the version before may go on with a newer journal."""
    journal = await opened(path)
    await journal.close()
    header(path, user_version=opening.MAJOR * 10_000 + 99)
    journal = await opened(path)
    await journal.acquire("field:s")
    await journal.close()
    assert rows(path, "PRAGMA user_version") == [(opening.MAJOR * 10_000 + 99,)]


async def test_directory_is_made(tmp_path):
    """A first start needs no preparation."""
    journal = await opened(tmp_path / "var" / "lib" / "journal.db")
    await journal.close()


async def test_unwritable_place_is_refused(tmp_path):
    """A path that cannot be a file is a hint, not a trace."""
    with pytest.raises(JournalUnusable):
        await opened(tmp_path)


# ---------------------------------------------------------------------------------------------------------- durability


async def test_commits_are_synced(path):
    """WAL with synchronous=FULL on the connection that writes."""
    journal = await opened(path)
    found = await journal._writer.run(
        lambda tx: (tx.one("PRAGMA journal_mode"), tx.one("PRAGMA synchronous"), tx.one("PRAGMA wal_autocheckpoint"))
    )
    await journal.close()
    assert found.value == (("wal",), (2,), (0,))


async def test_reader_cannot_write(path):
    """The reading thread's connection is read-only."""
    journal = await opened(path)
    with pytest.raises(JournalUnusable):
        await journal._reader.run(lambda rows: rows.all("DELETE FROM events"))
    await journal.close()


async def test_requests_of_one_moment_are_one_commit(path):
    """What comes while a commit runs shares the next one."""
    journal = await opened(path)
    fence = await journal.acquire("field:s")
    commits = []
    journal._writer._db.set_commit_hook(lambda: bool(commits.append(1)))
    await asyncio.gather(*(journal.accept(fence, [candidate(f"K{number}")]) for number in range(100)))
    await journal.close()
    assert 1 <= len(commits) <= 20


async def test_only_the_checkpointing_process_moves_the_log(path):
    """A field process leaves its commits in the log; the market process moves them into the file."""
    field = await opened(path, checkpoint=False, role="field")
    fence = await field.acquire("field:s")
    for number in range(3):
        await field.accept(fence, [candidate(f"K{number}-{part}", b"x" * 4000) for part in range(500)])
    small = path.stat().st_size
    assert small < 1_000_000
    market = await opened(path, role="market")
    await market.alarm("ANY")
    await market.close()
    assert path.stat().st_size > 4_000_000
    await field.close()


# ----------------------------------------------------------------------------------------------------------- full disk


async def test_full_journal_refuses_and_recovers(path):
    """At the cap callers hear `JournalFull`, what was acknowledged stays, reading works, and with room again it goes on."""
    journal = await opened(path, max_bytes=400_000)
    fence = await journal.acquire("field:s")
    big = [candidate(f"K{number}", b"x" * 10_000) for number in range(100)]
    done = [await asyncio.gather(journal.accept(fence, [one]), return_exceptions=True) for one in big]
    accepted = sum(not isinstance(entry, Exception) for (entry,) in done)
    assert 3 < accepted < 100
    assert {type(entry) for (entry,) in done if isinstance(entry, Exception)} == {JournalFull}
    (view,) = await journal.submissions()
    assert view.items == accepted
    await journal._writer.run(lambda tx: tx.run("PRAGMA max_page_count = 100000"))
    await journal.accept(fence, [candidate("after", b"x" * 10_000)])
    (view,) = await journal.submissions()
    assert view.items == accepted + 1
    events = await journal.events(view.id)
    assert [event.number for event in events] == list(range(1, accepted + 2))
    await journal.close()


# ---------------------------------------------------------------------------------------------------- a disk that fails


@pytest.fixture
def failing():
    vfs = FailingVfs()
    yield vfs
    vfs.unregister()


@pytest.mark.parametrize(
    ("file", "verb", "code"), [("-wal", "sync", SYNC), ("-wal", "write", WRITE), (".db", "read", READ)]
)
async def test_one_failure_of_the_disk_is_the_last_word(path, failing, file, verb, code):
    """A sync, write or read that failed once is never trusted again: every later commit is refused too, although the disk is well by then."""
    made = await opened(path)
    await made.close()
    journal = await opened(path, vfs=failing.name)
    fence = await journal.acquire("field:s")
    await journal.accept(fence, [candidate("before")])
    if verb == "read":
        await journal._writer.run(lambda tx: tx.db.cache_flush())
        await journal._writer.run(lambda tx: tx.db.execute("PRAGMA shrink_memory").fetchall())
    failing.fail(file, verb, code, times=1)
    failing.fail("-wal", verb, code, times=1)
    for key in ("first", "second", "third"):
        with pytest.raises(JournalUnusable) as refused:
            await journal.accept(fence, [candidate(key)])
        assert refused.value.hint
    assert failing.failed
    await journal.close()
    again = await opened(path)
    (view,) = await again.submissions()
    assert view.items in {1, 2}, "what was acknowledged, and at most what nobody was told of"
    await again.close()


async def test_checkpoint_whose_sync_fails_is_the_last_word(path, failing, monkeypatch):
    """The file behind the log is not synced: nothing more is acknowledged, for the log may be begun anew over what only it holds."""
    monkeypatch.setattr(engine, "_CHECKPOINT_PAGES", 1)
    journal = await opened(path, vfs=failing.name)
    fence = await journal.acquire("field:s")
    told = [f"K{number}" for number in range(5)]
    for key in told:
        await journal.accept(fence, [candidate(key)])
    failing.fail("journal.db", "sync", SYNC, times=1)
    with suppress(JournalUnusable):  # the checkpoint comes after the answer
        await journal.accept(fence, [candidate("last")])
    with pytest.raises(JournalUnusable):
        await journal.accept(fence, [candidate("later")])
    await journal.close()
    again = await opened(path)
    kept = [key for (key,) in rows(path, "SELECT key FROM items ORDER BY id")]
    assert set(told) <= set(kept)
    assert "later" not in kept
    await again.close()


async def test_full_disk_is_no_failure_of_it(path, failing):
    """No room: refused, shown as full, well again by itself once there is room; the alarm says since when and is cleared after a calm minute."""
    clock = MovableClock()
    journal = await opened(path, vfs=failing.name, clock=clock)
    fence = await journal.acquire("field:s")
    failing.fail("-wal", "write", FULL)
    for _ in range(3):
        with pytest.raises(JournalFull):
            await journal.accept(fence, [candidate("A")])
        assert journal.full
    assert await journal.alarms() == []
    failing.heal()
    await journal.accept(fence, [candidate("A")])
    assert not journal.full
    (alarm,) = await journal.alarms()
    assert (alarm.code, alarm.count) == ("JOURNAL_FULL", 1)
    clock.ahead_ns = 59_000_000_000
    await journal.renew([fence])
    assert len(await journal.alarms()) == 1
    clock.ahead_ns = 61_000_000_000
    await journal.renew([fence])
    assert await journal.alarms() == []
    await journal.close()


class MovableClock:
    """The machine's clocks, moved ahead."""

    def __init__(self) -> None:
        self.real = SystemClock.here()
        self.ahead_ns = 0

    def now(self):
        wall, mono, boot = self.real.now()
        return Stamp(wall + self.ahead_ns, mono + self.ahead_ns, boot)

    def wall_ns(self):
        return self.now().wall_ns

    def mono_ns(self):
        return self.now().mono_ns


# ------------------------------------------------------------------------------------------------------------ evidence


async def test_readings_and_signed_bytes_are_evidence(path):
    """Each blob's digest covers its nonce and bytes, the event carries the digest, and the readings come apart again."""
    journal = await opened(path)
    fence, market = await journal.acquire("field:s"), await journal.acquire("market:acme")
    call = SignedCall(
        message_id="m",
        correlation_id="c",
        method="POST",
        path="/",
        headers={},
        body=b"signed bytes",
        kid="k",
        profile="p",
    )
    fast = FastCall(submission="fast", keys=("A", "B"), rows=(0, 1), call=call, market=market)
    await journal.accept(fence, [candidate("A", b"first"), candidate("B", b"second")], fast)
    await journal.close()
    blobs = {
        bytes(data): (nonce, digest) for nonce, data, digest in rows(path, "SELECT nonce, bytes, digest FROM blobs")
    }
    assert all(hashlib.sha256(nonce + data).digest() == digest for data, (nonce, digest) in blobs.items())
    readings = b"\x00\x00\x00\x05first\x00\x00\x00\x06second"
    assert set(blobs) == {b"signed bytes", readings}
    ((digest, data),) = rows(path, "SELECT digest, data FROM events")
    assert digest == blobs[b"signed bytes"][1]
    assert blobs[readings][1].hex() in data
    assert rows(path, "SELECT key, part FROM items ORDER BY id") == [("A", 0), ("B", 1)]


async def test_unchanged_repeats_write_nothing(path):
    """A reconnect that reads a thousand known records leaves no row behind."""
    journal = await opened(path)
    fence = await journal.acquire("field:s")
    await journal.accept(fence, [candidate(f"K{number}") for number in range(50)])
    before = await journal.counts(), rows(path, "SELECT count(*) FROM events"), rows(path, "SELECT count(*) FROM blobs")
    await journal.accept(fence, [candidate(f"K{number}") for number in range(50)])
    after = await journal.counts(), rows(path, "SELECT count(*) FROM events"), rows(path, "SELECT count(*) FROM blobs")
    await journal.close()
    assert after == before


async def test_nobody_waits_for_a_scrape(path, monkeypatch):
    """Counting takes as long as the journal is large; what sends and settles reads meanwhile."""
    begun, go_on, count = threading.Event(), threading.Event(), views.counts

    def counting(rows):
        begun.set()
        assert go_on.wait(10)
        return count(rows)

    monkeypatch.setattr(views, "counts", counting)
    journal = await opened(path)
    fence = await journal.acquire("field:s")
    await journal.accept(fence, [candidate("A")])
    asked = asyncio.ensure_future(journal.counts())
    assert await asyncio.to_thread(begun.wait, 10)
    async with asyncio.timeout(5):
        (due,) = await journal.next_calls("acme", SystemClock.here().wall_ns(), allow=[Operation.ASSET_CREATE], most=1)
    assert [item.key for item in due.items] == ["A"]
    assert not asked.done()
    go_on.set()
    assert (await asked)["items.waiting"] == 1
    await journal.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("journal-")]


async def test_queries_of_the_line_use_their_indexes(path):
    """A long line of blocked units or ended submissions is never scanned."""
    journal = await opened(path)
    await journal.close()
    sql = (
        "EXPLAIN QUERY PLAN SELECT seq FROM submissions WHERE participant = 'p' AND state IN ('WAITING', 'RETRY_WAIT')"
        " AND blocked = 0 AND due_ns <= 5 ORDER BY position, seq LIMIT 1"
    )
    (plan,) = [row[3] for row in rows(path, sql)]
    assert "submissions_line" in plan


async def test_fence_is_checked_in_the_same_commit(path):
    """A lease row that another hand raised fences the next commit."""
    journal = await opened(path)
    fence = await journal.acquire("field:s")
    db = apsw.Connection(str(path))
    db.execute("UPDATE leases SET epoch = epoch + 1")
    db.close()
    assert (await journal._writer.run(lambda tx: tx.holds(fence))).value is False
    assert (await journal._writer.run(lambda tx: tx.holds(Fence("field:s", fence.epoch + 1)))).value is True
    await journal.close()


async def test_a_reader_of_this_version_names_an_older_journal(path):
    """Commands that look into a journal which no service of this version has opened yet say so, with what to do; the service then mends it."""
    schema = opening._SCHEMA / "0001.sql"
    db = apsw.Connection(str(path))
    db.execute(schema.read_text())
    db.execute(f"PRAGMA application_id = {opening._APPLICATION_ID}")
    db.execute("PRAGMA user_version = 10001")
    db.close()
    with pytest.raises(JournalUnusable, match="earlier version") as refused:
        await open_reader(path)
    assert "start the service" in refused.value.hint
    await (await opened(path)).close()
    reader = await open_reader(path)
    assert await reader.submissions() == []
    await reader.close()
