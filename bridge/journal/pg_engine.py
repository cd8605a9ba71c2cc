"""The two threads of a PostgreSQL journal: one that writes in groups, one that reads.

Every writing transaction is SERIALIZABLE, and its requests depend on nothing but what they read in it. So when another process was faster, or the
session was lost before COMMIT, the whole group is simply done again. Only a COMMIT without an answer is not: nobody knows what became of it.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg.errors import UniqueViolation

from bridge.clock import Clock
from bridge.errors import JournalUnusable
from bridge.journal.pg_opening import prepare
from bridge.journal.pg_server import Connection, Server, lost, repeatable, translated, unreachable
from bridge.journal.pg_store import PgRows, PgTx
from bridge.journal.pg_wake import PgWake
from bridge.journal.room import Room
from bridge.journal.store import Numbers, Rows, Tx
from bridge.journal.threads import Done, Request, Worker

T = TypeVar("T")

PATIENCE_S: Final = 20.0  # how long a server that went away is awaited before the journal counts as unusable
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_JITTER_S: Final = 0.002
_BESIDE: Final = 4  # tries beside the other processes; after that nobody else writes meanwhile
_TRIES: Final = 8
_READ: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE: Final = b"BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE"


class _NoAnswerError(Exception):
    """COMMIT was sent and its answer never came."""


class _Session:
    """One connection of a thread, made when it is first needed and anew when it was lost."""

    def __init__(self, server: Server, name: str, db: Connection | None, *, writes: bool) -> None:
        self.server = server
        self._name = name
        self._db = db
        self._writes = writes
        self._until = 0.0
        self._pause_s = _FIRST_PAUSE_S

    @property
    def here(self) -> Connection | None:
        """The connection as it is; None when it was lost."""
        return self._db

    def get(self) -> Connection:
        """The connection, or a new one. Raises psycopg's errors."""
        if self._db is None:
            db = self.server.connect(self._name)
            if self._writes:
                prepare(db)
            self._db = db
        return self._db

    def drop(self) -> None:
        """It is of no use any more."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def well(self) -> None:
        """It works: the next loss is awaited for the whole time again."""
        self._until, self._pause_s = 0.0, _FIRST_PAUSE_S

    def patience(self) -> bool:
        """Wait a little before the next try; False when it was tried for long enough."""
        now = time.monotonic()
        self._until = self._until or now + PATIENCE_S
        if now >= self._until:
            self.well()
            return False
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        return True


class PgReader(Worker):
    """The thread of the reading calls: each is one short snapshot."""

    def __init__(self, server: Server, name: str, db: Connection | None) -> None:
        self._session = _Session(server, name, db, writes=False)
        super().__init__(name)

    async def run(self, work: Callable[[Rows], T], *, quick: bool = False) -> T:
        """The result of `work` on one snapshot. Each statement is a way to the server, so that nothing is `quick` here."""
        del quick
        value: T = await self.ask(work)
        return value

    def _serve(self, batch: list[Request]) -> None:
        for request in batch:
            try:
                request.result = self._read(request.work)
            except Exception as error:  # noqa: BLE001 - handed to the caller
                request.error = error

    def _read(self, work: Callable[[Any], Any]) -> Any:
        while True:
            db = None
            try:
                db = self._session.get()
                db.execute(_READ)
                value = work(PgRows(db))
                db.execute(b"COMMIT")
            except psycopg.Error as error:
                if not lost(error, db):
                    _roll_back(db)
                    raise translated(error) from error
                self._session.drop()
                if not self._session.patience():
                    raise unreachable(self._session.server, error) from error
            except BaseException:
                _roll_back(db)
                raise
            else:
                self._session.well()
                return value

    def _end(self) -> None:
        self._session.drop()


class PgWriter(Worker):
    """The thread of the changing calls: what came while the last commit ran is one transaction, each request under its own savepoint."""

    def __init__(self, server: Server, name: str, db: Connection, *, clock: Clock, writer: str, wake: PgWake) -> None:
        self._session = _Session(server, name, db, writes=True)
        self._clock = clock
        self._writer = writer
        self._wake = wake
        self._numbers: Numbers = {}
        self._room = Room()
        key = server.key
        self._begin = b"%s; SELECT pg_advisory_xact_lock_shared(%d)" % (_WRITE, key)
        self._alone = b"SELECT pg_advisory_lock(%d)" % key
        self._together = b"SELECT pg_advisory_unlock(%d)" % key
        super().__init__(name, wake.here)

    async def run(
        self,
        work: Callable[[Tx], T],
        *,
        weight: int = 1,
        quick: bool = False,
        lazy: bool = False,
        told: Callable[[Done[T] | None], None] | None = None,
    ) -> Done[T]:
        """The result of `work`, about so many records, once it is on disk. Each statement is a way to the server, so that nothing is `quick` here, and nothing `lazy`.

        `told`: see `bridge.journal.threads.Request`.
        """
        del quick, lazy
        self._still_open()
        request = Request(work, self._loop.create_future(), weight, told=told)
        self._queue.put(request)
        done: Done[T] = await request.future
        return done

    def _serve(self, batch: list[Request]) -> None:
        try:
            self._until_done(batch)
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            _roll_back(self._session.here)
            for request in batch:
                request.error = request.error or translated(error)

    def _until_done(self, batch: list[Request]) -> None:
        tries = 0
        while True:
            try:
                self._try(batch, tries)
            except psycopg.Error as error:
                db = self._session.here
                if lost(error, db):
                    self._session.drop()
                    if not self._session.patience():
                        raise unreachable(self._session.server, error) from error
                elif repeatable(error) and tries < _TRIES:
                    _roll_back(db)
                    tries += 1
                    time.sleep(random.random() * _JITTER_S * tries)  # noqa: S311 - so that two do not meet again
                else:
                    raise
            except _NoAnswerError as error:
                self._session.drop()
                hint = "start again: what the journal then holds is what counts"
                raise JournalUnusable(
                    "the database was lost during a commit, whose outcome is unknown", hint=hint
                ) from error
            else:
                self._session.well()
                return

    def _try(self, batch: list[Request], tries: int) -> None:
        """The whole group once; after some tries nobody else writes meanwhile, so that it comes to an end."""
        db = self._session.get()
        for request in batch:
            request.result = request.error = None
        alone = tries >= _BESIDE
        if alone:
            db.execute(self._alone)
        try:
            self._transact(db, batch, beside=not alone, last=tries >= _TRIES)
        finally:
            if alone:
                with suppress(psycopg.Error):
                    _roll_back(db)
                    db.execute(self._together)

    def _transact(self, db: Connection, batch: list[Request], *, beside: bool, last: bool) -> None:
        numbers = dict(self._numbers)
        topics: set[str] = set()
        db.execute(self._begin if beside else _WRITE)
        self._room.tell(lambda: PgTx(db, self._clock, self._writer, numbers, topics), full=self.full)
        for request in batch:
            self._one(db, request, numbers, topics, only=len(batch) == 1, last=last)
        if len(batch) == 1 and batch[0].error is not None:
            _roll_back(db)
            return
        if topics:
            db.execute(b"SELECT pg_notify(%s, %s)", (self._session.server.schema, self._wake.message(topics)))
        self._commit(db)
        self._room.told()
        at = self._clock.now()
        for request in batch:
            request.result = Done(request.result, at)
        self._numbers = numbers
        self._topics = topics

    def _one(
        self, db: Connection, request: Request, numbers: Numbers, topics: set[str], *, only: bool, last: bool
    ) -> None:
        before, mine = dict(numbers), set[str]()
        if not only:
            db.execute(b"SAVEPOINT request")
        try:
            request.result = request.work(PgTx(db, self._clock, self._writer, numbers, mine))
        except Exception as error:
            if isinstance(error, psycopg.Error) and (
                lost(error, db) or (repeatable(error) and not _stays(error, last))
            ):
                raise
            if not only:
                db.execute(b"ROLLBACK TO request")
            numbers.clear()
            numbers.update(before)
            request.error = translated(error)
        else:
            topics |= mine
        if not only:
            db.execute(b"RELEASE request")

    def _commit(self, db: Connection) -> None:
        try:
            done = db.execute(b"COMMIT")
        except psycopg.Error as error:
            if lost(error, db):
                raise _NoAnswerError from error
            raise
        if done.statusmessage != "COMMIT":
            raise JournalUnusable("the database took a commit back", hint="look at the server's log")

    def _end(self) -> None:
        self._session.drop()


def _stays(error: psycopg.Error, last: bool) -> bool:  # noqa: FBT001 - a fact beside an error
    """Whether a row that exists twice is no race but the request's own fault: nobody else wrote, and it is still there."""
    return last and isinstance(error, UniqueViolation)


def _roll_back(db: Connection | None) -> None:
    if db is not None and not db.closed:
        with suppress(psycopg.Error):
            db.execute(b"ROLLBACK")
