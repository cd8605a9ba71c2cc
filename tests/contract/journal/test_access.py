"""Tokens that were given out, and what waits for a second person."""

import asyncio

import pytest

from bridge.errors import NotPossible
from bridge.journal.access import Action, ApprovalState, TokenView, Wanted
from bridge.journal.people import Decision, Scope
from bridge.journal.port import ItemOutcome, NoneDue
from bridge.model import ItemState
from bridge.submission import SubmissionState

ANN = Decision(by="Ann", reason="the help desk said so", more={"token": "t-1", "role": "operator"})
BOB = Decision(by="bob", reason="I looked at it")
DAY_S = 86_400


def a_token(kit, id_="t-1", **changes):
    now_ns = kit.clock.wall_ns()
    values = {
        "id": id_, "holder": "Ann", "role": "operator", "participants": ("acme",), "issued_by": "root",
        "issued_ns": now_ns, "expires_ns": now_ns + DAY_S * 10**9,
    }  # fmt: skip
    return TokenView(**(values | changes))


async def in_doubt(kit, *keys):
    await kit.accept(*(kit.asset(key) for key in keys))
    due = await kit.send()
    answer = kit.answer(status=0, detail="reset after the first byte")
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, answer)
    return due.submission


async def ask(kit, submission, action=Action.RESEND, by=ANN, **more):
    expires_ns = kit.clock.wall_ns() + DAY_S * 10**9
    wanted = Wanted(action=action, submission=submission, **more)
    return await kit.journal.ask_approval(wanted, by, expires_ns=expires_ns)


async def waiting(kit, **more):
    return [view.id for view in await kit.journal.approvals(now_ns=kit.clock.wall_ns(), **more)]


async def said(kit, subject, kind):
    return [event.data for event in await kit.journal.events(subject) if event.kind == kind]


async def test_a_token_counts_from_one_commit_to_another(kit):
    """Noted, it is there with all that was said of it; revoked, it is so at once for every process, and both are events."""
    new = a_token(kit)
    await kit.journal.note_token(new)
    assert await kit.journal.token("t-1") == new
    other = await kit.engine.open("cli", checkpoint=False)
    revoked = await other.revoke_token("t-1", BOB)
    assert (revoked.revoked_by, revoked.revoke_reason) == ("bob", "I looked at it")
    assert await kit.journal.token("t-1") == revoked
    assert [event.kind for event in await kit.journal.events("token:t-1")] == ["token.new", "token.revoked"]
    with pytest.raises(NotPossible, match="revoked before"):
        await kit.journal.revoke_token("t-1", BOB)
    with pytest.raises(NotPossible, match="no token"):
        await kit.journal.revoke_token("t-2", BOB)
    assert await kit.journal.token("t-2") is None


async def test_tokens_are_listed_newest_first(kit):
    """One for all participants is an event of the host; one for two is an event of each, which does not name the other."""
    await kit.journal.note_token(a_token(kit, "t-1", participants=("acme", "bolt")))
    await kit.journal.note_token(a_token(kit, "t-2", participants=(), role="auditor"))
    assert [(view.id, view.participants) for view in await kit.journal.tokens()] == [
        ("t-2", ()),
        ("t-1", ("acme", "bolt")),
    ]
    events = await kit.journal.events("token:t-1")
    assert len(events) == 2
    assert "bolt" not in str([event.data for event in events])


async def test_nothing_happens_until_a_second_person_approves(kit):
    """The wish is noted; approved, it is done in the same commit, under the name of the one who asked, with the one who approved beside it."""
    submission = await in_doubt(kit, "A")
    number = await ask(kit, submission)
    assert await waiting(kit) == [number]
    assert await said(kit, submission, "resend") == []
    assert (await kit.next()).__class__.__name__ == "NoneDue"
    assert await kit.journal.approve(number, BOB) == submission
    assert (await kit.due()).submission == submission
    [data] = await said(kit, submission, "resend")
    assert (data["by"], data["approved_by"], data["reason"]) == ("Ann", "bob", "the help desk said so")
    [asked] = await said(kit, submission, "approval.asked")
    assert (asked["by"], asked["token"]) == ("Ann", "t-1")
    [done] = await said(kit, submission, "approval.done")
    assert (done["by"], done["asked_by"], done["reason"]) == ("bob", "Ann", "I looked at it")
    assert await waiting(kit) == []


