"""Commit 1: what a record of an EMS becomes."""

import asyncio

import pytest

from bridge.errors import Fenced
from bridge.journal.port import Fence, NoneDue
from bridge.model import EmsState, HostReason, ItemState, Kind, Refusal, Trigger
from bridge.submission import Admission, SubmissionState

DAY_S = 24 * 3600


async def refused(kit, key):
    """A key that SMP refused, asked for with request 1."""
    await kit.accept(kit.asked(key, "1"))
    await kit.settle(await kit.sent(), ItemState.REFUSED)


async def test_new_records_wait_and_the_ems_hears_received(kit):
    """A valid record of an unknown key is queued, and its place is told RECEIVED."""
    intake = await kit.accept(kit.asset("A"), kit.asset("B"))
    assert [entry.admission for entry in intake.accepted] == [Admission.NEW, Admission.NEW]
    assert intake.accepted[0].submission == intake.accepted[1].submission
    assert not intake.fast
    due = await kit.due()
    assert [(item.id, item.key, item.content) for item in due.items] == [
        (intake.accepted[0].item, "A", b"a"),
        (intake.accepted[1].item, "B", b"a"),
    ]
    assert [(row.place, row.key, row.outcome.state) for row in await kit.told()] == [
        ("place-A", "A", EmsState.RECEIVED),
        ("place-B", "B", EmsState.RECEIVED),
    ]


async def test_journalled_is_the_time_of_the_commit(kit):
    """The stamp of the answer is later than the record's own, and comes from the clock."""
    candidate = kit.asset("A")
    intake = await kit.accept(candidate)
    assert candidate.stamps["received"].wall_ns < intake.journalled.wall_ns <= kit.clock.wall_ns()


async def test_what_became_of_a_commit_is_told_first(kit):
    """Once, with what the caller is told a moment later; None where it failed."""
    told = []
    intake = await kit.journal.accept(kit.field, [kit.asset("A")], kit.fast("s", "A"), told=told.append)
    assert told == [intake]
    assert intake.fast
    with pytest.raises(Fenced):
        await kit.journal.accept(Fence("field:north", 99), [kit.asset("B")], told=told.append)
    assert told == [intake, None]


async def test_what_became_of_a_commit_is_told_although_nobody_waits_for_it(kit):
    """The call that is on disk as SENDING has to leave; and a defect of whoever hears of it is nobody else's."""
    told = []

    def heard(intake):
        told.append(intake)
        raise RuntimeError

    one = asyncio.ensure_future(kit.journal.accept(kit.field, [kit.asset("A")], kit.fast("s", "A"), told=heard))
    await asyncio.sleep(0)
    one.cancel()
    other = await kit.accept(kit.asset("B"))
    assert one.cancelled()
    assert [intake.fast for intake in told] == [True]
    assert [entry.admission for entry in other.accepted] == [Admission.NEW]


async def test_received_stamp_travels_with_the_item(kit):
    """The market side sees when the record was received and when it was journalled."""
    candidate = kit.asset("A")
    await kit.accept(candidate)
    due = await kit.due()
    assert due.items[0].received == candidate.stamps["received"]
    assert {"received", "journalled"} <= set(due.stamps)


async def test_no_progress_words_where_the_flow_wants_none(kit):
    """Without `progress` a place hears nothing until the outcome."""
    await kit.accept(kit.asset("A", progress=False))
    due = await kit.sent()
    assert await kit.told() == []
    await kit.settle(due)
    assert [row.outcome.state for row in await kit.told()] == [EmsState.REGISTERED]


# ------------------------------------------------------------------------------------------------------- the fast call


async def test_fast_call_stands_when_all_keys_are_new(kit):
    """The signed bytes and SENDING are on disk with the record, and nothing is left to send."""
    fast = kit.fast("fast-1", "A", "B")
    intake = await kit.accept(kit.asset("A"), kit.asset("B"), fast=fast)
    assert intake.fast
    assert {entry.submission for entry in intake.accepted} == {"fast-1"}
    assert await kit.state("fast-1") is SubmissionState.SENDING
    found = await kit.journal.find_submission("acme", message_id=fast.call.message_id)
    assert found is not None
    assert [item.key for item in found.items] == ["A", "B"]
    assert isinstance(await kit.next(), NoneDue)
    assert {row.outcome.state for row in await kit.told()} == {EmsState.SENT}


