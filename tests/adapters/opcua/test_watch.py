"""What is due, what is a repeat, and when a subscription counts as lost; without a server."""

import asyncio

import pytest

from adapters.opcua.batch import ReadBatch
from adapters.opcua.fetch import Fetch
from adapters.opcua.places import Place
from adapters.opcua.structures import Shapes
from adapters.opcua.watch import Due, Pulse, Watched, is_repeat
from bridge.api import LinkError, Quality, Reading


class StillClock:
    def __init__(self):
        self.ns = 0

    def mono_ns(self):
        return self.ns


def good(value):
    return Reading(value=value)


def watched(name="A"):
    return Watched(place=Place(flow="f", name=name, fields={}, targets={}))


def test_a_trigger_asks_once_both_values_are_known_and_not_zero():
    """Neither half alone, nor a zero, nor a value that is no whole number."""
    one = watched()
    assert not one.asks
    one.note_request(good(1))
    assert not one.asks
    one.note_sequence(good(0))
    assert one.asks
    one.note_request(good(0))
    assert not one.asks


@pytest.mark.parametrize(
    "reading", [good(1.0), good("1"), good(None), Reading(value=1, quality=Quality.UNCERTAIN), Reading(value=None, quality=Quality.BAD)]
)  # fmt: skip
def test_a_trigger_that_is_no_good_whole_number_asks_nothing(reading):
    """Only Good whole numbers count."""
    one = watched()
    one.note_sequence(good(1))
    one.note_request(reading)
    assert not one.asks


def test_a_true_boolean_asks():
    """An EMS may use a Boolean as its request."""
    one = watched()
    one.note_sequence(good(1))
    one.note_request(good(True))
    assert one.asks


def test_what_was_returned_does_not_ask_again_until_it_moves():
    """By sequence, or by falling back to zero."""
    one = watched()
    one.note_request(good(1))
    one.note_sequence(good(7))
    assert not is_repeat(one, (1, 7))
    assert not one.asks
    assert is_repeat(one, (1, 7))
    one.note_sequence(good(8))
    assert one.asks
    one.note_sequence(good(7))
    one.note_request(good(0))
    one.note_request(good(1))
    assert one.asks


def test_a_place_waits_once_however_often_it_changes():
    """The queue cannot outgrow the number of places; the longest waiting goes first."""
    due = Due()
    first, second = watched("A"), watched("B")
    for _ in range(1000):
        due.add(first)
        due.add(second)
    assert due.take(1) == [first]
    due.drop(second)
    assert not due
    assert due.stirred.is_set()


def test_notifications_must_be_numbered_without_a_gap():
    """A missing number is a lost notification; after 2^32-1 comes 1."""
    pulse = Pulse(StillClock())
    pulse.number(2**32 - 2)
    pulse.number(2**32 - 1)
    pulse.number(1)
    with pytest.raises(LinkError, match="notification 2 was lost: 3 came"):
        pulse.number(3)


def test_silence_is_measured_on_the_monotonic_clock():
    """From the start and from every beat."""
    clock = StillClock()
    pulse = Pulse(clock)
    pulse.start(10)
    clock.ns = 9_000_000_000
    assert pulse.left_s() == pytest.approx(1)
    pulse.beat()
    clock.ns = 20_000_000_000
    assert pulse.left_s() == pytest.approx(-1)


async def test_reads_of_one_turn_travel_together():
    """Many records cost one call, and each gets its own part."""
    calls: list[list[int]] = []

    async def read(nodes):
        calls.append(list(nodes))
        return [node * 10 for node in nodes]

    batch = ReadBatch(read)

    async def one(*nodes):
        return [await batch.read(nodes), await batch.read(nodes[:1])]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number, number + 100)) for number in range(5)]
    assert [task.result() for task in tasks] == [
        [[number * 10, (number + 100) * 10], [number * 10]] for number in range(5)
    ]
    assert len(calls) == 2


async def test_a_failed_read_is_the_links_error_and_leaves_nobody_waiting():
    """The reason is the link's own, not a group of exceptions."""

    class Broken:
        async def read_values(self, _nodes):
            raise LinkError("gone")

    class Flow:
        trigger = None
        records = None

    fetch = Fetch(Broken(), Shapes(Broken()), {"f": Flow()}, StillClock(), lambda: None)
    with pytest.raises(LinkError, match="gone"):
        await fetch.collect([watched("A"), watched("B")])
