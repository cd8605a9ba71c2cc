"""What sealing costs the commits, how large evidence is, and what archiving makes of it: `python tests/bench/journal_evidence.py [DIRECTORY]`.

Commits come at a steady rate; spells with the sealer and without it take turns, so that a busy machine troubles both alike.
"""

import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path

from journal_commits import Bench, call, candidate

from bridge.clock import SystemClock
from bridge.journal.archiver import Archiver, ArchiverSettings, Room
from bridge.journal.port import AnswerNote, FastCall, ItemOutcome
from bridge.journal.sealer import Sealer, SealerSettings
from bridge.journal.sealing import SEALER
from bridge.journal.sqlite import SqliteJournal, open_journal
from bridge.journal.verify import verify
from bridge.model import ItemState
from bridge.submission import SubmissionState

RATE, SPELL_S, PAIRS = int(sys.argv[3]) if len(sys.argv) > 3 else 1000, 6.0, 6


async def one(bench: Bench) -> float:
    """One commit with one event: a record that leaves at once."""
    number = next(bench.numbers)
    record = candidate(f"fast-{number}")
    fast = FastCall(
        submission=f"s{number}", keys=(record.key or "",), rows=(0,), call=call(number, 700), market=bench.market
    )
    start = time.perf_counter()
    await bench.journal.accept(bench.field, [record], fast)
    return (time.perf_counter() - start) * 1000


async def spell(bench: Bench, times: list[float]) -> tuple[int, float]:
    """Commits at the rate, each on its own; how many, and the CPU seconds of the process."""
    cpu, start, done = time.process_time(), time.perf_counter(), 0

    async def timed() -> None:
        times.append(await one(bench))

    async with asyncio.TaskGroup() as group:
        while (spent := time.perf_counter() - start) < SPELL_S:
            while done < spent * RATE:
                group.create_task(timed())
                done += 1
            await asyncio.sleep(0.001)
    return done, time.process_time() - cpu


def show(name: str, times_ms: list[float], count: int, cpu_s: float) -> None:
    ordered = sorted(times_ms)
    p50, p99, p999 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99, 0.999))
    each = cpu_s / count * 1e6
    print(f"{name:16} n={count:6}  p50 {p50:6.2f}  p99 {p99:6.2f}  p99.9 {p999:6.2f} ms  CPU {each:6.1f} µs per commit")


async def measure_sealing(bench: Bench, journal: SqliteJournal, clock: SystemClock, every_s: float) -> None:
    fence = await journal.acquire(SEALER)
    sealer = Sealer(
        SealerSettings(anchor=Path(tempfile.mkdtemp()) / "anchor.json", max_bytes=10**12, every_s=every_s),
        evidence=journal.evidence(),
        alarms=journal,
        fence=fence,
        woken=journal.woken("events"),
        clock=clock,
        room=Room(),
    )
    totals: dict[str, tuple[list[float], int, float]] = {"without": ([], 0, 0.0), "with": ([], 0, 0.0)}
    for name in ["without", "with"] * PAIRS:
        times, count, cpu = totals[name]
        task = asyncio.get_running_loop().create_task(sealer.run()) if name == "with" else None
        done, spent = await spell(bench, times)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            start = time.process_time()
            await sealer.round()
            spent += time.process_time() - start
        totals[name] = (times, count + done, cpu + spent)
        if name == "without":  # what it left is not the next spell's
            await sealer.round()
    for name, (times, count, cpu) in totals.items():
        show(f"{name} sealer", times, count, cpu)
    await journal.release([fence])


async def finish(bench: Bench, journal: SqliteJournal) -> None:
    """All calls are answered, settled and written back."""
    for number in range(next(bench.numbers)):
        note = AnswerNote(
            status=202, headers={"date": "today"}, body=b"{}", detail="accepted", transaction_id=f"T{number}"
        )
        await journal.answered(bench.market, f"s{number}", SubmissionState.AWAITING_RETURN, note)
        found = await journal.find_submission("acme", submission=f"s{number}")
        assert found is not None
        outcomes = [
            ItemOutcome(item=item.id, state=ItemState.REGISTERED, asset_id=f"a{item.id}") for item in found.items
        ]
        await journal.settle(bench.market, f"s{number}", SubmissionState.CONFIRMED, outcomes, cause="return")
        if number >= 3000:
            break
    await journal.evidence().write(lambda tx: tx.run("UPDATE writebacks SET step = 'written'"))
    await journal.evidence().write(lambda tx: tx.run("UPDATE submissions SET state = 'CONFIRMED'"))


async def measure_archive(journal: SqliteJournal, clock: SystemClock, directory: Path) -> None:
    evidence = journal.evidence()
    fence = await journal.acquire(SEALER)
    while (await evidence.seal(fence)).events:
        pass
    ((events, chars),) = await evidence.read(lambda rows: rows.all("SELECT count(*), sum(length(data)) FROM events"))
    ((blobs,),) = await evidence.read(lambda rows: rows.all("SELECT sum(length(bytes)) FROM blobs"))
    used = await evidence.used_bytes()
    print(
        f"{events} events: {used / events:.0f} bytes each in the file, of which data {chars / events:.0f} and blobs {blobs / events:.0f}"
    )
    start, cpu = time.perf_counter(), time.process_time()
    report = await Archiver(
        ArchiverSettings(directory=directory, after_s=0), evidence=evidence, journal=journal, clock=clock
    ).archive(0)
    spent, cpu = time.perf_counter() - start, time.process_time() - cpu
    left = await evidence.used_bytes()
    print(
        f"archive: {report.events} events, {report.raw_bytes / 1e6:.1f} MB -> {report.bytes / 1e6:.2f} MB"
        f" (1 : {report.raw_bytes / report.bytes:.1f}), {report.bytes / report.events:.0f} bytes an event, {spent:.1f} s, CPU {cpu:.1f} s;"
        f" the journal: {used / 1e6:.1f} -> {left / 1e6:.1f} MB used"
    )
    start = time.perf_counter()
    found = await verify(evidence.read, archive_directory=directory, anchor_file=None)
    assert found.faults == []
    print(f"verify: {time.perf_counter() - start:.1f} s")


async def main(directory: str, every_s: float) -> None:
    clock, ids = SystemClock.here(), itertools.count()
    journal = await open_journal(
        Path(directory) / "bench.db", clock=clock, role="bench", new_id=lambda: f"id-{next(ids)}"
    )
    bench = Bench(journal, clock)
    await bench.start()
    await measure_sealing(bench, journal, clock, every_s)
    await finish(bench, journal)
    await measure_archive(journal, clock, Path(directory) / "archive")
    await journal.close()


if __name__ == "__main__":
    every = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1], every))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(temporary, every))