async def test_fast_call_carries_only_its_own_keys(kit):
    """A record beside the call's keys waits as usual."""
    intake = await kit.accept(kit.asset("A"), kit.asset("B"), fast=kit.fast("fast-1", "A"))
    assert intake.fast
    assert intake.accepted[0].submission == "fast-1"
    assert [item.key for item in (await kit.due()).items] == ["B"]


async def test_fast_call_falls_when_a_key_is_not_new(kit):
    """One key that may not be created drops the call; the new ones wait."""
    await kit.registered("A")
    intake = await kit.accept(kit.asset("A"), kit.asset("B"), fast=kit.fast("fast-1", "A", "B"))
    assert not intake.fast
    assert [entry.admission for entry in intake.accepted] == [Admission.REPEAT, Admission.NEW]
    assert await kit.journal.find_submission("acme", submission="fast-1") is None
    assert [item.key for item in (await kit.due()).items] == ["B"]


async def test_fast_call_falls_when_its_market_lease_is_old(kit):
    """A slot lent under an older epoch of the market side sends nothing; the record is accepted all the same."""
    stale = Fence(kit.market.lease, kit.market.epoch - 1)
    intake = await kit.accept(kit.asset("A"), fast=kit.fast("fast-1", "A", market=stale))
    assert not intake.fast
    assert intake.accepted[0].admission is Admission.NEW


async def test_fast_call_falls_when_a_key_did_not_come(kit):
    """The bytes name a key that was not among the candidates: they must not leave."""
    intake = await kit.accept(kit.asset("A"), fast=kit.fast("fast-1", "A", "B"))
    assert not intake.fast


async def test_fast_call_falls_when_its_items_come_in_another_order(kit):
    """The first record of a key was handled before, so that a later one makes its item: the signed order is not that of the items."""
    await refused(kit, "A")
    candidates = (kit.asked("A", "1"), kit.asked("B", "1"), kit.asked("A", "2", "newer"))
    intake = await kit.accept(*candidates, fast=kit.fast("fast-1", "A", "B"))
    assert [entry.admission for entry in intake.accepted] == [Admission.REPEAT, Admission.NEW, Admission.NEW]
    assert not intake.fast


async def test_fast_call_takes_no_other_record_of_its_key(kit):
    """The same key of another participant is new, the signed one is not: nothing of the other one goes out in this call."""
    await kit.registered("A")
    other = kit.asset("A", participant="other", flow="others")
    intake = await kit.accept(kit.asset("X"), other, kit.asset("A"), fast=kit.fast("fast-1", "X", "A", rows=(0, 2)))
    assert not intake.fast
    beside = await kit.accept(kit.asset("Y"), other, fast=kit.fast("fast-2", "Y"))
    assert beside.fast
    assert beside.accepted[1].submission != "fast-2"


# ------------------------------------------------------------------------------------------- one live create per key


async def test_equal_content_of_a_live_key_is_a_repeat(kit):
    """The standing outcome goes to the place, no second item is made."""
    due = await kit.registered("A")
    await kit.write_all()
    intake = await kit.accept(kit.asset("A", place="elsewhere"))
    assert intake.accepted[0].admission is Admission.REPEAT
    assert (intake.accepted[0].item, intake.accepted[0].submission) == (due.items[0].id, due.submission)
    (row,) = await kit.told()
    assert (row.place, row.outcome.state) == ("elsewhere", EmsState.REGISTERED)
    assert (row.outcome.transaction_id, row.outcome.asset_id) == ("T-A", "asset-A")
    assert isinstance(await kit.next(), NoneDue)


async def test_repeat_under_change_is_not_written_twice(kit):
    """Every reconnect reads all records again; what the EMS knows already is not written again."""
    await kit.registered("A")
    assert len(await kit.write_all()) == 1
    await kit.accept(kit.asset("A"))
    assert await kit.told() == []


