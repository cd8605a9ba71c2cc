"""Backup and restore of the SQLite journal: consistent beside a working service, never replacing or deleting anything, and noticed afterwards."""

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from bridge.clock import SystemClock
from bridge.errors import JournalFull, JournalUnusable, LeaseHeld, NotPossible
from bridge.journal import opening, sealing
from bridge.journal.anchor import AnchorVerdict
from bridge.journal.backup import back_up, check, restore
from bridge.journal.port import Candidate
from bridge.journal.sqlite import open_journal, open_reader
from bridge.journal.verify import verify
from bridge.model import Operation, Trigger

CLOCK = SystemClock.here()


async def opened(path: Path):
    ids = itertools.count()
    return await open_journal(path, clock=CLOCK, role="all", new_id=lambda: f"s-{next(ids)}-{CLOCK.wall_ns()}")


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


async def fill(path: Path, *keys: str) -> None:
    """A journal with these keys, sealed and closed."""
    journal = await opened(path)
    try:
        field, sealer = await journal.acquire("field:s"), await journal.acquire(sealing.SEALER)
        for key in keys:
            await journal.accept(field, [candidate(key)])
        while (await journal.evidence().seal(sealer)).events:
            pass
    finally:
        await journal.close()


def rows(path: Path, sql: str) -> list[tuple]:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def keys_of(path: Path) -> list[str]:
    return [row[0] for row in rows(path, "SELECT key FROM items ORDER BY id")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "journal.db"


# -------------------------------------------------------------------------------------------------------------- backup


async def test_backup_beside_a_working_service_is_one_moment(path, tmp_path):
    """Everything that was told before the backup began is in it, and what is in it belongs together."""
    journal = await opened(path)
    field = await journal.acquire("field:s")
    told, stop, meanwhile = [], asyncio.Event(), 0

    async def work(name):
        for number in itertools.count():
            if stop.is_set():
                return
            await journal.accept(field, [candidate(f"{name}-{number}", b"x" * 5000)])
            told.append(f"{name}-{number}")

    async with asyncio.TaskGroup() as group:
        for name in "abcd":
            group.create_task(work(name))
        for number in range(5):
            while len(told) < 200 * (number + 1):
                await asyncio.sleep(0.001)
            before = set(told)
            facts = await asyncio.to_thread(back_up, path, tmp_path / f"backup-{number}.db")
            after = set(told)
            held = set(keys_of(tmp_path / f"backup-{number}.db"))
            assert before <= held
            meanwhile += len(after) - len(before)
            assert facts.events == sum(1 for _ in rows(tmp_path / f"backup-{number}.db", "SELECT 1 FROM events"))
        stop.set()
    assert meanwhile, "nobody worked while a backup was made"
    await journal.close()
    last = tmp_path / "backup-4.db"
    assert rows(last, "SELECT count(*) FROM items i LEFT JOIN blobs b ON b.id = i.readings WHERE b.id IS NULL") == [
        (0,)
    ]
    assert rows(last, "SELECT sum(items) FROM submissions") == rows(last, "SELECT count(*) FROM items")


async def test_backup_replaces_no_file_and_is_private(path, tmp_path):
    """An existing file stays as it is; a new one can be read by its owner alone, and nothing else is left."""
    await fill(path, "A")
    target = tmp_path / "there.db"
    target.write_text("precious")
    with pytest.raises(NotPossible):
        back_up(path, target)
    assert target.read_text() == "precious"
    directory = tmp_path / "backups"
    directory.mkdir()
    back_up(path, directory / "b.db")
    assert (directory / "b.db").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in directory.iterdir()] == ["b.db"]
    assert rows(directory / "b.db", "PRAGMA application_id") == rows(path, "PRAGMA application_id")
    assert rows(directory / "b.db", "PRAGMA user_version") == rows(path, "PRAGMA user_version")


async def test_backup_holds_nothing_that_was_deleted(path, tmp_path):
    """Bytes of a deleted blob do not travel in free pages."""
    await fill(path, "A")
    db = apsw.Connection(str(path))
    db.execute(
        "INSERT INTO blobs (participant, nonce, bytes, digest) VALUES ('p', x'00', ?, x'00')", (b"personal" * 9999,)
    )
    db.execute("DELETE FROM blobs WHERE participant = 'p'")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    assert b"personalpersonal" in path.read_bytes()
    back_up(path, tmp_path / "b.db")
    assert b"personalpersonal" not in (tmp_path / "b.db").read_bytes()


