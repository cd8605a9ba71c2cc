"""The way of traces to a collector: a real OTLP server on loopback that takes, refuses, hangs or is not there."""

import asyncio
import logging
import socket
from collections import Counter
from contextlib import asynccontextmanager, suppress

import pytest
from otlp_collector import attributes, collector

from bridge import tracing as module
from bridge.clock import Stamp
from bridge.config.tracing import TracingOptions
from bridge.secret import Secret
from bridge.spans import Attempt, Whose, sampled, trace_id
from bridge.tracing import Tracing

T0 = 1_800_000_000_000_000_000
STAMPS = {"received": Stamp(T0, 0, "b"), "mapped": Stamp(T0 + 5, 5, "b")}
ATTEMPT = Attempt(number=0, answer="accepted", status=202, failure="", sent=None, ended=None)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Gather and try again soon."""
    monkeypatch.setattr(module, "GATHER_S", 0.02)
    monkeypatch.setattr(module, "DELAYS_S", (0.02,))


def tell(traces, *names):
    """One report each, which is one span `mapped`."""
    for name in names:
        whose = Whose(
            submission=name, participant="acme", site="north", flow="assets", operation="asset.create", items=1
        )
        traces.called(whose, STAMPS, ATTEMPT)


@asynccontextmanager
async def running(url, **options):
    """Tracing at work; `counts` is what it counted. Its task is ended at the end, without a last try."""
    counts = Counter()
    made = Tracing(
        TracingOptions(endpoint=url, **options), role="all", count=lambda what, by: counts.update({what: by})
    )
    async with made, asyncio.TaskGroup() as group:
        task = group.create_task(made.run())
        made.task, made.counts = task, counts
        try:
            yield made
        finally:
            task.cancel()


async def counted(traces, **wanted):
    """Wait until exactly this was counted."""
    async with asyncio.timeout(10):
        while traces.counts != wanted:
            await asyncio.sleep(0.005)


async def stop(traces):
    traces.task.cancel()
    with suppress(asyncio.CancelledError):
        await traces.task


async def test_spans_arrive_with_their_ids_and_what_the_process_says_of_itself():
    """One POST for what came together, the configured headers on it."""
    async with (
        collector() as held,
        running(held.url, service_name="north-host", headers={"X-Key": Secret("k3y")}) as traces,
    ):
        tell(traces, "s-1", "s-2")
        await held.until(lambda held: len(held.spans) == 2)
        assert held.posts == 1
        assert [span.trace_id for span in held.spans] == [trace_id("s-1"), trace_id("s-2")]
        assert attributes(held.spans[0])["smp_bridge.site"] == "north"
        assert held.resources[0]["service.name"] == "north-host"
        assert held.headers[0]["x-key"] == "k3y"
        assert held.headers[0]["content-type"] == "application/x-protobuf"
        await counted(traces, sent=2)


async def test_only_the_sampled_share_is_sent():
    """A ratio of 0 sends nothing at all, not even a POST."""
    async with (
        collector() as held,
        running(held.url, sample_ratio=0.5) as half,
        running(held.url, sample_ratio=0) as none,
    ):
        names = [f"s-{number}" for number in range(400)]
        tell(none, *names)
        tell(half, *names)
        kept = {trace_id(name) for name in names if sampled(trace_id(name), 0.5)}
        await counted(half, sent=len(kept))
        assert {span.trace_id for span in held.spans} == kept
        assert not none.counts


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_crowded_collector_gets_the_same_batch_again(status, caplog):
    """Told once when it begins and once when it ends; never what the collector wrote."""
    caplog.set_level(logging.INFO, "bridge.tracing")
    async with collector() as held, running(held.url) as traces:
        held.statuses = [status, status]
        tell(traces, "s-1")
        await held.until(lambda held: held.spans)
        assert (held.posts, len(held.spans)) == (3, 1)
        await counted(traces, sent=1)
    assert [record.message for record in caplog.records] == ["traces_not_sent", "traces_sent_again"]
    assert "secret of a peer" not in caplog.text


async def test_the_collectors_own_pause_is_kept(monkeypatch):
    """`Retry-After` in seconds, which here is longer than our own."""
    slept = []

    async def sleep(delay_s):
        slept.append(delay_s)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    async with collector() as held, running(held.url) as traces:
        held.statuses, held.answer_headers = [503], {"Retry-After": "17"}
        tell(traces, "s-1")
        await held.until(lambda held: held.spans)
    assert 17.0 in slept


@pytest.mark.parametrize("status", [400, 401, 404, 500, 307])
async def test_what_the_collector_refuses_for_good_is_dropped_and_the_next_goes_on(status):
    """Not tried again, a redirect not followed: the headers may hold a token."""
    async with collector() as held, running(held.url) as traces:
        held.statuses, held.answer_headers = [status], {"Location": held.url}
        tell(traces, "s-1")
        await held.until(lambda held: not held.statuses)
        await counted(traces, refused=1)
        tell(traces, "s-2")
        await held.until(lambda held: held.spans)
        assert [span.trace_id for span in held.spans] == [trace_id("s-2")]
        await counted(traces, refused=1, sent=1)
        assert held.posts == 2


async def test_a_partial_success_is_counted_as_refused():
    """OTLP answers 200 and says how many spans it did not take."""
    async with collector() as held, running(held.url) as traces:
        held.rejects = 1
        tell(traces, "s-1")
        await held.until(lambda held: held.spans)
        await stop(traces)
        await traces.finish()
        assert traces.counts["refused"] == 1


async def test_a_hanging_collector_bounds_the_queue_and_the_stop(monkeypatch, caplog):
    """The oldest reports are lost, the newest kept; the last try ends in its time and says what was dropped."""
    monkeypatch.setattr(module, "MOST", 300)
    async with collector() as held, running(held.url) as traces:
        held.hangs = True
        tell(traces, "s-first")
        await held.until(lambda held: held.posts)
        tell(traces, *[f"s-{number}" for number in range(1000)])
        assert traces.counts == {"dropped": 700}
        await stop(traces)
        loop = asyncio.get_running_loop()
        before = loop.time()
        await traces.finish(0.3)
        assert loop.time() - before < 2
        assert traces.counts == {"dropped": 1001}
    assert "traces_dropped_at_the_stop" in caplog.text


async def test_a_collector_that_is_not_there_costs_nothing_but_traces():
    """Connection refused; once it is there, what waited arrives."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1/traces"
        async with running(url) as traces:
            tell(traces, "s-1")
            while not traces._failures:
                await asyncio.sleep(0.005)
            await stop(traces)
            await traces.finish(5)
            assert traces.counts == {"dropped": 1}


