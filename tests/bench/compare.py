"""The figures that stand beside the reference scripts: latency, processor time and highest rate, in interleaved runs."""

from statistics import median

from figures import Row, paired, percentile
from rig import Rig, stamps_of
from worlds import BRIDGE, CONTENDERS, FLOOR, JOURNAL


async def compared(chosen, world, smp, peer, what, *, goals):
    """Rows and raw samples of one protocol. `goals` are the most that p50 and p99 may be of floor-with-journal's."""
    burst = chosen.burst if peer.name == "mqtt" else 0
    rig = Rig(world, smp, peer, rate=chosen.rate, seconds=chosen.seconds, warm_s=chosen.warm, burst=burst)
    synced = await rig.count_syncs(f"{peer.name}-syncs")
    runs = []
    for number in range(chosen.runs):
        run = {}
        for contender in CONTENDERS:
            name = f"{peer.name}-{number}-{contender.replace(' ', '-')}"
            run[contender] = await rig.measure(contender, name)
            if contender == BRIDGE:
                run[contender]["stages_ms"] = stages(world.directory / name, run[contender])
            print(f"run {number} {contender}: {summary(run[contender])}", flush=True)
        runs.append(run)
    rows = [
        _row(runs, f"{what}, p50 ms", "p50_ms", most=goals[0]),
        _row(runs, f"{what}, p99 ms", "p99_ms", most=goals[1]),
        _row(runs, f"{peer.name}: CPU ms per 1000 records", "cpu_ms", most=1.5, form="{:.0f}"),
        *([_row(runs, f"{peer.name}: highest rate, 1/s", "rate", least=0.7, form="{:.0f}")] if burst else []),
        _row(runs, f"{peer.name}: resident MB", "resident_mb", form="{:.0f}"),
        Row(
            figure=f"{peer.name}: messages journalled, signed, synced before they left",
            value=f"{synced['messages']} of {synced['messages']}, {synced['syncs']} syncs", goal="all", met=True,
        ),
    ]  # fmt: skip
    return rows, {"runs": runs, "synced": synced}


def summary(found):
    """One contender's run in a line."""
    text = f"p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms, {found['cpu_ms']:.0f} ms of CPU per 1000, {found['resident_mb']:.0f} MB"
    text += f", at most {found['rate']:.0f}/s" if "rate" in found else ""
    for stage, (p50, p99) in found.get("stages_ms", {}).items():
        text += f"\n      {stage}: p50 {p50:.2f}, p99 {p99:.2f}"
    return text


def stages(directory, found, last=0):
    """p50 and p99 of each stage (see `split`)."""
    return {
        name: (percentile(values, 0.5), percentile(values, 0.99))
        for name, values in split(directory, found, last).items()
    }


def split(directory, found, last=0):
    """The ms that each record took in each stage of the bridge by its own stamps, with the ends that only the peers know. `last`: the item that the journal ended with before."""
    stamps = stamps_of(directory, last)
    took = {"made → received": [], "received → mapped": [], "mapped → signed": [], "signed → first byte at SMP": []}
    for made_ns, reference, first_ns in found.pop("moments"):
        at = stamps[reference]
        times = [made_ns, at["received"][1], at["mapped"][1], at["signed"][1], first_ns]
        for name, before, after in zip(took, times, times[1:], strict=False):
            took[name].append((after - before) / 1e6)
    return took


def _row(runs, what, figure, *, most=None, least=None, form="{:.2f}"):
    value = {contender: median(run[contender][figure] for run in runs) for contender in CONTENDERS}
    ratio = paired(runs, figure, BRIDGE, JOURNAL)
    goal = f"≤ {most} ×" if most else f"≥ {least} ×" if least else ""
    met = ratio <= most if most else ratio >= least if least else None
    return Row(
        figure=what, value=form.format(value[BRIDGE]), floors=f"{form.format(value[FLOOR])} / {form.format(value[JOURNAL])}",
        ratio=f"{ratio:.2f} ×", goal=goal, met=met,
    )  # fmt: skip
