"""The field side against a real journal and an EMS in memory: intake, acknowledgement, write-back, links."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass

import memory_adapter as memory
import pytest

from bridge.api import OutcomeField
from bridge.clock import SystemClock
from bridge.field.intake import IntakeDesk
from bridge.field.links import LinkAlarms
from bridge.field.report import FieldMetrics
from bridge.field.supervisor import Supervisor
from bridge.field.writeback import WriteBacks
from bridge.flow import FlowPlan
from bridge.identifiers import Severity
from bridge.ids import submission_ids
from bridge.journal.port import AnswerNote, ItemOutcome, NoneDue
from bridge.journal.sqlite import open_journal
from bridge.lane import RenderedItem, SignedCall
from bridge.model import HostReason, ItemState, Operation, Refusal, Trigger
from bridge.submission import SubmissionState
from bridge.validation import Finding

CLOCK = SystemClock.here()


@dataclass
class Mapped:
    key: str | None
    item: dict
    refusals: tuple = ()
    members: tuple = ()


class Mapper:
    def map(self, record):
        if record.problem:
            return Mapped(None, {}, (Refusal(reason=HostReason.TORN_RECORD, text=record.problem),))
        item = {name: reading.value for name, reading in record.fields.items()}
        return Mapped(item.get("reference"), item)

    def key_of(self, fields):
        return fields["reference"].value


class Validator:
    def check(self, item):
        if item.get("kw", 1) > 0:
            return []
        return [Finding(field="kw", reason="must be above 0", severity=Severity.ERROR, code=HostReason.RULE)]


def plan(name="assets", trigger=Trigger.REQUEST, wait_s=5.0):
    return FlowPlan(
        site="ipswich", name=name, adapter="ems", participant="acme", operation=Operation.ASSET_CREATE, trigger=trigger,
        key_field="reference", records=None, submit=None, outcome=memory.MemoryOutcome(), mapper=Mapper(),
        validator=Validator(), max_items=1000, render=lambda _: RenderedItem(b"{}"), registration_wait_s=wait_s,
    )  # fmt: skip


class Rig:
    def __init__(self, ems, journal, market):
        self.ems, self.journal, self.market = ems, journal, market

    async def due(self):
        """The next call, once the journal has one."""
        async with asyncio.timeout(10):
            event = self.journal.woken("market:acme")
            while True:
                event.clear()
                found = await self.journal.next_call("acme", CLOCK.wall_ns(), allow=list(Operation))
                if not isinstance(found, NoneDue):
                    return found
                await event.wait()

    async def send(self, due, transaction="a0B1"):
        call = SignedCall(
            message_id="m" + due.submission, correlation_id=due.submission, method="POST", path="/", headers={},
            body=b"{}", kid="k", profile="p",
        )  # fmt: skip
        await self.journal.sending(self.market, due.submission, call, len(due.items))
        note = AnswerNote(status=202, headers={}, body=b"{}", detail="", transaction_id=transaction)
        await self.journal.answered(self.market, due.submission, SubmissionState.AWAITING_RETURN, note)

    async def settle(self, due, state=ItemState.REGISTERED):
        outcomes = [ItemOutcome(item=item.id, state=state, asset_id="A" + item.key) for item in due.items]
        after = SubmissionState.CONFIRMED if state is ItemState.REGISTERED else SubmissionState.FAILED
        await self.journal.settle(self.market, due.submission, after, outcomes, cause="test")


@asynccontextmanager
async def running(directory, *plans, ems=None):
    """One adapter of one site on a real journal."""
    ems = ems or memory.MemoryEms()
    by_name = {found.name: found for found in plans or (plan(),)}
    journal = await open_journal(directory / "journal.db", clock=CLOCK, role="all", new_id=submission_ids(CLOCK))
    field, market = await journal.acquire("field:ipswich"), await journal.acquire("market:acme")
    metrics = FieldMetrics()
    common = {
        "site": "ipswich",
        "plans": by_name,
        "journal": journal,
        "fence": field,
        "clock": CLOCK,
        "metrics": metrics,
    }
    supervisor = Supervisor(
        site="ipswich", name="ems", adapter=memory.memory_adapter(ems), options=None, plans=by_name, journal=journal,
        desk=IntakeDesk(**common), writebacks=WriteBacks(**common), clock=CLOCK, metrics=metrics, client_id="t",
        links=LinkAlarms(site="ipswich", adapter="ems", participant="acme", journal=journal, clock=CLOCK, after_s=60),
        jitter=lambda: 0.0,
    )  # fmt: skip
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(supervisor.run())
            await ems.until(lambda: ems.sessions == 1)
            yield Rig(ems, journal, market)
            task.cancel()
    finally:
        await journal.release([field, market])
        await journal.close()


async def test_reading_that_nobody_ended_is_a_lost_link(tmp_path, monkeypatch):
    """A library's own cancellation that comes out of `receive`: the session would stay up and hear nothing. It is opened anew, and what is asked then is taken."""
    async with running(tmp_path) as rig:
        receive, ends = memory._Session.receive, asyncio.Event()

        async def cancelled(session):
            waiting = asyncio.get_running_loop().create_task(receive(session))
            ending = asyncio.get_running_loop().create_task(ends.wait())
            await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if ends.is_set():
                waiting.cancel()
                monkeypatch.undo()
                raise asyncio.CancelledError
            ending.cancel()
            return await waiting

        monkeypatch.setattr(memory._Session, "receive", cancelled)
        rig.ems.put("B1", reference="BESS001", kw=5)
        rig.ems.request("assets", "B1")
        await rig.due()
        ends.set()
        await rig.ems.until(lambda: rig.ems.sessions == 2)
        rig.ems.put("B2", reference="BESS002", kw=5)
        rig.ems.request("assets", "B2")
        await rig.ems.until(lambda: (("B2",), True) in rig.ems.acked)


