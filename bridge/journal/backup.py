"""Backup and restore of a SQLite journal: one consistent file taken beside the running service, and put back when nobody works on the journal.

A PostgreSQL journal is backed up with PostgreSQL's own tools. The anchor is never part of a backup: it stays where it is and tells that the journal is older.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from bridge.clock import Clock, iso_ms
from bridge.errors import JournalFull, JournalUnusable, LeaseHeld, NotPossible
from bridge.journal import opening
from bridge.journal.connections import translated
from bridge.journal.files import NO_LINKS, make_directory, make_file, name_anew, sync_directory, sync_file

_SIDE_FILES: Final = ("-wal", "-shm", "-journal")
_DAMAGES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFacts:
    """What a checked backup holds: its size, and how far its record goes (UTC ns, 0 = no events)."""

    bytes: int
    submissions: int
    events: int
    last_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The facts of what is in place now, and where the journal went that was there before (None: there was none)."""

    facts: BackupFacts
    aside: Path | None


def back_up(journal: Path, target: Path) -> BackupFacts:
    """Write the journal's present content to the new file `target` (mode 0600), beside a running service or without one, and check it.

    It is one snapshot, without the pages and bytes that were deleted. Raises `NotPossible` when `target` exists, `JournalUnusable` or `JournalFull`.
    """
    if target.exists():
        raise NotPossible(f"{target} is there already; nothing was changed", hint="name another file")
    beside = target.with_name(f".{target.name}.partial")
    try:
        with _made(beside, _mine):
            _copy(journal, beside)
            facts = check(beside)
            sync_file(beside)
            _publish(beside, target)
    except (apsw.Error, OSError) as error:
        raise _failed(f"{target} cannot be written", error) from error
    return facts


def check(path: Path) -> BackupFacts:
    """Look through the whole file: a journal of ours, of a version that can be read, undamaged. Raises `JournalUnusable`."""
    db = opening.open_existing(path)
    try:
        damages = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({_DAMAGES_SHOWN})").fetchall()]
        if damages != ["ok"]:
            raise JournalUnusable(f"{path} is damaged: {'; '.join(damages)}", hint="use another backup")
        (row,) = db.execute(
            "SELECT (SELECT count(*) FROM submissions), count(*), coalesce(max(at_ns), 0) FROM events"
        ).fetchall()
    except apsw.Error as error:
        raise JournalUnusable(f"{path} is damaged: {error}", hint="use another backup") from error
    finally:
        db.close()
    submissions, events, last_ns = (int(str(value)) for value in row)
    return BackupFacts(bytes=path.stat().st_size, submissions=submissions, events=events, last_ns=last_ns)


def restore(source: Path, journal: Path, clock: Clock) -> Restored:
    """Put the backup `source` in the journal's place; what is there now is moved aside, never deleted.

    The restored journal remembers where it came from, so that the host holds everything until `journal reconcile`.
    Raises `LeaseHeld` while a process works on the journal, `JournalUnusable` when the backup is none, newer or damaged, and `JournalFull`.
    """
    if not source.exists():
        raise JournalUnusable(f"there is no file {source}", hint="name the file that `journal backup` wrote")
    if journal.exists() and source.samefile(journal):
        raise NotPossible(f"{source} is the journal itself", hint="name the file that `journal backup` wrote")
    check(source)
    try:
        make_directory(journal.parent)
        with _nobody_else(journal):
            made = journal.with_name(f".{journal.name}.restoring")
            with _made(made, make_file):
                _copy(source, made)
                _mark(made, f"{source.name} on {iso_ms(clock.wall_ns())}")
                facts = check(made)
                sync_file(made)
                aside = _move_aside(journal, clock)
                made.replace(journal)
                sync_directory(journal.parent)
    except (apsw.Error, OSError) as error:
        raise _failed(f"{journal} cannot be restored", error) from error
    return Restored(facts=facts, aside=aside)


# -------------------------------------------------------------------------------------------------------------- backup


@contextmanager
def _made(path: Path, make: Callable[[Path], int]) -> Iterator[None]:
    """A new empty file that only its owner can read; it is gone afterwards, unless it was given another name."""
    path.unlink(missing_ok=True)  # of a try that was cut off
    os.close(make(path))
    try:
        yield
    finally:
        for name in (path, *(Path(f"{path}{side}") for side in _SIDE_FILES)):
            name.unlink(missing_ok=True)


def _mine(path: Path) -> int:
    """A backup belongs to whoever made it, wherever it lies."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _copy(journal: Path, target: Path) -> None:
    db = opening.open_existing(journal)
    try:
        db.execute("VACUUM INTO ?", (str(target),))
    finally:
        db.close()


def _publish(beside: Path, target: Path) -> None:
    """Give the file its name without ever replacing another one."""
    try:
        name_anew(beside, target)
    except FileExistsError:
        raise NotPossible(f"{target} is there already; nothing was changed", hint="name another file") from None


# ------------------------------------------------------------------------------------------------------------- restore


@contextmanager
def _nobody_else(journal: Path) -> Iterator[None]:
    """Hold every lock of the journal, so that no process works on it and none begins to. Raises `LeaseHeld`."""
    with ExitStack() as stack:
        stack.enter_context(opening.locked(Path(f"{journal}.open.lock")))
        for path in sorted(journal.parent.glob(f"{journal.name}.*.lock")):
            if path.name == f"{journal.name}.open.lock":
                continue
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy() from None
        if journal.exists():
            _close_the_log(journal)
        yield


def _close_the_log(journal: Path) -> None:
    """Bring the write-ahead log into the file, which SQLite does only when no other connection is open; a damaged journal keeps its log beside it."""
    db: apsw.Connection | None = None
    try:
        db = apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READWRITE)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a damaged one stays as it is, byte for byte
        db.execute("PRAGMA journal_mode = DELETE")
    except (apsw.BusyError, apsw.LockedError):
        raise _busy() from None
    except apsw.Error:  # it may be damaged: that is why one restores
        return
    finally:
        if db is not None:
            with suppress(apsw.Error):
                db.close()


def _mark(path: Path, where_from: str) -> None:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        opening.migrate(db, path)
        db.execute(
            "INSERT INTO meta (name, value) VALUES ('restored', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (where_from,),
        )
    finally:
        db.close()


def _move_aside(journal: Path, clock: Clock) -> Path | None:
    """Give the present journal a second name, which it keeps when the restored one takes its place; a log that is left goes with it first."""
    if not journal.exists():
        return None
    stamp = iso_ms(clock.wall_ns())[:19].replace("-", "").replace(":", "") + "Z"
    aside = journal.with_name(f"{journal.name}.replaced-{stamp}")
    for side in _SIDE_FILES:
        with suppress(FileNotFoundError):
            Path(f"{journal}{side}").rename(f"{aside}{side}")
    try:
        os.link(journal, aside)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        journal.rename(aside)
    sync_directory(journal.parent)
    return aside


def _busy() -> LeaseHeld:
    return LeaseHeld("a process works on this journal; nothing was changed", hint="stop the service, then restore")


def _failed(text: str, error: apsw.Error | OSError) -> Exception:
    known = translated(error)
    if isinstance(known, JournalFull):
        return known
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return JournalUnusable(f"{text}: {reason}", hint="is there room, and may you write there? Nothing was changed")
