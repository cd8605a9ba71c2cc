"""Reading ahead: however the broker's bytes fall into pieces, the same messages come, and the system is asked seldom."""

import asyncio
import json
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_site import ASSET, changing, context_of, options_of, read_site, registration
from paho.mqtt.enums import MQTTErrorCode

from adapters.mqtt import ADAPTER
from adapters.mqtt.client import AHEAD, Ahead, made
from adapters.mqtt.config import MqttOptions
from adapters.mqtt.link import BURST
from adapters.mqtt.replies import Reply

TOPIC = "acme/asset/EV001/registration"


def packet(payload):
    """A PUBLISH of MQTT 3.1.1 with QoS 0 (3.3)."""
    topic = TOPIC.encode()
    rest = struct.pack("!H", len(topic)) + topic + payload
    length, left = bytearray(), len(rest)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([0x30]) + bytes(length) + rest


PAUSE = b""  # nothing has come yet


class Wire:
    """A socket that has what it was given, in just these pieces, and counts how often it was asked."""

    def __init__(self, pieces):
        self.pieces = list(pieces)
        self.asked = 0

    def recv(self, size):
        self.asked += 1
        if not self.pieces or self.pieces[0] == PAUSE:
            del self.pieces[:1]
            raise BlockingIOError
        piece, rest = self.pieces[0][:size], self.pieces[0][size:]
        self.pieces[:1] = [rest] if rest else []
        return piece


def read(pieces):
    """The payloads that a client reads from these pieces, and the wire."""
    client = made(MqttOptions(host="127.0.0.1", version="3.1.1"), "test")
    assert isinstance(client, Ahead)
    payloads, wire = [], Wire(pieces)
    client.plain = lambda _topic, payload, *_: payloads.append(payload)
    client.on_message = lambda _client, _userdata, message: payloads.append(message.payload)
    client._sock = wire
    while wire.pieces or client.ahead:
        assert client.loop_read() == 0
    client._sock = None
    return payloads, wire


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.lists(st.integers(1, 400), max_size=20))
def test_pieces_change_nothing(payloads, cuts):
    """Cut anywhere, in a packet's length too."""
    whole, pieces = b"".join(map(packet, payloads)), []
    for cut in cuts:
        pieces.append(whole[:cut])
        whole = whole[cut:]
    assert read([piece for piece in (*pieces, whole) if piece])[0] == payloads


def told(pieces, version, *, plain):
    """What is told of these pieces (topic, payload, packet identifier, retained), how each reading ended, and how much was told the short way."""
    client = made(MqttOptions(host="127.0.0.1", version=version), "test")
    messages, ends, short, wire = [], [], [], Wire(pieces)

    def whole(_client, _userdata, message):
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "no text"
        messages.append((topic, bytes(message.payload), message.mid if message.qos else 0, message.retain))

    def at_once(*message):
        messages.append(message[:4])
        short.append(message)

    client.on_message = whole
    client.plain = at_once if plain else None
    client._sock = wire
    client._sock_close = lambda: None
    # The library asks what is under way when it is told of a PUBREL, and answers a QoS 2 message; none of that is asked of it here.
    client._send_pubrec = client._send_pubcomp = lambda *_: 0
    while (wire.pieces or client.ahead) and len(ends) < 200:
        before = (len(wire.pieces), client.ahead, sum(map(len, wire.pieces)))
        ends.append(int(client._packet_read()))
        if ends[-1] > 0:
            break
        if before == (len(wire.pieces), client.ahead, sum(map(len, wire.pieces))):
            break
    client._sock = None
    return messages, ends, short


def publish(topic, payload, *, bits, mid=7, properties=None):
    """A PUBLISH with these four bits; `properties` is None for MQTT 3.1.1."""
    rest = struct.pack("!H", len(topic)) + topic + (struct.pack("!H", mid) if bits & 6 else b"")
    rest += b"" if properties is None else bytes([len(properties)]) + properties
    length, left = bytearray(), len(rest) + len(payload)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([0x30 | bits]) + bytes(length) + rest + payload


def cut(whole, cuts):
    pieces = []
    for size in cuts:
        pieces.append(whole[:size])
        whole = whole[size:]
    return [piece for piece in (*pieces, whole) if piece]


