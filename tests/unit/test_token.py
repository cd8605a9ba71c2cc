"""The participant's token."""

import asyncio

import pytest

from bridge.errors import JournalFull, RetryLater
from bridge.market.token import AccountStopped, TokenKeeper
from bridge.platform import Exchange, Failure
from bridge.wire import Token


class FakeClock:
    ns = 0

    def mono_ns(self):
        return self.ns


class Smp:
    """Answers logins with what is in `answers`, else with a new token."""

    def __init__(self):
        self.logins = 0
        self.answers = []

    async def __call__(self):
        self.logins += 1
        await asyncio.sleep(0)
        if self.answers:
            return self.answers.pop(0), None
        return Exchange(sent=True, status=200), Token(f"t{self.logins}", 100.0)


@pytest.fixture
def rig():
    clock, smp, alarms = FakeClock(), Smp(), []

    async def stopped(text):
        alarms.append(text)

    return clock, smp, alarms, TokenKeeper(smp, clock=clock, stopped=stopped)


async def test_a_token_is_reused_until_its_life_ends(rig):
    """One login serves all calls."""
    clock, smp, _, keeper = rig
    assert [await keeper.get() for _ in range(3)] == ["t1"] * 3
    clock.ns = int(101e9)
    assert not keeper.ready
    assert await keeper.get() == "t2"
    assert smp.logins == 2


async def test_one_login_in_flight(rig):
    """Callers that come together share it."""
    _, smp, _, keeper = rig
    assert set(await asyncio.gather(*(keeper.get() for _ in range(20)))) == {"t1"}
    assert set(await asyncio.gather(*(keeper.renew("t1") for _ in range(20)))) == {"t2"}
    assert smp.logins == 2


async def test_renewed_at_eighty_percent_off_the_path(rig):
    """The background task renews before anybody has to wait."""
    clock, smp, _, keeper = rig
    await keeper.get()
    clock.ns = int(79.6e9)
    task = asyncio.get_running_loop().create_task(keeper.run())
    async with asyncio.timeout(5):
        while keeper.take() != "t2":
            await asyncio.sleep(0.01)
    assert smp.logins == 2
    task.cancel()
    await asyncio.wait({task})


async def test_a_login_that_failed_is_not_tried_again_by_each_who_waits(rig):
    """Four calls got 401 together: one refused login is one refusal, not three that stop the account; nobody asks again before its time."""
    clock, smp, alarms, keeper = rig
    await keeper.get()
    smp.answers = [Exchange(sent=True, status=403)]
    told = await asyncio.gather(*(keeper.renew("t1") for _ in range(4)), return_exceptions=True)
    assert [type(error) for error in told] == [RetryLater] * 4
    assert (smp.logins, alarms) == (2, [])
    clock.ns += int(0.75e9)
    with pytest.raises(RetryLater) as early:
        await keeper.get()
    assert early.value.delay_s == pytest.approx(0.25)
    clock.ns += int(0.25e9)
    assert await keeper.get() == "t3"


async def test_a_login_waits_as_long_as_it_was_asked_to(rig):
    """Retry-After of a login holds for the renewal beside the calls too, and the token at hand is used meanwhile."""
    clock, smp, _, keeper = rig
    await keeper.get()
    clock.ns = int(85e9)
    smp.answers = [Exchange(sent=True, status=503, retry_after_s=600.0)] * 9
    task = asyncio.get_running_loop().create_task(keeper.run())
    await asyncio.sleep(0.6)
    clock.ns += int(10e9)
    task.cancel()
    await asyncio.wait({task})
    assert (await keeper.get(), smp.logins) == ("t1", 2)
    clock.ns += int(10e9)
    with pytest.raises(RetryLater) as later:
        await keeper.get()
    assert (later.value.delay_s, smp.logins) == (pytest.approx(580), 2)


async def test_three_refusals_stop_the_account_with_an_alarm(rig):
    """An account may lock: no fourth login."""
    clock, smp, alarms, keeper = rig
    smp.answers = [Exchange(sent=True, status=401)] * 5
    for _ in range(3):
        with pytest.raises(RetryLater) as refused:
            await keeper.get()
        clock.ns += int(refused.value.delay_s * 1e9)
    with pytest.raises(AccountStopped):
        await keeper.get()
    assert smp.logins == 3
    assert len(alarms) == 1


async def test_the_alarm_of_a_stopped_account_waits_for_room():
    """The journal is full when the account is stopped: the alarm is raised once, at a later try."""
    smp, clock, alarms, full = Smp(), FakeClock(), [], [True, True]
    smp.answers = [Exchange(sent=True, status=401)] * 3

    async def stopped(text):
        if full:
            full.pop()
            raise JournalFull("full")
        alarms.append(text)

    keeper = TokenKeeper(smp, clock=clock, stopped=stopped)
    for _ in range(6):
        with pytest.raises((RetryLater, AccountStopped)):
            await keeper.get()
        clock.ns += int(5e9)
    assert smp.logins == 3
    assert len(alarms) == 1


async def test_an_outage_is_no_refusal(rig):
    """However often there is no answer, the account is not stopped."""
    clock, smp, alarms, keeper = rig
    smp.answers = [Exchange(sent=False, failure=Failure.REFUSED, detail="connection refused")] * 5
    for _ in range(5):
        with pytest.raises(RetryLater):
            await keeper.get()
        clock.ns += int(5e9)
    assert await keeper.get() == "t6"
    assert not alarms


def test_a_token_never_prints_itself():
    """Neither in logs nor in errors."""
    assert "hidden" not in repr(Token("hidden", 1.0))
