"""Couriers and their places, each against the real thing: an HTTPS server, mosquitto, a disk that is full, read-only or hangs."""

import asyncio
import dataclasses
import json
import os
import threading
import time

import pytest
from mosquitto import Peer, mosquitto
from notary import notary
from private_files import write_private_file
from small_disk import small_disk

from bridge.anchoring import Courier, NotTaken, courier, place_of
from bridge.anchoring.thread import Apart, StillBusy
from bridge.clock import SystemClock
from bridge.config.anchors import AnchorPlace
from bridge.config.references import FileSecret
from bridge.envelope import Algorithm
from bridge.errors import JournalFull
from bridge.journal import files
from bridge.journal.anchor import Anchor, AnchorFinding, AnchorVerdict, parse
from bridge.keys import KeySigner, new_key, public_from_jwk, thumbprint

CLOCK = SystemClock.here()
AGREES = AnchorFinding(verdict=AnchorVerdict.AGREES, text="well")
TOPIC = "smp-bridge/host-1/anchor"


def made_signer():
    key = new_key(Algorithm.ES256)
    return KeySigner(thumbprint(key), Algorithm.ES256, key)


class Journal:
    """A journal's evidence and alarms, as a courier uses them; `number` is the last block."""

    def __init__(self):
        self.number = 1
        self.standing = {}
        self.said = []
        self.held = []
        self.finding = AGREES
        self.full = False

    @property
    def anchor(self):
        return Anchor(journal="j", blocks={"acme": (self.number, b"h" * 32)})

    async def anchor_body(self, signer):
        return self.anchor.dump(CLOCK.wall_ns(), signer)

    async def compare_elsewhere(self, found):
        self.compared = found
        return self.finding

    async def alarm(self, code, *, subject="", text="", clear=False):
        if self.full:
            raise JournalFull("full")
        self.said.append((code, subject, "" if clear else text))
        if clear:
            self.standing.pop((code, subject), None)
        else:
            self.standing[code, subject] = text

    async def hold(self, text):
        self.held.append(text)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(courier, "PAUSES_S", (0.02, 0.05))


def courier_of(journal, directory, *, signer=None, place=None, **options):
    given = AnchorPlace.model_validate({"every": "100ms", "alarm_after": "300ms", **options})
    keys = {} if signer is None else {signer.kid: public_from_jwk(directory, signer.public_jwk())}
    place = place or place_of(given, beside=directory, client_id="smp-anchor-test")
    return Courier(
        "place", place, given, evidence=journal, journal=journal, clock=CLOCK, hold=journal.hold, signer=signer, keys=keys
    )  # fmt: skip


class Running:
    """A courier at work."""

    def __init__(self, made):
        self.made = made

    async def __aenter__(self):
        self._task = asyncio.get_running_loop().create_task(self.made.run())
        self.made.news(False)
        return self.made

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until(holds, within_s=20):
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


ALARM = ("ANCHOR_PLACE", "place")


async def fails_then_recovers(journal, made, broken, mended, got):
    """Brought; then the place fails: an alarm after the stated time, and not before; then it is mended: the newest is brought and the alarm ends."""
    async with Running(made):
        await until(lambda: got() == 1)
        await broken()
        journal.number = 2
        made.news(True)
        began = time.monotonic()
        await until(lambda: ALARM in journal.standing)
        assert time.monotonic() - began >= 0.3
        assert made.waiting_s >= 0.3
        journal.number = 3
        made.news(False)
        await mended()
        await until(lambda: got() == 3)
        await until(lambda: ALARM not in journal.standing)
        await until(lambda: made.waiting_s == 0.0)
        assert made.age_s < 20
    texts = [text for code, subject, text in journal.said if (code, subject) == ALARM]
    assert len([text for text in texts if text]) == 1
    return texts[-2] if texts[-1] == "" else texts[-1]


# ---------------------------------------------------------------------------------------------------------- HTTPS POST


