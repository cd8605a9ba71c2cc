"""What SMP's answers mean."""

import itertools
import json

import pytest

from bridge.market.calls import CallMaker, Identity, report_of
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
    sent_again,
)
from bridge.profile import load_profile, shipped_profiles
from bridge.wire import Wire

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


def test_nothing_is_sent_again_on_a_word_that_nobody_understands():
    """Under atomic semantics the innocent of a refused batch may go again; whether this one was refused is not known."""
    for understood, expected in ((True, [[0, 2]]), (False, [])):
        report = Report(success=None, understood=understood, errors=[error("b")])
        again = sent_again(("a", "b", "c"), report, BatchSemantics.ATOMIC, at_once=False, resubmit_unnamed=True)
        assert again == expected


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


# DOMAIN 5, the answer table: "its defaults" are what both shipped profiles say, status by status.
TABLE = {
    AnswerClass.ACCEPTED: [200, 201, 202],
    AnswerClass.REJECTED: [400, 422],
    AnswerClass.OUR_FAULT: [403, 404, 405, 406, 407, 411, 413, 414, 415, 426, 300, 301, 302, 303, 304, 305, 307, 308, 399],
    AnswerClass.UNAUTHORISED: [401],
    AnswerClass.RETRY: [417, 429],
    AnswerClass.IN_DOUBT: [408, 409, 500, 501, 502, 503, 504, 505, 511, 599, 402, 410, 412, 416, 418, 421, 423, 425, 428, 431, 451, 499, 100, 103, 0],
}  # fmt: skip
SHIPPED = {
    name: {key: AnswerClass(word.value) for key, word in load_profile(name).answer_classes.items()}
    for name in shipped_profiles()
}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(("status", "expected"), [(status, word) for word, found in TABLE.items() for status in found])
def test_the_answer_table_of_the_domain(name, status, expected):
    """Every status that DOMAIN 5 lists, and those that it does not, under every shipped profile."""
    assert classify(Exchange(sent=True, status=status), SHIPPED[name]) is expected


@pytest.mark.parametrize("name", SHIPPED)
def test_retry_after_makes_a_503_certain_and_nothing_else(name):
    """503 with Retry-After was not processed; the header changes no other row."""
    for status in range(100, 600):
        plain = classify(Exchange(sent=True, status=status), SHIPPED[name])
        asked = classify(Exchange(sent=True, status=status, retry_after_s=0.0), SHIPPED[name])
        assert (plain is asked) is (status != 503)
    assert classify(Exchange(sent=True, status=503, retry_after_s=0.0), SHIPPED[name]) is AnswerClass.RETRY


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("failure", list(Failure))
@pytest.mark.parametrize("status", [0, 200, 401, 503])
def test_without_an_answer_only_the_first_body_byte_counts(name, failure, status):
    """Before it: certainly not processed, whatever went wrong. After it: in doubt, whatever the head of the answer had said."""
    for sent, expected in ((False, AnswerClass.RETRY), (True, AnswerClass.IN_DOUBT)):
        assert classify(Exchange(sent=sent, failure=failure, status=status), SHIPPED[name]) is expected


# The ordered rule in the words of a return, through the wire: what SMP writes to what each item becomes.


def returned(data, name="default", semantics=None, keys=("a", "b", "c")):
    """The outcomes of a return whose `data` is this."""
    spec = load_profile(name).spec
    read = Wire(load_profile(name)).read_return({}, {"correlationId": "c", "data": data}, {})
    return states(report_of(read), semantics or BatchSemantics(spec.batch_semantics.value), keys)


def naming(*names, **changes):
    return [{"code": "E1", "message": "no", "assetReference": one, **changes} for one in names]


def created(*names):
    return [{"assetReference": one, "assetId": f"id-{one}"} for one in names]


