"""The desk between sessions and the journal: what becomes of a lent send slot, and of values that no evidence format takes."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from bridge.api import MOST_REPLY, Arrival, Outcome
from bridge.clock import SystemClock
from bridge.errors import JournalFull, JournalUnusable
from bridge.field.intake import IntakeDesk
from bridge.field.report import FieldMetrics
from bridge.flow import FlowPlan
from bridge.journal.port import Accepted, Fence, Intake
from bridge.journal.terms import Terms
from bridge.lane import FastCall, RenderedItem, SignedCall
from bridge.mapping import Mapped
from bridge.model import Operation, Quality, Reading, Record, Trigger
from bridge.submission import Admission

CLOCK = SystemClock.here()
CALL = SignedCall(
    message_id="m", correlation_id="c", method="POST", path="/", headers={}, body=b"{}", kid="k", profile="p"
)


class Mapper:
    def __init__(self):
        self.mapped = []

    def map(self, record):
        self.mapped.append(record.place)
        return Mapped(key=record.place, item={"name": record.place})

    def key_of(self, fields):
        return None


class Validator:
    def check(self, item):
        return []


class Slot:
    def __init__(self, lane):
        self.ended = []
        self.lane = lane

    async def sign(self, keys, items, stamps):
        if self.lane.fails:
            raise RuntimeError("no key")
        if self.lane.signing is not None:
            await self.lane.signing.wait()
        return FastCall(submission="s", keys=tuple(keys), call=CALL, market=Fence("market:acme", 1))

    def send(self, journalled, site, flow):
        self.ended.append("sent")

    def release(self):
        self.ended.append("released")


class Lane:
    def __init__(self):
        self.slots = []
        self.fails = False
        self.signing = None

    def claim(self, participant, operation):
        self.slots.append(Slot(self))
        return self.slots[-1]


class Journal:
    """Commits when it is let, and as often as it has room."""

    def __init__(self):
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.full = 0
        self.taken = []

    async def accept(self, fence, candidates, fast=None, *, told=None):
        commit = asyncio.ensure_future(self._commit(candidates, fast, told or (lambda _: None)))
        return await asyncio.shield(commit)  # a commit goes on whoever waits for it

    async def _commit(self, candidates, fast, told):
        self.asked.set()
        await self.go.wait()
        if self.full:
            self.full -= 1
            told(None)
            raise JournalFull("full")
        self.taken.append((list(candidates), fast))
        accepted = [Accepted(admission=Admission.NEW, item=1, submission="s") for _ in candidates]
        intake = Intake(accepted=accepted, fast=fast is not None, journalled=CLOCK.now())
        told(intake)
        return intake


class Rig:
    def __init__(self):
        self.journal, self.lane, self.mapper, self.acked = Journal(), Lane(), Mapper(), []
        plan = FlowPlan(
            site="north", name="assets", adapter="ems", participant="acme", operation=Operation.ASSET_CREATE,
            trigger=Trigger.REQUEST, key_field="ref", records=None, submit=None, outcome=Outcome(), mapper=self.mapper,
            validator=Validator(), max_items=1000, render=lambda _: RenderedItem(b"{}"),
        )  # fmt: skip
        self.desk = IntakeDesk(
            site="north", plans={"assets": plan}, journal=self.journal, fence=Fence("field:north", 1), clock=CLOCK,
            metrics=FieldMetrics(), lane=self.lane, sleep=lambda _: asyncio.sleep(0),
        )  # fmt: skip

    def arrival(self, *, reply="", **values):
        fields = {name: value if isinstance(value, Reading) else Reading(value=value) for name, value in values.items()}
        record = Record(flow="assets", place="A", fields=fields, received=CLOCK.now(), request="1", reply=reply)
        return Arrival(records=[record], ack=self.acked.append)


async def test_a_commit_under_way_sends_its_call_although_the_session_ends():
    """The link is lost while commit 1 runs: the call is on disk as SENDING, so it leaves; a slot given back would leave it there unsent."""
    rig = Rig()
    async with asyncio.TaskGroup() as group:
        session = group.create_task(rig.desk.take([rig.arrival()]))
        await rig.journal.asked.wait()
        session.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (rig.lane.slots[0].ended, session.done()) == (
            [],
            False,
        )  # whoever ends the session may rely on it: no commit is under way then
        rig.journal.go.set()
    assert session.cancelled()
    assert rig.lane.slots[0].ended == ["sent"]


async def test_a_journal_that_takes_nothing_keeps_no_send_slot():
    """It is closed, say, and says so at once: nobody is told what became of a commit."""
    rig = Rig()

    async def closed(*args, **named):
        raise JournalUnusable("the journal is closed")

    rig.journal.accept = closed
    with pytest.raises(JournalUnusable):
        await rig.desk.take([rig.arrival()])
    assert rig.lane.slots[0].ended == ["released"]


async def test_a_full_journal_keeps_no_send_slot():
    """While the disk is full the slot is given back; what is taken in later waits as usual, and is acknowledged only then."""
    rig = Rig()
    rig.journal.full = 2
    rig.journal.go.set()
    await rig.desk.take([rig.arrival()])
    assert [slot.ended for slot in rig.lane.slots] == [["released"]]
    assert [fast for _, fast in rig.journal.taken] == [None]
    assert rig.acked == [True]


async def test_a_record_shown_ahead_is_mapped_once():
    """The adapter shows it while it reads others; the arrival brings it with its time."""
    rig = Rig()
    rig.journal.go.set()
    arrival = rig.arrival(name="X")
    rig.desk.ahead(arrival.records[0])
    assert rig.mapper.mapped == ["A"]
    await rig.desk.take([arrival])
    assert rig.mapper.mapped == ["A"]
    await rig.desk.take([rig.arrival(name="X")])
    assert rig.mapper.mapped == ["A", "A"]
    first, second = (taken[0] for taken, _ in rig.journal.taken)
    assert (first.key, first.content) == (second.key, second.content) == ("A", b'{"name":"A"}')


@pytest.mark.parametrize(("size", "kept"), [(MOST_REPLY, MOST_REPLY), (MOST_REPLY + 1, 0)])
async def test_a_reply_is_kept_up_to_its_bound(size, kept, caplog):
    """One that is longer is an adapter's mistake: the record is taken all the same, and the log says why its answer goes without."""
    rig = Rig()
    rig.journal.go.set()
    await rig.desk.take([rig.arrival(reply="x" * size)])
    ((taken, _),) = rig.journal.taken
    assert [len(candidate.reply) for candidate in taken] == [kept]
    assert rig.acked == [True]
    said = [entry.problem for entry in caplog.records if entry.message == "reply_not_kept"]
    assert said == ([] if kept else [f"{size} characters, at most {MOST_REPLY}"])