async def test_backup_that_cannot_be_written_leaves_nothing(path, tmp_path):
    """No directory, no right, no journal: told with a hint, and no half file stays."""
    await fill(path, "A")
    with pytest.raises(JournalUnusable):
        back_up(path, tmp_path / "nowhere" / "b.db")
    with pytest.raises(JournalUnusable):
        back_up(tmp_path / "none.db", tmp_path / "b.db")
    assert list(tmp_path.glob("*b.db*")) == []
    assert list(tmp_path.glob(".*")) == []


# ------------------------------------------------------------------------------------------------------------- restore


async def test_restore_puts_the_backup_in_place_and_the_journal_aside(path, tmp_path):
    """Both are whole afterwards, and the restored one is behind its anchor until somebody reconciles it."""
    await fill(path, "A", "B")
    anchor = tmp_path / "anchor" / "journal.json"
    back_up(path, tmp_path / "b.db")
    journal = await opened(path)
    await journal.evidence().write_anchor(anchor)
    await journal.close()
    await fill(path, "C")
    done = restore(tmp_path / "b.db", path, CLOCK)
    assert done.facts.submissions == check(tmp_path / "b.db").submissions
    assert keys_of(path) == ["A", "B"]
    assert done.aside is not None
    assert keys_of(done.aside) == ["A", "B", "C"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(path.parent.glob(".*"))
    journal = await opened(path)
    finding = await journal.evidence().compare(anchor)
    assert finding.verdict is AnchorVerdict.BEHIND
    assert "b.db" in finding.text
    await journal.evidence().rebase(anchor)
    assert (await journal.evidence().compare(anchor)).verdict is AnchorVerdict.AGREES
    await journal.accept(await journal.acquire("field:s"), [candidate("D")])
    await journal.close()
    assert keys_of(path) == ["A", "B", "D"]
    assert keys_of(tmp_path / "b.db") == ["A", "B"]


async def test_a_copied_file_without_the_mark_is_behind_by_its_blocks(path, tmp_path):
    """A virtual machine that is rolled back restores nothing by our command; the anchor tells all the same."""
    await fill(path, "A")
    back_up(path, tmp_path / "b.db")
    await fill(path, "B")
    journal = await opened(path)
    anchor = tmp_path / "anchor.json"
    await journal.evidence().write_anchor(anchor)
    await journal.close()
    path.write_bytes((tmp_path / "b.db").read_bytes())
    journal = await opened(path)
    assert (await journal.evidence().compare(anchor)).verdict is AnchorVerdict.BEHIND
    await journal.close()


async def test_restore_where_there_is_no_journal(path, tmp_path):
    """A new machine: nothing is moved aside."""
    await fill(path, "A")
    back_up(path, tmp_path / "b.db")
    other = tmp_path / "new" / "journal.db"
    assert restore(tmp_path / "b.db", other, CLOCK).aside is None
    assert keys_of(other) == ["A"]


async def test_restore_over_a_damaged_journal(path, tmp_path):
    """The very reason to restore: what is left of it, with its log, goes aside byte for byte."""
    await fill(path, "A")
    back_up(path, tmp_path / "b.db")
    path.write_bytes(b"\x00garbage" * 1000)
    log = Path(f"{path}-wal")
    log.write_bytes(b"a log")
    done = restore(tmp_path / "b.db", path, CLOCK)
    assert keys_of(path) == ["A"]
    assert done.aside.read_bytes() == b"\x00garbage" * 1000
    assert Path(f"{done.aside}-wal").read_bytes() == b"a log"
    assert not log.exists()


async def test_restore_is_refused_while_somebody_works_on_the_journal(path, tmp_path):
    """A lease, or only an open connection, of another process: refused, and nothing was changed."""
    await fill(path, "A")
    back_up(path, tmp_path / "b.db")
    await fill(path, "B")
    holding = {
        "lease": "import fcntl,sys; f=open(sys.argv[1]+'.field%3As.lock'); fcntl.flock(f, fcntl.LOCK_EX)",
        "reader": "import apsw,sys; f=apsw.Connection(sys.argv[1]); f.execute('SELECT count(*) FROM items').fetchall()",
    }
    for name, code in holding.items():
        child = subprocess.Popen(
            [sys.executable, "-c", f"{code}; print('held', flush=True); sys.stdin.read()", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert child.stdout.readline() == b"held\n", name
            with pytest.raises(LeaseHeld):
                restore(tmp_path / "b.db", path, CLOCK)
        finally:
            child.communicate(b"", timeout=20)
        assert keys_of(path) == ["A", "B"], name
        assert not list(path.parent.glob("*replaced*")), name
    restore(tmp_path / "b.db", path, CLOCK)
    assert keys_of(path) == ["A"]


async def test_what_is_no_good_backup_is_never_put_in_place(path, tmp_path):
    """Foreign, damaged, newer, missing, or the journal itself: refused before anything is touched."""
    await fill(path, *(f"A{number}" for number in range(200)))
    good = tmp_path / "b.db"
    back_up(path, good)
    foreign, damaged, newer = (tmp_path / f"{name}.db" for name in ("foreign", "damaged", "newer"))
    db = apsw.Connection(str(foreign))
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    content = bytearray(good.read_bytes())
    for page in range(8, len(content) // 4096, 3):
        content[page * 4096 : page * 4096 + 2000] = b"\xff" * 2000
    damaged.write_bytes(content)
    newer.write_bytes(good.read_bytes())
    db = apsw.Connection(str(newer))
    db.execute(f"PRAGMA user_version = {(opening.MAJOR + 1) * 10_000}")
    db.close()
    before = path.read_bytes()
    for bad in (foreign, damaged, newer, tmp_path / "missing.db"):
        with pytest.raises(JournalUnusable) as refused:
            restore(bad, path, CLOCK)
        assert refused.value.hint
    with pytest.raises(NotPossible):
        restore(path, path, CLOCK)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*replaced*"))


async def test_a_backup_of_an_earlier_schema_is_brought_up_to_date(path, tmp_path):
    """A backup from before the last migrations can be restored, and carries the mark all the same."""
    old = tmp_path / "old.db"
    db = apsw.Connection(str(old))
    db.execute((Path(opening.__file__).parent / "schema/sqlite/0001.sql").read_text())
    db.execute("PRAGMA application_id = 0x534D5042")
    db.execute(f"PRAGMA user_version = {opening.MAJOR * 10_000 + 1}")
    db.close()
    restore(old, path, CLOCK)
    journal = await opened(path)
    finding = await journal.evidence().compare(tmp_path / "anchor.json")
    await journal.close()
    assert finding.verdict is AnchorVerdict.BEHIND


async def test_room_that_runs_out_changes_nothing(path, tmp_path, monkeypatch):
    """A full disk while restoring: the journal stays in its place."""
    await fill(path, "A")
    back_up(path, tmp_path / "b.db")
    await fill(path, "B")

    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bridge.journal.backup._copy", full)
    with pytest.raises((JournalFull, JournalUnusable)):
        restore(tmp_path / "b.db", path, CLOCK)
    assert keys_of(path) == ["A", "B"]
    assert sorted(file.name for file in path.parent.iterdir() if "lock" not in file.name) == [
        "journal.db",
        "journal.db.wake",
    ]


async def test_verification_outlives_rows_of_any_form(path, tmp_path):
    """Whatever bytes somebody wrote into the rows: the block is named, the walk goes on."""
    await fill(path, "A", "B")
    await fill(path, "C")
    for data in ("x'ff00'", "CAST(x'fffe' AS TEXT)", "7", "'{'"):
        db = apsw.Connection(str(path))
        db.execute(f"UPDATE events SET data = {data}, kind = 'SENDING' WHERE id = 1")
        db.close()
        reader = await open_reader(path)
        report = await verify(reader.snapshot, archive_directory=tmp_path / "none", anchor_file=None)
        await reader.close()
        assert [fault.place for fault in report.faults] == ["block 1"], (data, report.faults)
        assert report.chains[0].blocks == 2
