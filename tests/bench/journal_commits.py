"""How long the journal's commits take on this machine: `python tests/bench/journal_commits.py [DIRECTORY | --postgres]`. Put DIRECTORY on the disk in question.

With --postgres a private server is started, in the directory for temporary files.
"""

import asyncio
import hashlib
import itertools
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bridge.clock import SystemClock
from bridge.journal.port import AnswerNote, Candidate, DueCall, FastCall, ItemOutcome, Journal, SignedCall
from bridge.journal.sqlite import open_journal
from bridge.model import ItemState, Operation, Trigger
from bridge.submission import SubmissionState

ROUNDS_FAST, ROUNDS_BATCH = 2000, 30
CLOCK = SystemClock.here()
CONTENT = b'{"assetReference":"%s","assetName":"a battery","importMpan":"1234567890123","maxExportKw":500}' + b" " * 300


def candidate(key: str) -> Candidate:
    content = CONTENT % key.encode()
    return Candidate(
        site="bench",
        flow="assets",
        place=key,
        participant="acme",
        operation=Operation.ASSET_CREATE,
        trigger=Trigger.CHANGE,
        request=None,
        key=key,
        content=content,
        digest=hashlib.sha256(content).digest()[:16],
        readings=content,
    )


def call(number: int, size: int) -> SignedCall:
    return SignedCall(
        message_id=f"m{number}",
        correlation_id=f"c{number}",
        method="POST",
        path="/assets",
        headers={"signature": "s" * 400},
        body=b"b" * size,
        kid="k",
        profile="default",
    )


class Bench:
    def __init__(self, journal: Journal, clock: SystemClock, first: int = 0) -> None:
        self.journal, self.clock = journal, clock
        self.numbers = itertools.count(first)

    async def start(self) -> None:
        self.field = await self.journal.acquire("field:bench")
        self.market = await self.journal.acquire("market:acme")

    async def accept_fast(self) -> float:
        number = next(self.numbers)
        one = candidate(f"fast-{number}")
        fast = FastCall(
            submission=f"s{number}", keys=(one.key or "",), rows=(0,), call=call(number, 700), market=self.market
        )
        return await timed(lambda: self.journal.accept(self.field, [one], fast))

    async def accept_batch(self) -> float:
        number = next(self.numbers)
        many = [candidate(f"batch-{number}-{part}") for part in range(1000)]
        return await timed(lambda: self.journal.accept(self.field, many))

    async def rest(self) -> dict[str, float]:
        """Send, answer and settle what `accept_batch` left."""
        spent: dict[str, float] = {}
        allow = [Operation.ASSET_CREATE]

        async def take() -> None:
            spent["due"] = await self.journal.next_call("acme", self.clock.wall_ns(), allow=allow)  # type: ignore[assignment]

        spent["next_call 1000"] = await timed(take)
        due = spent.pop("due")
        assert isinstance(due, DueCall)
        signed = call(next(self.numbers), 500_000)
        spent["sending 1000"] = await timed(lambda: self.journal.sending(self.market, due.submission, signed, 1000))
        note = AnswerNote(status=202, headers={}, body=b"{}", detail="", transaction_id=f"T{due.submission}")
        state = SubmissionState.AWAITING_RETURN
        spent["answered 1000"] = await timed(lambda: self.journal.answered(self.market, due.submission, state, note))
        done = [ItemOutcome(item=item.id, state=ItemState.REGISTERED, asset_id=f"a{item.id}") for item in due.items]
        state = SubmissionState.CONFIRMED
        spent["settle 1000"] = await timed(
            lambda: self.journal.settle(self.market, due.submission, state, done, cause="bench")
        )
        return spent


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1000


def show(name: str, times_ms: list[float]) -> None:
    ordered = sorted(times_ms)
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{name:16} n={len(ordered):5}  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  max {ordered[-1]:7.2f} ms")


async def sqlite(directory: str) -> None:
    ids = itertools.count()
    path = Path(directory) / "bench.db"
    await measure(await open_journal(path, clock=CLOCK, role="bench", new_id=lambda: f"id-{next(ids)}"))
    print(f"{'file':16} {path.stat().st_size / 1e6:.1f} MB")


async def on_postgres() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    import postgres

    from bridge.journal.postgres import open_postgres

    ids, cluster = itertools.count(), postgres.started()
    try:
        server = cluster.server(cluster.fresh())
        await measure(await open_postgres(server, clock=CLOCK, role="bench", new_id=lambda: f"id-{next(ids)}"))
    finally:
        cluster.remove()


async def measure(journal: Journal) -> None:
    bench = Bench(journal, CLOCK)
    await bench.start()
    show("accept fast 1", [await bench.accept_fast() for _ in range(ROUNDS_FAST)])
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS_BATCH):
        spent = {"accept 1000": await bench.accept_batch()} | await bench.rest()
        for name, value in spent.items():
            times.setdefault(name, []).append(value)
    for name, values in times.items():
        show(name, values)
    await journal.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--postgres"]:
        asyncio.run(on_postgres())
    elif len(sys.argv) > 1:
        asyncio.run(sqlite(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(sqlite(temporary))
