"""Connections: trust, credentials, loss, and what is left behind."""

import asyncio
import gc
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme
from mosquitto import HOST, Peer, free_port, mosquitto
from mqtt_site import ASSET, REQUEST, context_of, options_of, outcome, read_site, request, selection_of, take
from played_broker import PlayedBroker, serving

from adapters.mqtt import ADAPTER
from bridge.api import LinkError, LinkRefused
from bridge.testing.proxy import FaultProxy, Way

CHILD = Path(__file__).parents[2] / "support" / "mqtt_child.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{CHILD.parents[2]}:{CHILD.parent}"}
CONNACK = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}


def open_at(**options):
    return ADAPTER.open(context_of(options_of(read_site(), **options)))


async def refused(**options):
    """Opening fails with this refusal."""
    with pytest.raises(LinkRefused) as caught:
        async with open_at(**options):
            pass
    assert caught.value.hint
    return str(caught.value)


async def fails(**options):
    """Opening fails with this error, which is no refusal."""
    with pytest.raises(LinkError) as caught:
        async with open_at(**options):
            pass
    assert type(caught.value) is LinkError
    return caught.value


async def ends(**options):
    """The session ends by itself with this error, while it opens or later."""
    with pytest.raises(LinkError) as caught:  # noqa: PT012
        async with asyncio.timeout(10), open_at(**options) as link:
            while True:
                await link.receive()
    return caught.value


async def test_tls_and_password(tmp_path, version):
    """The way the shipped site connects."""
    async with (
        mosquitto(tmp_path / "broker", tls=True, user="smp-bridge", password="wünderbar") as broker,
        Peer(broker) as ems,
        open_at(**broker.options(version=version, password="wünderbar")) as link,
    ):
        await ems.publish(REQUEST.format("EV001"), request("r-1", remark="x" * 200_000))
        await take(link)
        assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1")))


async def test_a_wrong_password_is_refused(tmp_path, version):
    """With a hint, and without the password."""
    async with mosquitto(tmp_path / "broker", user="smp-bridge", password="right") as broker:
        for options in ({"password": "wrong-secret"}, {"user": "nobody", "password": "wrong-secret"}):
            text = await refused(**broker.options(version=version, **options))
            assert "refuses the connection" in text
            assert "wrong-secret" not in text


async def test_an_unknown_authority_is_refused(tmp_path, version):
    """A certificate that another authority signed is never accepted, nor one of the machine's authorities when there are none."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    async with mosquitto(tmp_path / "broker", tls=True) as broker:
        for tls in ({"ca": str(other)}, {}):
            text = await refused(**broker.options(version=version, tls=tls))
            assert "certificate is not trusted" in text


async def test_another_host_name_is_refused(tmp_path):
    """The certificate must name the host that was asked for."""
    async with mosquitto(tmp_path / "broker", tls=True, names=("broker.example",)) as broker:
        assert "certificate is not trusted" in await refused(**broker.options())


async def test_files_that_are_no_certificates_are_refused(tmp_path):
    """An empty authority file would trust nobody, or everybody; neither is meant."""
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    async with mosquitto(tmp_path / "broker", tls=True) as broker:
        assert "cannot be used" in await refused(**broker.options(tls={"ca": str(empty)}))


async def test_a_client_certificate(tmp_path, version):
    """Where the broker asks for one it is shown; without it the error says what may be missing."""
    async with mosquitto(tmp_path / "broker", tls=True, extra="require_certificate true") as broker:
        own = broker.authority.issue_cert("smp-bridge")
        own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
        own.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
        tls = {"ca": str(broker.ca), "certificate": str(tmp_path / "own.pem"), "private_key": str(tmp_path / "own.key")}
        async with open_at(**broker.options(version=version, tls=tls)):
            pass
        error = await fails(**broker.options(version=version))
        assert "client certificate" in error.hint or "TLS" in error.hint


async def test_tls_against_a_plain_port_and_the_other_way_round(tmp_path):
    """Both are errors that say what may be wrong."""
    async with mosquitto(tmp_path / "plain") as plain, mosquitto(tmp_path / "secured", tls=True) as secured:
        error = await fails(**plain.options(tls={"ca": str(secured.ca)}))
        assert error.hint
        error = await fails(**secured.options(tls=None))
        assert "TLS" in error.hint


async def test_a_password_in_clear_is_warned_of(tmp_path, caplog):
    """Plain TCP with a password works, and is said."""
    async with (
        mosquitto(tmp_path / "broker", user="smp-bridge", password="right") as broker,
        open_at(**broker.options(password="right")),
    ):
        assert "mqtt_password_in_clear" in caplog.text


async def test_nobody_there_and_an_unknown_host():
    """Link errors, which the core tries again."""
    await fails(host=HOST, port=free_port())
    error = await fails(host="no-such-host.invalid", port=1883)
    assert "no-such-host.invalid:1883" in str(error)


async def test_a_subscription_that_the_broker_refuses(version):
    """Policy, so a refusal; the topic is named. (mosquitto 2.0 grants every subscription and then delivers nothing, hence the played broker.)"""
    suback = b"\x90\x04\x00\x01\x80\x01" if version == "3.1.1" else b"\x90\x05\x00\x01\x00\x87\x01"
    async with silent_server(CONNACK[version], suback) as (port, _closed):
        assert "asset/+/registration (" in await refused(host=HOST, port=port, version=version)


async def test_a_status_topic_that_the_broker_does_not_let_us_write(tmp_path):
    """Policy, so a refusal (MQTT 5 tells it): nobody would know whether we are there."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite acme/crawley/#\n")
    async with mosquitto(tmp_path / "broker", extra=f"acl_file {acl}") as broker:
        with pytest.raises(LinkRefused, match="refuses acme/host/status"):
            async with asyncio.timeout(10), open_at(**broker.options(version="5")) as link:
                await link.receive()


