"""The connections to SMP: what counts as a whole answer, what makes a connection unfit for the next call, and the way through a proxy."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import smp_server as smp
from smp_calls import BODY, CLASSES, begun, client, one, post

from bridge.market.client import ClientSettings, SmpClient
from bridge.market.connection import PIECE
from bridge.platform import AnswerClass, Failure, classify

GOOD = smp.answer("202 Accepted", b"{}")


# what is a whole answer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interim", ["100 Continue", "103 Early Hints"])
async def test_an_interim_answer_is_not_the_answer(tmp_path, interim):
    """RFC 9110 section 15.2: whatever came before, the final one counts, and nothing of the interim one's headers stays."""
    found, _ = await one(tmp_path, f"HTTP/1.1 {interim}\r\nX-Early: 1\r\n\r\n".encode() + GOOD)
    assert (found.status, found.body, "x-early" in found.headers) == (202, b"{}", False)


async def test_chunks(tmp_path):
    step = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n3;x=y\r\n   \r\n0\r\n\r\n"
    found, answer = await one(tmp_path, step)
    assert (found.status, found.body, answer) == (202, b"{}   ", AnswerClass.ACCEPTED)


async def test_without_a_length_the_answer_ends_with_the_connection(tmp_path):
    """RFC 9112 section 6.3."""

    async def close(request, writer):
        writer.write(b"HTTP/1.1 202 Accepted\r\nX-One: 1\r\n\r\n{}")
        await writer.drain()
        raise ConnectionError

    found, answer = await one(tmp_path, close)
    assert (found.status, found.body, found.failure, answer) == (202, b"{}", None, AnswerClass.ACCEPTED)


async def test_an_answer_byte_by_byte(tmp_path):
    async def bytewise(request, writer):
        for at in range(len(GOOD)):
            writer.write(GOOD[at : at + 1])
            await writer.drain()

    found, _ = await one(tmp_path, bytewise)
    assert (found.status, found.body) == (202, b"{}")


async def test_a_body_that_no_answer_of_this_status_has(tmp_path):
    """204 has none, and the connection serves the next call."""
    steps = (b"HTTP/1.1 204 No Content\r\n\r\n", GOOD)
    async with smp.smp_server(*steps) as peer, client(tmp_path, peer) as made:
        assert [(await post(made)).status for _ in steps] == [204, 202]
        assert peer.connections == 1


@pytest.mark.parametrize(
    "step",
    [
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: +2\r\n\r\n{}",
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nX One: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 202 Accepted\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"y" * 1000) for n in range(80)) + b"\r\n{}",
        b"HTTP/9.9 202 Accepted\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["two lengths", "lengths that differ", "signed length", "no chunk", "space in a name", "zero byte", "another protocol",
         "80 kB of headers", "another version"],
)  # fmt: skip
async def test_what_is_no_answer_of_http(tmp_path, step):
    """Two readers could take it for two things: the call is in doubt, and the connection is not used again."""
    async with smp.smp_server(step, GOOD) as peer, client(tmp_path, peer) as made:
        found = await post(made)
        assert (found.failure, found.sent) == (Failure.PROTOCOL, True), found
        assert classify(found, CLASSES) is AnswerClass.IN_DOUBT
        assert (await post(made)).status == 202
        assert peer.connections == 2


# which connection is used ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"x"])
async def test_what_nobody_asked_for_is_no_answer_to_the_next_call(tmp_path, more):
    """Bytes behind an answer: the next call goes over another connection and gets its own."""
    async with smp.smp_server(GOOD + more, smp.answer("201 Created")) as peer, client(tmp_path, peer) as made:
        first = await post(made)
        await asyncio.sleep(0.01)
        assert (first.status, (await post(made)).status) in [(202, 201), (0, 201)]
        assert peer.connections == 2