async def test_an_https_server_gets_it_signed_and_again_after_it_was_away(tmp_path):
    """The body is the anchor, signed; the token goes as it stands in its file at that moment, and to this place alone."""
    journal, signer = Journal(), made_signer()
    token = write_private_file(tmp_path / "token", "first-t0ken")
    async with notary(tmp_path) as server:
        post = {"url": server.url, "ca": server.ca, "token": FileSecret("first-t0ken", token)}
        made = courier_of(journal, tmp_path, post=post, signer=signer)

        async def mended():
            token.write_text("second-t0ken")
            await server.start()

        def got():
            return parse(server.bodies[-1]).blocks["acme"][0] if server.bodies else 0

        text = await fails_then_recovers(journal, made, server.stop, mended, got)
    assert "connection refused" in text
    assert {method for method, _, _ in server.headers} == {"POST"}
    assert {path for _, path, _ in server.headers} == {"/anchors/host-1?kept=1"}
    tokens = [headers["authorization"] for _, _, headers in server.headers]
    assert (tokens[0], tokens[-1]) == ("Bearer first-t0ken", "Bearer second-t0ken")
    for body in server.bodies:
        assert parse(body).signed_by({signer.kid: public_from_jwk(tmp_path, signer.public_jwk())})
    assert "t0ken" not in repr(journal.said)


async def test_answers_of_an_https_server_that_are_no_yes(tmp_path):
    """Refused, redirected, of another authority or name: the anchor was not taken, and a redirect is not followed."""
    async with notary(tmp_path) as server:
        place = place_of(AnchorPlace(post={"url": server.url, "ca": server.ca}), beside=tmp_path, client_id="")
        for status, text in (
            (503, "it answered 503"),
            (302, "it answered 302; a redirect is not followed"),
            (404, "404"),
        ):
            server.statuses = [status]
            with pytest.raises(NotTaken, match=text):
                await asyncio.to_thread(place.send, b"{}")
        assert server.posts == 3
        await asyncio.to_thread(place.send, b"{}")
        assert server.bodies == [b"{}"]

        stranger = place_of(AnchorPlace(post={"url": server.url}), beside=tmp_path, client_id="")
        with pytest.raises(NotTaken, match="certificate is not trusted"):
            await asyncio.to_thread(stranger.send, b"{}")
        named = server.url.replace("127.0.0.1", "localhost")
        other = place_of(AnchorPlace(post={"url": named, "ca": server.ca}), beside=tmp_path, client_id="")
        with pytest.raises(NotTaken, match="certificate is not trusted"):
            await asyncio.to_thread(other.send, b"{}")
        assert server.bodies == [b"{}"]


async def test_a_server_that_hangs_holds_up_nobody(tmp_path, monkeypatch):
    """The try ends at its limit, its thread too, the loop turns all the while, and the next try finds a server that works."""
    monkeypatch.setattr(courier, "ANSWER_S", 0.2)
    monkeypatch.setattr(courier, "GRACE_S", 0.1)
    journal = Journal()
    async with notary(tmp_path) as server:
        server.hangs = True
        made = courier_of(journal, tmp_path, post={"url": server.url, "ca": server.ca})
        gaps = []

        async def turning():
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - last)
                last = time.monotonic()

        watching = asyncio.get_running_loop().create_task(turning())
        async with Running(made):
            await until(lambda: ALARM in journal.standing)
            server.hangs = False
            await until(lambda: server.bodies)
            await until(lambda: not journal.standing)
        watching.cancel()
        assert "no answer within" in next(text for code, _, text in journal.said if code == ALARM[0] and text)
        assert len(gaps) > 20


# ---------------------------------------------------------------------------------------------------------- MQTT


