"""The EMS of each protocol as the bench drives it: where it listens, its site file, its reference script, and how it makes records."""

from contextlib import asynccontextmanager

from children import Child
from mosquitto import mosquitto
from sites import mqtt_site


class MqttPeer:
    """mosquitto and a publisher, each a process of its own."""

    name = "mqtt"
    floor = "floor_mqtt.py"

    def __init__(self, broker, publisher, *, progress=False):
        self.port = broker.port
        self._publisher = publisher
        self._progress = progress

    def sites(self):
        return {"bench": mqtt_site(self.port, progress=self._progress)}

    async def paced(self, prefix, count, rate):
        return await self._publisher.ask("paced", prefix=prefix, count=count, rate=rate)

    async def burst(self, prefix, count):
        return await self._publisher.ask("burst", prefix=prefix, count=count)


@asynccontextmanager
async def mqtt_peer(directory, **options):
    """A broker that keeps what a slow subscriber has not taken yet."""
    async with (
        mosquitto(directory / "mosquitto", extra="max_queued_messages 0\nset_tcp_nodelay true") as broker,
        Child("publisher_mqtt.py", broker=broker.port) as publisher,
    ):
        yield MqttPeer(broker, publisher, **options)
