"""The three shipped sites on servers that others wrote (node-opcua, libmodbus, mosquitto), with the sandbox and a host in the test's own process."""

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager

import modbus_records as layout2
from modbus_device import modbus_device
from mosquitto import Peer as MqttPeer
from mosquitto import mosquitto
from opcua_peer import PASSWORD, PLACES, USER, opcua_peer
from processes import CONFIG, World, market_side
from service import CLOCK

from bridge.app import Host, Running
from bridge.config import load
from bridge.registry import find

BASE, STRIDE, UNIT, RESULT, HEARTBEAT = 100, 80, 6000, 60, 5
CHARGER = {"name": "Charger", "mpan": "1012345678903", "postcode": "ME1 2AB", "gspGroup": "_J", "kw": "49,5"}
ASSET_TOPIC = "acme/crawley/ems/asset/{}/registration"
WORD_TOPIC, WORD_REGISTER = "acme/crawley/ems/alarms", 20
UNIT_TOPIC = "acme/crawley/ems/unit/{}/registration"


class Sites(World):
    """The three EMSs as their own peers show them."""

    async def asset_words(self):
        """Each asset's last state word as its EMS holds it."""
        opcua = [await self.opcua.value(f"EMS/Assets/{place}/Registration/State") for place in PLACES]
        modbus = [(await self.modbus.words(BASE + STRIDE * number + RESULT))[0] for number in range(2)]
        return opcua, modbus, [self.mqtt_word("asset", f"EV{number}") for number in (1, 2)]

    def mqtt_word(self, kind, name):
        results = self.mqtt.on(f"acme/crawley/ems/{kind}/{name}/registration/result")
        return results[-1]["state"] if results else ""

    async def unit_words(self):
        opcua = await self.opcua.value("EMS/Units/UNIT01/Registration/State")
        return opcua, (await self.modbus.words(UNIT + RESULT))[0], self.mqtt_word("unit", "U1")

    async def until(self, ask, wanted, within_s=30):
        found = None
        try:
            async with asyncio.timeout(within_s):
                while (found := await ask()) != wanted:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"the EMSs hold {found}, expected {wanted}") from None

    async def alarm_words(self):
        """The alarm word of each site as its EMS holds it."""
        [register] = await self.modbus.words(WORD_REGISTER)
        published = self.mqtt.on(WORD_TOPIC)
        return await self.opcua.value("EMS/AlarmWord"), register, published[-1]["alarms"] if published else None

    async def ask_assets(self):
        for place in PLACES:
            await self.opcua.request(place)
        await self.modbus_command(1)
        for number in (1, 2):
            topic = ASSET_TOPIC.format(f"EV{number}") + "/request"
            await self.mqtt.publish(topic, {"reqId": f"r-{number}", "action": "create"})

    async def ask_units(self, opcua_members, modbus_members, mqtt_members):
        await self.opcua.set("EMS/Units/UNIT01/AlignedAssets", opcua_members)
        sequence = await self.opcua.value("EMS/Units/UNIT01/Registration/RequestSeq")
        await self.opcua.set("EMS/Units/UNIT01/Registration/RequestSeq", sequence + 1)
        await self.opcua.set("EMS/Units/UNIT01/Registration/Request", 1)
        await self.modbus.put_bytes(UNIT, layout2.unit("RK-UNIT1", modbus_members))
        await self.modbus_command(2)
        unit = {"name": "Unit", "service": "DC", "kw": "49", "assets": list(mqtt_members)}
        await self.mqtt.publish(UNIT_TOPIC.format("U1"), unit, retain=True)
        await self.mqtt.publish(UNIT_TOPIC.format("U1") + "/request", {"reqId": "u-1", "action": "create"})

    async def modbus_command(self, command):
        await modbus_command(self.modbus, command)


async def modbus_command(device, command):
    """The handshake of layout 2, from its EMS's side."""
    [sequence] = await device.words(layout2.SEQUENCE)
    await device.put(layout2.SEQUENCE, sequence + 1)
    await device.put(layout2.COMMAND, command)
    await device.until(layout2.STATUS, 3)
    await device.put(layout2.COMMAND, 0)
    await device.until(layout2.STATUS, 0)