@pytest.mark.parametrize("name", ["Ann", "ann", " ANN "])
async def test_nobody_is_their_own_second_person(kit, name):
    """However they write their name, and whichever token they use."""
    submission = await in_doubt(kit, "A")
    number = await ask(kit, submission)
    with pytest.raises(NotPossible, match="second person"):
        await kit.journal.approve(number, Decision(by=name, reason="it is fine"))
    assert await waiting(kit) == [number]
    assert await said(kit, submission, "resend") == []


async def test_what_cannot_be_done_stays_asked(kit):
    """A return was faster: the approval changes nothing, says why, and the request may be refused."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    await kit.journal.answered(
        kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(status=0, detail="reset")
    )
    number = await ask(kit, due.submission)
    await kit.settle(due)
    with pytest.raises(NotPossible):
        await kit.journal.approve(number, BOB)
    assert await waiting(kit) == [number]
    assert await said(kit, due.submission, "approval.done") == []
    await kit.journal.refuse_approval(number, BOB)
    assert (await kit.journal.approval(number, now_ns=kit.clock.wall_ns())).state is ApprovalState.REFUSED


async def test_a_request_expires(kit):
    """After its time nobody can approve it, it is listed no more, and another may be asked for; that it expired is an event."""
    submission = await in_doubt(kit, "A")
    number = await ask(kit, submission)
    kit.clock.advance(DAY_S + 1)
    assert await waiting(kit) == []
    assert (await kit.journal.approval(number, now_ns=kit.clock.wall_ns())).state is ApprovalState.EXPIRED
    with pytest.raises(NotPossible, match="expired"):
        await kit.journal.approve(number, BOB)
    again = await ask(kit, submission, Action.CANCEL)
    assert await waiting(kit) == [again]
    [expired] = await said(kit, submission, "approval.expired")
    assert (expired["approval"], expired["asked_by"]) == (number, "Ann")


async def test_one_request_for_a_submission_at_a_time(kit):
    """Two wishes for the same thing cannot both be approved; a decided one makes room, and cannot be decided again."""
    submission = await in_doubt(kit, "A")
    number = await ask(kit, submission)
    with pytest.raises(NotPossible, match="waits for a second person"):
        await ask(kit, submission, Action.CANCEL, by=BOB)
    await kit.journal.refuse_approval(number, BOB)
    for again in (kit.journal.approve(number, BOB), kit.journal.refuse_approval(number, BOB)):
        with pytest.raises(NotPossible, match="refused"):
            await again
    assert await ask(kit, submission, Action.CANCEL) > number
    for missing in (kit.journal.approve(999, BOB), ask(kit, "s-nothing")):
        with pytest.raises(NotPossible, match="there is no"):
            await missing


async def test_two_who_approve_at_once(kit):
    """It is done once."""
    submission = await in_doubt(kit, "A")
    number = await ask(kit, submission)
    found = await asyncio.gather(
        *(kit.journal.approve(number, Decision(by=name, reason="fine")) for name in ("bob", "cid")),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in found) == ["NotPossible", "str"]
    assert len(await said(kit, submission, "resend")) == 1


async def test_a_confirmation_keeps_what_was_asked(kit):
    """The outcomes that were named are those that are taken, not others."""
    submission = await in_doubt(kit, "A", "B")
    items = {item.key: item.id for item in await kit.journal.submission_items(submission)}
    outcomes = [
        ItemOutcome(item=items["A"], state=ItemState.REGISTERED, asset_id="asset-7"),
        kit.result(items["B"], "B", ItemState.REFUSED),
    ]
    await kit.journal.approve(await ask(kit, submission, Action.CONFIRM, outcomes=outcomes), BOB)
    found = {item.key: item for item in await kit.journal.submission_items(submission)}
    assert (found["A"].state, found["A"].asset_id) == (ItemState.REGISTERED, "asset-7")
    assert (found["B"].state, found["B"].errors[0].code) == (ItemState.REFUSED, "E7")
    assert await kit.state(submission) is SubmissionState.PARTIAL


async def test_each_action_is_performed(kit):
    """Cancel and retry go the same way, at once or by approval."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    await kit.journal.set_aside(kit.market, due.submission, "no longer possible")
    retry = Wanted(action=Action.RETRY, submission=due.submission)
    assert await kit.journal.perform(retry, ANN) == due.submission
    assert await kit.state(due.submission) is SubmissionState.WAITING
    await kit.journal.approve(await ask(kit, due.submission, Action.CANCEL), BOB)
    assert await kit.state(due.submission) is SubmissionState.CANCELLED


