"""The host ends at each state of a submission, as a lost process would, and goes on where it stood."""

import asyncio

import pytest
from service import PARTICIPANT, every_profile, fill, linked, made_alarm, service, until_words

from bridge.market.pace import Pace
from bridge.sandbox import Fault, Knobs


async def again(made):
    """Lose the process and start a new one on the same journal."""
    sessions = made.ems["north"].sessions
    await made.kill()
    await made.start()
    await made.ems["north"].until(lambda: made.ems["north"].sessions > sessions)


async def until_requested(made, count=1):
    async with asyncio.timeout(10):
        while len(made.ledger.of("asset.create")) < count:
            await asyncio.sleep(0.01)


@every_profile
async def test_lost_while_awaiting_the_return(tmp_path, profile):
    """The transaction id is on disk: the return that comes later is matched, and nothing is sent again."""
    async with service(tmp_path, profile=profile, knobs=Knobs(returns="hold")) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await made.until_states("AWAITING_RETURN")
        await again(made)
        await made.release()
        await until_words(ems, places, {3: 3})
        await made.until_states("CONFIRMED")
        assert len(made.ledger.of("asset.create")) == 1


@every_profile
async def test_lost_while_sending_is_in_doubt_and_the_return_settles_it(tmp_path, profile):
    """Nobody knows whether the call arrived: it is not sent again; the return echoes our ids and settles it."""
    async with service(tmp_path, profile=profile, knobs=Knobs(returns="hold")) as made:
        ems = await linked(made)
        async with asyncio.timeout(10):
            while not any(entry.operation == "authenticate" and entry.status for entry in made.ledger.requests):
                await asyncio.sleep(0.01)
        made.knobs.answer_delay_s = 30
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_requested(made)
        await again(made)
        await until_words(ems, places, {5: 2})
        await made.until_states("IN_DOUBT")
        await made_alarm(made, "IN_DOUBT")
        made.knobs.answer_delay_s = 0
        await made.release()
        await until_words(ems, places, {3: 2})
        await made.until_states("CONFIRMED")
        assert len(made.ledger.of("asset.create")) == 1


async def test_lost_while_waiting_for_another_try(tmp_path):
    """Certainly not processed, so it waits; the new process sends it, once."""
    faults = [Fault(operation="asset.create", status=503, headers={"Retry-After": "1"})]
    async with service(tmp_path, knobs=Knobs(faults=faults)) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await made.until_states("RETRY_WAIT")
        await again(made)
        await until_words(ems, places, {3: 2})
        assert [entry.status for entry in made.ledger.of("asset.create")] == [503, 202]
        assert made.ledger.creates("BESS00001") == 1


async def test_lost_while_the_circuit_is_open(tmp_path, monkeypatch):
    """WAITING with nothing burnt: the new process sends it."""
    monkeypatch.setitem(Pace.__init__.__kwdefaults__, "circuit_s", (1.0,))
    faults = [Fault(operation="asset.create", status=403)]
    async with service(tmp_path, knobs=Knobs(faults=faults)) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await made_alarm(made, "CIRCUIT_OPEN")
        await made.until_states("WAITING")
        await again(made)
        await until_words(ems, places, {3: 2})
        assert made.ledger.creates("BESS00001") == 1


async def test_lost_while_overdue(tmp_path):
    """No return came in time: an alarm stands, polling goes on after the restart and settles it."""
    changes = {"poll": {"delays_s": [0.3], "every_s": 1, "until_s": 60, "overdue_s": 1}, "returns": "both"}
    async with service(tmp_path, changes=changes, knobs=Knobs(returns="hold")) as made:
        ems = await linked(made)
        places = fill(ems, 1)
        ems.request("assets", *places)
        await made.until_states("OVERDUE")
        await again(made)
        made.sandbox.set_return_url(PARTICIPANT, "")  # nothing is pushed: only polls can tell
        await made.release()
        await until_words(ems, places, {3: 1})
        await made.until_states("CONFIRMED")


@pytest.mark.parametrize("reachable", [True, False])
async def test_lost_before_the_outcome_is_written_back(tmp_path, reachable):
    """Settled while the EMS could not be reached: the new process writes it back, to an EMS that comes back sooner or later."""
    async with service(tmp_path, knobs=Knobs(returns="hold")) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await made.until_states("AWAITING_RETURN")
        ems.reachable = False
        ems.cut()
        await made.release()
        await made.until_states("CONFIRMED")
        ems.reachable = reachable
        await made.kill()
        await made.start()
        ems.reachable = True
        await until_words(ems, places, {3: 2})


@every_profile
async def test_a_finished_submission_stays_finished(tmp_path, profile):
    """After a restart the same request gets the standing outcome; nothing is created again."""
    async with service(tmp_path, profile=profile) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        await again(made)
        ems.written.clear()
        ems.request("assets", *places, sequence="2")
        await until_words(ems, places, {3: 2})
        assert len(made.ledger.of("asset.create")) == 1


async def test_an_orderly_stop_finishes_the_calls_under_way(tmp_path):
    """Stopped with a call in the air: it is answered first, so nothing is in doubt."""
    async with service(tmp_path, knobs=Knobs(answer_delay_s=1, returns="hold")) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await until_requested(made)
        await made.stop()
        assert await made.states() == ["AWAITING_RETURN"]
        await made.start()
