"""What a flow may ask for: linger, deadline, fewer items in a call, its own numbers, lenient rules; and records that change or come as messages."""

import asyncio

import pytest
from admin import get, value
from service import ASSETS, UNIT, every_profile, fill, linked, made_alarm, service, until_words

from bridge.api import OutcomeField
from bridge.model import HostReason
from bridge.sandbox import Knobs, Refusal


def flows(**changes):
    return {"assets": {**ASSETS, **changes}, "unit": UNIT}


async def test_linger_gathers_what_comes_one_by_one(tmp_path):
    """Five requests within the linger time are one call, although a send slot was free all the time."""
    async with service(tmp_path, flows=flows(linger="2s")) as made:
        ems = await linked(made)
        places = fill(ems, 5)
        for place in places:
            ems.request("assets", place)
            await asyncio.sleep(0.02)
        await until_words(ems, places, {3: 5})
        assert [len(entry.references) for entry in made.ledger.of("asset.create")] == [5]


async def test_a_full_call_does_not_linger(tmp_path):
    """`max_items` reached: the call leaves at once."""
    async with service(tmp_path, flows=flows(linger="60s", max_items=3)) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3}, within_s=20)


async def test_fewer_items_in_a_call(tmp_path):
    """`max_items` below the profile's limit."""
    async with service(tmp_path, flows=flows(max_items=4)) as made:
        ems = await linked(made)
        places = fill(ems, 10)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 10})
        assert sorted(len(entry.references) for entry in made.ledger.of("asset.create")) == [2, 4, 4]


async def test_what_cannot_be_sent_in_time_expires(tmp_path):
    """SMP takes nothing until the deadline: the EMS is told, and nothing was created."""
    knobs = Knobs(most_per_minute=1, token_life_s=3600)
    async with service(tmp_path, flows=flows(deadline="3s"), knobs=knobs) as made:
        ems = await linked(made)
        first = fill(ems, 1)
        ems.request("assets", *first)
        await until_words(ems, first, {3: 1})
        places = fill(ems, 2, first=2)
        ems.request("assets", *places)
        await until_words(ems, places, {8: 2}, within_s=90)
        assert ems.last("B2", OutcomeField.ERROR_CODE) == HostReason.EXPIRED
        assert made.ledger.creates("BESS00002") == 0


async def test_a_unit_whose_asset_never_comes_expires(tmp_path):
    """It waits for its assets until the flow's deadline."""
    async with service(tmp_path, flows={"assets": ASSETS, "unit": {**UNIT, "deadline": "1s"}}) as made:
        ems = await linked(made)
        ems.put("U1", reference="UNIT-01", kw=10, assets=("BESS00001",))
        ems.request("unit", "U1")
        await until_words(ems, ["U1"], {8: 1})
        assert made.ledger.of("unit.create") == []


@pytest.mark.parametrize(("others", "number"), [({}, 9999), ({"unmapped": 255}, 255)])
async def test_the_ems_has_its_own_numbers(tmp_path, others, number):
    """`states` and `error_codes` of the site: SMP's text codes become the numbers that this EMS knows, others 9999 or what the site says."""
    changes = {"states": {"registered": 70, "refused": 71}, "error_codes": {"E1": 501, **others}}
    knobs = Knobs(refuse={"BESS00002": Refusal(code="E1"), "BESS00003": Refusal(code="E2")})
    async with service(tmp_path, flows=flows(**changes), knobs=knobs) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {70: 1, 71: 2})
        assert [ems.last(place, OutcomeField.ERROR_CODE) for place in places] == [0, 501, number]


@pytest.mark.parametrize(("severity", "word"), [("error", 7), ("warn", 3), ("off", 3)])
async def test_a_rule_is_as_strict_as_the_flow_says(tmp_path, severity, word):
    """An MPAN with a wrong check digit."""
    payload = {**ASSETS["payload"], "importMpan": {"from": "reference", "map": {"BESS00001": "1023456789018"}}}
    async with service(tmp_path, flows=flows(payload=payload, severities={"mpan": severity})) as made:
        ems = await linked(made)
        places = fill(ems, 1)
        ems.request("assets", *places)
        await until_words(ems, places, {word: 1})


