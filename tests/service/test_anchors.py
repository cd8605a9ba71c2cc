"""Anchors off the host, by the running service: three kinds of places get them, and a journal that was cut or rolled back is found with each."""

import asyncio
import json
import shutil
import sys
import time
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import memory_adapter as memory
from admin import get, value
from mosquitto import Peer, mosquitto
from notary import notary
from private_files import write_private_file
from service import CLOCK, fill, linked, made_alarm, service, until_words

from bridge.cli import main
from bridge.cli.check import load_here
from bridge.envelope import Algorithm
from bridge.ids import submission_ids
from bridge.journal import sealing
from bridge.journal.anchor import parse
from bridge.journal.examine import examine
from bridge.journal.export import export
from bridge.journal.export_plan import Scope
from bridge.journal.people import Scope as HoldScope
from bridge.journal.sqlite import open_journal
from bridge.keys import load_signer, new_key, public_from_jwk, public_jwks, write_private

STRANGER = Path(__file__).parents[2] / "docs" / "verify_evidence.py"
TOPIC = "host-1/anchor"
WHO = "acme-test"


@asynccontextmanager
async def elsewhere(directory):
    """A server, a broker and a share, as `journal.anchors` names them, and what each has now."""
    (directory / "share").mkdir()
    file = directory / "share/host-1.json"
    token = write_private_file(directory / "notary-token", "t0ken-of-the-notary")
    async with notary(directory) as server, mosquitto(directory / "broker") as broker, Peer(broker) as peer:
        await peer.subscribe(TOPIC)
        places = {
            "notary": {"post": {"url": server.url, "ca": str(server.ca), "token": {"file": str(token)}}},
            "broker": {"mqtt": {"broker": f"mqtt://127.0.0.1:{broker.port}", "topic": TOPIC}},
            "share": {"file": {"path": str(file), "mounted": False}},
        }
        for place in places.values():
            place |= {"every": "100ms", "alarm_after": "500ms"}

        def bodies():
            found = {"notary": server.bodies, "broker": [message.payload for message in peer.messages]}
            found = {name: bodies[-1] if bodies else b"" for name, bodies in found.items()}
            return {**found, "share": file.read_bytes() if file.exists() else b""}

        yield SimpleNamespace(server=server, broker=broker, peer=peer, file=file, places=places, bodies=bodies)


def host(directory, places):
    key = directory / "host.pem"
    write_private(key, new_key(Algorithm.ES256))
    return {"journal": {"path": "../var/journal.db", "seal_every": "50ms", "anchors": places}, "host_key": str(key)}


async def work(made, first, count=2):
    ems = await linked(made)
    places = fill(ems, count, first=first)
    ems.request("assets", *places)
    await until_words(ems, places, {3: count})


async def heads(made):
    journal = await open_journal(made.journal_path, clock=CLOCK, role="cli", new_id=submission_ids(CLOCK), checkpoint=False)  # fmt: skip
    try:
        return await journal.evidence().read(sealing.heads)
    finally:
        await journal.close()


async def until_newest(made, there):
    """Wait until each place has the journal's newest blocks."""
    found = {}
    try:
        async with asyncio.timeout(20):
            while set(found.values()) != {(wanted := await heads(made))[WHO]}:
                await asyncio.sleep(0.05)
                found = {name: parse(body).blocks.get(WHO) if body else None for name, body in there.bodies().items()}
    except TimeoutError:
        raise AssertionError(f"the places have {found}, the journal {wanted}") from None


def copied(made, to):
    """The journal and its own anchor, as a snapshot of the machine would keep them."""
    for name in ("var", "var.anchor"):
        shutil.copytree(made.directory / name, to / name)


def rolled_back(made, to):
    """Whoever has the whole machine puts back both."""
    for name in ("var", "var.anchor"):
        shutil.rmtree(made.directory / name)
        shutil.copytree(to / name, made.directory / name)