def payload(peer):
    return json.loads(peer.messages[-1].payload)["blocks"]["acme"]["number"] if peer.messages else 0


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_topic_gets_it_retained_and_again_after_the_broker_was_away(tmp_path, version):
    """Over TLS, with user and password; who subscribes later finds the newest one."""
    journal = Journal()
    async with mosquitto(tmp_path / "broker", tls=True, user="host-1", password="s3cret") as broker:
        password = FileSecret("s3cret", write_private_file(tmp_path / "password", "s3cret"))
        mqtt = {"broker": f"mqtts://{broker.host}:{broker.port}", "topic": TOPIC, "ca": broker.ca, "user": "host-1"}
        made = courier_of(journal, tmp_path, mqtt={**mqtt, "password": password, "version": version})
        async with Peer(broker) as peer:
            await peer.subscribe(TOPIC)

            async def mended():
                await broker.start()
                await peer.reconnected()
                await peer.subscribe(TOPIC)

            await fails_then_recovers(journal, made, broker.stop, mended, lambda: payload(peer))
        async with Peer(broker) as late:
            await late.subscribe(TOPIC)
            await late.until(TOPIC)
            assert (late.messages[0].retain, payload(late)) == (True, 3)
        found = await asyncio.to_thread(made._place.read)
        assert parse(found).blocks["acme"][0] == 3


async def test_what_a_broker_refuses_is_told(tmp_path):
    """A wrong password, a topic that is not for this user, another authority; and where we may not read, it says nothing."""
    acl = tmp_path / "acl"
    acl.write_text("user host-1\ntopic write allowed/#\n")
    acl.chmod(0o600)
    async with mosquitto(
        tmp_path / "broker", tls=True, user="host-1", password="s3cret", extra=f"acl_file {acl}"
    ) as broker:
        url = f"mqtts://{broker.host}:{broker.port}"

        def place(topic, password="s3cret", ca=broker.ca):
            secret = FileSecret(password, tmp_path / "none")
            mqtt = {"broker": url, "topic": topic, "ca": ca, "user": "host-1", "password": secret}
            return place_of(AnchorPlace(mqtt=mqtt), beside=tmp_path, client_id="smp-anchor-test")

        await asyncio.to_thread(place("allowed/a").send, b"{}")
        with pytest.raises(NotTaken, match="refuses to publish .*[Nn]ot authorized"):
            await asyncio.to_thread(place("other").send, b"{}")
        with pytest.raises(NotTaken, match="refuses to connect"):
            await asyncio.to_thread(place("allowed/a", "wrong").send, b"{}")
        with pytest.raises(NotTaken, match="certificate is not trusted"):
            await asyncio.to_thread(place("allowed/a", ca=None).send, b"{}")
        assert await asyncio.to_thread(place("allowed/a").read) is None


# ---------------------------------------------------------------------------------------------------------- a file


def number_in(path):
    try:
        return parse(path.read_bytes()).blocks["acme"][0]
    except OSError:
        return 0


async def test_a_share_that_is_full_read_only_or_not_mounted(tmp_path):
    """Each is told and tried again; what lay there is whole at every moment."""
    with small_disk(tmp_path / "mnt", 1) as disk:
        file = disk.directory / "host-1.json"
        for break_, mend in (
            (disk.fill, disk.make_room),
            (lambda: disk.remount("ro"), lambda: disk.remount("rw")),
        ):
            journal = Journal()
            made = courier_of(journal, tmp_path, file={"path": file})
            await fails_then_recovers(
                journal, made, lambda b=break_: asyncio.to_thread(b), lambda m=mend: asyncio.to_thread(m), lambda: number_in(file)
            )  # fmt: skip
            assert sorted(path.name for path in disk.directory.iterdir()) in (
                ["host-1.json"],
                [".host-1.json.new", "host-1.json"],
            )
            file.unlink()
    lost = place_of(AnchorPlace(file={"path": file}), beside=tmp_path, client_id="")
    for call in (lambda: lost.send(b"{}"), lost.read):
        with pytest.raises(NotTaken, match="own file system; mount the other one"):
            call()
    early = place_of(AnchorPlace(file={"path": file}), beside=tmp_path / "not" / "made yet", client_id="")
    with pytest.raises(NotTaken, match="own file system"):
        early.read()
    assert list(file.parent.iterdir()) == []
    file.parent.rmdir()
    with pytest.raises(NotTaken, match="is not there; is it mounted"):
        lost.send(b"{}")
    assert not file.parent.exists()
    carried = place_of(
        AnchorPlace(file={"path": tmp_path / "out.json", "mounted": False}), beside=tmp_path, client_id=""
    )
    carried.send(b"{}")
    assert (carried.read(), (tmp_path / "out.json").stat().st_mode & 0o777) == (b"{}", 0o644)