async def test_newer_content_replaces_what_waits(kit):
    """A waiting item takes the newest content; it stays one item of one call."""
    first = await kit.accept(kit.asset("A", "one"))
    second = await kit.accept(kit.asset("A", "two"))
    assert second.accepted[0].admission is Admission.REPLACE
    assert second.accepted[0].item == first.accepted[0].item
    due = await kit.due()
    assert [item.content for item in due.items] == [b"two"]


async def test_other_content_of_a_sent_key_is_drift(kit):
    """Nothing is sent; the EMS is told DRIFT with the standing transaction id, and a person is called."""
    await kit.registered("A")
    await kit.write_all()
    intake = await kit.accept(kit.asset("A", "other"))
    assert intake.accepted[0].admission is Admission.DRIFT
    (row,) = await kit.told()
    assert row.outcome.state is EmsState.DRIFT
    assert row.outcome.transaction_id == "T-A"
    assert row.outcome.errors[0].code == str(int(HostReason.DRIFT))
    assert await kit.codes() == ["DRIFT"]
    assert isinstance(await kit.next(), NoneDue)


async def test_drift_goes_when_the_record_comes_back(kit):
    """The old content again: the registered outcome is told again and the alarm is cleared."""
    await kit.registered("A")
    await kit.accept(kit.asset("A", "other"))
    await kit.write_all()
    await kit.accept(kit.asset("A"))
    assert [row.outcome.state for row in await kit.told()] == [EmsState.REGISTERED]
    assert await kit.codes() == []


async def test_drift_of_a_call_on_its_way_outlives_its_outcome(kit):
    """The outcome of the older content does not cover up that the record differs now."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    await kit.accept(kit.asset("A", "other"))
    await kit.settle(due)
    assert [row.outcome.state for row in await kit.told()] == [EmsState.DRIFT]


@pytest.mark.parametrize("sent", [False, True])
async def test_there_and_back_never_creates_twice(kit, sent):
    """A to B to A, while it waits or after it left: one create."""
    await kit.accept(kit.asset("A", "one"))
    due = await kit.send() if sent else None
    await kit.accept(kit.asset("A", "two"))
    await kit.accept(kit.asset("A", "one"))
    if due is None:
        due = await kit.send()
        assert [item.content for item in due.items] == [b"one"]
    assert isinstance(await kit.next(), NoneDue)
    assert len(await kit.journal.submissions()) == 1


@pytest.mark.parametrize("change", [{"flow": "units"}, {"site": "south"}])
async def test_key_of_another_flow_or_site_is_a_duplicate(kit, change):
    """The same key from elsewhere is refused by the host with an alarm; the first owner keeps it."""
    await kit.accept(kit.asset("A"))
    await kit.write_all()
    intake = await kit.accept(kit.asset("A", place="other", **change))
    assert intake.accepted[0].admission is Admission.DUPLICATE_KEY
    due, _ = await kit.journal.due_writebacks(change.get("site", kit.site), ("assets", "units"), kit.clock.wall_ns(), 9)
    assert [(row.outcome.state, row.outcome.errors[0].code) for row in due] == [
        (EmsState.REFUSED_BY_HOST, str(int(HostReason.DUPLICATE_KEY)))
    ]
    assert await kit.codes() == ["DUPLICATE_KEY"]


async def test_same_key_of_another_participant_or_kind_is_its_own(kit):
    """Keys are told apart by participant and kind."""
    await kit.accept(kit.asset("A"))
    other = await kit.accept(kit.asset("A", participant="other"))
    unit = await kit.accept(kit.unit("A", []))
    assert [other.accepted[0].admission, unit.accepted[0].admission] == [Admission.NEW, Admission.NEW]


async def test_key_twice_in_one_call(kit):
    """The second place with the same key is refused, the first goes on."""
    intake = await kit.accept(kit.asset("A", place="one"), kit.asset("A", place="two"))
    assert [entry.admission for entry in intake.accepted] == [Admission.NEW, Admission.DUPLICATE_IN_REQUEST]
    states = {row.place: row.outcome for row in await kit.told()}
    assert states["one"].state is EmsState.RECEIVED
    assert states["two"].errors[0].code == str(int(HostReason.DUPLICATE_IN_REQUEST))


async def test_place_twice_in_one_call(kit):
    """Two readings of one place are one record that changed: the newer content is sent."""
    intake = await kit.accept(kit.asset("A", "one"), kit.asset("A", "two"))
    assert [entry.admission for entry in intake.accepted] == [Admission.NEW, Admission.REPLACE]
    assert [item.content for item in (await kit.due()).items] == [b"two"]


async def test_refused_key_may_be_created_again(kit):
    """A refused key with other content, or asked for again, is a new item; under `change` the same content is not."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    await kit.settle(due, ItemState.REFUSED)
    same = await kit.accept(kit.asset("A"))
    assert same.accepted[0].admission is Admission.REPEAT
    other = await kit.accept(kit.asset("A", "better"))
    assert other.accepted[0].admission is Admission.NEW
    assert [item.content for item in (await kit.due()).items] == [b"better"]


