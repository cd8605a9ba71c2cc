"""Many assets through a troubled SMP and a host that dies again and again."""

import asyncio
import resource
from random import Random

import pytest
from service import fill, linked, service

from bridge.sandbox import Fault, Knobs

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ASSETS = 10_000
BATCH = 250
KILLS = 6


def troubles(random):
    """Answers that are refused, late, lost after the work was done, or strange; each is one call's."""
    kinds = [
        Fault(operation="asset.create", status=503, headers={"Retry-After": "1"}),
        Fault(operation="asset.create", status=429, headers={"Retry-After": "1"}),
        Fault(operation="asset.create", process=True, drop=True),
        Fault(operation="asset.create", process=True, status=500, body="<html>"),
        Fault(operation="asset.create", process=True, status=202, body="not JSON"),
        Fault(operation="transaction.status", status=500),
    ]
    return [random.choice(kinds).model_copy() for _ in range(2)]


async def until_told(made, ems, places):
    """Wait until each asset is registered, or in doubt because SMP never had its call (the process died before the first byte)."""

    def told(place):
        return (ems.last(place), made.ledger.creates(ems.fields[place]["reference"])) in {(3, 1), (5, 0)}

    async with asyncio.timeout(400):
        while not all(told(place) for place in places):
            assert max(made.ledger.creates(ems.fields[place]["reference"]) for place in places) <= 1, "created twice"
            await asyncio.sleep(0.2)


async def call_in_the_air(made):
    """Wait until SMP has a Create and has not answered it: this is when a lost process is worst."""
    async with asyncio.timeout(60):
        while not any(entry.status == 0 and not entry.problem for entry in made.ledger.of("asset.create")[-8:]):
            await asyncio.sleep(0.005)


async def test_every_asset_is_created_once_and_told(tmp_path):
    """10,000 assets, 70 faults, six lost processes, every return twice and in another order: no Create twice, every outcome in the EMS, memory flat."""
    random = Random(2)
    knobs = Knobs(
        answer_delay_s=0.15,
        return_delay_s=0.3,
        retry_delay_s=0.2,
        retries=1000,
        return_twice=True,
        shuffle=True,
        resign=True,
    )
    async with service(tmp_path, knobs=knobs) as made:
        ems = await linked(made)
        places = fill(ems, ASSETS)
        kill_at = set(random.sample(range(4, ASSETS // BATCH), KILLS))
        for number, start in enumerate(range(0, ASSETS, BATCH)):
            # A faulted call is answered at once; the one that a lost process leaves in the air is a good one.
            made.knobs.faults = [] if number in kill_at else [*made.knobs.faults, *troubles(random)]
            ems.request("assets", *places[start : start + BATCH])
            await asyncio.sleep(0.05)
            if number in kill_at:
                sessions = ems.sessions
                await call_in_the_air(made)
                await made.kill()
                await made.start()
                await ems.until(lambda sessions=sessions: ems.sessions > sessions)
                # What had been handed out and was not acknowledged is asked again, as an EMS with state would.
                for again in range(0, start + BATCH, BATCH):
                    ems.request("assets", *places[again : again + BATCH])
        await until_told(made, ems, places)
        creates = {place: made.ledger.creates(ems.fields[place]["reference"]) for place in places}
        doubtful = [place for place in places if ems.last(place) == 5]
        assert set(creates.values()) <= {0, 1}
        assert all(creates[place] == 0 for place in doubtful)
        assert len(doubtful) <= KILLS * made.sandbox_profile.limits.concurrency * BATCH
        assert set(await made.states()) <= {"CONFIRMED", "IN_DOUBT"}
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 900_000  # KiB: sandbox, EMS and host in one process
