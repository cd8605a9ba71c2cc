"""The writer of outcomes beside a journal and a session that are told what to do."""

import asyncio
from dataclasses import replace

import pytest
from memory_adapter import MemoryOutcome

from bridge.api import OutcomeField, Written
from bridge.clock import Stamp, SystemClock
from bridge.errors import JournalFull, LinkError
from bridge.field.report import FieldMetrics
from bridge.field.suspects import BREAKS
from bridge.field.writeback import BATCH, RETRY_DELAYS_S, WriteBacks
from bridge.flow import FlowPlan
from bridge.ids import submission_ids
from bridge.journal.port import Candidate, DueWriteBack, Fence
from bridge.journal.sqlite import open_journal
from bridge.journal.writebacks import LONGEST_RETRY_NS
from bridge.lane import RenderedItem
from bridge.model import EmsOutcome, EmsState, Operation, Trigger

CLOCK = SystemClock.here()
FENCE = Fence("field:north", 1)


def row(number, request):
    return DueWriteBack(
        id=number, site="north", flow="assets", place="EV001", key="EV001", generation=1, attempts=0, due_ns=0,
        outcome=EmsOutcome(state=EmsState.REGISTERED, transaction_id="T1", request=request),
    )  # fmt: skip


class Journal:
    def __init__(self, rows, full=0):
        self.rows, self.full, self.noted = rows, full, []
        self.looks, self.lazy, self.event = 0, [], asyncio.Event()

    async def retry_stuck(self, fence, site, flows):
        self._room()

    async def due_writebacks(self, site, flows, now_ns, limit):
        self.looks += 1
        noted = {result.id for result in self.noted}
        return [row for row in self.rows if row.id not in noted][:limit], 0

    async def wrote_back(self, fence, results, *, lazy):
        self._room()
        self.noted += results
        self.lazy.append(lazy)

    def woken(self, topic):
        return self.event

    def _room(self):
        if self.full:
            self.full -= 1
            raise JournalFull("full")


class Session:
    can_read = False

    def __init__(self, refuses=()):
        self.refuses, self.writes = refuses, 0

    async def write(self, writes):
        self.writes += 1
        return [
            Written(address=write.address, value=1, error="not taken" if write.request in self.refuses else "")
            for write in writes
        ]


def writer(journal, clock=CLOCK, fence=FENCE):
    plan = FlowPlan(
        site="north", name="assets", adapter="ems", participant="acme", operation=Operation.ASSET_CREATE,
        trigger=Trigger.MESSAGE, key_field="ref", records=None, submit=None, outcome=MemoryOutcome(), mapper=None,
        validator=None, max_items=1000, render=lambda _: RenderedItem(b"{}"),
    )  # fmt: skip
    return WriteBacks(
        site="north", plans={"assets": plan}, journal=journal, fence=fence, clock=clock,
        metrics=FieldMetrics(), sleep=lambda _: asyncio.sleep(0),
    )  # fmt: skip


async def until(condition, task):
    async with asyncio.timeout(5):
        while not condition():
            assert not task.done(), task.exception()
            await asyncio.sleep(0.005)


async def test_two_requests_of_one_place_are_told_apart():
    """One of two outcomes for the same place is not taken by the EMS: that one is tried again, whatever became of the other."""
    journal = Journal([row(1, "r-1"), row(2, "r-2")])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer(journal).run(Session(refuses=["r-1"])))
        await until(lambda: len(journal.noted) == 2, task)
        task.cancel()
    assert {result.id: result.state for result in journal.noted} == {1: "retry", 2: "written"}


async def test_nobody_looks_again_unless_more_may_be_due():
    """One look for one outcome, another for what comes meanwhile; a full batch has more behind it. Only words of progress may wait for another's commit."""
    journal = Journal([row(number, f"r-{number}") for number in range(BATCH + 1)])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer(journal).run(Session()))
        await until(lambda: len(journal.noted) == BATCH + 1, task)
        await asyncio.sleep(0.05)
        assert (journal.looks, set(journal.lazy)) == (2, {False})
        word = row(BATCH + 1, "r-word")
        journal.rows.append(replace(word, outcome=replace(word.outcome, state=EmsState.SENT)))
        journal.event.set()
        await until(lambda: len(journal.noted) == BATCH + 2, task)
        await asyncio.sleep(0.05)
        assert (journal.looks, journal.lazy[-1]) == (3, True)
        task.cancel()


