"""The admin listener of a running service: metrics of every stage, health by the age of the last good reading."""

import asyncio
import json
from pathlib import Path

from admin import get, value
from service import PARTICIPANT, RETURNS_ALONE, fill, linked, service, until_words

from bridge.metrics import Metrics
from bridge.model import HOPS
from bridge.sandbox import Knobs, Refusal

BRIDGE = Path(__file__).parents[2] / "bridge"


async def test_every_stage_is_measured(tmp_path):
    """After one quiet submission each hop has exactly one figure, and the field's own stages one each."""
    async with service(tmp_path, changes=RETURNS_ALONE) as made:
        ems = await linked(made)
        async with asyncio.timeout(10):
            while not made.sandbox.accounts.logins:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {3: 1})
        async with asyncio.timeout(10):
            while (
                value((await get(made, "/metrics"))[1], "smp_bridge_site_stage_seconds_count", hop="written_back") != 1
            ):
                await asyncio.sleep(0.05)
        status, text = await get(made, "/metrics")
        assert status == 200
        for hop in set(HOPS) - {"source", "received", "written_back"}:
            assert value(text, "smp_bridge_stage_seconds_count", hop=hop, participant=PARTICIPANT) == 1, hop
        for hop in ("mapped", "journalled"):
            assert value(text, "smp_bridge_site_stage_seconds_count", hop=hop, site="north", flow="assets") == 1
        assert 0 < value(text, "smp_bridge_host_seconds_sum", participant=PARTICIPANT) < 5
        assert value(text, "smp_bridge_records_total", admission="new", flow="assets") == 1
        assert value(text, "smp_bridge_answers_total", answer="accepted") == 1
        assert value(text, "smp_bridge_returns_total", verdict="new") == 1
        assert value(text, "smp_bridge_calls_in_flight", participant=PARTICIPANT) == 0


async def test_no_label_carries_what_was_registered(tmp_path):
    """References, MPANs, postcodes and transaction ids never reach the metrics."""
    async with service(tmp_path, knobs=Knobs(refuse={"BESS00002": Refusal(message="about BESS00002")})) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 1, 4: 1})
        _, text = await get(made, "/metrics")
        [transaction] = made.sandbox.register.transactions
        for secret in ("BESS0000", "1023456789017", "IP1 2AB", transaction, "s3cret-of-the-test"):
            assert secret not in text


async def test_health(tmp_path):
    """Live and ready while it runs; the age of a link's last good reading is shown, and a lost link does not make the host unready."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        assert (await get(made, "/health/live"))[0] == 200
        status, text = await get(made, "/health/ready")
        assert (status, "north/ems" in text) == (200, True)
        ems.reachable = False
        ems.cut()
        async with asyncio.timeout(10):
            while value((await get(made, "/metrics"))[1], "smp_bridge_link_up", site="north") != 0:
                await asyncio.sleep(0.02)
        assert (await get(made, "/health/ready"))[0] == 200


async def test_connections(tmp_path):
    """Each link to an EMS and each way to SMP: whether it is up, since when, and what went wrong last."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        async with asyncio.timeout(10):
            while not (told := await connections(made))["smp"][0]["up"]:
                await asyncio.sleep(0.02)
        [link], [smp] = told["ems"], told["smp"]
        assert (link["site"], link["adapter"], link["up"], link["last_error"]) == ("north", "ems", True, None)
        assert (smp["participant"], smp["last_error"], smp["paused"]) == (PARTICIPANT, None, None)
        assert smp["since"] <= smp["last_call"]
        ems.reachable = False
        ems.cut()
        async with asyncio.timeout(10):
            while not (down := (await connections(made))["ems"][0])["last_error"] or down["up"]:
                await asyncio.sleep(0.02)
        assert link["since"] < down["since"] <= down["last_error_at"]
        assert "Link" in down["last_error"]


async def connections(made):
    status, text = await get(made, "/api/v1/connections")
    assert status == 200
    return json.loads(text)


def test_every_metric_is_used():
    """A metric that nobody feeds tells a lie."""
    code = "".join(file.read_text() for file in BRIDGE.rglob("*.py") if file.name != "metrics.py")
    unused = [name for name in vars(Metrics()) if name != "registry" and f"metrics.{name}" not in code]
    assert unused == []