async def test_a_session_that_ends_while_the_journal_is_full_waits_for_nothing():
    """The wait for room ends with the session; nothing is acknowledged."""
    rig = Rig()
    rig.journal.full = 10**9
    rig.journal.go.set()
    session = asyncio.ensure_future(rig.desk.take([rig.arrival()]))
    await rig.journal.asked.wait()
    await asyncio.sleep(0)
    session.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({session})
    assert session.cancelled()
    assert rig.acked == []


async def test_one_call_holds_as_many_records_as_the_flow_allows():
    """A large arrival takes one commit too; what exceeds one call waits for the next, in the same commit."""
    rig = Rig()
    rig.journal.go.set()
    for count in (1000, 1001):
        records = [
            Record(flow="assets", place=f"A{number}", fields={}, received=CLOCK.now(), request="1")
            for number in range(count)
        ]
        await rig.desk.take([Arrival(records=records, ack=rig.acked.append)])
    assert [(len(candidates), len(fast.rows)) for candidates, fast in rig.journal.taken] == [(1000, 1000), (1001, 1000)]
    assert [slot.ended for slot in rig.lane.slots] == [["sent"], ["sent"]]


async def test_a_session_that_ends_while_its_call_is_signed_gives_the_slot_back():
    """Nothing is on disk yet, so nothing may leave; the records come again with the next session."""
    rig = Rig()
    rig.lane.signing = asyncio.Event()
    session = asyncio.ensure_future(rig.desk.take([rig.arrival()]))
    await asyncio.sleep(0)
    session.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({session})
    assert rig.lane.slots[0].ended == ["released"]
    assert rig.journal.taken == []