@pytest.mark.parametrize(
    "more", [b"HTTP/1.1 200 OK\r\nX-Id: OTHER\r\nContent-Length: 2\r\n\r\n[]", b"HTTP/1.1 408 ", b"HTTP/1.1 200 OK\r\nX-Id: OTHER\r\n"],
    ids=["whole", "its beginning", "its headers"],
)  # fmt: skip
async def test_a_second_answer_changes_nothing_of_the_first(tmp_path, more):
    """In one segment: the headers of the first are evidence and may hold the transaction id. And its beginning spoils no later call."""
    steps = (smp.answer("202 Accepted", b"{}", X_Id="MINE") + more, smp.answer("201 Created"))
    async with smp.smp_server(*steps) as peer, client(tmp_path, peer) as made:
        first, second = await post(made), await post(made)
        assert (first.status, first.headers["x-id"], second.status) == (202, "MINE", 201)
        assert peer.connections == 2


async def test_a_header_behind_the_body_is_none(tmp_path):
    """RFC 9110 section 6.5.1: a trailer is not merged into the headers."""
    step = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\nX-Id: MINE\r\n\r\n2\r\n{}\r\n0\r\nX-Id: OTHER\r\nX-More: 1\r\n\r\n"
    found, _ = await one(tmp_path, step)
    assert (found.status, found.body, found.headers["x-id"]) == (202, b"{}", "MINE")
    assert "x-more" not in found.headers


async def test_unasked_bytes_while_it_is_idle(tmp_path):
    """A 408 that a server sends before it closes an idle connection is not taken for the answer to the next call."""

    answered, said = asyncio.Event(), asyncio.Event()

    async def then_more(request, writer):
        writer.write(GOOD)
        await writer.drain()
        await answered.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        said.set()

    async with smp.smp_server(then_more, smp.answer("201 Created")) as peer, client(tmp_path, peer) as made:
        assert (await post(made)).status == 202
        answered.set()
        await said.wait()
        await asyncio.sleep(0.05)
        assert (await post(made)).status == 201
        assert peer.connections == 2


async def test_a_server_that_wants_no_more_calls_on_it(tmp_path):
    step = smp.answer("202 Accepted", Connection="close")
    async with smp.smp_server(step, GOOD) as peer, client(tmp_path, peer) as made:
        assert [(await post(made)).status for _ in range(2)] == [202, 202]
        assert peer.connections == 2


# a call that leaves at once ------------------------------------------------------------------------------------------------


async def test_a_call_leaves_at_once_over_an_open_connection(tmp_path):
    """Its first byte is out before anybody else has the loop; without a connection, or with a body that leaves in pieces, nothing is done."""
    async with smp.smp_server(GOOD, GOOD, GOOD) as peer, client(tmp_path, peer) as made:
        assert made.begin("/api", method="POST", headers={}, body=BODY) is None
        await post(made)
        assert made.begin("/api", method="POST", headers={}, body=b"x" * (PIECE + 1)) is None
        assert made.begin("/api", method="POST", headers={"X": "a\r\nb"}, body=BODY) is None
        call = made.begin("/api", method="POST", headers={}, body=BODY, secret="a secret of ours")
        assert call.facts.first_byte is not None
        assert made.begin("/api", method="POST", headers={}, body=BODY) is None  # the only connection is in use
        found = await made.finish(call)
        assert (found.status, found.sent, found.first_byte) == (202, True, call.facts.first_byte)
        assert (await post(made)).status == 202
        assert (peer.connections, [request.body for request in peer.script.requests]) == (1, [BODY] * 3)


@pytest.mark.parametrize("step", [smp.reset, smp.half, smp.silence, smp.gigabyte, smp.endless, b"", b"HTTP/1.1 20", b"nonsense\r\n\r\n"])  # fmt: skip
async def test_what_goes_wrong_with_it_is_told_alike(tmp_path, step):
    """The same facts and the same class as of a call that was sent the longer way, and room for the next one."""
    settings = {"connect_s": 0.3, "answer_s": 0.2, "max_answer_bytes": 100_000, "connections": 1}
    told = []
    for send in (post, begun):
        async with smp.smp_server(GOOD, step, GOOD) as peer, client(tmp_path, peer, **settings) as made:
            await post(made)
            found = await send(made)
            told.append((found.failure, found.sent, found.status, classify(found, CLASSES)))
            assert (await post(made)).status == 202
            assert len(peer.script.requests) == 3
    assert told[0] == told[1]
    assert told[1][3] is AnswerClass.IN_DOUBT