TOPICS = st.one_of(
    st.just(b""), st.text(max_size=30).map(lambda text: text.encode(errors="replace")), st.binary(max_size=5)
)
RESPONSE = b"\x08\x00\x01a"
PACKETS = {
    "3.1.1": st.builds(publish, TOPICS, st.binary(max_size=300), bits=st.integers(0, 15), mid=st.integers(0, 65535)),
    "5": st.builds(
        publish, TOPICS, st.binary(max_size=300), bits=st.integers(0, 15), mid=st.integers(0, 65535),
        properties=st.sampled_from([b"", b"", RESPONSE]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@given(data=st.data())
def test_plain_messages_are_what_the_library_reads(version, data):
    """The same messages in the same order from good packets, torn ones and noise, and the connection fails at the same packet or at none."""
    parts = data.draw(st.lists(st.one_of(PACKETS[version], PACKETS[version], st.binary(max_size=12)), max_size=6))
    whole = b"".join(parts)
    whole = whole[: data.draw(st.integers(0, len(whole)) if data.draw(st.booleans()) else st.just(len(whole)))]
    pieces = cut(whole, data.draw(st.lists(st.integers(1, 400), max_size=8)))
    theirs, ends, none = told(pieces, version, plain=False)
    ours, our_ends, _ = told(pieces, version, plain=True)
    assert none == []
    assert ours == theirs
    assert (max(our_ends, default=0) > 0) == (max(ends, default=0) > 0)


INNER = publish(b"a", b"inner", bits=0)
OUTER = publish(b"b", b"x" + INNER, bits=0)
AWKWARD = {
    "no length": [b"\x30\x00"],
    "half a topic's length": [b"\x30\x01\x00"],
    "a length of five bytes": [b"\x30\x8c\x80\x80\x80\x00" + b"\x00\x01a" + b"x" * 9],
    "a topic beyond its packet": [b"\x30\x05\x00\x08abc" + INNER],
    "an identifier beyond its packet": [b"\x32\x04\x00\x01ab" + INNER],
    "a message within another, behind a pause": [OUTER[: -len(INNER)], PAUSE, INNER, INNER],
}


@pytest.mark.parametrize("pieces", AWKWARD.values(), ids=AWKWARD)
def test_awkward_packets_are_the_librarys(pieces):
    """Bytes that chance seldom makes: the same is told, and the connection fails as it does by the library alone."""
    theirs, ends, _ = told(pieces, "3.1.1", plain=False)
    ours, our_ends, _ = told(pieces, "3.1.1", plain=True)
    assert (ours, max(our_ends) > 0) == (theirs, max(ends) > 0)


@pytest.mark.parametrize("plain", [False, True])
def test_a_reset_connection_is_told(plain):
    """It is lost, and not merely silent."""

    class Reset(Wire):
        def recv(self, size):
            raise ConnectionResetError

    client = made(MqttOptions(host="127.0.0.1", version="3.1.1"), "test")
    client.plain = (lambda *_: None) if plain else None
    client._sock = Reset([])
    assert client._packet_read() == MQTTErrorCode.MQTT_ERR_CONN_LOST
    client._sock = None


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize(("bits", "mid"), [(0, 0), (1, 0), (2, 513), (3, 513), (10, 513)])
@pytest.mark.parametrize("size", [0, 1, 90, 110, 111, 127, 128, 16300, 16400])
def test_a_plain_message_is_told_at_once(version, bits, mid, size):
    """QoS 0 and 1, retained or not, sent again or not; lengths of one to three bytes."""
    properties = None if version == "3.1.1" else b""
    packet = publish(b"a/\xc3\xa9", b"x" * size, bits=bits, mid=513, properties=properties)
    messages, _, short = told([packet, packet], version, plain=True)
    expected = ("a/é", b"x" * size, mid, bool(bits & 1))
    assert messages == [expected, expected]
    assert len(short) == (2 if len(packet) <= AHEAD or version == "5" else 0)


@pytest.mark.parametrize(
    "packet",
    [
        publish(b"", b"x", bits=2, properties=b"\x23\x00\x01"),
        publish(b"a", b"x", bits=2, properties=RESPONSE + RESPONSE),
        publish(b"a", b"x", bits=2, properties=b"\x08\x00\x02a"),
        publish(b"a", b"x", bits=2, properties=b"\x7f"),
        publish(b"a", b"x", bits=2, properties=b"\x0b\x80\x80\x80\x80\x01"),
        publish(b"a\xff", b"x", bits=2, properties=b""),
        publish(b"a", b"x", bits=4, properties=b""),
    ],
)
def test_what_is_not_understood_is_the_librarys(packet):
    """A topic by its alias, properties that MQTT 5 does not allow, a topic that is no text, QoS 2."""
    assert told([packet], "5", plain=True)[2] == []


USER = b"\x26\x00\x01k\x00\x01v"
EVERY = (
    b"\x01\x01\x02\x00\x00\x00\x09\x03\x00\x01j" + RESPONSE + b"\x09\x00\x02\xff\x00\x0b\x81\x01\x0b\x01" + USER + USER
)


@pytest.mark.parametrize(
    ("properties", "reply"), [(EVERY, Reply("a", b"\xff\x00")), (USER, None), (b"\x09\x00\x00", Reply("", b""))]
)
@pytest.mark.parametrize("size", [1, 16400])
def test_of_properties_the_reply_is_told(properties, reply, size):
    """Every property that a PUBLISH may have, in a message that comes whole and in one that comes in pieces."""
    packet = publish(b"a", b"x" * size, bits=3, properties=properties)
    _, ends, short = told(cut(packet, [5, 9]), "5", plain=True)
    assert short == [("a", b"x" * size, 7, True, reply)]
    assert max(ends) <= 0


def test_a_plain_message_is_a_sign_of_life():
    """Without it the library would ask the broker whether it is there, and end a connection that is busy."""
    client = made(MqttOptions(host="127.0.0.1", version="3.1.1"), "test")
    client.plain = lambda *_: None
    client._sock = Wire([packet(b"x")])
    client._last_bytes_received = 0.0
    client.loop_read()
    client._sock = None
    assert client._last_bytes_received > 0


def test_many_small_packets_are_one_question():
    """The library by itself asks at least three times for each."""
    payloads = [str(number).encode() for number in range(200)]
    found, wire = read([b"".join(map(packet, payloads))])
    assert found == payloads
    assert wire.asked == 1


def test_a_packet_larger_than_what_is_read_at_once_comes_whole():
    """And the one behind it."""
    payloads = [b"x" * (3 * AHEAD + 17), b"y"]
    found, wire = read([b"".join(map(packet, payloads))])
    assert found == payloads
    assert wire.asked <= 5


async def test_what_was_read_ahead_waits_while_the_host_does_not_listen(broker, ems):
    """Messages that came in one piece and are more than may be open: those behind come when the first are acknowledged, though the connection has nothing more to say."""
    options = options_of(read_site(), **broker.options(max_unacknowledged=2, version="3.1.1"))
    context = context_of(options, changing())
    async with ADAPTER.open(context) as link:
        for number in range(9):
            await ems.publish(ASSET.format(f"EV{number:03}"), json.dumps(registration(number)).encode())
        places = []
        async with asyncio.timeout(10):
            while len(places) < 9:
                for arrival in await link.receive():
                    places += [record.place for record in arrival.records]
                    arrival.ack(True)
    assert places == [f"EV{number:03}" for number in range(9)]


async def test_what_was_read_ahead_is_looked_at_without_another_word(broker, ems):
    """Hundreds of small messages stand in the socket: after one turn's worth the rest is in memory, and the socket is empty."""
    records = {"each": ASSET.format("{asset}"), "key": "reference", "fields": {"reference": "$asset"}}
    context = context_of(options_of(read_site(), **broker.options()), changing(records=records))
    async with ADAPTER.open(context) as session:
        session._link.pause()
        for number in range(2 * BURST):
            await ems.publish(ASSET.format(f"{number:03}"), b"{}", qos=0)
        await ems.publish(ASSET.format("last"), b"{}")
        session._link.resume()
        places: set[str] = set()
        async with asyncio.timeout(4):  # after 5 s the broker has another word to say
            while len(places) < 2 * BURST + 1:
                places |= {record.place for arrival in await session.receive() for record in arrival.records}


@pytest.mark.parametrize("ends", ["between", "inside"])
def test_an_ended_connection_is_told_after_what_came_before(ends):
    """A packet that came whole is read; then the end is seen, also in the middle of the next one."""
    left, right = socket.socketpair()
    client = made(MqttOptions(host="127.0.0.1", version="3.1.1"), "test")
    payloads = []
    client.on_message = lambda _client, _userdata, message: payloads.append(message.payload)
    with left, right:
        right.sendall(packet(b"one") + (packet(b"two")[:5] if ends == "inside" else b""))
        right.close()
        client._sock = left
        assert client.loop_read() == 0
        assert client.loop_read() != 0
    assert payloads == [b"one"]


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ([packet(b"a")], [True]),
        ([packet(b"a") + packet(b"b")], [False, True]),
        ([packet(b"a") + packet(b"b")[:7]], [False]),
        ([packet(b"x" * (AHEAD - len(packet(b"")) - 1)), packet(b"b")], [False, True]),
    ],
    ids=["one", "two", "one and a part", "as much as is asked for at once"],
)
def test_when_nothing_more_can_be_there(pieces, told):
    """After a read that took less than was asked for, and once all of it was looked at, another one is not worth its call."""
    client = made(MqttOptions(host="127.0.0.1", version="3.1.1"), "test")
    client.plain = lambda *_: None
    client._sock = Wire(pieces)
    found = []
    for _ in told:
        assert client._packet_read() is MQTTErrorCode.MQTT_ERR_SUCCESS
        found.append(client.drained)
    client._sock = None
    assert found == told
