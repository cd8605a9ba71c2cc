"""Requests of MQTT 5 that say where their answer goes, and what it shall carry."""

import pytest
from mosquitto import Peer
from mqtt_site import ASSET, REQUEST, RESULT, outcome, registration, request, take
from paho.mqtt.enums import MQTTProtocolVersion

from adapters.mqtt.replies import Reply, packed, unpacked
from bridge.api import MOST_REPLY

ANSWERS = "acme/crawley/answers/scheduler-7"
WRITABLE = [RESULT.format("+"), "acme/crawley/answers/+"]


@pytest.fixture
async def asker(broker):
    """An EMS that speaks MQTT 5."""
    async with Peer(broker, protocol=MQTTProtocolVersion.MQTTv5) as peer:
        await peer.subscribe("acme/crawley/#")
        yield peer


def reply_of(arrival):
    """What the journal would keep with the request."""
    (record,) = arrival.records
    return record.reply


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
        reply = reply_of(arrival)
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1", "received", reply=reply)))
    async with session(version="5", writable=WRITABLE) as link:
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1", reply=reply)))
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
        replies = [reply_of(arrival) for arrival in await take(link, 3)]
        await link.write([write for n in (1, 2, 3) for write in outcome("EV001", f"r-{n}", reply=replies[n - 1])])
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
        (arrival,) = await take(link)
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1", reply=reply_of(arrival))))
        await asker.until(RESULT.format("EV001"))
        assert carried(asker, RESULT.format("EV001"))[0] == b"one"
        said = [body for body in asker.on(topic) if body not in ("online", "offline")]
        assert said == []  # beside the host's own word that it is there, which may come at any time
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
        (arrival,) = await take(link)
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1", reply=reply_of(arrival))))
    (line,) = [entry for entry in caplog.records if entry.message == "mqtt_response_topic_refused"]
    assert "refuses the message" in line.why


async def test_what_is_too_long_to_be_kept_is_left_out_and_said(session, asker, caplog):
    """The request is taken all the same; its outcome goes to the flow's own topic without correlation data."""
    async with session(version="5", writable=WRITABLE) as link:
        await asker.publish(REQUEST.format("EV001"), request("r-1"), ResponseTopic=ANSWERS, CorrelationData=b"x" * 6200)
        (arrival,) = await take(link)
        assert [record.reply for record in arrival.records] == [""]
        await link.write(outcome("EV001", "r-1"))
    (line,) = [entry for entry in caplog.records if entry.message == "mqtt_response_topic_refused"]
    assert "correlation data (6200 bytes) take 83" in line.why
    assert "at most 8192" in line.why


async def test_a_request_without_its_registration_says_it_at_once(session, asker):
    """For the journal keeps it then; what completes the request later has nothing to say of it, as in a session that never heard it."""
    async with session(version="5", writable=WRITABLE) as link:
        await asker.publish(REQUEST.format("EV001"), request("r-1"), ResponseTopic=ANSWERS, CorrelationData=b"one")
        (asked,) = await take(link)
        await asker.publish(ASSET.format("EV001"), registration())
        (completed,) = await take(link)
    assert [arrival.records[0].complete for arrival in (asked, completed)] == [False, True]
    assert [reply_of(arrival) for arrival in (asked, completed)] == [packed(Reply(ANSWERS, b"one")), ""]


async def test_a_reply_from_the_journal_is_held_against_today_s_site_file(session, asker, caplog):
    """It may have been taken when `writable:` was wider, or may not be ours at all: the flow's own topic gets the outcome."""
    kept = packed(Reply(ANSWERS, b"one"))
    async with session(version="5", writable=[RESULT.format("+")]) as link:
        for number, reply in enumerate((kept, "[]", '{"topic":"x","correlation":"?"}'), 1):
            assert not any(entry.error for entry in await link.write(outcome("EV001", f"r-{number}", reply=reply)))
        await asker.until(RESULT.format("EV001"), 3)
    assert carried(asker, RESULT.format("EV001")) == [b"one", None, None]
    assert asker.on(ANSWERS) == []
    (first, second) = [entry.why for entry in caplog.records if entry.message == "mqtt_response_topic_refused"]
    assert "outside `writable:`" in first
    assert "not this adapter's" in second


@pytest.mark.parametrize("correlation", [None, b"", b"\x00\xff", b"x" * 5000])
@pytest.mark.parametrize("topic", ["", "a/\u00e9\u4e2d/\U0001f50c", 'a"\\b', "t" * 1000])
def test_what_is_kept_comes_back_as_it_was(topic, correlation):
    """As text that PostgreSQL takes too, and never longer than the journal keeps."""
    text = packed(Reply(topic, correlation))
    assert "\0" not in text
    assert len(text) <= MOST_REPLY
    assert unpacked(text) == (Reply(topic, correlation) if text else None)
    assert (text == "") == (topic == "" and correlation is None)


async def test_a_byte_order_mark_in_a_property_stops_nothing(session, broker):
    """MQTT 5 lets U+FEFF stand in any text (1.5.4). A connection that ends at it ends at each new one, for the request comes again, and what is behind it never comes."""
    marked = {"UserProperty": ("by", "\ufeffscheduler"), "ContentType": "\ufeffjson", "CorrelationData": b"\xff"}
    asker = Peer(broker, protocol=MQTTProtocolVersion.MQTTv5)  # one that hears nothing: it would end at it too
    async with asker, session(version="5") as link:
        await asker.publish(REQUEST.format("EV001"), request("r-1"), **marked)
        await asker.publish(REQUEST.format("EV002"), request("r-2"))
        arrivals = await take(link, 2)
        assert [arrival.records[0].request for arrival in arrivals] == ["r-1", "r-2"]
        assert unpacked(arrivals[0].records[0].reply) == Reply("", b"\xff")