async def test_who_waits_for_a_connection_is_served_in_order(tmp_path):
    """One who gives up while he waits, or in the moment in which he is given the connection, takes nobody's turn."""
    async with smp.smp_server(*[GOOD] * 5) as peer, client(tmp_path, peer, connections=1) as made:
        pool = made._pool
        held = await pool.take()
        served = []

        async def wait(name):
            connection = await pool.take()
            served.append(name)
            pool.give(connection)

        tasks = [asyncio.ensure_future(wait(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        pool.give(held)
        tasks[0].cancel()  # it has been given the connection, and has not heard of it
        assert not pool.ready
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, True, False, False]
        assert served == ["c", "d"]
        assert pool.ready


async def test_a_connection_that_was_idle_for_too_long_is_ended(tmp_path):
    """Before the server does it in the moment of a call; without one, too."""
    gone = asyncio.Event()

    async def watched(request, writer):
        writer.write(GOOD)
        await writer.drain()
        asyncio.get_running_loop().create_task(watch(writer))

    async def watch(writer):
        await writer.wait_closed()
        gone.set()

    async with smp.smp_server(watched, GOOD) as peer, client(tmp_path, peer, idle_s=0.05) as made:
        assert (await post(made)).status == 202
        async with asyncio.timeout(5):
            while made._pool._idle:
                await asyncio.sleep(0.01)
        assert (await post(made)).status == 202
        assert peer.connections == 2


async def test_no_more_connections_than_allowed(tmp_path):
    """The third of three calls waits for one of two connections; all are answered."""
    most, now = 0, 0

    async def slow(request, writer):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        writer.write(GOOD)
        await writer.drain()

    async with smp.smp_server(rest=slow) as peer, client(tmp_path, peer, connections=2) as made:
        found = await asyncio.gather(*(post(made) for _ in range(5)))
        assert ([one.status for one in found], peer.connections, most) == ([202] * 5, 2, 2)


async def test_a_call_that_is_cancelled_takes_its_connection_along(tmp_path):
    """Its late answer is nobody else's."""
    async with smp.smp_server(smp.silence, GOOD) as peer, client(tmp_path, peer) as made:
        asked = asyncio.create_task(post(made))
        while not peer.script.requests:
            await asyncio.sleep(0.001)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert (await post(made)).status == 202
        assert peer.connections == 2


@asynccontextmanager
async def _listening(serve):
    """A server that does what it likes with its connections."""
    authority = smp.Authority("authority", clock=smp.CLOCK)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=smp.server_context(authority))
    peer = smp.Server(authority, None)
    peer.port = server.sockets[0].getsockname()[1]
    async with server:
        yield peer


async def test_an_early_refusal_of_a_large_call(tmp_path):
    """A server that answers 413 while the call is still on its way: that answer is the answer."""

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(smp.answer("413 Too Large"))
        await writer.drain()
        while await reader.read(65536):
            pass
        writer.close()

    async with _listening(refuse) as peer, client(tmp_path, peer) as made:
        found = await post(made, body=b" " * 3_000_000)
    assert (found.status, found.sent) == (413, True)


@pytest.mark.parametrize("after_s", [0, 0.1], ids=["at once", "with all buffers full"])
async def test_a_call_that_was_answered_before_it_had_left_ends_its_connection(tmp_path, after_s):
    """A gateway refuses by the headers alone and reads no further: the answer is told at once, and the next call is not taken for the rest of this one."""
    heads = []

    async def gateway(reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                await asyncio.sleep(after_s)
                writer.write(smp.answer("401 Unauthorized") if len(heads) == 1 else GOOD)
                await writer.drain()
                if len(heads) == 1:
                    await asyncio.Event().wait()
        writer.close()

    async with _listening(gateway) as peer, client(tmp_path, peer) as made:
        async with asyncio.timeout(3):
            first = await post(made, body=b" " * 8_000_000)
        second = await post(made)
    assert (first.status, second.status, len(heads)) == (401, 202, 2)


@pytest.mark.parametrize("value", ["a\r\nX-More: 1", "a\nb", "a\x00b", "a\rb"])
async def test_a_header_that_would_end_before_its_end_is_never_sent(tmp_path, value):
    async with smp.smp_server(GOOD) as peer, client(tmp_path, peer) as made:
        found = await made.post("/api", method="POST", headers={"X-One": value}, body=BODY)
        assert (found.sent, found.failure, peer.connections) == (False, Failure.PROTOCOL, 0)


async def test_the_path_below_the_base_address(tmp_path):
    """The base address may have a path of its own; the port is named in Host where it is not TLS's."""
    async with smp.smp_server(GOOD) as peer:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(peer.authority.pem)
        settings = ClientSettings(base_url=peer.url() + "/gate", ca_file=str(ca))
        async with SmpClient(settings, clock=smp.CLOCK) as made:
            await made.post("/api/v1/assets", method="PUT", headers={}, body=BODY)
        [request] = peer.script.requests
    assert (request.line, request.headers["host"]) == ("PUT /gate/api/v1/assets HTTP/1.1", f"localhost:{peer.port}")


# through a proxy ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def proxy(answer=b"HTTP/1.1 200 Connection established\r\n\r\n", *, context=None):
    """A proxy that lets through whom its answer lets through; what was asked of it."""
    asked = []

    async def pipe(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0].decode())
        writer.write(answer)
        if b" 200 " in answer:
            there = await asyncio.open_connection("127.0.0.1", int(head.split(b" ")[1].rsplit(b":")[-1]))
            with suppress(asyncio.CancelledError):
                await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer), return_exceptions=True)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