async def test_each_write_brings_back_what_its_request_said_about_the_answer():
    """For an adapter whose requests say where their outcome goes; nothing where the request said nothing."""

    class Told(Session):
        async def write(self, writes):
            heard.extend((write.request, write.reply) for write in writes)
            return await super().write(writes)

    heard = []
    journal = Journal([replace(row(1, "r-1"), reply="to x"), row(2, "r-2")])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer(journal).run(Told()))
        await until(lambda: len(journal.noted) == 2, task)
        task.cancel()
    assert set(heard) == {("r-1", "to x"), ("r-2", "")}


async def test_a_full_journal_does_not_end_the_session():
    """While the disk is full the link stays up; what was written is noted when there is room."""
    journal = Journal([row(1, "r-1")], full=3)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer(journal).run(Session()))
        await until(lambda: journal.noted, task)
        task.cancel()


async def test_a_lost_link_ends_it():
    """`LinkError` is the session's own end and is passed on."""

    class Lost(Session):
        async def write(self, writes):
            raise LinkError("gone")

    with pytest.raises(LinkError):
        async with asyncio.timeout(5):
            await writer(Journal([row(1, "r-1")])).run(Lost())


class HangsUp(Session):
    """Ends the link over these requests, as a broker does over a topic."""

    def __init__(self, over):
        super().__init__()
        self.over, self.tried = over, []

    async def write(self, writes):
        requests = [write.request for write in writes if write.address.name is OutcomeField.STATE]
        self.tried.append(requests)
        if self.over.intersection(requests):
            raise LinkError("the broker hung up")
        return await super().write(writes)


async def a_link(backs, journal, session):
    """One link, until it ends or all is told; returns what was tried on it."""
    async with asyncio.timeout(5):
        task = asyncio.get_running_loop().create_task(backs.run(session))
        while not task.done() and len({result.id for result in journal.noted}) < len(journal.rows):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    tried, session.tried = session.tried, []
    return tried


async def test_an_outcome_that_ends_each_link_holds_up_nobody():
    """What the EMS hangs up over comes after all others, one by one, and is stuck after some links; a newer outcome of its place is tried."""
    journal = Journal([row(number, f"r-{number}") for number in range(4)])
    backs, peer = writer(journal), HangsUp({"r-1"})
    assert await a_link(backs, journal, peer) == [["r-0", "r-1", "r-2", "r-3"]]
    assert await a_link(backs, journal, peer) == [["r-0"], ["r-1"]]
    assert await a_link(backs, journal, peer) == [["r-2"], ["r-3"], ["r-1"]]
    assert {result.id: result.state for result in journal.noted} == {0: "written", 2: "written", 3: "written"}
    for number in range(4, 4 + BREAKS - 3):
        journal.rows.append(row(number, f"r-{number}"))
        assert await a_link(backs, journal, peer) == [[f"r-{number}"], ["r-1"]]
    assert await a_link(backs, journal, peer) == []
    assert (journal.noted[-1].id, journal.noted[-1].state) == (1, "stuck")
    journal.rows[1] = replace(journal.rows[1], generation=2)
    del journal.noted[-1]
    assert await a_link(backs, journal, peer) == [["r-1"]]
    journal.rows[1] = replace(journal.rows[1], generation=3)
    peer.over.clear()
    assert await a_link(backs, journal, peer) == [["r-1"]]
    assert (journal.noted[-1].id, journal.noted[-1].state) == (1, "written")


async def test_a_link_that_ended_over_something_else_gives_them_one_more_try():
    """An EMS that hangs up over every outcome is left in peace, so that its records are read; at a later link one outcome finds out for all."""
    journal = Journal([row(number, f"r-{number}") for number in range(3)])
    backs, peer = writer(journal), HangsUp({"r-0", "r-1", "r-2"})
    links = [await a_link(backs, journal, peer) for _ in range(BREAKS)]
    assert [len(tried) for tried in links] == [1] * BREAKS
    assert await a_link(backs, journal, peer) == []
    assert [result.state for result in journal.noted] == ["stuck"] * 3
    journal.noted.clear()
    assert [len(await a_link(backs, journal, peer)) for _ in range(2)] == [1, 0]
    journal.noted.clear()
    peer.over.clear()
    assert sorted(await a_link(backs, journal, peer)) == [["r-0"], ["r-1"], ["r-2"]]


