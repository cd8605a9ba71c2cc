"""What tracing costs the host: `python tests/bench/traces.py [ROUNDS]` (about 20 s by default, on an idle machine).

Hosts with and without `tracing:` run one after the other, each in a process of its own, and take the same records from an EMS in their memory, one a call,
at 100/s; sandbox and collector stand in this process. Compared is the processor time of the host's process per record, returns and write-backs included.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"
sys.path.insert(0, str(SUPPORT))

from memory_adapter import MemoryEms, memory_adapter  # noqa: E402
from otlp_collector import collector  # noqa: E402
from service import ASSETS, PARTICIPANT, fill, prepared  # noqa: E402

from bridge.app import Host, Running  # noqa: E402
from bridge.config import load  # noqa: E402
from bridge.process import calm  # noqa: E402
from bridge.spans import ROOT  # noqa: E402

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


async def main(rounds: int) -> None:
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