async def test_the_proxy_sees_a_tunnel_and_nothing_else(tmp_path):
    async with smp.smp_server(rest=GOOD) as peer, proxy() as (port, asked):
        async with client(tmp_path, peer, proxy=f"http://127.0.0.1:{port}") as made:
            assert [(await post(made)).status for _ in range(2)] == [202, 202]
        assert asked == [f"CONNECT localhost:{peer.port} HTTP/1.1"]
        assert peer.connections == 1


async def test_a_proxy_over_tls(tmp_path):
    async with smp.smp_server(GOOD) as peer:
        context = smp.server_context(peer.authority)
        async with (
            proxy(context=context) as (port, asked),
            client(tmp_path, peer, proxy=f"https://localhost:{port}") as made,
        ):
            assert ((await post(made)).status, len(asked)) == (202, 1)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"SSH-2.0\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\nmore"],
)
async def test_a_proxy_that_lets_nobody_through(tmp_path, answer):
    """Not one byte of the call left: it goes again."""
    async with (
        smp.smp_server(GOOD) as peer,
        proxy(answer) as (port, _),
        client(tmp_path, peer, proxy=f"http://127.0.0.1:{port}") as made,
    ):
        found = await post(made)
        assert (found.failure, found.sent, peer.connections) == (Failure.REFUSED, False, 0)
        assert classify(found, CLASSES) is AnswerClass.RETRY


async def test_the_host_behind_a_proxy_is_checked_all_the_same(tmp_path):
    """The proxy leads us to another server: its certificate is not for the host that we asked for."""
    async with (
        smp.smp_server(GOOD, hosts=("other.example",)) as peer,
        proxy() as (port, _),
        client(tmp_path, peer, proxy=f"http://127.0.0.1:{port}") as made,
    ):
        found = await post(made)
        assert (found.failure, found.sent, peer.script.requests) == (Failure.TLS, False, [])


async def test_a_tunnel_that_ends_right_after_its_handshake(tmp_path, monkeypatch):
    """In the same turn of the loop, so that there is no connection to give: no byte of the call has left, and it goes again."""
    complete = asyncio.sslproto.SSLProtocol._on_handshake_complete

    def ended(self, error):
        complete(self, error)
        self.connection_lost(None)

    async with (
        smp.smp_server(rest=GOOD) as peer,
        proxy() as (port, _),
        client(tmp_path, peer, proxy=f"http://127.0.0.1:{port}") as made,
    ):
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.sslproto.SSLProtocol, "_on_handshake_complete", ended)
            found = await post(made)
        assert (found.failure, found.sent, peer.script.requests) == (Failure.RESET, False, [])
        assert classify(found, CLASSES) is AnswerClass.RETRY
        assert (await post(made)).status == 202