async def test_a_subscription_that_is_never_answered_ends_the_session(monkeypatch):
    """A broker may hand out what it kept before it answers, so a message ends the wait at opening; the answer itself still has to come."""
    monkeypatch.setattr("adapters.mqtt.link.LATE_S", 0.2)
    message = b"\x30\x05\x00\x01xhi"
    async with silent_server(CONNACK["3.1.1"], message) as (port, _closed):
        error = await ends(host=HOST, port=port, status_topic=None)
    assert "subscribing: the broker gave no answer within 0.2 s" in str(error)


@pytest.mark.parametrize(
    ("reason", "hint"), [(0x87, "may this user"), (0x9E, "`share:`"), (0xA2, "`+`"), (0x97, "limit")]
)
async def test_a_refused_subscription_says_what_to_look_at(reason, hint):
    """Rights are not all that a broker may lack."""
    suback = b"\x90\x05\x00\x01\x00" + bytes([reason, 1])
    async with silent_server(CONNACK["5"], suback) as (port, _closed):
        with pytest.raises(LinkRefused) as caught:
            async with open_at(host=HOST, port=port, version="5"):
                pass
    assert hint in caught.value.hint


@pytest.mark.parametrize(("theirs", "used"), [(0, 10), (3, 3), (300, 10)])
async def test_a_broker_may_ask_for_more_signs_of_life_and_not_for_fewer(theirs, used):
    """MQTT 5, 3.2.2.3.14; with fewer, or none, a frozen broker would be noticed late or never."""
    broker = PlayedBroker(b"\x13" + theirs.to_bytes(2, "big"))
    async with serving(broker.serve) as port, open_at(host=HOST, port=port, version="5", keepalive="10s") as link:
        assert link._link._client.keepalive == used


async def test_a_broker_without_shared_subscriptions_is_refused():
    """It says so in its greeting (MQTT 5, 3.2.2.3.13); a subscription there would end the connection without a word."""
    flow = read_site()["flows"]["chargers"]
    flow["submit"] |= {"share": "hosts"}
    async with silent_server(b"\x20\x05\x00\x00\x02\x2a\x00") as (port, _closed):
        options = options_of(read_site(), host=HOST, port=port, version="5")
        with pytest.raises(LinkRefused, match="no shared subscriptions"):
            async with ADAPTER.open(context_of(options, selection_of("chargers", flow))):
                pass


