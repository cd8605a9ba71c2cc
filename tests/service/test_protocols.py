"""The shipped site files on servers that others wrote: node-opcua, libmodbus and mosquitto, with the sandbox behind."""

import base64
import json
import os
import struct
import time
import zipfile

import modbus_records as layout2
import pytest
import pytest_asyncio
from mosquitto import Peer
from opcua_peer import PLACES
from paho.mqtt.enums import MQTTProtocolVersion
from service import every_profile
from three_sites import ASSET_TOPIC, BASE, CHARGER, RESULT, STRIDE, WORD_REGISTER, WORD_TOPIC, opcua_site, sites

from bridge.cli.evidence import _export
from bridge.config import load
from bridge.envelope import Algorithm
from bridge.journal.alarms import AlarmBit
from bridge.journal.export_plan import Scope
from bridge.keys import KeySigner, new_key
from bridge.registry import find
from bridge.sandbox import Knobs, Refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opcua(tmp_path_factory):
    """One server for all of them, as if fresh for each."""
    async with opcua_site(tmp_path_factory.mktemp("opcua")) as peer:
        yield peer


@every_profile
async def test_three_protocols_from_request_to_written_back_outcome(tmp_path, opcua, profile):
    """Seven assets on three protocols, one refused by SMP; then a unit on each: every EMS holds the right words and transaction ids."""
    refuse = {"REF2": Refusal(code="E77", message="the MPAN is known elsewhere")}
    async with sites(tmp_path, opcua=opcua, profile=profile, knobs=Knobs(refuse=refuse)) as made:
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


async def test_bad_values_are_refused_and_hold_nobody_up(tmp_path, opcua):
    """Bad quality, a broken checksum and a number that is none: each is refused with a reason in its own EMS, the others are registered."""
    async with sites(tmp_path, opcua=opcua, profile="default", knobs=Knobs()) as made:
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
        await _the_legacy_leg(made, tmp_path)


async def _the_legacy_leg(made, directory):
    """An export beside the service has, per protocol, the bytes as they came, and of each field the quality and the times."""
    now_ns = time.time_ns()
    config = load(made.config, find, environ={**os.environ, **made.environment})
    scope = Scope(participant="acme-test", from_ns=now_ns - 600 * 10**9, to_ns=now_ns + 600 * 10**9)
    await _export(config, scope, KeySigner("host", Algorithm.ES256, new_key(Algorithm.ES256)), directory / "out.zip")
    parts = parts_of(directory / "out.zip")
    assert all(0 < now_ns - told["received_ns"] < 120 * 10**9 for told, _ in parts)

    nodes = {told["values"]["reference"][0]: told["values"] for told, raw in parts if "values" in told and not raw}
    value, quality, source_ns, word = nodes["REF2"]["export_kw"]
    assert (value, quality, word) == (None, "bad", "BadSensorFailure")
    assert 0 < now_ns - source_ns < 120 * 10**9
    assert nodes["REF1"]["export_kw"][:2] == [49500, "good"]

    blocks = [(told, raw) for told, raw in parts if raw and not raw.startswith(b"{")]
    assert {raw for _, raw in blocks} >= {layout2.record("RK1")}
    good = next(told for told, raw in blocks if raw == layout2.record("RK1"))
    assert "reference" in good["good"]
    assert good["other"] == {}
    torn = next(told for told, raw in blocks if raw != layout2.record("RK1"))
    assert torn["problem"].startswith("CRC")

    messages = {json.loads(raw.split(b"\n")[0])["reqId"]: (told, raw) for told, raw in parts if raw.startswith(b"{")}
    told, raw = messages["r-2"]
    assert json.loads(raw.split(b"\n")[1]) == {**CHARGER, "kw": "much"}
    assert "kw" in told["good"]  # the broker says nothing of quality: that it is no number, the host found
    assert told["other"] == messages["r-1"][0]["other"] == {}


def parts_of(file):
    """What each record in the file says of itself, and its raw bytes, as docs/evidence.md has it."""
    with zipfile.ZipFile(file) as archive:
        lines = [json.loads(line) for line in archive.read("evidence.jsonl").splitlines()]
    bytes_of = {
        line["blob"]: line["text"].encode() if "text" in line else base64.b64decode(line["base64"])
        for line in lines
        if "blob" in line
    }
    found = []
    for line in lines:
        event = line.get("event")
        if event is None or not (event[5] in {"WAITING", "joined", "SENDING"} or event[5].startswith("record.")):
            continue
        digest = json.loads(event[7]).get("readings", "") if event[5] == "SENDING" else event[8]
        data = bytes_of.get(digest, b"") if digest else b""
        while data:
            size = int.from_bytes(data[:4], "big")
            part, data = data[4 : 4 + size], data[4 + size :]
            form, told, raw = part.split(b"\n", 2)
            assert form == b"smp-bridge readings 1"
            found.append((json.loads(told), raw))
    return found


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