async def test_a_slot_that_cannot_sign_is_given_back():
    """A failure of the signer must not use up the slots for good."""
    rig = Rig()
    rig.lane.fails = True
    rig.journal.go.set()
    with pytest.raises(RuntimeError):
        await rig.desk.take([rig.arrival()])
    assert rig.lane.slots[0].ended == ["released"]


NESTED: object = 1
for _ in range(2000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "value",
    [
        "half \ud800",
        {"\ud800": 1},
        {1: 2},
        [2**70, {"deep": -(2**80)}],
        10**5000,
        float("nan"),
        b"\xff\x00",
        datetime.max.replace(tzinfo=UTC),
        Reading(value=1, source_ns=253_402_300_799 * 10**9),
        Reading(value=1, source_ns=-(2**70)),
        NESTED,
    ],
    ids=lambda value: type(value).__name__,
)
async def test_any_value_is_taken_in(value):
    """Whatever an EMS holds becomes evidence of some kind; one that raised would come again with each new session, for ever."""
    rig = Rig()
    rig.journal.go.set()
    await rig.desk.take([rig.arrival(odd=value, good=5)])
    [([candidate], _)] = rig.journal.taken
    assert b'"good"' in candidate.readings
    source = candidate.stamps.get("source")
    assert source is None or 0 < source.wall_ns < 2**63
    assert rig.acked == [True]


def told_of(candidate):
    form, told, raw = candidate.readings.split(b"\n", 2)
    assert form == b"smp-bridge readings 1"
    return json.loads(told), raw


async def test_raw_bytes_are_kept_beside_quality_and_times():
    """Names alone of what is plain good; quality, source time and the adapter's word of the rest; when it was received; the bytes as they came, line ends too."""
    rig = Rig()
    rig.journal.go.set()
    fields = {
        "name": Reading(value="A"),
        "kw": Reading(value=None, quality=Quality.BAD, detail="no number"),
        "at": Reading(value=5, source_ns=1_700_000_000 * 10**9),
    }
    arrival = rig.arrival()
    record = arrival.records[0]._replace(fields=fields, raw=b"\x00\n{\xff\n", problem="torn")
    await rig.desk.take([Arrival(records=(record,), ack=arrival.ack)])
    [([candidate], _)] = rig.journal.taken
    told, raw = told_of(candidate)
    assert raw == b"\x00\n{\xff\n"
    assert told == {
        "received_ns": record.received.wall_ns,
        "problem": "torn",
        "good": ["name"],
        "other": {"kw": ["bad", None, "no number"], "at": ["good", 1_700_000_000 * 10**9]},
    }


async def test_values_are_the_raw_form_where_there_are_no_bytes():
    """Value, quality and source time of each field, with the adapter's word where there is one."""
    rig = Rig()
    rig.journal.go.set()
    arrival = rig.arrival()
    fields = {"kw": Reading(value=7, quality=Quality.UNCERTAIN, source_ns=9, detail="stale")}
    record = arrival.records[0]._replace(fields=fields)
    await rig.desk.take([Arrival(records=(record,), ack=arrival.ack)])
    [([candidate], _)] = rig.journal.taken
    told, raw = told_of(candidate)
    assert raw == b""
    assert told == {"received_ns": record.received.wall_ns, "values": {"kw": [7, "uncertain", 9, "stale"]}}


async def test_a_person_is_found_in_what_is_kept():
    """In the bytes of a message, in registers, in a value and in the word about it: an erasure looks through all of it."""
    mpan, terms = "1012345678903", Terms(mpans=["1012345678903"])
    clean = Reading(value="A")
    for fields, raw in [
        ({"a": clean}, b'{"mpan": "1012345678903"}'),
        ({"a": clean}, bytes(6) + mpan.encode() + bytes(3)),
        ({"a": Reading(value=mpan)}, b""),
        ({"a": Reading(value=None, quality=Quality.BAD, detail=f"{mpan} is no number")}, b"x"),
    ]:
        rig = Rig()
        rig.journal.go.set()
        arrival = rig.arrival()
        await rig.desk.take([Arrival(records=(arrival.records[0]._replace(fields=fields, raw=raw),), ack=arrival.ack)])
        [([candidate], _)] = rig.journal.taken
        assert terms.within(candidate.readings)