async def test_from_request_to_written_back_outcome(tmp_path):
    """Received, sent, registered: each word reaches the EMS, and the arrival is acknowledged once it is on disk."""
    async with running(tmp_path) as rig:
        rig.ems.put("B1", reference="BESS001", kw=5)
        rig.ems.request("assets", "B1")
        due = await rig.due()
        async with asyncio.timeout(5):
            while not rig.ems.acked:  # the market side wakes at the commit, perhaps before the field side does
                await asyncio.sleep(0.001)
        assert rig.ems.acked == [(("B1",), True)]
        assert [item.key for item in due.items] == ["BESS001"]
        await rig.ems.until(lambda: rig.ems.last("B1") == 1)
        await rig.send(due)
        await rig.ems.until(lambda: rig.ems.last("B1") == 2)
        await rig.settle(due)
        await rig.ems.until(lambda: rig.ems.last("B1") == 3)
        assert rig.ems.last("B1", OutcomeField.TRANSACTION_ID) == "a0B1"
        async with asyncio.timeout(5):
            while (await rig.journal.submission_items(due.submission))[0].written_back != "read_back_ok":
                await asyncio.sleep(0.01)


async def test_an_invalid_record_is_refused_and_holds_nobody_up(tmp_path):
    """The bad one gets state 7 and its reason; the good one beside it goes on."""
    async with running(tmp_path) as rig:
        rig.ems.put("B1", reference="BESS001", kw=0)
        rig.ems.put("B2", reference="BESS002", kw=5)
        rig.ems.request("assets", "B1", "B2")
        due = await rig.due()
        assert [item.key for item in due.items] == ["BESS002"]
        await rig.ems.until(lambda: rig.ems.last("B1") == 7)
        assert rig.ems.last("B1", OutcomeField.ERROR_CODE) == HostReason.RULE


async def test_another_record_in_the_place_gets_nothing(tmp_path):
    """The key is read again before each write; a moved record is alarmed and never overwritten."""
    async with running(tmp_path) as rig:
        rig.ems.put("B1", reference="BESS001", kw=5)
        rig.ems.request("assets", "B1")
        due = await rig.due()
        await rig.ems.until(lambda: rig.ems.last("B1") == 1)
        rig.ems.put("B1", reference="OTHER", kw=5)
        await rig.send(due)
        await rig.settle(due)
        async with asyncio.timeout(5):
            while not [alarm for alarm in await rig.journal.alarms() if alarm.code == "MOVED"]:
                await asyncio.sleep(0.01)
        assert rig.ems.last("B1") == 1


async def test_an_outcome_waits_for_the_link_to_come_back(tmp_path):
    """Cut while the outcome is due: a new session writes it."""
    async with running(tmp_path) as rig:
        rig.ems.put("B1", reference="BESS001", kw=5)
        rig.ems.request("assets", "B1")
        due = await rig.due()
        rig.ems.reachable = False
        rig.ems.cut()
        await rig.send(due)
        await rig.settle(due)
        rig.ems.reachable = True
        await rig.ems.until(lambda: rig.ems.last("B1") == 3)
        assert rig.ems.sessions == 2


