"""The simulated OPC UA EMS as the bridge meets it: its own YAML, the adapter's session, and what the EMS then remembers."""

import asyncio
from collections.abc import Sequence

import pytest
import pytest_asyncio
from opcua_site import context_of, options_of, outcome_writes, read_site, security_of, selections_of

from adapters.opcua import ADAPTER
from bridge.api import Code, LinkRefused, Quality, Record, Secret, Session
from bridge.demo.ems_opcua import OpcUaEms
from bridge.demo.opcua_keys import make_pair

WITHIN_S = 20
ASSETS = 120


# Its standard nodes alone take two seconds to build, so all tests share one EMS and none relies on a fresh one.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ems(tmp_path_factory):
    before = asyncio.all_tasks()
    async with OpcUaEms(ASSETS, seed=7, directory=tmp_path_factory.mktemp("ipswich") / "keys") as ems:
        yield ems
    assert not (asyncio.all_tasks() - before - {asyncio.current_task()})


def context(ems, **changes):
    """Ipswich's own file, with the EMS's keys and address where the environment stands."""
    site = read_site()
    security = security_of(
        certificate=ems.client_certificate,
        key=ems.client_key,
        servers=[ems.server_certificate],
        user=ems.user,
        password=ems.password,
    )
    return context_of(options_of(site, url=ems.url, security={**security, **changes}), selections_of(site))


async def records(session: Session, flow: str, count: int) -> Sequence[Record]:
    found: dict[str, Record] = {}
    async with asyncio.timeout(WITHIN_S):
        while len(found) < count:
            for arrival in await session.receive():
                arrival.ack(True)
                found |= {record.place: record for record in arrival.records if record.flow == flow}
    return list(found.values())


async def test_every_asset_arrives_whole_and_every_outcome_is_remembered(ems):
    """120 requests become 120 good records under their own references, and the EMS then holds what was written for each of them."""
    async with ADAPTER.open(context(ems)) as session:
        await ems.request_assets()
        asked = await records(session, "batteries", ASSETS)
        assert {record.fields["reference"].value for record in asked} == {asset.reference for asset in ems.assets}
        by_reference = {asset.reference: asset for asset in ems.assets}
        for record in asked:
            assert not record.problem
            assert all(reading.quality is Quality.GOOD for reading in record.fields.values())
            asset = by_reference[record.fields["reference"].value]
            assert record.request is not None
            assert record.fields["import_mpan"].value == asset.import_mpan
            assert record.fields["voltage_kv"].value == asset.voltage_kv
            assert record.fields["export_kw"].value == asset.max_export_kw
            assert record.fields["commissioned"].value == asset.commissioned

        for state in (Code(1, "received"), Code(2, "sent")):
            await write(session, [outcome_writes("batteries", record.place, state=state) for record in asked])
        refused, *registered = asked
        await write(session, [outcome_writes("batteries", record.place) for record in registered])
        lines = ("the MPAN is not known", "line 2")
        await write(
            session,
            [
                outcome_writes(
                    "batteries", refused.place, state=Code(4, "refused"), code=Code(9999, "MPAN"), lines=lines
                )
            ],
        )

    items = ems.items()
    key = refused.fields["reference"].value
    assert items[key].state == "refused"
    assert items[key].final
    assert items[key].error_code == "9999"
    assert items[key].error_text == "the MPAN is not known; line 2"
    assert {items[record.fields["reference"].value].state for record in registered} == {"registered"}
    assets = [items[asset.reference] for asset in ems.assets]
    assert {item.writes[-3:-1] for item in assets} == {("received", "sent")}
    assert {item.transaction_id for item in assets} == {"a0B123"}


async def write(session, several):
    written = await session.write([write for writes in several for write in writes])
    assert {entry.error for entry in written} == {""}


async def test_the_unit_names_its_assets_and_can_be_asked_again(ems):
    """The unit's record lists the assets asked for; a second request comes with the next sequence once the first was received."""
    members = [asset.reference for asset in ems.assets[:3]]
    async with ADAPTER.open(context(ems)) as session:
        await ems.request_unit(members)
        (record,) = await records(session, "unit", 1)
        assert record.flow == "unit"
        assert record.fields["reference"].value == ems.unit_reference
        assert record.fields["assets"].value == tuple(members)
        assert record.fields["capacity_kw"].value == sum(asset.max_export_kw for asset in ems.assets[:3])
        await write(session, [outcome_writes("unit", record.place, state=Code(1, "received"))])
        await ems.request_unit(members[:1])
        (again,) = await records(session, "unit", 1)
        assert int(again.request) == int(record.request) + 1
        assert again.fields["assets"].value == tuple(members[:1])


async def test_what_was_asked_before_anybody_came_is_returned(ems):
    """The first session after the requests gets them all."""
    await ems.request_assets()
    async with ADAPTER.open(context(ems)) as session:
        asked = await records(session, "batteries", ASSETS)
    assert len(asked) == ASSETS


async def test_only_the_known_certificate_with_the_right_password_is_let_in(ems, tmp_path):
    """A stranger's certificate and a wrong password are refused, each as `LinkRefused`."""
    stranger = make_pair(tmp_path, "stranger", "urn:stranger")
    for changes in (
        {"certificate": stranger.certificate, "private_key": stranger.private_key},
        {"password": Secret("wrong")},
        {"user": "somebody"},
    ):
        with pytest.raises(LinkRefused):
            async with asyncio.timeout(WITHIN_S), ADAPTER.open(context(ems, **changes)):
                pass
