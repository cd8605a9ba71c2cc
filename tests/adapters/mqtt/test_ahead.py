"""Reading ahead: however the broker's bytes fall into pieces, the same messages come, and the system is asked seldom."""

import asyncio
import json
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_site import ASSET, changing, context_of, options_of, read_site, registration

from adapters.mqtt import ADAPTER
from adapters.mqtt.client import AHEAD, Ahead, made
from adapters.mqtt.config import MqttOptions
from adapters.mqtt.link import BURST

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


class Wire:
    """A socket that has what it was given, in just these pieces, and counts how often it was asked."""

    def __init__(self, pieces):
        self.pieces = list(pieces)
        self.asked = 0

    def recv(self, size):
        self.asked += 1
        if not self.pieces:
            raise BlockingIOError
        piece, rest = self.pieces[0][:size], self.pieces[0][size:]
        self.pieces[:1] = [rest] if rest else []
        return piece


def read(pieces):
    """The payloads that a client reads from these pieces, and the wire."""
    client = made(MqttOptions(host="127.0.0.1", version="3.1.1"), "test")
    assert isinstance(client, Ahead)
    payloads, wire = [], Wire(pieces)
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
