"""Alarms as rows: raised once, counted, acknowledged, cleared; which site they belong to; who is woken."""

import asyncio

import pytest

from bridge.errors import NotPossible
from bridge.journal.people import Decision, Scope
from bridge.submission import SubmissionState


async def test_alarm_stands_once_and_counts(kit):
    """The second raise of the same alarm is no second row; it counts, and its newest text and time stand."""
    await kit.journal.alarm("STATUS_WORD", participant="acme", subject="S1", text="LOST")
    await kit.journal.alarm("STATUS_WORD", participant="acme", subject="S1", text="FOUND")
    await kit.journal.alarm("STATUS_WORD", participant="acme", subject="S2", text="LOST")
    second, first = await kit.journal.alarms()
    assert (first.count, first.text, second.count) == (2, "FOUND", 1)
    assert first.raised_ns < first.last_ns
    assert first.runbook


async def test_acknowledgement_names_who_and_is_an_event(kit):
    """Somebody knows: by name, with time and note; the alarm stands until it is cleared."""
    await kit.journal.alarm("OVERDUE", participant="acme", subject="S1")
    (alarm,) = await kit.journal.alarms()
    assert (alarm.acked_ns, alarm.acked_by, alarm.note) == (0, "", "")
    done = await kit.journal.ack_alarm(alarm.id, "Ada", "called NESO")
    (after,) = await kit.journal.alarms()
    assert after == done
    assert (after.acked_by, after.note) == ("Ada", "called NESO")
    assert after.acked_ns > alarm.raised_ns
    assert after.cleared_ns == 0
    (event,) = await kit.journal.events(f"alarm/{alarm.id}")
    assert event.kind == "alarm.acknowledged"
    assert (event.data["by"], event.data["note"], event.data["code"]) == ("Ada", "called NESO", "OVERDUE")


async def test_second_acknowledgement_replaces_the_first(kit):
    """Another person takes over; both are events."""
    await kit.journal.alarm("OVERDUE", participant="acme", subject="S1")
    (alarm,) = await kit.journal.alarms()
    await kit.journal.ack_alarm(alarm.id, "Ada", "note of Ada")
    after = await kit.journal.ack_alarm(alarm.id, "Bob")
    assert (after.acked_by, after.note) == ("Bob", "")
    assert [event.data["by"] for event in await kit.journal.events(f"alarm/{alarm.id}")] == ["Ada", "Bob"]


async def test_raised_again_while_it_stands_stays_acknowledged(kit):
    """The same trouble again is no news to who knows of it."""
    await kit.journal.alarm("STUCK", site="north", subject="a")
    (alarm,) = await kit.journal.alarms()
    await kit.journal.ack_alarm(alarm.id, "Ada")
    await kit.journal.alarm("STUCK", site="north", subject="a")
    (after,) = await kit.journal.alarms()
    assert (after.id, after.count, after.acked_by) == (alarm.id, 2, "Ada")


async def test_raised_again_after_it_was_cleared_is_a_new_row(kit):
    """Nobody has acknowledged the new one; the old one keeps what was said of it."""
    await kit.journal.alarm("STUCK", site="north", subject="a")
    (alarm,) = await kit.journal.alarms()
    await kit.journal.ack_alarm(alarm.id, "Ada", "cable")
    await kit.journal.alarm("STUCK", site="north", subject="a", clear=True)
    assert await kit.journal.alarms() == []
    await kit.journal.alarm("STUCK", site="north", subject="a")
    (standing,) = await kit.journal.alarms()
    assert standing.id != alarm.id
    assert (standing.acked_ns, standing.acked_by, standing.note, standing.count) == (0, "", "", 1)
    new, old = await kit.journal.alarms(open_only=False)
    assert (new.id, old.id) == (standing.id, alarm.id)
    assert (old.acked_by, old.note) == ("Ada", "cable")
    assert old.cleared_ns > old.acked_ns


async def test_what_cannot_be_acknowledged_says_so(kit):
    """An alarm that is not there, and one that was cleared; neither leaves an event."""
    with pytest.raises(NotPossible) as refused:
        await kit.journal.ack_alarm(7, "Ada")
    assert refused.value.hint
    await kit.journal.alarm("STUCK", site="north", subject="a")
    (alarm,) = await kit.journal.alarms()
    await kit.journal.alarm("STUCK", site="north", subject="a", clear=True)
    with pytest.raises(NotPossible, match="cleared"):
        await kit.journal.ack_alarm(alarm.id, "Ada")
    assert await kit.journal.events(f"alarm/{alarm.id}") == []


