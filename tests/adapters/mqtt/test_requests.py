"""Requests and registrations: what is returned, when it is acknowledged, and what never stops the rest."""

import asyncio
import json
import logging

import pytest
from mqtt_site import ASSET, REQUEST, chargers, nothing, read_site, registration, request, selection_of, take

from bridge.api import Quality


async def test_a_request_is_complete_when_its_registration_is_known(session, ems, version):
    """Fields, the topic's own part, the request id, and both payloads as they came."""
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    async with session(version=version) as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        (arrival,) = await take(link)
        (record,) = arrival.records
        values = {name: reading.value for name, reading in record.fields.items()}
        assert values == {
            "reference": "EV001",
            "name": "Quay Charger 001",
            "mpan": "1910000000009",
            "postcode": "RH10 1AB",
            "gsp_group": "_J",
            "kw": "49,5",
        }
        assert (record.flow, record.place, record.request) == ("chargers", "EV001", "r-1")
        assert [json.loads(line) for line in record.raw.split(b"\n")] == [request("r-1"), registration()]


async def test_a_request_without_its_registration_comes_at_once_and_again_when_it_is_there(session, ems, version):
    """First incomplete and empty, then once complete under the same id; a later registration brings nothing more."""
    async with session(version=version) as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        (first,) = await take(link)
        assert not first.records[0].complete
        assert not first.records[0].fields
        first.ack(True)
        await ems.publish(ASSET.format("EV001"), registration(), retain=True)
        (second,) = await take(link)
        assert second.records[0].complete
        assert second.records[0].request == "r-1"
        second.ack(True)
        await ems.publish(ASSET.format("EV001"), registration(2), retain=True)
        await nothing(link)


async def test_requests_that_the_journal_awaits_are_completed(session, ems):
    """After a restart the journal says who still waits; each id gets one complete record."""
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    async with session(chargers({"EV001": ("r-1", "r-2"), "EV009": ("r-3",)})) as link:
        arrivals = await take(link, 2)
        assert [arrival.records[0].request for arrival in arrivals] == ["r-1", "r-2"]
        assert all(arrival.records[0].complete for arrival in arrivals)


async def test_a_registration_that_was_cleared_is_unknown_again(session, ems):
    """An empty retained message takes the registration away."""
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    async with session() as link:
        await ems.publish(ASSET.format("EV001"), b"", retain=True)
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        (arrival,) = await take(link)
        assert not arrival.records[0].complete


async def test_a_request_is_kept_until_it_is_acknowledged(session, ems, version):
    """Left without an acknowledgement it comes again; acknowledged it does not."""
    async with session(version=version) as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        await take(link)
    async with session(version=version) as link:
        (again,) = await take(link)
        assert again.records[0].request == "r-1"
        again.ack(True)
        again.ack(True)
    again.ack(True)
    async with session(version=version) as link:
        await nothing(link)


async def test_a_request_that_cannot_be_read_by_the_core_is_acknowledged_too(session, ems):
    """`ack(False)` ends it as well: it would never become readable."""
    async with session() as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        (arrival,) = await take(link)
        arrival.ack(False)
    async with session() as link:
        await nothing(link)


async def test_acknowledgements_leave_in_the_order_of_arrival(session, ems, version):
    """An acknowledgement given early waits for the ones before it, as MQTT asks."""
    async with session(version=version) as link:
        for number in (1, 2, 3):
            await ems.publish(REQUEST.format("EV001"), request(f"r-{number}"))
        arrivals = await take(link, 3)
        assert [arrival.records[0].request for arrival in arrivals] == ["r-1", "r-2", "r-3"]
        arrivals[1].ack(True)
        arrivals[2].ack(True)
    async with session(version=version) as link:
        arrivals = await take(link, 3)
        for arrival in (arrivals[1], arrivals[0]):
            arrival.ack(True)
    async with session(version=version) as link:
        (left,) = await take(link)
        assert left.records[0].request == "r-3"


async def test_a_registration_is_acknowledged_after_the_requests_before_it(session, ems, version):
    """It needs no commit, but its acknowledgement keeps the order too: until the request before it is on disk, both come again."""
    async with session(version=version) as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        (first,) = await take(link)
        await ems.publish(ASSET.format("EV001"), registration())
        (second,) = await take(link)
        assert [arrival.records[0].complete for arrival in (first, second)] == [False, True]
    async with session(version=version) as link, asyncio.timeout(10):
        while not any(arrival.records[0].complete for arrival in await link.receive()):
            pass


