"""Units: after their assets, never before."""

import asyncio

import pytest
from service import every_profile, fill, linked, service, until_words

from bridge.api import OutcomeField
from bridge.model import HostReason
from bridge.sandbox import Knobs, Refusal


@every_profile
async def test_a_unit_waits_for_its_assets(tmp_path, profile):
    """Asked for first, sent last, registered with each asset's own export capacity."""
    async with service(tmp_path, profile=profile) as made:
        ems = await linked(made)
        ems.put("U1", reference="UNIT-01", kw=10, assets=("BESS00001", "BESS00002"))
        ems.request("unit", "U1")
        await ems.until(lambda: ems.last("U1") == 1)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, [*places, "U1"], {3: 3})
        operations = [entry.operation for entry in made.ledger.requests if entry.operation.endswith("create")]
        assert operations == ["asset.create", "unit.create"]
        assert made.ledger.creates("UNIT-01") == 1


@every_profile
async def test_a_unit_of_a_thousand_assets(tmp_path, profile):
    """As many aligned assets as DOMAIN 4 allows."""
    async with service(tmp_path, profile=profile) as made:
        ems = await linked(made)
        places = fill(ems, 1000)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 1000})
        ems.put("U1", reference="UNIT-01", kw=4000, assets=tuple(f"BESS{number:05}" for number in range(1, 1001)))
        ems.request("unit", "U1")
        await until_words(ems, ["U1"], {3: 1})


async def test_a_unit_whose_asset_is_refused_is_refused(tmp_path):
    """Its member can never be registered: the unit gets a reason that names it, and is not sent."""
    async with service(tmp_path, knobs=Knobs(refuse={"BESS00002": Refusal()})) as made:
        ems = await linked(made)
        ems.put("U1", reference="UNIT-01", kw=10, assets=("BESS00001", "BESS00002"))
        ems.request("unit", "U1")
        places = fill(ems, 2)
        ems.request("assets", *places)
        await ems.until(lambda: ems.last("U1") == 7)
        assert ems.last("U1", OutcomeField.ERROR_CODE) == HostReason.MEMBER_REFUSED
        assert made.ledger.of("unit.create") == []


async def test_a_unit_larger_than_its_assets_is_refused(tmp_path):
    """Its capacity exceeds what its assets give: known only once they are."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        ems.put("U1", reference="UNIT-01", kw=11, assets=("BESS00001", "BESS00002"))
        ems.request("unit", "U1")
        await ems.until(lambda: ems.last("U1") == 7)
        assert ems.last("U1", OutcomeField.ERROR_CODE) == HostReason.RULE
        assert made.ledger.of("unit.create") == []


async def test_two_units_of_one_flow_go_one_by_one(tmp_path):
    """One unit a call."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        ems.put("U1", reference="UNIT-01", kw=5, assets=("BESS00001",))
        ems.put("U2", reference="UNIT-02", kw=5, assets=("BESS00002",))
        ems.request("unit", "U1", "U2")
        await until_words(ems, ["U1", "U2"], {3: 2})
        assert sorted(entry.references for entry in made.ledger.of("unit.create")) == [["UNIT-01"], ["UNIT-02"]]


@pytest.mark.parametrize("known", [False, True])
async def test_a_waiting_unit_survives_a_restart(tmp_path, known):
    """Stopped while it waits for its assets; it is sent after the restart."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        if known:
            ems.request("assets", "B1")
            await until_words(ems, ["B1"], {3: 1})
        ems.put("U1", reference="UNIT-01", kw=10, assets=("BESS00001", "BESS00002"))
        ems.request("unit", "U1")
        await ems.until(lambda: ems.last("U1") == 1)
        await made.stop()
        await made.start()
        await asyncio.wait_for(ems.until(lambda: ems.sessions == 2), 10)
        ems.request("assets", *places, sequence="2")
        await until_words(ems, [*places, "U1"], {3: 3})
        assert made.ledger.creates("BESS00001") == 1