async def test_filters(kit):
    """By participant, by site, newest first, so many."""
    await kit.journal.alarm("STUCK", participant="acme", site="north", subject="a")
    await kit.journal.alarm("STUCK", participant="acme", site="south", subject="a")
    await kit.journal.alarm("STUCK", participant="bolt", site="north", subject="a")
    found = [(row.participant, row.site) for row in await kit.journal.alarms(participant="acme")]
    assert found == [("acme", "south"), ("acme", "north")]
    assert len(await kit.journal.alarms(site="north")) == 2
    assert len(await kit.journal.alarms(participant="bolt", site="south")) == 0
    assert [row.participant for row in await kit.journal.alarms(limit=1)] == ["bolt"]


async def test_alarm_of_a_submission_is_its_sites(kit):
    """An alarm that names only a submission shows the submission's site, in the list, in the counts and for the site's word."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(), cause="lost")
    (alarm,) = await kit.journal.alarms(site=kit.site)
    assert (alarm.code, alarm.site, alarm.subject) == ("IN_DOUBT", kit.site, due.submission)
    (count,) = await kit.journal.alarm_counts()
    assert tuple(count) == ("IN_DOUBT", "acme", kit.site, "", False, 1)
    assert await kit.journal.alarm_codes(kit.site, ["acme"]) == ["IN_DOUBT"]
    assert await kit.journal.alarm_codes("south", ["acme"]) == []


async def test_counts_tell_open_from_acknowledged(kit):
    """Cleared ones are not counted."""
    for subject in ("a", "b", "c", "d"):
        await kit.journal.alarm("STUCK", participant="acme", site="north", subject=subject)
    await kit.journal.alarm("STUCK", participant="acme", site="north", subject="d", clear=True)
    await kit.journal.ack_alarm((await kit.journal.alarms())[0].id, "Ada")
    assert [tuple(row) for row in await kit.journal.alarm_counts()] == [
        ("STUCK", "acme", "north", "", False, 2),
        ("STUCK", "acme", "north", "", True, 1),
    ]


async def test_counts_tell_holds_apart(kit):
    """That of an environment is not the whole host's."""
    why = Decision(by="Ada", reason="x")
    for scope, name in (
        (Scope.HOST, ""),
        (Scope.ENVIRONMENT, "LIVE"),
        (Scope.ENVIRONMENT, "TEST"),
        (Scope.SITE, "north"),
    ):
        await kit.journal.hold(scope, name, why)
    assert [(row.site, row.environment, row.number) for row in await kit.journal.alarm_counts()] == [
        ("", "", 1),
        ("", "LIVE", 1),
        ("", "TEST", 1),
        ("north", "", 1),
    ]


async def test_codes_of_a_site(kit):
    """Its own, those of its participants as a whole, and the host's; not those of other sites or participants."""
    for code, where in (
        ("STUCK", {"participant": "acme", "site": "north"}),
        ("MOVED", {"participant": "acme", "site": "south"}),
        ("CIRCUIT_OPEN", {"participant": "acme"}),
        ("ACCOUNT_STOPPED", {"participant": "bolt"}),
        ("JOURNAL_FULL", {}),
    ):
        await kit.journal.alarm(code, **where)
    assert await kit.journal.alarm_codes("north", ["acme"]) == ["CIRCUIT_OPEN", "JOURNAL_FULL", "STUCK"]
    assert await kit.journal.alarm_codes("south", ["acme", "bolt"]) == [
        "ACCOUNT_STOPPED",
        "CIRCUIT_OPEN",
        "JOURNAL_FULL",
        "MOVED",
    ]


async def test_a_hold_of_an_environment_is_told_to_its_sites(kit):
    """And to no site of another environment, whose calls leave as before."""
    await kit.journal.introduce({"acme": "TEST", "bolt": "LIVE"})
    await kit.journal.hold(Scope.ENVIRONMENT, "LIVE", Decision(by="Ada", reason="x"))
    assert await kit.journal.alarm_codes("north", ["acme"]) == []
    assert await kit.journal.alarm_codes("south", ["bolt"]) == ["HOLD"]
    assert await kit.journal.alarm_codes("west", ["acme", "bolt"]) == ["HOLD"]
    await kit.journal.hold(Scope.HOST, "", Decision(by="Ada", reason="x"))
    assert await kit.journal.alarm_codes("north", ["acme"]) == ["HOLD"]


async def test_waiters_hear_of_changes_alone(kit):
    """A new alarm and a cleared one wake who shows them, in another process too; counting again does not."""
    other = await kit.engine.open("other", checkpoint=False)
    woken = [kit.journal.woken("alarms"), other.woken("alarms")]

    async def heard() -> None:
        async with asyncio.timeout(10):
            for event in woken:
                await event.wait()
                event.clear()

    await kit.journal.alarm("STUCK", site="north", subject="a")
    await heard()
    await kit.journal.alarm("STUCK", site="north", subject="a")
    await kit.journal.alarm("MOVED", site="north", subject="a", clear=True)
    assert not woken[0].is_set()
    await other.alarm("STUCK", site="north", subject="a", clear=True)
    await heard()
