"""What field and market tell, as a collector gets it: groups of write-backs, calls that never left, ends that are told twice."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from otlp_collector import attributes, collector

from bridge import traced as module
from bridge import tracing
from bridge.clock import Stamp, SystemClock
from bridge.config.tracing import TracingOptions
from bridge.journal.port import DueWriteBack, OpenItem, OpenSubmission, WriteBackResult
from bridge.market.answers import Outgoing
from bridge.metrics import Metrics
from bridge.model import EmsOutcome, EmsState, ItemState, Operation
from bridge.platform import AnswerClass, Exchange, Failure
from bridge.spans import ROOT, trace_id
from bridge.submission import SubmissionState
from bridge.traced import Traced

T0 = 1_800_000_000_000_000_000
PLANS = {"assets": SimpleNamespace(participant="acme", operation=Operation.ASSET_CREATE)}


def stamp(ms):
    return Stamp(T0 + ms * 1_000_000, ms * 1_000_000, "b")


STAMPS = {"received": stamp(0), "mapped": stamp(1), "signed": stamp(2), "journalled": stamp(3)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(tracing, "GATHER_S", 0.02)


@asynccontextmanager
async def traced(held):
    """A running `Traced`; leaving it sends what waits."""
    made = Traced(TracingOptions(endpoint=held.url), role="all", metrics=Metrics(), clock=SystemClock("b"))
    async with made, asyncio.TaskGroup() as group:
        task = group.create_task(made.run())
        yield made
        task.cancel()


def row(number, *, submission="s-1", state=EmsState.REGISTERED, settled=10, flow="assets"):
    return DueWriteBack(
        id=number, site="north", flow=flow, place=f"B{number}", key=f"BESS{number}", generation=2, attempts=0, due_ns=0,
        outcome=EmsOutcome(state=state, updated_ns=0), submission=submission, settled=None if settled is None else stamp(settled),
    )  # fmt: skip


def result(number, state="read_back_ok", ms=20):
    return WriteBackResult(id=number, generation=2, state=state, stamp=None if ms is None else stamp(ms))


async def test_write_backs_that_ended_together_and_alike_are_one_span():
    """Per submission and end, until the last of them; words of progress, tries that go on and what has no submission are none."""
    rows = [
        row(1), row(2), row(3), row(4, submission="s-2"), row(5, submission=""), row(6, settled=None),
        row(7, state=EmsState.SENT), row(8),
    ]  # fmt: skip
    results = [
        result(1, ms=21), result(2, ms=25), result(3, "stuck"), result(4), result(5), result(6), result(7),
        result(8, "retry", None),
    ]  # fmt: skip
    async with collector() as held:
        async with traced(held) as made:
            made.told(PLANS, rows, results)
        found = [
            (
                span.trace_id,
                attributes(span)["smp_bridge.items"],
                attributes(span)["smp_bridge.write_back"],
                span.status.message,
                (span.start_time_unix_nano - T0) // 1_000_000,
                (span.end_time_unix_nano - T0) // 1_000_000,
            )
            for span in held.spans
        ]
        assert found == [
            (trace_id("s-1"), 2, "read_back_ok", "", 10, 25),
            (trace_id("s-1"), 1, "stuck", "stuck", 10, 20),
            (trace_id("s-2"), 1, "read_back_ok", "", 10, 20),
        ]
        assert {attributes(span)["smp_bridge.participant"] for span in held.spans} == {"acme"}
        assert len({span.span_id for span in held.spans}) == 3


async def test_a_later_outcome_of_the_same_place_is_another_span():
    """Two generations of one row: ids differ, so none replaces the other."""
    async with collector() as held:
        async with traced(held) as made:
            made.told(PLANS, [row(1)], [result(1)])
            later = DueWriteBack(**{**{name: getattr(row(1), name) for name in row(1).__slots__}, "generation": 3})
            made.told(PLANS, [later], [result(1, ms=90)])
        assert len({span.span_id for span in held.spans}) == 2


def outgoing():
    return Outgoing(
        submission="s-1", site="north", flow="assets", operation=Operation.ASSET_CREATE, keys=["BESS1", "BESS2"],
        call=None, stamps=STAMPS, attempts=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("exchange", "answer", "why"),
    [
        (Exchange(sent=False, detail="login refused: s3cret", status=0), AnswerClass.RETRY, "NO_TOKEN"),
        (
            Exchange(sent=True, failure=Failure.TIMEOUT, first_byte=stamp(4), answered=stamp(9)),
            AnswerClass.IN_DOUBT,
            "TIMEOUT",
        ),
    ],
)
async def test_a_call_without_an_answer_says_why(exchange, answer, why):
    """Also where there was no login and nothing was tried; in a word of ours."""
    async with collector() as held:
        async with traced(held) as made:
            made.called("acme", outgoing(), exchange, answer, STAMPS)
        [span] = held.named("unanswered")
        said = attributes(span)
        assert (said["error.type"], said["smp_bridge.answer"], said["smp_bridge.items"]) == (why, answer.value, 2)
        assert said["smp_bridge.attempt"] == 1
        assert "http.response.status_code" not in said
        assert b"s3cret" not in b"".join(held.bodies)


def settled(name):
    return OpenSubmission(
        id=name, participant="acme", flow="assets", operation=Operation.ASSET_CREATE, state=SubmissionState.SENDING,
        message_id="m", transaction_id="t", sent_ns=0, items=[OpenItem(id=1, key="BESS1", state=ItemState.SENT)], site="north",
    )  # fmt: skip


async def test_an_end_that_a_return_and_a_poll_tell_is_one_root():
    """Both found it open; the first counts."""
    stamps = {**STAMPS, "settled": stamp(50)}
    async with collector() as held:
        async with traced(held) as made:
            for cause in ("return", "status"):
                made.ended(settled("s-1"), SubmissionState.CONFIRMED, stamps, cause=cause)
            made.ended(settled("s-2"), SubmissionState.CONFIRMED, stamps, cause="status")
        causes = [(root.trace_id, attributes(root)["smp_bridge.cause"]) for root in held.named(ROOT)]
        assert causes == [(trace_id("s-1"), "return"), (trace_id("s-2"), "status")]


async def test_what_is_remembered_of_ends_is_bounded(monkeypatch):
    """The newest: a return and a poll that cross are moments apart."""
    monkeypatch.setattr(module, "REMEMBERED", 3)
    options = TracingOptions(endpoint="http://127.0.0.1:9/v1/traces")
    made = Traced(options, role="all", metrics=Metrics(), clock=SystemClock("b"))
    for number in range(5):
        made.ended(settled(f"s-{number}"), SubmissionState.CONFIRMED, STAMPS, cause="status")
    assert list(made._ended) == ["s-2", "s-3", "s-4"]
