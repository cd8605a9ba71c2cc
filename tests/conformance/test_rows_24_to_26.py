"""DOMAIN 9, rows 24 to 26: what is no HTTP, what stops in its middle, and who keeps connections to himself."""

import asyncio
import json
import socket
import struct
import time
from contextlib import suppress

import pytest
import pytest_asyncio
from end_point import each, listening

from bridge.market.endpoint import BODY_S
from bridge.market.flood import source_of
from bridge.web.public import Bounds

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROBLEM = {"type": "about:blank", "title": "Bad request", "status": 400}


def chunked(body, extension=b"", end=b"\r\n"):
    return b"%x%b%b" % (len(body), extension, end) + body + end + b"0" + end + end


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    """One end point for whatever is refused before anything is understood."""
    async with listening(tmp_path_factory.mktemp("shared")) as made:
        yield made


def answers(data):
    """Status and body of each answer on a connection."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        found.append((int(head.split(b" ")[1]), rest[:length]))
        data = rest[length:]
    return found


async def framed(smp, lines, make_body, reason="bad_http"):
    """A message that was just taken, framed otherwise: 400 once, then the end of the connection; nothing is stored, no bytes come back."""
    _, good = await smp.accepted()
    body, [token] = good.sent()
    before, told, counted = smp.stored(), smp.told(), smp.refusals()
    head = smp.head(*(line.replace("LENGTH", str(len(body))) for line in lines), token=token)
    found = answers(await smp.raw(head + make_body(body) + b"POST /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert tuple(status for status, _ in found) == (400,)
    assert json.loads(found[-1][1]) == PROBLEM
    assert smp.new_refusals(counted) == {reason: 1}, "and what followed was not worked as a request"
    assert (smp.stored(), smp.told()) == (before, told)


def whole(body):
    return body


@each(
    (["Content-Length: LENGTH", "Content-Length: 7"],),
    (["Content-Length: LENGTH", "Content-Length: LENGTH"],),
    (["Content-Length: LENGTH, LENGTH"],),
    (["Content-Length: +LENGTH"],),
    (["Content-Length: -1"],),
    (["Content-Length: 0x10"],),
    (["Content-Length: LENGTH", "Transfer-Encoding: chunked"],),
    (["Transfer-Encoding: chunked", "Content-Length: LENGTH"],),
    (["Transfer-Encoding: identity"],),
    (["Transfer-Encoding: xchunked"],),
    (["Transfer-Encoding: chunked, chunked"],),
    (["Transfer-Encoding : chunked"],),
    (["Transfer-Encoding: \x0bchunked"],),
    (["Content-Length: LENGTH", "X-A: b", " c"],),
    (["Content-Length: LENGTH", "X-A: b", "\tContent-Length: 7"],),
    (["Content-Length: LENGTH", "X-A : b"],),
    (["X-A: b\nContent-Length: LENGTH"],),
    (["X-A: b\rContent-Length: LENGTH"],),
    (["Content-Length: LENGTH", "X-A: b\x00c"],),
    (["Content-Length: LENGTH", "Host: other"],),
    (["Content-Length: LENGTH", *(f"X-{number}: y" for number in range(300))],),
)
async def test_row_24_heads(shared, lines):
    """Row 24: "Content-Length ... two different, with Transfer-Encoding; ... bare LF; obs-fold": 400 and close, nothing behind it is worked."""
    await framed(shared, lines, whole)


@each(
    lambda body: chunked(body, b";x=\ny"),
    lambda body: chunked(body, b";x=\r y"),
    lambda body: chunked(body, b" ;\x00"),
    lambda body: chunked(body, end=b"\n"),
    lambda body: b"0x" + chunked(body),
    lambda body: b"-" + chunked(body),
    lambda body: b"ffffffffffffffffff\r\n" + body,
    lambda body: b"%x\r\n" % len(body) + body + b"0\r\n\r\n",
)
async def test_row_24_chunks(shared, make_body):
    """Row 24: "chunk extension abuse; bare LF": 400 and close, nothing behind it is worked."""
    await framed(shared, ["Transfer-Encoding: chunked"], make_body)


async def test_row_24_a_length_that_is_too_short(shared):
    """Row 24: "Content-Length shorter": what is left over is no request: 400 and close, and the cut message is not taken."""
    await framed(shared, ["Content-Length: 40"], whole)


async def test_row_24_a_length_that_is_too_long(shared):
    """Row 24: "Content-Length ... longer": what would have been the next request is only the rest of a body that is not authentic."""
    _, good = await shared.accepted()
    body, [token] = good.sent()
    before, counted = shared.stored(), shared.refusals()
    sent = body + b"POST /smuggled HTTP/1.1\r\n\r\n"
    head = shared.head(f"Content-Length: {len(sent)}", "Connection: close", token=token)
    assert [status for status, _ in answers(await shared.raw(head + sent))] == [401]
    assert (shared.new_refusals(counted), shared.stored()) == ({"bad_signature": 1}, before)


async def test_row_24_good_chunks_are_taken(shared):
    """Row 24, the other side of its edge: chunks, with an extension that says nothing."""
    body, [token] = shared.seal(shared.draft()).sent()
    head = shared.head("Transfer-Encoding: chunked", "Connection: close", token=token)
    assert [status for status, _ in answers(await shared.raw(head + chunked(body, b";x=y")))] == [202]


async def test_row_24_an_answer_names_no_software(shared):
    """Row 24: what is no HTTP learns neither the parser's reason nor its version."""
    answer = await shared.raw(b"\x16\x03\x01 no HTTP\r\n\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == PROBLEM
    assert b"aiohttp" not in answer
    assert b"Python" not in answer


# row 25 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_row_25_a_body_that_is_cut(shared, framing, how):
    """Row 25: "truncated body, connection reset mid-body": "no record beyond a log line"."""
    _, good = await shared.accepted()
    body, [token] = good.sent()
    before, told, counted = shared.stored(), shared.told(), shared.refusals()
    framed = "Transfer-Encoding: chunked" if framing == "chunks" else f"Content-Length: {len(body)}"
    part = chunked(body)[: len(body) // 2] if framing == "chunks" else body[: len(body) // 2]

    async def cut(writer):
        await asyncio.sleep(0.02)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    assert await shared.raw(shared.head(framed, token=token) + part, then=cut) == b""
    async with asyncio.timeout(5):
        while not shared.new_refusals(counted):
            await asyncio.sleep(0.01)
    assert shared.new_refusals(counted) == {"bad_body": 1}
    assert (shared.stored(), shared.told()) == (before, told)
    await shared.accepted()


# row 26 ------------------------------------------------------------------------------------------------------------------


async def test_row_26_the_limits():
    """Row 26: "closed at 10 s header / 30 s body"."""
    bounds = Bounds()
    assert (bounds.handshake_s, bounds.head_s, BODY_S) == (10.0, 10.0, 30.0)


async def closed_after(smp, first, *, drip=b"", tls=True):
    """Seconds until the server closes a connection on which only this is said."""
    reader, writer = await asyncio.open_connection("localhost", smp.port, ssl=smp.trust if tls else None)
    since = time.monotonic()
    try:
        writer.write(first)
        answer = asyncio.get_running_loop().create_task(reader.read())
        async with asyncio.timeout(10):
            while not answer.done():
                await asyncio.sleep(0.02)
                if drip:
                    writer.write(drip)
            with suppress(ConnectionError):
                assert await answer == b""
        return time.monotonic() - since
    finally:
        writer.transport.abort()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(tmp_path_factory):
    """An end point with less than a second for whatever has ten, and room for eight connections of one source."""
    bounds = Bounds(handshake_s=0.8, head_s=0.8, idle_s=2.0, linger_s=0.1, per_source=8)
    async with listening(tmp_path_factory.mktemp("hasty"), bounds=bounds, limits={"body_s": 0.8}) as made:
        yield made


@each(
    ("slowloris", b"POST / HTTP/1.1\r\nX-A: ", b"y", "head_too_slow"),
    ("a head that stops", b"POST / HTTP/1.1\r\n", b"", "head_too_slow"),
    ("idle", b"", b"", "head_too_slow"),
)
async def test_row_26_slow_heads(hasty, what, first, drip, reason):
    """Row 26: "slowloris headers": closed at the limit, however busily they drip."""
    counted = hasty.refusals()
    assert 0.4 < await closed_after(hasty, first, drip=drip) < 5
    assert hasty.new_refusals(counted) == {reason: 1}


async def test_row_26_a_handshake_without_data(hasty):
    """Row 26: "handshake without data": closed at the limit."""
    counted = hasty.refusals()
    assert 0.4 < await closed_after(hasty, b"", tls=False) < 5
    assert hasty.new_refusals(counted) == {"handshake": 1}


async def test_row_26_a_slow_body(hasty):
    """Row 26: "slow body 1 byte/s": 408 at the limit, however busily it drips."""
    counted = hasty.refusals()
    answer = await hasty.raw(hasty.head("Content-Length: 100000"), more=b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert hasty.new_refusals(counted) == {"body_too_slow": 1}


async def test_row_26_a_slow_second_head(hasty):
    """Row 26: a connection that was good once has no more time for its next head; without one it stands until the idle limit."""
    body, [token] = hasty.seal(hasty.draft()).sent()
    whole = hasty.head(f"Content-Length: {len(body)}", token=token) + body
    for first, reason in ((b"", {}), (b"POST / HT", {"head_too_slow": 1})):
        reader, writer = await asyncio.open_connection("localhost", hasty.port, ssl=hasty.trust)
        writer.write(whole)
        await reader.readuntil(b"}")
        counted, since = hasty.refusals(), time.monotonic()
        writer.write(first)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        assert hasty.new_refusals(counted) == reason
        assert reason or time.monotonic() - since > 1.2
        writer.transport.abort()


async def test_row_26_answers_that_nobody_reads(hasty):
    """Row 26, the other way round: who asks on and on and reads no answer holds a place no longer than a slow sender."""
    await idle_ones_are_gone(hasty)
    counted = hasty.refusals()
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", hasty.port))
    _, writer = await asyncio.open_connection(sock=narrow, ssl=hasty.trust, server_hostname="localhost", limit=1024)
    try:
        async with asyncio.timeout(8):
            with suppress(ConnectionError):
                while True:
                    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
                    await writer.drain()
    finally:
        writer.transport.abort()
    found = hasty.new_refusals(counted)
    assert (found.pop("answer_not_read"), set(found)) == (1, {"http_404"})
    await idle_ones_are_gone(hasty)


async def test_row_26_connections_of_one_source(hasty):
    """Row 26: "1000 idle sockets": what is beyond the bound is closed at once, before any handshake; places come back."""
    await idle_ones_are_gone(hasty)
    counted = hasty.refusals()
    idle = [await asyncio.open_connection("localhost", hasty.port) for _ in range(hasty.listener.bounds.per_source)]
    since = time.monotonic()
    reader, writer = await asyncio.open_connection("localhost", hasty.port)
    assert await reader.read() == b""
    assert time.monotonic() - since < 0.6  # before the time of a handshake is over
    assert hasty.new_refusals(counted) == {"too_many_connections": 1}
    for _, one in [*idle, (reader, writer)]:
        one.transport.abort()
    await idle_ones_are_gone(hasty)
    await hasty.accepted()


async def idle_ones_are_gone(smp):
    async with asyncio.timeout(5):
        while smp.listener.connections:
            await asyncio.sleep(0.01)


async def test_row_26_idle_sockets_slow_nobody(tmp_path):
    """Row 26: "1000 idle sockets; other participants' p99 < 2x": with every place but one taken by them, a return is answered as before."""
    async with listening(tmp_path, bounds=Bounds(per_source=1001, in_all=1001)) as smp:
        quiet = await times(smp)
        idle = await connected(smp, 1000)
        assert smp.listener.connections == 1001
        loud = await times(smp)
        assert smp.listener.connections == 1001
        for one in idle:
            one.close()
        # The second slowest may be the machine's own pause; half of them cannot.
        assert loud[-2] < max(2 * quiet[-2], 0.25)
        assert loud[len(loud) // 2] < max(2 * quiet[len(quiet) // 2], 0.1)


async def test_row_26_a_thousand_idle_sockets_by_default(tmp_path):
    """Row 26: as the host is shipped one source has 128 places: of its thousand sockets the others are closed before any handshake."""
    async with listening(tmp_path) as smp:
        idle = await connected(smp, 1000)
        most = Bounds().per_source
        async with asyncio.timeout(10):
            while smp.refusals().get("too_many_connections", 0) < 1000 - most:
                await asyncio.sleep(0.01)
        assert (smp.refusals(), smp.listener.connections) == ({"too_many_connections": 1000 - most}, most)
        for one in idle:
            one.close()


async def connected(smp, number):
    """So many sockets that say nothing."""
    sockets = []
    for _ in range(number):
        sockets.append(one := socket.socket())
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", smp.port))
    return sockets


async def times(smp, number=40):
    """How long some answers take, in seconds, the slowest last."""
    taken = []
    for _ in range(number):
        body, tokens = smp.seal(smp.draft()).sent()
        since = time.monotonic()
        assert (await smp.send(body, tokens))[0] == 202
        taken.append(time.monotonic() - since)
    return sorted(taken)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
async def test_row_26_what_a_source_is(address, source):
    """A subscriber's whole IPv6 network is one source; an IPv4 address is one however it is written."""
    assert source_of(address) == source
