"""When polls are due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.modbus.schedule import Schedule

MS = 1_000_000
PERIOD_MS = 250


def run(took_ms: list[int], *, woken_late_ms: int = 1) -> tuple[list[int], list[float | None]]:
    """When each poll began, in ms, and what was told of the period; each takes so long and is begun a little late."""
    schedule, now_ms, began, told = Schedule(0, PERIOD_MS / 1000), 0, [], []
    for took in took_ms:
        left_ms = schedule.wait_s(now_ms * MS) * 1000
        now_ms += round(left_ms) + woken_late_ms if left_ms > 0 else 0
        began.append(now_ms)
        told.append(schedule.begin(now_ms * MS))
        now_ms += took
        schedule.end(now_ms * MS)
    return began, told


def test_polls_do_not_drift():
    """A thousand polls that take 40 ms and begin a millisecond late each are a thousand whole periods."""
    began, told = run([40] * 1001)
    assert began[0] == 0
    assert began[1000] == 1000 * PERIOD_MS + 1
    assert told[0] is None
    assert sum(told[1:]) == pytest.approx(1000 * PERIOD_MS / 1000, abs=0.002)


def test_a_poll_that_takes_longer_than_its_period_is_told_as_it_was():
    """The next one comes at the next whole period: the polls between are left out, and the period that was achieved says so."""
    began, told = run([40, 600, 40, 40])
    assert began == [0, 251, 1001, 1251]
    assert told == [None, 0.251, 0.75, 0.25]


def test_a_poll_that_ends_when_the_next_is_due():
    """Exactly one period: the next one is that after it, never the same one twice."""
    began, _ = run([250, 10, 10], woken_late_ms=0)
    assert began == [0, 500, 750]


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=40), st.integers(0, 20))
def test_whatever_polls_take(took_ms, woken_late_ms):
    """Each begins at a whole period, but for the time that the loop woke late, and never twice in one."""
    began, told = run(took_ms, woken_late_ms=woken_late_ms)
    assert all(at % PERIOD_MS <= woken_late_ms for at in began)
    assert len({at // PERIOD_MS for at in began}) == len(began)
    assert sum(each for each in told if each is not None) == pytest.approx((began[-1] - began[0]) / 1000)