@pytest.mark.parametrize(
    ("data", "semantics", "expected"),
    [
        # named in an ERROR, before everything else
        ({"result": "SUCCESS", "created": created("a", "b", "c"), "errors": naming("b")}, BatchSemantics.PARTIAL, [R, X, R]),
        ({"result": "ERRORS", "errors": naming("a", "b", "c")}, BatchSemantics.PARTIAL, [X, X, X]),
        ({"result": "ERRORS", "errors": [{"recordIndex": "1", "message": "no"}]}, BatchSemantics.PARTIAL, [R, X, R]),
        ({"result": "ERRORS", "errors": [{"recordIndex": 3, "message": "no"}]}, BatchSemantics.PARTIAL, [U, U, U]),
        ({"result": "ERRORS", "errors": [{"recordIndex": -1, "message": "no"}]}, BatchSemantics.PARTIAL, [U, U, U]),
        ({"errors": naming("b")}, BatchSemantics.PARTIAL, [R, X, R]),
        # named in `created`
        ({"result": "ERRORS", "created": created("a"), "errors": naming("b")}, BatchSemantics.UNKNOWN, [R, X, U]),
        ({"result": "ERRORS", "created": created("a"), "errors": naming("b")}, BatchSemantics.ATOMIC, [R, X, X]),
        ({"result": "ERRORS", "created": ["a"], "errors": naming("b")}, BatchSemantics.UNKNOWN, [R, X, U]),
        ({"created": created("a", "b", "c")}, BatchSemantics.UNKNOWN, [R, R, R]),
        # result SUCCESS
        ({"result": "SUCCESS"}, BatchSemantics.ATOMIC, [R, R, R]),
        ({"result": "success", "errors": naming("b", severity="WARNING")}, BatchSemantics.ATOMIC, [R, R, R]),
        ({"result": "SUCCESS", "created": created("a")}, BatchSemantics.UNKNOWN, [R, R, R]),
        # by the batch semantics
        ({"result": "ERRORS", "errors": naming("b")}, BatchSemantics.UNKNOWN, [U, X, U]),
        ({"result": "ERRORS", "errors": naming("b")}, BatchSemantics.PARTIAL, [R, X, R]),
        ({"result": "ERRORS", "errors": naming("b")}, BatchSemantics.ATOMIC, [X, X, X]),
        ({"result": "MAYBE"}, BatchSemantics.UNKNOWN, [U, U, U]),
        # a result word that the profile does not map: whatever the batch semantics, only what is said of an item itself
        ({"result": "MAYBE"}, BatchSemantics.PARTIAL, [U, U, U]),
        ({"result": "MAYBE"}, BatchSemantics.ATOMIC, [U, U, U]),
        ({"result": "MAYBE", "created": created("a"), "errors": naming("b")}, BatchSemantics.PARTIAL, [R, X, U]),
        ({"result": "MAYBE", "errors": naming("b")}, BatchSemantics.ATOMIC, [U, X, U]),
        ({"result": "MAYBE", "errors": ["all wrong"]}, BatchSemantics.ATOMIC, [U, U, U]),
        ({}, BatchSemantics.PARTIAL, [R, R, R]),
        # a WARNING refuses nobody
        ({"result": "ERRORS", "errors": [*naming("a", severity="WARNING"), *naming("b")]}, BatchSemantics.PARTIAL, [R, X, R]),
        ({"result": "ERRORS", "errors": [{"message": "slow", "severity": "WARNING"}, *naming("b")]}, BatchSemantics.PARTIAL, [R, X, R]),
        # an error that names no item
        ({"result": "ERRORS", "errors": ["all wrong"]}, BatchSemantics.PARTIAL, [U, U, U]),
        ({"result": "ERRORS", "errors": ["all wrong"]}, BatchSemantics.ATOMIC, [X, X, X]),
        ({"result": "ERRORS", "created": created("a"), "errors": ["all wrong"]}, BatchSemantics.PARTIAL, [R, U, U]),
        ({"result": "SUCCESS", "errors": ["all wrong"]}, BatchSemantics.PARTIAL, [U, U, U]),
        ({"result": "ERRORS", "errors": [*naming("b"), "all wrong"]}, BatchSemantics.PARTIAL, [U, X, U]),
        ({"result": "ERRORS", "errors": naming("A")}, BatchSemantics.PARTIAL, [U, U, U]),
    ],
)  # fmt: skip
def test_returns_by_the_ordered_rule(data, semantics, expected):
    """DOMAIN 4, "Outcome per item", each branch in the words of the default profile."""
    assert returned(data, semantics=semantics) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"receipt": "R", "st": 40}, [R, R, R]),
        ({"receipt": "R", "st": 45, "faults": {"b": [{"no": 7, "why": "no"}]}}, [R, X, R]),
        ({"receipt": "R", "st": 45, "faults": {"b": {"no": 7, "lvl": 1}}}, [R, R, R]),
        ({"receipt": "R", "st": 45, "faults": {"?": [{"why": "no"}], "b": [{"why": "no"}]}}, [U, X, U]),
        ({"receipt": "R", "st": 50, "faults": {"b": [{"why": "no"}]}}, [X, X, X]),
        ({"receipt": "R", "st": 50}, [X, X, X]),
        ({"receipt": "R", "st": "40"}, [R, R, R]),
    ],
)
def test_returns_of_the_odd_profile(body, expected):
    """The same rule where results are numbers and errors a map by reference; REJECTED registered nothing."""
    read = Wire(load_profile("odd")).read_return({}, body, {})
    assert states(report_of(read), BatchSemantics.PARTIAL) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": "COMPLETED"}, [R, R, R]),
        ({"status": "completed", "errors": naming("a", severity="WARNING")}, [R, R, R]),
        ({"status": "COMPLETED", "errors": naming("b")}, [U, X, U]),
        ({"status": "COMPLETED_WITH_ERRORS", "errors": naming("b")}, [U, X, U]),
        (
            {"status": "COMPLETED_WITH_ERRORS", "errors": naming("b"), "counts": {"total": "3", "succeeded": 2}},
            [R, X, R],
        ),
        (
            {"status": "COMPLETED_WITH_ERRORS", "errors": naming("b", "b"), "counts": {"total": 3, "succeeded": 2}},
            [R, X, R],
        ),
        ({"status": "COMPLETED_WITH_ERRORS", "errors": naming("b"), "counts": {"total": 3, "succeeded": 1}}, [U, X, U]),
        ({"status": "FAILED"}, [U, U, U]),
        ({"status": "FAILED", "counts": {"total": 0, "succeeded": 0}}, [U, U, U]),
        ({"status": "COMPLETED_WITH_ERRORS", "counts": {"total": 2, "succeeded": 2}}, [U, U, U]),
        ({"status": "COMPLETED_WITH_ERRORS", "counts": {"total": 5, "succeeded": 3}}, [U, U, U]),
        ({"status": "FAILED", "counts": {"total": 3, "succeeded": 0}}, [U, U, U]),
        ({"status": "REJECTED", "errors": naming("b")}, [X, X, X]),
        ({"status": "RECEIVED"}, None),
        ({"status": "QUEUED"}, None),
        ({"status": "PROCESSING"}, None),
        ({"status": "NOT_FOUND"}, None),
        ({"status": "DREAMING"}, None),
        ({}, None),
    ],
)
def test_status_answers_by_the_same_rule(answer, expected):
    """A finished status gives outcomes as a return does, by its counts too; an unfinished or unknown one gives none."""
    read = read_status(answer)
    assert (read.report is None) is (expected is None)
    if expected is not None:
        assert states(read.report) == expected
    assert read.unknown_word == (answer.get("status", "") if answer.get("status") == "DREAMING" else "")


