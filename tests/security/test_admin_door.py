"""What somebody without a token may hold open at the admin listener: few connections, and none for long."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack, suppress

import pytest
import pytest_asyncio
from admin import value
from admin_world import admin_world
from aiohttp import web

from bridge.web.admin import BOUNDS
from bridge.web.public import Bounds, PublicListener

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLACES = 3
LARGE = 6_000_000  # more than what lies between two sockets


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    """Its port is one of a door with short limits."""
    async with admin_world(tmp_path_factory.mktemp("admin"), without_token=True) as made, AsyncExitStack() as stack:
        door = made.listener.door(None, Bounds(head_s=0.3, idle_s=0.5, per_source=PLACES, in_all=PLACES))
        made.port = await door.start(stack, "127.0.0.1", 0, None)
        yield made


def refused(world, reason):
    return value(world.metrics.render().decode(), "smp_bridge_admin_refused_total", reason=reason) or 0


async def said(world, first):
    """What comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(first)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("first", [b"", b"GET /health/live HT"])
async def test_a_head_that_does_not_come(world, first):
    """The connection is closed at the limit."""
    before, since = refused(world, "head_too_slow"), time.monotonic()
    assert await said(world, first) == b""
    assert time.monotonic() - since > 0.25
    assert refused(world, "head_too_slow") == before + 1


async def test_more_connections_than_there_are_places(world):
    """One too many is closed at once, and a place that was given back is another's; who asks well is served."""
    idle = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(PLACES)]
    before = refused(world, "too_many_connections")
    assert await said(world, b"") == b""
    assert refused(world, "too_many_connections") == before + 1
    for _, writer in idle:
        writer.transport.abort()
    async with asyncio.timeout(5):
        while not (await said(world, b"GET /health/live HTTP/1.0\r\nHost: localhost\r\n\r\n")).startswith(
            b"HTTP/1.0 200"
        ):
            await asyncio.sleep(0.01)


async def opened(stack, answer, bounds, passed=None):
    """A door with one route; what it refused, and its port."""
    application, refusals = web.Application(), []
    application.router.add_get("/", answer)
    door = PublicListener(application, bounds=bounds, context=None, refused=refusals.append, malformed=web.Response)
    return door, refusals, await door.start(stack, "127.0.0.1", 0, passed)


async def read_slowly(port, pause_s):
    """How many bytes come to somebody who takes 64 KiB, waits, and takes the next."""
    loop, narrow, found = asyncio.get_running_loop(), socket.socket(), 0
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    narrow.setblocking(False)
    with narrow, suppress(ConnectionError):
        await loop.sock_connect(narrow, ("127.0.0.1", port))
        await loop.sock_sendall(narrow, b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(8):
            while part := await loop.sock_recv(narrow, 64 * 1024):
                found += len(part)
                await asyncio.sleep(pause_s)
    return found


@pytest.mark.parametrize(("slowest", "whole"), [(LARGE // 5, True), (LARGE * 100, False)])
async def test_a_large_answer_over_a_slow_line(slowest, whole):
    """It has time by its size: whoever reads on in that has all of it, and whoever does not is closed."""

    async def large(_):
        return web.Response(body=bytes(LARGE))

    async with AsyncExitStack() as stack:
        _, refusals, port = await opened(stack, large, Bounds(head_s=0.1, slowest=slowest))
        found = await read_slowly(port, 0.01)
    assert (found > LARGE, refusals) == (whole, [] if whole else ["answer_not_read"])


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_end_of_an_answer_that_nobody_reads(version):
    """It lies in our buffer when the connection is closed, at once or after its idle time; its place is given back all the same."""
    small, narrow = socket.socket(), socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    small.bind(("127.0.0.1", 0))
    small.listen()
    narrow.setblocking(False)

    async def some(_):
        return web.Response(body=bytes(40_000))

    async with AsyncExitStack() as stack:
        door, refusals, port = await opened(stack, some, Bounds(head_s=0.1, idle_s=0.1, slowest=LARGE), small)
        await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
        with narrow:
            await asyncio.get_running_loop().sock_sendall(narrow, f"GET / HTTP/{version}\r\nHost: x\r\n\r\n".encode())
            async with asyncio.timeout(8):
                while "answer_not_read" not in refusals or door.connections:
                    await asyncio.sleep(0.01)


async def test_what_is_no_http(world):
    """It is answered in our words, which repeat nothing of it and name no library."""
    answer = await said(world, b"\x16\x03\x01 <script>\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"this is no request of HTTP" in answer
    assert b"Server: smp-bridge\r\n" in answer
    assert b"script" not in answer
    assert b"aiohttp" not in answer


async def test_as_it_is_shipped():
    """A Prometheus that asks once a minute keeps its connection; one source has half of the places at most."""
    assert BOUNDS.idle_s > 60
    assert 2 * BOUNDS.per_source <= BOUNDS.in_all < Bounds().in_all