async def test_requests_made_while_nobody_is_connected_come_first(session, ems, version):
    """The broker keeps them for our session, and registrations that come with them complete them."""
    async with session(version=version):
        pass
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    for number in range(50):
        await ems.publish(REQUEST.format("EV001"), request(f"r-{number}"))
    async with session(version=version) as link:
        arrivals = await take(link, 50)
        assert [arrival.records[0].request for arrival in arrivals] == [f"r-{number}" for number in range(50)]


async def test_a_retained_request_comes_again_at_each_connect(session, ems):
    """Whether it is new is the core's decision, by its id."""
    await ems.publish(REQUEST.format("EV001"), request("r-1"), retain=True)
    for _ in range(2):
        async with session() as link:
            (arrival,) = await take(link)
            assert arrival.records[0].request == "r-1"
            arrival.ack(True)


async def test_a_retained_request_that_is_cleared_is_no_request(session, ems, caplog):
    """The empty message that clears it says nothing."""
    async with session() as link:
        await ems.publish(REQUEST.format("EV001"), b"", retain=True)
        await nothing(link)
    assert "mqtt_message_put_aside" not in caplog.text


async def test_a_request_delivered_twice_is_returned_twice(session, ems):
    """DUP deliveries reach the core, which knows the id."""
    async with session() as link:
        for _ in range(2):
            await ems.publish(REQUEST.format("EV001"), request("r-1"))
        arrivals = await take(link, 2)
        assert {arrival.records[0].request for arrival in arrivals} == {"r-1"}


UNREADABLE = {
    "not utf-8": b'{"reqId": "\xff\xfe", "action": "create"}',
    "not json": b"create r-1",
    "not an object": b"[1, 2]",
    "no id": b'{"action": "create"}',
    "null id": b'{"reqId": null, "action": "create"}',
    "empty id": b'{"reqId": "", "action": "create"}',
    "boolean id": b'{"reqId": true, "action": "create"}',
    "fractional id": b'{"reqId": 1.5, "action": "create"}',
    "long id": b'{"reqId": "' + b"x" * 201 + b'", "action": "create"}',
    "id with a line break": b'{"reqId": "r\\n1", "action": "create"}',
    "id with half a character": b'{"reqId": "\\ud800", "action": "create"}',
    "duplicate keys": b'{"reqId": "a", "reqId": "b", "action": "create"}',
    "escaped duplicate keys": b'{"reqId": "a", "req\\u0049d": "b", "action": "create"}',
    "not a number": b'{"reqId": "a", "action": "create", "x": NaN}',
    "5000 digits": b'{"reqId": ' + b"9" * 5000 + b', "action": "create"}',
    "deep": b'{"reqId": "a", "action": "create", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "utf-16": '{"reqId": "a", "action": "create"}'.encode("utf-16"),
    "another action": b'{"reqId": "a", "action": "delete"}',
    "an action of another type": b'{"reqId": "a", "action": ["create"]}',
}


@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_request_that_is_none_stops_nothing(session, ems, payload, caplog):
    """It is acknowledged and put aside with one clean line; the next request comes."""
    with caplog.at_level(logging.WARNING, "adapters.mqtt"):
        async with session() as link:
            await ems.publish(REQUEST.format("EV001"), payload)
            await ems.publish(REQUEST.format("EV001"), request("good"))
            (arrival,) = await take(link)
            assert arrival.records[0].request == "good"
            arrival.ack(True)
        async with session() as link:
            await nothing(link, 0.1)
    (line,) = [entry for entry in caplog.records if entry.message == "mqtt_message_put_aside"]
    assert line.why.isprintable()
    assert len(line.why) < 200
    assert line.topic == REQUEST.format("EV001")


async def test_a_number_is_an_id_too(session, ems):
    """Whole numbers become text."""
    async with session() as link:
        await ems.publish(REQUEST.format("EV001"), request(17))
        (arrival,) = await take(link)
        assert arrival.records[0].request == "17"


async def test_a_flood_of_nonsense_is_a_few_lines(session, ems, caplog):
    """The first, second, fourth, eighth … are logged, with their count."""
    async with session() as link:
        for _ in range(100):
            await ems.publish(REQUEST.format("EV001"), b"nonsense", qos=0)
        await ems.publish(REQUEST.format("EV001"), request("good"))
        await take(link)
    counts = [entry.count for entry in caplog.records if entry.message == "mqtt_message_put_aside"]
    assert counts == [1, 2, 4, 8, 16, 32, 64]


