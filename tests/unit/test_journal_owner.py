"""Whose the files of a journal are: its owner's alone, whatever the umask, and the service's, whoever ran the command that made them."""

import asyncio
import itertools
import os
from pathlib import Path

import pytest

from bridge.clock import SystemClock
from bridge.errors import JournalUnusable
from bridge.journal import sealing
from bridge.journal.archiver import Archiver, ArchiverSettings
from bridge.journal.backup import back_up, restore
from bridge.journal.files import make_directory, make_file, write_durably
from bridge.journal.port import Candidate
from bridge.journal.segments import SegmentHead, SegmentWriter
from bridge.journal.sqlite import open_journal
from bridge.model import Operation, Trigger

CLOCK = SystemClock.here()
OF_SQLITE = ("-wal", "-shm", "-journal")  # which gives them to the journal's owner, with the journal's rights
RECORD = Candidate(
    site="s", flow="f", place="one", participant="acme", operation=Operation.ASSET_CREATE, trigger=Trigger.CHANGE, request=None, key="one",
    content=b"{}", digest=b"0" * 16, readings=b"readings",
)  # fmt: skip


async def worked_on(path: Path) -> dict[Path, int]:
    """A journal that was made, filled, sealed and archived; every file while it is open, with its rights for group and others."""
    ids = itertools.count()
    journal = await open_journal(path, clock=CLOCK, role="all", new_id=lambda: f"s-{next(ids)}")
    try:
        field, sealer = await journal.acquire("field:s"), await journal.acquire(sealing.SEALER)
        await journal.accept(field, [RECORD])
        while (await journal.evidence().seal(sealer)).events:
            pass
        settings = ArchiverSettings(directory=Path(f"{path}.archive"), after_s=0.0)
        await Archiver(settings, evidence=journal.evidence(), journal=journal, clock=CLOCK).archive(0.0)
        await asyncio.to_thread(write_durably, path.parent / "anchor" / "a.json", b"{}")
        return {
            file: file.stat().st_mode & 0o077 for file in (path.parent, *path.parent.rglob("*")) if not file.is_socket()
        }
    finally:
        await journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "journal.db"


async def test_nobody_else_reads_them_whatever_the_umask(path):
    """Started by hand, most umasks let everybody read; calls and personal data lie in it."""
    before = os.umask(0o022)
    try:
        rights = await worked_on(path)
    finally:
        os.umask(before)
    assert {file for file, mode in rights.items() if mode} == set()
    assert {path, Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}.wake")} <= rights.keys()


async def test_one_that_others_could_read_is_shut(path):
    """As earlier versions made it."""
    before = os.umask(0o022)
    try:
        await worked_on(path)
        path.chmod(0o644)
        rights = await worked_on(path)
    finally:
        os.umask(before)
    assert (path.stat().st_mode & 0o777, rights[Path(f"{path}-wal")]) == (0o600, 0)


@pytest.fixture
def given(monkeypatch):
    """A command of root's: which files and directories are given to another owner, by the name under which they were made."""
    found: set[str] = set()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        os, "fchown", lambda handle, uid, gid: found.add(Path(f"/proc/self/fd/{handle}").readlink().name)
    )
    monkeypatch.setattr(os, "chown", lambda name, uid, gid, **how: found.add(name))
    return found


async def test_what_a_command_of_roots_makes_is_the_services(path, tmp_path, given):
    """It belongs to the directory's owner, so that the service opens it afterwards; SQLite does so itself."""
    made = await worked_on(path)
    ours = {file.name for file in made if not file.name.endswith(OF_SQLITE)}
    named_anew = {"journal.db": "journal.db.new", "a.json": ".a.json.new"}
    assert {named_anew.get(name, name) for name in ours} <= given
    with SegmentWriter(tmp_path / "segment", SegmentHead(journal="journal", participant="acme")):
        assert "segment" in given
    assert any(name.endswith(".sock") for name in given)


async def test_a_restored_journal_is_the_services_and_a_backup_is_whose_made_it(path, tmp_path, given):
    """`journal restore` is a thing of root's, between stopping the service and starting it."""
    await worked_on(path)
    given.clear()
    back_up(path, tmp_path / "backup.db")
    assert given == set()
    restore(tmp_path / "backup.db", path, CLOCK)
    assert given == {".journal.db.restoring"}


def test_root_gives_away_nothing_that_was_there(tmp_path, given):
    """Whoever owns the directory cannot have root make him the owner of a file elsewhere."""
    other, lock = tmp_path / "shadow", tmp_path / "var" / "x.lock"
    other.write_text("root's")
    make_directory(lock.parent)
    given.clear()
    lock.symlink_to(other)
    with pytest.raises(FileExistsError):
        make_file(lock)
    beside = lock.with_name(".x.json.new")
    beside.symlink_to(other)
    write_durably(lock.with_name("x.json"), b"{}")
    assert (other.read_text(), given) == ("root's", {".x.json.new"})


async def test_a_file_in_the_directorys_place_is_said(tmp_path):
    """And left alone."""
    (tmp_path / "var").write_text("a file")
    with pytest.raises(JournalUnusable, match="Not a directory"):
        await worked_on(tmp_path / "var" / "journal.db")
    assert (tmp_path / "var").read_text() == "a file"


async def test_a_root_that_may_not_give_away_works_all_the_same(path, given, monkeypatch):
    """In a container without that right, or under a unit's filter of system calls, the files stay root's."""

    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    monkeypatch.setattr(os, "chown", refused)
    assert path in await worked_on(path)
    assert given == set()