async def test_a_session_that_the_broker_keeps_for_less_is_told(caplog):
    """MQTT 5: beyond that time what was asked while we were away is lost, so a person should know."""
    suback = b"\x90\x05\x00\x01\x00\x01\x01"
    for granted, told in ((3600, [(3600, 604_800)]), (604_800, [])):
        caplog.clear()
        connack = b"\x20\x08\x00\x00\x05\x11" + granted.to_bytes(4, "big")
        async with (
            silent_server(connack, suback) as (port, _closed),
            open_at(host=HOST, port=port, version="5", status_topic=None),
        ):
            pass
        lines = [line for line in caplog.records if line.message == "mqtt_session_expiry_shortened"]
        assert [(line.kept_s, line.asked_s) for line in lines] == told


async def test_killed_without_an_acknowledgement(tmp_path, version):
    """kill -9: the last will is heard, and the request comes again to the next session."""
    async with mosquitto(tmp_path / "broker") as broker, Peer(broker) as ems:
        await ems.subscribe("acme/host/status")
        command = [sys.executable, str(CHILD), str(broker.port), version]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=ENVIRONMENT)
        try:
            assert await ems.until("acme/host/status") == ["online"]
            await ems.publish(REQUEST.format("EV001"), request("r-1"))
            async with asyncio.timeout(10):
                assert await child.stdout.readline() == b"r-1\n"
        finally:
            child.kill()
            await child.wait()
        assert await ems.until("acme/host/status", 2) == ["online", "offline"]
        async with Peer(broker) as late:  # the last will is retained
            await late.subscribe("acme/host/status")
            assert await late.until("acme/host/status") == ["offline"]
        async with open_at(**broker.options(version=version)) as link:
            (arrival,) = await take(link)
            assert arrival.records[0].request == "r-1"
            arrival.ack(True)


async def test_a_broker_that_is_killed_ends_the_session(tmp_path, version):
    """Both a waiting `receive` and the next `write` say so, and a late acknowledgement does nothing."""
    async with (
        mosquitto(tmp_path / "broker") as broker,
        Peer(broker) as ems,
        open_at(**broker.options(version=version)) as link,
    ):
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        (arrival,) = await take(link)
        await broker.stop(signal.SIGKILL)
        with pytest.raises(LinkError, match="the connection is lost"):
            await asyncio.wait_for(link.receive(), 5)
        with pytest.raises(LinkError):
            await link.write(outcome("EV001", "r-1"))
        arrival.ack(True)


@pytest.mark.parametrize(
    "version", [pytest.param("3.1.1", marks=pytest.mark.long), "5"]
)  # two times four seconds prove little more
async def test_a_frozen_broker_is_noticed_within_two_keepalives(tmp_path, version):
    """Nothing is closed and nothing answers: the keepalive tells `receive`."""
    async with (
        mosquitto(tmp_path / "broker") as broker,
        open_at(**broker.options(version=version, keepalive="2s")) as link,
    ):
        broker.freeze()
        with pytest.raises(LinkError):
            await asyncio.wait_for(link.receive(), 6)


async def test_a_write_to_a_frozen_broker_gives_up_after_its_time_out(tmp_path, version):
    """An outcome without an acknowledgement is not written; the core opens a new session and writes it again."""
    async with (
        mosquitto(tmp_path / "broker") as broker,
        open_at(**broker.options(version=version, timeout="0.5s")) as link,
    ):
        broker.freeze()
        with pytest.raises(LinkError, match=r"no answer within 0\.5 s"):
            await asyncio.wait_for(link.write(outcome("EV001", "r-1")), 3)


async def test_the_same_client_twice(tmp_path, version):
    """The second one takes the session over, the first one ends."""
    async with mosquitto(tmp_path / "broker") as broker:
        options = broker.options(version=version)
        async with open_at(**options) as first, open_at(**options):
            with pytest.raises(LinkError):
                await asyncio.wait_for(first.receive(), 5)


async def test_a_session_that_was_taken_over_says_what_to_look_for():
    """MQTT 5 has a reason code for it."""
    suback, taken_over = b"\x90\x05\x00\x01\x00\x01\x01", b"\xe0\x02\x8e\x00"
    async with silent_server(CONNACK["5"], suback + taken_over) as (port, _closed):
        error = await ends(host=HOST, port=port, version="5", status_topic=None)
    assert "is this site run twice" in error.hint


