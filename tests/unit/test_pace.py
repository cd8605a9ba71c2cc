"""When a call may leave."""

import pytest

from bridge.latency import Wait
from bridge.market.pace import CIRCUIT_DELAYS_S, Pace


class FakeClock:
    def __init__(self):
        self.ns = 1_000_000_000

    def mono_ns(self):
        return self.ns

    def forward(self, seconds):
        self.ns += int(seconds * 1e9)


@pytest.fixture
def clock():
    return FakeClock()


def pace(clock, rate=0.0, burst=1, concurrency=2, jitter=0.5):
    return Pace(clock=clock, rate_per_s=rate, burst=burst, concurrency=concurrency, jitter=lambda: jitter)


def test_concurrency_is_a_hard_limit(clock):
    """No more calls under way than the profile allows; an ended one makes room."""
    gates = pace(clock)
    gates.take()
    gates.take()
    assert not gates.free()
    assert gates.wait_s() is None
    gates.give_back()
    assert gates.free()


def test_the_rate_fills_with_time_and_never_above_the_burst(clock):
    """One call a second with a burst of two."""
    gates = pace(clock, rate=1.0, burst=2, concurrency=100)
    gates.take()
    gates.take()
    assert not gates.free()
    assert gates.wait_s() == pytest.approx(1.0)
    clock.forward(1.0)
    assert gates.free()
    clock.forward(100)
    for _ in range(2):
        gates.take()
    assert not gates.free()


def test_an_unused_slot_costs_no_rate(clock):
    """A lent slot that was given back is as if it had never been lent."""
    gates = pace(clock, rate=1.0, burst=1)
    gates.take()
    gates.give_back(unused=True)
    assert gates.free()


def test_the_circuit_opens_longer_each_time_and_closes_on_success(clock):
    """Growing pauses in a row; an accepted call starts anew."""
    gates = pace(clock)
    assert gates.trip("403") == pytest.approx(CIRCUIT_DELAYS_S[0])
    assert not gates.free()
    assert gates.circuit_open
    clock.forward(CIRCUIT_DELAYS_S[0] + 0.001)
    assert gates.free()
    assert gates.trip("403") == pytest.approx(CIRCUIT_DELAYS_S[1])
    gates.close()
    assert gates.free()
    assert gates.trip("403") == pytest.approx(CIRCUIT_DELAYS_S[0])


def test_after_a_pause_one_call_feels_the_way(clock):
    """What waited does not fall upon a platform that is not back: one call alone, until an answer shows that all is well."""
    gates = pace(clock, concurrency=4)
    gates.trip("403")
    clock.forward(CIRCUIT_DELAYS_S[0] + 0.001)
    gates.take()
    assert not gates.free()
    assert gates.wait_s() is None
    gates.close()
    assert gates.free()


def test_calls_that_nobody_answers_pause_the_participant(clock):
    """The first two may be chance; from the third in a row on the pauses are the profile's own, the last one for ever."""
    gates = pace(clock)
    delays_s = (1, 2, 4)
    assert [gates.failed("refused", delays_s) for _ in range(6)] == [
        None,
        None,
        *map(pytest.approx, (1.0, 2.0, 4.0, 4.0)),
    ]
    assert gates.circuit_open
    clock.forward(4.001)
    assert gates.free()
    gates.take()
    assert not gates.free()
    gates.close()
    assert gates.failed("refused", delays_s) is None


def test_calls_in_doubt_one_after_the_other_pause_the_participant(clock):
    """Two may be chance; from the third on one alone goes at a time, and the pauses grow. What was under way before the pause does not lengthen it."""
    gates = pace(clock, concurrency=4)
    assert [gates.doubted("500") for _ in range(5)] == [None, None, pytest.approx(CIRCUIT_DELAYS_S[0]), None, None]
    assert gates.wait_s() == pytest.approx(CIRCUIT_DELAYS_S[0])
    clock.forward(CIRCUIT_DELAYS_S[0] + 0.001)
    gates.take()
    assert not gates.free()
    assert gates.doubted("500") == pytest.approx(CIRCUIT_DELAYS_S[1])
    gates.close()
    assert [gates.doubted("500") for _ in range(2)] == [None, None]


def test_a_pause_that_was_asked_for_is_no_fault(clock):
    """Retry-After holds everything for its time and no longer; all slots are free after it."""
    gates = pace(clock, concurrency=3)
    gates.pause(7, "429")
    clock.forward(6.9)
    assert not gates.free()
    assert gates.wait_s() == pytest.approx(0.1)
    clock.forward(0.2)
    gates.take()
    assert gates.free()