async def test_what_is_unusual_goes_on_and_is_counted(tmp_path):
    """A warning refuses nobody: the record is registered, and the metric says that a rule had something to say."""
    payload = {**ASSETS["payload"], "connectionVoltageKv": {"const": 17}}
    async with service(tmp_path, flows=flows(payload=payload)) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        assert value((await get(made, "/metrics"))[1], "smp_bridge_unusual_total", site="north", flow="assets") == 3


@pytest.mark.parametrize(("severity", "word"), [("error", 7), ("off", 3)])
async def test_a_unit_is_judged_by_its_own_flow_beside_its_assets(tmp_path, severity, word):
    """`member_group`, which is only known once the assets are: strict where the flow says so."""
    unit = {
        **UNIT,
        "payload": {**UNIT["payload"], "gspGroup": {"const": "_B"}},
        "severities": {"member_group": severity},
    }
    async with service(tmp_path, flows={"assets": ASSETS, "unit": unit}) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        ems.put("U1", reference="UNIT-01", kw=10, assets=("BESS00001", "BESS00002"))
        ems.request("unit", "U1")
        await until_words(ems, ["U1"], {word: 1})


@every_profile
async def test_a_record_that_changes_is_submitted_once(tmp_path, profile):
    """Trigger `change`: the first content is created, another one is drift and told once, the first again is the standing outcome."""
    async with service(tmp_path, profile=profile, flows=flows(submit={"when": "change"})) as made:
        ems = await linked(made)
        for kw in (5, 6, 6, 5):
            ems.put("B1", reference="BESS00001", kw=kw)
            ems.request("assets", "B1", sequence=None)
            if kw == 6:
                await ems.until(lambda: ems.last("B1") == 10)
                await made_alarm(made, "DRIFT")
            else:
                await ems.until(lambda: ems.last("B1") == 3)
        assert await made.read(lambda journal: journal.alarms()) == []
        assert made.ledger.creates("BESS00001") == 1
        assert len(made.ledger.of("asset.create")) == 1


async def test_a_message_waits_for_its_registration(tmp_path):
    """Trigger `message`: committed and acknowledged at once, complete later; without its registration it is refused after the wait."""
    async with service(tmp_path, flows=flows(submit={"when": "message"}, wait_for_registration="2s")) as made:
        ems = await linked(made)
        ems.request("assets", "B1", sequence="r-1", complete=False)
        ems.request("assets", "B2", sequence="r-2", complete=False)
        await ems.until(lambda: (ems.last("B1"), ems.last("B2")) == (1, 1))
        await ems.until(lambda: [ok for _, ok in ems.acked] == [True, True])
        ems.put("B1", reference="BESS00001", kw=5)
        ems.request("assets", "B1", sequence="r-1")
        await until_words(ems, ["B1", "B2"], {3: 1, 7: 1})
        assert ems.last("B2", OutcomeField.ERROR_CODE) == HostReason.NO_REGISTRATION


async def test_another_asset_in_the_place_is_never_told_the_outcome(tmp_path):
    """The record moved while its call was under way: nothing is written there, and an alarm says MOVED."""
    async with service(tmp_path, knobs=Knobs(returns="hold")) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await ems.until(lambda: ems.last("B1") == 2)
        await made.until_states("AWAITING_RETURN")
        ems.put("B1", reference="ANOTHER", kw=5)
        before = list(ems.written["B1"][OutcomeField.STATE])
        await made.release()
        await made_alarm(made, "MOVED")
        assert ems.written["B1"][OutcomeField.STATE] == before


async def test_a_return_that_was_held_stays_held(tmp_path):
    """The sandbox holds it from its call's acceptance on: what the knob says a moment later counts for later calls alone."""
    async with service(tmp_path, knobs=Knobs(returns="hold", return_delay_s=0.3)) as made:
        ems = await linked(made)
        fill(ems, 2)
        ems.request("assets", "B1")
        await made.until_states("AWAITING_RETURN")  # its call was answered, so it was accepted
        made.knobs.returns = "push"
        ems.request("assets", "B2")
        await until_words(ems, ["B1", "B2"], {2: 1, 3: 1})
        assert ems.last("B1") == 2
        assert await made.sandbox.release() == 1
        await until_words(ems, ["B1", "B2"], {3: 2})
