"""What the EMS is told, and what becomes of telling it."""

import pytest

from bridge.journal.port import WriteBackResult
from bridge.model import EmsState, HostReason, ItemState, Refusal

S = 1_000_000_000


def result(row, state, **more):
    return WriteBackResult(id=row.id, generation=row.generation, state=state, **more)


async def test_newer_outcome_replaces_the_older_one(kit):
    """One row per place: its generation rises, and only the newest outcome is due."""
    await kit.accept(kit.asset("A"))
    (received,) = await kit.told()
    due = await kit.sent()
    (sent,) = await kit.told()
    await kit.settle(due)
    (final,) = await kit.told()
    assert received.id == sent.id == final.id
    assert received.generation < sent.generation < final.generation
    assert final.outcome.state is EmsState.REGISTERED


async def test_result_of_an_older_generation_changes_nothing(kit):
    """What was written meanwhile is not what the EMS has to be told now."""
    await kit.accept(kit.asset("A"))
    (old,) = await kit.told()
    due = await kit.sent()
    await kit.journal.wrote_back(kit.field, [result(old, "read_back_ok")])
    (row,) = await kit.told()
    assert row.generation > old.generation
    kinds = [event.kind for event in await kit.journal.events(due.submission)]
    assert "write_back.read_back_ok.superseded" in kinds


@pytest.mark.parametrize("word", ["pending", "retry"])
async def test_a_request_asked_again_while_its_outcome_is_on_its_way_is_answered_too(kit, word):
    """The answer under way goes to where the first asked; the second asked elsewhere, so the end of the first's does not count for it."""
    await kit.accept(kit.asked("A", "7", reply="to x"))
    await kit.settle(await kit.sent())
    (row,) = await kit.told()
    if word == "retry":
        await kit.journal.wrote_back(kit.field, [result(row, "retry", error="busy", next_ns=kit.clock.ns)])
        (row,) = await kit.told()
    await kit.accept(kit.asked("A", "7", reply="to y"))
    await kit.journal.wrote_back(kit.field, [result(row, "read_back_ok", stamp=kit.clock.now())])
    (again,) = await kit.told()
    assert (row.reply, again.reply) == ("to x", "to y")
    assert (again.outcome, again.attempts) == (row.outcome, row.attempts)
    await kit.write_all()
    assert await kit.told() == []


async def test_written_is_not_due_again(kit):
    """Both words of success end it."""
    await kit.accept(kit.asset("A"), kit.asset("B"))
    a, b = await kit.told()
    await kit.journal.wrote_back(kit.field, [result(a, "written"), result(b, "read_back_ok")])
    assert await kit.told() == []
    items = await kit.journal.submission_items((await kit.due()).submission)
    assert [item.written_back for item in items] == ["written", "read_back_ok"]


async def test_retry_is_due_at_its_time(kit):
    """The next time is told, and the tries are counted."""
    await kit.accept(kit.asset("A"))
    (row,) = await kit.told()
    later = kit.clock.ns + 4 * S
    await kit.journal.wrote_back(kit.field, [result(row, "retry", error="busy", next_ns=later)])
    due, next_ns = await kit.journal.due_writebacks(kit.site, ("assets",), kit.clock.wall_ns(), 10)
    assert (list(due), next_ns) == ([], later)
    kit.clock.advance(5)
    (again,) = await kit.told()
    assert (again.attempts, again.generation) == (1, row.generation)


async def test_stuck_calls_a_person_and_waits_for_the_link(kit):
    """Nothing is tried any more until the link comes back; success clears the alarm."""
    await kit.accept(kit.asset("A"))
    (row,) = await kit.told()
    await kit.journal.wrote_back(kit.field, [result(row, "stuck", error="denied")])
    assert await kit.codes() == ["STUCK"]
    assert await kit.told() == []
    await kit.journal.retry_stuck(kit.field, kit.site, ["assets"])
    (again,) = await kit.told()
    assert again.attempts == 0
    await kit.write_all()
    assert await kit.codes() == []


async def test_link_of_other_flows_does_not_release(kit):
    """Only the flows whose link came back are tried again; a retry of theirs is due at once."""
    await kit.accept(kit.asset("A"), kit.asset("B", flow="others"))
    far = kit.clock.ns + 30 * S
    for row in await kit.told(flows=("assets", "others")):
        await kit.journal.wrote_back(kit.field, [result(row, "retry", next_ns=far)])
    await kit.journal.retry_stuck(kit.field, kit.site, ["assets"])
    assert [row.flow for row in await kit.told(flows=("assets", "others"))] == ["assets"]


