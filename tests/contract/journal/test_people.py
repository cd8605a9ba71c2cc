"""What people decide: send again, confirm, cancel, retry; and what is held."""

import pytest

from bridge.api import fit_transaction_id
from bridge.errors import IllegalMove, NotPossible, Replaced
from bridge.journal.people import Decision, Scope
from bridge.journal.port import DueCall, ItemOutcome, NoneDue
from bridge.model import EmsState, ItemState, Kind
from bridge.submission import Admission, SubmissionState

BOB = Decision(by="bob", reason="the platform's help desk said so")
ANN = Decision(by="ann", reason="again")


async def in_doubt(kit, *keys):
    await kit.accept(*(kit.asset(key) for key in keys))
    due = await kit.send()
    answer = kit.answer(status=0, detail="reset after the first byte")
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, answer)
    return due


async def unresolved(kit, *keys):
    await kit.accept(*(kit.asset(key) for key in keys))
    due = await kit.sent("T-9")
    await kit.journal.settle(kit.market, due.submission, SubmissionState.OVERDUE, [], cause="late")
    await kit.journal.settle(kit.market, due.submission, SubmissionState.UNRESOLVED, [], cause="nobody knows")
    return due


async def told(kit):
    return {row.key: row.outcome for row in await kit.told()}


async def said(kit, submission, kind):
    return [event.data for event in await kit.journal.events(submission) if event.kind == kind]


# -------------------------------------------------------------------------------------------------------- send again


async def test_in_doubt_is_not_due_by_itself(kit):
    """At most once: what is in doubt waits for a return or a person."""
    due = await in_doubt(kit, "A")
    assert await kit.next() == NoneDue()
    with pytest.raises(IllegalMove):
        await kit.journal.sending(kit.market, due.submission, kit.call(), 1)


async def test_a_person_sends_again_as_a_new_message(kit):
    """It is due with no bytes of before, goes from IN_DOUBT to SENDING, and both calls are kept; the event says who and why."""
    due = await in_doubt(kit, "A")
    assert await kit.journal.resend(due.submission, BOB) == due.submission
    again = await kit.due()
    assert (again.submission, again.state, again.call) == (due.submission, SubmissionState.IN_DOUBT, None)
    await kit.journal.sending(kit.market, again.submission, kit.call(), 1)
    assert await kit.state(due.submission) is SubmissionState.SENDING
    first = await kit.journal.find_submission("acme", message_id="message-1")
    second = await kit.journal.find_submission("acme", message_id="message-2")
    assert first is not None
    assert second is not None
    assert first.id == second.id == due.submission
    assert await said(kit, due.submission, "resend") == [{"by": "bob", "reason": "the platform's help desk said so"}]
    assert "IN_DOUBT" not in await kit.codes()


async def test_a_return_overtakes_the_resend(kit):
    """Until it has left again, a return of the first message settles it, and then it does not leave."""
    due = await in_doubt(kit, "A")
    await kit.journal.resend(due.submission, BOB)
    again = await kit.due()
    await kit.settle(due)
    with pytest.raises(Replaced):
        await kit.journal.sending(kit.market, again.submission, kit.call(), 1)
    assert await kit.next() == NoneDue()
    assert await kit.state(due.submission) is SubmissionState.CONFIRMED


async def test_returns_of_every_message_are_handed_out(kit):
    """A return of the first message that came while the second was under way is found with the second's answer."""
    due = await in_doubt(kit, "A")
    await kit.journal.resend(due.submission, BOB)
    await kit.send()
    await kit.journal.park_return(kit.market, kit.returned(transaction_id="", correlation_id="message-1"))
    parked = await kit.journal.answered(kit.market, due.submission, SubmissionState.AWAITING_RETURN, kit.answer("T-2"))
    assert [message.message.message_id for message in parked] == ["R1"]