@pytest.mark.parametrize(
    ("semantics", "expected"),
    [(BatchSemantics.PARTIAL, [U, U, U]), (BatchSemantics.UNKNOWN, [U, U, U]), (BatchSemantics.ATOMIC, [X, X, X])],
)
def test_a_failure_that_names_nobody_registers_nobody(semantics, expected):
    """A transaction that failed as a whole is an error that names no item; under partial semantics too."""
    read = read_status({"status": "FAILED"})
    assert states(read.report, semantics) == expected


@pytest.mark.parametrize(
    ("named", "taken"), [("a0B1", True), (None, True), ("a0b1", False), ("a0B2", False), (1, False)]
)
def test_a_status_of_another_transaction_says_nothing_of_this_one(named, taken):
    """A gateway that keeps or mixes up answers would settle our items by those of another batch; an answer that names none is taken for ours."""
    read = read_status({"status": "COMPLETED", "transactionId": named}, asked="a0B1")
    assert (read is not None) is taken


def read_status(answer, asked="a0B1"):
    """What a status answer says of the transaction that was asked for."""
    return maker().read_status(Exchange(sent=True, status=200, body=json.dumps(answer).encode()), asked)


def maker():
    """A reader of answers under the default profile."""
    profile = load_profile("default")
    return CallMaker(
        identity=Identity(participant="p", sender="A", recipient="B", environment="TEST"), profile=profile, vocabulary=profile.vocabulary,
        signer=None, keys={}, unit_validators={}, clock=None, new_message_id=None, new_submission=None, jitter=None,
    )  # fmt: skip
