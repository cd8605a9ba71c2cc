"""Assets from their EMS to SMP and back, under every profile."""

from itertools import count as counting

import pytest
from service import ASSETS, every_profile, fill, linked, made_alarm, profile_content, service, until_words

from bridge.api import OutcomeField
from bridge.model import HostReason, Kind, Operation
from bridge.profile import parse_profile
from bridge.sandbox import Knobs, Refusal
from bridge.wire import Wire


def smallest_limit(reference):
    """The least `max_body_bytes` under which one call can hold the asset of this reference that `ASSETS` describes."""
    item = {name: value["const"] for name, value in ASSETS["payload"].items() if "const" in value}
    item |= {"assetReference": reference, "assetName": ASSETS["payload"]["assetName"]["default"], "maxExportKw": 5}
    for limit in counting(1000, 20):
        wire = Wire(parse_profile(profile_content("default", limits={"max_body_bytes": limit})))
        if wire.fit(Operation.ASSET_CREATE, [wire.render_item(Kind.ASSET, item)]):
            return limit


@every_profile
@pytest.mark.parametrize(("count", "calls"), [(1, [1]), (999, [999]), (1000, [1000]), (1001, [1000, 1])])
async def test_batches_are_as_large_as_a_call_may_be(tmp_path, profile, count, calls):
    """1, 999, 1000 and 1001 assets in one request: as few calls as the limit allows, each asset created once and written back."""
    async with service(tmp_path, profile=profile) as made:
        ems = await linked(made)
        places = fill(ems, count)
        ems.request("assets", *places)
        await until_words(ems, places, {3: count})
        await made.until_states(*["CONFIRMED"] * len(calls))
        assert [len(entry.references) for entry in made.ledger.of("asset.create")] == calls
        assert all(made.ledger.creates(f"BESS{number:05}") == 1 for number in range(1, count + 1))
        ids = [ems.last(place, OutcomeField.TRANSACTION_ID) for place in places]
        assert {entry.transaction_id for entry in made.ledger.of("asset.create")} == set(ids)


@every_profile
async def test_a_call_too_large_in_bytes_is_split(tmp_path, profile):
    """Ten assets that one call cannot hold leave in several, each within the limit."""
    async with service(
        tmp_path, profile=profile, changes={"limits": {"records": 1000, "max_body_bytes": 4000}}
    ) as made:
        ems = await linked(made)
        places = fill(ems, 20)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 20})
        entries = made.ledger.of("asset.create")
        assert len(entries) > 1
        assert all(entry.bytes <= 4000 for entry in entries)


async def test_an_asset_too_large_for_any_call_is_refused(tmp_path):
    """It alone exceeds the limit: refused into the EMS with that reason; the one beside it goes on."""
    async with service(tmp_path, changes={"limits": {"max_body_bytes": smallest_limit("BESS00001") + 40}}) as made:
        ems = await linked(made)
        ems.put("B1", reference="B" * 40, kw=5, name="N" * 80)
        ems.put("B2", reference="BESS00001", kw=5)
        ems.request("assets", "B1", "B2")
        await until_words(ems, ["B1", "B2"], {7: 1, 3: 1})
        assert ems.last("B1", OutcomeField.ERROR_CODE) == HostReason.TOO_LARGE


@every_profile
async def test_what_smp_refuses_is_told_item_by_item(tmp_path, profile):
    """Two of five are refused: these get the reason, the others are registered, the submission is PARTIAL."""
    refuse = {
        "BESS00002": Refusal(code="E1001", message="capacity"),
        "BESS00004": Refusal(code="E1002", message="MPAN"),
    }
    async with service(tmp_path, profile=profile, knobs=Knobs(refuse=refuse)) as made:
        ems = await linked(made)
        places = fill(ems, 5)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3, 4: 2})
        await made.until_states("PARTIAL")
        [view] = await made.read(lambda journal: journal.submissions())
        items = await made.read(lambda journal: journal.submission_items(view.id))
        told = {item.key: [(error.code, error.text) for error in item.errors] for item in items if item.errors}
        assert told == {"BESS00002": [("E1001", "capacity")], "BESS00004": [("E1002", "MPAN")]}


