"""What the market and field sides report, as it is counted: first attempts, waits outside the host, budgets, ends."""

import logging
from types import SimpleNamespace

import pytest

from bridge.clock import Stamp
from bridge.latency import Wait
from bridge.market.answers import Outgoing
from bridge.measure.book import Book, Where
from bridge.measure.intervals import IntervalBook
from bridge.metrics import Metrics
from bridge.model import Operation
from bridge.platform import AnswerClass
from bridge.reports import FieldReport, MarketReport

MS = 1_000_000
NORTH = Where("north", "assets")


def stamp(ms, boot="b"):
    return Stamp(1_000_000_000_000 + ms * MS, ms * MS, boot)


BEFORE = {"received": stamp(0), "mapped": stamp(1), "signed": stamp(3), "journalled": stamp(8)}
FIRST = {**BEFORE, "sent": stamp(9), "answered": stamp(50)}


class Rig:
    """A report with its metrics and book."""

    def __init__(self, budget_ms=0):
        self.metrics = Metrics()
        self.book = Book({NORTH: budget_ms * MS})
        self.report = MarketReport(self.metrics, self.book)

    def answered(self, stamps=FIRST, answer=AnswerClass.ACCEPTED, **changes):
        values = {
            "submission": "s-1", "site": "north", "flow": "assets", "operation": Operation.ASSET_CREATE, "keys": ["A"],
            "call": None, "stamps": stamps,
        }  # fmt: skip
        self.report.answered("acme", Outgoing(**{**values, **changes}), answer, stamps)

    def settled(self, stamps):
        self.report.settled("acme", SimpleNamespace(id="s-1", site="north", flow="assets"), stamps)

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels) or 0

    def stages(self):
        """How often each stage stands in the histogram."""
        return {
            sample.labels["hop"]: sample.value
            for sample in next(iter(self.metrics.stage.collect())).samples
            if sample.name.endswith("_count") and sample.value
        }

    def figures(self):
        return {name: found.max_ns / MS for name, found in self.book.flow(NORTH).figures(60 * 1000 * MS)}

    def waited(self):
        return {
            sample.labels["cause"]: sample.value
            for sample in next(iter(self.metrics.waited_outside.collect())).samples
            if sample.name.endswith("_total")
        }

    @property
    def shares(self):
        return self.value("smp_bridge_host_seconds_count", participant="acme")


def test_a_first_attempt_has_its_stages_and_its_share():
    """In the histograms of the participant and in the book of the flow, each once."""
    rig = Rig()
    rig.answered()
    assert rig.stages() == dict.fromkeys(("mapped", "signed", "journalled", "sent", "answered"), 1)
    assert rig.figures() == {"host": 9, "mapped": 1, "signed": 2, "journalled": 5, "sent": 1, "answered": 41}
    assert (rig.shares, rig.waited()) == (1, {})


def test_a_retry_observes_nothing_again():
    """The stages and the share of a submission are those of its first attempt; the answer of each attempt is counted."""
    rig = Rig(budget_ms=5)
    rig.answered(answer=AnswerClass.RETRY)
    again = {**BEFORE, "journalled": stamp(60_000), "sent": stamp(60_001), "answered": stamp(60_100)}
    rig.answered(again, attempts=1, waited=Wait.RETRY)
    assert set(rig.stages().values()) == {1}
    assert (rig.shares, rig.figures()["host"], rig.waited()) == (1, 9, {"retry": 1})
    assert rig.value("smp_bridge_budget_exceeded_total", site="north", flow="assets") == 1
    for answer in ("retry", "accepted"):
        assert rig.value("smp_bridge_answers_total", participant="acme", answer=answer) == 1


def test_a_copy_that_is_sent_again_observes_nothing():
    """It has no attempt of its own before it, and was received long ago."""
    rig = Rig(budget_ms=5)
    rig.answered(waited=Wait.RESEND)
    assert (rig.stages(), rig.figures(), rig.waited()) == ({}, {}, {"resend": 1})


@pytest.mark.parametrize("cause", [Wait.CIRCUIT, Wait.CLOCK, Wait.HOLD, Wait.MEMBERS, Wait.SET_ASIDE])
def test_a_wait_outside_the_host_is_in_no_figure(cause):
    """Neither in the share and the budget nor in a stage: what waits is signed afterwards, so that stage is left out and the others are the host's."""
    rig = Rig(budget_ms=5)
    late = {**BEFORE, "signed": stamp(9_000), "journalled": stamp(9_004), "sent": stamp(9_005)}
    rig.answered(late, waited=cause)
    assert set(rig.stages()) == {"mapped", "journalled", "sent"}
    assert rig.figures() == {"mapped": 1, "journalled": 4, "sent": 1}
    assert (rig.shares, rig.waited(), rig.book.flow(NORTH).exceeded) == (0, {cause.value: 1}, 0)


