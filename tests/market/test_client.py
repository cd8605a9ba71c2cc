"""The HTTPS client against a server that misbehaves: it reports the facts of DOMAIN 5, never more than once, never too much."""

import asyncio
import resource
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import smp_server as smp
from smp_calls import BODY, CLASSES, client, one, post

from bridge.market.client import ClientSettings, SmpClient
from bridge.platform import AnswerClass, Failure, classify
from bridge.sandbox.pki import Authority

IN_DOUBT, RETRY, OURS = AnswerClass.IN_DOUBT, AnswerClass.RETRY, AnswerClass.OUR_FAULT


async def test_it_knows_whether_smp_answers(tmp_path):
    """Since when, and what went wrong last: that stays when the next call is well. A fault of SMP's own is an answer, and an error."""
    script = (smp.answer(), smp.answer("503 Unavailable"), smp.reset, smp.reset, smp.answer())
    async with smp.smp_server(*script) as peer, client(tmp_path, peer) as made:
        reach, seen = made.reach, []
        assert (reach.up, reach.since_ns, reach.error) == (None, 0, "")
        for _ in script:
            await post(made)
            seen.append((reach.up, reach.since_ns, reach.error, reach.error_ns, reach.tried_ns))
    first, faulty, lost, again, well = seen
    assert [each[0] for each in seen] == [True, True, False, False, True]
    assert first[1] == faulty[1] < lost[1] == again[1] < well[1]
    assert [first[2], faulty[2]] == ["", "SMP answered 503"]
    assert lost[2].startswith("connection lost")
    assert lost[3] < again[3] == well[3]
    assert sorted({each[4] for each in seen}) == [each[4] for each in seen]


async def test_a_good_answer_is_reported_whole(tmp_path):
    """Status, headers in lower case, body, and the moments of the first byte out and of the answer."""
    found, answer = await one(tmp_path, smp.answer("202 Accepted", b'{"x":1}', X_One="1"))
    assert (found.status, found.body, found.headers["x-one"], found.sent, found.failure) == (202, b'{"x":1}', "1", True, None)  # fmt: skip
    assert found.first_byte.mono_ns <= found.answered.mono_ns
    assert answer is AnswerClass.ACCEPTED


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        ("302 Found", {"Location": "https://localhost:1/elsewhere"}, OURS),
        ("401 Unauthorized", {}, AnswerClass.UNAUTHORISED),
        ("403 Forbidden", {}, OURS),
        ("404 Not Found", {}, OURS),
        ("413 Too Large", {}, OURS),
        ("417 Expectation Failed", {}, RETRY),
        ("429 Too Many", {}, RETRY),
        ("429 Too Many", {"Retry_After": "7"}, RETRY),
        ("503 Unavailable", {"Retry_After": "7"}, RETRY),
        ("503 Unavailable", {}, IN_DOUBT),
        ("500 Error", {"Retry_After": "7"}, IN_DOUBT),
        ("408 Timeout", {}, IN_DOUBT),
        ("299 Strange", {}, IN_DOUBT),
    ],
)
async def test_statuses(tmp_path, status, headers, expected):
    """Each status reaches the table as it is, with what Retry-After asks for."""
    found, answer = await one(tmp_path, smp.answer(status, b"<html>", **headers))
    assert (found.status, answer) == (int(status[:3]), expected)
    assert found.retry_after_s == (7.0 if "Retry_After" in headers else None)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("0", 0, 0),
        (" 12 ", 12, 12),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 1e9, 1e10),
        ("9" * 400, 1e8, 1e9),
    ],
)
async def test_retry_after_in_both_its_forms(tmp_path, text, least, most):
    """RFC 9110 section 10.2.3: seconds or a date; a number without sense is cut, not feared."""
    found, _ = await one(tmp_path, smp.answer("503 Unavailable", Retry_After=text))
    assert least <= found.retry_after_s <= most


@pytest.mark.parametrize("date", ["Fri, 31 Dec 2100 23:59:00 GMT", "Fri, 31 Dec 2100 23:59:00 -0000"])
async def test_a_retry_after_by_the_peers_clock(tmp_path, date):
    """Our own clock may be hours off: what the peer asks for is the time between its two dates."""
    step = smp.answer("503 Unavailable", Retry_After="Fri, 31 Dec 2100 23:59:59 GMT", Date=date)
    found, _ = await one(tmp_path, step)
    assert found.retry_after_s == 59


