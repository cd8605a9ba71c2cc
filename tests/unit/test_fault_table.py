"""The table that every fault test relies on: when a row is red, and how rows of one fault are counted together."""

import pytest
from fault_table import Row, merged, render

GOOD = Row(fault="cut", rounds=2, requested=5, accepted_once=3, refused=1, in_doubt=1, recovery_s=1.5)


def row(**changes):
    return Row(**{"fault": "cut", "rounds": 1, "requested": 5, "accepted_once": 5, **changes})


def test_every_record_accounted_for_is_green():
    """Accepted once, refused and in doubt together are what was requested."""
    assert not GOOD.red


@pytest.mark.parametrize(
    "changes", [{"lost": 1}, {"twice": 1}, {"accepted_once": 4}, {"requested": 4}, {"broken": "late"}]
)
def test_what_is_lost_doubled_or_uncounted_is_red(changes):
    """Also a record too many, and a promise of the row's own."""
    assert row(**changes).red
    assert "RED" in render([row(**changes)])


def test_rows_of_one_fault_are_one_row():
    """Counts are added, the longest recovery stays, the order is that of the first; one red part makes the whole red."""
    other = row(fault="kill")
    [cut, kill] = merged([GOOD, other, row(lost=1, accepted_once=4, recovery_s=0.5, broken="late")])
    assert (cut.rounds, cut.requested, cut.accepted_once, cut.lost, cut.recovery_s) == (3, 10, 7, 1, 1.5)
    assert (cut.broken, cut.red, kill) == ("late", True, other)
