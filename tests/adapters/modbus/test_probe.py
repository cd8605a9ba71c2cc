"""A probe of a libmodbus device (and of jsmodbus): what a session would deliver, what is wrong with the map, and not one write."""

import asyncio
import copy

import pytest
from modbus_device import JSMODBUS, LIBMODBUS, modbus_device
from modbus_records import COMMAND, HEADER, SEQUENCE, record, unit
from modbus_site import SAMPLE, context_of, options_of, read_site, selections_of

from adapters.modbus import ADAPTER
from bridge.api import LinkError, Quality

FAST = {"poll": "10ms", "busy_pause": "10ms", "timeout": "500ms", "heartbeat": None}


@pytest.fixture
async def device():
    async with filled(LIBMODBUS) as device:
        yield device


def filled(command):
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def made():
        async with modbus_device(command) as device:
            await device.put(0, *HEADER)
            await device.put_bytes(100, record("RK01"))
            await device.put_bytes(180, record("RK02", name="South Yard Battery 002", kw=-12500))
            await device.put_bytes(6000, unit("UNIT01", (0, 1)))
            yield device

    return made()


def context(device, change=lambda flows: None, **options):
    site = read_site(SAMPLE)
    flows = site["flows"] = copy.deepcopy(site["flows"])
    change(flows)
    return context_of(options_of(site, port=device.port, **{**FAST, **options}), selections_of(site))


async def looked(given, wait_s=0.1):
    async with asyncio.timeout(30), ADAPTER.probe(given) as probe:
        return await probe.look(wait_s)


def told(look, **where):
    return [
        trouble.text for trouble in look.troubles if all(getattr(trouble, key) == value for key, value in where.items())
    ]


@pytest.mark.parametrize("command", [LIBMODBUS, JSMODBUS], ids=["libmodbus", "jsmodbus"])
async def test_it_shows_what_a_session_delivers(command):
    """Whole records with the same readings and bytes as a request brings, bit sets as the references they stand for."""
    async with filled(command) as device:
        given = context(device)
        look = await looked(given)
        async with asyncio.timeout(30), ADAPTER.open(given) as session:
            records = []
            for command_number in (1, 2):
                await device.put(SEQUENCE, command_number)
                await device.put(COMMAND, command_number)
                [arrival] = await session.receive()
                arrival.ack(True)
                await device.until(8, 3)
                await device.put(COMMAND, 0)
                await device.until(8, 0)
                records += arrival.records
    assert [(each.flow, each.place, each.fields, each.raw) for each in look.records] == [
        (each.flow, each.place, each.fields, each.raw) for each in records
    ]
    assert look.records[-1].fields["assets"].value == ("RK01", "RK02")
    assert told(look) == []


async def test_a_request_that_waits_is_not_answered(device):
    """A command is set and nobody works the site: the probe shows it, reads only (functions 1 to 4), and leaves status and sequence as they are."""
    await device.put(SEQUENCE, 7)
    await device.put(COMMAND, 1)
    before = await device.words(0, 6400)
    look = await looked(context(device))
    beside = {(each.flow, each.name): each.reading.value for each in look.beside}
    assert (beside["batteries", "submit.request"], beside["batteries", "submit.sequence"]) == (1, 7)
    stats = await device.order("stats")
    assert (stats["writes"], {function for function, _, _ in stats["log"]}) == (0, {3})
    assert await device.words(0, 6400) == before


async def test_another_device(device):
    """Magic and version are compared, and the records are shown all the same."""
    look = await looked(context(device, magic={"at": 0, "is": 0x1234}, version={"at": 1, "is": 0x0200}))
    assert told(look, name="adapter.magic") == ["register 0 holds 0x534d, the site file says 0x1234"]
    assert told(look, name="adapter.version") == ["register 1 holds 0x0102, the site file says 0x0200"]
    assert [each.place for each in look.records if each.flow == "batteries"] == ["0", "1"]


async def test_registers_that_are_not_there(device):
    """The record that the device does not show is named with the registers and the exception; its neighbour is read."""
    await device.order("refuse", **{"from": 180, "to": 259})
    look = await looked(context(device))
    [text] = told(look, flow="batteries", place="1")
    assert "exception 2 (illegal address)" in text
    assert [each.place for each in look.records if each.flow == "batteries"] == ["0"]


async def test_a_heartbeat_that_stands_still(device):
    """It is waited for as long as `stale`, and no longer than until it moves."""
    look = await looked(context(device, heartbeat={"at": 5, "stale": "300ms"}))
    [text] = told(look, name="adapter.heartbeat")
    assert text.startswith("register 5 has stood at 0 for 0.3 s")
    await device.order("beat", at=5, on=True)
    assert told(await looked(context(device, heartbeat={"at": 5, "stale": "10s"})), name="adapter.heartbeat") == []


async def test_a_count_beyond_its_bound(device):
    """As many as `max` allows are read, and the count is told: no session would open."""

    def change(flows):
        flows["batteries"]["records"]["each"]["count"] = {"from": 2, "max": 1}

    look = await looked(context(device, change))
    [text] = told(look, name="records.each.count")
    assert text.startswith("register 2 counts 2 records, `max` allows 1")
    assert [each.place for each in look.records if each.flow == "batteries"] == ["0"]


async def test_a_record_whose_checksum_is_wrong(device):
    """The record says so itself, as a session's would."""
    await device.put(139, 0xBEEF)
    look = await looked(context(device))
    assert look.records[0].problem.startswith("CRC: register 139 holds BEEF")
    assert look.records[0].fields["reference"].quality is Quality.GOOD


async def test_a_device_that_falls_silent(device):
    """What was read until then is shown with the reason; the next look says that the link is lost."""
    await device.order("mute", on=True)
    async with asyncio.timeout(30), ADAPTER.probe(context(device)) as probe:
        look = await probe.look(0.1)
        assert "no answer within 0.5 s" in told(look)[0]
        with pytest.raises(LinkError):
            await probe.look(0.1)


async def test_a_device_that_rests_between_polls(device):
    """`close_after_poll`: the second look opens the connection again."""
    async with asyncio.timeout(30), ADAPTER.probe(context(device, close_after_poll=True)) as probe:
        looks = [await probe.look(0.1), await probe.look(0.1)]
    assert [len(look.records) for look in looks] == [3, 3]
    assert (await device.order("stats"))["connections"] == 2