@asynccontextmanager
async def opcua_site(directory):
    """The OPC UA server of the first site, which listens; it takes seconds to start, so tests may hand it to `sites`, one after the other."""
    async with opcua_peer(directory) as peer:
        await peer.layout()
        await peer.variable("EMS/AlarmWord", "UInt16", 0xFFFF, writable=True)
        await peer.start()
        yield peer


@asynccontextmanager
async def sites(directory, *, profile, knobs, change=lambda name, text: text, opcua=None):
    """Three peers, the sandbox, and a host in this process with the three shipped site files as they are, or as `change` makes them.

    `opcua` is a server of `opcua_site` that is to be used; it is made as if fresh. Without one this site has its own.
    """
    made = Sites(directory)
    async with AsyncExitStack() as stack:
        await market_side(made, stack, directory, profile=profile, knobs=knobs)
        for file in (CONFIG / "sites").glob("*.yaml"):
            (made.config / "sites" / file.name).write_text(change(file.stem, file.read_text()))
        if opcua is None:
            made.opcua = await stack.enter_async_context(opcua_site(directory))
        else:
            made.opcua = opcua
            await opcua.fresh()
        await _peers(made, stack, directory)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = made.running = Running()
        config = load(made.config, find, environ={**os.environ, **made.environment})
        host = group.create_task(Host(config, clock=CLOCK).run(running))
        async with asyncio.timeout(20):
            await running.ready.wait()
        made.listening(running.returns_port)
        beating = group.create_task(_beat(made.modbus))
        try:
            yield made
        finally:
            beating.cancel()
            running.stop.set()
            async with asyncio.timeout(30):
                await host


async def _beat(device):
    """The heartbeat of layout 2: an EMS whose counter stands still is not believed."""
    for beat in range(1, 10_000):
        await device.put(HEARTBEAT, beat)
        await asyncio.sleep(0.1)


async def _peers(made, stack, directory):
    made.modbus = await stack.enter_async_context(modbus_device())
    await made.modbus.put(0, *layout2.HEADER)
    for number in range(2):
        await made.modbus.put_bytes(BASE + STRIDE * number, layout2.record(f"RK{number + 1}"))
    broker = await stack.enter_async_context(
        mosquitto(directory / "mqtt", tls=True, user="smp-bridge", password="secret")
    )
    made.mqtt = await stack.enter_async_context(MqttPeer(broker))
    await made.mqtt.subscribe("acme/crawley/ems/+/+/registration/result", WORD_TOPIC)
    for number in (1, 2):
        await made.mqtt.publish(ASSET_TOPIC.format(f"EV{number}"), CHARGER, retain=True)
    made.environment |= {
        "SMP_BRIDGE_IPSWICH_URL": made.opcua.url, "SMP_BRIDGE_IPSWICH_CERTIFICATE": str(made.opcua.client.certificate),
        "SMP_BRIDGE_IPSWICH_KEY": str(made.opcua.client.private_key), "SMP_BRIDGE_IPSWICH_USER": USER,
        "SMP_BRIDGE_IPSWICH_SERVER_CERTIFICATE": str(made.opcua.own.certificate), "SMP_BRIDGE_IPSWICH_PASSWORD": PASSWORD,
        "SMP_BRIDGE_RUGBY_HOST": made.modbus.host, "SMP_BRIDGE_RUGBY_PORT": str(made.modbus.port),
        "SMP_BRIDGE_CRAWLEY_HOST": broker.host, "SMP_BRIDGE_CRAWLEY_PORT": str(broker.port),
        "SMP_BRIDGE_CRAWLEY_CA": str(broker.ca), "SMP_BRIDGE_CRAWLEY_USER": broker.user, "SMP_BRIDGE_CRAWLEY_PASSWORD": "secret",
    }  # fmt: skip
