"""How submissions end, and what units wait for."""

import pytest

from bridge.errors import IllegalMove, Replaced
from bridge.journal.port import DueCall, NoneDue, Overtaken
from bridge.model import EmsState, HostReason, ItemState, Kind, Refusal
from bridge.submission import SubmissionState

S = 1_000_000_000


async def test_outcomes_of_a_mixed_batch(kit):
    """Each item has its own outcome, on disk and at its place."""
    await kit.accept(kit.asset("A"), kit.asset("B"), kit.asset("C"))
    due = await kit.sent("T-1")
    verdicts = {"A": ItemState.REGISTERED, "B": ItemState.REFUSED, "C": ItemState.UNKNOWN}
    await kit.settle(due, lambda key: verdicts[key])
    assert await kit.state(due.submission) is SubmissionState.PARTIAL
    items = await kit.journal.submission_items(due.submission)
    assert {item.key: item.state for item in items} == verdicts
    told = {row.key: row.outcome for row in await kit.told()}
    assert (told["A"].state, told["A"].transaction_id, told["A"].asset_id) == (EmsState.REGISTERED, "T-1", "asset-A")
    assert told["B"].state is EmsState.REFUSED
    assert [(note.code, note.text, note.field) for note in told["B"].errors] == [("E7", "no such meter", "/mpan")]
    assert told["C"].state is EmsState.UNKNOWN


async def test_items_without_outcome_are_unknown(kit):
    """A terminal move never leaves an item open."""
    await kit.accept(kit.asset("A"), kit.asset("B"))
    due = await kit.sent()
    only = [kit.result(due.items[0].id, "A", ItemState.REGISTERED)]
    await kit.journal.settle(kit.market, due.submission, SubmissionState.PARTIAL, only, cause="status")
    items = await kit.journal.submission_items(due.submission)
    assert [item.state for item in items] == [ItemState.REGISTERED, ItemState.UNKNOWN]


async def test_settling_is_seen_by_people(kit):
    """The view counts the outcomes and keeps cause and stamps."""
    await kit.accept(kit.asset("A"), kit.asset("B"))
    due = await kit.sent("T-1")
    await kit.settle(
        due, lambda key: ItemState.REGISTERED if key == "A" else ItemState.REFUSED, cause="a signed return"
    )
    (view,) = await kit.journal.submissions()
    assert (view.state, view.transaction_id, view.items) == (SubmissionState.PARTIAL, "T-1", 2)
    assert dict(view.outcomes) == {"registered": 1, "refused": 1}
    assert (view.reason, view.attempts) == ("a signed return", 1)
    assert {"received", "signed", "journalled", "settled"} <= set(view.stamps)


async def test_events_tell_the_whole_way(kit):
    """Every move is an event with its writer, time and cause."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent("T-1")
    await kit.settle(due)
    await kit.write_all()
    events = await kit.journal.events(due.submission)
    assert [event.kind for event in events] == [
        "WAITING",
        "SENDING",
        "AWAITING_RETURN",
        "CONFIRMED",
        "write_back.read_back_ok",
    ]
    assert [event.writer for event in events] == [
        "field:north",
        "market:acme",
        "market:acme",
        "market:acme",
        "field:north",
    ]
    assert [event.at_ns for event in events] == sorted(event.at_ns for event in events)
    assert events[3].data["cause"] == "return"
    assert "written_back" in (await kit.journal.submissions())[0].stamps


# ---------------------------------------------------------------------------------------------------------- after the end


async def test_the_first_end_is_told_from_those_after_it(kit):
    """A return and a status answer that cross each other: whoever settles learns whether it was the one."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    results = [kit.result(due.items[0].id, "A", ItemState.REGISTERED)]
    moved = [
        await kit.journal.settle(kit.market, due.submission, SubmissionState.CONFIRMED, results, cause=cause)
        for cause in ("return", "status")
    ]
    assert moved == [True, False]


