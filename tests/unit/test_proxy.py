"""The fault proxy between a real client and a real server: each knob does what it says, and nothing else."""

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import pytest

from bridge.clock import SystemClock
from bridge.sandbox.pki import Authority
from bridge.sandbox.server import load_pair
from bridge.testing.proxy import FaultProxy, Then, Way

HOST = "127.0.0.1"


class Server:
    """Answers each line in capitals; remembers what came and how each connection ended."""

    def __init__(self):
        self.came = b""
        self.ends = []
        self.writers = []
        self.port = 0
        self.moved = asyncio.Event()

    async def serve(self, reader, writer):
        self.writers.append(writer)
        try:
            while data := await reader.read(65536):
                self.came += data
                self.moved.set()
                writer.write(data.upper())
                await writer.drain()
            self.ends.append("end")
        except ConnectionError:
            self.ends.append("reset")
        finally:
            self.moved.set()
            writer.close()

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self.moved.clear()
                await self.moved.wait()


@asynccontextmanager
async def proxied(tls=None, **options):
    server = Server()
    made = await asyncio.start_server(server.serve, HOST, 0, ssl=tls)
    server.port = made.sockets[0].getsockname()[1]
    async with made, FaultProxy(HOST, server.port, **options) as proxy:
        yield server, proxy


@asynccontextmanager
async def client(proxy, **options):
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def say(connection, text, within_s=5.0):
    """Send this and read as many bytes back."""
    reader, writer = connection
    writer.write(text)
    async with asyncio.timeout(within_s):
        return await reader.readexactly(len(text))


async def until_reset(reader):
    """What still came before the connection was reset."""
    got = b""
    async with asyncio.timeout(5):
        while True:
            try:
                got += await reader.readexactly(1)
            except ConnectionResetError:
                return got


async def silent(reader, within_s=0.2):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(within_s):
            await reader.read(1)


async def test_without_faults_everything_passes_both_ways():
    """A megabyte comes back whole, the bytes are counted, and the end is passed on as an end."""
    async with proxied() as (server, proxy), client(proxy) as (reader, writer):
        sent = bytes(range(97, 123)) * 40_000
        writer.write(sent)
        async with asyncio.timeout(10):
            assert await reader.readexactly(len(sent)) == sent.upper()
        writer.write_eof()
        assert await reader.read() == b""
        assert server.ends == ["end"]
        await proxy.until(lambda: not proxy.open)
        assert (proxy.passed(Way.UP), proxy.passed(Way.DOWN), proxy.accepted, proxy.cuts) == (
            len(sent),
            len(sent),
            1,
            0,
        )


async def test_a_cut_resets_both_sides_and_the_next_connection_works():
    """Not an end but a reset, on either side; the proxy goes on."""
    async with proxied() as (server, proxy):
        async with client(proxy) as one:
            assert await say(one, b"ab") == b"AB"
            assert await proxy.cut() == 1
            with pytest.raises(ConnectionResetError):
                await one[0].read(1)
            await server.until(lambda: server.ends == ["reset"])
        async with client(proxy) as two:
            assert await say(two, b"cd") == b"CD"
        assert (proxy.cuts, proxy.accepted) == (1, 2)


async def test_a_reset_of_one_side_reaches_the_other_as_a_reset():
    """A server that crashes is not turned into one that says good-bye."""
    async with proxied() as (server, proxy), client(proxy) as one:
        await say(one, b"ab")
        made = server.writers[0].get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.writers[0].transport.abort()
        with pytest.raises(ConnectionResetError):
            await one[0].read(1)


@pytest.mark.parametrize("way", Way)
async def test_a_trap_cuts_after_so_many_bytes(way):
    """Exactly these bytes pass in its direction, then the connection is reset; the next one is well again."""
    async with proxied() as (server, proxy):
        proxy.trap(way, after=3)
        async with client(proxy) as (reader, writer):
            writer.write(b"abcdef")
            got = await until_reset(reader)
        came, seen = (b"abc", b"") if way is Way.UP else (b"abcdef", b"ABC")
        assert server.came == came
        assert got == seen or (
            way is Way.UP and b"ABC".startswith(got)
        )  # the answer to the first bytes may win the race
        async with client(proxy) as two:
            assert await say(two, b"ghijkl") == b"GHIJKL"
        assert proxy.cuts == 1


@pytest.mark.parametrize("split", [1, 3, 6, 9, 12])
async def test_a_trap_counts_from_what_it_waits_for(split):
    """`at` is found wherever the pieces break; what stood before it passes."""
    async with proxied() as (server, proxy), client(proxy) as (reader, writer):
        proxy.trap(Way.UP, at=b"NEEDLE", after=8)
        text = b"hay NEEDLE hay hay"
        writer.write(text[:split])
        await server.until(lambda: server.came == text[:split])
        writer.write(text[split:])
        await until_reset(reader)
        await server.until(lambda: server.ends)
        assert server.came == b"hay NEEDLE h"