async def test_a_cancelled_opening_leaves_no_socket(tmp_path):
    """Cut off in the middle of a TLS handshake; when the thread comes back with a connection after all, it is closed."""
    authority, context = certificates(tmp_path)
    loop = asyncio.get_running_loop()

    async def left(listener):
        """Answer the handshake late, then wait until the client hangs up."""
        accepted, _ = await loop.sock_accept(listener)
        await asyncio.sleep(0.4)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=context)
        with suppress(ConnectionError):  # it hangs up without having read our session tickets
            while await reader.read(65536):
                pass
        transport.close()

    gc.disable()  # which would close a forgotten socket too, some day
    try:
        with socket.create_server((HOST, 0)) as listener:
            listener.setblocking(False)
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                group.create_task(left(listener))
                with pytest.raises(TimeoutError):
                    async with (
                        asyncio.timeout(0.1),
                        open_at(host=HOST, port=listener.getsockname()[1], tls={"ca": str(authority)}),
                    ):
                        pass
    finally:
        gc.enable()


@pytest.mark.parametrize("most", [10, 1000])
async def test_hundreds_of_messages_in_one_tls_record(tmp_path, most):
    """What is decrypted but not yet read does not make the socket readable; it is read all the same, also after a pause."""
    authority, context = certificates(tmp_path)
    flow = read_site()["flows"]["chargers"]
    flow["records"]["each"], flow["submit"]["topic"] = "a/{asset}", "r/{asset}"
    body = b'\x00\x03r/x{"reqId":"r","action":"create"}'
    flood = (b"\x30" + bytes([len(body)]) + body) * 400
    suback = b"\x90\x04\x00\x01\x01\x01"

    async def broker(reader, writer):
        for answer in (CONNACK["3.1.1"], suback + flood):
            await reader.read(65536)
            writer.write(answer)
        while await reader.read(65536):
            pass
        writer.close()

    options = {"tls": {"ca": str(authority)}, "status_topic": None, "max_unacknowledged": most}
    async with serving(broker, ssl=context) as port, asyncio.timeout(10):
        settings = options_of(read_site(), host=HOST, port=port, **options)
        async with ADAPTER.open(context_of(settings, selection_of("chargers", flow))) as link:
            seen = 0
            while seen < 400:
                for arrival in await link.receive():
                    seen += 1
                    arrival.ack(True)


async def test_a_server_that_never_answers(tmp_path):
    """Opening gives up after its time-out."""
    async with silent_server() as (port, closed):
        error = await fails(host=HOST, port=port, timeout="0.3s")
        assert "no answer within 0.3 s" in str(error)
        await asyncio.wait_for(closed.wait(), 5)


@pytest.mark.parametrize("seed", range(40))
async def test_nonsense_from_a_broker_is_a_link_error(seed, version):
    """Random packets after the greeting: the session ends, nothing else breaks."""
    source = random.Random(f"{version}/{seed}")
    kind = source.choice([0x20, 0x30, 0x32, 0x34, 0x36, 0x40, 0x50, 0x62, 0x90, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0, 0x00])
    body = source.randbytes(source.randrange(64))
    garbage = bytes([kind, len(body)]) + body + source.randbytes(200)
    answers = [CONNACK[version] + garbage] if seed % 4 else [garbage]
    async with silent_server(*answers) as (port, _closed):
        await ends(host=HOST, port=port, version=version, timeout="0.5s")