async def test_requests_are_listed_by_participant(kit):
    """Those of another participant are not among them."""
    submission = await in_doubt(kit, "A")
    number = await ask(kit, submission)
    assert await waiting(kit, participants=["acme"]) == [number]
    assert await waiting(kit, participants=["bolt"]) == []
    assert await waiting(kit, participants=[]) == []
    await kit.journal.refuse_approval(number, BOB)
    assert await waiting(kit, open_only=False) == [number]


async def held_of(kit):
    return [hold.name for hold in await kit.journal.holds() if hold.scope is Scope.PROFILE]


async def test_another_profile_is_held_until_two_people_accept_it(kit):
    """The first one counts. A changed one lets nothing go out, whatever restarts; accepted by two, what waits leaves, and the record says who and why."""
    first, second = "default 1 aa", "default 2 bb"
    assert not await kit.journal.introduce_profile("acme", first, four_eyes=True)
    assert not await kit.journal.introduce_profile("acme", first, four_eyes=True)
    for _ in range(2):
        assert await kit.journal.introduce_profile("acme", second, four_eyes=True)
    assert await held_of(kit) == ["acme"]
    assert "HOLD" in await kit.codes()
    await kit.accept(kit.asset("A1"))
    assert isinstance(await kit.next(), NoneDue)
    expires_ns = kit.clock.wall_ns() + DAY_S * 10**9
    wanted = Wanted(action=Action.ACCEPT_PROFILE, participant="acme")
    number = await kit.journal.ask_approval(wanted, ANN, expires_ns=expires_ns)
    with pytest.raises(NotPossible, match="a second person"):
        await kit.journal.approve(number, ANN)
    assert await held_of(kit) == ["acme"]
    assert await kit.journal.approve(number, BOB) == second
    assert await held_of(kit) == []
    assert "HOLD" not in await kit.codes()
    assert (await kit.next()).items[0].key == "A1"
    [_, accepted] = await said(kit, "profile:acme", "profile.accepted")
    assert (accepted["before"], accepted["now"], accepted["by"], accepted["approved_by"]) == (
        first,
        second,
        "Ann",
        "bob",
    )
    assert not await kit.journal.introduce_profile("acme", second, four_eyes=True)


async def test_what_was_looked_at_is_what_is_accepted(kit):
    """Yet another profile came after somebody asked: the request says of another one, and cannot be approved for this."""
    for profile in ("p 1 a", "p 2 b"):
        await kit.journal.introduce_profile("acme", profile, four_eyes=True)
    expires_ns = kit.clock.wall_ns() + DAY_S * 10**9
    wanted = Wanted(action=Action.ACCEPT_PROFILE, participant="acme")
    number = await kit.journal.ask_approval(wanted, ANN, expires_ns=expires_ns)
    assert await kit.journal.introduce_profile("acme", "p 3 c", four_eyes=True)
    with pytest.raises(NotPossible, match="another profile of acme waits by now: p 3 c"):
        await kit.journal.approve(number, BOB)
    assert await held_of(kit) == ["acme"]
    [hold] = [hold for hold in await kit.journal.holds() if hold.scope is Scope.PROFILE]
    assert "p 1 a → p 3 c" in hold.reason


@pytest.mark.parametrize(("profile", "four_eyes"), [("p 1 a", True), ("p 2 b", False)], ids=["back", "two eyes"])
async def test_a_held_profile_that_is_no_longer_in_question(kit, profile, four_eyes):
    """The accepted one is back, or nobody wants four eyes any more: it goes on, and says so."""
    for name in ("p 1 a", "p 2 b"):
        await kit.journal.introduce_profile("acme", name, four_eyes=True)
    assert not await kit.journal.introduce_profile("acme", profile, four_eyes=four_eyes)
    assert await held_of(kit) == []
    with pytest.raises(NotPossible, match="no profile of acme waits"):
        await kit.journal.accept_profile("acme", BOB)
    with pytest.raises(NotPossible, match="no profile of acme waits"):
        await kit.journal.ask_approval(Wanted(action=Action.ACCEPT_PROFILE, participant="acme"), ANN, expires_ns=2**60)


async def test_without_four_eyes_no_profile_is_held(kit):
    for profile in ("p 1 a", "p 2 b", "p 3 c"):
        assert not await kit.journal.introduce_profile("acme", profile, four_eyes=False)
    assert await held_of(kit) == []
    assert [event["now"] for event in await said(kit, "profile:acme", "profile.accepted")] == [
        "p 1 a",
        "p 2 b",
        "p 3 c",
    ]
