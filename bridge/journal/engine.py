"""The thread of a SQLite journal that writes in groups. Everything else of the journal is plain code that it runs.

What is quick is not handed to the writing thread whole: its statements run on the event loop, and the thread does COMMIT alone, which waits for the disk.
Each statement that a thread runs gives the interpreter away and waits for a busy loop to give it back; on the loop itself nobody takes it.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

import apsw

from bridge.clock import Clock
from bridge.journal.connections import Thread, busy, lasting, translated
from bridge.journal.room import Room
from bridge.journal.store import Numbers, Tx
from bridge.journal.threads import Done, Request, answer
from bridge.journal.wake import Wake

T = TypeVar("T")

_CHECKPOINT_PAGES: Final = 1000
_LAZY_S: Final = 0.02  # how long what can wait waits for another commit
_FEW: Final = 16  # records whose statements the loop itself runs in one go: some milliseconds at most


@dataclass(slots=True)
class _Begun(Request):
    """A transaction whose statements have run on the loop; the thread ends it, and is its owner from then on."""

    requests: list[Request] = field(default_factory=list)
    numbers: Numbers = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)


class Writer(Thread):
    """The side of the changing calls: what came while the last commit ran is one transaction; one request that fails takes nothing of the others along.

    The connection belongs to the holder of `_own`: to the thread while it has work, to the loop while it runs the statements of quick requests. The loop
    takes it only when it is free, and the thread gives it back after COMMIT.
    """

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
        self._own = threading.Lock()
        self._impatient = False
        self._handed = 0  # requests that are the thread's, statements and all
        self._committing = False
        self._planned = False
        self._waiting: list[Request] = []  # quick ones
        self._lazy: list[Request] = []  # quick ones that can wait
        db.set_wal_hook(self._wrote)
        db.set_busy_handler(self._busy)
        super().__init__(name, db, wake.here)

    # on the loop -----------------------------------------------------------------------------------------------------

    async def run(
        self,
        work: Callable[[Tx], T],
        *,
        weight: int = 1,
        quick: bool = False,
        lazy: bool = False,
        told: Callable[[Done[T] | None], None] | None = None,
    ) -> Done[T]:
        """The result of `work`, about so many records, once it is on disk.

        `quick`: a few statements for each record, which the loop may run itself. `lazy`: it may wait for the next commit of others for so long as `_LAZY_S`.
        `told`: see `bridge.journal.threads.Request`.
        """
        self._still_open()
        request = Request(work, self._loop.create_future(), weight, told=told)
        if quick and lazy and weight <= _FEW:
            if not self._lazy:
                self._loop.call_later(_LAZY_S, self._waited_enough)
            self._lazy.append(request)
        elif quick and weight <= _FEW:
            self._waiting.append(request)
            if told is None or self._planned or self._committing:
                self._plan()
            else:  # somebody waits for the very moment: what else comes in this turn is the next transaction
                self._turn()
        else:
            self._hand([request])
        done: Done[T] = await request.future
        return done

    async def close(self) -> None:
        """Finish what was handed in, then close the connection. Safe to call twice."""
        self._hand(self._taken())
        await super().close()

    def _hand(self, requests: Sequence[Request]) -> None:
        self._handed += len(requests)
        for request in requests:
            self._queue.put(request)

    def _taken(self) -> list[Request]:
        taken = self._waiting + self._lazy
        self._waiting, self._lazy = [], []
        return taken

    def _plan(self) -> None:
        """Look at the end of this turn of the loop, so that what comes in one turn is one commit."""
        if not (self._planned or self._committing):
            self._planned = True
            self._loop.call_soon(self._turn)

    def _waited_enough(self) -> None:
        self._waiting = self._taken()
        self._plan()

    def _turn(self) -> None:
        self._planned = False
        batch = self._taken()
        if not batch:
            return
        few = (batch[0].weight if len(batch) == 1 else sum(request.weight for request in batch)) <= _FEW
        if self._handed or not few or self._failed is not None or not self._own.acquire(blocking=False):
            self._hand(batch)
            return
        begun = None
        try:
            begun = self._begin(batch)
        except apsw.BusyError:  # another process writes: the thread waits for it
            self._hand(batch)
        finally:
            if begun is None:
                self._own.release()
        if begun is None:
            return
        self._committing = True
        self._queue.put(begun)

    def _begin(self, batch: list[Request]) -> _Begun | None:
        """Run the statements of a batch here. None when nothing of it is left to commit, and everybody has the answer. Raises apsw's `BusyError`."""
        self._impatient = True
        try:
            self._db.execute("BEGIN IMMEDIATE")
        finally:
            self._impatient = False
        begun = _Begun(_nothing, self._loop.create_future(), requests=batch, numbers=dict(self._numbers))
        try:
            if self._statements(batch, begun.numbers, begun.topics):
                return begun
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            self._fail(error)
            self._abandon(batch, translated(error))
        answer(batch)
        return None

    def _came_back(self, begun: _Begun) -> None:
        self._committing = False
        answer(begun.requests)
        self._heard(begun.topics)
        if self._waiting:
            self._turn()

    def _answer(self, batch: list[Request], topics: set[str]) -> None:
        self._handed -= len(batch)
        super()._answer(batch, topics)

    # in the thread ---------------------------------------------------------------------------------------------------

    def _round(self, batch: list[Request]) -> None:
        if batch and isinstance(batch[0], _Begun):
            self._finish(batch.pop(0), batch)
            return
        with self._own:
            super()._round(batch)

    def _finish(self, begun: Request, batch: list[Request]) -> None:
        """End what the loop began. The connection goes back before anybody is told, unless the thread itself has more to do: it could not get it again."""
        assert isinstance(begun, _Begun)
        try:
            self._commit(begun.requests, begun.numbers)
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            self._fail(error)
            self._abandon(begun.requests, translated(error))
            begun.topics.clear()
        self._judge(begun.requests)
        more = bool(batch) or self._due
        if not more:
            self._own.release()
        with suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(self._came_back, begun)
        if begun.topics:
            self._tell(begun.topics)
        if more:
            try:
                super()._round(batch)
            finally:
                self._own.release()

    def _serve(self, batch: list[Request]) -> None:
        if self._failed is not None:
            self._abandon(batch, self._failed)
            return
        numbers = dict(self._numbers)
        topics: set[str] = set()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if not self._statements(batch, numbers, topics):
                return
            self._commit(batch, numbers)
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            self._fail(error)
            self._abandon(batch, translated(error))
            return
        self._topics = topics

    def _tell(self, topics: set[str]) -> None:
        self._wake.others(topics)

    def _between(self) -> None:
        if not self._due:
            return
        self._pages = 0
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:  # a reader or a full disk is in the way: the next commit tries again
            self._fail(error)

    @property
    def _due(self) -> bool:
        """Whether the log is long enough to be moved into the file."""
        return self._checkpoint and self._pages >= _CHECKPOINT_PAGES

    # in either -------------------------------------------------------------------------------------------------------

    def _statements(self, batch: list[Request], numbers: Numbers, topics: set[str]) -> bool:
        """Run all requests of a transaction that has begun. False when the only one failed, and the transaction was rolled back."""
        self._room.tell(lambda: Tx(self._db, self._clock, self._writer, numbers, topics), full=self.full)
        if len(batch) == 1:
            self._one(batch[0], numbers, topics, only=True)
            if batch[0].error is not None:
                self._db.execute("ROLLBACK")
                return False
            return True
        before, mine = dict(numbers), set[str]()
        self._db.execute("SAVEPOINT requests")
        if self._together(batch, numbers, mine):
            topics |= mine
            return True
        self._db.execute("ROLLBACK TO requests")
        numbers.clear()
        numbers.update(before)
        for request in batch:
            self._one(request, numbers, topics, only=False)
        return True

    def _together(self, batch: Sequence[Request], numbers: Numbers, topics: set[str]) -> bool:
        """Run all of them without savepoints of their own, which cost two statements each; False when one failed: then each is done again under its own."""
        for request in batch:
            try:
                request.result = request.work(Tx(self._db, self._clock, self._writer, numbers, topics))
            except Exception as error:
                if not self._db.in_transaction or lasting(error):
                    raise
                return False
        return True

    def _commit(self, batch: Sequence[Request], numbers: Numbers) -> None:
        self._db.execute("COMMIT")
        at = self._clock.now()
        for request in batch:
            request.result = Done(request.result, at)
        self._room.told()
        self._numbers = numbers

    def _one(self, request: Request, numbers: Numbers, topics: set[str], *, only: bool) -> None:
        """One request under its own savepoint; `only` one of the transaction needs none, for it is rolled back whole."""
        before, mine = dict(numbers), set[str]()
        request.result = None
        if not only:
            self._db.execute("SAVEPOINT request")
        try:
            request.result = request.work(Tx(self._db, self._clock, self._writer, numbers, mine))
        except Exception as error:
            if not self._db.in_transaction or lasting(error):  # a full disk, a failed write: SQLite gave up, or we do
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

    def _busy(self, tries: int) -> bool:
        """Another process writes: the loop does not wait for it."""
        return not self._impatient and busy(tries)

    def _wrote(self, db: apsw.Connection, name: str, pages: int) -> int:
        del db, name
        self._pages = pages
        return apsw.SQLITE_OK

    def _fail(self, error: Exception) -> None:
        """Write nothing more after a failure that lasts; the host ends over it, for every call raises it from now on."""
        if lasting(error):
            self._failed = translated(error)


def _nothing(_: Tx) -> None:
    """What is left of a transaction whose statements have run."""