async def test_asset_ids_enrich_an_ended_submission(kit):
    """A late return that names asset ids adds them, and the EMS hears them."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    results = [kit.result(due.items[0].id, "A", ItemState.REGISTERED)]
    bare = [type(results[0])(item=results[0].item, state=ItemState.REGISTERED)]
    await kit.journal.settle(kit.market, due.submission, SubmissionState.CONFIRMED, bare, cause="status")
    await kit.write_all()
    await kit.journal.settle(kit.market, due.submission, SubmissionState.CONFIRMED, results, cause="return")
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).asset_id == "asset-A"
    assert [row.outcome.asset_id for row in await kit.told()] == ["asset-A"]
    assert await kit.codes() == []


async def test_same_outcome_again_changes_nothing(kit):
    """A poll after the return is only a note."""
    due = await kit.registered("A")
    await kit.write_all()
    await kit.settle(due, cause="status")
    assert await kit.told() == []
    assert await kit.codes() == []


async def test_contradiction_after_the_end_is_a_conflict(kit):
    """State and outcomes are kept, a person is called, and the statement is an event."""
    due = await kit.registered("A", "B")
    await kit.write_all()
    await kit.settle(due, ItemState.REFUSED, cause="second return")
    assert await kit.codes() == ["CONFLICT"]
    assert await kit.state(due.submission) is SubmissionState.CONFIRMED
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is ItemState.REGISTERED
    assert await kit.told() == []
    events = await kit.journal.events(due.submission)
    assert "conflict" in [event.kind for event in events]


@pytest.mark.parametrize("state", [SubmissionState.OVERDUE, SubmissionState.UNRESOLVED, SubmissionState.SET_ASIDE])
async def test_the_hosts_own_silence_contradicts_nobody(kit, state):
    """A return settles a call in the very moment in which the host gives it up: no event, no alarm, and nothing moves."""
    due = await kit.registered("A")
    before = await kit.journal.events(due.submission)
    results = [kit.result(due.items[0].id, "", ItemState.UNKNOWN)] if state is SubmissionState.UNRESOLVED else []
    assert not await kit.journal.settle(kit.market, due.submission, state, results, cause="nobody told it")
    assert await kit.codes() == []
    assert await kit.state(due.submission) is SubmissionState.CONFIRMED
    assert await kit.journal.events(due.submission) == before


async def test_other_asset_id_after_the_end_is_a_conflict(kit):
    """Two ids for one asset contradict each other; the first stands."""
    due = await kit.registered("A")
    other = kit.result(due.items[0].id, "other", ItemState.REGISTERED)
    await kit.journal.settle(kit.market, due.submission, SubmissionState.CONFIRMED, [other], cause="return")
    assert await kit.codes() == ["CONFLICT"]
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).asset_id == "asset-A"


async def test_a_return_closed_by_settling_is_not_found_again(kit):
    """`return_id` ties the return to the outcome that it gave."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent("T1")
    parked = await kit.journal.park_return(kit.market, kit.returned())
    await kit.settle(due, return_id=parked.return_id)
    assert await kit.journal.unsettled_returns("acme") == []


async def test_a_return_names_the_transaction_of_a_call_in_doubt(kit):
    """No answer came that could have: the place is told its transaction id all the same, and a status call could ask for it."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    note = kit.answer("", status=0)
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, note)
    await kit.write_all()
    parked = await kit.journal.park_return(kit.market, kit.returned(transaction_id="T7"))
    await kit.settle(due, return_id=parked.return_id)
    assert (await kit.journal.submission(due.submission)).transaction_id == "T7"
    [row], _ = await kit.journal.due_writebacks("north", ["assets"], kit.clock.wall_ns(), 10)
    assert (row.outcome.state, row.outcome.transaction_id) == (EmsState.REGISTERED, "T7")


async def test_an_answer_does_not_refuse_what_was_returned_before_it(kit):
    """A result that is on disk before its call's own answer: the call is not refused over it, and nothing of it waits to be sent again."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    call = kit.call()
    await kit.journal.sending(kit.market, due.submission, call, 1)
    early = await kit.journal.park_return(kit.market, kit.returned(correlation_id=call.correlation_id))
    refusal = kit.answer(status=422)
    items = [due.items[0].id]
    with pytest.raises(Overtaken) as overtaken:
        await kit.journal.settle(
            kit.market, due.submission, SubmissionState.REJECTED, [], cause="422", answer=refusal, again=[items]
        )
    assert [entry.id for entry in overtaken.value.returns] == [early.return_id]
    assert await kit.state(due.submission) is SubmissionState.SENDING
    assert len(await kit.journal.submissions()) == 1
    await kit.journal.close_return(kit.market, early.return_id, "quarantined")
    await kit.journal.settle(
        kit.market, due.submission, SubmissionState.REJECTED, [], cause="422", answer=refusal, again=[items]
    )
    assert await kit.state(due.submission) is SubmissionState.REJECTED