async def test_the_same_message_goes_again_where_repeats_are_recognised(kit):
    """The same bytes are due at their time, and so they are after a restart."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    later = kit.clock.wall_ns() + 5_000_000_000
    await kit.journal.answered(
        kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(status=0), retry_ns=later
    )
    assert await kit.next() == NoneDue(next_ns=later)
    kit.clock.advance(6)
    again = await kit.due()
    assert again.call is not None
    assert (again.call.message_id, again.call.body) == ("message-1", b"body-1")
    await kit.journal.sending(kit.market, due.submission, again.call, 1)
    await kit.restart()
    assert await kit.journal.recover(kit.market, repeats=True) == [due.submission]
    third = await kit.due()
    assert (third.state, third.call and third.call.message_id) == (SubmissionState.IN_DOUBT, "message-1")


async def test_recovery_sends_nothing_again_without_that_word(kit):
    """The default: in doubt stays in doubt."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    await kit.restart()
    assert await kit.journal.recover(kit.market) == [due.submission]
    assert await kit.next() == NoneDue()


async def test_unknown_items_are_sent_again_as_a_submission_of_their_own(kit):
    """The old outcome stays as evidence; the new item stands for the reference, and the EMS hears of it alone."""
    due = await unresolved(kit, "A", "B")
    new = await kit.journal.resend(due.submission, BOB, items=[due.items[0].id])
    assert new != due.submission
    assert await kit.state(due.submission) is SubmissionState.UNRESOLVED
    again = await kit.due()
    assert (again.submission, [item.key for item in again.items]) == (new, ["A"])
    assert again.items[0].content == due.items[0].content
    old = {item.key: item.state for item in await kit.journal.submission_items(due.submission)}
    assert old == {"A": ItemState.UNKNOWN, "B": ItemState.UNKNOWN}
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is ItemState.WAITING
    await kit.journal.sending(kit.market, new, kit.call(), 1)
    await kit.journal.answered(kit.market, new, SubmissionState.AWAITING_RETURN, kit.answer("T-10"))
    await kit.settle(again)
    outcomes = await told(kit)
    assert (outcomes["A"].state, outcomes["A"].transaction_id) == (EmsState.REGISTERED, "T-10")
    assert outcomes["B"].state is EmsState.UNKNOWN


async def test_an_item_is_sent_again_once(kit):
    """The old item does not stand for its reference any more."""
    due = await unresolved(kit, "A")
    await kit.journal.resend(due.submission, BOB)
    with pytest.raises(NotPossible):
        await kit.journal.resend(due.submission, ANN)


