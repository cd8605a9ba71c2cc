"""Spans from stamps: ids, the traceparent, what is flagged and what is an error."""

import re

import pytest

from bridge.clock import Stamp
from bridge.spans import (
    ROOT,
    Attempt,
    Whose,
    call_spans,
    end_spans,
    sampled,
    span_id,
    told_spans,
    trace_id,
    traceparent,
)
from bridge.submission import SubmissionState

WHOSE = Whose(submission="s-1", participant="acme", site="north", flow="assets", operation="asset.create", items=3)
T0 = 1_800_000_000_000_000_000
MS = 1_000_000


def stamp(ms, boot="b", wall_ms=None):
    return Stamp(T0 + (ms if wall_ms is None else wall_ms) * MS, ms * MS, boot)


CALL = {"received": stamp(0), "mapped": stamp(1), "signed": stamp(3), "journalled": stamp(6)}
SENT, ANSWERED = stamp(7), stamp(10)


def attempt(**changes):
    values = {"number": 0, "answer": "accepted", "status": 202, "failure": "", "sent": SENT, "ended": ANSWERED}
    return Attempt(**{**values, **changes})


def shape(spans):
    return [(span.name, (span.start_ns - T0) // MS, (span.end_ns - T0) // MS) for span in spans]


def test_the_stages_of_a_call_are_children_of_the_submission_and_follow_each_other():
    """Each carries the name of the hop that ends it; all share the trace."""
    spans = call_spans(WHOSE, CALL, attempt())
    assert shape(spans) == [
        ("mapped", 0, 1), ("signed", 1, 3), ("journalled", 3, 6), ("sent", 6, 7), ("answered", 7, 10),
    ]  # fmt: skip
    assert {span.trace for span in spans} == {trace_id("s-1")}
    assert {span.parent for span in spans} == {span_id("s-1", ROOT)}
    assert len({span.id for span in spans}) == len(spans)
    assert [span.client for span in spans] == [False] * 4 + [True]
    assert spans[-1].attributes["http.response.status_code"] == 202
    assert not any(span.error or "smp_bridge.inexact" in span.attributes for span in spans)


def test_a_further_attempt_shows_what_it_did_and_not_the_first_ones_stages_again():
    """The journal's stamps still hold the first attempt's answer; ids differ, so that no span replaces another."""
    before = {**CALL, "sent": stamp(7), "answered": stamp(8), "journalled": stamp(100)}
    first = call_spans(WHOSE, CALL, attempt(answer="retry", status=503))
    second = call_spans(WHOSE, before, attempt(number=1, sent=stamp(101), ended=stamp(105)))
    assert shape(second) == [("journalled", 3, 100), ("sent", 100, 101), ("answered", 101, 105)]
    assert not {span.id for span in first} & {span.id for span in second}
    assert [span.attributes["smp_bridge.attempt"] for span in second] == [1, 1, 1]


def test_a_call_that_never_left_shows_no_earlier_attempts_first_byte():
    """Connection refused: from the commit to giving up, nothing of `sent`."""
    before = {**CALL, "sent": stamp(4), "answered": stamp(5)}
    refused = attempt(number=1, answer="retry", status=0, failure="REFUSED", sent=None, ended=stamp(9))
    assert shape(call_spans(WHOSE, before, refused)) == [("journalled", 3, 6), ("unanswered", 6, 9)]


def test_a_call_without_an_answer_is_an_error_under_its_own_name():
    """In doubt: the span says that no answer came, and why."""
    *_, last = call_spans(WHOSE, CALL, attempt(answer="in_doubt", status=0, failure="TIMEOUT"))
    assert (last.name, last.error, last.attributes["error.type"]) == ("unanswered", "in_doubt", "TIMEOUT")
    assert "http.response.status_code" not in last.attributes


@pytest.mark.parametrize("answer", ["rejected", "our_fault", "retry", "unauthorised", "in_doubt"])
def test_every_answer_but_an_accepted_one_is_an_error(answer):
    """With the class as its text."""
    assert call_spans(WHOSE, CALL, attempt(answer=answer))[-1].error == answer


def test_the_end_makes_the_root_over_everything_the_host_saw():
    """From the host's own first stamp; the clock of the EMS does not stretch it."""
    stamps = {
        "source": Stamp(T0 - 86_400_000 * MS, 0, ""), **CALL, "sent": SENT, "answered": ANSWERED,
        "returned": stamp(50), "settled": stamp(60),
    }  # fmt: skip
    spans = end_spans(WHOSE, stamps, SubmissionState.CONFIRMED, cause="return", outcomes={"registered": 3})
    assert shape(spans) == [("returned", 10, 50), ("settled", 50, 60), (ROOT, 0, 60)]
    root = spans[-1]
    assert (root.parent, root.id, root.error) == (b"", span_id("s-1", ROOT), "")
    assert (root.attributes["smp_bridge.state"], root.attributes["smp_bridge.items.registered"]) == ("CONFIRMED", 3)


@pytest.mark.parametrize("state", ["FAILED", "PARTIAL", "REJECTED", "EXPIRED", "UNRESOLVED"])
def test_a_submission_that_did_not_register_everything_is_an_error(state):
    """The state is the error's text."""
    spans = end_spans(WHOSE, CALL | {"settled": stamp(9)}, SubmissionState(state), cause="status", outcomes={})
    assert {span.name: span.error for span in spans} == {"settled": state, ROOT: state}


def test_a_stage_across_boots_is_flagged_and_one_within_a_boot_is_not():
    """Wall time was used there."""
    stamps = CALL | {"sent": SENT, "answered": ANSWERED, "returned": stamp(500, "c"), "settled": stamp(510, "c")}
    spans = {span.name: span for span in end_spans(WHOSE, stamps, SubmissionState.CONFIRMED, cause="", outcomes={})}
    assert spans["returned"].attributes["smp_bridge.inexact"] is True
    assert "smp_bridge.inexact" not in spans["settled"].attributes
    assert shape([spans["returned"], spans["settled"]]) == [("returned", 10, 500), ("settled", 500, 510)]


def test_the_clock_of_the_ems_makes_no_span():
    """A source time in the future: another clock, so no length between the two is one."""
    stamps = {"source": Stamp(T0 + 5 * MS, 0, ""), **CALL}
    assert call_spans(WHOSE, stamps, attempt()) == call_spans(WHOSE, CALL, attempt())


def test_a_wall_clock_that_is_set_meanwhile_moves_no_span():
    """Within a boot the monotonic clock counts: the return came 40 ms after the answer although the wall clock went back an hour."""
    stamps = CALL | {"sent": SENT, "answered": ANSWERED, "returned": stamp(50, wall_ms=-3_600_000)}
    (span, _) = end_spans(WHOSE, stamps, SubmissionState.CONFIRMED, cause="", outcomes={})
    assert shape([span]) == [("returned", 10, 50)]


def test_a_write_back_is_a_child_that_may_end_after_the_root():
    """Two groups of the same submission do not replace each other."""
    (one,), (two,) = (
        told_spans(WHOSE, stamp(60), stamp(70), which=which, items=2, state="stuck", error=True) for which in "ab"
    )
    assert shape([one]) == [("written_back", 60, 70)]
    assert (one.error, one.attributes["smp_bridge.items"], one.parent) == ("stuck", 2, span_id("s-1", ROOT))
    assert one.id != two.id


def test_the_traceparent_is_w3c_and_names_the_root_as_parent():
    """Version 00, 32 and 16 hex digits in lower case, the sampled flag."""
    value = traceparent("s-1", 1.0)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", value)
    assert value == f"00-{trace_id('s-1').hex()}-{span_id('s-1', ROOT).hex()}-01"
    assert traceparent("s-1", 0.0).endswith("-00")


def test_sampling_keeps_about_its_share_and_everybody_agrees():
    """By the lower 64 bits of the trace id, as the SDKs of OpenTelemetry decide."""
    traces = [trace_id(f"s-{number}") for number in range(4000)]
    kept = [trace for trace in traces if sampled(trace, 0.25)]
    assert 850 < len(kept) < 1150
    assert all(sampled(trace, 0.5) for trace in kept)
    assert sampled(b"\xff" * 16, 1.0)
    assert not sampled(bytes(16), 0.0)
    assert sampled(b"\xff" * 8 + bytes(8), 0.001)
