"""Ten sites on one bridge: four behind one MQTT broker, three Modbus devices, three OPC UA servers, each EMS a process of its own."""

from contextlib import AsyncExitStack, asynccontextmanager

from children import Child
from mosquitto import mosquitto
from sites import modbus_site, mqtt_site, opcua_site

KINDS = {"mqtt": 4, "modbus": 3, "opcua": 3}
ONE_OF_EACH = dict.fromkeys(KINDS, 1)
STRIDE, STATE = 60, 50  # registers of a slot, and where in it the outcome stands


class Site:
    """One site: its file, and the EMS behind it. `shows` tells that it shows its assets whenever it is looked at; a broker tells each but once."""

    def __init__(self, name, text, put, *, shows):
        self.name = name
        self.text = text
        self.put = put
        self.shows = shows


@asynccontextmanager
async def many_sites(directory, *, slots, kinds=KINDS):
    """The EMSs run; yields the sites. Each has room for so many assets."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(mosquitto(directory / "mosquitto", extra="max_queued_messages 0"))
        publisher = await stack.enter_async_context(Child("publisher_mqtt.py", broker=broker.port))
        sites = [_mqtt(broker, publisher, number, slots) for number in range(kinds["mqtt"])]
        for number in range(kinds["modbus"]):
            device = await stack.enter_async_context(Child("device_modbus.py", slots=slots, stride=STRIDE))
            sites.append(_modbus(device, number, slots))
        for number in range(kinds["opcua"]):
            device = await stack.enter_async_context(Child("device_opcua.py", slots=slots))
            sites.append(_opcua(device, number))
        yield sites


def texts(sites):
    """The site files."""
    return {site.name: site.text for site in sites}


def _mqtt(broker, publisher, number, slots):
    name, topic = f"mqtt{number}", f"bench/site{number}"
    text = mqtt_site(broker.port, site=name, topic=topic, max_items=None)

    async def put(prefix, count):
        await publisher.ask("burst", prefix=prefix, count=count, topic=topic, slots=slots)

    return Site(name, text, put, shows=False)


def _modbus(device, number, slots):
    name = f"modbus{number}"
    text = modbus_site(device.port, site=name, slots=slots, stride=STRIDE, state=STATE, poll="250ms", max_items=None)
    return Site(name, text, _putting(device), shows=True)


def _opcua(device, number):
    name = f"opcua{number}"
    return Site(name, opcua_site(device.port, site=name, interval="50ms", max_items=None), _putting(device), shows=True)


def _putting(device):
    async def put(prefix, count):
        await device.ask("burst", prefix=prefix, count=count)

    return put