@pytest.mark.parametrize("state", ["WAITING", "AWAITING_RETURN", "CONFIRMED"])
async def test_what_is_under_way_or_known_is_not_sent_again(kit, state):
    """Only a doubt can be resolved."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    if state != "WAITING":
        await kit.sent()
    if state == "CONFIRMED":
        await kit.settle(due)
    with pytest.raises(NotPossible):
        await kit.journal.resend(due.submission, BOB)
    assert (await kit.state(due.submission)).value == state


async def test_no_such_submission(kit):
    """A wrong id is said so."""
    with pytest.raises(NotPossible, match="no submission id-77"):
        await kit.journal.resend("id-77", BOB)


# ----------------------------------------------------------------------------------------------------------- confirm


async def test_a_person_confirms(kit):
    """Each item gets its outcome, the EMS is told, the alarm is cleared, the event says who and why."""
    due = await in_doubt(kit, "A", "B")
    outcomes = [
        kit.result(due.items[0].id, "A", ItemState.REGISTERED),
        kit.result(due.items[1].id, "B", ItemState.REFUSED),
    ]
    await kit.journal.confirm(due.submission, outcomes, BOB)
    assert await kit.state(due.submission) is SubmissionState.PARTIAL
    words = await told(kit)
    assert (words["A"].state, words["A"].asset_id) == (EmsState.REGISTERED, "asset-A")
    assert words["B"].state is EmsState.REFUSED
    (event,) = await said(kit, due.submission, "PARTIAL")
    assert (event["by"], event["reason"]) == ("bob", "the platform's help desk said so")
    assert await kit.codes() == []


async def test_a_doubt_needs_every_item(kit):
    """Half a word would leave items nameless: nothing is changed, and the missing ones are named."""
    due = await in_doubt(kit, "A", "B")
    with pytest.raises(NotPossible, match="missing: B"):
        await kit.journal.confirm(due.submission, [kit.result(due.items[0].id, "A", ItemState.REGISTERED)], BOB)
    assert await kit.state(due.submission) is SubmissionState.IN_DOUBT


async def test_unknown_items_are_confirmed_and_the_state_stays(kit):
    """UNRESOLVED is for ever; its items are not, and its alarm ends with the last unknown one."""
    due = await unresolved(kit, "A", "B")
    await kit.write_all()
    await kit.journal.confirm(due.submission, [kit.result(due.items[0].id, "A", ItemState.REGISTERED)], BOB)
    assert "UNRESOLVED" in await kit.codes()
    words = await told(kit)
    assert (list(words), words["A"].state, words["A"].asset_id) == (["A"], EmsState.REGISTERED, "asset-A")
    await kit.journal.confirm(due.submission, [kit.result(due.items[1].id, "B", ItemState.REFUSED)], BOB)
    assert await kit.codes() == []
    assert await kit.state(due.submission) is SubmissionState.UNRESOLVED
    assert [entry["by"] for entry in await said(kit, due.submission, "confirmed")] == ["bob", "bob"]


@pytest.mark.parametrize("first", ["sent again", "cancelled"])
async def test_an_item_that_goes_again_leaves_nothing_to_decide(kit, first):
    """The alarm of the unknown items ends with the last one that was decided or sent again, in whichever order."""
    due = await unresolved(kit, "A", "B")
    acts = [kit.journal.resend, kit.journal.cancel]
    for act, item in zip(acts if first == "sent again" else acts[::-1], due.items, strict=True):
        assert "UNRESOLVED" in await kit.codes()
        await act(due.submission, BOB, items=[item.id])
    assert "UNRESOLVED" not in await kit.codes()


async def test_known_items_are_not_moved_by_hand(kit):
    """What SMP said stands."""
    due = await kit.registered("A")
    with pytest.raises(NotPossible, match="A is registered"):
        await kit.journal.confirm(due.submission, [ItemOutcome(item=due.items[0].id, state=ItemState.REFUSED)], BOB)


async def test_a_unit_goes_on_when_its_member_is_confirmed(kit):
    """What waits for an asset hears of a person's word as of SMP's."""
    due = await in_doubt(kit, "A")
    await kit.accept(kit.unit("U", ["A"]))
    assert await kit.next() == NoneDue(next_ns=0)
    await kit.journal.confirm(due.submission, [kit.result(due.items[0].id, "A", ItemState.REGISTERED)], BOB)
    unit = await kit.due()
    assert (unit.items[0].key, unit.members[0].asset_id) == ("U", "asset-A")


# ------------------------------------------------------------------------------------------------------ cancel, retry


@pytest.mark.parametrize("where", ["WAITING", "RETRY_WAIT", "IN_DOUBT", "SET_ASIDE"])
async def test_a_person_cancels(kit, where):
    """It ends, the EMS is told, and the reference may be requested again."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    if where in ("RETRY_WAIT", "IN_DOUBT"):
        due = await kit.send()
        await kit.journal.answered(kit.market, due.submission, SubmissionState(where), kit.answer(status=503))
    if where == "SET_ASIDE":
        await kit.journal.set_aside(kit.market, due.submission, "it cannot be rendered")
    await kit.journal.cancel(due.submission, BOB)
    assert await kit.state(due.submission) is SubmissionState.CANCELLED
    assert (await told(kit))["A"].state is EmsState.CANCELLED
    assert await kit.codes() == []
    assert await kit.next() == NoneDue()
    intake = await kit.accept(kit.asset("A", "other"))
    assert intake.accepted[0].admission is Admission.NEW


