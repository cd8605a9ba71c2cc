"""Leases and fences, several processes on one journal, crashes, reopening."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from forked import Forked, forked

from bridge.clock import SystemClock
from bridge.errors import Fenced, IllegalMove, JournalUnusable, LeaseHeld
from bridge.ids import first_submission_id
from bridge.journal import views
from bridge.journal.port import Fence
from bridge.model import HostReason, Kind, Refusal
from bridge.submission import SubmissionState

CHILD = Path(__file__).with_name("child.py")
LIMIT_S = 20


@asynccontextmanager
async def child(kit, *words: str) -> AsyncIterator[Forked]:
    """Another process on the kit's journal; it is killed at the end if it still lives."""
    code = f"import runpy; runpy.run_path({str(CHILD)!r}, run_name='__main__')"
    asked = (kit.engine.name, kit.engine.address, *words)
    process = await forked(*asked, environment=os.environ, code=code, stdin=PIPE, stderr=DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        process.stdin.close()
        await process.communicate()


async def line(process) -> list[str]:
    async with asyncio.timeout(LIMIT_S):
        return (await process.stdout.readline()).decode().split()


def without_holes(events) -> bool:
    """Whether each writer's numbers in each epoch run from 1 without a hole."""
    writers: dict[tuple[str, int], list[int]] = {}
    for event in events:
        writers.setdefault((event.writer, event.epoch), []).append(event.number)
    return all(sorted(numbers) == list(range(1, len(numbers) + 1)) for numbers in writers.values())


# -------------------------------------------------------------------------------------------------------------- fences


@pytest.mark.parametrize(
    "work",
    [
        lambda kit, due: kit.journal.accept(kit.field, [kit.asset("X")]),
        lambda kit, due: kit.journal.wrote_back(kit.field, []),
        lambda kit, due: kit.journal.retry_stuck(kit.field, kit.site, ["assets"]),
        lambda kit, due: kit.journal.renew([kit.market]),
        lambda kit, due: kit.journal.recover(kit.market),
        lambda kit, due: kit.journal.sending(kit.market, due.submission, kit.call(), 1),
        lambda kit, due: kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer()),
        lambda kit, due: kit.settle(due),
        lambda kit, due: kit.journal.refuse_waiting(
            kit.market, due.submission, SubmissionState.EXPIRED, Refusal(reason=HostReason.EXPIRED, text="late")
        ),
        lambda kit, due: kit.journal.park_return(kit.market, kit.returned()),
        lambda kit, due: kit.journal.close_return(kit.market, 1, "settled"),
    ],
)
async def test_work_under_an_older_epoch_is_refused(kit, work):
    """Whoever lost the lease changes nothing any more."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    before = await kit.journal.events(due.submission)
    await kit.journal.acquire(kit.field.lease)
    await kit.journal.acquire(kit.market.lease)
    with pytest.raises(Fenced):
        await work(kit, due)
    assert await kit.journal.events(due.submission) == before
    assert await kit.journal.unsettled_returns("acme") == []


async def test_epoch_rises_with_each_owner(kit):
    """Also over a restart."""
    first = kit.field.epoch
    await kit.restart()
    assert kit.field.epoch > first
    await kit.journal.renew([kit.field, kit.market])


async def test_released_lease_is_no_fence(kit):
    """After an orderly stop the work is over, and another may begin at once."""
    await kit.journal.release([kit.field])
    with pytest.raises(Fenced):
        await kit.accept(kit.asset("A"))
    other = await kit.engine.open("other", checkpoint=False)
    assert (await other.acquire(kit.field.lease)).epoch > kit.field.epoch


async def test_unknown_lease_is_no_fence(kit):
    """A fence that nobody took does not hold."""
    with pytest.raises(Fenced):
        await kit.journal.accept(Fence("field:nowhere", 1), [kit.asset("A")])


async def test_second_owner_in_another_process_is_refused(kit):
    """A live owner keeps its lease; others are free."""
    async with child(kit, "hold", "field:south") as process:
        assert (await line(process))[0] == "held"
        with pytest.raises(LeaseHeld) as refused:
            await kit.journal.acquire("field:south")
        assert refused.value.hint
        await kit.journal.acquire("field:east")


async def test_second_owner_in_this_process_is_refused(kit):
    """Two journals in one process are two owners."""
    other = await kit.engine.open("other", checkpoint=False)
    with pytest.raises(LeaseHeld):
        await other.acquire(kit.market.lease)


async def test_killed_owner_does_not_block(kit):
    """The lease of a dead process is free (on PostgreSQL when its time is over), with a higher epoch."""
    async with child(kit, "hold", "field:south") as process:
        epoch = int((await line(process))[1])
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await kit.engine.lease_runs_out("field:south")
        assert (await kit.journal.acquire("field:south")).epoch > epoch


# --------------------------------------------------------------------------------------------------- several processes


async def test_two_processes_write_at_once(kit):
    """Two field processes on one journal: everything of both is there, and each one's numbers run without holes."""
    async with child(kit, "write", "south", "100") as process:
        assert (await line(process))[0] == "start"
        for number in range(100):
            await kit.accept(kit.asset(f"north-{number}"))
        while await line(process):
            pass
    for key in ("north-0", "north-99", "south-0", "south-99"):
        assert (await kit.journal.member("acme", Kind.ASSET, key)).state is not None
    views = await kit.journal.submissions()
    assert sum(view.items for view in views) == 200
    events = [event for view in views for event in await kit.journal.events(view.id)]
    assert len(events) == 200
    assert without_holes(events)


