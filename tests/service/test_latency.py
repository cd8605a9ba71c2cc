"""The latency book of a running service: exact figures of each flow, its budget, what waited outside the host, and the rhythm of real adapters."""

import asyncio
import json

import pytest
from admin import get, value
from service import ASSETS, CLOCK, RETURNS_ALONE, UNIT, fill, linked, prepared, service, until_words
from three_sites import sites

from bridge.discipline import Discipline
from bridge.ids import submission_ids
from bridge.journal.configured import open_configured_journal
from bridge.journal.people import Decision, Scope
from bridge.sandbox import Fault, Knobs

STAGES = {"mapped", "signed", "journalled", "sent", "answered", "returned", "settled", "written_back"}


async def told(made):
    status, text = await get(made, "/api/v1/latency")
    assert status == 200
    return json.loads(text)


def flow_of(told, name, site="north"):
    [flow] = [flow for flow in told["flows"] if (flow["site"], flow["flow"]) == (site, name)]
    return flow


async def until_told(made, holds, within_s=10):
    """What `/api/v1/latency` says once this holds for it."""
    found = None
    try:
        async with asyncio.timeout(within_s):
            while not holds(found := await told(made)):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"it says {json.dumps(found, indent=1)}") from None
    return found


async def test_the_figures_of_a_flow(tmp_path):
    """Three submissions: each figure has three samples in the answer and as gauges, and they are ordered as percentiles are."""
    flows = {"assets": {**ASSETS, "latency_budget": "30s"}, "unit": UNIT}
    async with service(tmp_path, flows=flows, changes=RETURNS_ALONE) as made:
        ems = await linked(made)
        for number in (1, 2, 3):
            ems.request("assets", *fill(ems, 1, first=number))
            await until_words(ems, [f"B{number}"], {3: 1})
        book = await until_told(
            made, lambda book: flow_of(book, "assets")["stages"].get("written_back", {}).get("samples") == 3
        )
        flow = flow_of(book, "assets")
        assert set(flow["stages"]) == STAGES
        for figures in (flow["host"], *flow["stages"].values()):
            assert figures["samples"] == 3
            assert 0 <= figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"] <= figures["max_ms"] < 30_000
            assert (figures["window_s"], figures["full"]) == (300, False)
        assert (flow["budget_ms"], flow["over_budget"], flow["waited_outside"]) == (30_000, 0, {})
        assert (flow_of(book, "unit")["host"], flow_of(book, "unit")["budget_ms"]) == (None, None)
        assert (book["exceeded"], book["intervals"]) == ([], [])

        _, text = await get(made, "/metrics")
        where = {"site": "north", "flow": "assets", "hop": "host"}
        shown = value(text, "smp_bridge_latency_seconds", **where, statistic="max")
        assert shown == pytest.approx(flow["host"]["max_ms"] / 1000, abs=1e-6)
        assert value(text, "smp_bridge_latency_samples", **where) == 3
        assert value(text, "smp_bridge_latency_window_seconds", site="north", flow="assets") == 300
        assert value(text, "smp_bridge_latency_seconds", site="north", flow="unit") is None
        assert value(text, "smp_bridge_budget_exceeded_total", site="north", flow="assets") is None
        share = value(text, "smp_bridge_host_seconds_sum")
        stages = sum(
            value(text, "smp_bridge_stage_seconds_sum", hop=hop) for hop in ("mapped", "signed", "journalled", "sent")
        )
        assert share == pytest.approx(
            stages, abs=1e-6
        )  # the stages up to the first byte are the share, and nothing else is


