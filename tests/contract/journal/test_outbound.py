"""The market side: what may go out, commit 2, answers, restart."""

import pytest

from bridge.errors import IllegalMove, Replaced, TransactionKnown
from bridge.journal.port import DueCall, NoneDue
from bridge.model import EmsState, Operation
from bridge.submission import SubmissionState

DAY_S = 24 * 3600

S = 1_000_000_000


# --------------------------------------------------------------------------------------------------------- what is due


async def test_oldest_goes_first(kit):
    """Submissions leave in the order in which they were opened."""
    first = await kit.accept(kit.asset("A"))
    await kit.accept(kit.asset("B", flow="others"))
    assert (await kit.due()).submission == first.accepted[0].submission


async def several(kit, most):
    due = await kit.journal.next_calls("acme", kit.clock.ns, allow=list(Operation), most=most)
    assert not isinstance(due, NoneDue)
    return [[item.key for item in call.items] for call in due]


async def test_several_are_given_out_at_once_in_their_order(kit):
    """As many as may leave; nothing is lost by asking for more than there are."""
    for key in ("A", "B", "C", "D"):
        await kit.accept(kit.asset(key, max_items=1))
    assert await several(kit, 3) == [["A"], ["B"], ["C"]]
    assert await several(kit, 9) == [["A"], ["B"], ["C"], ["D"]]
    await kit.send()
    assert await several(kit, 2) == [["B"], ["C"]]
    assert (await kit.due()).items[0].key == "B"


async def test_what_is_given_out_at_once_is_bounded_by_its_items(kit):
    """Calls of a thousand records are signed one after the other, however many may leave."""
    for first in (0, 600, 1200):
        await kit.accept(*(kit.asset(f"A{number}", max_items=600) for number in range(first, first + 600)))
    assert [len(call) for call in await several(kit, 3)] == [600]


async def test_what_is_sent_again_is_given_out_before_what_waits(kit):
    """In doubt, and sent again by a person: with what stands behind it in one answer."""
    await kit.accept(kit.asset("A", max_items=1))
    due = await kit.send()
    await kit.journal.answered(
        kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(""), retry_ns=kit.clock.ns
    )
    await kit.accept(kit.asset("B", max_items=1))
    assert await several(kit, 2) == [["A"], ["B"]]


async def test_nothing_due(kit):
    """An empty line has no next time either."""
    due = await kit.next()
    assert due == NoneDue(next_ns=0)


async def test_other_participants_are_not_given_out(kit):
    """Each participant has a line of its own."""
    await kit.accept(kit.asset("A", participant="other"))
    assert isinstance(await kit.next(), NoneDue)
    assert isinstance(await kit.next(participant="other"), DueCall)


async def test_only_allowed_operations(kit):
    """`allow` names what may be sent now."""
    await kit.accept(kit.asset("A"))
    assert isinstance(await kit.next(allow=[Operation.UNIT_CREATE]), NoneDue)


async def test_linger_holds_a_submission_until_its_time(kit):
    """It is due when the linger is over; until then the time is told."""
    opened = kit.clock.ns
    await kit.accept(kit.asset("A", linger_ns=2 * S))
    due = await kit.next()
    assert isinstance(due, NoneDue)
    assert opened + 2 * S <= due.next_ns <= kit.clock.ns + 2 * S
    kit.clock.advance(1)
    await kit.accept(kit.asset("B", linger_ns=2 * S))
    kit.clock.advance(1)
    assert [item.key for item in (await kit.due()).items] == ["A", "B"]


async def test_full_submission_does_not_linger(kit):
    """Waiting for more makes no sense when no more fits."""
    await kit.accept(kit.asset("A", linger_ns=60 * S, max_items=2))
    await kit.accept(kit.asset("B", linger_ns=60 * S, max_items=2))
    assert len((await kit.due()).items) == 2


async def test_a_clock_that_is_set_back_holds_nothing_up(kit):
    """What waits for a slot only is due, and what a place is to be told is told, although the clock shows an earlier hour now."""
    await kit.accept(kit.asset("A"))
    kit.clock.advance(-3600)
    assert [row.place for row in await kit.told()] == ["place-A"]
    assert [item.key for item in (await kit.due()).items] == ["A"]


