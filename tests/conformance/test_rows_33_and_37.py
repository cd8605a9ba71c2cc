"""DOMAIN 9, rows 33 and 37, where a whole process dies and where nobody sets the clock: what was taken stays taken, once."""

import asyncio
import signal

import pytest
from end_point import ACME, listening
from processes import world

from bridge.discipline import Discipline
from bridge.discipline.gate import SigningGate
from bridge.discipline.judge import Limits
from bridge.discipline.watch import ClockWatch
from bridge.sandbox import Knobs

NS = 1_000_000_000
# The service, which kills itself once: when the first return has just been written, before anything is answered.
KILLED_THERE = """
import os, signal
from pathlib import Path
from bridge.journal.sqlite import SqliteJournal
real = SqliteJournal.park_return
async def park_return(self, *given, **named):
    parked = await real(self, *given, **named)
    mark = Path(os.environ["MARK"])
    if not mark.exists():
        mark.write_text(parked.verdict)
        os.kill(os.getpid(), signal.SIGKILL)
    return parked
SqliteJournal.park_return = park_return
from bridge.cli import main
main()
"""


async def test_row_33_killed_between_write_and_answer(tmp_path):
    """Row 33: "kill -9 between write and answer": the return is on disk and SMP has no answer; its repeat after the restart gets a 2xx and counts once."""
    knobs = Knobs(return_delay_s=0.0, retry_delay_s=0.1, retries=1000)
    async with world(tmp_path, assets=1, knobs=knobs) as made:
        mark, pushed = tmp_path / "mark", made.sandbox.ledger.returns
        made.code, made.environment["MARK"] = KILLED_THERE, str(mark)
        first = await made.run()
        await first.until("ready")
        await made.ems["rugby"].request_assets()
        assert await first.ended() == -signal.SIGKILL
        assert mark.read_text() == "new"
        kept = await stored(made)
        assert [(row["verdict"], row["message_id"]) for row in kept] == [("", pushed[0].message_id)]
        assert [entry.status for entry in pushed] == [0] * len(pushed)
        second = await made.run()
        await made.until_words("rugby", "registered", 1)
        async with asyncio.timeout(20):
            while not pushed[-1].status:
                await asyncio.sleep(0.02)
        assert {entry.message_id for entry in pushed} == {pushed[0].message_id}
        assert [entry.status for entry in pushed if entry.status] == [200]
        assert await second.stop() == 0
        [after] = await stored(made)
        assert (after["id"], after["message_id"]) == (kept[0]["id"], kept[0]["message_id"])
        assert after["verdict"] not in {"", "conflict", "orphan", "quarantined"}
        assert (await made.states(), made.created("rugby")) == (["CONFIRMED"], [1])
        assert await confirmed(made) == 1


async def stored(made):
    """The returns on disk."""
    names = ("id", "message_id", "verdict")
    found = await made.read(
        lambda journal: journal.snapshot(lambda rows: rows.all(f"SELECT {', '.join(names)} FROM returns"))
    )
    return [dict(zip(names, row, strict=True)) for row in found]


async def confirmed(made):
    """How often a submission was told to be settled."""
    ask = "SELECT count(*) FROM events WHERE kind = 'CONFIRMED'"
    [[count]] = await made.read(lambda journal: journal.snapshot(lambda rows: rows.all(ask)))
    return count


class Source:
    """A discipline that says what it is told to say."""

    name = "chrony"

    def __init__(self):
        self.report = Discipline(source=self.name, synchronised=True, offset_s=0.0, max_error_s=0.5, detail="")

    def says(self, offset_s, *, synchronised):
        self.report = Discipline(
            source=self.name, synchronised=synchronised, offset_s=offset_s, max_error_s=16.0, detail="no source"
        )

    async def read(self):
        return self.report


LOST = {"synchronised": False, "offset_s": 0.0, "jump_s": 0, "alarm": "CLOCK_UNSYNCHRONISED", "held": False}
BACK = {"synchronised": True, "offset_s": 600.0, "jump_s": -600, "alarm": "CLOCK_OFFSET", "held": True}
BOTH = {"synchronised": False, "offset_s": 0.0, "jump_s": -250, "alarm": "CLOCK_UNSYNCHRONISED", "held": False}


@pytest.mark.parametrize(
    "what", [LOST, BACK, BOTH], ids=["NTP lost", "time jumps back", "NTP lost and time drifts back"]
)
async def test_row_37_a_clock_that_nobody_sets(tmp_path, what):
    """Row 37: "time jumps back 10 min; NTP lost": "replay store still holds; alarm; no re-acceptance": one alarm, returns go on being taken, a replay is a duplicate or out of the window."""
    async with listening(tmp_path) as smp:
        source, gate = Source(), SigningGate()
        watch = ClockWatch(source, limits=Limits(), every_s=0.01, gate=gate, seen=lambda _: None, journal=smp.journal)
        await watch.look()
        watching = asyncio.get_running_loop().create_task(watch.run())
        try:
            ours = await smp.submission("BESS001")
            draft, message = await smp.accepted()
            assert await smp.state(ours) == "CONFIRMED"
            before = smp.effects()
            source.says(what["offset_s"], synchronised=what["synchronised"])
            smp.clock.at_ns += what["jump_s"] * NS
            await smp.until("SELECT code FROM alarms WHERE cleared_ns = 0", [what["alarm"]])
            assert gate.held is what["held"]
            told = smp.told()
            if what["jump_s"] < -300:
                await smp.unauthentic("from_the_future", message)
            else:
                assert [(await smp.post(one))[0] for one in (message, draft, message)] == [200] * 3
            assert (smp.effects(), smp.told()) == (before | {"alarms": [what["alarm"]]}, told)
            await smp.accepted()
            assert smp.told()[ACME] == told[ACME] + 1
            source.says(0.0, synchronised=True)
            smp.clock.at_ns -= what["jump_s"] * NS
            await smp.until("SELECT code FROM alarms WHERE cleared_ns = 0", [])
            assert (await smp.post(message))[0] == 200
            assert (smp.rows("SELECT count(*) FROM returns"), await smp.state(ours)) == ([2], "CONFIRMED")
            assert smp.rows("SELECT count FROM alarms") == [1]
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