async def test_cancelled_between_offer_and_commit(kit):
    """What was given out to be signed does not leave when a person cancelled it meanwhile."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    await kit.journal.cancel(due.submission, BOB)
    with pytest.raises(Replaced):
        await kit.journal.sending(kit.market, due.submission, kit.call(), 1)


async def test_unknown_items_are_cancelled(kit):
    """The item may be requested again; the submission stays what it was."""
    due = await unresolved(kit, "A")
    await kit.journal.cancel(due.submission, BOB)
    assert await kit.state(due.submission) is SubmissionState.UNRESOLVED
    assert (await told(kit))["A"].state is EmsState.CANCELLED
    intake = await kit.accept(kit.asked("A", "2"))
    assert intake.accepted[0].admission is Admission.NEW


async def test_set_aside_stands_in_nobodys_way(kit):
    """The next one is due; the EMS is told that it is held, and an alarm says why. A retry brings it back in front, as a new message."""
    await kit.accept(kit.asset("A", flow="one"), kit.asset("B", flow="two"))
    first = await kit.send()
    await kit.journal.answered(kit.market, first.submission, SubmissionState.WAITING, kit.answer(status=413))
    await kit.journal.set_aside(kit.market, first.submission, "refused with 413")
    assert [item.key for item in (await kit.due()).items] == ["B"]
    assert await kit.codes() == ["SET_ASIDE"]
    due, _ = await kit.journal.due_writebacks(kit.site, ["one"], kit.clock.wall_ns(), 10)
    assert [row.outcome.state for row in due] == [EmsState.HELD]
    (view,) = await kit.journal.submissions(state=SubmissionState.SET_ASIDE)
    assert (view.id, view.reason) == (first.submission, "refused with 413")
    await kit.journal.retry(first.submission, BOB)
    again = await kit.due()
    assert (again.submission, again.call) == (first.submission, None)
    assert await kit.codes() == []


async def test_a_pause_is_cut_short(kit):
    """RETRY_WAIT is due at once, with the same bytes."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    later = kit.clock.wall_ns() + 60_000_000_000
    await kit.journal.answered(
        kit.market, due.submission, SubmissionState.RETRY_WAIT, kit.answer(status=503), retry_ns=later
    )
    assert isinstance(await kit.next(), NoneDue)
    await kit.journal.retry(due.submission, BOB)
    assert (await kit.due()).call is not None


# ------------------------------------------------------------------------------------------------- batches in halves


async def test_halves_of_a_refused_batch_are_sent_again(kit):
    """The refused call keeps its items; copies go out in two calls, in order and in front, and the EMS never hears of the whole's refusal."""
    await kit.accept(*(kit.asset(key) for key in "ABC"))
    await kit.accept(kit.asset("Z", flow="units"))
    due = await kit.send()
    await kit.write_all()
    ids = [item.id for item in due.items]
    refused = [kit.result(item.id, item.key, ItemState.REFUSED) for item in due.items]
    await kit.journal.settle(
        kit.market,
        due.submission,
        SubmissionState.REJECTED,
        refused,
        cause="refused with 422",
        again=[ids[:2], ids[2:]],
    )
    assert await kit.told() == []
    first = await kit.send()
    second = await kit.send()
    assert [[item.key for item in call.items] for call in (first, second)] == [["A", "B"], ["C"]]
    assert [item.state for item in await kit.journal.submission_items(due.submission)] == [ItemState.REFUSED] * 3
    await kit.settle(second, ItemState.REFUSED)
    assert (await told(kit))["C"].state is EmsState.REFUSED


async def test_a_late_word_on_the_whole_is_a_conflict(kit):
    """A return that registers what had been refused whole contradicts: a person hears of it."""
    await kit.accept(kit.asset("A"), kit.asset("B"))
    due = await kit.send()
    refused = [kit.result(item.id, item.key, ItemState.REFUSED) for item in due.items]
    await kit.journal.settle(
        kit.market,
        due.submission,
        SubmissionState.REJECTED,
        refused,
        cause="refused with 422",
        again=[[item.id] for item in due.items],
    )
    await kit.settle(due)
    assert "CONFLICT" in await kit.codes()


# -------------------------------------------------------------------------------------------------------------- holds


SCOPES = [(Scope.PARTICIPANT, "acme"), (Scope.ENVIRONMENT, "TEST"), (Scope.SITE, "north"), (Scope.HOST, "")]


