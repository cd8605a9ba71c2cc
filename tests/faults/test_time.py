"""Time: a clock that is set, eras that end, days of 23 and 25 hours, a process that is frozen. Nothing is lost, nothing sent twice, nothing waits for a clock."""

import asyncio
import os
import signal
import time
from datetime import UTC, datetime

import pytest
from fault_table import Row
from processes import world
from ruamel.yaml import YAML
from service import ASSETS, fill, linked, service, until_words
from shifted_clock import ShiftedClock

from bridge.sandbox import Fault, Knobs

TEN_MINUTES_S = 600.0


def moment(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def counted(made, ems, places, **changes):
    """A row's counts, taken from the sandbox's ledger and the EMS's own memory."""
    creates = [made.ledger.creates(ems.fields[place]["reference"]) for place in places]
    return Row(**{
        "rounds": 1, "requested": len(places), "accepted_once": sum(count == 1 for count in creates),
        "lost": sum(count == 0 for count in creates), "twice": sum(count > 1 for count in creates), **changes,
    })  # fmt: skip


# ----------------------------------------------------------------------------------------------------- a clock is set


@pytest.mark.parametrize("by_s", [TEN_MINUTES_S, -TEN_MINUTES_S], ids=["forth", "back"])
async def test_clock_set_by_ten_minutes_while_everything_is_under_way(tmp_path, table, by_s):
    """Calls wait, calls are out, returns are held, a write-back is due again: all of it goes on at once, whatever the clock shows, and when it is put right."""
    clock = ShiftedClock()
    knobs = Knobs(returns="hold", retry_delay_s=0.2, retries=1000, answer_delay_s=0.3)
    async with service(tmp_path, knobs=knobs, clock=clock) as made:
        ems = await linked(made)
        places = fill(ems, 40)
        ems.request("assets", *places[:10])
        await until_words(ems, places, {2: 10, None: 30})
        await made.until_states("AWAITING_RETURN")
        ems.request("assets", *places[10:20])  # out while the clock is set
        await until_words(ems, places, {2: 20, None: 20})
        ems.garble = True  # read back as something else: told again and again
        await made.release()
        await retried(made)
        clock.set_by(by_s)
        started = time.monotonic()
        ems.garble = False
        ems.request("assets", *places[20:30])
        await until_words(ems, places[:10], {3: 10})
        made.knobs.returns = "push"
        pushing = made._group.create_task(made.sandbox.release())
        # A return from ten minutes ahead of our own clock is refused, as one from the future must be; the status tells the same.
        await until_words(ems, places[:30], {3: 30})
        await until_told(made)
        recovery_s = time.monotonic() - started
        clock.set_by(-by_s)
        ems.request("assets", *places[30:])
        await until_words(ems, places, {3: 40})
        await pushing
        assert set(await made.states()) == {"CONFIRMED"}
        fault = f"clock set {abs(by_s) / 60:.0f} min {'forth' if by_s > 0 else 'back'}"
        table.add(counted(made, ems, places, fault=fault, recovery_s=recovery_s))


async def until_told(made, within_s=20):
    """Every outcome is in the EMS, also what was tried again: no write-back waits for the clock."""
    async with asyncio.timeout(within_s):
        while (await made.read(lambda journal: journal.counts()))["writebacks.pending"]:
            await asyncio.sleep(0.05)


async def retried(made):
    """A write-back was tried and is planned again."""
    async with asyncio.timeout(10):
        while "write_back.retry" not in [
            event.kind
            for view in await made.read(lambda journal: journal.submissions())
            for event in await made.read(lambda journal, view=view: journal.events(view.id))
        ]:
            await asyncio.sleep(0.02)


async def test_no_pause_and_no_linger_is_longer_by_a_clock_that_was_set_back(tmp_path):
    """A call that waits for its next try, and one that waits for more records, leave when they would have left."""
    clock = ShiftedClock()
    changes = {"retry": {"delays_s": [1.0]}}
    flows = {"assets": ASSETS, "slow": {**ASSETS, "linger": "2s"}}
    async with service(tmp_path, clock=clock, changes=changes, flows=flows) as made:
        ems = await linked(made)
        places = fill(ems, 8)
        made.knobs.faults = [Fault(operation="asset.create", status=503, headers={"Retry-After": "1"})]
        ems.request("assets", *places[:4])
        await made.until_states("RETRY_WAIT")
        ems.request("slow", *places[4:])
        await until_words(ems, places[4:], {1: 4})
        clock.set_by(-TEN_MINUTES_S)
        await until_words(ems, places, {3: 8}, within_s=20)


async def test_polls_and_overdue_do_not_follow_the_clock(tmp_path):
    """Set forth by a day, no call is overdue and none expires that was taken a moment ago; set back by one, polls go on in their rhythm."""
    clock = ShiftedClock()
    async with service(tmp_path, knobs=Knobs(returns="hold", retries=1, retry_delay_s=0.1), clock=clock) as made:
        ems = await linked(made)
        places = fill(ems, 4)
        for by_s, two in ((86_000, places[:2]), (-2 * 86_000, places[2:])):
            clock.set_by(by_s)
            before = len(made.ledger.of("transaction.status"))
            ems.request("assets", *two)
            async with asyncio.timeout(10):
                while len(made.ledger.of("transaction.status")) < before + 2:
                    await asyncio.sleep(0.02)
        alarms = [alarm.code for alarm in await made.read(lambda journal: journal.alarms(open_only=False))]
        assert "OVERDUE" not in alarms
        assert set(await made.states()) == {"AWAITING_RETURN"}
        await made.release(2)
        await until_words(ems, places, {3: 4})


# --------------------------------------------------------------------------------------- the ends of eras, odd days


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("the NTP era ends (2036)", "2036-02-07T06:28:16"),
        ("32-bit seconds end (2038)", "2038-01-19T03:14:08"),
        ("a leap day ends (2028)", "2028-03-01T00:00:00"),
    ],
)
async def test_era_ends_while_calls_are_out(tmp_path, table, name, at):
    """Host, EMS and SMP live through the last seconds and the next ones: calls signed and answered before the end are settled and told after it."""
    clock = ShiftedClock()
    knobs = Knobs(answer_delay_s=0.4, returns="hold")
    async with service(tmp_path, knobs=knobs, clock=clock, smp_clock=clock) as made:
        ems = await linked(made)
        clock.set_to(moment(at) - 3)  # not before: the certificates of the test are of today
        places = fill(ems, 20)
        ems.request("assets", *places[:10])
        await until_words(ems, places, {2: 10, None: 10})
        await made.until_states("AWAITING_RETURN")
        assert clock.wall_ns() < moment(at) * 1e9, "the era has not ended yet"
        await asyncio.sleep(moment(at) + 0.1 - clock.wall_ns() / 1e9)
        made.knobs.returns = "push"
        await made.release()
        ems.request("assets", *places[10:])
        await until_words(ems, places, {3: 20})
        for view in await made.read(lambda journal: journal.submissions()):
            assert abs(view.stamps["settled"].wall_ns / 1e9 - moment(at)) < 60
            assert view.stamps["settled"].wall_ns > view.stamps["signed"].wall_ns
        await made.stop()
        await made.start()  # what is on disk is read again in the new era
        assert set(await made.states()) == {"CONFIRMED"}
        table.add(counted(made, ems, places, fault=name))


