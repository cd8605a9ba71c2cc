"""The kit of the journal's contract suite: an engine to open journals with, and short words for what the tests say often."""

import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import postgres
import pytest

from bridge.clock import Stamp
from bridge.journal.port import (
    AnswerNote,
    Candidate,
    DueCall,
    FastCall,
    Fence,
    Intake,
    ItemOutcome,
    Journal,
    ReturnMessage,
    SignedCall,
    WriteBackResult,
)
from bridge.journal.postgres import open_postgres
from bridge.journal.sqlite import open_journal
from bridge.model import ErrorNote, ItemState, Operation, Trigger
from bridge.submission import SubmissionState

S = 1_000_000_000
START = 1_795_000_000 * S
BOTH = (Operation.ASSET_CREATE, Operation.UNIT_CREATE)


class HandClock:
    """A clock that moves when it is told to, and a little with each look so that order shows."""

    def __init__(self) -> None:
        self.ns = START

    def now(self) -> Stamp:
        self.ns += 1000
        return Stamp(self.ns, self.ns - START, "boot")

    def wall_ns(self) -> int:
        return self.now().wall_ns

    def mono_ns(self) -> int:
        return self.now().mono_ns

    def advance(self, seconds: float) -> None:
        self.ns += int(seconds * S)


class SqliteEngine:
    """Opens SQLite journals in a directory of its own."""

    name = "sqlite"

    def __init__(self, directory: Path, clock: HandClock) -> None:
        self.path = directory / "journal.db"
        self._clock = clock
        self._ids = itertools.count(1)
        self._opened: list[Journal] = []

    @property
    def address(self) -> str:
        """Where another process finds the journal (for child.py)."""
        return str(self.path)

    async def lease_runs_out(self, lease: str) -> None:
        """The owner of this lease is dead: nothing to wait for, its lock file is free."""

    async def open(self, role: str = "all", *, checkpoint: bool = True) -> Journal:
        journal = await open_journal(
            self.path, clock=self._clock, role=role, new_id=lambda: f"id-{next(self._ids)}", checkpoint=checkpoint
        )
        self._opened.append(journal)
        return journal

    async def close(self) -> None:
        for journal in self._opened:
            await journal.close()


class PostgresEngine:
    """Opens journals in a database of its own."""

    name = "postgres"

    def __init__(self, cluster: postgres.Cluster, clock: HandClock) -> None:
        self.cluster = cluster
        self.database = cluster.lend()
        self.server = cluster.server(self.database)
        self._clock = clock
        self._ids = itertools.count(1)
        self._opened: list[Journal] = []

    @property
    def address(self) -> str:
        return json.dumps([self.server.host, self.database, self.server.user, self.cluster.password])

    async def lease_runs_out(self, lease: str) -> None:
        """As if the lease's time were over."""
        self.cluster.admin(
            f"UPDATE smp_bridge.leases SET expires_ns = 0 WHERE lease = '{lease}'", database=self.database
        )

    async def open(self, role: str = "all", *, checkpoint: bool = True) -> Journal:
        del checkpoint
        journal = await open_postgres(self.server, clock=self._clock, role=role, new_id=lambda: f"id-{next(self._ids)}")
        self._opened.append(journal)
        return journal

    async def close(self) -> None:
        for journal in self._opened:
            await journal.close()
        self.cluster.give_back(self.database)


