"""Defects that the self-test of the faults plants, one at a time, into the process that is killed: the table has to turn red.

They are patched in from here; the product knows nothing of them. `synchronous-off` is planted by the power-loss test itself.
"""

import asyncio
from dataclasses import replace

from bridge.field.intake import IntakeDesk
from bridge.field.writeback import WriteBacks
from bridge.journal import outbound
from bridge.journal.port import WriteBackResult

VARIABLE = "SMP_BRIDGE_PLANT"
LEAVING_S = 0.3  # time for an acknowledgement to reach the EMS


def acknowledge_before_commit():
    """The EMS is told that its request is on disk before it is."""
    original = IntakeDesk.take

    async def take(self, arrivals, *more, **given):
        for arrival in arrivals:
            arrival.ack(True)
        await asyncio.sleep(LEAVING_S)
        return await original(self, [replace(arrival, ack=lambda _: None) for arrival in arrivals], *more, **given)

    IntakeDesk.take = take


def resend_in_doubt():
    """What was on its way when the process died is taken for not sent."""
    original = outbound.recover

    def recover(tx, fence, **given):
        found = original(tx, fence, **given)
        for submission in found:
            tx.run("UPDATE submissions SET state = 'WAITING', due_ns = 0 WHERE id = ?", (submission,))
        tx.topics.add(fence.lease)
        return found

    outbound.recover = recover


def lost_write_back():
    """An outcome is noted as written before it is."""
    original = WriteBacks._write

    async def write(self, session, due):
        early = [
            WriteBackResult(id=row.id, generation=row.generation, state="written", stamp=self._clock.now())
            for row in due
        ]
        await self._journal.wrote_back(self._fence, early)
        return await original(self, session, due)

    WriteBacks._write = write


PLANTS = {
    "acknowledge-before-commit": acknowledge_before_commit,
    "resend-in-doubt": resend_in_doubt,
    "lost-write-back": lost_write_back,
}


def plant(name: str) -> None:
    """Plant the defect of this name, if it is one for a process of the bridge."""
    if name in PLANTS:
        PLANTS[name]()