async def test_invalid_record_is_refused_with_its_reason(kit):
    """The host's own refusal is written at once; the others go on."""
    refusal = Refusal(reason=HostReason.BAD_QUALITY, text="maxExportKw: the value is uncertain")
    intake = await kit.accept(kit.asset("A", content="", refusal=refusal, progress=False), kit.asset("B"))
    assert [entry.admission for entry in intake.accepted] == [Admission.INVALID, Admission.NEW]
    row = next(row for row in await kit.told() if row.place == "place-A")
    assert row.outcome.state is EmsState.REFUSED_BY_HOST
    assert (row.outcome.errors[0].code, row.outcome.errors[0].text) == ("9001", refusal.text)
    assert [item.key for item in (await kit.due()).items] == ["B"]
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).state is None


async def test_invalid_record_without_key(kit):
    """A record whose key cannot be read is refused at its place."""
    refusal = Refusal(reason=HostReason.NO_KEY, text="reference is empty")
    await kit.accept(kit.asset(None, content="", refusal=refusal, place="p"))
    (row,) = await kit.told()
    assert (row.key, row.outcome.errors[0].code) == ("", "9011")


# ----------------------------------------------------------------------------------------------- requests by sequence


async def test_same_sequence_again_gets_the_standing_outcome(kit):
    """A repeat of the last handled request creates nothing and is told its outcome once more."""
    await kit.accept(kit.asked("A", "7"))
    due = await kit.sent()
    await kit.settle(due)
    (first,) = await kit.write_all()
    intake = await kit.accept(kit.asked("A", "7", "even with other content"))
    assert intake.accepted[0].admission is Admission.REPEAT
    (again,) = await kit.told()
    assert again.generation > first.generation
    assert again.outcome == first.outcome


async def test_same_sequence_again_before_any_word_is_only_seen(kit):
    """Without progress words there is nothing to tell yet."""
    await kit.accept(kit.asked("A", "7", progress=False))
    intake = await kit.accept(kit.asked("A", "7", progress=False))
    assert intake.accepted[0].admission is Admission.SEEN
    assert await kit.told() == []


async def test_repeat_is_remembered_over_a_restart(kit):
    """The last handled sequence is on disk."""
    await kit.accept(kit.asked("A", "7"))
    await kit.restart()
    intake = await kit.accept(kit.asked("A", "7", "other"))
    assert intake.accepted[0].admission is Admission.REPEAT


async def test_new_sequence_with_equal_content_answers_the_new_request(kit):
    """The standing outcome is written for the request that asks now."""
    await kit.accept(kit.asked("A", "7"))
    await kit.settle(await kit.sent())
    await kit.write_all()
    intake = await kit.accept(kit.asked("A", "8"))
    assert intake.accepted[0].admission is Admission.REPEAT
    (row,) = await kit.told()
    assert (row.outcome.request, row.outcome.state) == ("8", EmsState.REGISTERED)


