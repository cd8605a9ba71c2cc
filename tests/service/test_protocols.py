"""The shipped site files on servers that others wrote: node-opcua, libmodbus and mosquitto, with the sandbox behind."""

import struct

import modbus_records as layout2
from opcua_peer import PLACES
from service import every_profile
from three_sites import ASSET_TOPIC, BASE, CHARGER, RESULT, STRIDE, WORD_REGISTER, WORD_TOPIC, sites

from bridge.journal.alarms import AlarmBit
from bridge.sandbox import Knobs, Refusal


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