@pytest.mark.parametrize(("scope", "name"), SCOPES)
async def test_nothing_held_becomes_sending(kit, scope, name):
    """Neither by the quiet path nor at its turn nor when it was offered before; release lets it go on."""
    await kit.journal.introduce({"acme": "TEST"})
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    assert await kit.journal.hold(scope, name, BOB)
    with pytest.raises(Replaced):
        await kit.journal.sending(kit.market, due.submission, kit.call(), 1)
    intake = await kit.accept(kit.asset("B", flow="units"), fast=kit.fast("fast-1", "B"))
    assert not intake.fast
    assert await kit.next() == NoneDue()
    assert "HOLD" in await kit.codes()
    words = await told(kit)
    assert {key: word.state for key, word in words.items()} == {"A": EmsState.HELD, "B": EmsState.HELD}
    woken = kit.journal.woken("market:acme")
    woken.clear()
    await kit.journal.release_hold(scope, name, ANN)
    assert woken.is_set()
    assert await kit.codes() == []
    assert {key: word.state for key, word in (await told(kit)).items()} == {
        "A": EmsState.RECEIVED,
        "B": EmsState.RECEIVED,
    }
    assert isinstance(await kit.next(), DueCall)


@pytest.mark.parametrize(
    ("scope", "name"), [(Scope.PARTICIPANT, "other"), (Scope.ENVIRONMENT, "LIVE"), (Scope.SITE, "south")]
)
async def test_a_hold_covers_its_scope_alone(kit, scope, name):
    """Others go on."""
    await kit.journal.introduce({"acme": "TEST", "other": "LIVE"})
    await kit.journal.hold(scope, name, BOB)
    intake = await kit.accept(kit.asset("A"), fast=kit.fast("fast-1", "A"))
    assert intake.fast
    await kit.accept(kit.asset("B", flow="units"))
    assert isinstance(await kit.next(), DueCall)


async def test_holds_name_who_and_why(kit):
    """The first reason stands; both ends are events."""
    assert await kit.journal.hold(Scope.SITE, "north", BOB)
    assert not await kit.journal.hold(Scope.SITE, "north", ANN)
    (view,) = await kit.journal.holds()
    assert (view.scope, view.name, view.by, view.reason) == (Scope.SITE, "north", BOB.by, BOB.reason)
    await kit.journal.release_hold(Scope.SITE, "north", ANN)
    assert await kit.journal.holds() == []
    (past,) = await kit.journal.holds(standing_only=False)
    assert (past.released_by, past.release_reason) == ("ann", "again")
    events = await kit.journal.events("site:north")
    assert [(event.kind, event.data["by"]) for event in events] == [("hold", "bob"), ("release", "ann")]
    with pytest.raises(NotPossible):
        await kit.journal.release_hold(Scope.SITE, "north", ANN)


async def test_a_hold_outlives_a_restart(kit):
    """It stands in the journal."""
    await kit.journal.hold(Scope.HOST, "", BOB)
    await kit.accept(kit.asset("A"))
    await kit.restart()
    assert await kit.next() == NoneDue()


async def test_what_is_held_still_expires(kit):
    """A hold does not stretch a flow's deadline."""
    await kit.accept(kit.asset("A", deadline_ns=kit.clock.wall_ns() + 1_000_000_000))
    await kit.journal.hold(Scope.HOST, "", BOB)
    kit.clock.advance(2)
    assert isinstance(await kit.next(), DueCall)


async def test_a_resend_is_held_too(kit):
    """A person's word to send again waits for the release of a hold."""
    due = await in_doubt(kit, "A")
    await kit.journal.hold(Scope.PARTICIPANT, "acme", BOB)
    await kit.journal.resend(due.submission, BOB)
    assert await kit.next() == NoneDue()


# ----------------------------------------------------------------------------------------- what an EMS shows


async def test_transaction_ids_that_the_journal_never_heard_of(kit):
    """Known are those of its calls, in full or as the short form that a narrow field holds."""
    long_id = "T-with-more-letters-than-a-field-of-eighteen-holds"
    await kit.accept(kit.asset("A"))
    await kit.sent("T-1")
    await kit.accept(kit.asset("B"))
    await kit.sent(long_id)
    short = fit_transaction_id(long_id, 18)
    shown = ["T-1", "", short, "T-77", fit_transaction_id("T-unknown-and-as-long-as-the-other", 18), "T-1"]
    unknown = await kit.journal.unknown_transactions(kit.site, shown)
    assert unknown == [shown[3], shown[4]]


