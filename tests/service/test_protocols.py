"""The shipped site files on servers that others wrote: node-opcua, libmodbus and mosquitto, with the sandbox behind."""

import asyncio
import os
import struct
from contextlib import AsyncExitStack, asynccontextmanager

import modbus_records as layout2
from modbus_device import modbus_device
from mosquitto import Peer as MqttPeer
from mosquitto import mosquitto
from opcua_peer import PASSWORD, PLACES, USER, opcua_peer
from processes import CONFIG, World, market_side
from service import CLOCK, every_profile

from bridge.app import Host, Running
from bridge.config import load
from bridge.journal.alarms import AlarmBit
from bridge.registry import find
from bridge.sandbox import Knobs, Refusal

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
        """The handshake of layout 2, from its EMS's side."""
        [sequence] = await self.modbus.words(layout2.SEQUENCE)
        await self.modbus.put(layout2.SEQUENCE, sequence + 1)
        await self.modbus.put(layout2.COMMAND, command)
        await self.modbus.until(layout2.STATUS, 3)
        await self.modbus.put(layout2.COMMAND, 0)
        await self.modbus.until(layout2.STATUS, 0)


@asynccontextmanager
async def sites(directory, *, profile, knobs, change=lambda name, text: text):
    """Three peers, the sandbox, and a host in this process with the three shipped site files as they are, or as `change` makes them."""
    made = Sites(directory)
    async with AsyncExitStack() as stack:
        await market_side(made, stack, directory, profile=profile, knobs=knobs)
        for file in (CONFIG / "sites").glob("*.yaml"):
            (made.config / "sites" / file.name).write_text(change(file.stem, file.read_text()))
        await _peers(made, stack, directory)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = Running()
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
    made.opcua = await stack.enter_async_context(opcua_peer(directory))
    await made.opcua.layout()
    await made.opcua.variable("EMS/AlarmWord", "UInt16", 0xFFFF, writable=True)
    await made.opcua.start()
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


@every_profile
async def test_three_protocols_from_request_to_written_back_outcome(tmp_path, profile):
    """Seven assets on three protocols, one refused by SMP; then a unit on each: every EMS holds the right words and transaction ids."""
    refuse = {"REF2": Refusal(code="E77", message="the MPAN is known elsewhere")}
    async with sites(tmp_path, profile=profile, knobs=Knobs(refuse=refuse)) as made:
        await made.ask_assets()
        await made.until(made.asset_words, ([3, 4, 3], [3, 3], ["registered", "registered"]))
        assert {made.sandbox.ledger.creates(name) for name in ("REF1", "REF3", "RK1", "RK2", "EV1", "EV2")} == {1}
        assert "known elsewhere" in (await made.opcua.value("EMS/Assets/BESS002/Registration/ErrorText"))[0]
        ids = {entry.transaction_id for entry in made.sandbox.ledger.of("asset.create")}
        assert await made.opcua.value("EMS/Assets/BESS001/Registration/TransactionId") in ids
        shown = (await made.modbus.bytes(BASE + RESULT + 3, 9)).rstrip(b"\0").decode()
        assert shown in ids
        await made.ask_units(["REF1", "REF3"], (0, 1), ("EV1", "EV2"))
        await made.until(made.unit_words, (3, 3, "registered"))
        assert {made.sandbox.ledger.creates(name) for name in ("UNIT-1", "RK-UNIT1", "U1")} == {1}
        result = made.mqtt.on("acme/crawley/ems/asset/EV1/registration/result")[-1]
        assert (result["reqId"], result["errors"]) == ("r-1", [])
        assert result["transactionId"] in ids


async def test_bad_values_are_refused_and_hold_nobody_up(tmp_path):
    """Bad quality, a broken checksum and a number that is none: each is refused with a reason in its own EMS, the others are registered."""
    async with sites(tmp_path, profile="default", knobs=Knobs()) as made:
        await made.opcua.set("EMS/Assets/BESS002/MaxExport_kW", 49500, status="BadSensorFailure")
        await made.opcua.set("EMS/Assets/BESS003/Name", "North\nYard")
        await made.modbus.put(BASE + STRIDE + 30, 7)  # the CRC no longer fits
        await made.mqtt.publish(ASSET_TOPIC.format("EV2"), {**CHARGER, "kw": "much"}, retain=True)
        await made.ask_assets()
        await made.until(made.asset_words, ([3, 7, 7], [3, 7], ["registered", "refused_by_host"]))
        codes = [await made.opcua.value(f"EMS/Assets/{place}/Registration/ErrorCode") for place in PLACES]
        assert codes == [0, 9001, 9004]
        [modbus_code] = await made.modbus.words(BASE + STRIDE + RESULT + 2)
        assert struct.pack(">H", modbus_code) != b"\0\0"
        assert "much" in str(made.mqtt.on("acme/crawley/ems/asset/EV2/registration/result")[-1]["errors"])