async def test_refused_request_asked_again_is_new(kit):
    """Somebody asked again: equal content of a refused key is created again."""
    await kit.accept(kit.asked("A", "7"))
    await kit.settle(await kit.sent(), ItemState.REFUSED)
    intake = await kit.accept(kit.asked("A", "8"))
    assert intake.accepted[0].admission is Admission.NEW


async def test_refusal_of_a_sequence_is_repeated_too(kit):
    """A request that the host refused is handled: its repeat is told the same refusal."""
    refusal = Refusal(reason=HostReason.TORN_RECORD, text="torn")
    await kit.accept(kit.asked("A", "7", content="", refusal=refusal))
    await kit.write_all()
    intake = await kit.accept(kit.asked("A", "7"))
    assert intake.accepted[0].admission is Admission.REPEAT
    assert [row.outcome.errors[0].code for row in await kit.told()] == ["9005"]


# ------------------------------------------------------------------------------------------------ requests by message


async def test_request_awaits_its_registration(kit):
    """A message request is on disk at once, also over a restart, until its record comes."""
    intake = await kit.accept(kit.message(None, "r1", content=""))
    assert intake.accepted[0].admission is Admission.REQUESTED
    await kit.restart()
    (waiting,) = await kit.journal.awaited(kit.site)
    assert (waiting.flow, waiting.place, waiting.request) == ("assets", "topic", "r1")
    assert (await kit.accept(kit.message(None, "r1", content=""))).accepted[0].admission is not Admission.REQUESTED
    done = await kit.accept(kit.message("A", "r1"))
    assert done.accepted[0].admission is Admission.NEW
    assert await kit.journal.awaited(kit.site) == []


async def test_awaited_keeps_when_it_was_received(kit):
    """The five seconds of waiting count from the request's own stamp."""
    candidate = kit.message(None, "r1", content="")
    await kit.accept(candidate)
    (waiting,) = await kit.journal.awaited(kit.site)
    assert waiting.received == candidate.stamps["received"]


async def test_requests_that_come_together_keep_each_its_own_time(kit):
    """Two in one commit, received a second apart."""
    first = kit.message(None, "r-1", content="", place="one")
    kit.clock.advance(1)
    second = kit.message(None, "r-2", content="", place="two")
    await kit.accept(first, second)
    waiting = await kit.journal.awaited(kit.site)
    assert [entry.received for entry in waiting] == [first.stamps["received"], second.stamps["received"]]
    assert waiting[1].received.wall_ns - waiting[0].received.wall_ns > 1_000_000_000


async def test_request_without_registration_is_refused(kit):
    """When the wait is over the refusal completes the request."""
    await kit.accept(kit.message(None, "r1", content=""))
    refusal = Refusal(reason=HostReason.NO_REGISTRATION, text="no registration within 5 s")
    done = await kit.accept(kit.message(None, "r1", content="", refusal=refusal))
    assert done.accepted[0].admission is Admission.INVALID
    assert await kit.journal.awaited(kit.site) == []
    assert [row.outcome.errors[0].code for row in await kit.told()] == ["9013"]


@pytest.mark.parametrize("progress", [True, False])
async def test_what_a_request_says_about_its_answer_comes_back_with_each_word(kit, progress):
    """Each request's own, over a restart, with the outcome too where nothing was told before it; a request without one gets none."""
    await kit.accept(
        kit.message("A", "r1", reply='{"to":"x"}', progress=progress), kit.message("A", "r2", progress=progress)
    )
    first = {row.outcome.request: row.reply for row in await kit.told()}
    assert first == ({"r1": '{"to":"x"}', "r2": ""} if progress else {})
    due = await kit.sent()
    await kit.restart()
    await kit.settle(due)
    told = {row.outcome.request: (row.outcome.state, row.reply) for row in await kit.told()}
    assert told == {"r1": (EmsState.REGISTERED, '{"to":"x"}'), "r2": (EmsState.REGISTERED, "")}


