"""Calls whose returns are pushed, verified and written back: what a return takes, and what the figures of a protocol become. The bridge alone."""

import asyncio
import json
import time
from statistics import median

from asyncua import Client, ua
from figures import Row, percentile
from rig import BenchFailed, Rig
from worlds import BRIDGE

REGISTERED = 3
SETTLED_S = 30.0
OWN_ROUNDS = 100


class ReturnRig(Rig):
    """A rig whose SMP pushes a return 50 ms after each call."""

    async def began(self, process):
        await self.smp.ask("returns", url=await process.returns_url())

    async def settled(self, directory, received):
        """Wait for the returns of the paced calls, and for their outcomes in the EMS where that tells when they came."""
        ends = time.monotonic() + SETTLED_S
        while (await self.smp.ask("pushed"))["pushed"] < len(received) and time.monotonic() < ends:
            await asyncio.sleep(0.1)
        file = directory / "pushed.json"
        await self.smp.ask("pushed", file=str(file))
        pushed = json.loads(file.read_text())
        if len(pushed) < len(received) or any(status not in {200, 202} for *_, status in pushed):
            raise BenchFailed(
                f"{directory.name}: {len(pushed)} of {len(received)} returns were answered, or not all with 202"
            )
        times = [(answered_ns - sent_ns) / 1e6 for _, sent_ns, answered_ns, _ in pushed]
        found = {"return_ms": times, "return_p99_ms": percentile(times, 0.99)}
        return found | (await self._written(directory, pushed) if self.peer.name == "opcua" else {})

    async def _written(self, directory, pushed):
        """When each outcome stood in the EMS, by the server's own clock, and what three round trips to that server take by themselves."""
        sent = {reference: sent_ns for references, sent_ns, _, _ in pushed for reference in references}
        file, ends, times = directory / "outcomes.json", time.monotonic() + SETTLED_S, []
        while len(times) < len(sent) * 0.99 and time.monotonic() < ends:
            await asyncio.sleep(0.2)
            await self.peer.device.ask("outcomes", file=str(file))
            written = json.loads(file.read_text())
            states = {key: [at for at, state in written.get(key, []) if state == REGISTERED] for key in sent}
            times = [(at[0] - sent[key]) / 1e6 for key, at in states.items() if at]
        if len(times) < len(sent) * 0.98:
            raise BenchFailed(f"{directory.name}: {len(times)} of {len(sent)} outcomes were written into the EMS")
        own = await _own_ms(self.peer.port)
        return {
            "written_ms": times,
            "written_p95_ms": percentile(times, 0.95),
            "own_ms": own,
            "own_p95_ms": percentile(own, 0.95),
        }


async def _own_ms(port):
    """A key read, a value written, and read back, by the least client there is."""
    times = []
    async with Client(f"opc.tcp://127.0.0.1:{port}") as client:
        index = await client.get_namespace_index("urn:acme:bench")
        key, state = (client.get_node(ua.NodeId(f"EMS/S0000/{name}", index)) for name in ("Reference", "State"))
        for _ in range(OWN_ROUNDS):
            began = time.perf_counter()
            await key.read_value()
            await state.write_value(ua.DataValue(ua.Variant(0, ua.VariantType.Int32)))
            await state.read_value()
            times.append((time.perf_counter() - began) * 1000)
    return times


async def returned(chosen, world, smp, peer):
    """Rows and raw samples of one protocol. A later run against an earlier one of the same bench shows the trend."""
    rig = ReturnRig(world, smp, peer, rate=chosen.rate, seconds=chosen.seconds, warm_s=chosen.warm, burst=0)
    runs = []
    try:
        for number in range(chosen.runs):
            run = await rig.measure(BRIDGE, f"{peer.name}-returns-{number}")
            print(
                f"run {number} {peer.name} with returns: p50 {run['p50_ms']:.2f}, p99 {run['p99_ms']:.2f}, CPU {run['cpu_ms']:.0f}, 2xx p99 {run['return_p99_ms']:.2f}",
                flush=True,
            )
            runs.append(run)
    finally:
        await smp.ask("returns", url=None)
    middle = {
        name: median(run[name] for run in runs)
        for name in runs[0]
        if name.endswith(("_ms", "_mb")) and isinstance(runs[0][name], float)
    }
    own = "p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms, {cpu_ms:.0f} ms CPU per 1000".format(**middle)
    rows = [
        Row(figure=f"{peer.name}, returns taken, verified, written back", value=own, goal="reported"),
        Row(figure=f"return received → 2xx ({peer.name}), p99 ms", value=f"{middle['return_p99_ms']:.2f}", goal="≤ 20 ms", met=middle["return_p99_ms"] <= 20),
    ]  # fmt: skip
    if "written_p95_ms" in middle:
        written, ems = middle["written_p95_ms"], middle["own_p95_ms"]
        rows.append(Row(figure="return received → written into the EMS (OPC UA), p95 ms", value=f"{written:.2f} (EMS's own {ems:.2f})", goal="≤ 60 ms + EMS", met=written <= 60 + ems))  # fmt: skip
    return rows, {"runs": runs}
