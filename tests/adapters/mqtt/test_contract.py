"""The adapter contract against mosquitto."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from aedes import aedes
from mosquitto import Broker, Peer, mosquitto
from mqtt_site import ASSET, REQUEST, RESULT, changing, chargers, options_of, read_site, registration, request

from adapters.mqtt import ADAPTER
from bridge.api import Trigger
from bridge.testing.contract import AdapterContract, Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


class MqttRig(Rig):
    library = "paho"

    def __init__(self, broker: Broker, peer: Peer, selection, **options) -> None:
        self.adapter = ADAPTER
        self.broker = broker
        self.peer = peer
        self.options = options_of(read_site(), **broker.options(**options))
        self.selection = selection
        self._requests = 0

    async def prepare(self) -> None:
        await self.peer.subscribe(RESULT.format("+"))
        for number, place in enumerate(self.places()):
            await self.peer.publish(ASSET.format(place), registration(number), retain=True)

    def places(self) -> tuple[str, str]:
        return "EV001", "EV002"

    def key(self, place: str) -> str:
        return place

    async def request(self, place: str) -> None:
        self._requests += 1
        if self.selection.trigger is Trigger.CHANGE:
            await self.peer.publish(ASSET.format(place), registration(self._requests + 100), retain=True)
        else:
            await self.peer.publish(REQUEST.format(place), request(f"r-{self._requests}"))

    async def outcome(self, place: str) -> Mapping[str, object]:
        result = (await self.peer.until(RESULT.format(place)))[-1]
        return {"state": result["state"], "transactionId": result["transactionId"]}

    async def stop_peer(self) -> None:
        await self.broker.stop()

    async def start_peer(self) -> None:
        await self.broker.start()
        await self.peer.reconnected()

    async def spoil(self, place: str) -> bool:
        body = registration()
        del body["mpan"]
        await self.peer.publish(ASSET.format(place), body, retain=True)
        if self.selection.trigger is Trigger.MESSAGE:
            await self.request(place)
        return True


class _Mqtt(AdapterContract):
    version = "3.1.1"
    tls = False

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path

    def selection(self):
        return chargers()

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        async with mosquitto(self.directory / "broker", tls=self.tls) as broker, Peer(broker) as peer:
            rig = MqttRig(broker, peer, self.selection(), version=self.version)
            await rig.prepare()
            await self.subscribed(rig)
            yield rig

    async def subscribed(self, rig: Rig) -> None:
        """A broker keeps messages only for a session that it knows: the first contact makes one."""
        async with rig.adapter.open(self.context(rig)):
            pass


class TestMessages311(_Mqtt):
    """Requests as messages, MQTT 3.1.1."""


class TestMessages5(_Mqtt):
    """Requests as messages, MQTT 5 over TLS."""

    version = "5"
    tls = True


class TestChange(_Mqtt):
    """Submitting on change."""

    def selection(self):
        return changing()


class TestAedes(_Mqtt):
    """Another broker, at MQTT 3.1.1 over TLS. What it keeps outlives its connections: they and the listener end when it stops, its memory stays."""

    @pytest.fixture(autouse=True)
    def _node(self, node):
        self.node = node

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        async with aedes(self.directory / "broker", tls=True, process=self.node) as broker:
            await broker.start()
            async with Peer(broker) as peer:
                rig = MqttRig(broker, peer, self.selection(), version=self.version)
                await rig.prepare()
                await self.subscribed(rig)
                yield rig


class TestAedesChange(TestAedes):
    """Submitting on change there."""

    def selection(self):
        return changing()