async def test_an_item_never_expires_with_much_older_ones(kit):
    """In a long outage what comes late opens a submission of its own, with its own deadline."""
    day_ns = DAY_S * 1_000_000_000
    await kit.accept(kit.asset("A", deadline_ns=kit.clock.wall_ns() + day_ns))
    await kit.accept(kit.asset("B", deadline_ns=kit.clock.wall_ns() + day_ns))
    kit.clock.advance(DAY_S / 2)
    await kit.accept(kit.asset("C", deadline_ns=kit.clock.wall_ns() + day_ns))
    kit.clock.advance(DAY_S / 2 + 1)
    assert [item.key for item in (await kit.due()).items] == ["A", "B"]


async def test_past_deadline_is_due_even_while_it_lingers(kit):
    """The caller expires it."""
    await kit.accept(kit.asset("A", linger_ns=60 * S, deadline_ns=kit.clock.ns + 10 * S))
    due = await kit.next()
    assert isinstance(due, NoneDue)
    assert due.next_ns <= kit.clock.ns + 10 * S
    kit.clock.advance(11)
    assert (await kit.due()).deadline_ns < kit.clock.ns


async def test_retry_waits_for_its_time_and_sends_the_same_bytes(kit):
    """RETRY_WAIT comes back with the signed call as it was."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    call = kit.call()
    await kit.journal.sending(kit.market, due.submission, call, 1)
    retry_ns = kit.clock.ns + 30 * S
    await kit.journal.answered(
        kit.market, due.submission, SubmissionState.RETRY_WAIT, kit.answer(status=503), retry_ns=retry_ns, cause="busy"
    )
    assert await kit.next() == NoneDue(next_ns=retry_ns)
    kit.clock.advance(31)
    again = await kit.due()
    assert (again.call, again.attempts, again.state) == (call, 1, SubmissionState.RETRY_WAIT)
    await kit.journal.sending(kit.market, again.submission, again.call, 1)
    assert await kit.state(due.submission) is SubmissionState.SENDING


async def test_a_further_attempt_begins_without_the_stamps_of_the_one_before(kit):
    """What it went through stays in the events; the submission shows its last attempt, which may have had no answer."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    seen = {"sent": kit.clock.now(), "answered": kit.clock.now()}
    note = kit.answer(status=503, stamps=seen)
    await kit.journal.answered(kit.market, due.submission, SubmissionState.RETRY_WAIT, note)
    assert (await kit.due()).stamps.keys() >= seen.keys()
    await kit.send()
    again = {"sent": kit.clock.now()}
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(status=0, stamps=again))
    found = await kit.journal.find_submission("acme", submission=due.submission)
    assert found.stamps["sent"] == again["sent"]
    assert "answered" not in found.stamps
    assert found.stamps.keys() >= {"received", "signed", "journalled"}


async def test_expiring_a_retry(kit):
    """A retry whose deadline passes is due before its pause is over."""
    await kit.accept(kit.asset("A", deadline_ns=kit.clock.ns + 5 * S))
    due = await kit.send()
    far = kit.clock.ns + 600 * S
    await kit.journal.answered(
        kit.market, due.submission, SubmissionState.RETRY_WAIT, kit.answer(status=429), retry_ns=far
    )
    kit.clock.advance(6)
    assert (await kit.due()).submission == due.submission


# ------------------------------------------------------------------------------------------------------------ commit 2


async def test_sending_is_on_disk_with_its_bytes(kit):
    """Commit 2 leaves SENDING, and a restart finds the submission by its message id."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    call = kit.call()
    stamp = await kit.journal.sending(kit.market, due.submission, call, 1)
    assert stamp.wall_ns <= kit.clock.ns
    await kit.restart()
    found = await kit.journal.find_submission("acme", message_id=call.message_id)
    assert found is not None
    assert (found.id, found.state, found.message_id) == (due.submission, SubmissionState.SENDING, call.message_id)
    assert {"received", "signed", "journalled"} <= set(found.stamps)


async def test_sending_tells_sent_once(kit):
    """The EMS hears SENT at the first try, not at every retry."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    assert [row.outcome.state for row in await kit.write_all()] == [EmsState.SENT]
    await kit.journal.answered(kit.market, due.submission, SubmissionState.RETRY_WAIT, kit.answer(status=503))
    await kit.send()
    assert await kit.told() == []


async def test_what_does_not_fit_goes_next(kit):
    """The rest of a split keeps its order and goes before everything that came later."""
    await kit.accept(*(kit.asset(key) for key in "ABCDE"))
    await kit.accept(kit.asset("X", flow="others"))
    due = await kit.send(items=2)
    found = await kit.journal.find_submission("acme", submission=due.submission)
    assert found is not None
    assert [item.key for item in found.items] == ["A", "B"]
    rest = await kit.due()
    assert rest.submission != due.submission
    assert rest.state is SubmissionState.WAITING
    assert [item.key for item in rest.items] == ["C", "D", "E"]
    await kit.send()
    assert [item.key for item in (await kit.due()).items] == ["X"]


