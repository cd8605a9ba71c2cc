"""What tracing costs the host: `python tests/bench/traces.py [ROUNDS]` (about 20 s by default, on an idle machine).

Hosts with and without `tracing:` run one after the other, each in a process of its own, and take the same records from an EMS in their memory, one a call,
at 100/s; sandbox and collector stand in this process. Compared is the processor time of the host's process per record, returns and write-backs included.
Before that the work for traces is timed alone, which other load disturbs less: what is noted on the record's way, and what the task beside it does later.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SUPPORT = Path(__file__).parents[1] / "support"
sys.path.insert(0, str(SUPPORT))

from memory_adapter import MemoryEms, memory_adapter  # noqa: E402
from otlp_collector import collector  # noqa: E402
from service import ASSETS, PARTICIPANT, fill, prepared  # noqa: E402

from bridge.app import Host, Running  # noqa: E402
from bridge.clock import Stamp, SystemClock  # noqa: E402
from bridge.config import load  # noqa: E402
from bridge.config.tracing import TracingOptions  # noqa: E402
from bridge.journal.port import DueWriteBack, OpenItem, OpenSubmission, WriteBackResult  # noqa: E402
from bridge.lane import SignedCall  # noqa: E402
from bridge.market.answers import Outgoing  # noqa: E402
from bridge.metrics import Metrics  # noqa: E402
from bridge.model import EmsOutcome, EmsState, ItemState, Operation  # noqa: E402
from bridge.otlp import Encoder  # noqa: E402
from bridge.platform import AnswerClass, Exchange  # noqa: E402
from bridge.process import calm  # noqa: E402
from bridge.spans import ROOT  # noqa: E402
from bridge.submission import SubmissionState  # noqa: E402
from bridge.traced import Traced  # noqa: E402
from bridge.tracing import BATCH  # noqa: E402
from bridge.turns import Turns  # noqa: E402

Told = tuple[Outgoing, Exchange, dict[str, Stamp], OpenSubmission, DueWriteBack, WriteBackResult]

ALONE = 1000
CALL = SignedCall(
    message_id="m", correlation_id="c", method="POST", path="/", headers={}, body=b"", kid="k", profile="p"
)
ROUNDS, RATE, RECORDS, WARM = 2, 100, 120, 20
SETTLE_S = 1.2  # so that the last batch of traces is part of it


async def host(directory: Path) -> None:
    """The measured process: print the port for returns, then the milliseconds of processor time per record."""
    ems = MemoryEms()
    config = load(directory, lambda name: memory_adapter(ems, name), environ={})
    running = Running(on_ready=calm)
    async with asyncio.TaskGroup() as group:
        group.create_task(Host(config).run(running))
        await running.ready.wait()
        print(running.returns_port, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await ems.until(lambda: ems.sessions)
        await take(ems, 1, WARM)
        began = time.process_time()
        await take(ems, 1 + WARM, RECORDS)
        print((time.process_time() - began) / RECORDS * 1000, flush=True)
        running.stop.set()


async def take(ems: MemoryEms, first: int, count: int) -> None:
    places = fill(ems, count, first)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, place in enumerate(places):
        await asyncio.sleep(began + number / RATE - loop.time())
        ems.request("assets", place)
    await ems.until(lambda: all(ems.last(place) == 3 for place in places), 60)
    await asyncio.sleep(SETTLE_S)


async def measured(tracing: dict[str, object]) -> float:
    """One host from its start to its end."""
    with tempfile.TemporaryDirectory() as name:
        async with prepared(Path(name), host=tracing, flows={"assets": {**ASSETS, "max_items": 1}}) as made:
            child = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--host", str(made.directory / "config"),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert child.stdin is not None
            assert child.stdout is not None
            port = int(await child.stdout.readline())
            path = made.sandbox_profile.return_path.replace("{participant}", PARTICIPANT)
            made.sandbox.set_return_url(PARTICIPANT, f"https://127.0.0.1:{port}{path}")
            child.stdin.write(b"\n")
            said = float(await child.stdout.readline())
            assert await child.wait() == 0
            return said


def submissions(first: int) -> list[Told]:
    """What a host would tell of so many submissions of one item each."""
    boot = SystemClock.here().boot
    told = []
    for number in range(first, first + ALONE):
        at = [Stamp(1_800_000_000_000_000_000 + step * 1_000_000, number + step * 1_000_000, boot) for step in range(9)]
        hops = ("received", "mapped", "signed", "journalled", "sent", "answered", "returned", "settled")
        stamps = dict(zip(hops, at, strict=False))
        name = f"01J{number:023}"
        out = Outgoing(
            submission=name, site="north", flow="assets", operation=Operation.ASSET_CREATE, keys=["BESS1"], call=CALL, stamps=stamps
        )  # fmt: skip
        exchange = Exchange(sent=True, status=202, first_byte=at[4], answered=at[5])
        end = OpenSubmission(
            id=name, participant=PARTICIPANT, site="north", flow="assets", operation=Operation.ASSET_CREATE,
            state=SubmissionState.AWAITING_RETURN, message_id="m", transaction_id="t", sent_ns=0,
            items=[OpenItem(id=1, key="BESS1", state=ItemState.SENT)],
        )  # fmt: skip
        row = DueWriteBack(
            id=number, site="north", flow="assets", place="B1", key="BESS1", generation=1, attempts=0, due_ns=0, settled=at[7],
            outcome=EmsOutcome(state=EmsState.REGISTERED, updated_ns=0), submission=name,
        )  # fmt: skip
        result = WriteBackResult(id=number, generation=1, state="read_back_ok", stamp=at[8])
        told.append((out, exchange, stamps, end, row, result))
    return told


async def alone() -> tuple[float, float]:
    """Microseconds of processor time per submission: noted in passing, and made into the body of a POST; the best of some rounds."""
    encoder = Encoder({"service.name": "bench"})
    passing, later = [], []
    plans: Any = {"assets": SimpleNamespace(participant=PARTICIPANT, operation=Operation.ASSET_CREATE)}
    for number in range(10):
        told = submissions(number * ALONE)
        options = TracingOptions(endpoint="http://127.0.0.1:9/v1/traces")  # nothing is sent there
        made = Traced(options, role="all", metrics=Metrics(), clock=SystemClock.here())
        began = time.process_time()
        for out, exchange, stamps, end, row, result in told:
            made.called(PARTICIPANT, out, exchange, AnswerClass.ACCEPTED, stamps)
            made.ended(end, SubmissionState.CONFIRMED, stamps, cause="return", outcomes=[ItemState.REGISTERED])
            made.told(plans, [row], [result])
        passing.append((time.process_time() - began) / ALONE * 1e6)
        reports = list(made._tracing._queue)
        began = time.process_time()
        for start in range(0, len(reports), BATCH):
            spans = [span for report in reports[start : start + BATCH] for span in report()]
            await encoder.request(spans, Turns())
        later.append((time.process_time() - began) / ALONE * 1e6)
    return min(passing), min(later)


async def main(rounds: int) -> None:
    passing, later = await alone()
    print(f"alone: {passing:.0f} us a submission on its way, {later:.0f} us beside it, POSTs not counted")
    off, on = [], []
    for number in range(rounds):
        off.append(await measured({}))
        async with collector() as held:
            on.append(await measured({"tracing": {"endpoint": held.url}}))
            found = len(held.named(ROOT))
            assert found == RECORDS + WARM, f"{found} traces of {RECORDS + WARM} submissions"
            spans = len(held.spans) / len(held.named(ROOT))
        print(f"round {number + 1}: {off[-1]:.3f} ms a record without, {on[-1]:.3f} ms with ({spans:.1f} spans each)")
    more = [each - other for each, other in zip(on, off, strict=True)]
    print(
        f"median: {statistics.median(off):.3f} ms without, {statistics.median(on):.3f} ms with; "
        f"{statistics.median(more):+.3f} ms a record, ratio {statistics.median(on) / statistics.median(off):.3f}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--host"]:
        asyncio.run(host(Path(sys.argv[2])))
    else:
        asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS))
