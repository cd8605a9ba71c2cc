"""The table of moves and the rule of one live Create per key."""

import pytest

from bridge.errors import IllegalMove
from bridge.model import ItemState, Trigger
from bridge.submission import MOVES, Admission, Standing, SubmissionState, admit, check_move, settled_state

S = SubmissionState
# Each move that DOMAIN 5 names, and no other. ACCEPTED is the move into AWAITING_RETURN; a return may come before the answer does, and settles a call that is
# still being sent. REJECTED from WAITING or RETRY_WAIT is the host's own refusal. A person's word about a doubt may be "resend" (WAITING, SENDING), "confirm" (what is settled) or "cancel".
DOMAIN_5 = """
    WAITING -> SENDING EXPIRED SET_ASIDE CANCELLED REJECTED
    SENDING -> AWAITING_RETURN REJECTED WAITING RETRY_WAIT IN_DOUBT CONFIRMED FAILED PARTIAL
    RETRY_WAIT -> WAITING SENDING EXPIRED SET_ASIDE CANCELLED REJECTED
    IN_DOUBT -> AWAITING_RETURN WAITING SENDING CONFIRMED FAILED PARTIAL CANCELLED UNRESOLVED
    AWAITING_RETURN -> CONFIRMED FAILED PARTIAL OVERDUE REJECTED UNRESOLVED
    OVERDUE -> CONFIRMED FAILED PARTIAL REJECTED UNRESOLVED
    SET_ASIDE -> WAITING CANCELLED
"""


def test_the_table_is_that_of_the_domain():
    """Not one move more and not one less: what is not in the table cannot happen to a record."""
    lines = [line.partition(" -> ") for line in DOMAIN_5.strip().splitlines()]
    expected = {(S(before.strip()), S(after)) for before, _, afters in lines for after in afters.split()}
    moves = {(before, after) for before, afters in MOVES.items() for after in afters}
    assert moves == expected
    assert set(MOVES) == set(S)


def test_terminal_states_are_those_of_the_domain():
    """The starred states accept nothing more."""
    assert {state for state in S if state.terminal} == {
        S.REJECTED, S.EXPIRED, S.CONFIRMED, S.FAILED, S.PARTIAL, S.UNRESOLVED, S.CANCELLED,
    }  # fmt: skip


def test_nothing_goes_back_to_waiting_once_it_may_have_been_processed():
    """After AWAITING_RETURN or OVERDUE no move leads to a second send."""
    for state in (S.AWAITING_RETURN, S.OVERDUE):
        assert not MOVES[state] & {S.WAITING, S.SENDING, S.RETRY_WAIT}


def test_an_illegal_move_raises():
    """The table is the only way."""
    check_move(S.SENDING, S.IN_DOUBT)
    with pytest.raises(IllegalMove):
        check_move(S.CONFIRMED, S.SENDING)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([ItemState.REGISTERED] * 2, S.CONFIRMED),
        ([ItemState.REFUSED] * 2, S.FAILED),
        ([ItemState.REGISTERED, ItemState.REFUSED], S.PARTIAL),
        ([ItemState.UNKNOWN], S.PARTIAL),
    ],
)
def test_settled_state(states, expected):
    """CONFIRMED, FAILED or PARTIAL by the items' outcomes."""
    assert settled_state(states) is expected


def standing(state, digest=b"1", site="s", flow="f", closed=True):
    return Standing(state=state, digest=digest, site=site, flow=flow, closed=closed)


def decide(before, digest=b"1", site="s", flow="f", trigger=Trigger.REQUEST):
    return admit(before, digest=digest, site=site, flow=flow, trigger=trigger)


@pytest.mark.parametrize("state", [state for state in ItemState if state.live])
def test_a_live_key_is_never_created_again(state):
    """Equal content repeats, other content drifts, another site is a duplicate; none of them creates."""
    assert decide(standing(state)) is Admission.REPEAT
    assert decide(standing(state), digest=b"2") is Admission.DRIFT
    assert decide(standing(state), site="other") is Admission.DUPLICATE_KEY
    assert decide(standing(state), flow="other", digest=b"2") is Admission.DUPLICATE_KEY


@pytest.mark.parametrize("state", [ItemState.REFUSED, ItemState.EXPIRED, ItemState.CANCELLED, ItemState.INVALID])
def test_only_a_refused_expired_or_cancelled_key_may_be_created_again(state):
    """A person asked again, or the content changed."""
    assert decide(standing(state)) is Admission.NEW
    assert decide(standing(state), digest=b"2", trigger=Trigger.CHANGE) is Admission.NEW


def test_unchanged_refused_content_is_not_created_at_every_reconnect():
    """Under `change` nobody asked again."""
    assert decide(standing(ItemState.REFUSED), trigger=Trigger.CHANGE) is Admission.REPEAT


def test_newer_content_replaces_what_still_waits():
    """Until the item's submission was closed for sending."""
    assert decide(standing(ItemState.WAITING, closed=False), digest=b"2") is Admission.REPLACE
    assert decide(standing(ItemState.WAITING, closed=True), digest=b"2") is Admission.DRIFT
