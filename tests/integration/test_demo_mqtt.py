"""The simulated MQTT EMS as the bridge meets it: its own YAML, the adapter's session, and what the EMS then remembers."""

import asyncio

import pytest
from amqtt.errors import ProtocolHandlerError
from mqtt_site import context_of, options_of, outcome, read_site, selections_of

from adapters.mqtt import ADAPTER
from bridge.api import LinkRefused, Write
from bridge.demo.ems_mqtt import MqttEms

WITHIN_S = 20
ASSETS = 200


@pytest.fixture
async def ems(tmp_path):
    before = asyncio.all_tasks()
    async with MqttEms(ASSETS, seed=7, directory=tmp_path / "keys") as ems:
        yield ems
    async with asyncio.timeout(WITHIN_S):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0.01)


async def test_the_end_is_quiet(tmp_path, caplog):
    """What the library leaves behind of messages on their way is not told; any other error still is."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    async with MqttEms(1, seed=7, directory=tmp_path / "keys"):
        pass
    try:
        for error in (ProtocolHandlerError("Packet handling was cancelled"), ValueError("of ours")):
            loop.call_exception_handler({"message": "Task exception was never retrieved", "exception": error})
    finally:
        loop.set_exception_handler(before)
    told = [str(record.exc_info[1]) for record in caplog.records if record.name == "asyncio"]
    assert told == ["of ours"]


def context(ems, **changes):
    """Crawley's own file, with the EMS's authority, user and address where the environment stands."""
    given = {"host": ems.host, "port": ems.port, "user": ems.user, "password": ems.password}
    site = read_site()
    options = options_of(site, tls={"ca": str(ems.ca_file)}, **{**given, **changes})
    return context_of(options, *selections_of(site), client_id="smp-bridge-crawley-broker")


async def records(session, flow, count):
    """Complete records of a flow by place."""
    found = {}
    async with asyncio.timeout(WITHIN_S):
        while len(found) < count:
            for arrival in await session.receive():
                arrival.ack(True)
                found |= {entry.place: entry for entry in arrival.records if entry.flow == flow and entry.complete}
    return found


def written(flow, place, request, state, errors=()):
    """One outcome of a flow, as the core hands it over."""
    writes = outcome(place, request, state, errors)
    return [
        Write(address=write.address._replace(flow=flow), value=write.value, request=write.request) for write in writes
    ]


async def until(condition):
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_every_asset_arrives_whole_and_every_outcome_is_remembered(ems):
    """200 requests become 200 good records under their own references, and the EMS then holds what was published for each of them."""
    async with ADAPTER.open(context(ems)) as session:
        await ems.request_assets()
        found = await records(session, "chargers", ASSETS)
        assert set(found) == {asset.reference for asset in ems.assets}
        for asset in ems.assets:
            fields = {name: reading.value for name, reading in found[asset.reference].fields.items()}
            assert fields == {
                "reference": asset.reference,
                "name": asset.name,
                "mpan": asset.import_mpan,
                "postcode": asset.postcode,
                "gsp_group": asset.gsp_group,
                "kw": f"{asset.max_export_kw},5",
            }
        writes = [
            write
            for place, record in found.items()
            for state in ("received", "registered")
            for write in written("chargers", place, record.request, state)
        ]
        assert not any(entry.error for entry in await session.write(writes))
        await until(lambda: all(item.final for item in ems.items().values()))
    assert {item.writes for item in ems.items().values()} == {("received", "registered")}
    assert {item.transaction_id for item in ems.items().values()} == {"a0B1"}


async def test_the_unit_names_its_assets(ems):
    """A list of references, and a capacity that its members can carry; a refusal arrives with its words."""
    members = ems.assets[:5]
    async with ADAPTER.open(context(ems)) as session:
        await ems.request_unit([asset.reference for asset in members])
        (record,) = (await records(session, "unit", 1)).values()
        fields = {name: reading.value for name, reading in record.fields.items()}
        assert fields["reference"] == ems.unit_reference
        assert fields["assets"] == [asset.reference for asset in members]
        assert fields["kw"] == f"{sum(asset.max_export_kw for asset in members)},0"
        await session.write(written("unit", ems.unit_reference, record.request, "refused", ("no", "never")))
        await until(lambda: ems.items()[ems.unit_reference].final)
    assert ems.items()[ems.unit_reference].error_text == "no; never"


async def test_requests_made_before_the_bridge_connects_are_kept(ems):
    """Once the bridge was there, the broker keeps what is asked while it is away."""
    async with ADAPTER.open(context(ems)):
        await until(ems._host_was_there.is_set)
    sessions = ems._broker._broker._sessions  # this broker loses what it sends while a client is just leaving
    await until(lambda: sessions["smp-bridge-crawley-broker"][0].transitions.state == "disconnected")
    await ems.request_assets()
    async with ADAPTER.open(context(ems)) as session:
        assert len(await records(session, "chargers", ASSETS)) == ASSETS


async def test_nobody_else_is_let_in(ems):
    """A wrong password is a refusal here too."""
    with pytest.raises(LinkRefused):
        async with ADAPTER.open(context(ems, password="wrong")):
            pass


def test_the_same_seed_makes_the_same_plant(tmp_path):
    """The demo can be told again."""
    one, same, other = (MqttEms(20, seed=seed, directory=tmp_path) for seed in (1, 1, 2))
    assert one.assets == same.assets != other.assets
    assert [asset.reference for asset in one.assets][:2] == ["EV01", "EV02"]
    with pytest.raises(ValueError, match="1 to 999"):
        MqttEms(0, seed=1, directory=tmp_path)
