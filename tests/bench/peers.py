"""The EMS of each protocol as the bench drives it: where it listens, its site file, its reference script, and how it makes records."""

import itertools
from contextlib import asynccontextmanager

from children import Child
from mosquitto import mosquitto
from sites import modbus_site, mqtt_site, opcua_site

from adapters.mqtt.book import MOST_PLACES


class MqttPeer:
    """mosquitto and a publisher, each a process of its own."""

    name = "mqtt"
    overwrites = False
    floor = "floor_mqtt.py"

    def __init__(self, broker, publisher, *, progress=False):
        self.port = broker.port
        self._publisher = publisher
        self._progress = progress
        self._starts = itertools.count(1)

    def sites(self):
        """A site of another name for each start: the broker keeps the session of one that went away, and all that was published meanwhile."""
        site = f"bench{next(self._starts)}"
        return {site: mqtt_site(self.port, site=site, progress=self._progress)}

    async def paced(self, prefix, count, rate):
        return await self._publisher.ask("paced", prefix=prefix, count=count, rate=rate)

    async def burst(self, prefix, count):
        return await self._publisher.ask("burst", prefix=prefix, count=count)

    async def flood(self, prefix, count):
        """So many assets, in as many places as a flow over MQTT may have."""
        return await self._publisher.ask("burst", prefix=prefix, count=count, slots=min(count, MOST_PLACES))


@asynccontextmanager
async def mqtt_peer(directory, **options):
    """A broker that keeps what a slow subscriber has not taken yet."""
    async with (
        mosquitto(directory / "mosquitto", extra="max_queued_messages 0\nset_tcp_nodelay true") as broker,
        Child("publisher_mqtt.py", broker=broker.port) as publisher,
    ):
        yield MqttPeer(broker, publisher, **options)


class DevicePeer:
    """A device that makes its own records. It is state, not messages: what nobody looked at in time is overwritten by the next asset in its slot."""

    overwrites = True

    def __init__(self, name, device, site):
        self.name = name
        self.floor = f"floor_{name}.py"
        self.device = device
        self.port = device.port
        self._site = site

    def sites(self):
        return {"bench": self._site(self.port)}

    async def paced(self, prefix, count, rate):
        return await self.device.ask("paced", prefix=prefix, count=count, rate=rate)

    async def burst(self, prefix, count):
        return await self.device.ask("burst", prefix=prefix, count=count)


@asynccontextmanager
async def modbus_peer():
    """A Modbus TCP device with four slots."""
    async with Child("device_modbus.py") as device:
        yield DevicePeer("modbus", device, modbus_site)


@asynccontextmanager
async def opcua_peer():
    """An OPC UA server with sixteen slots."""
    async with Child("device_opcua.py") as device:
        yield DevicePeer("opcua", device, opcua_site)