async def test_what_lingers_beyond_its_budget(tmp_path):
    """The linger counts: each submission is counted, kept with its stages and the one that cost most; a flow without a budget counts nothing."""
    lingering = {**ASSETS, "linger": "300ms", "latency_budget": "100ms"}
    free = {**ASSETS, "linger": "300ms"}
    del free["latency_budget"]
    async with service(tmp_path, flows={"assets": lingering, "free": free}) as made:
        ems = await linked(made)
        for number, flow in ((1, "assets"), (2, "free"), (3, "assets")):
            ems.request(flow, *fill(ems, 1, first=number))
            await until_words(ems, [f"B{number}"], {3: 1})
        book = await told(made)
        ids = {view.id for view in await made.read(lambda j: j.submissions()) if view.flow == "assets"}
        assert [entry["flow"] for entry in book["exceeded"]] == ["assets", "assets"]
        assert {entry["submission"] for entry in book["exceeded"]} == ids
        for entry in book["exceeded"]:
            assert (entry["budget_ms"], entry["slowest"]) == (100, "signed")
            assert entry["host_ms"] >= 300
            assert [stage["stage"] for stage in entry["stages"]] == ["mapped", "signed", "journalled", "sent"]
            assert sum(stage["ms"] for stage in entry["stages"]) == pytest.approx(entry["host_ms"], abs=0.01)
        assert (flow_of(book, "assets")["over_budget"], flow_of(book, "free")["over_budget"]) == (2, 0)
        assert flow_of(book, "free")["host"]["p50_ms"] >= 300
        _, text = await get(made, "/metrics")
        assert value(text, "smp_bridge_budget_exceeded_total", site="north", flow="assets") == 2
        assert value(text, "smp_bridge_budget_exceeded_total", site="north", flow="free") is None


async def test_a_retry_and_a_unit_that_waited_are_no_time_of_the_hosts(tmp_path):
    """The first attempt of the asset counts, its retry does not; the unit waited for the asset, so it has no share; both are counted by cause."""
    busy = Fault(operation="asset.create", status=503, headers={"Retry-After": "2"})
    async with service(tmp_path, knobs=Knobs(faults=[busy]), changes=RETURNS_ALONE) as made:
        ems = await linked(made)
        fill(ems, 1)
        ems.put("U1", reference="UNIT-01", kw=5, assets=("BESS00001",))
        ems.request("unit", "U1")
        await ems.until(lambda: ems.last("U1") == 1)
        ems.request("assets", "B1")
        await until_words(ems, ["B1", "U1"], {3: 2})
        book = await until_told(made, lambda book: "settled" in flow_of(book, "unit")["stages"])
        assets, unit = flow_of(book, "assets"), flow_of(book, "unit")
        assert (assets["waited_outside"], unit["waited_outside"]) == ({"retry": 1}, {"members": 1})
        assert (assets["host"]["samples"], unit["host"]) == (1, None)
        assert assets["host"]["max_ms"] < 2000
        assert {
            stage: figures["samples"] for stage, figures in assets["stages"].items() if stage != "written_back"
        } == dict.fromkeys(STAGES - {"written_back"}, 1)
        assert "signed" not in unit["stages"]
        assert (
            max(
                figures["max_ms"]
                for stage, figures in unit["stages"].items()
                if stage in {"mapped", "journalled", "sent"}
            )
            < 2000
        )
        _, text = await get(made, "/metrics")
        for hop in ("mapped", "journalled"):
            assert value(text, "smp_bridge_stage_seconds_count", hop=hop) == 2, hop
        assert value(text, "smp_bridge_host_seconds_count") == 1
        assert value(text, "smp_bridge_waited_outside_total", flow="unit", cause="members") == 1


class WrongClock:
    """A discipline that says the clock is wrong until it is told otherwise."""

    name = "chrony"
    offset_s = 5.0

    async def read(self):
        return Discipline(source=self.name, synchronised=True, offset_s=self.offset_s, max_error_s=0.5, detail="")


async def decide(made, work):
    """A person's decision, made as the command line makes it: by a journal of its own beside the host's."""
    journal = await open_configured_journal(
        made.config().host.journal, clock=CLOCK, role="cli", new_id=submission_ids(CLOCK), checkpoint=False
    )
    try:
        await work(journal)
    finally:
        await journal.close()