async def test_commit_wakes_another_process(kit):
    """No polling: the other process hears of the commit."""
    async with child(kit, "wait", "field:north") as process:
        assert await line(process) == ["waiting"]
        await kit.accept(kit.asset("A"))
        assert await line(process) == ["woken"]


async def test_commit_of_another_process_wakes_us(kit):
    """The market side hears of a record taken in by a field process."""
    woken = kit.journal.woken("market:acme")
    async with child(kit, "write", "south", "1"):
        async with asyncio.timeout(LIMIT_S):
            await woken.wait()
    kit.clock.ns = SystemClock.here().wall_ns()  # the child's clock
    assert [item.key for item in (await kit.due()).items] == ["south-0"]


async def test_every_waiter_of_a_topic_has_its_own_event(kit):
    """One waiter's clearing does not take the other's wake-up away."""
    one, two = kit.journal.woken("field:north"), kit.journal.woken("field:north")
    await kit.accept(kit.asset("A"))
    one.clear()
    assert two.is_set()


# ------------------------------------------------------------------------------------------------- crashes, numbers


async def test_killed_writer_loses_nothing_acknowledged(kit):
    """Killed between commits: every acknowledged record is there, numbers run without holes, and the next owner goes on."""
    acknowledged = []
    async with child(kit, "write", "south", "100000") as process:
        while len(acknowledged) < 60:
            words = await line(process)
            if words[0] == "ack":
                acknowledged.append(words[1])
        process.send_signal(signal.SIGKILL)
        rest = (await process.stdout.read()).decode().split("\n")
        acknowledged += [entry.split()[1] for entry in rest[:-1] if entry.startswith("ack")]
    await kit.restart()
    for key in acknowledged:
        assert (await kit.journal.member("acme", Kind.ASSET, key)).state is not None
    await kit.engine.lease_runs_out("field:south")
    await kit.journal.acquire("field:south")
    (view,) = await kit.journal.submissions()
    assert len(acknowledged) <= view.items <= len(acknowledged) + 1
    events = await kit.journal.events(view.id, limit=200_000)
    assert len(events) == view.items
    assert without_holes(events)


async def test_failed_requests_leave_no_holes(kit):
    """A request that fails after it wrote events takes them back, and its neighbours of the same commit stand."""
    await kit.accept(kit.asset("A"), kit.asset("B"))
    due = await kit.sent()
    bad = kit.journal.sending(kit.market, due.submission, kit.call(), 1)
    parks = [kit.journal.park_return(kit.market, kit.returned(f"R{number}")) for number in range(4)]
    good = kit.journal.answered(kit.market, due.submission, SubmissionState.AWAITING_RETURN, kit.answer())
    done = await asyncio.gather(*parks[:2], bad, *parks[2:], good, return_exceptions=True)
    assert [type(entry) for entry in done if isinstance(entry, Exception)] == [IllegalMove]
    subjects = [due.submission, *(f"R{number}" for number in range(4))]
    events = [event for subject in subjects for event in await kit.journal.events(subject)]
    assert len([event for event in events if event.writer == kit.market.lease]) == 7
    assert without_holes(events)


