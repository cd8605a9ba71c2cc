"""The two threads of a SQLite journal: one that writes in groups, one that reads. Everything else of the journal is plain code that they run."""

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

import apsw

from bridge.clock import Clock
from bridge.errors import JournalFull, JournalUnusable
from bridge.journal.room import Room
from bridge.journal.store import Numbers, Rows, Tx
from bridge.journal.threads import Done, Request, Worker
from bridge.journal.wake import Wake

T = TypeVar("T")

_CHECKPOINT_PAGES: Final = 1000
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


def _lasting(error: Exception) -> bool:
    """Whether nothing that the disk says can be trusted any more: after a sync that failed the system may have dropped what it was to write.

    Only a new start, which reads what is really there, tells what was kept.
    """
    if _no_room(error):
        return False
    return isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError | apsw.ReadOnlyError)


class _Thread(Worker):
    """A thread that owns one connection."""

    def __init__(self, name: str, db: apsw.Connection, heard: Callable[[set[str]], None] = lambda _: None) -> None:
        self._db = db
        super().__init__(name, heard)

    def _end(self) -> None:
        with suppress(apsw.Error):  # a disk that fails to the last; everything that was told is on it
            self._db.close()


class Reader(_Thread):
    """The thread of the reading calls: a read-only connection, each call one short snapshot."""

    async def run(self, work: Callable[[Rows], T]) -> T:
        """The result of `work` on one snapshot."""
        value: T = await self.ask(work)
        return value

    def _serve(self, batch: list[Request]) -> None:
        for request in batch:
            try:
                with self._db:
                    request.result = request.work(Rows(self._db))
            except Exception as error:  # noqa: BLE001 - handed to the caller
                request.error = translated(error)


class Writer(_Thread):
    """The thread of the changing calls: what came while the last commit ran is one transaction, each request under its own savepoint."""

    def __init__(
        self,
        name: str,
        db: apsw.Connection,
        *,
        clock: Clock,
        writer: str,
        wake: Wake,
        checkpoint: bool,
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._wake = wake
        self._checkpoint = checkpoint
        self._pages = 0
        self._numbers: Numbers = {}
        self._failed: Exception | None = None
        self._room = Room()
        db.set_wal_hook(self._wrote)
        super().__init__(name, db, wake.here)

    async def run(self, work: Callable[[Tx], T], *, weight: int = 1) -> Done[T]:
        """The result of `work`, about so many records, once it is on disk."""
        done: Done[T] = await self.ask(work, weight=weight)
        return done

    def _serve(self, batch: list[Request]) -> None:
        if self._failed is not None:
            self._abandon(batch, self._failed)
            return
        numbers = dict(self._numbers)
        topics: set[str] = set()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._room.tell(Tx(self._db, self._clock, self._writer, numbers, topics), full=self.full)
            for request in batch:
                self._one(request, numbers, topics, only=len(batch) == 1)
            if len(batch) == 1 and batch[0].error is not None:
                self._db.execute("ROLLBACK")
                return
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            self._fail(error)
            self._abandon(batch, translated(error))
            return
        at = self._clock.now()
        for request in batch:
            request.result = Done(request.result, at)
        self._room.told()
        self._numbers = numbers
        self._topics = topics

    def _tell(self, topics: set[str]) -> None:
        self._wake.others(topics)

    def _one(self, request: Request, numbers: Numbers, topics: set[str], *, only: bool) -> None:
        """One request under its own savepoint; `only` one of the transaction needs none, for it is rolled back whole."""
        before, mine = dict(numbers), set[str]()
        if not only:
            self._db.execute("SAVEPOINT request")
        try:
            request.result = request.work(Tx(self._db, self._clock, self._writer, numbers, mine))
        except Exception as error:
            if not self._db.in_transaction or _lasting(error):  # a full disk, a failed write: SQLite gave up, or we do
                raise
            if not only:
                self._db.execute("ROLLBACK TO request")
            numbers.clear()
            numbers.update(before)
            request.error = translated(error)
        else:
            topics |= mine
        if not only:
            self._db.execute("RELEASE request")

    def _abandon(self, batch: Sequence[Request], error: Exception) -> None:
        with suppress(apsw.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        for request in batch:
            request.error = request.error or error

    def _wrote(self, db: apsw.Connection, name: str, pages: int) -> int:
        del db, name
        self._pages = pages
        return apsw.SQLITE_OK

    def _between(self) -> None:
        if not self._checkpoint or self._pages < _CHECKPOINT_PAGES:
            return
        self._pages = 0
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:  # a reader or a full disk is in the way: the next commit tries again
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Write nothing more after a failure that lasts; the host ends over it, for every call raises it from now on."""
        if _lasting(error):
            self._failed = translated(error)
