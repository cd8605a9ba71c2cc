"""One trace per submission, as a collector gets it from the whole service; and that nobody else ever notices that it is made."""

import asyncio
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from admin import get, value
from otlp_collector import attributes, collector
from service import ASSETS, PARTICIPANT, UNIT, fill, linked, prepared, service, until_words

from bridge import tracing
from bridge.api import OutcomeField
from bridge.app import Role
from bridge.sandbox import Fault, Knobs, Refusal
from bridge.spans import ROOT, span_id, trace_id
from bridge.testing.proxy import FaultProxy

SUPPORT = Path(__file__).parents[1] / "support"
PUSHED = {"poll": {"delays_s": [30.0]}}  # so that no poll is quicker than a return
STAGES = ["mapped", "signed", "journalled", "sent", "answered", "returned", "settled"]
MPAN = "1023456789017"  # of the flow in tests/support
NAME = "Ada Lovelace"
PLANTED = (MPAN, NAME, "ada@example.org", "North Yard Battery", "BESS0000", "UNIT-01", "IP1 2AB", "is wrong")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Gather and try again soon."""
    monkeypatch.setattr(tracing, "GATHER_S", 0.02)
    monkeypatch.setattr(tracing, "DELAYS_S", (0.05,))


def traced(held, **options):
    return {"tracing": {"endpoint": held.url, **options}}


def at(url, port):
    """The same path at another port."""
    return f"http://127.0.0.1:{port}/{url.split('/', 3)[3]}"


async def registered(made, places=1, first=1):
    """Ask for so many assets and wait until all are told; their places."""
    ems = await linked(made)
    names = fill(ems, places, first)
    ems.request("assets", *names)
    await until_words(ems, names, {3: places})
    return names


async def reports(made, state):
    return value((await get(made, "/metrics"))[1], "smp_bridge_trace_reports_total", state=state) or 0


def stages(spans):
    """The children of the root but what was told to the EMS, in the order of time."""
    return [span for span in spans if span.parent_span_id and span.name != "written_back"]


async def test_a_submission_is_one_trace_whose_stages_fill_it(tmp_path):
    """Each stage begins where the one before ended; first and last are those of the root, and so is their sum. The write-back follows it."""
    async with collector() as held, service(tmp_path, host=traced(held), changes=PUSHED) as made:
        await registered(made, 3)
        await held.until(lambda held: held.named(ROOT) and held.named("written_back"))
        [view] = await made.read(lambda journal: journal.submissions())
        [(trace, spans)] = held.traces().items()
        assert trace == trace_id(view.id)
        [root] = held.named(ROOT)
        assert root.span_id == span_id(view.id, ROOT)
        found = stages(spans)
        assert [span.name for span in found] == STAGES
        assert {span.parent_span_id for span in spans if span is not root} == {root.span_id}
        assert all(before.end_time_unix_nano == after.start_time_unix_nano for before, after in pairwise(found))
        assert (found[0].start_time_unix_nano, found[-1].end_time_unix_nano) == (
            root.start_time_unix_nano,
            root.end_time_unix_nano,
        )
        stamps = view.stamps
        assert root.start_time_unix_nano == stamps["received"].wall_ns
        took = {span.name: span.end_time_unix_nano - span.start_time_unix_nano for span in found}
        assert took["answered"] == stamps["answered"].mono_ns - stamps["sent"].mono_ns
        [told] = held.named("written_back")
        assert told.start_time_unix_nano >= root.end_time_unix_nano - 1_000_000
        assert attributes(root) == {
            "smp_bridge.submission": view.id,
            "smp_bridge.participant": PARTICIPANT,
            "smp_bridge.site": "north",
            "smp_bridge.flow": "assets",
            "smp_bridge.operation": "asset.create",
            "smp_bridge.items": 3,
            "smp_bridge.state": "CONFIRMED",
            "smp_bridge.cause": "return",
            "smp_bridge.items.registered": 3,
        }
        assert attributes(told)["smp_bridge.items"] == 3
        assert held.resources[0]["smp_bridge.role"] == "all"
        assert not any(span.status.code for span in spans)


async def test_every_submission_has_a_trace_of_its_own(tmp_path):
    """Three calls, three traces; ids of spans are never shared."""
    async with collector() as held, service(tmp_path, host=traced(held), changes=PUSHED) as made:
        for number in (1, 2, 3):
            await registered(made, 1, number)
        await held.until(lambda held: len(held.named(ROOT)) == 3 and len(held.named("written_back")) == 3)
        views = await made.read(lambda journal: journal.submissions())
        assert held.traces().keys() == {trace_id(view.id) for view in views}
        assert len({span.span_id for span in held.spans}) == len(held.spans)


async def test_a_call_that_is_sent_again_is_an_attempt_of_the_same_trace(tmp_path):
    """Refused for now with 429 twice: three attempts, each with its own answer, one root."""
    knobs = Knobs(faults=[Fault(operation="asset.create", status=429)] * 2)
    async with collector() as held, service(tmp_path, host=traced(held), changes=PUSHED, knobs=knobs) as made:
        await registered(made)
        await held.until(lambda held: held.named(ROOT))
        [_] = held.traces()
        answers = [attributes(span) for span in held.named("answered")]
        assert [
            (answer["smp_bridge.attempt"], answer["smp_bridge.answer"], answer["http.response.status_code"])
            for answer in answers
        ] == [(0, "retry", 429), (1, "retry", 429), (2, "accepted", 202)]
        assert [span.status.message for span in held.named("answered")] == ["retry", "retry", ""]
        assert [len(held.named(name)) for name in (ROOT, "received", "mapped", "signed", "sent")] == [1, 0, 1, 1, 3]
        [root] = held.named(ROOT)
        for span in held.spans:
            if span.name != "written_back":
                assert root.start_time_unix_nano <= span.start_time_unix_nano
                assert span.end_time_unix_nano <= root.end_time_unix_nano


async def test_a_call_in_doubt_whose_return_comes_all_the_same(tmp_path):
    """The answer was lost: an error on its span, and the trace ends well."""
    knobs = Knobs(faults=[Fault(operation="asset.create", process=True, drop=True)])
    async with collector() as held, service(tmp_path, host=traced(held), changes=PUSHED, knobs=knobs) as made:
        await registered(made)
        await held.until(lambda held: held.named(ROOT))
        [lost] = held.named("unanswered")
        told = attributes(lost)
        assert (told["error.type"], told["smp_bridge.answer"], lost.status.message) == ("RESET", "in_doubt", "in_doubt")
        assert attributes(held.named(ROOT)[0])["smp_bridge.state"] == "CONFIRMED"


async def test_what_is_refused_is_an_error_of_its_trace(tmp_path):
    """At once by the answer, or later by the return: counted, never named."""
    knobs = Knobs(refuse={"BESS00002": Refusal()}, faults=[Fault(operation="asset.create", status=400)])
    async with collector() as held, service(tmp_path, host=traced(held), changes=PUSHED, knobs=knobs) as made:
        ems = await linked(made)
        fill(ems, 3)
        ems.request("assets", "B1")
        await until_words(ems, ["B1"], {4: 1})
        ems.request("assets", "B2", "B3")
        await until_words(ems, ["B2", "B3"], {3: 1, 4: 1})
        await held.until(lambda held: len(held.named(ROOT)) == 2)
        at_once, later = (attributes(root) for root in held.named(ROOT))
        assert (at_once["smp_bridge.state"], at_once["smp_bridge.cause"]) == ("REJECTED", "answer")
        assert (later["smp_bridge.state"], later["smp_bridge.cause"]) == ("PARTIAL", "return")
        assert (later["smp_bridge.items.registered"], later["smp_bridge.items.refused"]) == (1, 1)
        assert [root.status.message for root in held.named(ROOT)] == ["REJECTED", "PARTIAL"]


async def test_a_unit_is_a_trace_beside_those_of_its_assets(tmp_path):
    """Its own operation and flow; the wait for its assets is the stage that ends with its signature."""
    async with collector() as held, service(tmp_path, host=traced(held), changes=PUSHED) as made:
        ems = await linked(made)
        ems.put("U1", reference="UNIT-01", kw=10, assets=("BESS00001", "BESS00002"))
        ems.request("unit", "U1")
        await ems.until(lambda: ems.last("U1") == 1)
        await registered(made, 2)
        await until_words(ems, ["U1"], {3: 1})
        await held.until(lambda held: len(held.named(ROOT)) == 2)
        roots = {attributes(root)["smp_bridge.operation"]: root for root in held.named(ROOT)}
        assert roots.keys() == {"asset.create", "unit.create"}
        unit, assets = roots["unit.create"], roots["asset.create"]
        assert unit.trace_id != assets.trace_id
        assert attributes(unit)["smp_bridge.flow"] == "unit"
        [signed] = [span for span in held.traces()[unit.trace_id] if span.name == "signed"]
        assert signed.start_time_unix_nano < assets.end_time_unix_nano <= signed.end_time_unix_nano


async def test_a_unit_that_can_never_leave_ends_its_trace(tmp_path):
    """Refused by the host, for its member was: a root without a call."""
    async with (
        collector() as held,
        service(tmp_path, host=traced(held), knobs=Knobs(refuse={"BESS00001": Refusal()})) as made,
    ):
        ems = await linked(made)
        ems.put("U1", reference="UNIT-01", kw=5, assets=("BESS00001",))
        ems.request("unit", "U1")
        fill(ems, 1)
        ems.request("assets", "B1")
        await ems.until(lambda: ems.last("U1") == 7)
        await held.until(lambda held: len(held.named(ROOT)) == 2)
        [unit] = [root for root in held.named(ROOT) if attributes(root)["smp_bridge.operation"] == "unit.create"]
        told = attributes(unit)
        assert (told["smp_bridge.state"], told["smp_bridge.cause"], told["smp_bridge.items"]) == ("REJECTED", "host", 1)
        assert not [span for span in held.traces()[unit.trace_id] if span.name in {"sent", "answered"}]


async def test_what_expires_in_an_outage_ends_its_trace(tmp_path):
    """Refused over the account, then too late: one attempt, and a root that says so."""
    flows = {"assets": {**ASSETS, "deadline": "3s"}}
    knobs = Knobs(faults=[Fault(operation="asset.create", status=403)] * 5)
    async with collector() as held, service(tmp_path, host=traced(held), flows=flows, knobs=knobs) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 2))
        await until_words(ems, ["B1", "B2"], {8: 2})
        await held.until(lambda held: held.named(ROOT))
        [root] = held.named(ROOT)
        told = attributes(root)
        assert (told["smp_bridge.state"], told["smp_bridge.cause"], told["smp_bridge.items"]) == ("EXPIRED", "host", 2)
        assert [attributes(span)["smp_bridge.answer"] for span in held.named("answered")] == ["our_fault"]


async def test_nobody_knows_the_outcome(tmp_path):
    """No return, and the poll plan is over: UNRESOLVED by silence."""
    changes = {"poll": {"delays_s": [0.1], "every_s": 0.1, "until_s": 0.2, "overdue_s": 60}}
    knobs = Knobs(returns="never", faults=[Fault(operation="transaction.status", status=404)] * 20)
    async with collector() as held, service(tmp_path, host=traced(held), changes=changes, knobs=knobs) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {6: 1})
        await held.until(lambda held: held.named(ROOT))
        told = attributes(held.named(ROOT)[0])
        assert (told["smp_bridge.state"], told["smp_bridge.cause"]) == ("UNRESOLVED", "silence")
        assert told["smp_bridge.items.unknown"] == 1


async def test_status_polls_end_a_trace_too(tmp_path):
    """No return ever comes; the cause says by which way the outcome was known."""
    async with collector() as held, service(tmp_path, host=traced(held), knobs=Knobs(returns="never")) as made:
        await registered(made)
        await held.until(lambda held: held.named(ROOT))
        assert attributes(held.named(ROOT)[0])["smp_bridge.cause"] == "status"
        assert [span.name for span in stages(held.spans)] == [name for name in STAGES if name != "returned"]


async def test_a_collector_that_is_down_is_not_felt_and_gets_what_waited_once_it_is_up(tmp_path):
    """Nobody listens, then somebody does: the same traces, complete, after submissions that took no longer."""
    async with collector() as held, FaultProxy("127.0.0.1", int(held.url.split(":")[2].split("/")[0])) as proxy:
        await proxy.refuse()
        url = at(held.url, proxy.port)
        async with service(tmp_path, host={"tracing": {"endpoint": url}}, changes=PUSHED) as made:
            places = await registered(made, 5)
            assert len(places) == 5
            assert held.posts == 0
            assert await reports(made, "sent") == 0
            await proxy.listen()
            await held.until(lambda held: held.named(ROOT) and held.named("written_back"))
            assert [span.name for span in stages(held.spans)] == STAGES
            assert await reports(made, "dropped") == 0


async def test_a_collector_that_hangs_stops_neither_work_nor_the_stop(tmp_path, monkeypatch):
    """It takes the connection and never answers: records go on, the queue is bounded, what is lost is counted, the stop takes its two seconds at most."""
    monkeypatch.setattr(tracing, "MOST", 3)
    async with collector() as held, prepared(tmp_path, host=traced(held), changes=PUSHED) as made:
        held.hangs = True
        await made.start()
        await registered(made)
        await held.until(lambda held: held.posts)
        for number in range(2, 8):
            await registered(made, 1, number)
        assert await reports(made, "dropped") > 0
        assert await reports(made, "sent") == 0
        assert json.loads((await get(made, "/health/ready"))[1])["ready"]
        began = time.monotonic()
        await made.stop()
        assert time.monotonic() - began < tracing.FINISH_S + 3
        assert made.ledger.creates("BESS00007") == 1


async def test_what_waits_at_a_stop_is_sent(tmp_path, monkeypatch):
    """However long it would have gathered."""
    monkeypatch.setattr(tracing, "GATHER_S", 60)
    async with collector() as held, prepared(tmp_path, host=traced(held), changes=PUSHED) as made:
        await made.start()
        await registered(made)
        assert not held.spans
        await made.stop()
        assert [span.name for span in stages(held.spans)] == STAGES
        assert len(held.named("written_back")) == 1


async def test_a_trace_is_one_across_a_restart(tmp_path):
    """Sent before it and settled after it: ids come from the submission, so both halves join."""
    async with (
        collector() as held,
        service(tmp_path, host=traced(held), changes=PUSHED, knobs=Knobs(returns="hold")) as made,
    ):
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await made.until_states("AWAITING_RETURN")
        await made.stop()
        assert held.named("answered")
        assert not held.named(ROOT)
        await made.start()
        await made.release()
        await until_words(ems, ["B1"], {3: 1})
        await held.until(lambda held: held.named(ROOT) and held.named("written_back"))
        [spans] = held.traces().values()
        assert [span.name for span in stages(spans)] == STAGES


async def test_only_the_sampled_share_is_traced(tmp_path):
    """A ratio of 0 traces nobody, and the work is the same."""
    async with collector() as held, service(tmp_path, host=traced(held, sample_ratio=0.0)) as made:
        await registered(made, 2)
        await made.stop()
        assert held.posts == 0


ALLOWED = {"transport": {"traceparent": True}}


async def test_the_platform_sees_the_traceparent_of_the_submission(tmp_path):
    """W3C Trace Context, version 00, sampled: on the Create, on it again, and on status polls of its transaction; the login has none."""
    knobs = Knobs(returns="never", faults=[Fault(operation="asset.create", status=429)])
    async with collector() as held, service(tmp_path, host=traced(held), changes=ALLOWED, knobs=knobs) as made:
        await registered(made)
        [view] = await made.read(lambda journal: journal.submissions())
        wanted = f"00-{trace_id(view.id).hex()}-{span_id(view.id, ROOT).hex()}-01"
        assert [entry.traceparent for entry in made.ledger.of("asset.create")] == [wanted, wanted]
        polls = {entry.traceparent for entry in made.ledger.of("transaction.status")}
        assert polls == {wanted}
        assert {entry.traceparent for entry in made.ledger.of("authenticate")} == {""}
        await held.until(lambda held: held.named(ROOT))
        [root] = held.named(ROOT)
        assert (root.trace_id.hex(), root.span_id.hex()) == tuple(wanted.split("-")[1:3])


async def test_what_is_not_sampled_says_so(tmp_path):
    """The flag is 00, so that nobody keeps a half of it."""
    async with (
        collector() as held,
        service(tmp_path, host=traced(held, sample_ratio=0.0), changes=ALLOWED) as made,
    ):
        await registered(made)
        [entry] = made.ledger.of("asset.create")
        assert entry.traceparent.endswith("-00")


@pytest.mark.parametrize(("changes", "on"), [({}, True), (ALLOWED, False)])
async def test_no_traceparent_unless_profile_and_host_both_want_it(tmp_path, changes, on):
    """The default profile says no; without tracing there is no trace that SMP could join."""
    async with (
        collector() as held,
        service(tmp_path, host=traced(held) if on else {}, changes=changes) as made,
    ):
        await registered(made)
        assert {entry.traceparent for entry in made.ledger.requests} == {""}


async def test_nothing_of_an_asset_nor_any_secret_reaches_the_collector(tmp_path):
    """An MPAN, names, a reference, a place, texts of SMP and every token and password of the test: in no span, no resource, no header, no byte of a body."""
    payload = {
        **ASSETS["payload"],
        "controlContact.name": {"const": NAME},
        "controlContact.email": {"const": "ada@example.org"},
    }
    flows = {"assets": {**ASSETS, "payload": payload}, "unit": UNIT}
    text = f"{MPAN} of {NAME} is wrong"
    knobs = Knobs(
        refuse={"BESS00002": Refusal(code=NAME, message=text, field=MPAN)},
        faults=[
            Fault(operation="asset.create", status=429, body=text, headers={"X-Said": MPAN}),
            Fault(operation="asset.create", process=True, drop=True),
            Fault(operation="asset.create", status=400, names=["BESS00003"]),
        ],
    )
    async with (
        collector() as held,
        service(tmp_path, host=traced(held), flows=flows, knobs=knobs, changes={**PUSHED, **ALLOWED}) as made,
    ):
        ems = await linked(made)
        fill(ems, 3)
        ems.request("assets", "B1", "B2")  # put off, then in doubt, then settled by its return
        await until_words(ems, ["B1", "B2"], {3: 1, 4: 1})
        ems.request("assets", "B3")
        await until_words(ems, ["B3"], {4: 1})
        ems.put("U1", reference="UNIT-01", kw=5, assets=("BESS00001",))
        ems.request("unit", "U1")
        await until_words(ems, ["U1"], {3: 1})
        assert ems.last("B2", OutcomeField.ERROR_CODE)
        await held.until(lambda held: len(held.named(ROOT)) == len(held.named("written_back")) == 3)
        await made.stop()
        secrets = ["s3cret-of-the-test", *made.sandbox.accounts._tokens]
        everything = "\n".join(
            [
                *(body.decode("latin-1") for body in held.bodies),
                *(str(headers) for headers in held.headers),
                *(str(span) for span in held.spans),
                *(str(resource) for resource in held.resources),
            ]
        )
        assert "smp_bridge.submission" in everything
        assert [word for word in (*PLANTED, *secrets) if word in everything] == []
        said = {text for span in held.spans for text in attributes(span).values() if isinstance(text, str)}
        said |= {span.name for span in held.spans} | {span.status.message for span in held.spans}
        assert not said & set(ems.fields)
        assert {name for span in held.spans for name in attributes(span)} <= KNOWN


KNOWN = {
    "smp_bridge.submission", "smp_bridge.participant", "smp_bridge.site", "smp_bridge.flow", "smp_bridge.operation",
    "smp_bridge.items", "smp_bridge.items.registered", "smp_bridge.items.refused", "smp_bridge.items.unknown",
    "smp_bridge.attempt", "smp_bridge.answer", "smp_bridge.state", "smp_bridge.cause", "smp_bridge.write_back",
    "smp_bridge.inexact", "http.response.status_code", "error.type",
}  # fmt: skip


async def test_halves_of_the_host_make_one_trace(tmp_path):
    """The market half tells all but the write-back, the field half that; each says which it is."""
    async with collector() as held, prepared(tmp_path, host=traced(held), changes=PUSHED) as made:
        made.role = Role.FIELD
        ems = await started(made)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {1: 1})
        await made.stop()
        assert held.posts == 0
        made.role = Role.MARKET
        await made.start()
        await made.until_states("CONFIRMED")
        await made.stop()
        made.role = Role.FIELD
        await made.start()
        await until_words(ems, ["B1"], {3: 1})
        await made.stop()
        [spans] = held.traces().values()
        assert {span.name for span in spans} == {ROOT, "written_back", *STAGES}
        assert {resource["smp_bridge.role"] for resource in held.resources} == {"market", "field"}


async def started(made):
    await made.start()
    return await linked(made)


CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import memory_adapter as memory
from bridge.app import Host, Running
from bridge.config import load
config = load(Path(sys.argv[1]), lambda name: memory.memory_adapter(memory.MemoryEms(), name), environ={})
running = Running()
running.on_ready = running.stop.set
asyncio.run(Host(config).run(running))
ours = {"bridge.otlp", "bridge.tracing", "bridge.traced", "bridge.spans"}
print(*(name for name in sys.modules if name.split(".")[0] in {"opentelemetry", "google"} or name in ours))
"""


@pytest.mark.parametrize("on", [False, True])
async def test_where_it_is_off_nothing_of_it_is_loaded(tmp_path, on):
    """A host of its own process, started and stopped; with tracing the same look finds all of it."""
    async with collector() as held, prepared(tmp_path, host=traced(held) if on else {}):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(tmp_path / "config"), str(SUPPORT), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await child.communicate()
        assert child.returncode == 0
        loaded = set(said.decode().split())
        assert loaded >= {"bridge.traced", "bridge.otlp", "google.protobuf"} if on else not loaded