async def test_many_requests_at_once_are_all_answered(kit):
    """Each caller gets its own answer, in whatever commit it went."""
    intakes = await asyncio.gather(*(kit.accept(kit.asset(f"K{number}")) for number in range(300)))
    items = [intake.accepted[0].item for intake in intakes]
    assert len(set(items)) == 300
    assert len((await kit.due()).items) == 300


async def test_journal_goes_on_where_it_stood(kit):
    """After a restart the queue, the outcomes and the alarms are there."""
    await kit.registered("A")
    await kit.accept(kit.asset("B"))
    await kit.accept(kit.asset("A", "other"))
    await kit.restart()
    assert [item.key for item in (await kit.due()).items] == ["B"]
    assert await kit.codes() == ["DRIFT"]
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).asset_id == "asset-A"


async def test_close_finishes_what_was_handed_in_and_can_be_called_twice(kit):
    """Nothing handed in is lost; after closing every call is refused."""
    accepting = asyncio.gather(*(kit.accept(kit.asset(f"K{number}")) for number in range(20)))
    await asyncio.sleep(0)
    await kit.journal.close()
    assert len(await accepting) == 20
    await kit.journal.close()
    with pytest.raises(JournalUnusable):
        await kit.accept(kit.asset("A"))
    with pytest.raises(JournalUnusable):
        await kit.due()
    await kit.restart()
    assert len((await kit.due()).items) == 20


async def test_cancelled_caller_does_not_disturb_the_others(kit):
    """A caller that went away takes its answer with it; its neighbours get theirs."""
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(kit.accept(kit.asset("A")))
        stays = group.create_task(kit.accept(kit.asset("B")))
        await asyncio.sleep(0)
        gone.cancel()
    assert stays.result().accepted[0].submission


# -------------------------------------------------------------------------------------------------------------- people


async def test_the_list_of_submissions_is_narrowed(kit):
    """By participants, site, state and the time at which each was made; a page begins where the one before ended, whatever came since."""
    hour_ns, begin_ns = 3600 * 10**9, 1_795_000_000 * 10**9
    made = [f"{first_submission_id(begin_ns + number * hour_ns)}{number:08x}" for number in range(6)]
    for number, submission in enumerate(made[:5]):
        where = {"site": "north" if number % 2 else "south"}
        await kit.accept(kit.asset(f"K{number}", **where), fast=kit.fast(submission, f"K{number}"))

    async def listed(**asked):
        return [made.index(view.id) for view in await kit.journal.submissions(**asked)]

    assert await listed() == [4, 3, 2, 1, 0]
    assert await listed(site="north") == [3, 1]
    assert await listed(participants=[kit.participant, "other"], state=SubmissionState.SENDING) == [4, 3, 2, 1, 0]
    assert await listed(participants=["other"]) == await listed(participants=[]) == await listed(site="east") == []
    assert await listed(since_ns=begin_ns + hour_ns, until_ns=begin_ns + 3 * hour_ns) == [3, 2, 1]
    assert await listed(since_ns=-1, until_ns=begin_ns) == [0]
    assert await listed(since_ns=2**63 - 1) == await listed(until_ns=-1) == await listed(before="s-unknown") == []
    assert await listed(limit=2) == [4, 3]
    await kit.accept(kit.asset("K5"), fast=kit.fast(made[5], "K5"))
    assert await listed(limit=2, before=made[3]) == [2, 1]
    assert await listed(limit=2, before=made[1]) == [0]
    assert await listed(site="north", before=made[3]) == [1]