async def test_the_alarm_word_in_three_protocols(tmp_path, opcua):
    """0 at first; a drift sets the bit of its own site alone; it goes when the cause does, and it is
    written anew into a device that lost it."""
    async with sites(tmp_path, opcua=opcua, profile="default", knobs=Knobs(), change=with_alarm_word) as made:
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


async def test_outcomes_go_on_without_the_alarm_word(tmp_path, opcua):
    """The device refuses the register, the server has no such node: outcomes are written all the same."""

    def change(name, text):
        return with_alarm_word(name, text).replace("AlarmWord", "NoSuchNode") if name != "crawley" else text

    async with sites(tmp_path, opcua=opcua, profile="default", knobs=Knobs(), change=change) as made:
        await made.until(lambda: made.modbus.words(WORD_REGISTER), [0])
        await made.modbus.order("refuse", **{"from": WORD_REGISTER, "to": WORD_REGISTER})
        await made.ask_assets()
        await made.until(made.asset_words, ([3, 3, 3], [3, 3], ["registered", "registered"]))
        await made.modbus.put_bytes(BASE, layout2.record("RK1", name="Another Name"))
        await made.modbus_command(1)
        await made.until(made.asset_words, ([3, 3, 3], [10, 3], ["registered", "registered"]))
        assert await made.modbus.words(WORD_REGISTER) == [0]
        assert await made.opcua.value("EMS/AlarmWord") == 0xFFFF


ANSWERS = "acme/crawley/answers/{}"
HOST_STATUS = "acme/host/status"
AT_VERSION_5 = {
    "    host: {env: SMP_BRIDGE_CRAWLEY_HOST": "    session_expiry: 1d\n    host: {env: SMP_BRIDGE_CRAWLEY_HOST",
    'default: "3.1.1"}': 'default: "5"}',
    "    writable: [": f'    writable: ["{ANSWERS.format("+")}", ',
    "        kw: kw\n    submit:": "        kw: not_null(kva, kw)\n    submit:",
}


def at_version_5(name, text):
    """The shipped site of Crawley with these changes."""
    if name == "crawley":
        for before, after in AT_VERSION_5.items():
            assert before in text
            text = text.replace(before, after, 1)
    return text


async def test_an_answer_goes_where_its_request_asked(tmp_path, opcua):
    """MQTT 5, with a field by JMESPath: from the request to SMP's outcome on its response topic; the same request again is a repeat, and its standing outcome goes where this one asked."""
    async with sites(tmp_path, opcua=opcua, profile="default", knobs=Knobs(), change=at_version_5) as made:
        async with Peer(made.mqtt._broker, protocol=MQTTProtocolVersion.MQTTv5) as scheduler:
            await scheduler.subscribe(ANSWERS.format("+"), HOST_STATUS)

            async def there():
                return any(message.payload == b"online" for message in scheduler.messages)

            await made.until(there, True)  # a broker keeps no request for a host that it has never seen
            for number in (1, 2):
                own = ANSWERS.format(number)

                async def answer(topic=own):
                    found = scheduler.on(topic)
                    return found[-1]["state"] if found else ""

                body = {"reqId": "r-1", "action": "create"}
                carried = {"ResponseTopic": own, "CorrelationData": bytes([number])}
                await scheduler.publish(ASSET_TOPIC.format("EV1") + "/request", body, **carried)
                await made.until(answer, "registered")
                heard = [message for message in scheduler.messages if message.topic == own]
                assert {message.properties.CorrelationData for message in heard} == {bytes([number])}
                assert scheduler.on(own)[-1]["reqId"] == "r-1"
            first, again = (scheduler.on(ANSWERS.format(number))[-1] for number in (1, 2))
            assert first["transactionId"] == again["transactionId"] != ""
        assert made.sandbox.ledger.creates("EV1") == 1
        assert made.mqtt.on(ASSET_TOPIC.format("EV1") + "/result")[-1]["state"] == "registered"