async def test_a_value_that_does_not_read_back_is_tried_again(tmp_path):
    """Written but not held by the EMS: not done."""
    async with running(tmp_path) as rig:
        rig.ems.put("B1", reference="BESS001", kw=5)
        rig.ems.request("assets", "B1")
        due = await rig.due()
        rig.ems.garble = True
        await rig.send(due)
        await rig.settle(due)
        await rig.ems.until(lambda: rig.ems.last("B1") == 3)
        rig.ems.garble = False
        async with asyncio.timeout(10):
            while (await rig.journal.submission_items(due.submission))[0].written_back != "read_back_ok":
                await asyncio.sleep(0.02)
        assert rig.ems.written["B1"][OutcomeField.STATE].count(3) >= 2


async def test_a_request_waits_for_its_registration_then_goes(tmp_path):
    """`message`: acknowledged at once, complete later."""
    async with running(tmp_path, plan(trigger=Trigger.MESSAGE)) as rig:
        rig.ems.request("assets", "EV1", sequence="r-1", complete=False)
        await rig.ems.until(lambda: rig.ems.last("EV1") == 1)
        await rig.ems.until(
            lambda: rig.ems.acked
        )  # those who write back wake at the commit, perhaps before the intake does
        rig.ems.put("EV1", reference="EV1", kw=5)
        rig.ems.request("assets", "EV1", sequence="r-1")
        due = await rig.due()
        assert [item.key for item in due.items] == ["EV1"]


async def test_a_request_whose_registration_never_comes_is_refused(tmp_path):
    """After the wait, the EMS is told why."""
    async with running(tmp_path, plan(trigger=Trigger.MESSAGE, wait_s=0.05)) as rig:
        rig.ems.request("assets", "EV1", sequence="r-1", complete=False)
        await rig.ems.until(lambda: rig.ems.last("EV1") == 7)
        assert rig.ems.last("EV1", OutcomeField.ERROR_CODE) == HostReason.NO_REGISTRATION


async def test_a_request_is_not_refused_over_what_stands_in_line(tmp_path):
    """Its time is over while the registration is still on its way over a slow link: it is heard first, and the request goes on."""
    ems = memory.MemoryEms()
    asked, come = asyncio.Event(), asyncio.Event()

    async def line():
        asked.set()
        await come.wait()

    ems.line = line
    async with running(tmp_path, plan(trigger=Trigger.MESSAGE, wait_s=0.05), ems=ems) as rig:
        ems.request("assets", "EV1", sequence="r-1", complete=False)
        async with asyncio.timeout(10):
            await asked.wait()
        ems.put("EV1", reference="EV1", kw=5)
        ems.request("assets", "EV1", sequence="r-1")
        come.set()
        due = await rig.due()
        assert [item.key for item in due.items] == ["EV1"]
        assert ems.last("EV1") == 1
        ems.request("assets", "EV2", sequence="r-2", complete=False)  # and this one's never was
        await ems.until(lambda: ems.last("EV2") == 7)


@pytest.mark.parametrize("problem", ["torn read"])
async def test_an_unreadable_request_is_answered_as_such(tmp_path, problem):
    """`ack(False)` for an arrival that cannot be read at all."""
    async with running(tmp_path) as rig:
        rig.ems.request("assets", "B9", problem=problem)
        await rig.ems.until(lambda: rig.ems.last("B9") == 7)
        await rig.ems.until(lambda: rig.ems.acked == [(("B9",), False)])


async def test_what_the_adapter_leaves_out_is_an_alarm(tmp_path):
    """A session tells it; the row names the site, the adapter and what is left out, and ends with the session."""
    async with running(tmp_path) as rig:
        rig.ems.context.beyond("assets: there are more than 10 places")
        async with asyncio.timeout(5):
            while not (rows := await rig.journal.alarms()):
                await asyncio.sleep(0.01)
            assert [(row.code, row.site, row.subject) for row in rows] == [("BEYOND_LIMIT", "ipswich", "ems")]
            assert "more than 10 places" in rows[0].text
            rig.ems.cut()
            while await rig.journal.alarms():
                await asyncio.sleep(0.01)
