"""Shared subscriptions (MQTT 5): several hosts in one group, each request to one of them."""

import copy
from contextlib import asynccontextmanager

import pytest
from mqtt_site import (
    ASSET,
    CRAWLEY,
    REQUEST,
    context_of,
    nothing,
    options_of,
    read_site,
    registration,
    request,
    selection_of,
    selections_of,
    take,
)

from adapters.mqtt import ADAPTER


@pytest.fixture
def member(broker):
    """A session of one host of the group."""
    flow = read_site()["flows"]["chargers"]

    @asynccontextmanager
    async def opened(name, share="hosts"):
        flow["submit"]["share"] = share
        options = options_of(read_site(), **broker.options(version="5", client_id=name, status_topic=None))
        async with ADAPTER.open(context_of(options, selection_of("chargers", flow))) as session:
            yield session

    return opened


def ids(arrivals):
    return [arrival.records[0].request for arrival in arrivals]


async def test_each_request_goes_to_one_member_and_registrations_to_all(member, ems):
    """In the order of arrival at each member; together they have every request once."""
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    async with member("host-a") as one, member("host-b") as two:
        for number in range(40):
            await ems.publish(REQUEST.format("EV001"), request(f"r-{number:02}"))
        at_one, at_two = await take(one, 20), await take(two, 20)
        assert sorted(ids(at_one) + ids(at_two)) == [f"r-{number:02}" for number in range(40)]
        for arrivals in (at_one, at_two):
            assert ids(arrivals) == sorted(ids(arrivals))
            assert all(arrival.records[0].complete for arrival in arrivals)


async def test_a_host_that_joins_a_group_leaves_its_own_subscription(member, ems):
    """The persistent session remembers the time before the group; the member would hear every request."""
    for name in ("host-a", "host-b"):
        async with member(name, share=None):
            pass
    async with member("host-a") as one, member("host-b") as two:
        for number in range(10):
            await ems.publish(REQUEST.format("EV001"), request(f"r-{number}"))
        assert sorted(ids(await take(one, 5)) + ids(await take(two, 5))) == [f"r-{number}" for number in range(10)]
        await nothing(one, 0.1)
        await nothing(two, 0.1)


async def test_what_a_member_has_not_acknowledged_waits_for_it(member, ems):
    """The session is persistent: a member that goes away keeps its unacknowledged requests, and its part of those that come meanwhile."""
    async with member("host-a") as one:
        async with member("host-b") as two:
            for number in range(2):
                await ems.publish(REQUEST.format("EV001"), request(f"before-{number}"))
            held = ids(await take(two))
            (done,) = await take(one)
            done.ack(True)
        for number in range(10):
            await ems.publish(REQUEST.format("EV001"), request(f"away-{number}"))
        here = []
        while len(here) < 5:
            for arrival in await one.receive():
                here += ids([arrival])
                arrival.ack(True)
        await nothing(one)
        async with member("host-b") as two:
            back = await take(two, 6)
            assert ids(back)[:1] == held
            assert sorted(here + ids(back)[1:]) == [f"away-{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("version", "shares", "what"),
    [
        ("3.1.1", ("hosts", "hosts"), "MQTT 5"),
        ("5", ("hosts", None), "would come twice"),
        ("5", ("hosts", "others"), "come twice"),
    ],
)
def test_a_group_that_cannot_be(version, shares, what):
    """Two flows on one topic are in one group or in none; 3.1.1 has no groups."""
    site = copy.deepcopy(read_site(CRAWLEY))
    site["flows"]["others"] = copy.deepcopy(site["flows"]["chargers"])
    for name, share in zip(("chargers", "others"), shares, strict=True):
        site["flows"][name]["submit"]["share"] = share
    found = {
        problem.path: problem.text for problem in ADAPTER.check(options_of(site, version=version), selections_of(site))
    }
    assert what in found["flows.chargers.submit.share"]


@pytest.mark.parametrize("group", ["", "a/b", "#", "a+"])
def test_a_group_has_a_plain_name(group):
    """It becomes one level of the subscription."""
    submit = {**read_site()["flows"]["chargers"]["submit"], "share": group}
    with pytest.raises(ValueError, match="name of a group"):
        selection_of("chargers", {**read_site()["flows"]["chargers"], "submit": submit})
