"""Whose turn it is on a shared line: the rules alone, without a line."""

import asyncio
from collections import deque
from contextlib import suppress

import pytest

from adapters.modbus.bus import silence_s
from adapters.modbus.config import Serial
from adapters.modbus.turns import Gone, Seat, Turns, Unit, chosen

NOW = 1000.0


def seat(*, last=0, waits=True, shut=0.0, back=0.0) -> Seat:
    return Seat(
        Unit(shut_until=NOW + shut, back_until=NOW + back),
        poll_s=0.25,
        last=last,
        waiting=deque([None] if waits else []),
    )


def test_the_one_that_waited_longest_is_next():
    """By turns, not by requests: who asks much gets no more turns than the rest."""
    first, second = seat(last=7), seat(last=3)
    assert chosen([first, second], NOW) is second
    second.last = 8
    assert chosen([first, second], NOW) is first


def test_nobody_waits():
    """No turn is given away."""
    assert chosen([seat(waits=False)], NOW) is None
    assert chosen([], NOW) is None


def test_a_silent_unit_is_not_asked_however_idle_the_line_is():
    """Its late answer may still come, or none will: either way it is not asked before its time."""
    assert chosen([seat(shut=1.0)], NOW) is None
    assert chosen([seat(shut=1.0), seat(waits=False)], NOW) is None
    assert chosen([seat(shut=0.0)], NOW) is not None


def test_a_slow_unit_leaves_the_line_to_those_that_may_come():
    """It stands back though nobody waits yet, for whoever comes would have to wait for its answer."""
    assert chosen([seat(back=1.0), seat(waits=False)], NOW) is None


def test_slow_units_among_themselves_do_not_stand_back():
    """Where everybody on the line is slow, or silent, standing back would help nobody."""
    slow = seat(back=1.0)
    assert chosen([slow], NOW) is slow
    assert chosen([slow, seat(back=0.5, waits=False)], NOW) is slow
    assert chosen([slow, seat(shut=0.5)], NOW) is slow


def test_a_unit_that_does_not_answer_is_asked_ever_more_seldom():
    """After one, three, and then every nine time-outs: a tenth of the line in the long run. An answer ends it."""
    unit, waits = Unit(), []
    for _ in range(4):
        unit.fell_silent(NOW, 0.2)
        waits.append(round((unit.shut_until - NOW) / 0.2))
    assert waits == [1, 3, 9, 9]
    assert unit.counts.silences == 4
    unit.answered(NOW, 0.01, 0.25)
    unit.fell_silent(NOW, 0.2)
    assert round((unit.shut_until - NOW) / 0.2) == 1


@pytest.mark.parametrize(
    ("took", "others", "back"),
    [(0.1, 0.25, 0), (0.2, 0.25, 0.8), (0.9, 0.25, 2.0), (0.9, None, 0), (0.2, 1.0, 0)],
)
def test_only_an_answer_that_costs_the_others_makes_a_unit_stand_back(took, others, back):
    """More than half of their shortest poll; alone on a line nobody stands back, and never for longer than two seconds."""
    unit = Unit()
    unit.answered(NOW, took, others)
    assert unit.back_until == pytest.approx(NOW + back if back else 0)


@pytest.mark.parametrize(
    ("settings", "ms"),
    [
        ({"baudrate": 9600}, 4.01),
        ({"baudrate": 19200}, 2.005),
        ({"baudrate": 9600, "parity": "N", "data_bits": 7}, 3.28),
        ({"baudrate": 115200}, 1.75),
    ],
)
def test_the_silence_between_two_frames(settings, ms):
    """Modbus over serial line V1.02, 2.5.1.1: three and a half characters, 1.75 ms above 19200 baud."""
    assert 1000 * silence_s(Serial.model_validate({"device": "/dev/ttyS0", **settings})) == pytest.approx(ms, rel=0.01)


async def started(turns: Turns, *seats: Seat) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(turns.take(one)) for one in seats]
    await asyncio.sleep(0)
    return tasks


async def test_turns_are_given_one_after_the_other():
    """The second starts when the first is over; several requests of one seat keep their order, between those of the others."""
    turns, first, second = Turns(asyncio.get_running_loop()), Seat(Unit(), 1), Seat(Unit(), 1)
    turns.seats += [first, second]
    order = []

    async def ask(name: str, where: Seat) -> None:
        await turns.take(where)
        order.append(name)
        await asyncio.sleep(0)
        turns.give()

    await asyncio.gather(ask("a1", first), ask("a2", first), ask("a3", first), ask("b1", second))
    assert order == ["a1", "b1", "a2", "a3"]


def at_once(turns: Turns, seat: Seat) -> bool:
    """Whether it gets its turn without waiting, be it for one turn of the loop; one that does not has given up."""
    taking = turns.take(seat)
    try:
        taking.send(None)
    except StopIteration:
        return True
    with suppress(asyncio.CancelledError):
        taking.throw(asyncio.CancelledError())
    return False


async def test_a_free_line_is_taken_at_once():
    """No turn of the loop passes; whoever was there last stands back the next time."""
    turns, first, second = Turns(asyncio.get_running_loop()), Seat(Unit(), 1), Seat(Unit(), 1)
    turns.seats += [first, second]
    assert at_once(turns, first)
    waiters = [*await started(turns, first), *await started(turns, second)]
    turns.give()
    await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    assert [task.done() for task in waiters] == [False, True]
    waiters[0].cancel()


@pytest.mark.parametrize("hindrance", ["another has it", "silent", "stands back"])
async def test_a_line_that_is_not_free_is_waited_for(hindrance):
    """Somebody has the turn, or this unit may not be asked yet."""
    loop = asyncio.get_running_loop()
    later = loop.time() + 60
    turns, seat, other = Turns(loop), Seat(Unit(), 1), Seat(Unit(), 1)
    turns.seats += [seat, other]
    if hindrance == "another has it":
        await turns.take(other)
    else:
        setattr(seat.unit, "shut_until" if hindrance == "silent" else "back_until", later)
    assert not at_once(turns, seat)


async def test_a_turn_that_was_given_up_goes_on():
    """Cancelled while it waits, or in the moment in which it was granted: the next one gets its turn."""
    turns, first, second = Turns(asyncio.get_running_loop()), Seat(Unit(), 1), Seat(Unit(), 1)
    turns.seats += [first, second]
    holder, waiter, last = await started(turns, first, second, first)
    await holder
    turns.give()  # granted to `waiter`, which has not run since
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await asyncio.wait_for(last, 1)
    (waiting,) = await started(turns, second)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    turns.give()
    (again,) = await started(turns, second)
    await asyncio.wait_for(again, 1)


async def test_who_leaves_waits_no_longer():
    """Its requests end at once, and so does any that comes later."""
    turns, first, second = Turns(asyncio.get_running_loop()), Seat(Unit(), 1), Seat(Unit(), 1)
    turns.seats += [first, second]
    _, waiter = await started(turns, first, second)
    turns.leave(second)
    with pytest.raises(Gone):
        await waiter
    with pytest.raises(Gone):
        await turns.take(second)


async def test_a_silent_unit_gets_its_turn_when_its_time_has_come():
    """Nobody has to come along to wake it."""
    loop = asyncio.get_running_loop()
    turns, only = Turns(loop), Seat(Unit(shut_until=loop.time() + 0.05), 1)
    turns.seats.append(only)
    began = loop.time()
    await asyncio.wait_for(turns.take(only), 2)
    assert loop.time() - began >= 0.045
    assert only.unit.counts.waited_s >= 0.045
