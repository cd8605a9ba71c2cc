"""What is due, what is a repeat, and when a subscription counts as lost; without a server."""

import asyncio

import pytest

from adapters.opcua.batch import ReadBatch
from adapters.opcua.calls import Method
from adapters.opcua.fetch import Fetch
from adapters.opcua.places import Place
from adapters.opcua.structures import Shapes
from adapters.opcua.watch import Changes, Due, Pulse, Rhythm, Watched, is_repeat
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


def test_a_request_that_a_method_numbers_asks_once():
    """Told again unchanged it asks nothing, for each call may give the next number; zero arms it."""
    place = Place(flow="f", name="A", fields={}, targets={}, method=Method("Register", None, None, (), ()))
    one = Watched(place=place)
    one.note_request(good(1))
    assert one.asks
    assert not is_repeat(one, (1, 7))
    one.note_request(good(1))
    assert not one.asks
    one.note_request(good(0))
    assert not one.asks
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

        call = read_values

    class Flow:
        trigger = None
        records = None

    fetch = Fetch(Broken(), Shapes(Broken()), {"f": Flow()}, StillClock(), lambda: None)
    with pytest.raises(LinkError, match="gone"):
        await fetch.collect([watched("A"), watched("B")])


def test_changes_add_up_to_a_deadband():
    """Against what the record held, not against the value before: slow drift is seen in the end."""
    changes, one = Changes(), watched("A")
    assert changes.matters(one, 1, 0, 100.0, 2.0)
    changes.take(one, [(0, 7.0), (0, 100.0)])
    assert [changes.matters(one, 1, 0, value, 2.0) for value in (101.0, 102.0, 102.5, 97.9)] == [
        False,
        False,
        True,
        True,
    ]
    assert changes.matters(watched("B"), 1, 0, 100.0, 2.0)
    assert changes.matters(one, 0, 0, 100.0, 2.0)


def test_what_is_no_number_has_no_deadband():
    """Text, truth, nothing, lists and another status are changes however near they lie."""
    changes, one = Changes(), watched("A")
    values = [(0, "a"), (0, "b"), (0, True), (0, False), (0, None), (0, [1]), (0, [2]), (0, 1), (0x40000000, 1), (0, 1)]
    for status, value in values:
        assert changes.matters(one, 0, status, value, 5.0), value
        changes.take(one, [(status, value)])
        assert not changes.matters(one, 0, status, value, 0.0), value


def test_not_a_number_stays_what_it_is():
    """It is never equal to itself, and yet no news."""
    changes, one = Changes(), watched("A")
    changes.take(one, [(0, float("nan"))])
    assert not changes.matters(one, 0, 0, float("nan"), 0.0)
    assert changes.matters(one, 0, 0, 1.0, 0.0)


def test_polls_lie_on_a_grid_that_does_not_drift():
    """However long one takes: the next one begins on its beat, and missed beats are left out."""
    clock = StillClock()
    rhythm = Rhythm(clock, 1.0)
    assert rhythm.left_s() == 1.0
    clock.ns += 1_200_000_000
    assert rhythm.begin() is None
    assert rhythm.left_s() == pytest.approx(0.8)
    clock.ns += 800_000_000
    assert rhythm.begin() == pytest.approx(0.8)
    clock.ns += 3_500_000_000
    assert rhythm.left_s() == 0
    assert rhythm.begin() == pytest.approx(3.5)
    assert rhythm.left_s() == pytest.approx(0.5)