@pytest.fixture
def london(monkeypatch):
    """This process lives in London."""
    monkeypatch.setenv("TZ", "Europe/London")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("london")
@pytest.mark.parametrize(
    ("name", "at"),
    [("the hour that comes twice", "2026-10-25T00:59:59.200"), ("the hour that is missing", "2027-03-28T00:59:59.200")],
)
async def test_daylight_saving_changes_while_calls_are_out(tmp_path, table, name, at):
    """In London at one o'clock of such a night: due times, deadlines, order and every time on the wire are UTC and go on without a jump."""
    clock = ShiftedClock()
    knobs = Knobs(answer_delay_s=0.3, return_delay_s=0.3)
    async with service(tmp_path, knobs=knobs, clock=clock, smp_clock=clock) as made:
        ems = await linked(made)
        clock.set_to(moment(at))  # not before: the certificates of the test are of today
        places = fill(ems, 20)
        made.knobs.faults = [Fault(operation="asset.create", status=503, headers={"Retry-After": "1"})]
        ems.request("assets", *places[:10])
        await asyncio.sleep(0.9)
        assert time.localtime(clock.wall_ns() // 10**9).tm_hour in {1, 2}
        ems.request("assets", *places[10:])
        await until_words(ems, places, {3: 20}, within_s=15)
        views = await made.read(lambda journal: journal.submissions())
        for view in views:
            events = await made.read(lambda journal, view=view: journal.events(view.id))
            times = [event.at_ns for event in events]
            assert times == sorted(times)
            assert abs(times[-1] / 1e9 - moment(at)) < 60
        table.add(counted(made, ems, places, fault=f"daylight saving: {name}"))


# ------------------------------------------------------------------------------------------------ a frozen process


async def frozen(directory, table, *, answer_s, frozen_s, fault):
    """A real process is stopped while calls are out and returns are pushed at it, then goes on."""
    knobs = Knobs(answer_delay_s=0.5, return_delay_s=0.2, retry_delay_s=0.5, retries=1000)
    async with world(directory, assets=20, knobs=knobs) as made:
        path = made.config / "profile.yaml"
        content = YAML(typ="safe").load(path.read_text())
        content["transport"] = {**content.get("transport", {}), "answer_s": answer_s}
        with path.open("w") as file:
            YAML().dump(content, file)
        process = await made.run()
        await process.until("ready")
        await made.ems["rugby"].request_assets()
        async with asyncio.timeout(20):
            while not made.sandbox.ledger.of("asset.create"):
                await asyncio.sleep(0.01)
        os.kill(process.process.pid, signal.SIGSTOP)
        try:
            await made.ems["derby"].request_assets()  # nobody hears it now
            await asyncio.sleep(frozen_s)
            assert process.process.returncode is None
        finally:
            os.kill(process.process.pid, signal.SIGCONT)
        started = time.monotonic()
        for site in made.ems:
            await made.until_words(site, "registered", 20, within_s=60)
        recovery_s = time.monotonic() - started
        created = [count for site in made.ems for count in made.created(site)]
        assert set(await made.states()) == {"CONFIRMED"}
        assert await process.stop() == 0
        table.add(
            Row(
                fault=fault, rounds=1, requested=len(created), accepted_once=created.count(1), lost=created.count(0),
                twice=sum(count > 1 for count in created), recovery_s=recovery_s,
            )
        )  # fmt: skip


async def test_frozen_process_goes_on(tmp_path, table):
    """Frozen for longer than it waits for an answer: what was out is settled by its return, what was asked meanwhile is taken, nothing is sent twice."""
    await frozen(tmp_path, table, answer_s=1, frozen_s=3, fault="process frozen 3 s, answers time out after 1 s")


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_process_frozen_for_a_minute_goes_on(tmp_path, table):
    """The same for a true minute, twice the life of a lease, with the time-outs that it is shipped with."""
    await frozen(tmp_path, table, answer_s=60, frozen_s=62, fault="process frozen 62 s")