async def test_a_trap_may_spring_more_than_once_or_into_silence():
    """Two connections are cut before their first byte; then one answer stops in its middle, and goes on when all is clear."""
    async with proxied() as (server, proxy):
        proxy.trap(Way.UP, times=2)
        for _ in range(2):
            async with client(proxy) as (reader, writer):
                writer.write(b"x")
                with pytest.raises(ConnectionResetError):
                    await reader.readexactly(1)
        assert server.came == b""
        proxy.trap(Way.DOWN, after=2, then=Then.BLACKHOLE)
        async with client(proxy) as (reader, writer):
            writer.write(b"abcd")
            assert await reader.readexactly(2) == b"AB"
            await silent(reader)
            proxy.clear()
            assert await reader.readexactly(2) == b"CD"


async def test_refused_connects_and_the_same_port_again():
    """Nobody listens; what is open stays open; afterwards the very same port works."""
    async with proxied() as (_, proxy), client(proxy) as one:
        port = proxy.port
        await proxy.refuse()
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        assert await say(one, b"ab") == b"AB"
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind((HOST, port))
        await proxy.listen()
        assert proxy.port == port
        async with client(proxy) as two:
            assert await say(two, b"cd") == b"CD"


async def test_a_blackhole_takes_everything_and_says_nothing():
    """An open connection and a new one: nothing passes, nothing ends; what was held passes when it is over."""
    async with proxied() as (server, proxy), client(proxy) as one:
        await say(one, b"ab")
        proxy.set(blackhole=True)
        one[1].write(b"cd")
        async with client(proxy) as two:
            two[1].write(b"ef")
            await silent(one[0])
            await silent(two[0], 0.05)
            assert (server.came, len(server.writers)) == (b"ab", 1)
            proxy.set(blackhole=False)
            async with asyncio.timeout(5):
                assert await one[0].readexactly(2) == b"CD"
                assert await two[0].readexactly(2) == b"EF"


async def test_a_blackhole_swallows_an_end_and_can_be_one_sided():
    """The server's bytes still come while nothing reaches the server, not even a good-bye."""
    async with proxied() as (server, proxy), client(proxy) as (reader, writer):
        await say((reader, writer), b"ab")
        proxy.set(Way.UP, blackhole=True)
        writer.write_eof()
        server.writers[0].write(b"news")
        assert await reader.readexactly(4) == b"news"
        await asyncio.sleep(0.1)
        assert server.ends == []
        proxy.clear()
        await server.until(lambda: server.ends == ["end"])


async def test_a_cut_ends_a_blackhole_for_those_who_wait_in_it():
    """Also a connection that was taken and never got as far as the server."""
    async with proxied() as (server, proxy):
        proxy.set(blackhole=True)
        async with client(proxy) as (reader, _):
            await proxy.until(lambda: proxy.open == 1)
            await proxy.cut()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        assert server.writers == []


async def test_delay():
    """Each direction by its own time, without costing throughput: many pieces under way at once."""
    async with proxied() as (_, proxy), client(proxy) as (reader, writer):
        await say((reader, writer), b"warm")
        proxy.set(Way.UP, delay_s=0.2)
        proxy.set(Way.DOWN, delay_s=0.1)
        started = time.monotonic()
        for _ in range(10):
            writer.write(b"x")
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await reader.readexactly(10)
        assert 0.3 <= time.monotonic() - started < 1.5
        proxy.set(delay_s=60)
        writer.write(b"y")
        await asyncio.sleep(0.05)
        proxy.clear()  # what waits is let go at once
        assert await asyncio.wait_for(reader.readexactly(1), 2) == b"Y"


async def test_rate():
    """1 kB/s is 1 kB/s, in one direction, over all its connections; lifted, the rest comes at once."""
    async with proxied() as (server, proxy), client(proxy) as one, client(proxy) as two:
        await say(one, b"warm")
        proxy.set(Way.UP, rate_bytes_per_s=1000)
        started = time.monotonic()
        answers = await asyncio.gather(say(one, b"x" * 300), say(two, b"y" * 300))
        assert answers == [b"X" * 300, b"Y" * 300]
        assert 0.5 <= time.monotonic() - started < 2.5
        one[1].write(b"z" * 100_000)
        await asyncio.sleep(0.1)
        proxy.clear()
        async with asyncio.timeout(5):
            assert await one[0].readexactly(100_000) == b"Z" * 100_000
        assert len(server.came) == 100_604


