"""What is bounded and what waits: an EMS that offers more than is kept is told of, and frames of WebSocket are not interrupted."""

import json

import pytest
from mqtt_site import ASSET, changing, chargers, context_of, options_of, read_site, registration, request, take

from adapters.mqtt import ADAPTER, book
from adapters.mqtt.book import Book
from adapters.mqtt.client import _Masking
from bridge.clock import SystemClock

ROOMY = 1_000_000
PLAIN = {"each": ASSET.format("{asset}"), "format": "plain", "key": "reference"}


@pytest.fixture(params=["json", "plain"])
def flow(request):
    """The flow, and how one registration is published: a topic and a payload."""
    if request.param == "json":
        return chargers(), lambda place: (ASSET.format(place), json.dumps(registration()).encode())
    fields = {"reference": "$asset", "name": "name"}
    return changing(records={**PLAIN, "fields": fields}), lambda place: (ASSET.format(place) + "/name", b"Quay")


def test_ten_thousand_places_are_kept_and_the_rest_is_left_out(flow):
    """The bound is of each flow. Those that are known may still change; one that is cleared makes room for another."""
    selection, message = flow
    kept = Book([selection], ROOMY)
    for number in range(10_000):
        assert not kept.take(*message(f"EV{number:05}")).beyond
    taken = kept.take(*message("ONE-MORE"))
    assert taken.beyond == "chargers: there are more than 10000 registrations; those beyond are left out"
    assert kept.flows["chargers"].known("ONE-MORE") is None
    assert not kept.take(*message("EV00000")).beyond
    topic, _ = message("EV00000")
    kept.take(topic, b"")
    assert not kept.take(*message("ONE-MORE")).beyond
    assert kept.flows["chargers"].known("ONE-MORE") is not None


def test_so_many_bytes_of_registrations_are_kept_and_the_rest_is_left_out(flow, monkeypatch):
    """Ten thousand large ones would fill the memory of the whole host, at each start again. What changed and finds no room is not what stood there before."""
    monkeypatch.setattr(book, "MOST_KEPT_BYTES", 10_000)
    selection, message = flow
    kept = Book([selection], ROOMY)

    def publish(place, size):
        topic, payload = message(place)
        taken = kept.take(topic, payload + b" " * (size - len(payload)) if size else b"")
        return bool(taken.beyond), kept.flows["chargers"].known(place) is not None

    assert [publish(f"EV{number}", 3000) for number in range(4)] == [(False, True)] * 3 + [(True, False)]
    assert publish("EV0", 3500) == (False, True)
    assert publish("EV0", 4500) == (True, False)
    assert publish("EV3", 3000) == (False, True)
    assert publish("EV3", 0) == (False, False)
    assert publish("EV4", 4000) == (False, True)
    assert publish("EV4", 4000) == (False, True)  # the same once more takes no more room
    assert publish("EV5", 200) == (True, False)
    assert "more than 128 MiB of registrations; those beyond are left out" in kept.take(*message("EV6")).beyond


async def test_what_is_left_out_is_told_to_the_core(broker, ems, monkeypatch, caplog):
    """As an alarm's text and as a line; the places that are kept are worked as ever."""
    monkeypatch.setattr(book, "MOST_PLACES", 2)
    for number in range(4):
        await ems.publish(ASSET.format(f"EV00{number}"), registration(number), retain=True)
    told = []
    context = context_of(options_of(read_site(), **broker.options()))._replace(beyond=told.append)
    async with ADAPTER.open(context) as link:
        await ems.publish(ASSET.format("EV000") + "/request", request("r-1"))
        (arrival,) = await take(link)
        assert arrival.records[0].complete
    assert told == ["chargers: there are more than 2 registrations; those beyond are left out"] * 2
    assert "mqtt_message_put_aside" in caplog.text


def test_requests_without_a_registration_are_bounded(monkeypatch):
    """The oldest place is forgotten: its requests are no longer completed, those of the newer ones are."""
    monkeypatch.setattr(book, "MOST_AWAITING", 2)
    kept = Book([chargers()], ROOMY)
    received = SystemClock.here().now()
    for place in ("EV001", "EV002", "EV003"):
        (due,) = kept.take(ASSET.format(place) + "/request", json.dumps(request("r-1")).encode()).asking
        assert not due.record(received).complete
    freed = [
        len(kept.take(ASSET.format(place), json.dumps(registration()).encode()).freed)
        for place in ("EV001", "EV002", "EV003")
    ]
    assert freed == [0, 1, 1]


def test_beyond_so_many_bytes_the_ids_alone_of_waiting_requests_are_kept(monkeypatch):
    """They are completed as ever; the journal has their bytes since they came."""
    monkeypatch.setattr(book, "MOST_AWAITING_BYTES", 2500)
    kept = Book([chargers()], ROOMY)
    received = SystemClock.here().now()
    asked = json.dumps(request("r-1", text="x" * 1000)).encode()
    places = ("EV001", "EV002", "EV003")
    for place in (*places, *places):  # each delivered twice
        (due,) = kept.take(ASSET.format(place) + "/request", asked).asking
        assert due.record(received).raw == asked
    freed = [kept.take(ASSET.format(place), json.dumps(registration()).encode()).freed for place in places]
    assert [(due.request, due.raw) for (due,) in freed] == [("r-1", asked), ("r-1", asked), ("r-1", b"")]
    (due,) = kept.take(ASSET.format("EV004") + "/request", asked).asking
    due.record(received)
    ((due,),) = [kept.take(ASSET.format("EV004"), json.dumps(registration()).encode()).freed]
    assert due.raw == asked  # those before it made room


def test_topics_that_were_looked_up_are_bounded(monkeypatch):
    """A peer that makes up topics without end fills no memory; each is still understood."""
    monkeypatch.setattr(book, "MOST_ROUTES", 3)
    kept = Book([chargers()], ROOMY)
    for number in range(20):
        assert kept.take(f"elsewhere/{number}", b"x").aside == ["no flow reads this topic"]
        assert kept.take(ASSET.format(f"EV{number}"), json.dumps(registration()).encode()).good
        assert len(kept._routes) <= 3


def test_registrations_are_subscribed_to_first():
    """A broker hands out what is retained in that order: a retained request then finds its registration."""
    each, asked = ASSET.format("+"), ASSET.format("+") + "/request"
    assert Book([chargers()], ROOMY).filters() == [each, asked]


def test_an_answer_to_a_ping_waits_for_the_end_of_the_frame_under_way():
    """RFC 6455, 5.4: a frame is not interrupted. What is left of it goes first; without one under way the answer goes at once."""
    wrapper = object.__new__(_Masking)
    wrapper._sendbuffer = bytearray(b"the rest")
    assert wrapper._create_frame(0xA, bytearray(b"x")) == b""
    assert wrapper._sendbuffer.startswith(b"the rest\x8a\x81")
    assert len(wrapper._sendbuffer) == len("the rest") + 2 + 4 + 1
    wrapper._sendbuffer = bytearray()
    assert len(wrapper._create_frame(0xA, bytearray(b"x"))) == 2 + 4 + 1
    assert not wrapper._sendbuffer