async def exported(made, signer, out):
    """Everything of the participant, signed by the host's key, as `evidence export` does it."""
    journal = await open_journal(made.journal_path, clock=CLOCK, role="cli", new_id=submission_ids(CLOCK), checkpoint=False)  # fmt: skip
    try:
        evidence = journal.evidence()
        await evidence.sign_heads(signer)
        scope, now_ns = Scope(participant=WHO, from_ns=0, to_ns=CLOCK.wall_ns()), CLOCK.wall_ns()
        await export(evidence.read, scope, signer, archive_directory=made.directory / "a", file=out, now_ns=now_ns)
    finally:
        await journal.close()


@cache
def stranger():
    """The verifier of docs/, loaded as the program that it is."""
    loaded = {}
    exec(compile(STRANGER.read_text(encoding="utf-8"), str(STRANGER), "exec"), loaded)
    return loaded["verify"]


def verdicts(out, keys, jwks, anchor):
    """What both verifiers say, ours and the stranger's; '' for whole."""
    ours, theirs = examine(out, keys, parse(anchor.read_bytes()) if anchor else None), ""
    try:
        stranger()(
            str(out), {key["kid"]: key for key in jwks["keys"]}, json.loads(anchor.read_text()) if anchor else None
        )
    except SystemExit as wrong:
        theirs = wrong.code
    return (f"{ours.place}: {ours.wrong}" if ours.wrong else ""), theirs


async def test_a_journal_cut_after_its_last_signed_head_is_found_with_each_place_and_only_so(tmp_path):
    """Three places get what was sealed while the host ran; then the machine is put back to its last signed head. Nothing in it is wrong, and each place knows better."""
    async with elsewhere(tmp_path) as there, service(tmp_path, host=host(tmp_path, there.places)) as made:
        signer = load_signer(tmp_path / "host.pem")
        keys, jwks = {signer.kid: public_from_jwk(tmp_path, signer.public_jwk())}, public_jwks([signer])
        await work(made, 1)
        await made.stop()  # signs the last block, and brings it to each place
        await until_newest(made, there)
        for name, body in there.bodies().items():
            assert parse(body).signed_by(keys), name
            (tmp_path / f"{name}-before.json").write_bytes(body)
        assert there.server.headers[-1][2]["authorization"] == "Bearer t0ken-of-the-notary"
        copied(made, tmp_path / "snapshot")

        await made.start()
        await work(made, 10)
        await until_newest(made, there)
        _, text = await get(made, "/metrics")
        for name in there.places:
            assert 0 <= value(text, "smp_bridge_anchor_age_seconds", place=name) < 60
            assert value(text, "smp_bridge_anchor_waiting_seconds", place=name) is not None
        await made.kill()  # no last word, no signature
        for name, body in there.bodies().items():
            (tmp_path / f"{name}.json").write_bytes(body)
        whole = tmp_path / "whole.zip"
        await exported(made, signer, whole)
        rolled_back(made, tmp_path / "snapshot")
        cut = tmp_path / "cut.zip"
        await exported(made, signer, cut)

        assert verdicts(cut, keys, jwks, None) == ("", "")
        assert verdicts(cut, keys, jwks, made.config().host.journal.anchor_file) == ("", "")
        for name in there.places:
            assert verdicts(cut, keys, jwks, tmp_path / f"{name}-before.json") == ("", ""), name
            assert verdicts(whole, keys, jwks, tmp_path / f"{name}.json") == ("", ""), name
            ours, theirs = verdicts(cut, keys, jwks, tmp_path / f"{name}.json")
            assert "what came after was cut off" in ours, name
            assert theirs.startswith("WRONG anchor: it names block"), name
        forged = tmp_path / "forged.json"
        anchor = json.loads((tmp_path / "share.json").read_text())
        anchor["blocks"][WHO] = json.loads((tmp_path / "share-before.json").read_text())["blocks"][WHO]
        forged.write_text(json.dumps(anchor))
        ours, theirs = verdicts(cut, keys, jwks, forged)
        assert ("signature" in ours, "signature" in theirs) == (True, True)


