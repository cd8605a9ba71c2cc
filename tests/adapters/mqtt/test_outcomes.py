"""Outcomes as messages, and what is never published."""

import asyncio
import json
import subprocess

import pytest
from mosquitto import HOST, Peer, mosquitto
from mqtt_site import RESULT, context_of, options_of, outcome, read_site, selection_of
from played_broker import PlayedBroker, serving

from adapters.mqtt import ADAPTER
from adapters.mqtt.book import FlowBook
from adapters.mqtt.client import correlated, made
from adapters.mqtt.config import MqttOptions
from adapters.mqtt.outbox import Message, outgoing
from adapters.mqtt.posts import packet_bytes
from bridge.api import OutcomeField, Quality


async def test_an_outcome_is_one_message_that_another_client_receives(session, broker, version):
    """Seen by mosquitto's own command: the members that the site named, the state as a word, the errors as a list."""
    topic = RESULT.format("EV001")
    listener = await asyncio.create_subprocess_exec(
        "stdbuf",
        "-oL",
        "mosquitto_sub",
        *broker.arguments(),
        "-t",
        topic,
        "-q",
        "1",
        "-C",
        "1",
        "-W",
        "10",
        "-d",
        stdout=subprocess.PIPE,
    )
    while b"SUBACK" not in await listener.stdout.readline():
        pass
    async with session(version=version) as link:
        written = await link.write(outcome("EV001", "r-1", "refused", ("MPAN is unknown", "zweite Zeile: ä")))
    heard = (await listener.communicate())[0]
    payload = next(line for line in heard.split(b"\n") if line.startswith(b'{"'))
    assert json.loads(payload) == {
        "reqId": "r-1",
        "state": "refused",
        "transactionId": "a0B1",
        "errors": ["MPAN is unknown", "zweite Zeile: ä"],
    }
    values = {entry.address.name: entry.value for entry in written}
    assert not any(entry.error for entry in written)
    assert values[OutcomeField.STATE] == "refused"
    assert values[OutcomeField.ERROR_TEXT] == ["MPAN is unknown", "zweite Zeile: ä"]


async def test_each_place_and_request_has_its_own_message_in_order(session, ems):
    """Writes of several outcomes in one call; the same place and request again is a later outcome."""
    await ems.subscribe(RESULT.format("+"))
    async with session() as link:
        writes = [
            *outcome("EV001", "r-1", "received"),
            *outcome("EV002", "r-2", "received"),
            *outcome("EV001", "r-3", "received"),
            *outcome("EV001", "r-1", "registered"),
        ]
        written = await link.write(writes)
    assert [entry.address for entry in written] == [write.address for write in writes]
    first = await ems.until(RESULT.format("EV001"), 3)
    assert [(body["reqId"], body["state"]) for body in first] == [
        ("r-1", "received"),
        ("r-3", "received"),
        ("r-1", "registered"),
    ]
    assert [body["reqId"] for body in await ems.until(RESULT.format("EV002"))] == ["r-2"]


async def test_hundreds_of_outcomes_are_all_acknowledged(session, ems, version):
    """More than the broker takes at once."""
    await ems.subscribe(RESULT.format("+"))
    async with session(version=version) as link:
        writes = [write for number in range(256) for write in outcome(f"EV{number}", f"r-{number}")]
        assert not any(entry.error for entry in await link.write(writes))
    await ems.until(RESULT.format("EV255"))
    assert len(ems.messages) == 256


async def test_a_topic_outside_writable_is_refused_alone(session, ems):
    """Nothing is published there; the others are."""
    await ems.subscribe("#")
    async with session(writable=[RESULT.format("EV001")]) as link:
        written = await link.write([*outcome("EV002", "r-2"), *outcome("EV001", "r-1")])
    assert {entry.error for entry in written if entry.address.place == "EV002"} == {
        "acme/crawley/ems/asset/EV002/registration/result is outside `writable:`; nothing was published"
    }
    assert not any(entry.error for entry in written if entry.address.place == "EV001")
    await ems.until(RESULT.format("EV001"))
    assert not ems.on(RESULT.format("EV002"))


@pytest.mark.parametrize("place", ["", "a/b", "+", "#", "a+b"])
async def test_a_place_that_cannot_be_is_refused_alone(session, ems, place):
    """No wildcard, no second level and no empty name ever reaches a topic."""
    async with session() as link:
        written = await link.write([*outcome(place, "r-2"), *outcome("EV001", "r-1")])
    assert all(bool(entry.error) == (entry.address.place == place) for entry in written)


async def test_a_retained_outcome_meets_who_comes_later(session, ems):
    """`retain: true`; nested members, numbers and times as the site names them."""
    flow = read_site()["flows"]["chargers"]
    flow["outcome"] |= {
        "retain": True,
        "payload": {
            "status.word": "state",
            "status.number": "state.number",
            "status.code": "errorCode.number",
            "status.text": "errorCode",
            "count": "errorCount",
            "at": "updatedAt",
            "alarm": "alarm",
        },
    }
    async with session(selection_of("chargers", flow)) as link:
        await link.write(outcome("EV001", "r-1", errors=("no",)))
    await ems.subscribe(RESULT.format("+"))
    assert await ems.until(RESULT.format("EV001")) == [
        {
            "status": {"word": "registered", "number": 3, "code": 9999, "text": "E1"},
            "count": 1,
            "at": "2026-11-23T00:00:00.123Z",
            "alarm": False,
        }
    ]