async def test_a_request_that_awaits_its_registration_keeps_its_reply(kit):
    """The record that completes it comes without one, as from a session that was opened since; so does the refusal when none comes."""
    for request in ("r1", "r2"):
        await kit.accept(kit.message(None, request, content="", reply=f"to-{request}"))
    await kit.restart()
    await kit.accept(kit.message("A", "r1"))
    refusal = Refusal(reason=HostReason.NO_REGISTRATION, text="no registration within 5 s")
    await kit.accept(kit.message(None, "r2", content="", refusal=refusal))
    assert {row.outcome.request: row.reply for row in await kit.told()} == {"r1": "to-r1", "r2": "to-r2"}
    both = [kit.message(None, "r3", content="", reply="to-r3"), kit.message("B", "r3")]
    await kit.accept(*both)
    assert {row.reply for row in await kit.told()} == {"to-r1", "to-r2", "to-r3"}


async def test_a_request_that_is_told_again_is_answered_where_it_asks_now(kit):
    """A repeat that says nothing changes nothing, whether it comes later or in the same call; another reply counts from then on."""
    await kit.accept(kit.message("A", "r1", reply="old"), kit.message("A", "r1"))
    await kit.accept(kit.message("A", "r1"))
    assert [row.reply for row in await kit.told()] == ["old"]
    again = await kit.accept(kit.message("A", "r1", reply="new"))
    assert again.accepted[0].admission is Admission.REPEAT
    assert [row.reply for row in await kit.told()] == ["new"]
    await kit.accept(kit.message(None, "r2", content="", reply="old"))
    await kit.accept(kit.message(None, "r2", content="", reply="new"), kit.message("B", "r2"))
    assert {row.outcome.request: row.reply for row in await kit.told()} == {"r1": "new", "r2": "new"}


async def test_a_reply_is_its_request_s_alone(kit):
    """The next request of a place has its own, and a word without a request none; after seven days the id is new, and so is its answer."""
    await kit.accept(kit.asked("A", "1", reply="one"))
    await kit.accept(kit.asked("A", "2"))
    assert [row.reply for row in await kit.told()] == [""]
    await kit.accept(kit.message("B", "r1", reply="old"))
    kit.clock.advance(7.1 * DAY_S)
    await kit.accept(kit.message("C", "r1"))
    assert [row.reply for row in await kit.told() if row.outcome.request == "r1"] == [""]


async def test_message_id_is_a_repeat_for_seven_days(kit):
    """Within seven days a request id is a repeat, after them it is new."""
    await kit.accept(kit.message("A", "r1"))
    kit.clock.advance(6.9 * DAY_S)
    again = await kit.accept(kit.message("B", "r1"))
    assert again.accepted[0].admission is Admission.REPEAT
    kit.clock.advance(0.2 * DAY_S)
    later = await kit.accept(kit.message("B", "r1"))
    assert later.accepted[0].admission is Admission.NEW


async def test_older_message_id_is_still_a_repeat(kit):
    """Unlike a sequence, a request id is remembered behind newer ones."""
    await kit.accept(kit.message("A", "r1"))
    await kit.accept(kit.message("B", "r2"))
    intake = await kit.accept(kit.message("C", "r1"))
    assert intake.accepted[0].admission is Admission.REPEAT


async def test_each_message_request_hears_the_outcome(kit):
    """Two requests for one asset: one create, and both requests are answered."""
    await kit.accept(kit.message("A", "r1"))
    await kit.accept(kit.message("A", "r2"))
    due = await kit.sent()
    await kit.accept(kit.message("A", "r3"))
    await kit.settle(due)
    assert len(due.items) == 1
    told = {row.outcome.request: row.outcome.state for row in await kit.told()}
    assert told == {"r1": EmsState.REGISTERED, "r2": EmsState.REGISTERED, "r3": EmsState.REGISTERED}


@pytest.mark.parametrize("content", ["a", "newer"])
async def test_each_message_request_of_one_call_hears_the_outcome(kit, content):
    """Two requests for one place come together, as when their registration arrives: both are answered, with the newest content."""
    await kit.accept(kit.message("A", "r-1"), kit.message("A", "r-2", content))
    assert {row.outcome.request: row.outcome.state for row in await kit.told()} == dict.fromkeys(
        ["r-1", "r-2"], EmsState.RECEIVED
    )
    due = await kit.sent()
    assert [item.content for item in due.items] == [content.encode()]
    await kit.settle(due)
    assert {row.outcome.request: row.outcome.state for row in await kit.told()} == dict.fromkeys(
        ["r-1", "r-2"], EmsState.REGISTERED
    )