async def test_a_machine_that_was_rolled_back_with_its_own_anchor_holds(tmp_path):
    """The share and the broker know more: nothing is sent, what they have stays, until a person reconciled."""
    async with elsewhere(tmp_path) as there, service(tmp_path, host=host(tmp_path, there.places)) as made:
        await work(made, 1)
        await made.stop()
        copied(made, tmp_path / "snapshot")
        await made.start()
        await work(made, 10)
        await made.stop()
        await until_newest(made, there)
        kept = there.bodies()
        rolled_back(made, tmp_path / "snapshot")
        await made.start()
        holds = await made.read(lambda journal: journal.holds())
        assert [(hold.scope, hold.name) for hold in holds] == [(HoldScope.JOURNAL, "")]
        assert "the anchor names block" in holds[0].reason
        assert "smp-bridge journal reconcile" in holds[0].reason
        await made_alarm(made, "ANCHOR")
        await made_alarm(made, "ANCHOR_PLACE")
        async with asyncio.timeout(10):
            while not {("ANCHOR", "share"), ("ANCHOR", "broker")} <= {
                (alarm.code, alarm.subject) for alarm in await made.read(lambda journal: journal.alarms())
            }:
                await asyncio.sleep(0.05)
        await made.stop()
        found = there.bodies()
        assert (found["share"], found["broker"]) == (kept["share"], kept["broker"])

        journal = await open_journal(made.journal_path, clock=CLOCK, role="cli", new_id=submission_ids(CLOCK), checkpoint=False)  # fmt: skip
        await journal.evidence().rebase(
            made.config().host.journal.anchor_file
        )  # as `journal reconcile` does at its end
        await journal.close()
        await made.start()
        await until_newest(made, there)
        async with asyncio.timeout(10):
            while await made.read(lambda journal: journal.alarms()):
                alarms = await made.read(lambda journal: journal.alarms())
                if {alarm.code for alarm in alarms} <= {"HOLD"}:
                    break
                await asyncio.sleep(0.05)


async def test_places_that_hang_delay_neither_start_nor_work_nor_stop(tmp_path, monkeypatch):
    """A server that never answers and a broker that is frozen: records go through, the share gets its anchors, and the stop waits 3 s at most for the rest."""
    for name in ("ANSWER_S", "GRACE_S"):
        monkeypatch.setattr(f"bridge.anchoring.courier.{name}", 0.3)
    async with elsewhere(tmp_path) as there:
        there.server.hangs = True
        there.broker.freeze()
        async with service(tmp_path, host=host(tmp_path, there.places)) as made:
            await work(made, 1, count=5)
            await made_alarm(made, "ANCHOR_PLACE", within_s=30)
            async with asyncio.timeout(20):
                while parse(there.file.read_bytes()).blocks != await heads(made):
                    await asyncio.sleep(0.05)
            began = time.monotonic()
            await made.stop()
            assert time.monotonic() - began < 3 + 5  # 3 s are the limit; this machine may be busy
            assert parse(there.file.read_bytes()).blocks == await heads(made)
            assert there.server.bodies == []
            there.server.hangs = False
            there.broker.thaw()
            await made.start()
            await until_newest(made, there)
            await made.stop()


def told(capsys, monkeypatch, *arguments):
    """Run a command; its exit status, what it printed, and what it complained of."""
    monkeypatch.setattr(sys, "argv", ["smp-bridge", *map(str, arguments)])
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


async def test_the_command_tries_each_place(tmp_path, monkeypatch, capsys):
    """Beside the service: what each answered, and exit status 1 when one did not accept it."""
    known = memory.memory_adapter(memory.MemoryEms(), "north")
    monkeypatch.setattr("bridge.cli.journals.load_here", partial(load_here, find_adapter=lambda _: known))
    async with elsewhere(tmp_path) as there, service(tmp_path, host=host(tmp_path, there.places)) as made:
        say = partial(asyncio.to_thread, told, capsys, monkeypatch)
        config = ("--config", tmp_path / "config")
        await work(made, 1)
        status, printed, _ = await say("evidence", "anchor", *config)
        assert (status, sorted(printed.splitlines())) == (
            0,
            ["broker: accepted", "notary: accepted", "share: accepted"],
        )
        await there.broker.stop()
        status, printed, _ = await say("evidence", "anchor", "broker", *config)
        assert (status, printed) == (1, "broker: not accepted: connection refused\n")
        assert (await say("evidence", "anchor", "nobody", *config))[0] == 2
        await there.broker.start()