def test_a_shorter_pause_does_not_shorten_a_longer_one(clock):
    """Two answers, two wishes: the longer holds."""
    gates = pace(clock)
    gates.pause(100, "429")
    gates.pause(1, "429")
    clock.forward(50)
    assert not gates.free()


@pytest.mark.parametrize("meanwhile", [lambda gates: gates.close(), lambda gates: gates.trip("403"), lambda gates: [gates.failed("refused", [1]) for _ in range(3)]], ids=["taken", "refused", "nobody answers"])  # fmt: skip
def test_what_becomes_of_other_calls_does_not_shorten_a_pause_that_was_asked_for(clock, meanwhile):
    """Calls that were under way beside the one that got Retry-After are answered later, some well and some not."""
    gates = pace(clock)
    gates.pause(100, "429")
    clock.forward(1)
    meanwhile(gates)
    clock.forward(98)
    assert (gates.free(), gates.circuit_open, gates.reason) == (False, True, "429")
    assert (gates.wait_s(), gates.asked_s) == (pytest.approx(1), pytest.approx(1))
    assert gates.shut_since(clock.ns) is Wait.CIRCUIT
    clock.forward(1.001)
    assert (gates.free(), gates.asked_s, gates.reason) == (True, 0, "")


def test_polls_count_against_the_rate_and_take_turns_with_calls(clock):
    """Under load every other token is a poll's; a poll alone takes what is there."""
    gates = pace(clock, rate=1.0, burst=1, concurrency=100)
    assert gates.poll_wait_s() == 0
    assert gates.poll_wait_s() == pytest.approx(1.0)
    clock.forward(1.0)
    gates.take()
    clock.forward(1.0)
    assert not gates.free()
    assert gates.wait_s() == pytest.approx(1.0)
    assert gates.poll_wait_s() == 0
    clock.forward(1.0)
    assert gates.free()


def test_without_a_rate_polls_never_wait(clock):
    """The default profile names none."""
    gates = pace(clock)
    assert [gates.poll_wait_s() for _ in range(100)] == [0.0] * 100


def test_a_wrong_clock_stands_before_every_other_gate(clock):
    """While signing is held nothing may leave, and no time that passes opens it: whoever knows the clock wakes the sender."""
    held = [False]
    gates = Pace(clock=clock, rate_per_s=1.0, burst=2, concurrency=2, jitter=lambda: 0.5, held=lambda: held[0])
    assert gates.free()
    held[0] = True
    assert (gates.free(), gates.held, gates.wait_s()) == (False, True, None)
    gates.trip("refused")
    clock.forward(10_000)
    assert (gates.free(), gates.wait_s()) == (False, None)
    held[0] = False
    assert gates.free()


def test_a_pause_is_remembered_for_those_who_waited_for_it(clock):
    """What was received before it ended could have left earlier; what came after it did not wait for it."""
    gates = pace(clock)
    assert gates.shut_since(0) is None
    gates.trip("refused", delay_s=10)
    during = clock.ns
    clock.forward(11)
    assert (gates.shut_since(during), gates.shut_since(clock.ns)) == (Wait.CIRCUIT, None)
    assert gates.shut_since(during + 10 * 10**9) is None  # it came the moment the pause was over


def test_a_pause_that_ended_early_ends_there(clock):
    """An answer showed that all is well; later answers change nothing of it."""
    gates = pace(clock)
    gates.trip("refused", delay_s=10)
    clock.forward(2)
    gates.close()
    ended = clock.ns
    clock.forward(1)
    gates.close()
    assert (gates.shut_since(ended - 1), gates.shut_since(ended)) == (Wait.CIRCUIT, None)


def test_a_clock_that_was_wrong_is_remembered_too(clock):
    """From the moment in which it let go."""
    gates = pace(clock)
    clock.forward(1)
    gates.let_go()
    assert (gates.shut_since(clock.ns - 1), gates.shut_since(clock.ns)) == (Wait.CLOCK, None)


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_pauses_are_spread_by_a_tenth_either_way(clock, jitter, share):
    """Bridges that lost the same platform in the same moment do not come back to it in the same moment; a pause that was given in seconds is kept to."""
    gates = pace(clock, jitter=jitter)
    for step_s in (*CIRCUIT_DELAYS_S, CIRCUIT_DELAYS_S[-1]):
        assert gates.trip("refused") == pytest.approx(step_s * share)
        assert gates.wait_s() == pytest.approx(step_s * share)
    assert gates.trip("asked for", delay_s=7.0) == 7.0
    gates.close()
    told = [gates.failed("no answer", [2.0, 20.0]) for _ in range(5)]
    assert told[:2] == [None, None]
    assert told[2:] == pytest.approx([2.0 * share, 20.0 * share, 20.0 * share])
    assert gates.wait_s() == pytest.approx(20.0 * share)