async def test_moved_calls_a_person(kit):
    """Nothing was written; the alarm names the place, and the same record there is told again."""
    await kit.registered("A")
    (row,) = await kit.told()
    await kit.journal.wrote_back(kit.field, [result(row, "moved", error="B lives there")])
    (alarm,) = await kit.journal.alarms()
    assert (alarm.code, alarm.site, alarm.subject) == ("MOVED", "north", "assets/place-A")
    assert alarm.runbook
    assert await kit.told() == []
    await kit.accept(kit.asset("A"))
    assert [row.outcome.state for row in await kit.told()] == [EmsState.REGISTERED]


async def test_due_ones_are_the_oldest_of_the_named_flows(kit):
    """Order, limit, site and flows."""
    await kit.accept(kit.asset("A"))
    await kit.accept(kit.asset("B"))
    await kit.accept(kit.asset("C", flow="others"))
    assert [row.key for row in await kit.told(limit=1)] == ["A"]
    assert [row.key for row in await kit.told(flows=("assets",))] == ["A", "B"]
    due, _ = await kit.journal.due_writebacks("south", ("assets",), kit.clock.wall_ns(), 10)
    assert list(due) == []


async def test_outcome_of_an_older_item_does_not_cover_a_newer_one(kit):
    """A slot was given to another asset: the old asset's outcome is not written over the new one's."""
    await kit.accept(kit.asset("A", place="slot-1"))
    due = await kit.sent()
    await kit.accept(kit.asset("B", place="slot-1"))
    await kit.settle(due)
    (row,) = await kit.told()
    assert (row.key, row.outcome.state) == ("B", EmsState.RECEIVED)


async def test_outcome_of_an_older_item_does_not_cover_a_refusal(kit):
    """A newer record of the place was refused by the host: that is what its request hears."""
    await kit.accept(kit.asked("A", "1"))
    due = await kit.sent()
    refusal = Refusal(reason=HostReason.RULE, text="no")
    await kit.accept(kit.asked("A", "2", content="", refusal=refusal))
    await kit.settle(due)
    (row,) = await kit.told()
    assert (row.outcome.request, row.outcome.state) == ("2", EmsState.REFUSED_BY_HOST)


async def test_outcome_goes_to_the_place_of_the_newest_request(kit):
    """The asset was asked for at a second place while it was on its way: both places hear the end."""
    await kit.accept(kit.asset("A", place="one"))
    due = await kit.sent()
    await kit.accept(kit.asset("A", place="two"))
    await kit.settle(due, ItemState.REFUSED)
    assert {row.place: row.outcome.state for row in await kit.told()} == {
        "one": EmsState.REFUSED,
        "two": EmsState.REFUSED,
    }


async def test_outcome_carries_its_request_and_time(kit):
    """The EMS can tell which request is answered, and when."""
    await kit.accept(kit.asked("A", "41"))
    before = kit.clock.ns
    await kit.settle(await kit.sent())
    (row,) = await kit.told()
    assert row.outcome.request == "41"
    assert before < row.outcome.updated_ns <= kit.clock.ns


async def test_a_retry_does_not_wait_for_a_clock_that_was_set_back(kit):
    """It was planned for a moment that the clock will show again in ten minutes only: it is due, for no retry waits so long."""
    await kit.accept(kit.asset("A"))
    (row,) = await kit.told()
    soon = kit.clock.wall_ns() + 30 * S
    await kit.journal.wrote_back(kit.field, [result(row, "retry", error="busy", next_ns=soon)])
    assert await kit.told() == []
    kit.clock.advance(-600)
    due, next_ns = await kit.journal.due_writebacks(kit.site, ("assets",), kit.clock.wall_ns(), 10)
    assert ([row.place for row in due], next_ns) == (["place-A"], 0)


async def test_write_backs_survive_a_restart(kit):
    """What was not told yet is told after the restart."""
    await kit.registered("A")
    await kit.restart()
    assert [row.outcome.state for row in await kit.told()] == [EmsState.REGISTERED]


async def test_outcomes_wake_the_site(kit):
    """The writer of the site waits on an event."""
    woken = kit.journal.woken("field:north")
    await kit.accept(kit.asset("A"))
    assert woken.is_set()
    other = kit.journal.woken("field:south")
    await kit.settle(await kit.sent())
    assert not other.is_set()
