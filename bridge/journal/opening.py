"""Opening a SQLite journal: refused when it is unreadable, foreign or newer; created and migrated otherwise, never reset."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from bridge.errors import JournalFull, JournalUnusable
from bridge.journal.connections import busy, translated
from bridge.journal.files import make_directory, make_file, open_lock, sync_directory

MAJOR: Final = 1
_MAJOR_STEP: Final = 10_000
_APPLICATION_ID: Final = 0x534D5042
_SCHEMA: Final = Path(__file__).parent / "schema" / "sqlite"
_PAGE_BYTES: Final = 4096
# Each use of a statement takes the next place, and drops what lies there: one that is not used again within so many others is prepared anew.
_STATEMENTS: Final = 512
_WAL_KEPT_BYTES: Final = 64 * 1024 * 1024
_CHECKED_BYTES: Final = 512 * 1024 * 1024  # a gigabyte takes 5 s, and a start has 10
_TOLD_CHARS: Final = 200
_NOT_THE_OWNERS: Final = 0o077
_READ_WRITE: Final = apsw.SQLITE_OPEN_READWRITE  # never made by the way: `_create` does it
OLD_SCHEMA_HINT: Final = (
    "start the service of this version once: it brings the journal up to date, and the earlier one still reads it"
)
_DIRECTORY_HINT: Final = (
    "can the service write there, and is the disk well? `journal.path` in bridge.yaml names the place"
)


def open_writer(path: Path, *, checkpoint: bool, max_bytes: int, vfs: str | None = None) -> apsw.Connection:
    """The connection that writes, on a journal that exists and has this version's schema. `vfs` names SQLite's way to the disk (None: the usual one)."""
    try:
        make_directory(path.parent)
    except OSError as error:
        raise _refused(path.parent, error) from error
    with locked(Path(f"{path}.open.lock")):
        if not path.exists():
            _create(path, vfs)
        if path.stat().st_size == 0:
            raise JournalUnusable(f"{path} is empty", hint="restore it; remove it only if it never held a journal")
        _shut(path)
        try:
            db = apsw.Connection(str(path), flags=_READ_WRITE, vfs=vfs, statementcachesize=_STATEMENTS)
            _prepare(db, checkpoint=checkpoint, max_bytes=max_bytes)
            if checkpoint:
                _check_whole(db, path)
            migrate(db, path)
        except apsw.Error as error:
            raise _refused(path, error) from error
    return db


def open_reader(path: Path, *, vfs: str | None = None) -> apsw.Connection:
    """A connection that can only read."""
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs, statementcachesize=_STATEMENTS)
        db.set_busy_handler(busy)
        _plan_once(db)
    except apsw.Error as error:
        raise translated(error) from error
    return db


def open_existing(path: Path, *, migrated: bool = False) -> apsw.Connection:
    """A connection that can only read, to a journal that is ours (with `migrated`, of this version's schema); raises `JournalUnusable` otherwise."""
    if not path.exists():
        raise JournalUnusable(f"there is no journal at {path}", hint="the service makes it when it first runs")
    try:
        db = open_reader(path)
        version, application = _pragma(db, "user_version"), _pragma(db, "application_id")
    except apsw.Error as error:
        raise JournalUnusable(f"{path} cannot be read: {error}", hint="is it a journal of smp-bridge?") from error
    _check_ours(path, version, application)
    if migrated and version % _MAJOR_STEP < max(int(file.stem) for file in _SCHEMA.glob("[0-9]*.sql")):
        db.close()
        raise JournalUnusable(f"{path} was last used by an earlier version", hint=OLD_SCHEMA_HINT)
    return db


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock file for a short while; waits for another process."""
    try:
        handle = open_lock(path)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _create(path: Path, vfs: str | None) -> None:
    """Make a journal under another name and give it its own when it is whole: a power cut meanwhile leaves no half of one."""
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        raise JournalUnusable(f"{path} is gone, but {log.name} is there", hint="restore both files of one moment")
    made = Path(f"{path}.new")
    try:
        for left in (made, Path(f"{made}-journal")):  # of a start that was cut off; nobody was promised anything yet
            left.unlink(missing_ok=True)
        os.close(make_file(made))  # SQLite would make it with the umask's rights, and gives its log those of the file
        db = apsw.Connection(str(made), vfs=vfs)
        try:
            db.execute("PRAGMA synchronous = FULL")
            migrate(db, path)
        finally:
            db.close()
        made.replace(path)
        sync_directory(path.parent)
    except (apsw.Error, OSError) as error:
        raise _refused(path, error) from error


def _shut(path: Path) -> None:
    """Take from group and others what the umask gave them when an earlier version made the journal: it holds personal data."""
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(OSError):  # not there, or not ours to change
            if file.stat().st_mode & _NOT_THE_OWNERS:
                file.chmod(0o600)


def _refused(path: Path, error: apsw.Error | OSError) -> Exception:
    """Why the journal cannot be opened, and what to do about it: make room, give rights, or restore."""
    known = translated(error)
    if isinstance(known, JournalFull) or isinstance(error, apsw.BusyError):
        return known
    if isinstance(error, OSError | apsw.CantOpenError | apsw.ReadOnlyError | apsw.PermissionsError | apsw.IOError):
        return JournalUnusable(f"{path} cannot be opened: {error}", hint=_DIRECTORY_HINT)
    hint = "restore it from a backup; it is never repaired or reset by itself"
    return JournalUnusable(f"{path} cannot be used: {error}", hint=hint)


def _plan_once(db: apsw.Connection) -> None:
    """Let a statement keep its plan whatever is bound to it: SQLite makes it anew otherwise at each use, wherever the table has a partial index."""
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def _prepare(db: apsw.Connection, *, checkpoint: bool, max_bytes: int) -> None:
    db.set_busy_handler(busy)
    _plan_once(db)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # the engine does it, after the callers have their answers
    db.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0 if checkpoint else 1)
    if max_bytes:
        db.execute(f"PRAGMA max_page_count = {max(1, max_bytes // _PAGE_BYTES)}")


def migrate(db: apsw.Connection, path: Path) -> None:
    """Give the journal behind `db` this version's schema; `path` names it in errors. Raises `JournalUnusable` when it is not ours or newer."""
    version, application = _pragma(db, "user_version"), _pragma(db, "application_id")
    if application or version or db.execute("SELECT 1 FROM sqlite_schema").fetchall():
        _check_ours(path, version, application)
    done = version % _MAJOR_STEP
    steps = [file for file in sorted(_SCHEMA.glob("[0-9]*.sql")) if int(file.stem) > done]
    for file in steps:
        with db:
            db.execute(file.read_text(encoding="utf-8"))
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {MAJOR * _MAJOR_STEP + int(file.stem)}")


def _check_whole(db: apsw.Connection, path: Path) -> None:
    """Refuse a file with a broken structure before anybody works on it; what is wrong in a larger one shows when it is read, and ends the host then."""
    if path.stat().st_size > _CHECKED_BYTES:
        return
    found = str(db.execute("PRAGMA quick_check(1)").fetchall()[0][0])
    if found != "ok":
        raise apsw.CorruptError(" ".join(found.split())[:_TOLD_CHARS])


def _check_ours(path: Path, version: int, application: int) -> None:
    if application != _APPLICATION_ID:
        raise JournalUnusable(f"{path} is not a journal of smp-bridge", hint="name another file")
    if version // _MAJOR_STEP > MAJOR:
        hint = "run the version that wrote it, or a newer one"
        raise JournalUnusable(
            f"{path} was written by major version {version // _MAJOR_STEP}, this is {MAJOR}", hint=hint
        )


def _pragma(db: apsw.Connection, name: str) -> int:
    rows = db.execute(f"PRAGMA {name}").fetchall()
    value = rows[0][0]
    assert isinstance(value, int)
    return value