async def test_a_publish_that_the_broker_refuses_is_an_error_of_its_address(tmp_path, session, broker):
    """MQTT 5 says so; 3.1.1 has no word for it."""
    acl = tmp_path / "acl"
    acl.write_text("user smp-bridge\ntopic read acme/crawley/#\ntopic write acme/host/status\n")
    broker._extra += f"\nacl_file {acl}"
    await broker.stop()
    await broker.start()
    async with session(version="5") as link:
        written = await link.write(outcome("EV001", "r-1"))
    assert {entry.error for entry in written} == {"the broker refuses the message (Not authorized)"}


async def test_an_outcome_larger_than_the_broker_takes_is_refused_alone(tmp_path):
    """MQTT 5 says how large a packet may be. Sent all the same it would end the connection, at each new one again, and no other outcome would ever leave."""
    most = 1000
    room = most - packet_bytes(message("EV001", "x" * 500)) + 500
    large, too_large = "x" * room, "x" * (room + 1)
    async with mosquitto(tmp_path / "broker", extra=f"max_packet_size {most}") as broker, Peer(broker) as ems:
        await ems.subscribe(RESULT.format("+"))
        options = options_of(read_site(), **broker.options(version="5"))
        async with ADAPTER.open(context_of(options)) as link:
            writes = [outcome(place, "r-1", errors=(text,)) for place, text in (("EV002", too_large), ("EV001", large))]
            written = await link.write([write for both in writes for write in both])
            await ems.until(RESULT.format("EV001"))
    errors = {entry.error for entry in written if entry.address.place == "EV002"}
    assert errors == {
        "the message takes 1001 bytes, the broker allows 1000; raise its limit, or name fewer members in `payload`"
    }
    assert {entry.error for entry in written if entry.address.place == "EV001"} == {""}


def message(place, text):
    """What an outcome with this text becomes."""
    context = context_of(options_of(read_site(), host="127.0.0.1"))
    (selection,) = context.selections
    flows = {"chargers": FlowBook(selection, 1024)}
    (entry,) = outgoing(
        outcome(place, "r-1", errors=(text,)), {"chargers": selection}, flows, context.options, lambda _: None
    )
    (made,) = entry.messages()
    return made


@pytest.mark.parametrize("correlation", [None, b"", b"x" * 124, b"x" * 125, b"x" * 5000])
@pytest.mark.parametrize("size", [0, 90, 16_300, 16_400])
def test_the_size_of_a_packet_is_what_the_library_sends(correlation, size):
    """Lengths of one to three bytes, with and without properties."""
    client = made(MqttOptions(host="127.0.0.1", version="5"), "test")
    client.on_socket_register_write = lambda *_: None
    client._sock = object()
    one = Message(topic="acme/é", payload=b"x" * size, correlation=correlation)
    client._send_publish(1, one.topic.encode(), one.payload, 1, False, False, None, correlated(one))
    client._sock = None
    (packet,) = client._out_packet
    assert packet_bytes(one) == len(packet["packet"])


async def test_a_topic_longer_than_mqtt_allows_is_refused_alone(session, ems):
    """A request's topic may be just short enough, and that of its result not."""
    await ems.subscribe(RESULT.format("EV001"))
    async with session() as link:
        written = await link.write([*outcome("E" * 65_500, "r-1"), *outcome("EV001", "r-2")])
        await ems.until(RESULT.format("EV001"))
    assert {entry.error for entry in written} == {
        "the outcome's topic would have 65543 bytes, MQTT allows 65535; nothing was published", ""
    }  # fmt: skip


async def test_no_more_are_on_their_way_than_the_broker_takes():
    """Its receive maximum (MQTT 5, 3.3.4) counts our status too; one more and it ends the connection, at each new one again."""
    broker = PlayedBroker(b"\x21\x00\x02", after_s=0.02)
    async with serving(broker.serve) as port:
        options = options_of(read_site(), host=HOST, port=port, version="5")
        async with ADAPTER.open(context_of(options)) as link:
            await link.write([write for number in range(5) for write in outcome(f"EV{number}", "r-1")])
    assert max(broker.under_way) == 2
    assert len(broker.under_way) == 7  # online, five outcomes, offline


async def test_messages_cannot_be_read(session, broker):
    """`can_read` says so, and a reading would be bad."""
    async with session() as link:
        assert link.can_read is False
        (reading,) = await link.read([outcome("EV001", "r-1")[0].address])
        assert reading.quality is Quality.BAD


async def test_the_status_topic_tells_whether_we_are_there(broker, session, ems, version):
    """Retained: online while a session is open, offline after it, also to those who ask later."""
    await ems.subscribe("acme/host/status")
    async with session(version=version):
        assert await ems.until("acme/host/status") == ["online"]
        async with Peer(broker) as late:
            await late.subscribe("acme/host/status")
            assert await late.until("acme/host/status") == ["online"]
    assert await ems.until("acme/host/status", 2) == ["online", "offline"]


async def test_an_empty_call_writes_nothing(session):
    """No outcome, no message."""
    async with session() as link:
        assert list(await link.write([])) == []