async def test_nothing_is_written_into_an_ems_that_may_know_more(kit):
    """Outcomes and words of progress would erase what it shows; they are due when the journal was reconciled, and its market side is woken."""
    await kit.accept(kit.asset("A"))
    await kit.journal.hold(Scope.EMS, "south", BOB)
    assert len(await kit.told()) == 1
    await kit.journal.hold(Scope.EMS, kit.site, BOB)
    assert await kit.told() == []
    assert await kit.next() == NoneDue()
    woken = kit.journal.woken(f"field:{kit.site}")
    woken.clear()
    await kit.journal.release_hold(Scope.EMS, kit.site, ANN)
    assert woken.is_set()
    assert [row.outcome.state for row in await kit.told()] == [EmsState.RECEIVED]
    await kit.journal.hold(Scope.JOURNAL, "", BOB)
    assert await kit.told() == []


async def test_preview_changes_nothing(kit):
    """What a record would become, before anybody decides to take it."""
    await kit.registered("A")
    candidates = [kit.asset("A"), kit.asset("B"), kit.asset("A", "other"), kit.asked("C", "1")]
    expected = [Admission.REPEAT, Admission.NEW, Admission.DRIFT, Admission.NEW]
    assert await kit.journal.preview(candidates) == expected
    assert await kit.journal.preview(candidates) == expected
    assert [row.admission for row in (await kit.accept(*candidates)).accepted] == expected


async def test_items_that_turn_out_to_be_known_are_withdrawn(kit):
    """They get their outcome and never go out; the rest keeps its place in line and its words."""
    await kit.accept(kit.asset("A"), kit.asset("B"), kit.asset("C"))
    await kit.accept(kit.asset("Z", flow="units"))
    due = await kit.due()
    await kit.journal.withdraw(due.submission, [kit.result(due.items[1].id, "B", ItemState.REGISTERED)], BOB)
    words = await told(kit)
    assert words["B"].state is EmsState.REGISTERED
    assert words["A"].state is EmsState.RECEIVED
    again = await kit.sent("T-8")
    assert [item.key for item in again.items] == ["A", "C"]
    await kit.settle(again)
    assert (await told(kit))["C"].state is EmsState.REGISTERED
    with pytest.raises(NotPossible):
        await kit.journal.withdraw(again.submission, [], BOB)


async def test_what_another_hold_covers_stays_held(kit):
    """The end of one hold says nothing to what a second one covers."""
    await kit.accept(kit.asset("A"))
    await kit.journal.hold(Scope.SITE, kit.site, BOB)
    await kit.journal.hold(Scope.PARTICIPANT, "acme", BOB)
    await kit.journal.release_hold(Scope.SITE, kit.site, ANN)
    assert (await told(kit))["A"].state is EmsState.HELD
    assert await kit.next() == NoneDue()
    await kit.journal.release_hold(Scope.PARTICIPANT, "acme", ANN)
    assert (await told(kit))["A"].state is EmsState.RECEIVED


async def test_a_resend_that_cannot_be_made_stays_in_doubt(kit):
    """It is not set aside, for it may have arrived; it is not due any more either, and the alarm says why."""
    due = await in_doubt(kit, "A")
    await kit.journal.resend(due.submission, BOB)
    await kit.journal.set_aside(kit.market, due.submission, "it cannot be made")
    assert await kit.state(due.submission) is SubmissionState.IN_DOUBT
    assert await kit.next() == NoneDue()
    (alarm,) = [row for row in await kit.journal.alarms() if row.code == "IN_DOUBT"]
    assert "it cannot be made" in alarm.text


async def test_a_resend_has_the_flows_patience_anew(kit):
    """A person decides a day later: what waits again does not expire at once."""
    day = 86_400
    await kit.accept(kit.asset("A", deadline_ns=kit.clock.wall_ns() + day * 1_000_000_000))
    due = await kit.send()
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(status=0))
    kit.clock.advance(2 * day)
    await kit.journal.resend(due.submission, BOB)
    left_s = ((await kit.due()).deadline_ns - kit.clock.wall_ns()) / 1e9
    assert day - 60 < left_s <= day
