"""The links to the EMSs break in every way, all three protocols at once: what was asked is registered once, and each outcome reaches its EMS."""

import asyncio
import socket
import time

import pytest
import pytest_asyncio
from faulty_ems import AsyncuaOpcUa, Modbus, Mqtt, clear, each, faulty_ems, survived
from mosquitto import mosquitto

from bridge.demo.ems_opcua import OpcUaEms
from bridge.testing.proxy import Way

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with faulty_ems(tmp_path_factory.mktemp("ems")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def made(world):
    yield world
    await world.settle()


async def test_cut(made, table):
    """Reset three times in short order, once by a good-bye in the middle: every link comes back by itself."""

    async def inject():
        for _ in range(3):
            for link in made.links:
                await link.proxy.cut()
            await asyncio.sleep(0.3)
            for link in made.links:
                link.proxy.half_close(Way.DOWN)

    await survived(made, table, "cut", inject, rounds=3)


async def test_cut_while_it_opens(made, table):
    """The link breaks at each step of opening it anew: after some bytes of each kind of handshake."""

    async def inject():
        for link in made.links:
            for after in (40, 1200):
                link.proxy.trap(Way.DOWN, after=after)
            await link.proxy.cut()
        await each(made.links, lambda link: link.proxy.until(lambda: not link.proxy.lanes[Way.DOWN].traps, 60))

    await survived(made, table, "cut while it opens", inject, rounds=2)


async def test_cut_while_it_is_secured(made, table):
    """A server that vanishes in the middle of securing the connection does not look like one that refuses us for good."""

    async def inject():
        for link in made.links[:2]:
            link.proxy.trap(Way.UP, at=b"#Basic256Sha256")
            await link.proxy.cut()
        await each(made.links[:2], lambda link: link.proxy.until(lambda: not link.proxy.lanes[Way.UP].traps, 70))

    await survived(made, table, "cut while it is secured", inject)


async def test_refused(made, table):
    """Nobody listens for some seconds: the tries come more slowly, and soon enough."""

    async def inject():
        for link in made.links:
            await link.proxy.refuse()
            await link.proxy.cut()
        await asyncio.sleep(2.5)

    await survived(made, table, "refused", inject)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [15, 60])
async def test_refused_for_long(made, table, seconds):
    """However long it was away, the wait between two tries has its limit."""

    async def inject():
        for link in made.links:
            await link.proxy.refuse()
            await link.proxy.cut()

    async def end():
        await asyncio.sleep(seconds)
        await clear(made)

    await survived(made, table, f"refused for {seconds} s", inject, end)


async def test_blackhole(made, table):
    """Silence: noticed within each link's time, shown by the age of its last good reading, and the session is replaced once somebody answers."""
    noticed = {}

    async def inject():
        started = time.monotonic()
        for link in made.links:
            link.proxy.set(blackhole=True)

        async def notice(link):
            await link.until_up(up=False, within_s=link.noticed_s)
            noticed[link.name] = time.monotonic() - started
            assert await link.heard_s_ago() >= noticed[link.name] - 2.5

        await each(made.links, notice)

    await survived(made, table, lambda link: f"blackhole, noticed after {noticed[link.name]:.1f} s", inject)


async def test_a_blackhole_of_seconds(made, table):
    """A pause of the network, over before most links have noticed anything."""

    async def inject():
        for link in made.links:
            link.proxy.set(blackhole=True)
        await asyncio.sleep(1.5)

    await survived(made, table, "blackhole for seconds", inject)


@pytest.mark.long
async def test_a_blackhole_of_a_minute(made, table):
    """Sessions are tried and left again and again; the end of the silence finds one within the time."""

    async def inject():
        for link in made.links:
            link.proxy.set(blackhole=True)

    async def end():
        await asyncio.sleep(75)
        await clear(made)

    await survived(made, table, "blackhole for a minute", inject, end)


async def test_it_crawls(made, table):
    """1 kB/s: slow, and whether a session lives through it or not, nothing is lost."""

    async def inject():
        before = {link.name: link.proxy.passed(Way.DOWN) for link in made.links}
        for link in made.links:
            link.proxy.set(rate_bytes_per_s=1000)
        await asyncio.sleep(3)
        for link in made.links:
            assert link.proxy.passed(Way.DOWN) - before[link.name] < 5000

    await survived(made, table, "1 kB/s", inject)


async def test_everything_comes_late(made, table):
    """A round trip of 80 ms: the work goes on while it lasts."""

    async def inject():
        for link in made.links:
            link.proxy.set(delay_s=0.04)

    async def end():
        pass

    await survived(made, table, "delayed", inject, end)


async def test_changed_bytes(made, table):
    """Signatures, TLS and checksums see it, and every link finds back. Modbus has no protection on what is written, so there only answers are changed."""

    async def inject():
        for link in made.links:
            link.proxy.set(None if not isinstance(link, Modbus) else Way.DOWN, garble=0.002)
        await asyncio.sleep(3)

    await survived(made, table, "bytes changed", inject)
    for link in made.links:
        assert sum(lane.garbled for lane in link.proxy.lanes.values())


@pytest.mark.long
@pytest.mark.asyncio(loop_scope="function")
async def test_another_certificate_stands_there(tmp_path, table):
    """A server with another key answers, which is refused, however often; the right one is back, and so is the link, by itself."""
    tried = {}
    async with (
        faulty_ems(tmp_path, AsyncuaOpcUa, Mqtt) as made,
        OpcUaEms(1, seed=9, directory=tmp_path / "stranger", site="derby") as opcua,
        mosquitto(tmp_path / "stranger/mqtt", tls=True, user="smp-bridge", password="secret") as broker,
    ):
        right = {link.name: link.proxy.upstream for link in made.links}

        async def inject():
            for link, stranger in zip(made.links, (opcua, broker), strict=True):
                link.proxy.upstream = (stranger.host, stranger.port)
                tried[link.name] = link.proxy.accepted
                await link.proxy.cut()
            await each(made.links, lambda link: link.until_up(up=False))
            await each(
                made.links, lambda link: link.proxy.until(lambda: link.proxy.accepted >= tried[link.name] + 2, 30)
            )
            assert not any([await link.up() for link in made.links])

        async def end():
            for link in made.links:
                link.proxy.upstream = right[link.name]

        await survived(made, table, "another certificate", inject, end)


@pytest.mark.asyncio(loop_scope="function")
async def test_the_name_is_not_found(tmp_path, table, monkeypatch):
    """The name server knows nothing of any EMS for some seconds, while every link was cut."""
    found, away = socket.getaddrinfo, []

    def look_up(host, *rest, **more):
        if host == "localhost" and away:
            away.append(host)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with faulty_ems(tmp_path, name="localhost") as made:

        async def inject():
            away.append("from now on")
            for link in made.links:
                await link.proxy.cut()
            await each(made.links, lambda link: link.until_up(up=False))
            async with asyncio.timeout(20):  # the name is asked for again and again
                while len(away) <= 2 * len(made.links):
                    await asyncio.sleep(0.05)

        async def end():
            away.clear()

        await survived(made, table, "name not found", inject, end)