async def test_items_that_join_after_the_call_was_made_up_go_next(kit):
    """Between `next_call` and `sending` more may join; they are not in the signed bytes."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    await kit.accept(kit.asset("B"))
    await kit.journal.sending(kit.market, due.submission, kit.call(), len(due.items))
    await kit.accept(kit.asset("C"))
    assert [item.key for item in (await kit.due()).items] == ["B", "C"]


async def test_content_replaced_while_it_was_signed_is_not_sent(kit):
    """Signed bytes over old content never leave: the caller takes the next call again."""
    await kit.accept(kit.asset("A", "one"))
    due = await kit.due()
    await kit.accept(kit.asset("A", "two"))
    with pytest.raises(Replaced):
        await kit.journal.sending(kit.market, due.submission, kit.call(), 1)
    again = await kit.due()
    assert (again.submission, again.items[0].content) == (due.submission, b"two")
    await kit.journal.sending(kit.market, again.submission, kit.call(), 1)


async def test_illegal_moves_are_refused(kit):
    """The table of moves holds in the journal: a call that is out is not sent again."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    with pytest.raises(IllegalMove):
        await kit.journal.sending(kit.market, due.submission, kit.call(), 1)
    assert await kit.state(due.submission) is SubmissionState.AWAITING_RETURN


# ------------------------------------------------------------------------------------------------------------- answers


async def test_transaction_id_is_kept_and_told(kit):
    """The answer's id finds the submission, and the EMS hears it with SENT."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent("T-77")
    found = await kit.journal.find_submission("acme", transaction_id="T-77")
    assert found is not None
    assert (found.id, found.state) == (due.submission, SubmissionState.AWAITING_RETURN)
    (row,) = await kit.told()
    assert (row.outcome.state, row.outcome.transaction_id) == (EmsState.SENT, "T-77")


async def test_transaction_ids_belong_to_their_participant(kit):
    """Another participant does not find it."""
    await kit.accept(kit.asset("A"))
    await kit.sent("T-77")
    assert await kit.journal.find_submission("other", transaction_id="T-77") is None


async def test_back_to_waiting_is_due_again(kit):
    """Our own fault burns nothing: it waits, with the call it was signed as."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    await kit.journal.answered(kit.market, due.submission, SubmissionState.WAITING, kit.answer(status=403))
    again = await kit.due()
    assert (again.submission, again.state) == (due.submission, SubmissionState.WAITING)
    assert again.call is not None


async def test_in_doubt_calls_a_person_and_tells_the_ems(kit):
    """Also places that want no progress words hear of doubt; nothing goes out by itself."""
    await kit.accept(kit.asset("A", progress=False))
    due = await kit.send()
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(status=500))
    assert [row.outcome.state for row in await kit.told()] == [EmsState.IN_DOUBT]
    assert await kit.codes() == ["IN_DOUBT"]
    assert isinstance(await kit.next(), NoneDue)
    await kit.settle(due)
    assert await kit.codes() == []


async def test_later_attempts_are_found_by_any_of_their_messages(kit):
    """A call signed anew does not forget the message that went out before."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    first, second = kit.call(), kit.call()
    await kit.journal.sending(kit.market, due.submission, first, 1)
    await kit.journal.answered(kit.market, due.submission, SubmissionState.WAITING, kit.answer(status=403))
    await kit.journal.sending(kit.market, due.submission, second, 1)
    for given in ({"message_id": first.message_id}, {"correlation_id": second.correlation_id}):
        found = await kit.journal.find_submission("acme", **given)
        assert found is not None
        assert (found.id, found.message_id) == (due.submission, second.message_id)


async def test_open_submissions_are_listed_for_the_tracker(kit):
    """Those that await an outcome, not those that wait or have ended."""
    done = await kit.registered("A")
    await kit.accept(kit.asset("B"))
    out = await kit.sent("T-B")
    await kit.accept(kit.asset("C"))
    found = await kit.journal.open_submissions("acme")
    assert [entry.id for entry in found] == [out.submission]
    assert found[0].transaction_id == "T-B"
    assert found[0].sent_ns > 0
    assert done.submission != out.submission


async def test_one_transaction_id_for_two_calls(kit):
    """The first keeps it, after its end too; for the second nothing is journalled. The same call, sent again, may have it twice."""
    await kit.registered("A")
    await kit.accept(kit.asset("B"))
    due = await kit.send()
    taken = (await kit.journal.submissions())[-1].transaction_id
    with pytest.raises(TransactionKnown):
        await kit.journal.answered(kit.market, due.submission, SubmissionState.AWAITING_RETURN, kit.answer(taken))
    assert await kit.state(due.submission) is SubmissionState.SENDING
    await kit.journal.answered(kit.market, due.submission, SubmissionState.AWAITING_RETURN, kit.answer("T-other"))
    assert await kit.state(due.submission) is SubmissionState.AWAITING_RETURN


async def test_overdue_keeps_waiting(kit):
    """OVERDUE is a move without outcomes: alarm, and nothing new for the EMS."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    await kit.write_all()
    await kit.journal.settle(kit.market, due.submission, SubmissionState.OVERDUE, [], cause="no return in time")
    assert await kit.codes() == ["OVERDUE"]
    assert await kit.told() == []
    await kit.settle(due)
    assert await kit.codes() == []