def certificates(directory):
    """An authority's file, and the server side of a secured connection."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    return directory / "ca.pem", context


@asynccontextmanager
async def silent_server(*answers):
    """Takes connections, answers what comes with these, one by one, and says when it was left. Yields its port and that event."""
    closed = asyncio.Event()
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        try:
            for answer in answers:
                if await reader.read(65536):
                    writer.write(answer)
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        closed.set()

    async with serving(serve) as port:
        try:
            yield port, closed
        finally:
            for writer in writers:
                writer.close()


async def test_caught_up_means_that_everything_has_come(tmp_path, version):
    """A broker hands out what it kept in windows, and the link crawls: only when the last of it is there has the session caught up."""
    count = 150
    async with mosquitto(tmp_path / "broker", extra="max_inflight_messages 5") as broker, Peer(broker) as ems:
        for number in range(count):
            await ems.publish(ASSET.format(f"EV{number:03}"), {"name": "x" * 200}, retain=True)
        async with FaultProxy(broker.host, broker.port) as proxy:
            proxy.set(Way.DOWN, rate_bytes_per_s=100_000)
            async with open_at(**broker.options(version=version, host=proxy.host, port=proxy.port)) as link:
                async with asyncio.timeout(20):
                    await link.caught_up()
                assert link._link.messages == count


@pytest.mark.parametrize(("count", "size"), [(20, 2_000), (1, 40_000)], ids=["many messages", "a long one"])
async def test_an_answer_may_stand_behind_what_a_slow_link_brings(tmp_path, version, count, size):
    """The broker has acknowledged our outcome long ago, and the registrations come first. A link that is given up for that begins with all of them again."""
    async with mosquitto(tmp_path / "broker") as broker, Peer(broker) as ems:
        for number in range(count):
            await ems.publish(ASSET.format(f"EV{number:03}"), {"name": "x" * size}, retain=True)
        async with FaultProxy(broker.host, broker.port) as proxy:
            proxy.set(Way.DOWN, rate_bytes_per_s=60_000)
            options = broker.options(version=version, host=proxy.host, port=proxy.port, timeout="200ms")
            async with open_at(**options) as link:
                assert not any(entry.error for entry in await link.write(outcome("EV001", "r-1")))
                assert link._link.messages == count


async def test_a_link_that_was_lost_leaves_no_line_behind(tmp_path, monkeypatch):
    """The library closes its socket once more when the client is collected; what fails there is a traceback among the service's lines."""
    found = []
    async with mosquitto(tmp_path / "broker") as broker:
        gc.collect()  # what others left
        monkeypatch.setattr(sys, "unraisablehook", lambda what: found.append((what.object, what.exc_value)))
        await broken(broker)
    gc.collect()
    assert [each for each in found if "Client.__del__" in str(each[0])] == []


async def broken(broker):
    """A session that ends because an outcome gets no answer."""
    async with (
        FaultProxy(broker.host, broker.port) as proxy,
        open_at(**broker.options(host=proxy.host, port=proxy.port, timeout="200ms")) as link,
    ):
        await link.caught_up()
        proxy.set(Way.DOWN, blackhole=True)
        with suppress(LinkError):
            await link.write(outcome("EV001", "r-1"))


async def test_catching_up_with_a_silent_broker_ends_the_session(tmp_path):
    """Nobody knows what it still has to say: that is a lost link, and no reason to refuse a request."""
    async with (
        mosquitto(tmp_path / "broker") as broker,
        FaultProxy(broker.host, broker.port) as proxy,
        open_at(**broker.options(host=proxy.host, port=proxy.port, timeout="300ms")) as link,
    ):
        await link.caught_up()
        proxy.set(Way.DOWN, blackhole=True)
        with pytest.raises(LinkError, match="gave no answer"):
            await link.caught_up()


async def test_a_broker_that_takes_qos_0_alone_is_refused(tmp_path):
    """MQTT 5 says so of our last will, or in the greeting: neither requests nor outcomes would be acknowledged."""
    async with mosquitto(tmp_path / "broker", extra="max_qos 0") as broker:
        assert "QoS not supported" in await refused(**broker.options(version="5"))
        assert "QoS 0" in await refused(**broker.options(version="5", status_topic=None))


async def test_a_subscription_below_qos_1_is_told(tmp_path, caplog):
    """3.1.1 tells it in the answer to the subscription alone: what such a broker sends while nobody is there is lost."""
    async with mosquitto(tmp_path / "broker") as broker, open_at(**broker.options()):
        assert not [entry for entry in caplog.records if entry.message == "mqtt_qos_lowered"]
    async with (
        mosquitto(tmp_path / "lowered", extra="max_qos 0") as broker,
        Peer(broker) as ems,
        open_at(**broker.options(status_topic=None)) as link,
    ):
        (entry,) = [entry for entry in caplog.records if entry.message == "mqtt_qos_lowered"]
        assert (entry.topic, entry.count) == (ASSET.format("+"), 2)
        await ems.publish(REQUEST.format("EV001"), request("r-1"), qos=0)
        (arrival,) = await take(link)
        arrival.ack(True)