async def test_a_long_list_is_looked_through_in_stretches(kit, monkeypatch):
    """Who looks for few among many lets others read meanwhile; what comes and goes between them changes nothing of the rest."""
    monkeypatch.setattr(views, "STRETCH", 3)
    for number in range(10):
        await kit.accept(kit.asset(f"K{number}", site="north" if number in (0, 1, 5) else "south", max_items=1))
    every = [view.id for view in await kit.journal.submissions()]
    assert len(every) == 10
    north = asyncio.create_task(kit.journal.submissions(site="north"))
    await kit.accept(kit.asset("K10", site="north", max_items=1))
    assert [view.id for view in await north][-3:] == [every[4], every[8], every[9]]
    assert [view.id for view in await kit.journal.submissions(site="north", limit=2, before=every[3])] == [
        every[4],
        every[8],
    ]
    assert await kit.journal.submissions(site="north", limit=0) == []


async def test_alarms_are_raised_counted_and_cleared(kit):
    """One row per code and subject while it stands; the newest first."""
    await kit.journal.alarm("CIRCUIT_OPEN", participant="acme", text="503")
    await kit.journal.alarm("CIRCUIT_OPEN", participant="acme", text="503 again")
    await kit.journal.alarm("OTHER", site="north")
    other, circuit = await kit.journal.alarms()
    assert (other.code, circuit.code) == ("OTHER", "CIRCUIT_OPEN")
    assert (circuit.count, circuit.text, circuit.cleared_ns) == (2, "503 again", 0)
    await kit.journal.alarm("CIRCUIT_OPEN", participant="acme", clear=True)
    assert await kit.codes() == ["OTHER"]
    assert len(await kit.journal.alarms(open_only=False)) == 2
    await kit.journal.alarm("CIRCUIT_OPEN", participant="acme")
    assert len(await kit.journal.alarms(open_only=False)) == 3


async def test_the_hosts_own_alarms(kit):
    """Those of no participant and no site, whatever else stands; one of a submission is its site's."""
    for code, where in {
        "CLOCK_OFFSET": {},
        "ANCHOR_PLACE": {"subject": "notary"},
        "STUCK": {"participant": "acme"},
        "LINK_DOWN": {"site": "north"},
    }.items():
        await kit.journal.alarm(code, **where)
    found = await kit.accept(kit.asset("A"))
    await kit.journal.alarm("IN_DOUBT", subject=found.accepted[0].submission)
    assert [view.code for view in await kit.journal.alarms(of_host=True)] == ["ANCHOR_PLACE", "CLOCK_OFFSET"]
    assert [view.code for view in await kit.journal.alarms(of_host=True, limit=1)] == ["ANCHOR_PLACE"]
    await kit.journal.alarm("CLOCK_OFFSET", clear=True)
    assert [view.code for view in await kit.journal.alarms(of_host=True)] == ["ANCHOR_PLACE"]


async def test_clearing_what_does_not_stand_is_nothing(kit):
    """No row appears."""
    await kit.journal.alarm("CIRCUIT_OPEN", participant="acme", clear=True)
    assert await kit.journal.alarms(open_only=False) == []


async def test_submissions_are_listed_newest_first(kit):
    """By participant and state, bounded."""
    await kit.registered("A")
    await kit.accept(kit.asset("B"))
    await kit.accept(kit.asset("C", participant="other"))
    assert [view.participant for view in await kit.journal.submissions()] == ["other", "acme", "acme"]
    assert len(await kit.journal.submissions(limit=1)) == 1
    (waiting,) = await kit.journal.submissions(participant="acme", state=SubmissionState.WAITING)
    assert (waiting.items, waiting.site, waiting.flow) == (1, "north", "assets")


async def test_counts_are_gauges(kit):
    """What waits, by state, and the size."""
    await kit.registered("A")
    await kit.accept(kit.asset("B"), kit.asset("C"))
    await kit.journal.park_return(kit.market, kit.returned())
    counts = await kit.journal.counts()
    assert counts["submissions.CONFIRMED"] == counts["submissions.WAITING"] == 1
    assert (counts["items.waiting"], counts["returns.parked"], counts["writebacks.pending"]) == (2, 1, 3)
    assert counts["bytes"] > 0