async def test_each_message_request_of_a_fast_call_is_answered(kit):
    """As above when the first one left at once."""
    intake = await kit.accept(kit.message("A", "r-1"), kit.message("A", "r-2"), fast=kit.fast("fast-1", "A"))
    assert intake.fast
    assert {row.outcome.request: row.outcome.state for row in await kit.told()} == dict.fromkeys(
        ["r-1", "r-2"], EmsState.SENT
    )


async def test_quiet_message_requests_hear_the_outcome(kit):
    """Without progress words the later requests of an asset in flight still hear its end."""
    await kit.accept(kit.message("A", "r1", progress=False))
    due = await kit.sent()
    await kit.accept(kit.message("A", "r2", progress=False))
    assert await kit.told() == []
    await kit.settle(due)
    assert {row.outcome.request for row in await kit.told()} == {"r1", "r2"}


# ------------------------------------------------------------------------------------------------------------ queueing


async def test_waiting_items_join_the_open_submission(kit):
    """What arrives while the slot is busy forms one call."""
    first = await kit.accept(kit.asset("A"))
    second = await kit.accept(kit.asset("B"))
    assert first.accepted[0].submission == second.accepted[0].submission
    assert [item.key for item in (await kit.due()).items] == ["A", "B"]


async def test_full_submission_is_followed_by_another(kit):
    """`max_items` bounds a submission."""
    intake = await kit.accept(*(kit.asset(f"K{number}", max_items=2) for number in range(5)))
    sizes = {}
    for entry in intake.accepted:
        sizes[entry.submission] = sizes.get(entry.submission, 0) + 1
    assert list(sizes.values()) == [2, 2, 1]


async def test_flows_do_not_share_a_call(kit):
    """A call holds items of one flow."""
    intake = await kit.accept(kit.asset("A"), kit.asset("B", flow="others"))
    assert intake.accepted[0].submission != intake.accepted[1].submission


async def test_nothing_joins_a_submission_that_left(kit):
    """Once it was SENDING its items are fixed, also when it waits again."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    await kit.journal.answered(kit.market, due.submission, SubmissionState.WAITING, kit.answer(status=403))
    intake = await kit.accept(kit.asset("B"))
    assert intake.accepted[0].submission != due.submission


async def test_bad_candidate_spoils_only_its_own_call(kit):
    """A request with a stale fence fails alone."""
    stale = Fence(kit.field.lease, kit.field.epoch - 1)
    with pytest.raises(Fenced):
        await kit.journal.accept(stale, [kit.asset("A")])
    intake = await kit.accept(kit.asset("A", trigger=Trigger.CHANGE))
    assert intake.accepted[0].admission is Admission.NEW


@pytest.mark.parametrize("count", [1, 15, 16, 17, 127, 145, 300])
async def test_any_number_of_records_is_written_whole_and_in_order(kit, count):
    """Rows are written many at a time: none is left out, doubled or out of order at the seams, and bytes and signs of any kind stay as they were."""
    odd = "' \" \\ , ) VALUES (?) \u00e9\u2028\U0001f50b"
    await kit.accept(*(kit.asset(f"{odd}{number}", content=f"{odd} of {number}") for number in range(count)))
    due = await kit.sent("T1")
    assert [item.key for item in due.items] == [f"{odd}{number}" for number in range(count)]
    assert [item.content.decode() for item in due.items] == [f"{odd} of {number}" for number in range(count)]
    found = await kit.journal.find_submission(kit.participant, transaction_id="T1")
    assert [item.key for item in found.items] == [item.key for item in due.items]
    await kit.settle(due)
    told = await kit.told()
    assert sorted(row.outcome.asset_id for row in told) == sorted(f"asset-{odd}{number}" for number in range(count))
    await kit.write_all()
    assert await kit.told() == []
