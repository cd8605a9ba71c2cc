"""What MQTT brokers do of their own accord, with the whole service in front of them."""

import asyncio
import signal

import pytest
import pytest_asyncio
from admin import get, value
from faulty_ems import REGISTERED, RESULTS, Mqtt, faulty_ems, survived

from bridge.testing.proxy import Way

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with faulty_ems(tmp_path_factory.mktemp("mqtt"), Mqtt) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def made(world):
    yield world
    await world.settle()


async def test_broker_restarted_with_its_persistence(made, table):
    """It remembers sessions and what was retained: everybody comes back, nothing has to be said again."""
    [link] = made.links

    async def inject():
        await link.broker.stop()
        await asyncio.sleep(0.5)
        await link.broker.start()
        await link.ems.reconnected()

    await survived(made, table, "broker restarted", inject)


async def test_broker_restarted_without_its_persistence(made, table):
    """It has forgotten sessions, subscriptions and registrations. The EMS says again what it holds and what it has no answer to, as any EMS must."""
    [link] = made.links

    async def inject():
        await link.broker.stop(signal.SIGKILL)
        (link.broker.directory / "mosquitto.db").unlink(missing_ok=True)
        await asyncio.sleep(0.5)
        await link.broker.start()
        await link.ems.reconnected()
        await link.ems.subscribe(RESULTS)
        for name in link.asked:
            await link.register(name)

    async def end():
        made.group.create_task(say_again(link, link.asked[-2:]))

    await survived(made, table, "broker restarted, all forgotten", inject, end)


async def say_again(link, names):
    """Each second every request without its final answer, under its own id; a broker without a subscriber throws a request away."""
    while open_ := [name for name in names if await link.word(name) != REGISTERED]:
        for name in open_:
            await link.request(name)
        await asyncio.sleep(1)


async def seen_again(made):
    """How many requests the service knew already, by its own metric."""
    text = (await get(made, "/metrics"))[1]
    return sum(value(text, "smp_bridge_records_total", admission=word) or 0 for word in ("repeat", "seen"))


async def test_delivered_again(made, table):
    """Our acknowledgement never reaches the broker, which delivers the request again, marked as a duplicate: it is known, and created once."""
    [link] = made.links
    before = await seen_again(made)
    link.proxy.set(Way.UP, blackhole=True)
    name = await link.ask()
    async with asyncio.timeout(10):
        while not made.sandbox.ledger.creates(name):
            await asyncio.sleep(0.02)
    await link.proxy.cut()
    link.proxy.clear()
    recovery_s = await link.until([name], REGISTERED)
    async with asyncio.timeout(10):
        while await seen_again(made) <= before:
            await asyncio.sleep(0.05)
    table.add(await link.row("delivered again", references=[name], recovery_s=recovery_s))


async def test_a_retained_request(made, table):
    """The broker replays it at each connect, under the same id: known each time."""
    [link] = made.links
    name = f"EV{len(link.asked) + 1}"
    await link.register(name)
    await link.request(name, retain=True)
    link.asked.append(name)
    recovery_s = await link.until([name], REGISTERED)
    before = await seen_again(made)
    for replay in (1, 2):
        await link.proxy.cut()
        async with asyncio.timeout(15):
            while await seen_again(made) < before + replay:
                await asyncio.sleep(0.05)
    assert await link.word(name) == REGISTERED
    table.add(await link.row("retained request replayed", references=[name], rounds=2, recovery_s=recovery_s))