@pytest.mark.parametrize("text", ["soon", "-5", "1.5", "²", "Fri, 99 Dec 2100 23:59:59 GMT"])
async def test_a_retry_after_without_sense_is_none(tmp_path, text):
    """Then a 503 says nothing of what became of the call: in doubt."""
    step = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: " + text.encode() + b"\r\n\r\n"
    found, answer = await one(tmp_path, step)
    assert (found.status, found.retry_after_s, answer) == (503, None, IN_DOUBT)


async def test_a_redirect_is_never_followed(tmp_path):
    """The other host sees no connection, and so no token; SMP's own saw one call."""
    async with smp.smp_server() as other:
        step = smp.answer("302 Found", Location=other.url("127.0.0.1") + "/take")
        async with smp.smp_server(step) as peer, client(tmp_path, peer) as made:
            found = await post(made)
            assert len(peer.script.requests) == 1
        assert (found.status, other.connections) == (302, 0)


@pytest.mark.parametrize("step", [smp.gigabyte, smp.endless])
async def test_an_answer_without_end_is_capped(tmp_path, step):
    """1 GB declared, or chunks for ever: cut at the limit, in doubt, and memory stays flat."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, answer = await one(tmp_path, step, settings={"max_answer_bytes": 100_000})
    assert (found.failure, found.sent, found.body, answer) == (Failure.TOO_LARGE, True, b"", IN_DOUBT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


async def test_an_answer_of_exactly_the_limit_is_taken(tmp_path):
    """The limit itself is allowed, one more is not."""
    limit = {"settings": {"max_answer_bytes": 1000}}
    assert (await one(tmp_path, smp.answer(body=b"x" * 1000), **limit))[0].body == b"x" * 1000
    assert (await one(tmp_path, smp.answer(body=b"x" * 1001), **limit))[0].failure is Failure.TOO_LARGE


async def test_a_compressed_answer_is_not_expanded(tmp_path):
    """We ask for none and expand none: its bytes stay what they are."""
    found, _ = await one(tmp_path, smp.answer(body=b"\x1f\x8b\x08", Content_Encoding="gzip"))
    assert found.body == b"\x1f\x8b\x08"


@pytest.mark.parametrize(("step", "failure"), [(smp.silence, Failure.TIMEOUT), (smp.drip, Failure.TIMEOUT)])
async def test_no_answer_in_time_is_in_doubt(tmp_path, step, failure):
    """Silence, or an answer that drips: the wait ends, and what was sent may have been worked."""
    found, answer = await one(tmp_path, step, settings={"connect_s": 1.0, "answer_s": 0.2})
    assert (found.failure, found.sent, answer) == (failure, True, IN_DOUBT)


@pytest.mark.parametrize("step", [smp.reset, smp.half, b"", b"HTTP/1.1 20"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_connection_lost_after_the_body_is_in_doubt_and_never_repeated(tmp_path, step, method):
    """On a fresh connection and on a kept one, by POST and by PUT (which HTTP would allow to repeat): the server sees the call once."""

    async def close(request, writer):
        if step:
            if callable(step):
                await step(request, writer)
            writer.write(step) if isinstance(step, bytes) else None
        raise ConnectionError

    for before in ([], [smp.answer()]):
        async with (
            smp.smp_server(*before, close, rest=smp.answer("202 Accepted")) as peer,
            client(tmp_path, peer) as made,
        ):
            for _ in before:
                assert (await post(made, method=method)).status == 200
            found = await post(made, method=method)
            assert len(peer.script.requests) == len(before) + 1
        assert (found.sent, found.failure) in [(True, Failure.RESET), (True, Failure.PROTOCOL)]
        assert classify(found, CLASSES) is IN_DOUBT


async def test_a_kept_connection_is_used_again(tmp_path):
    """The quiet path pays for no handshake."""
    async with smp.smp_server(rest=smp.answer()) as peer, client(tmp_path, peer) as made:
        for _ in range(5):
            assert (await post(made)).status == 200
        assert peer.connections == 1


async def test_a_large_body_arrives_whole(tmp_path):
    """3 MB leave in pieces, with their length, byte for byte."""
    body = bytes(range(256)) * 12_000
    async with smp.smp_server(smp.answer("202 Accepted")) as peer, client(tmp_path, peer) as made:
        found = await post(made, body=body)
        [request] = peer.script.requests
    assert (found.status, request.body == body, request.headers["content-length"]) == (202, True, str(len(body)))


async def test_nothing_is_added_to_what_was_signed(tmp_path):
    """The body's exact bytes, our own headers, no user agent, no cookie that the server set before."""
    async with (
        smp.smp_server(smp.answer(Set_Cookie="id=1"), smp.answer()) as peer,
        client(tmp_path, peer) as made,
    ):
        await post(made)
        await post(made, **{"Content-Type": "application/json"})
        seen = peer.script.requests[1]
    assert set(seen.headers) == {"host", "x-token", "content-type", "content-length", "accept", "accept-encoding"}
    assert (seen.body, seen.headers["accept-encoding"]) == (BODY, "identity")


