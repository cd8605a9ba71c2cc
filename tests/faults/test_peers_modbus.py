"""What Modbus devices do of their own accord, with the whole service in front of them."""

import asyncio
import time

import modbus_records as layout2
import pytest
import pytest_asyncio
from fault_table import Row
from faulty_ems import BASE, REGISTERED, RESULT, STRIDE, Modbus, faulty_ems, survived
from modbus_answers import a_byte_missing, another_unit, one_register_less

from bridge.testing.proxy import Way

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with faulty_ems(tmp_path_factory.mktemp("modbus"), Modbus) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def made(world):
    yield world
    await world.settle()


async def test_late(made, table):
    """Answers come after their time-out: none is taken for the answer to a later question."""
    [link] = made.links

    async def inject():
        link.proxy.set(Way.DOWN, delay_s=1.3)
        await link.until_up(up=False, within_s=5)
        await asyncio.sleep(2)

    await survived(made, table, "answers late", inject)


@pytest.mark.parametrize(
    "rewrite", [one_register_less, another_unit, pytest.param(a_byte_missing, marks=pytest.mark.long)]
)
async def test_wrong_answers(made, table, rewrite):
    """Nothing of them is believed; with right ones again the work goes on."""
    [link] = made.links

    async def inject():
        link.proxy.set(Way.DOWN, rewrite=rewrite)
        await link.until_up(up=False, within_s=5)
        await asyncio.sleep(1)
        assert not await link.up()

    await survived(made, table, f"answers with {rewrite.__name__.replace('_', ' ')}", inject)


async def test_busy(made, table):
    """Exception 6 to everything for a while, longer than one request is repeated."""
    [link] = made.links

    async def inject():
        await link.device.order("busy", times=60, code=6)
        await asyncio.sleep(1.5)

    async def end():
        await link.device.order("busy", times=0)

    await survived(made, table, "exception 6", inject, end)


async def told_of_its_transaction(made, reference):
    """Wait until the place of this asset was told the transaction id."""
    query = "SELECT 1 FROM writebacks WHERE key = ? AND transaction_id <> '' AND step IN ('written', 'read_back_ok')"
    async with asyncio.timeout(30):
        while await made.read(lambda journal: journal.snapshot(lambda rows: rows.one(query, (reference,)))) is None:
            await asyncio.sleep(0.02)


async def test_another_asset_in_the_slot(made, table):
    """The outcome of the one is never written beside the other: MOVED is raised. Back in its place, the first one hears its own."""
    [link] = made.links
    made.sandbox.knobs.returns = "hold"
    reference = await link.ask()
    await link.until([reference], "sent")
    await link.calm()
    await told_of_its_transaction(made, reference)  # no write is under way any more, whose look at the key came before
    place = BASE + STRIDE * (len(link.asked) - 1)
    await link.device.put_bytes(place, layout2.record("RK-OTHER"))
    await link.device.put(place + RESULT, *[0] * 20)  # as whoever moved it in would find it
    made.sandbox.knobs.returns = "push"
    await made.sandbox.release()
    async with asyncio.timeout(30):
        while "MOVED" not in [alarm.code for alarm in await made.read(lambda journal: journal.alarms())]:
            await asyncio.sleep(0.05)
    nothing_written = await link.device.words(place + RESULT, 20) == [0] * 20
    await link.device.put_bytes(place, layout2.record(reference))
    started = time.monotonic()
    link.shaking = made.group.create_task(link._shake_hands())
    await link.until([reference], REGISTERED)
    ledger = made.sandbox.ledger
    table.add(
        Row(
            fault="Modbus: another asset in the slot",
            rounds=1,
            requested=1,
            accepted_once=ledger.creates(reference),
            twice=max(0, ledger.creates(reference) - 1) + ledger.creates("RK-OTHER"),
            recovery_s=time.monotonic() - started,
            broken="" if nothing_written else "an outcome stands beside another asset",
        )
    )