def test_a_share_across_boots_is_left_out():
    """Only wall time spans it; the stages on either side are exact."""
    rig = Rig(budget_ms=5)
    rig.answered({**BEFORE, "signed": stamp(5, "c"), "journalled": stamp(6, "c"), "sent": stamp(7, "c")})
    assert (rig.shares, rig.waited()) == (0, {"boot": 1})
    assert rig.figures() == {"mapped": 1, "journalled": 1, "sent": 1}


def test_a_call_that_never_left_has_no_share():
    """Nothing was sent, so nothing is claimed; it is no wait outside the host either, its retry will be."""
    rig = Rig(budget_ms=1)
    rig.answered(BEFORE, answer=AnswerClass.RETRY)
    assert (rig.shares, rig.waited(), rig.figures()) == (0, {}, {})
    assert set(rig.stages()) == {"mapped", "signed", "journalled"}


def test_what_exceeds_its_budget_is_counted_logged_once_and_kept(caplog):
    """With the submission, its share and its slowest stage."""
    rig = Rig(budget_ms=8)
    with caplog.at_level(logging.WARNING, "bridge.reports"):
        rig.answered()
    [line] = caplog.records
    told = {name: getattr(line, name) for name in ("site", "flow", "submission", "host_ms", "slowest", "slowest_ms")}
    assert line.message == "budget_exceeded"
    assert told == {
        "site": "north", "flow": "assets", "submission": "s-1", "host_ms": 9, "slowest": "journalled", "slowest_ms": 5,
    }  # fmt: skip
    assert rig.value("smp_bridge_budget_exceeded_total", site="north", flow="assets") == 1
    assert [exemplar.submission for exemplar in rig.book.flow(NORTH).exemplars] == ["s-1"]


def test_the_end_of_a_submission():
    """From the answer to the return, from there to the outcome; what was counted at the answer is not counted again."""
    rig = Rig()
    rig.settled({**FIRST, "returned": stamp(70), "settled": stamp(72)})
    assert rig.stages() == {"returned": 1, "settled": 1}
    assert rig.figures() == {"returned": 20, "settled": 2}


@pytest.mark.parametrize("boot", ["b", "c"])
def test_the_answer_of_an_earlier_attempt_begins_no_stage(boot):
    """The last attempt had no answer; its return is measured from its own first byte, before and after a start of the machine."""
    rig = Rig()
    rig.settled({**FIRST, "sent": stamp(90, boot), "returned": stamp(100, boot), "settled": stamp(103, boot)})
    assert rig.figures() == {"returned": 10, "settled": 3}


def test_the_end_in_another_boot_is_not_exact():
    """A sample of this boot is never placed by the clock of another."""
    rig = Rig()
    rig.settled({**FIRST, "returned": stamp(5, "c"), "settled": stamp(6, "c")})
    assert rig.figures() == {"settled": 1}
    assert rig.value("smp_bridge_inexact_stages_total", participant="acme", hop="returned") == 1


def test_the_source_clock_is_a_figure_of_its_own():
    """In no stage of the histograms or of the book, and not counted as inexact."""
    rig = Rig()
    rig.answered({**FIRST, "source": Stamp(1, 0, "")})
    assert "received" not in rig.stages()
    assert "received" not in rig.figures()
    assert list(next(iter(rig.metrics.inexact.collect())).samples) == []
    field = FieldReport(rig.metrics, SimpleNamespace(mono_ns=lambda: 0), rig.book)
    field.source("north", "assets", -5 * MS)
    field.source("north", "assets", 7 * MS)
    assert rig.book.flow(NORTH).source_difference_ns == 7 * MS


def test_the_write_back_is_a_stage_of_the_flow():
    """The field's other stages are the submission's, which the market side reports whole."""
    book = Book()
    field = FieldReport(Metrics(), SimpleNamespace(mono_ns=lambda: 0), book, IntervalBook(lambda: 0))
    for hop in ("mapped", "journalled", "written_back"):
        field.stage("north", "assets", hop, stamp(0), stamp(4))
    assert [name for name, _ in book.flow(NORTH).figures(0)] == ["written_back"]


def test_what_an_ems_could_not_keep_is_counted():
    """By site and adapter, as the sessions tell it."""
    metrics = Metrics()
    field = FieldReport(metrics, SimpleNamespace(mono_ns=lambda: 0))
    field.lost("north", "ems", 3)
    field.lost("north", "ems", 2)
    labels = {"site": "north", "adapter": "ems"}
    assert metrics.registry.get_sample_value("smp_bridge_changes_lost_total", labels) == 5