async def test_not_http_is_in_doubt(tmp_path):
    """An answer that is no HTTP at all, to a call that was sent."""
    found, answer = await one(tmp_path, b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    assert (found.sent, answer) == (True, IN_DOUBT)
    assert "\n" not in found.detail


# before the first body byte: certainly not processed ---------------------------------------------------------------------


async def test_refused(tmp_path):
    """Nobody listens there."""
    async with smp.smp_server() as peer:
        pass
    async with client(tmp_path, peer) as made:
        found = await post(made)
    assert (found.failure, found.sent, classify(found, CLASSES)) == (Failure.REFUSED, False, RETRY)


async def test_connect_time_out(tmp_path):
    """A listener that takes no connection (its queue is full): given up within the limit."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        settings = ClientSettings(base_url=f"https://127.0.0.1:{full.getsockname()[1]}", connect_s=0.3)
        async with SmpClient(settings, clock=smp.CLOCK) as made:
            found = await post(made)
        for filler in fillers:
            filler.close()
    assert (found.failure, found.sent, classify(found, CLASSES)) == (Failure.CONNECT_TIMEOUT, False, RETRY)


async def test_a_handshake_that_never_ends(tmp_path):
    """The peer takes the connection and says nothing: given up within the limit."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = ClientSettings(base_url=f"https://127.0.0.1:{mute.getsockname()[1]}", connect_s=0.3)
        async with SmpClient(settings, clock=smp.CLOCK) as made:
            found = await post(made)
    assert (found.failure, found.sent, classify(found, CLASSES)) == (Failure.CONNECT_TIMEOUT, False, RETRY)


async def test_reset_before_the_first_body_byte(tmp_path):
    """The connection is cut in the handshake: certainly not processed."""

    async def cut(reader, writer):
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    settings = ClientSettings(base_url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, SmpClient(settings, clock=smp.CLOCK) as made:
        found = await post(made)
    assert (found.sent, classify(found, CLASSES)) == (False, RETRY)
    assert found.failure in (Failure.RESET, Failure.REFUSED, Failure.TLS)


async def test_a_name_that_does_not_exist():
    """No address: certainly not processed."""
    async with SmpClient(ClientSettings(base_url="https://nowhere.invalid"), clock=smp.CLOCK) as made:
        found = await post(made)
    assert (found.failure, found.sent, classify(found, CLASSES)) == (Failure.DNS, False, RETRY)


async def test_a_certificate_of_another_authority(tmp_path):
    """A server that we were not told to trust gets no byte of the call, and so no token."""
    stranger = Authority("stranger", clock=smp.CLOCK)
    context = smp.server_context(stranger)
    async with smp.smp_server(context=context) as peer, client(tmp_path, peer) as made:
        found = await post(made)
        assert peer.script.requests == []
    assert (found.failure, found.sent, classify(found, CLASSES)) == (Failure.TLS, False, RETRY)


async def test_a_certificate_for_another_host(tmp_path):
    """The right authority, another host's name: refused before a byte of the call."""
    async with smp.smp_server(hosts=("other.example",)) as peer, client(tmp_path, peer) as made:
        found = await post(made)
        assert peer.script.requests == []
    assert (found.failure, found.sent, classify(found, CLASSES)) == (Failure.TLS, False, RETRY)


async def test_a_server_without_tls(tmp_path):
    """Plain HTTP at the other end: no byte of the call leaves."""
    async with smp.smp_server(context=False) as peer, client(tmp_path, peer, connect_s=0.5) as made:
        found = await post(made)
        assert peer.script.requests == []
    assert (found.sent, classify(found, CLASSES)) == (False, RETRY)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_tls_is_refused(tmp_path, version):
    """A server that speaks nothing newer than TLS 1.1 gets no byte of the call."""
    authority = Authority("authority", clock=smp.CLOCK)
    context = smp.server_context(authority)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with smp.smp_server(authority=authority, context=context) as peer, client(tmp_path, peer) as made:
        found = await post(made)
    assert (found.sent, classify(found, CLASSES)) == (False, RETRY)


@pytest.mark.parametrize(("least", "sent"), [("1.2", True), ("1.3", False)])
async def test_the_profiles_least_tls_version(tmp_path, least, sent):
    """A server of TLS 1.2 is taken, unless the profile asks for 1.3."""
    authority = Authority("authority", clock=smp.CLOCK)
    context = smp.server_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with (
        smp.smp_server(smp.answer(), authority=authority, context=context) as peer,
        client(tmp_path, peer, tls_minimum=least) as made,
    ):
        assert (await post(made)).sent is sent


# client certificates -----------------------------------------------------------------------------------------------------


def identity(directory, authority, name="acme"):
    """Settings with a client certificate of this authority."""
    pair = authority.client(name)
    for suffix, data in (("crt", pair.certificate), ("key", pair.private_key)):
        (directory / f"{name}.{suffix}").write_bytes(data)
    return {"certificate_file": str(directory / f"{name}.crt"), "key_file": str(directory / f"{name}.key")}


async def test_a_client_certificate_is_shown(tmp_path):
    """A server that asks for one takes the call of the participant that has it."""
    clients = Authority("clients", clock=smp.CLOCK)
    async with (
        smp.smp_server(smp.answer("202 Accepted"), client_ca=clients.pem) as peer,
        client(tmp_path, peer, **identity(tmp_path, clients)) as made,
    ):
        assert (await post(made)).status == 202


async def test_a_renewed_client_certificate_is_shown_without_a_restart(tmp_path):
    """Each new connection shows what the files hold then; between the new certificate and its key the former pair serves on."""
    before, after = Authority("before", clock=smp.CLOCK), Authority("after", clock=smp.CLOCK)
    context = smp.server_context(authority := Authority("authority", clock=smp.CLOCK), client_ca=before.pem)
    context.load_verify_locations(cadata=after.pem.decode())
    shown = []

    async def look(request, writer):
        issuer = dict(pair for [pair] in writer.get_extra_info("peercert")["issuer"])
        shown.append(issuer["commonName"])
        writer.write(smp.answer("202 Accepted", Connection="close"))

    settings = identity(tmp_path, before)
    files = [Path(settings[name]) for name in ("certificate_file", "key_file")]
    pair = after.client("acme")
    async with (
        smp.smp_server(rest=look, authority=authority, context=context) as peer,
        client(tmp_path, peer, **settings) as made,
    ):
        await post(made)
        for file, data in zip(files, (pair.certificate, pair.private_key), strict=True):
            file.write_bytes(data)
            assert (await post(made)).status == 202
    assert shown == ["before", "before", "after"]


@contextmanager
def strict_server(context):
    """One connection whose handshake the server ends with an alert, after which it reads whatever comes, as careful servers do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            taken, _ = listener.accept()
            with taken.dup() as raw:
                with suppress(ssl.SSLError):
                    context.wrap_socket(taken, server_side=True)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", ["none", "wrong"])
async def test_without_the_right_client_certificate_nothing_was_processed(tmp_path, version, shown):
    """None, or one of another authority: the server ends the handshake, so the call is certainly not processed, also where TLS 1.3 tells us late."""
    authority, clients = Authority("authority", clock=smp.CLOCK), Authority("clients", clock=smp.CLOCK)
    context = smp.server_context(authority, client_ca=clients.pem)
    context.minimum_version = context.maximum_version = version
    settings = identity(tmp_path, Authority("others", clock=smp.CLOCK)) if shown == "wrong" else {}
    with strict_server(context) as port:
        peer = smp.Server(authority, None)
        peer.port = port
        async with client(tmp_path, peer, **settings) as made:
            found = await post(made)
    assert (found.failure, found.sent, classify(found, CLASSES)) == (Failure.TLS, False, RETRY), found.detail