async def test_a_share_that_hangs_holds_up_nobody(tmp_path, monkeypatch):
    """A write that does not return: one thread waits for it, no second one is made, an alarm tells, a stop waits for its own limit alone."""
    monkeypatch.setattr(courier, "ANSWER_S", 0.1)
    monkeypatch.setattr(courier, "GRACE_S", 0.1)
    journal, file = Journal(), tmp_path / "out.json"
    pipe, make_file = tmp_path / "pipe", files.make_file
    os.mkfifo(pipe)

    def hang(path, *, mode=0o600):
        os.close(os.open(pipe, os.O_WRONLY))  # waits for a reader, in the kernel
        return make_file(path, mode=mode)

    monkeypatch.setattr(files, "make_file", hang)
    made = courier_of(journal, tmp_path, file={"path": file, "mounted": False})
    async with Running(made):
        await until(lambda: ALARM in journal.standing)
        threads = [thread for thread in threading.enumerate() if thread.name == "anchor-place"]
        assert (len(threads), threads[0].daemon) == (1, True)
    made.news(True)
    began = time.monotonic()
    await made.finish(0.3)
    assert 0.25 < time.monotonic() - began < 3
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await made._apart.idle()
    finally:
        os.close(reader)
    monkeypatch.setattr(files, "make_file", make_file)
    await made.finish(5)
    assert number_in(file) == 1


# ---------------------------------------------------------------------------------------------------------- the courier


class Noted:
    """A place that notes what it gets."""

    readable = True

    def __init__(self, lies_there=None):
        self.got = []
        self.lies_there = lies_there

    def send(self, body):
        self.got.append((time.monotonic(), parse(body).blocks["acme"][0]))

    def read(self):
        return self.lies_there

    def interrupt(self):
        pass


async def test_new_blocks_wait_for_the_interval_and_signed_heads_do_not(tmp_path):
    """Of what comes meanwhile only the newest is brought."""
    journal, place = Journal(), Noted()
    made = courier_of(journal, tmp_path, file={"path": tmp_path / "x"}, place=place, every="1h")
    async with Running(made):
        await until(lambda: len(place.got) == 1)
        for _ in range(5):
            journal.number += 1
            made.news(False)
        await asyncio.sleep(0.05)
        assert (len(place.got), made.waiting_s) == (1, 0.0)
        made.news(True)
        await until(lambda: len(place.got) == 2)
        assert place.got[-1][1] == 6
    journal, place = Journal(), Noted()
    made = courier_of(journal, tmp_path, file={"path": tmp_path / "x"}, place=place, every="500ms")
    async with Running(made):
        await until(lambda: len(place.got) == 1)
        made.news(False)
        await until(lambda: len(place.got) == 2)
    assert place.got[1][0] - place.got[0][0] >= 0.3  # the first thread may have been late


async def test_a_place_that_knows_more_holds_the_host_and_keeps_what_it_has(tmp_path):
    """Held once, told, and not replaced; after a person reconciled the journal it is."""
    journal, place = Journal(), Noted(Journal().anchor.dump(1))
    journal.finding = AnchorFinding(verdict=AnchorVerdict.BEHIND, text="acme: the anchor names block 9")
    made = courier_of(journal, tmp_path, file={"path": tmp_path / "x"}, place=place)
    async with Running(made):
        await until(lambda: ALARM in journal.standing)
        assert journal.standing["ANCHOR", "place"] == "place: acme: the anchor names block 9"
        assert (journal.held, place.got) == (["place: acme: the anchor names block 9"], [])
        journal.finding = AGREES
        await until(lambda: place.got)
        await until(lambda: not journal.standing)
    assert len(journal.held) == 1