async def test_an_unreadable_registration_is_the_requests_problem(session, ems):
    """The request is answered: its record says what is wrong, and still knows its own reference."""
    await ems.publish(ASSET.format("EV001"), b'{"name": "\xff"}', retain=True)
    async with session() as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        (arrival,) = await take(link)
        (record,) = arrival.records
        assert record.complete
        assert record.problem == "the registration is not UTF-8 (byte 10)"
        assert record.fields["reference"].value == "EV001"
        await ems.publish(ASSET.format("EV001"), registration(), retain=True)
        await ems.publish(REQUEST.format("EV001"), request("r-2"))
        (arrival,) = await take(link)
        assert not arrival.records[0].problem


@pytest.mark.parametrize("how", ["null", "missing"])
async def test_null_and_missing_members_are_absent(session, ems, how):
    """A flow's `default:` may stand in for them; a bad value it may not."""
    body = registration(mpan=None)
    if how == "missing":
        del body["mpan"]
    await ems.publish(ASSET.format("EV001"), body, retain=True)
    async with session() as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        (arrival,) = await take(link)
        reading = arrival.records[0].fields["mpan"]
        assert reading.absent
        assert reading.value is None
        assert arrival.records[0].fields["kw"].quality is Quality.GOOD


async def test_300_kilobytes_come_whole(session, ems, version):
    """Large registrations and requests are nothing special."""
    large = registration(remark="x" * 300_000)
    async with session(version=version) as link:
        await ems.publish(ASSET.format("EV001"), large, retain=True)
        await ems.publish(REQUEST.format("EV001"), request("r-1", remark="y" * 300_000))
        (arrival,) = await take(link)
        assert arrival.records[0].complete
        assert len(arrival.records[0].raw) > 600_000


async def test_more_than_max_payload_is_put_aside(session, ems, caplog):
    """A request is left alone; a registration becomes the problem of its requests."""
    async with session(max_payload=2000) as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1", remark="y" * 2000))
        await ems.publish(ASSET.format("EV001"), registration(remark="x" * 3000), retain=True)
        await ems.publish(REQUEST.format("EV001"), request("r-2"))
        (arrival,) = await take(link)
        assert arrival.records[0].request == "r-2"
        assert "`max_payload` allows 2000" in arrival.records[0].problem
    assert "the request has 20" in caplog.records[0].why


async def test_two_flows_may_share_a_topic(session, ems):
    """`where:` tells them apart; what fits both is one arrival with two records."""
    site = read_site()["flows"]["chargers"]
    other = selection_of("others", {**site, "submit": {**site["submit"], "where": {"kind": "v2g"}}})
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    async with session(chargers(), other) as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1", kind="v2g"))
        await ems.publish(REQUEST.format("EV001"), request("r-2"))
        both, one = await take(link, 2)
        assert [record.flow for record in both.records] == ["chargers", "others"]
        assert [record.flow for record in one.records] == ["chargers"]


async def test_good_messages_are_heard(session, ems):
    """Health counts registrations and requests, never nonsense; one word for what came together."""
    heard = []
    async with session(heard=lambda: heard.append(1)) as link:
        await ems.publish(REQUEST.format("EV001"), b"nonsense")
        await link.caught_up()
        assert heard == []
        await ems.publish(ASSET.format("EV001"), registration(), retain=True)
        await link.caught_up()
        assert heard == [1]
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        await take(link)
        assert heard == [1, 1]


async def test_beyond_the_bound_nothing_more_is_read(session, ems, version):
    """The rest waits at the broker until the core has taken some, and none is lost."""
    async with session(version=version, max_unacknowledged=5) as link:
        for number in range(30):
            await ems.publish(REQUEST.format("EV001"), request(f"r-{number}"))
        arrivals = await take(link, 5)
        await nothing(link)
        seen = []
        while len(seen) < 30:
            seen += [arrival.records[0].request for arrival in arrivals]
            for arrival in arrivals:
                arrival.ack(True)
            arrivals = await link.receive() if len(seen) < 30 else []
            assert len(arrivals) <= 5
        assert seen == [f"r-{number}" for number in range(30)]


async def test_beyond_so_many_bytes_nothing_more_is_read_either(session, ems, monkeypatch):
    """Large payloads fill the memory sooner than their number says; none is lost."""
    monkeypatch.setattr("adapters.mqtt.session.MOST_HELD_BYTES", 250_000)
    async with session() as link:
        for number in range(8):
            await ems.publish(REQUEST.format("EV001"), request(f"r-{number}", remark="x" * 100_000))
        arrivals = await take(link, 3)
        await nothing(link, 0.1)
        seen = []
        while len(seen) < 8:
            seen += [arrival.records[0].request for arrival in arrivals]
            for arrival in arrivals:
                arrival.ack(True)
            arrivals = await link.receive() if len(seen) < 8 else []
        assert seen == [f"r-{number}" for number in range(8)]