async def test_half_close():
    """The server sees an end and can still answer; what the client says afterwards goes nowhere."""
    held = asyncio.Event()

    async def late(reader, writer):
        assert await reader.read() == b"ab"
        await held.wait()
        writer.write(b"after the end")
        writer.close()

    server = await asyncio.start_server(late, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, FaultProxy(HOST, port) as proxy, client(proxy) as (reader, writer):
        writer.write(b"ab")
        await proxy.until(lambda: proxy.passed(Way.UP) == 2)
        proxy.half_close(Way.UP)
        writer.write(b"lost")
        held.set()
        assert await asyncio.wait_for(reader.read(), 5) == b"after the end"
        assert proxy.passed(Way.UP) == 2


async def test_garble():
    """One byte at an offset; or a share of all, the same ones for the same seed."""
    async with proxied() as (server, proxy), client(proxy) as one:
        proxy.set(Way.UP, garble_at=frozenset({1, 4}))
        one[1].write(b"abc")
        await server.until(lambda: len(server.came) == 3)
        one[1].write(b"def")
        await server.until(lambda: len(server.came) == 6)
        wrong = [at for at, (seen, sent) in enumerate(zip(server.came, b"abcdef", strict=True)) if seen != sent]
        assert (wrong, proxy.lanes[Way.UP].garbled) == ([1, 4], 2)
    seen = []
    for seed in (1, 1, 2):
        async with proxied(seed=seed) as (server, proxy), client(proxy) as one:
            proxy.set(Way.UP, garble=0.05)
            one[1].write(b"a" * 2000)
            await server.until(lambda: len(server.came) == 2000)  # noqa: B023
            seen.append(server.came)
    assert seen[0] == seen[1] != seen[2]
    assert 40 < sum(byte != ord("a") for byte in seen[0]) < 200


async def test_rewrite():
    """Pieces are replaced by what a function makes of them."""
    async with proxied() as (_, proxy), client(proxy) as (reader, writer):
        proxy.set(Way.DOWN, rewrite=lambda data: data.replace(b"B", b"--"))
        writer.write(b"abc")
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"A--C"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"delay_s": -1}, ValueError),
        ({"garble": 2}, ValueError),
        ({"rate_bytes_per_s": -1}, ValueError),
        ({"dely": 1}, TypeError),
    ],
)
async def test_a_fault_that_cannot_be_changes_nothing(values, kind):
    """Told at once, and the knobs stay as they were."""
    async with proxied() as (_, proxy):
        with pytest.raises(kind):
            proxy.set(**values)
        async with client(proxy) as one:
            assert await say(one, b"ab") == b"AB"


async def test_tls_on_both_sides_lets_traps_see_inside():
    """A trap on the text within; the client's TLS is the proxy's, the server's its own."""
    authority = Authority("test", clock=SystemClock.here())
    contexts = []
    for name in ("server", "proxy"):
        pair = authority.server(name, ["localhost"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(context, pair)
        contexts.append(context)
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    options = {"server_tls": contexts[1], "client_tls": trust, "server_hostname": "localhost"}
    async with proxied(tls=contexts[0], **options) as (server, proxy):
        async with client(proxy, ssl=trust, server_hostname="localhost") as one:
            assert await say(one, b"hello") == b"HELLO"
            proxy.trap(Way.DOWN, at=b"SECRET", after=2)
            one[1].write(b"the secret")
            assert await asyncio.wait_for(one[0].readexactly(6), 5) == b"THE SE"
            with pytest.raises((ConnectionResetError, ssl.SSLError)):
                await one[0].readexactly(1)
        async with client(proxy, ssl=trust, server_hostname="localhost") as two:
            assert await say(two, b"again") == b"AGAIN"
            server.writers[-1].close()
            assert await asyncio.wait_for(two[0].read(), 5) == b""  # its good-bye is passed on as one


async def test_a_server_that_is_away_resets_who_connects():
    """The proxy takes the connection and cannot pass it on; once the server is there it can. The upstream may change."""
    with socket.create_server((HOST, 0)) as gone:
        port = gone.getsockname()[1]
    async with proxied() as (server, proxy):
        there, proxy.upstream = proxy.upstream, (HOST, port)
        async with client(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        proxy.upstream = there
        async with client(proxy) as one:
            assert await say(one, b"ab") == b"AB"
        assert len(server.writers) == 1


def by_hand(*arguments, said=""):
    command = [sys.executable, "-m", "bridge.testing", *arguments]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=30, check=False)


def test_by_hand():
    """`python -m bridge.testing` obeys the words of its prompt and says what it cannot do."""
    with socket.create_server((HOST, 0)) as server:
        target = f"{HOST}:{server.getsockname()[1]}"
        words = "show blackhole delay_0.1_up rate_1000 garble_7 trap_10_down clear refuse listen cut quit"
        done = by_hand(target, said=words.replace(" ", "\n").replace("_", " ") + "\n")
    assert done.returncode == 0, done.stderr
    first, show, *_ = done.stdout.splitlines()
    assert target in first
    assert show == "accepted 0, open 0, cut 0; passed up 0 bytes, down 0 bytes"
    assert "cannot do that: garble 7" in done.stdout
    assert done.stdout.rstrip().endswith("refusing\nlistening\n0 connections reset")
    assert by_hand().returncode == 1
    assert by_hand("host:port").returncode == 1
