"""Connections of SQLite that a thread owns, what their errors mean to the bridge, and the one that reads."""

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import apsw

from bridge.errors import JournalFull, JournalUnusable
from bridge.journal.store import Rows
from bridge.journal.threads import Request, Worker

T = TypeVar("T")

_BUSY_TRIES: Final = 10_000
_BUSY_PAUSE_S: Final = 0.001
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def translated(error: Exception) -> Exception:
    """The bridge's own error for one of SQLite's; other errors are returned as they are."""
    if isinstance(error, apsw.FullError) or _no_room(error):
        return JournalFull("the journal's disk or its configured size is full", hint="make room; it goes on by itself")
    if isinstance(error, apsw.BusyError):
        return JournalUnusable("the journal was locked for too long", hint="look for a stopped process that holds it")
    if isinstance(error, (apsw.Error, OSError)):
        return JournalUnusable(f"the journal failed: {error}", hint="check the disk, then restore or move the journal")
    return error


def _no_room(error: Exception) -> bool:
    """A full disk that has another name: a lock file or socket that found none, or the log's shared index that cannot grow."""
    if isinstance(error, apsw.IOError):
        return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE)
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def busy(tries: int) -> bool:
    """SQLite's busy handler: wait for another process's commit. They take a millisecond or a few; SQLite's own steps grow to 100 ms."""
    time.sleep(_BUSY_PAUSE_S)
    return tries < _BUSY_TRIES


def lasting(error: Exception) -> bool:
    """Whether nothing that the disk says can be trusted any more: after a sync that failed the system may have dropped what it was to write.

    Only a new start, which reads what is really there, tells what was kept.
    """
    if _no_room(error):
        return False
    return isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError | apsw.ReadOnlyError)


class Thread(Worker):
    """A thread that owns one connection."""

    def __init__(self, name: str, db: apsw.Connection, heard: Callable[[set[str]], None] = lambda _: None) -> None:
        self._db = db
        super().__init__(name, heard)

    def _end(self) -> None:
        with suppress(apsw.Error):  # a disk that fails to the last; everything that was told is on it
            self._db.close()


class Reader(Thread):
    """The thread of the reading calls: a read-only connection, each call one short snapshot. What is quick the loop reads itself while the thread has nothing to do."""

    def __init__(self, name: str, db: apsw.Connection) -> None:
        self._own = threading.Lock()
        super().__init__(name, db)

    async def run(self, work: Callable[[Rows], T], *, quick: bool = False) -> T:
        """The result of `work` on one snapshot. `quick`: a few rows by an index, which the loop may read itself."""
        if quick and not self._closing and self._own.acquire(blocking=False):
            try:
                return self._read(work)
            except Exception as error:
                raise translated(error) from error
            finally:
                self._own.release()
        value: T = await self.ask(work)
        return value

    def _read(self, work: Callable[[Rows], T]) -> T:
        with self._db:
            value = work(Rows(self._db))
        return value  # noqa: RET504 - mypy thinks that the connection may swallow errors

    def _serve(self, batch: list[Request]) -> None:
        with self._own:
            for request in batch:
                try:
                    request.result = self._read(request.work)
                except Exception as error:  # noqa: BLE001 - handed to the caller
                    request.error = translated(error)