async def test_whoever_sees_the_end_of_a_link_first_makes_no_difference():
    """The reader may see it before the writer does, which is cancelled in the middle of its write then."""

    class Cancelled(Session):
        async def write(self, writes):
            self.writes += 1
            if any(write.request == "r-1" for write in writes):
                asyncio.current_task().cancel()
            await asyncio.sleep(0)
            return await super().write(writes)

    journal = Journal([row(1, "r-1")])
    backs, peer = writer(journal), Cancelled()
    for _ in range(BREAKS + 1):
        peer.tried = []
        await a_link(backs, journal, peer)
    assert (peer.writes, [result.state for result in journal.noted]) == (BREAKS, ["stuck"])


async def test_a_session_that_hangs_is_left(monkeypatch):
    """A write that never ends would hold up every outcome of its adapter for ever, with the link up."""
    monkeypatch.setattr("bridge.field.writeback.CALL_S", 0.05)

    class Hanging(Session):
        async def write(self, writes):
            await asyncio.Event().wait()

    with pytest.raises(LinkError):
        async with asyncio.timeout(5):
            await writer(Journal([row(1, "r-1")])).run(Hanging())


class HandClock:
    """Moves only when it is told to."""

    def __init__(self):
        self.ns = CLOCK.wall_ns()

    def now(self):
        return Stamp(self.ns, self.ns, "boot")

    def wall_ns(self):
        return self.ns

    def mono_ns(self):
        return self.ns


class Hurried:
    """A journal in which nobody waits: the clock moves to whatever is due next. `delays` are the seconds that it moved by."""

    def __init__(self, journal, clock):
        self._journal, self._clock, self.delays = journal, clock, []

    def __getattr__(self, name):
        return getattr(self._journal, name)

    async def due_writebacks(self, site, flows, now_ns, limit):
        due, next_ns = await self._journal.due_writebacks(site, flows, now_ns, limit)
        if due or not next_ns:
            return due, next_ns
        self.delays.append((next_ns - self._clock.ns) / 1e9)
        self._clock.ns = next_ns
        return await self._journal.due_writebacks(site, flows, next_ns, limit)


def asked(clock):
    """A record that the journal has not seen; its EMS will be told "received"."""
    return Candidate(
        site="north", flow="assets", place="EV001", participant="acme", operation=Operation.ASSET_CREATE, trigger=Trigger.MESSAGE,
        request="r-1", key="EV001", content=b"{}", digest=b"1", stamps={"received": clock.now()},
    )  # fmt: skip


async def test_an_ems_that_refuses_is_asked_ten_times_and_then_a_person_is(tmp_path):
    """DOMAIN 5: RETRY after 1, 2, 4 .. 30 s, STUCK with its alarm at the tenth; a new session makes it PENDING again, and it is written."""
    clock = HandClock()
    journal = await open_journal(tmp_path / "journal.db", clock=clock, role="all", new_id=submission_ids(clock))
    try:
        field = await journal.acquire("field:north")
        await journal.accept(field, [asked(clock)])
        hurried = Hurried(journal, clock)
        backs = writer(hurried, clock=clock, fence=field)
        refusing = Session(refuses=["r-1"])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(backs.run(refusing))
            await until_async(lambda: codes(journal), ["STUCK"], task)
            task.cancel()
        assert hurried.delays == [1, 2, 4, 8, 16, 30, 30, 30, 30]
        assert refusing.writes == 10
        due, next_ns = await journal.due_writebacks("north", ["assets"], clock.ns + 10**15, 10)
        assert (list(due), next_ns) == ([], 0)  # stuck: no time that passes makes it due
        willing = Session()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(backs.run(willing))
            await until_async(lambda: codes(journal), [], task)
            task.cancel()
        assert willing.writes == 1
        steps = [event.kind for event in await journal.events((await journal.submissions())[0].id)]
        steps = [kind.removeprefix("write_back.") for kind in steps if kind.startswith("write_back.")]
        assert steps == ["retry"] * 9 + ["stuck", "written"]
    finally:
        await journal.close()


async def codes(journal):
    return [alarm.code for alarm in await journal.alarms()]


async def until_async(ask, wanted, task):
    async with asyncio.timeout(10):
        while await ask() != wanted:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.005)


def test_no_retry_is_planned_further_ahead_than_the_journal_believes():
    """Beyond that the journal takes the clock for one that was set back."""
    assert max(RETRY_DELAYS_S) * 1_000_000_000 < LONGEST_RETRY_NS
