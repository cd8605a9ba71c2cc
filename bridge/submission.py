"""What may happen to a submission and to a key: one table of legal moves (DOMAIN 5), one rule of admission (DESIGN, "at most one live Create"). Pure."""

import enum
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from bridge.errors import IllegalMove
from bridge.model import ItemState, Trigger


class SubmissionState(enum.Enum):
    """Where one Create call stands; the starred states of DOMAIN 5 are terminal."""

    WAITING = "WAITING"
    SENDING = "SENDING"
    RETRY_WAIT = "RETRY_WAIT"
    IN_DOUBT = "IN_DOUBT"
    AWAITING_RETURN = "AWAITING_RETURN"
    OVERDUE = "OVERDUE"
    SET_ASIDE = "SET_ASIDE"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    CONFIRMED = "CONFIRMED"
    FAILED = "FAILED"
    PARTIAL = "PARTIAL"
    UNRESOLVED = "UNRESOLVED"
    CANCELLED = "CANCELLED"

    __hash__ = object.__hash__  # the enum's own is Python

    @property
    def terminal(self) -> bool:
        """Whether it accepts nothing more but audit notes and enrichment that contradicts nothing."""
        return not MOVES[self]

    @property
    def asks_status(self) -> bool:
        """Whether a status poll may settle it."""
        return self in (SubmissionState.AWAITING_RETURN, SubmissionState.OVERDUE)


_S = SubmissionState
_SETTLED: Final = frozenset({_S.CONFIRMED, _S.FAILED, _S.PARTIAL})

# A submission is born WAITING, or SENDING when commit 1 also holds its signed bytes. ACCEPTED of DOMAIN 5 is the moment of the move
# SENDING -> AWAITING_RETURN (the transaction id is journalled with it), not a state in which anything rests.
MOVES: Final[Mapping[SubmissionState, frozenset[SubmissionState]]] = {
    _S.WAITING: frozenset({_S.SENDING, _S.EXPIRED, _S.SET_ASIDE, _S.CANCELLED, _S.REJECTED}),
    _S.SENDING: frozenset({_S.AWAITING_RETURN, _S.REJECTED, _S.WAITING, _S.RETRY_WAIT, _S.IN_DOUBT}) | _SETTLED,
    # REJECTED by the host itself, when it is signed anew and may no longer go: no attempt of it was processed.
    _S.RETRY_WAIT: frozenset({_S.WAITING, _S.SENDING, _S.EXPIRED, _S.SET_ASIDE, _S.CANCELLED, _S.REJECTED}),
    _S.IN_DOUBT: frozenset({_S.AWAITING_RETURN, _S.SENDING, _S.WAITING, _S.CANCELLED, _S.UNRESOLVED}) | _SETTLED,
    _S.AWAITING_RETURN: frozenset({_S.OVERDUE, _S.UNRESOLVED, _S.REJECTED}) | _SETTLED,
    _S.OVERDUE: frozenset({_S.UNRESOLVED, _S.REJECTED}) | _SETTLED,
    _S.SET_ASIDE: frozenset({_S.WAITING, _S.CANCELLED}),
    _S.REJECTED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.CONFIRMED: frozenset(),
    _S.FAILED: frozenset(),
    _S.PARTIAL: frozenset(),
    _S.UNRESOLVED: frozenset(),
    _S.CANCELLED: frozenset(),
}


def check_move(before: SubmissionState, after: SubmissionState) -> None:
    """Raise `IllegalMove` unless the table has this move."""
    if after not in MOVES[before]:
        raise IllegalMove(f"a submission in {before.value} cannot become {after.value}")


def settled_state(outcomes: Sequence[ItemState]) -> SubmissionState:
    """CONFIRMED when all items are registered, FAILED when all are refused, else PARTIAL (DOMAIN 5)."""
    if all(state is ItemState.REGISTERED for state in outcomes):
        return SubmissionState.CONFIRMED
    if all(state is ItemState.REFUSED for state in outcomes):
        return SubmissionState.FAILED
    return SubmissionState.PARTIAL


class Admission(enum.Enum):
    """What the rule of one live Create per key says of a record that arrives."""

    NEW = "new"
    REPLACE = "replace"
    REPEAT = "repeat"
    ADOPT = "adopt"
    DRIFT = "drift"
    DUPLICATE_KEY = "duplicate_key"
    DUPLICATE_IN_REQUEST = "duplicate_in_request"
    SEEN = "seen"
    INVALID = "invalid"
    REQUESTED = "requested"


class Standing(NamedTuple):
    """What the journal holds of a key: its newest item. `closed` is True once the item's submission left WAITING for the first time.

    `site` is '' for one that a person imported and that no EMS has asked for yet: its content is not known. Without a digest its content was erased:
    whatever its EMS shows of it counts as what was registered.
    """

    state: ItemState
    digest: bytes
    site: str
    flow: str
    closed: bool


def admit(standing: Standing | None, *, digest: bytes, site: str, flow: str, trigger: Trigger) -> Admission:
    """Decide on a valid record of a key (DESIGN, "At most one live Create per participant, environment and key").

    NEW: create it. REPLACE: newer content takes the place of what still waits. REPEAT: the standing outcome is written back.
    ADOPT: the first record of an imported key; its content is taken for the registered one, and the standing outcome is written back.
    DRIFT: a live key with other content; a person decides. DUPLICATE_KEY: another site or flow of the participant owns the key.
    """
    if standing is None:
        return Admission.NEW
    if not standing.state.live:
        # Under `change` nobody asked again: the same refused content comes back at every reconnect and must not be created each time.
        same = standing.digest in (b"", digest) and standing.site == site and standing.flow == flow
        return Admission.REPEAT if same and trigger is Trigger.CHANGE else Admission.NEW
    if not standing.site:
        return Admission.ADOPT
    if standing.site != site or standing.flow != flow:
        return Admission.DUPLICATE_KEY
    if standing.digest in (b"", digest):
        return Admission.REPEAT
    if standing.state is ItemState.WAITING and not standing.closed:
        return Admission.REPLACE
    return Admission.DRIFT