class Kit:
    """One open journal with a field and a market lease, and short words."""

    site = "north"
    participant = "acme"

    def __init__(self, engine: SqliteEngine | PostgresEngine, clock: HandClock) -> None:
        self.engine = engine
        self.clock = clock
        self._calls = itertools.count(1)
        self.journal: Journal
        self.field: Fence
        self.market: Fence

    async def start(self) -> None:
        self.journal = await self.engine.open()
        self.field = await self.journal.acquire(f"field:{self.site}")
        self.market = await self.journal.acquire(f"market:{self.participant}")

    async def restart(self) -> None:
        """The process ended with its leases in its hand, and the next one begins."""
        await self.journal.close()
        for lease in (self.field.lease, self.market.lease):
            await self.engine.lease_runs_out(lease)
        await self.start()

    # field -----------------------------------------------------------------------------------------------------------

    def asset(self, key: str | None, content: str = "a", **changes) -> Candidate:
        values = {
            "site": self.site,
            "flow": "assets",
            "place": f"place-{key}",
            "participant": self.participant,
            "operation": Operation.ASSET_CREATE,
            "trigger": Trigger.CHANGE,
            "request": None,
            "key": key,
            "content": content.encode(),
            "digest": hashlib.sha256(content.encode()).digest()[:16],
            "readings": b"readings of " + content.encode(),
            "stamps": {"received": self.clock.now()},
        }
        return Candidate(**(values | changes))

    def unit(self, key: str, members: Sequence[str], **changes) -> Candidate:
        values = {"flow": "units", "operation": Operation.UNIT_CREATE, "depends": tuple(members), "max_items": 1}
        return self.asset(key, **(values | changes))

    def asked(self, key: str, sequence: str, content: str = "a", **changes) -> Candidate:
        return self.asset(key, content, **({"trigger": Trigger.REQUEST, "request": sequence} | changes))

    def message(self, key: str | None, request: str, content: str = "a", **changes) -> Candidate:
        return self.asset(
            key, content, **({"trigger": Trigger.MESSAGE, "request": request, "place": "topic"} | changes)
        )

    async def accept(self, *candidates: Candidate, fast: FastCall | None = None) -> Intake:
        return await self.journal.accept(self.field, candidates, fast)

    def fast(self, submission: str, *keys: str, **changes) -> FastCall:
        rows = tuple(range(len(keys)))
        values = {"submission": submission, "keys": keys, "rows": rows, "call": self.call(), "market": self.market}
        return FastCall(**(values | changes))

    async def told(self, *, flows: Sequence[str] = ("assets", "units"), limit: int = 1000) -> list:
        due, _ = await self.journal.due_writebacks(self.site, flows, self.clock.wall_ns(), limit)
        return list(due)

    async def write_all(self, state: str = "read_back_ok") -> list:
        due = await self.told()
        results = [
            WriteBackResult(id=row.id, generation=row.generation, state=state, stamp=self.clock.now()) for row in due
        ]
        await self.journal.wrote_back(self.field, results)
        return due

    # market ----------------------------------------------------------------------------------------------------------

    def call(self, **changes) -> SignedCall:
        number = next(self._calls)
        values = {
            "message_id": f"message-{number}",
            "correlation_id": f"correlation-{number}",
            "method": "POST",
            "path": "/assets",
            "headers": {"signature": f"signed-{number}"},
            "body": f"body-{number}".encode(),
            "kid": "key-1",
            "profile": "default",
            "stamps": {"signed": self.clock.now()},
        }
        return SignedCall(**(values | changes))

    async def next(self, *, allow: Sequence[Operation] = BOTH, participant: str = ""):
        return await self.journal.next_call(participant or self.participant, self.clock.wall_ns(), allow=allow)

    async def due(self) -> DueCall:
        due = await self.next()
        assert isinstance(due, DueCall), due
        return due

    async def send(self, items: int | None = None) -> DueCall:
        due = await self.due()
        await self.journal.sending(self.market, due.submission, self.call(), len(due.items) if items is None else items)
        return due

    def answer(self, transaction_id: str = "", **changes) -> AnswerNote:
        values = {
            "status": 202,
            "headers": {"date": "today"},
            "body": b"{}",
            "detail": "accepted",
            "transaction_id": transaction_id,
        }
        return AnswerNote(**(values | changes))

    async def sent(self, transaction_id: str = "T1", items: int | None = None) -> DueCall:
        due = await self.send(items)
        await self.journal.answered(
            self.market, due.submission, SubmissionState.AWAITING_RETURN, self.answer(transaction_id)
        )
        return due

    async def settle(
        self, due: DueCall, outcome: Callable[[str], ItemState] | ItemState = ItemState.REGISTERED, **changes
    ) -> None:
        results = [
            self.result(item.id, item.key, outcome(item.key) if callable(outcome) else outcome) for item in due.items
        ]
        states = {result.state for result in results}
        state = SubmissionState.CONFIRMED if states == {ItemState.REGISTERED} else SubmissionState.PARTIAL
        state = SubmissionState.FAILED if states == {ItemState.REFUSED} else state
        await self.journal.settle(self.market, due.submission, state, results, **({"cause": "return"} | changes))

    def result(self, item: int, key: str, state: ItemState) -> ItemOutcome:
        if state is ItemState.REGISTERED:
            return ItemOutcome(item=item, state=state, asset_id=f"asset-{key}")
        errors = (ErrorNote(code="E7", text="no such meter", field="/mpan"),) if state is ItemState.REFUSED else ()
        return ItemOutcome(item=item, state=state, errors=errors)

    async def registered(self, *keys: str) -> DueCall:
        await self.accept(*(self.asset(key) for key in keys))
        due = await self.sent(f"T-{keys[0]}")
        await self.settle(due)
        return due

    def returned(self, message_id: str = "R1", **changes) -> ReturnMessage:
        values = {
            "participant": self.participant,
            "message_id": message_id,
            "transaction_id": "T1",
            "correlation_id": "",
            "content": b"meaning",
            "body": b"the return as it came",
            "headers": {"signature": "theirs"},
            "kid": "smp-1",
            "late": False,
            "received": self.clock.now(),
        }
        return ReturnMessage(**(values | changes))

    # looking ---------------------------------------------------------------------------------------------------------

    async def state(self, submission: str) -> SubmissionState:
        found = await self.journal.find_submission(self.participant, submission=submission)
        assert found is not None
        return found.state

    async def codes(self) -> list[str]:
        return sorted(row.code for row in await self.journal.alarms())


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["sqlite", "postgres"])
async def engine(request, tmp_path: Path, clock: HandClock) -> AsyncIterator[SqliteEngine | PostgresEngine]:
    engine: SqliteEngine | PostgresEngine
    if request.param == "sqlite":
        engine = SqliteEngine(tmp_path, clock)
    else:
        engine = PostgresEngine(request.getfixturevalue("cluster"), clock)
    yield engine
    await engine.close()


@pytest.fixture
async def kit(engine: SqliteEngine | PostgresEngine, clock: HandClock) -> Kit:
    kit = Kit(engine, clock)
    await kit.start()
    return kit
