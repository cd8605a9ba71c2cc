"""An EMS that offers more than is kept: the rest is left out, and that is told."""

import json

import pytest
from mqtt_site import ASSET, changing, chargers, context_of, options_of, read_site, registration, request, take

from adapters.mqtt import ADAPTER, book
from adapters.mqtt.book import Book

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
