"""DOMAIN 9, rows 32 to 40: what a hostile text, disk, clock, flood or SMP may do, and what it must not."""

import pytest
from end_point import ACME, listening

NS = 1_000_000_000
ALARMS = "SELECT code FROM alarms WHERE cleared_ns = 0 ORDER BY code"


# row 37 ------------------------------------------------------------------------------------------------------------------


async def test_row_37_time_jumps_back(smp):
    """Row 37: "time jumps back 10 min": "replay store still holds; no re-acceptance": the replay is a duplicate or out of the window."""
    ours = await smp.submission("BESS001")
    _, message = await smp.accepted()
    before, told = smp.effects(), smp.told()
    smp.clock.at_ns -= 600 * NS
    await smp.unauthentic("from_the_future", message)
    smp.clock.at_ns += 400 * NS
    assert (await smp.post(message))[0] == 200
    assert (smp.effects(), smp.told(), await smp.state(ours)) == (before, told, "CONFIRMED")


@pytest.mark.parametrize("mode", ["attempt", "event"])
async def test_row_37_a_clock_that_comes_back(tmp_path, mode):
    """Row 37: what was refused as too old and comes into the window again by a clock set back is still known as a replay."""
    async with listening(tmp_path, freshness={"mode": mode}) as smp:
        _, message = await smp.accepted()
        smp.clock.at_ns += 8 * 86400 * NS
        await smp.unauthentic("too_old", message)
        smp.clock.at_ns -= 8 * 86400 * NS
        assert (await smp.post(message))[0] == 200
        assert (smp.rows("SELECT count(*) FROM returns"), smp.told()[ACME]) == ([1], 1)