# ------------------------------------------------------------------------------------------------- refused by the host


@pytest.mark.parametrize(
    ("state", "item", "word"),
    [
        (SubmissionState.REJECTED, ItemState.INVALID, EmsState.REFUSED_BY_HOST),
        (SubmissionState.SET_ASIDE, ItemState.INVALID, EmsState.REFUSED_BY_HOST),
        (SubmissionState.EXPIRED, ItemState.EXPIRED, EmsState.EXPIRED),
        (SubmissionState.CANCELLED, ItemState.CANCELLED, EmsState.CANCELLED),
    ],
)
async def test_what_never_went_out_is_refused_by_the_host(kit, state, item, word):
    """Items and places say so with the reason, and the key may be created again."""
    await kit.accept(kit.asset("A", progress=False))
    due = await kit.due()
    refusal = Refusal(reason=HostReason.TOO_LARGE, text="one record exceeds the limit")
    await kit.journal.refuse_waiting(kit.market, due.submission, state, refusal)
    assert await kit.state(due.submission) is state
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is item
    (row,) = await kit.told()
    assert row.outcome.state is word
    assert [(note.code, note.text) for note in row.outcome.errors] == [("9015", refusal.text)]
    assert isinstance(await kit.next(), NoneDue)
    again = await kit.accept(kit.asked("A", "1"))
    assert again.accepted[0].admission.value == "new"


async def test_what_was_certainly_not_processed_may_still_be_refused_by_the_host(kit):
    """A unit whose assets changed while it waited for another attempt, say: it ends, and stands in nobody's way."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    await kit.journal.sending(kit.market, due.submission, kit.call(), 1)
    await kit.journal.answered(kit.market, due.submission, SubmissionState.RETRY_WAIT, kit.answer(status=503))
    refusal = Refusal(reason=HostReason.MEMBER_REFUSED, text="its asset A is refused")
    await kit.journal.refuse_waiting(kit.market, due.submission, SubmissionState.REJECTED, refusal)
    assert await kit.state(due.submission) is SubmissionState.REJECTED
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is ItemState.INVALID
    (row,) = await kit.told()
    assert row.outcome.state is EmsState.REFUSED_BY_HOST
    assert isinstance(await kit.next(), NoneDue)


async def test_what_is_out_cannot_be_refused_by_the_host(kit):
    """Only a submission that never went out ends this way."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    refusal = Refusal(reason=HostReason.EXPIRED, text="too late")
    with pytest.raises(IllegalMove):
        await kit.journal.refuse_waiting(kit.market, due.submission, SubmissionState.EXPIRED, refusal)


# --------------------------------------------------------------------------------------------------------------- units


async def test_unit_waits_for_its_assets(kit):
    """It is passed over while a member is open, and due when all are registered, with their ids and contents."""
    await kit.accept(kit.unit("U", ["A", "B"]))
    assert isinstance(await kit.next(), NoneDue)
    await kit.registered("A")
    assert isinstance(await kit.next(), NoneDue)
    await kit.registered("B")
    due = await kit.due()
    assert [item.key for item in due.items] == ["U"]
    assert [(member.key, member.state, member.asset_id, member.content) for member in due.members] == [
        ("A", ItemState.REGISTERED, "asset-A", b"a"),
        ("B", ItemState.REGISTERED, "asset-B", b"a"),
    ]


async def test_unit_does_not_hold_up_others(kit):
    """Assets behind a blocked unit go out."""
    await kit.accept(kit.unit("U", ["A"]))
    await kit.accept(kit.asset("A"))
    assert [item.key for item in (await kit.due()).items] == ["A"]


async def test_unit_of_registered_assets_is_due_at_once(kit):
    """Nothing to wait for."""
    await kit.registered("A")
    await kit.accept(kit.unit("U", ["A"]))
    assert [item.key for item in (await kit.due()).items] == ["U"]


