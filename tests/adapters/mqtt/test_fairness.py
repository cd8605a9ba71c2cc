"""A flood on one topic delays what else is heard by a burst or two, which is what is read in one turn of the loop, and not by the whole of it."""

import asyncio
import fcntl
import struct
import termios
from functools import partial
from itertools import groupby

import pytest
from mqtt_site import ASSET, chargers, outcome, read_site, request, selection_of, take

from adapters.mqtt.link import BURST
from adapters.mqtt.posts import WINDOW

FLOOD = 5 * BURST
SOON = 3 * BURST  # a waiting task needs a turn or two of the loop to run
UNIT = "acme/crawley/ems/unit/{}/registration"


async def flood(ems, link, *, first=None):
    """More registrations of one asset than are read at once, all of them in the socket of a link that was paused, behind the request `first`.

    They need no commit, so nothing else would ever stop the reading. mosquitto hands out in order what one client published.
    """
    topic, payload, size = ASSET.format("EV001"), b"{}", 0
    if first is not None:
        await ems.publish(*first)
    for _ in range(FLOOD):
        ems.client.publish(topic, payload, 0)
        size += len(topic) + len(payload)
    async with asyncio.timeout(10):
        while struct.unpack("i", fcntl.ioctl(link._link._socket, termios.FIONREAD, bytes(4)))[0] < size:
            await asyncio.sleep(0.005)


async def until_heard(link, count):
    async with asyncio.timeout(10):
        while link._link.messages < count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("outcomes", [0, WINDOW], ids=["quiet", "with outcomes on their way"])
async def test_another_flow_s_request_is_not_held_up_by_what_comes_behind_it(session, ems, outcomes):
    """On one connection: it is returned once the burst in which it came has been read, not when the flood is over.

    With outcomes unanswered the library reads as many packets at once as there are of them.
    """
    unit = selection_of("unit", read_site()["flows"]["unit"])
    async with session(chargers(), unit) as link:
        await link.caught_up()  # our status was acknowledged, before which no outcome leaves
        link._link.pause()
        before = link._link.messages
        await flood(ems, link, first=(UNIT.format("U1") + "/request", request("u-1")))
        writes = [write for number in range(outcomes) for write in outcome("EV001", f"r-{number}")]
        writing = asyncio.create_task(link.write(writes))
        await asyncio.sleep(0)
        assert len(link._link._posts.outstanding) == outcomes
        link._link.resume()
        (arrival,) = await take(link)
        heard = link._link.messages - before
        assert [(record.flow, record.request) for record in arrival.records] == [("unit", "u-1")]
        assert heard <= SOON
        await until_heard(link, before + 1 + FLOOD)
        assert not any(entry.error for entry in await writing)


async def test_another_connection_is_not_held_up(session, ems):
    """Two sites are flooded: each gets its turn after a burst of the other's, however much waits there."""
    order = []
    async with session(client_id="one") as one, session(client_id="two") as two:
        for name, link in (("one", one._link), ("two", two._link)):
            link.pause()
            link._heard = partial(_note, order, name, link._heard)
        await flood(ems, one)  # both hear it
        one._link.resume()
        two._link.resume()
        async with asyncio.timeout(10):
            while len(order) < 2 * FLOOD:
                await asyncio.sleep(0.005)
    assert order.count("one") == order.count("two") == FLOOD
    assert max(len(list(run)) for _, run in groupby(order)) <= SOON


def _note(order, name, take, heard):
    order.append(name)
    take(heard)