# ------------------------------------------------------------------------------------------------------------- restart


async def test_what_was_being_sent_is_in_doubt_after_a_restart(kit):
    """SENDING of an earlier epoch becomes IN_DOUBT, with alarm and word to the EMS; nothing else moves."""
    await kit.accept(kit.asset("A"))
    sending = await kit.send()
    await kit.accept(kit.asset("B", flow="others"))
    out = await kit.sent("T-B")
    await kit.accept(kit.asset("C"))
    await kit.restart()
    assert await kit.journal.recover(kit.market) == [sending.submission]
    assert await kit.state(sending.submission) is SubmissionState.IN_DOUBT
    assert await kit.state(out.submission) is SubmissionState.AWAITING_RETURN
    assert [item.key for item in (await kit.due()).items] == ["C"]
    assert await kit.codes() == ["IN_DOUBT"]
    told = {row.place: row.outcome.state for row in await kit.told()}
    assert told["place-A"] is EmsState.IN_DOUBT
    assert await kit.journal.recover(kit.market) == []


async def test_fast_call_is_in_doubt_after_a_restart(kit):
    """The quiet path's single commit is as good as commit 2."""
    await kit.accept(kit.asset("A"), fast=kit.fast("fast-1", "A"))
    await kit.restart()
    assert await kit.journal.recover(kit.market) == ["fast-1"]


async def test_own_sending_is_not_in_doubt(kit):
    """Recovery touches only what an earlier owner left."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    assert await kit.journal.recover(kit.market) == []
    assert await kit.state(due.submission) is SubmissionState.SENDING


@pytest.mark.parametrize("wait", ["linger", "retry", "repeat"])
async def test_a_clock_that_was_set_back_makes_no_wait_longer(kit, wait):
    """A wait that began ten minutes in the future is over."""
    seconds = 1_000_000_000
    await kit.accept(kit.asset("A", linger_ns=5 * seconds if wait == "linger" else 0))
    if wait != "linger":
        due = await kit.send()
        state = SubmissionState.RETRY_WAIT if wait == "retry" else SubmissionState.IN_DOUBT
        retry_ns = kit.clock.wall_ns() + 5 * seconds
        await kit.journal.answered(kit.market, due.submission, state, kit.answer(status=503), retry_ns=retry_ns)
    assert isinstance(await kit.next(), NoneDue)
    kit.clock.advance(-600)
    assert isinstance(await kit.next(), DueCall)


async def test_a_look_that_began_before_the_commit_makes_nothing_due(kit):
    """Whoever asks with a time of just before the pause was set does not take that for a clock that was set back."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    before_ns = kit.clock.wall_ns()
    retry_ns = before_ns + 30_000_000_000
    await kit.journal.answered(
        kit.market, due.submission, SubmissionState.RETRY_WAIT, kit.answer(status=503), retry_ns=retry_ns
    )
    assert isinstance(await kit.journal.next_call("acme", before_ns, allow=list(Operation)), NoneDue)


async def test_the_rest_of_a_split_was_received_when_its_own_first_record_was(kit):
    """What is told of its wait is its own, not that of the call it was cut from."""
    await kit.accept(kit.asset("A1"))
    kit.clock.advance(60)
    late = kit.asset("A2")
    await kit.accept(late)
    await kit.send(1)
    rest = await kit.due()
    assert [item.key for item in rest.items] == ["A2"]
    assert rest.stamps["received"] == late.stamps["received"]