@pytest.mark.parametrize("verdict", [ItemState.REFUSED, ItemState.UNKNOWN])
async def test_unit_with_a_member_that_can_never_be_is_due(kit, verdict):
    """One refused or unknown member is enough, even while another is open: the caller refuses the unit."""
    await kit.accept(kit.unit("U", ["A", "B"]))
    await kit.accept(kit.asset("A"))
    await kit.settle(await kit.sent(), verdict)
    due = await kit.due()
    assert [(member.key, member.state) for member in due.members] == [("A", verdict), ("B", None)]


@pytest.mark.parametrize("state", [SubmissionState.EXPIRED, SubmissionState.CANCELLED])
async def test_unit_with_an_expired_or_cancelled_member_is_due(kit, state):
    """A member that ended before it went out can never be registered by that item."""
    await kit.accept(kit.unit("U", ["A"]))
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    refusal = Refusal(reason=HostReason.EXPIRED, text="too late")
    await kit.journal.refuse_waiting(kit.market, due.submission, state, refusal)
    assert [item.key for item in (await kit.due()).items] == ["U"]


async def test_unit_waits_again_when_its_refused_member_is_asked_for_again(kit):
    """The member is open once more, so the unit is passed over once more."""
    await kit.accept(kit.asked("A", "1"))
    await kit.settle(await kit.sent(), ItemState.REFUSED)
    await kit.accept(kit.unit("U", ["A"]))
    await kit.accept(kit.asked("A", "2"))
    due = await kit.due()
    assert [item.key for item in due.items] == ["A"]
    await kit.settle(await kit.sent("T2"))
    assert [item.key for item in (await kit.due()).items] == ["U"]


async def test_unit_is_due_at_its_deadline(kit):
    """Members in flight, in doubt or never seen hold it only so long; the time is told beforehand."""
    await kit.accept(kit.unit("U", ["never"], deadline_ns=kit.clock.ns + 60 * S))
    due = await kit.next()
    assert isinstance(due, NoneDue)
    assert 0 < due.next_ns <= kit.clock.ns + 60 * S
    kit.clock.advance(61)
    late = await kit.due()
    assert [(member.key, member.state) for member in late.members] == [("never", None)]


async def test_unit_is_alone_in_its_call(kit):
    """One unit, one submission."""
    intake = await kit.accept(kit.unit("U", []), kit.unit("V", []))
    assert intake.accepted[0].submission != intake.accepted[1].submission
    assert isinstance(await kit.next(), DueCall)


async def test_replaced_unit_looks_at_its_new_members(kit):
    """Newer content brings its own members."""
    await kit.registered("A")
    await kit.accept(kit.unit("U", ["B"]))
    assert isinstance(await kit.next(), NoneDue)
    await kit.accept(kit.unit("U", ["A"], content="other"))
    assert [member.key for member in (await kit.due()).members] == ["A"]


async def test_newer_content_is_not_refused_for_what_the_older_one_was(kit):
    """A unit is replaced after it was given out because of a refused member: the refusal does not hit the newer content."""
    await kit.accept(kit.unit("U", ["A"]))
    await kit.accept(kit.asset("A"))
    await kit.settle(await kit.sent(), ItemState.REFUSED)
    due = await kit.due()
    await kit.accept(kit.unit("U", ["B"], content="newer"))
    refusal = Refusal(reason=HostReason.MEMBER_REFUSED, text="its asset A is refused")
    with pytest.raises(Replaced):
        await kit.journal.refuse_waiting(kit.market, due.submission, SubmissionState.REJECTED, refusal)
    assert await kit.state(due.submission) is SubmissionState.WAITING


async def test_unblocking_wakes_the_market(kit):
    """The outcome of a member is what the market side waits for."""
    await kit.accept(kit.unit("U", ["A"]))
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    woken = kit.journal.woken("market:acme")
    await kit.settle(due)
    assert woken.is_set()


async def test_member_of_an_asset(kit):
    """What is known of one key, from never seen to registered."""
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is None
    await kit.accept(kit.asset("A"))
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is ItemState.WAITING
    due = await kit.send()
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is ItemState.SENDING
    await kit.journal.answered(kit.market, due.submission, SubmissionState.AWAITING_RETURN, kit.answer("T"))
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is ItemState.SENT
    await kit.settle(due)
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is ItemState.REGISTERED