async def test_a_wrong_clock_and_a_hold_are_no_time_of_the_hosts(tmp_path):
    """What came while signing was held, and while a person held the site, has no share; what comes afterwards has."""
    source, decision = WrongClock(), Decision(by="Ann", reason="a test")
    async with prepared(tmp_path, host={"clock": {"source": "none", "every": "100ms"}}) as made:
        made.discipline = source
        await made.start()
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {1: 1})
        source.offset_s = 0.0
        await until_words(ems, ["B1"], {3: 1})
        await decide(made, lambda journal: journal.hold(Scope.SITE, "north", decision))
        ems.request("assets", *fill(ems, 1, first=2))
        await until_words(ems, ["B2"], {11: 1})
        assert made.ledger.creates("BESS00002") == 0
        await decide(made, lambda journal: journal.release_hold(Scope.SITE, "north", decision))
        await until_words(ems, ["B2"], {3: 1})
        flow = flow_of(await told(made), "assets")
        assert (flow["waited_outside"], flow["host"], flow["over_budget"]) == ({"clock": 1, "hold": 1}, None, 0)
        ems.request("assets", *fill(ems, 1, first=3))
        await until_words(ems, ["B3"], {3: 1})
        flow = flow_of(await told(made), "assets")
        assert (sum(flow["waited_outside"].values()), flow["host"]["samples"]) == (2, 1)
        await made.stop()


async def test_a_call_refused_whole_has_its_last_stage(tmp_path):
    """A 422 settles the submission; that is a stage like any other end."""
    refused = Fault(operation="asset.create", status=422, names=["BESS00001"])
    async with service(tmp_path, knobs=Knobs(faults=[refused])) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {4: 1})
        book = await until_told(made, lambda book: "settled" in flow_of(book, "assets")["stages"])
        assert "returned" not in flow_of(book, "assets")["stages"]
        _, text = await get(made, "/metrics")
        assert value(text, "smp_bridge_stage_seconds_count", hop="settled") == 1


async def test_three_protocols(tmp_path):
    """Real servers: each flow has its figures, sources have clocks of their own, and intervals are as configured, revised and achieved."""
    async with sites(tmp_path, profile="default", knobs=Knobs()) as made:
        await made.ask_assets()
        await made.until(made.asset_words, ([3, 3, 3], [3, 3], ["registered", "registered"]))

        def ready(book):
            achieved = {(entry["site"], entry["interval"]) for entry in book["intervals"] if entry["achieved"]}
            return {("ipswich", "keep_alive"), ("ipswich", "publishing"), ("rugby", "poll")} <= achieved

        book = await until_told(made, ready, within_s=20)
        measured = {(flow["site"], flow["flow"]): flow for flow in book["flows"] if flow["host"]}
        assert {site for site, _ in measured} == {"ipswich", "rugby", "crawley"}
        for flow in measured.values():
            assert set(flow["stages"]) >= STAGES - {"returned", "written_back"}
        [difference] = [flow["source_difference_ms"] for (site, _), flow in measured.items() if site == "ipswich"]
        assert 0 <= difference < 60_000  # the server's own time of its values, on this very machine
        found = {(entry["site"], entry["interval"]): entry for entry in book["intervals"]}
        assert set(found) == {
            ("ipswich", "publishing"), ("ipswich", "keep_alive"), ("ipswich", "sampling"), ("rugby", "poll"),
        }  # fmt: skip
        poll, publishing = found["rugby", "poll"], found["ipswich", "publishing"]
        assert (poll["configured_ms"], poll["revised_ms"]) == (50, None)
        assert 45 <= poll["achieved"]["p50_ms"] < 500
        assert publishing["configured_ms"] == 50
        assert publishing["revised_ms"] >= 50
        assert publishing["achieved"]["p50_ms"] >= 0.5 * publishing["revised_ms"]
        assert (
            found["ipswich", "keep_alive"]["achieved"]["p50_ms"] >= 0.5 * found["ipswich", "keep_alive"]["revised_ms"]
        )
        _, text = await get(made, "/metrics")
        for which in ("configured", "revised", "achieved"):
            shown = value(text, "smp_bridge_interval_seconds", site="ipswich", interval="publishing", which=which)
            assert 0.02 < shown < 5, which
        assert value(text, "smp_bridge_interval_seconds", site="rugby", which="revised") is None
        assert value(text, "smp_bridge_source_difference_seconds", site="ipswich") is not None