async def test_the_last_try_sends_what_waits_also_what_was_under_way():
    """A stop in the middle of a POST loses nothing when the collector is well."""
    async with collector() as held, running(held.url) as traces:
        held.hangs = True
        tell(traces, "s-1")
        await held.until(lambda held: held.posts)
        tell(traces, "s-2")
        await stop(traces)
        held.hangs = False
        await traces.finish(10)
        assert {span.trace_id for span in held.spans} == {trace_id("s-1"), trace_id("s-2")}
        assert traces.counts == {"sent": 2}


async def test_a_report_that_cannot_become_spans_takes_nobody_with_it(caplog):
    """A defect of our own is told with its trace, and the others go on."""
    async with collector() as held, running(held.url) as traces:
        whose = Whose(submission="s-bad", participant="", site="", flow="", operation="", items=0)
        traces.called(whose, {"received": None, "mapped": None}, ATTEMPT)
        tell(traces, "s-1")
        await held.until(lambda held: held.spans)
        assert [span.trace_id for span in held.spans] == [trace_id("s-1")]
    assert "trace_made_the_host_fail" in caplog.text


async def test_a_batch_that_cannot_be_written_is_lost_and_nothing_else(caplog):
    """Half a surrogate is no text for protobuf: counted as dropped, told, and the next batch goes on."""
    async with collector() as held, running(held.url) as traces:
        whose = Whose(submission="s-bad", participant="\ud800", site="", flow="", operation="", items=0)
        traces.called(whose, STAMPS, ATTEMPT)
        await counted(traces, dropped=1)
        tell(traces, "s-1")
        await held.until(lambda held: held.spans)
        assert [span.trace_id for span in held.spans] == [trace_id("s-1")]
    assert "traces_made_the_host_fail" in caplog.text


async def test_reports_that_keep_coming_are_gathered(monkeypatch):
    """A POST for each would cost far more than its spans: while they trickle in, one goes out each moment; a whole batch goes at once."""
    monkeypatch.setattr(module, "GATHER_S", 0.3)
    async with collector() as held, running(held.url) as traces:
        loop = asyncio.get_running_loop()
        until, number = loop.time() + 1.0, 0
        while loop.time() < until:
            tell(traces, f"s-{number}")
            number += 1
            await asyncio.sleep(0.002)
        assert held.posts <= 5
        monkeypatch.setattr(module, "GATHER_S", 60)
        await counted(traces, sent=number)
        tell(traces, *[f"t-{number}" for number in range(module.BATCH)])
        await held.until(lambda held: len(held.spans) == number + module.BATCH)