@every_profile
async def test_a_batch_refused_whole(tmp_path, profile):
    """Atomic semantics: one bad asset refuses all; nothing is created."""
    knobs = Knobs(refuse={"BESS00002": Refusal()}, batch="atomic")
    async with service(tmp_path, profile=profile, knobs=knobs, changes={"batch_semantics": "atomic"}) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {4: 3})
        assert [made.ledger.creates(f"BESS{number:05}") for number in (1, 2, 3)] == [0, 0, 0]


@every_profile
async def test_an_unnamed_item_under_unknown_semantics_is_unknown(tmp_path, profile):
    """Nothing says what became of the good one beside the bad one: the host claims nothing, unless the profile lists what was created."""
    changes = {"batch_semantics": "unknown"}
    async with service(
        tmp_path, profile=profile, knobs=Knobs(refuse={"BESS00002": Refusal()}), changes=changes
    ) as made:
        names_created = made.sandbox_profile.spec.batch_return.created
        counted = made.sandbox_profile.spec.batch_return.total
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await ems.until(lambda: ems.last("B2") == 4)
        if names_created or counted:
            await until_words(ems, places, {3: 1, 4: 1})
        else:
            await until_words(ems, places, {6: 1, 4: 1})
        await made.until_states("PARTIAL")


async def test_a_record_that_fails_validation_holds_nobody_up(tmp_path):
    """Refused by the host with a reason; never sent; the rest of the request goes on at once."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        places = fill(ems, 4)
        ems.put("B2", reference="BESS00002", kw=-1)
        ems.put("B3", reference="BESS00003", kw=float("nan"))
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2, 7: 2})
        assert ems.last("B3", OutcomeField.ERROR_CODE) == HostReason.NOT_A_NUMBER
        assert made.ledger.creates("BESS00002") == 0
        assert made.ledger.of("asset.create")[0].references == ["BESS00001", "BESS00004"]


@every_profile
async def test_changes_never_create_twice(tmp_path, profile):
    """A, then B, then A again under one key: one Create; B is drift, which a person decides."""
    async with service(tmp_path, profile=profile) as made:
        ems = await linked(made)
        for sequence, kw, word in (("1", 5, 3), ("2", 6, None), ("3", 5, 3)):
            ems.put("B1", reference="BESS00001", kw=kw)
            ems.request("assets", "B1", sequence=sequence)
            written = len(ems.written.get("B1", {}).get(OutcomeField.STATE, []))
            if word is not None:
                await ems.until(
                    lambda written=written, word=word: (
                        ems.last("B1") == word and len(ems.written["B1"][OutcomeField.STATE]) > written
                    )
                )
            else:
                await made_alarm(made, "DRIFT")
        assert made.ledger.creates("BESS00001") == 1
        assert len(made.ledger.of("asset.create")) == 1


async def test_the_same_request_twice_is_one_call(tmp_path):
    """A request that arrives again (a reconnect, a redelivery) sends nothing again."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        for _ in range(3):
            ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        await made.until_states("CONFIRMED")
        assert len(made.ledger.of("asset.create")) == 1


async def test_one_reference_at_two_sites_is_a_duplicate(tmp_path):
    """The second site's record is refused with a reason; the first one's stands."""
    async with service(tmp_path, sites=("north", "south")) as made:
        north, south = await linked(made), await linked(made, "south")
        fill(north, 1), fill(south, 1)
        north.request("assets", "B1")
        await north.until(lambda: north.last("B1") == 3)
        south.request("assets", "B1")
        await south.until(lambda: south.last("B1") == 7)
        assert south.last("B1", OutcomeField.ERROR_CODE) == HostReason.DUPLICATE_KEY
        assert made.ledger.creates("BESS00001") == 1


async def test_what_arrives_while_calls_are_under_way_is_batched(tmp_path):
    """200 requests of one asset each become few calls: nobody waits for a timer, nobody pays for a call of his own."""
    async with service(tmp_path, knobs=Knobs(answer_delay_s=2.0)) as made:
        ems = await linked(made)
        places = fill(ems, 200)
        for place in places:
            ems.request("assets", place)
        await until_words(ems, places, {3: 200})
        slots = made.sandbox_profile.limits.concurrency
        assert len(made.ledger.of("asset.create")) <= 2 * slots
