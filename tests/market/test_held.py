"""The clock begins to hold signing in the middle of things: what was begun and not yet signed goes back, and leaves when it is free."""

import asyncio
import json

import smp_server as smp
from outbound_rig import ASSETS, CLOCK, TAKEN, market, takes

from bridge.lane import RenderedItem
from bridge.model import Operation


class Held:
    """Whether signing is held."""

    def __init__(self):
        self.now = False

    def __call__(self):
        return self.now


async def held_back(rig, held):
    """Nothing left and everything waits; freed, it leaves."""
    await asyncio.sleep(0.1)
    assert rig.creates == []
    assert (await rig.view()).state.value == "WAITING"
    held.now = False
    rig.outbound.wake()
    await rig.until("AWAITING_RETURN")
    assert len(rig.creates) == 1


async def test_held_while_it_logs_in(tmp_path):
    """The sender found every gate open and waited for its token; when it has it, the clock is known to be wrong."""
    held, asked = Held(), asyncio.Event()

    async def login(request, writer):
        held.now = True
        asked.set()
        writer.write(smp.answer(body=json.dumps({"access_token": "t1", "expires_in": 3600})))

    async with market(tmp_path, TAKEN, login=login, held=held) as rig:
        await rig.submit("BESS001")
        async with asyncio.timeout(5):
            await asked.wait()
        await held_back(rig, held)
        assert rig.pace.in_flight == 0


async def test_held_with_a_slot_lent(tmp_path):
    """The field side has the slot and has not signed yet: it gets no signature, gives the slot back, and the record waits like any other."""
    held = Held()
    async with market(tmp_path, TAKEN, held=held) as rig:
        async with asyncio.timeout(5):
            while not rig.outbound.claim(Operation.ASSET_CREATE):  # once it has a token
                await asyncio.sleep(0.01)
        held.now = True
        assert await rig.outbound.sign(["BESS001"], [RenderedItem(b"{}")], {"received": CLOCK.now()}) is None
        rig.outbound.release()
        assert not rig.outbound.claim(Operation.ASSET_CREATE)
        await rig.submit("BESS001")
        await held_back(rig, held)


async def test_a_wrong_clock_ends_nothing_as_late(tmp_path):
    """A call past its deadline while nothing may leave: not expired as long as the clock is known to be wrong, and expired afterwards."""
    held = Held()
    held.now = True
    async with market(tmp_path, TAKEN, held=held) as rig:
        rig.pace.trip("refused", delay_s=600)
        await rig.submit("BESS001", deadline_ns=CLOCK.wall_ns() - 1)
        await asyncio.sleep(0.2)
        assert (await rig.view()).state.value == "WAITING"
        held.now = False
        rig.outbound.wake()
        await rig.until("EXPIRED")
        assert rig.peer.script.on(ASSETS) == []


async def test_what_waits_leaves_together(tmp_path, monkeypatch):
    """Calls that stood in line are committed as many at a time as may leave, not one after the other, and each leaves once."""
    held, together = Held(), []
    held.now = True
    async with market(tmp_path, rest=takes(), held=held) as rig:
        writer = rig.journal._writer
        run = writer._statements
        monkeypatch.setattr(
            writer, "_statements", lambda batch, *more: together.append(len(batch)) or run(batch, *more)
        )
        for number in range(6):
            await rig.submit(f"BESS{number:03}", max_items=1)
        together.clear()
        held.now = False
        rig.outbound.wake()
        async with asyncio.timeout(8):
            while {view.state.value for view in await rig.journal.submissions()} != {"AWAITING_RETURN"}:
                await asyncio.sleep(0.01)
        assert max(together) > 1
        assert len(rig.creates) == 6