WORDS = {
    "ipswich": ('      - "Objects/ems:EMS/ems:Assets/*/ems:Registration/*"', '      - "Objects/ems:EMS/ems:AlarmWord"', '{adapter: ems, word: {node: "Objects/ems:EMS/ems:AlarmWord"}}'),
    "rugby": ('      - "8..9"', f'      - "{WORD_REGISTER}"', f"{{adapter: ems, word: {{register: {WORD_REGISTER}}}}}"),
    "crawley": ("    writable: [", f'    writable: ["{WORD_TOPIC}", ', f"{{adapter: broker, word: {{topic: {WORD_TOPIC}}}}}"),
}  # fmt: skip


def with_alarm_word(name, text):
    """A shipped site file whose EMS is shown the alarm word."""
    before, more, section = WORDS[name]
    assert before in text
    after = more if name == "crawley" else f"{before}\n{more}"
    return f"{text.replace(before, after, 1)}\nalarms: {section}\n"


async def test_the_alarm_word_in_three_protocols(tmp_path):
    """0 at first; a drift sets the bit of its own site alone; it goes when the cause does, and it is
    written anew into a device that lost it."""
    async with sites(tmp_path, profile="default", knobs=Knobs(), change=with_alarm_word) as made:
        await made.until(made.alarm_words, (0, 0, 0))
        await made.ask_assets()
        await made.until(made.asset_words, ([3, 3, 3], [3, 3], ["registered", "registered"]))
        assert await made.alarm_words() == (0, 0, 0)

        await made.modbus.put_bytes(BASE, layout2.record("RK1", name="Another Name"))
        await made.modbus_command(1)
        await made.until(made.alarm_words, (0, AlarmBit.DRIFT, 0))
        await made.mqtt.publish(ASSET_TOPIC.format("EV1"), {**CHARGER, "name": "Other"}, retain=True)
        await made.mqtt.publish(ASSET_TOPIC.format("EV1") + "/request", {"reqId": "r-9", "action": "create"})
        await made.until(made.alarm_words, (0, AlarmBit.DRIFT, AlarmBit.DRIFT))
        assert made.mqtt.on(WORD_TOPIC)[-1]["words"] == ["drift"]

        await made.modbus.order("away")
        await made.modbus.put(WORD_REGISTER, 0)
        await made.modbus.listen()
        await made.until(made.alarm_words, (0, AlarmBit.DRIFT, AlarmBit.DRIFT))
        await made.modbus.put_bytes(BASE, layout2.record("RK1"))
        await made.modbus_command(1)
        await made.until(made.alarm_words, (0, 0, AlarmBit.DRIFT))


async def test_outcomes_go_on_without_the_alarm_word(tmp_path):
    """The device refuses the register, the server has no such node: outcomes are written all the same."""

    def change(name, text):
        return with_alarm_word(name, text).replace("AlarmWord", "NoSuchNode") if name != "crawley" else text

    async with sites(tmp_path, profile="default", knobs=Knobs(), change=change) as made:
        await made.until(lambda: made.modbus.words(WORD_REGISTER), [0])
        await made.modbus.order("refuse", **{"from": WORD_REGISTER, "to": WORD_REGISTER})
        await made.ask_assets()
        await made.until(made.asset_words, ([3, 3, 3], [3, 3], ["registered", "registered"]))
        await made.modbus.put_bytes(BASE, layout2.record("RK1", name="Another Name"))
        await made.modbus_command(1)
        await made.until(made.asset_words, ([3, 3, 3], [10, 3], ["registered", "registered"]))
        assert await made.modbus.words(WORD_REGISTER) == [0]
        assert await made.opcua.value("EMS/AlarmWord") == 0xFFFF
