"""What SMP's answers mean."""

import itertools

import pytest

from bridge.model import ItemState
from bridge.platform import (
    AnswerClass,
    BatchSemantics,
    Exchange,
    Failure,
    Report,
    ReportedError,
    classify,
    outcomes,
)

CLASSES = {
    "200": AnswerClass.ACCEPTED,
    "400": AnswerClass.REJECTED,
    "503+retry-after": AnswerClass.RETRY,
    "3xx": AnswerClass.OUR_FAULT,
    "401": AnswerClass.UNAUTHORISED,
}
R, X, U = ItemState.REGISTERED, ItemState.REFUSED, ItemState.UNKNOWN


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        (Exchange(sent=True, status=200), AnswerClass.ACCEPTED),
        (Exchange(sent=True, status=302), AnswerClass.OUR_FAULT),
        (Exchange(sent=True, status=503, retry_after_s=1.0), AnswerClass.RETRY),
        (Exchange(sent=True, status=503), AnswerClass.IN_DOUBT),
        (Exchange(sent=True, status=299), AnswerClass.IN_DOUBT),
        (Exchange(sent=False, failure=Failure.REFUSED), AnswerClass.RETRY),
        (Exchange(sent=True, failure=Failure.RESET), AnswerClass.IN_DOUBT),
        (Exchange(sent=True, failure=Failure.TOO_LARGE, status=200), AnswerClass.IN_DOUBT),
    ],
)
def test_classes_of_answers(exchange, expected):
    """The most telling row of the profile's table decides; what no row names is in doubt."""
    assert classify(exchange, CLASSES) is expected


def error(reference="", index=None, warning=False):
    return ReportedError(code="E1", text="no", reference=reference, index=index, warning=warning)


def states(report, semantics=BatchSemantics.UNKNOWN, keys=("a", "b", "c")):
    return [verdict.state for verdict in outcomes(keys, report, semantics)]


@pytest.mark.parametrize(
    ("report", "semantics", "expected"),
    [
        (Report(success=True), BatchSemantics.UNKNOWN, [R, R, R]),
        (Report(success=True, errors=[error("b")]), BatchSemantics.UNKNOWN, [R, X, R]),
        (Report(success=False, errors=[error("b")]), BatchSemantics.UNKNOWN, [U, X, U]),
        (Report(success=False, errors=[error("b")]), BatchSemantics.PARTIAL, [R, X, R]),
        (Report(success=False, errors=[error("b")]), BatchSemantics.ATOMIC, [X, X, X]),
        (Report(success=False, errors=[error(index=1)]), BatchSemantics.PARTIAL, [R, X, R]),
        (Report(success=False, errors=[error("b")], total=3, succeeded=2), BatchSemantics.UNKNOWN, [R, X, R]),
        (Report(success=False, errors=[error("b")], total=3, succeeded=1), BatchSemantics.UNKNOWN, [U, X, U]),
        (Report(success=False, errors=[error("b")], created={"a": "1"}), BatchSemantics.UNKNOWN, [R, X, U]),
        (Report(success=False, errors=[error()]), BatchSemantics.PARTIAL, [U, U, U]),
        (Report(success=False, errors=[error()]), BatchSemantics.ATOMIC, [X, X, X]),
        (Report(success=False, errors=[error("zzz")]), BatchSemantics.PARTIAL, [U, U, U]),
        (Report(success=True, errors=[error("b", warning=True)]), BatchSemantics.UNKNOWN, [R, R, R]),
        (Report(rejected=True, errors=[error("b")]), BatchSemantics.PARTIAL, [X, X, X]),
        (Report(rejected=True, created={"a": "1"}), BatchSemantics.PARTIAL, [X, X, X]),
        (Report(success=False, created={"b": "1"}, errors=[error("b")]), BatchSemantics.PARTIAL, [R, X, R]),
    ],
)
def test_outcome_per_item(report, semantics, expected):
    """The ordered rule of DOMAIN 4, case by case."""
    assert states(report, semantics) == expected


def test_error_counted_twice_for_one_item_is_one_refusal():
    """Counts are compared with distinct refused items, not with error entries."""
    report = Report(success=False, errors=[error("b"), error("b")], total=3, succeeded=2)
    assert states(report) == [R, X, R]


def test_a_refused_item_carries_its_errors_and_an_innocent_one_the_batch_reason():
    """The named item gets SMP's own code, the unnamed the host's code for a batch refused whole."""
    named, other, _ = outcomes(("a", "b", "c"), Report(rejected=True, errors=[error("a")]), BatchSemantics.UNKNOWN)
    assert [note.code for note in named.errors] == ["E1"]
    assert [note.code for note in other.errors] == ["9018"]


def test_no_report_invents_a_registration():
    """Whatever is said, an item named in an error is never registered."""
    for success, semantics, created in itertools.product((None, True, False), BatchSemantics, ({}, {"a": "1"})):
        report = Report(success=success, created=created, errors=[error("a")])
        assert states(report, semantics)[0] is X
