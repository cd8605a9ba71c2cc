"""What kept a submission from going out, as `next_call` tells it: nothing, a hold, a person, its members, or that it is not the first time."""

import pytest

from bridge.journal.people import Decision, Scope
from bridge.journal.port import NoneDue
from bridge.latency import Wait
from bridge.model import ItemState
from bridge.submission import SubmissionState

S = 1_000_000_000
BOB = Decision(by="bob", reason="because")


async def test_nothing(kit):
    """The host alone let it wait, for its linger or for a slot."""
    await kit.accept(kit.asset("A", linger_ns=5 * S))
    kit.clock.advance(60)
    assert (await kit.due()).waited is None


@pytest.mark.parametrize(
    ("scope", "name"),
    [(Scope.HOST, ""), (Scope.PARTICIPANT, "acme"), (Scope.ENVIRONMENT, "LIVE"), (Scope.SITE, "north")],
)
async def test_a_hold(kit, scope, name):
    """Of whichever scope, for what was received before it was released; what came later did not wait."""
    await kit.journal.introduce({"acme": "LIVE"})
    await kit.journal.hold(scope, name, BOB)
    await kit.accept(kit.asset("A"))
    assert isinstance(await kit.next(), NoneDue)
    await kit.journal.release_hold(scope, name, BOB)
    assert (await kit.due()).waited is Wait.HOLD
    await kit.sent()
    await kit.accept(kit.asset("B"))
    assert (await kit.due()).waited is None


async def test_a_hold_of_another(kit):
    """Another participant, another site: nobody waited here."""
    for scope, name in ((Scope.PARTICIPANT, "other"), (Scope.SITE, "south")):
        await kit.journal.hold(scope, name, BOB)
    await kit.accept(kit.asset("A"))
    for scope, name in ((Scope.PARTICIPANT, "other"), (Scope.SITE, "south")):
        await kit.journal.release_hold(scope, name, BOB)
    assert (await kit.due()).waited is None


async def test_a_unit_that_waited_for_its_asset(kit):
    """It was blocked until the asset was registered."""
    await kit.accept(kit.unit("U", ["A"]))
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    kit.clock.advance(5)
    await kit.settle(due)
    assert (await kit.due()).waited is Wait.MEMBERS


async def test_a_unit_that_waited_for_nothing(kit):
    """Its assets were registered before it came."""
    await kit.registered("A")
    await kit.accept(kit.unit("U", ["A"]))
    kit.clock.advance(5)
    assert (await kit.due()).waited is None


async def test_a_further_attempt(kit):
    """RETRY_WAIT, and WAITING after an answer that was our fault."""
    await kit.accept(kit.asset("A"))
    for state in (SubmissionState.RETRY_WAIT, SubmissionState.WAITING):
        due = await kit.send()
        await kit.journal.answered(kit.market, due.submission, state, kit.answer(status=503))
        assert (await kit.due()).waited is Wait.RETRY


async def test_what_a_person_set_aside_and_let_go_on(kit):
    """It was never sent, and waited for a decision."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    await kit.journal.set_aside(kit.market, due.submission, "cannot be made")
    await kit.journal.retry(due.submission, BOB)
    assert (await kit.due()).waited is Wait.SET_ASIDE


async def test_what_is_in_doubt_and_goes_again(kit):
    """A person said so."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(status=500))
    await kit.journal.resend(due.submission, BOB)
    assert (await kit.due()).waited is Wait.RESEND


async def test_a_copy(kit):
    """An item that is sent again stands in a submission that has no attempt of its own yet."""
    await kit.accept(kit.asset("A"))
    due = await kit.sent()
    await kit.settle(due, ItemState.UNKNOWN)
    await kit.journal.resend(due.submission, BOB)
    again = await kit.due()
    assert (again.attempts, again.waited) == (0, Wait.RESEND)