@pytest.mark.parametrize(
    ("signed_by", "verdict", "held", "replaced"),
    [
        ("us", AnchorVerdict.BEHIND, True, False),
        ("us", AnchorVerdict.FOREIGN, True, False),
        ("nobody", AnchorVerdict.BEHIND, False, True),
        ("another", AnchorVerdict.BEHIND, False, True),
        ("another", AnchorVerdict.FOREIGN, False, False),
        ("changed", AnchorVerdict.BEHIND, False, True),
    ],
)
async def test_only_what_our_key_signed_holds_the_host(tmp_path, signed_by, verdict, held, replaced):
    """Whoever may write to a topic must not be able to stop the host; and what is another journal's is left alone in any case."""
    journal, signer = Journal(), made_signer()
    body = Journal().anchor.dump(1, {"us": signer, "changed": signer, "another": made_signer()}.get(signed_by))
    if signed_by == "changed":
        body = body.replace(b'"number": 1', b'"number": 9')
    place = Noted(body)
    journal.finding = AnchorFinding(verdict=verdict, text="differs")
    made = courier_of(journal, tmp_path, file={"path": tmp_path / "x"}, place=place, signer=signer)
    problem = await made.bring()
    assert (bool(journal.held), bool(place.got), not problem) == (held, replaced, replaced)


@pytest.mark.parametrize("number", ["42", "1e30", "1e999", "0", "-1", "true", f"{2**63}"])
async def test_what_is_no_anchor_is_left_alone(tmp_path, number):
    """Somebody else's file or message is not replaced, and whatever stands in it ends no courier."""
    journal, signer = Journal(), made_signer()
    journal.finding = AnchorFinding(verdict=AnchorVerdict.BEHIND, text="differs")
    body = journal.anchor.dump(1, made_signer()).replace(b'"number": 1', b'"number": ' + number.encode())
    place = Noted(b"42" if number == "42" else body)
    made = courier_of(journal, tmp_path, file={"path": tmp_path / "x"}, place=place, signer=signer)
    assert "is no anchor" in await made.bring()
    assert place.got == []


async def test_a_full_journal_stops_no_courier(tmp_path):
    """The alarm waits for room, the anchor does not."""
    journal, place = Journal(), Noted()
    journal.full = True
    made = courier_of(journal, tmp_path, file={"path": tmp_path / "x"}, place=place)
    async with Running(made):
        await until(lambda: place.got)
        made.news(True)
        await until(lambda: len(place.got) == 2)


def test_a_call_that_hangs_takes_no_second_one_and_outlives_its_loop():
    """The loop ends without it; when it returns at last nobody is disturbed."""
    release = threading.Event()

    async def main():
        apart = Apart("hangs")
        with pytest.raises(TimeoutError):
            await apart.run(lambda: release.wait(30), 0.01)
        with pytest.raises(StillBusy):
            await apart.run(lambda: None, 5)

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10
    [thread] = [thread for thread in threading.enumerate() if thread.name == "hangs"]
    release.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_signed_anchor_is_what_was_signed():
    """Any change of it is no longer signed; an anchor without a signature is signed by nobody."""
    signer = made_signer()
    keys = {signer.kid: public_from_jwk(None, signer.public_jwk())}
    anchor = Anchor(journal="j", blocks={"b": (2, b"x" * 32), "a": (1, b"y" * 32)})
    found = parse(anchor.dump(1, signer))
    assert found.signed_by(keys)
    assert not found.signed_by({})
    assert not parse(anchor.dump(1)).signed_by(keys)
    for change in (
        {"journal": "k"},
        {"written_at": "x"},
        {"blocks": {**anchor.blocks, "a": (2, b"y" * 32)}},
        {"blocks": {}},
    ):
        assert not dataclasses.replace(found, **change).signed_by(keys)
