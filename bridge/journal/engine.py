"""The two threads of a SQLite journal: one that writes in groups, one that reads. Everything else of the journal is plain code that they run."""

import asyncio
import errno
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import apsw

from bridge.clock import Clock, Stamp
from bridge.errors import JournalFull, JournalUnusable
from bridge.journal.store import Numbers, Rows, Tx

T = TypeVar("T")

_BATCH: Final = 512
_CHECKPOINT_PAGES: Final = 1000
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a request returned, and when its commit was on disk."""

    value: T
    at: Stamp


@dataclass(slots=True)
class _Request:
    work: Callable[[Any], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


def translated(error: Exception) -> Exception:
    """The bridge's own error for one of SQLite's; other errors are returned as they are."""
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        return JournalFull("the journal's disk or its configured size is full", hint="make room; it goes on by itself")
    if isinstance(error, apsw.BusyError):
        return JournalUnusable("the journal was locked for too long", hint="look for a stopped process that holds it")
    if isinstance(error, (apsw.Error, OSError)):
        return JournalUnusable(f"the journal failed: {error}", hint="check the disk, then restore or move the journal")
    return error


class _Thread:
    """A thread that owns one connection and is fed requests; results go back to the loop that asked, one wake-up per batch."""

    def __init__(self, name: str, db: apsw.Connection) -> None:
        self._db = db
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def ask(self, work: Callable[[Any], Any]) -> Any:
        """Hand `work` to the thread and wait for its result."""
        if self._closing:
            raise JournalUnusable("the journal is closed")
        request = _Request(work, self._loop.create_future())
        self._queue.put(request)
        return await request.future

    async def close(self) -> None:
        """Finish what was handed in, then close the connection. Safe to call twice."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _work(self) -> None:
        more = True
        while more:
            batch, more = self._drain()
            if batch:
                self._serve(batch)
                self._resolve(batch)
            self._between()
        self._db.close()

    def _drain(self) -> tuple[list[_Request], bool]:
        batch: list[_Request] = []
        request = self._queue.get()
        while request is not None:
            batch.append(request)
            if len(batch) == _BATCH:
                return batch, True
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _serve(self, batch: list[_Request]) -> None:
        raise NotImplementedError

    def _between(self) -> None:
        """What can wait until the callers have their answers."""

    def _resolve(self, batch: list[_Request]) -> None:
        with suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(_answer, batch)


def _answer(batch: list[_Request]) -> None:
    for request in batch:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.result)


class Reader(_Thread):
    """The thread of the reading calls: a read-only connection, each call one short snapshot."""

    async def run(self, work: Callable[[Rows], T]) -> T:
        """The result of `work` on one snapshot."""
        value: T = await self.ask(work)
        return value

    def _serve(self, batch: list[_Request]) -> None:
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
        wake: Callable[[set[str]], None],
        checkpoint: bool,
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._wake = wake
        self._checkpoint = checkpoint
        self._pages = 0
        self._numbers: Numbers = {}
        db.set_wal_hook(self._wrote)
        super().__init__(name, db)

    async def run(self, work: Callable[[Tx], T]) -> Done[T]:
        """The result of `work` once it is on disk."""
        done: Done[T] = await self.ask(work)
        return done

    def _serve(self, batch: list[_Request]) -> None:
        numbers = dict(self._numbers)
        topics: set[str] = set()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for request in batch:
                self._one(request, numbers, topics)
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            self._abandon(batch, translated(error))
            return
        at = self._clock.now()
        for request in batch:
            request.result = Done(request.result, at)
        self._numbers = numbers
        if topics:
            self._wake(topics)

    def _one(self, request: _Request, numbers: Numbers, topics: set[str]) -> None:
        before, mine = dict(numbers), set[str]()
        self._db.execute("SAVEPOINT request")
        try:
            request.result = request.work(Tx(self._db, self._clock, self._writer, numbers, mine))
        except Exception as error:
            if not self._db.in_transaction:  # SQLite gave up the whole transaction (full disk, failed write)
                raise
            self._db.execute("ROLLBACK TO request")
            numbers.clear()
            numbers.update(before)
            request.error = translated(error)
        else:
            topics |= mine
        self._db.execute("RELEASE request")

    def _abandon(self, batch: Sequence[_Request], error: Exception) -> None:
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
        with suppress(apsw.Error):  # a reader or a full disk is in the way: the next commit tries again
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
