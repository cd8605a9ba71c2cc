"""Requests of MQTT 5 that say where their answer goes, and what it shall carry."""

import pytest
from mosquitto import Peer
from mqtt_site import REQUEST, RESULT, outcome, request, take
from paho.mqtt.enums import MQTTProtocolVersion

from adapters.mqtt.replies import Replies, Reply

ANSWERS = "acme/crawley/answers/scheduler-7"
WRITABLE = [RESULT.format("+"), "acme/crawley/answers/+"]


@pytest.fixture
async def asker(broker):
    """An EMS that speaks MQTT 5."""
    async with Peer(broker, protocol=MQTTProtocolVersion.MQTTv5) as peer:
        await peer.subscribe("acme/crawley/#")
        yield peer


def carried(peer, topic):
    """The correlation data of each message on a topic."""
    found = [message.properties for message in peer.messages if message.topic == topic]
    return [getattr(properties, "CorrelationData", None) for properties in found]


async def test_an_outcome_goes_where_its_request_asked(session, asker):
    """To the response topic with the correlation data, and to the flow's own topic as ever; each word of it, also after a reconnect."""
    async with session(version="5", writable=WRITABLE) as link:
        await asker.publish(REQUEST.format("EV001"), request("r-1"), ResponseTopic=ANSWERS, CorrelationData=b"\x00\xff")
        (arrival,) = await take(link)
        arrival.ack(True)
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1", "received")))
    async with session(version="5", writable=WRITABLE) as link:
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1")))
    for topic in (ANSWERS, RESULT.format("EV001")):
        words = [(body["reqId"], body["state"]) for body in await asker.until(topic, 2)]
        assert words == [("r-1", "received"), ("r-1", "registered")]
        assert carried(asker, topic) == [b"\x00\xff", b"\x00\xff"]


async def test_each_request_has_its_own_answer(session, asker):
    """Correlation data alone goes with the flow's topic; a request without either gets neither; the same topic gets one message."""
    async with session(version="5", writable=WRITABLE) as link:
        own = RESULT.format("EV001")
        await asker.publish(REQUEST.format("EV001"), request("r-1"), CorrelationData=b"one")
        await asker.publish(REQUEST.format("EV001"), request("r-2"))
        await asker.publish(REQUEST.format("EV001"), request("r-3"), ResponseTopic=own, CorrelationData=b"")
        await take(link, 3)
        await link.write([write for number in (1, 2, 3) for write in outcome("EV001", f"r-{number}")])
        assert [body["reqId"] for body in await asker.until(own, 3)] == ["r-1", "r-2", "r-3"]
        assert carried(asker, own) == [b"one", None, b""]


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("acme/elsewhere/commands", "outside `writable:`"),
        (REQUEST.format("EV009"), "the host reads"),
        ("acme/host/status", "the host reads or writes"),
        ("$SYS/broker/x", "begin with `$`"),
    ],
)
async def test_a_response_topic_that_must_not_be_written(session, asker, caplog, topic, why):
    """A peer cannot make us write where the site file does not let us; the outcome goes to the flow's own topic, with its correlation data."""
    writable = ["acme/crawley/#", "acme/host/#"]
    await asker.subscribe("acme/#")
    async with session(version="5", writable=writable) as link:
        await asker.publish(REQUEST.format("EV001"), request("r-1"), ResponseTopic=topic, CorrelationData=b"one")
        await take(link)
        before = len(asker.on(topic))
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1")))
        await asker.until(RESULT.format("EV001"))
        assert carried(asker, RESULT.format("EV001"))[0] == b"one"
        assert len(asker.on(topic)) == before
    (line,) = [entry for entry in caplog.records if entry.message == "mqtt_response_topic_refused"]
    assert why in line.why


async def test_a_response_topic_that_the_broker_refuses(tmp_path, session, broker, caplog):
    """The outcome stands all the same: it is where the site file wants it."""
    acl = tmp_path / "acl"
    acl.write_text(
        f"user smp-bridge\ntopic readwrite acme/crawley/ems/#\ntopic write acme/host/status\nuser ems\ntopic write {REQUEST.format('+')}\n"
    )
    broker._extra += f"\nacl_file {acl}"
    await broker.stop()
    await broker.start()
    asker = Peer(broker, protocol=MQTTProtocolVersion.MQTTv5)
    asker.client.username_pw_set("ems")
    async with asker, session(version="5", writable=WRITABLE) as link:
        await asker.publish(REQUEST.format("EV001"), request("r-1"), ResponseTopic=ANSWERS)
        await take(link)
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1")))
    (line,) = [entry for entry in caplog.records if entry.message == "mqtt_response_topic_refused"]
    assert "refuses the message" in line.why


def test_what_is_kept_is_bounded():
    """By count and by bytes; the oldest go, and a request that is told again counts once."""
    few = Replies(most=2)
    for number in range(4):
        few.keep("f", "p", str(number), Reply("t", None))
    assert [few.find("f", "p", str(number)) is not None for number in range(4)] == [False, False, True, True]
    small = Replies(most_bytes=100)
    for _ in range(50):
        small.keep("f", "p", "same", Reply("t", b"x" * 40))
    small.keep("f", "p", "other", Reply("t", b"y" * 40))
    assert small.find("f", "p", "same").correlation == b"x" * 40
    small.keep("f", "p", "third", Reply("t", b"z" * 40))
    assert small.find("f", "p", "same") is None
    assert small.find("f", "p", "third") is not None
    assert small.find("f", "p", None) is None
