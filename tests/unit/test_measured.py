"""The latency book as gauges and as JSON: what has no sample any more is gone."""

from types import SimpleNamespace

import pytest

from bridge.latency import HOST_SHARE, Stage, Wait
from bridge.measure.book import Where
from bridge.measure.window import MOST, SPAN_NS
from bridge.measured import Measured
from bridge.metrics import Metrics

S, MS = 1_000_000_000, 1_000_000
NORTH = Where("north", "assets")


class Clock:
    def __init__(self):
        self.ns = 0

    def mono_ns(self):
        return self.ns

    def wall_ns(self):
        return self.ns


class Rig:
    def __init__(self):
        flows = {"assets": SimpleNamespace(name="assets", latency_budget_s=0.01)}
        config = SimpleNamespace(sites={"north": SimpleNamespace(name="north", flows=flows)})
        self.clock, self.metrics = Clock(), Metrics()
        self.measured = Measured(config, self.metrics, self.clock)
        self.flow = self.measured.book.flow(NORTH)

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, {"site": "north", **labels})

    def latency(self, hop, statistic):
        return self.value("smp_bridge_latency_seconds", flow="assets", hop=hop, statistic=statistic)


async def test_the_gauges_are_those_of_the_window():
    """Set from the samples, set anew with the next ones, gone with the last; what never changes stays."""
    rig = Rig()
    rhythm = rig.measured.intervals.of("north", "ems")
    rhythm.agreed("poll", configured_s=0.5)
    rhythm.achieved("poll", 0.6)
    rig.flow.add("sent", 0, 5 * MS)
    rig.flow.add("sent", SPAN_NS, 7 * MS)
    rig.flow.source_difference_ns = -3 * MS
    interval = {"adapter": "ems", "interval": "poll"}
    await rig.measured.show()
    assert (rig.latency("sent", "p50"), rig.latency("sent", "max")) == (0.006, 0.007)
    assert rig.value("smp_bridge_latency_samples", flow="assets", hop="sent") == 2
    assert rig.value("smp_bridge_latency_window_seconds", flow="assets") == 300
    assert rig.value("smp_bridge_interval_seconds", which="achieved", **interval) == pytest.approx(0.6)
    rig.clock.ns = SPAN_NS + 1
    await rig.measured.show()
    assert (rig.latency("sent", "p50"), rig.latency("sent", "max")) == (0.007, 0.007)
    rig.clock.ns = 3 * SPAN_NS
    for _ in range(2):
        await rig.measured.show()
        assert rig.latency("sent", "p50") is None
        assert rig.value("smp_bridge_latency_samples", flow="assets", hop="sent") is None
        assert rig.value("smp_bridge_latency_window_seconds", flow="assets") is None
        assert rig.value("smp_bridge_interval_seconds", which="achieved", **interval) is None
        assert rig.value("smp_bridge_interval_seconds", which="configured", **interval) == 0.5
        assert rig.value("smp_bridge_source_difference_seconds", flow="assets") == -0.003
    rig.flow.add("sent", 3 * SPAN_NS, 9 * MS)
    await rig.measured.show()
    assert rig.latency("sent", "p99") == 0.009


async def test_a_full_figure_says_so():
    """More came than are kept: `full`, and the shortest window of the flow is its gauge."""
    rig = Rig()
    for number in range(MOST + 1):
        rig.flow.add("sent", number * MS, MS)
    rig.flow.add("mapped", 0, MS)
    rig.clock.ns = 20 * S
    told = (await rig.measured.told())["flows"][0]["stages"]
    reached = (20 * S - MS) / S
    assert (told["sent"]["full"], told["sent"]["samples"], told["sent"]["window_s"]) == (True, MOST, reached)
    assert (told["mapped"]["full"], told["mapped"]["window_s"]) == (False, 300)
    await rig.measured.show()
    assert rig.value("smp_bridge_latency_window_seconds", flow="assets") == reached


async def test_everything_as_json():
    """Milliseconds, the share apart from the stages, exemplars newest first, causes by their words."""
    rig = Rig()
    stages = [Stage("mapped", 4 * MS, exact=True), Stage("sent", 16 * MS, exact=True)]
    for number in (1, 2):
        share = Stage(HOST_SHARE, 20 * MS, exact=True)
        rig.measured.book.sent(NORTH, f"s-{number}", stages, share, at_ns=0, wall_ns=number * S)
    rig.flow.waits[Wait.MEMBERS] += 2
    rig.flow.waits[Wait.CLOCK] += 1
    rig.measured.intervals.of("north", "ems").agreed("sampling", configured_s=0.05, revised_s=0.1)
    told = await rig.measured.told()
    [flow] = told["flows"]
    assert (flow["site"], flow["flow"], flow["budget_ms"], flow["over_budget"]) == ("north", "assets", 10, 2)
    assert (flow["host"]["p50_ms"], list(flow["stages"])) == (20, ["mapped", "sent"])
    assert list(flow["waited_outside"].items()) == [("clock", 1), ("members", 2)]
    assert [entry["submission"] for entry in told["exceeded"]] == ["s-2", "s-1"]
    assert told["exceeded"][0] == {
        "site": "north", "flow": "assets", "submission": "s-2", "at": "1970-01-01T00:00:02.000Z", "host_ms": 20, "budget_ms": 10,
        "stages": [{"stage": "mapped", "ms": 4}, {"stage": "sent", "ms": 16}], "slowest": "sent",
    }  # fmt: skip
    assert told["intervals"] == [
        {
            "site": "north",
            "adapter": "ems",
            "interval": "sampling",
            "configured_ms": 50,
            "revised_ms": 100,
            "achieved": None,
        }
    ]
