"""Signed heads and exports, on both engines: what is handed out proves itself, and nothing of anybody else is in it."""

import asyncio
import errno
import hashlib
import json
import os
import zipfile
from dataclasses import replace
from functools import partial

import pytest
from small_disk import small_disk

from bridge.envelope import Algorithm
from bridge.errors import NotPossible
from bridge.journal import heads, sealing
from bridge.journal.access import Action, Wanted
from bridge.journal.anchor import load
from bridge.journal.archiver import Archiver, ArchiverSettings, Room
from bridge.journal.examine import examine
from bridge.journal.export import Exported, _File, export
from bridge.journal.export_plan import Scope
from bridge.journal.heads import EvidenceBroken
from bridge.journal.people import Decision
from bridge.journal.sealer import Sealer, SealerSettings
from bridge.journal.verify import verify
from bridge.keys import KeySigner, new_key, public_from_jwk, thumbprint
from bridge.model import HostReason, ItemState, Refusal
from bridge.submission import SubmissionState


def signer_of(alg=Algorithm.ES256):
    key = new_key(alg)
    return KeySigner(thumbprint(key), alg, key)


def public(*signers):
    return {one.kid: public_from_jwk(None, one.public_jwk()) for one in signers}


async def seal(kit):
    fence = await kit.journal.acquire(sealing.SEALER)
    while (await kit.journal.evidence().seal(fence)).events:
        pass
    await kit.journal.release([fence])


async def exported(kit, signer, scope, file, directory=None):
    evidence = kit.journal.evidence()
    await seal(kit)
    await evidence.sign_heads(signer, scope.participant)
    return await export(
        evidence.read,
        scope,
        signer,
        archive_directory=directory or file.parent / "archive",
        file=file,
        now_ns=kit.clock.wall_ns(),
    )


def content(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def lines(file):
    return [json.loads(line) for line in content(file)["evidence.jsonl"].splitlines()]


async def a_life(kit, key="asset-1"):
    """One submission from its record to its outcome, with a return."""
    await kit.accept(kit.asset(key, content=f"content of {key}"))
    due = await kit.sent(f"T-{key}")
    parked = await kit.journal.park_return(
        kit.market, kit.returned(f"R-{key}", transaction_id=f"T-{key}", body=f"return of {key}".encode())
    )
    await kit.settle(due, ItemState.REGISTERED, return_id=parked.return_id)
    await kit.write_all()
    return due.submission


async def test_one_submission_takes_its_own_bytes_and_nothing_of_others(kit, tmp_path):
    """Its readings, call, headers, answer, return and write-back are there; nothing of another participant, site or submission is."""
    signer = signer_of()
    await kit.accept(
        kit.asset("asset-9", content="secret of the other", participant="other", readings=b"other readings")
    )
    await a_life(kit, "asset-0")
    wanted = await a_life(kit, "asset-1")
    await a_life(kit, "asset-2")
    file = tmp_path / "one.zip"
    done = await exported(kit, signer, Scope(participant="acme", submission=wanted), file)
    report = examine(file, public(signer))
    assert (report.place, report.wrong) == ("", "")
    assert report.count.events == done.events >= 6
    found = lines(file)
    texts = [line["text"] for line in found if "blob" in line]
    assert "readings of content of asset-1" in "".join(texts)
    assert "return of asset-1" in texts
    assert "{}" in texts  # the answer
    assert any(
        json.loads(text).get("headers", {}).get("signature", "").startswith("signed-")
        for text in texts
        if text.startswith("{")
    )
    assert any(json.loads(text).get("headers") == {"signature": "theirs"} for text in texts if text.startswith("{"))
    raw = b"".join(content(file).values())
    # Long words only: two letters come up by chance in a signature.
    for foreign in (b"other", b"secret", b"asset-0", b"asset-2"):
        assert foreign not in raw, foreign
    subjects = {line["event"][6] for line in found if "event" in line}
    assert subjects == {wanted, "R-asset-1"}


async def test_a_call_that_left_with_its_intake_brings_its_readings(kit, tmp_path):
    """On the quiet path one event speaks of three pieces: the body, the readings and the envelope."""
    signer = signer_of()
    await kit.accept(kit.asset("F1", content="quiet"), fast=kit.fast("S-fast", "F1"))
    file = tmp_path / "fast.zip"
    await exported(kit, signer, Scope(participant="acme", submission="S-fast"), file)
    assert examine(file, public(signer)).wrong == ""
    texts = [line["text"] for line in lines(file) if "blob" in line]
    assert len(texts) == 3
    assert any(text.endswith("readings of quiet") for text in texts)
    assert any(text.startswith("body-") for text in texts)


async def test_a_span_takes_whole_blocks(kit, tmp_path):
    """All events of the span are there; the rest of the chain is its headers."""
    signer = signer_of(Algorithm.EDDSA)
    await a_life(kit, "asset-1")
    await seal(kit)
    kit.clock.advance(3600)
    first = kit.clock.wall_ns()
    await a_life(kit, "asset-2")
    last = kit.clock.wall_ns()
    await seal(kit)
    kit.clock.advance(3600)
    await a_life(kit, "asset-3")
    file = tmp_path / "span.zip"
    done = await exported(kit, signer, Scope(participant="acme", from_ns=first, to_ns=last), file)
    report = examine(file, public(signer))
    assert report.wrong == ""
    raw = b"".join(content(file).values())
    assert b"return of asset-2" in raw
    assert b"asset-1" not in raw
    assert b"asset-3" not in raw  # a long word: two letters come up by chance in a signature
    assert done.blocks == 2
    assert not any("path" in line for line in lines(file))


async def test_what_was_archived_is_exported_alike(kit, tmp_path):
    """Events that moved to a segment are taken from there, with their bytes."""
    signer = signer_of()
    wanted = await a_life(kit, "asset-1")
    before = tmp_path / "before.zip"
    await exported(kit, signer, Scope(participant="acme", submission=wanted), before)
    kit.clock.advance(3600)
    await a_life(kit, "asset-2")
    await seal(kit)
    directory = tmp_path / "archive"
    archiver = Archiver(
        ArchiverSettings(directory=directory, after_s=60),
        evidence=kit.journal.evidence(),
        journal=kit.journal,
        clock=kit.clock,
    )
    report = await archiver.archive(60)
    assert report.segments == 1
    after = tmp_path / "after.zip"
    await exported(kit, signer, Scope(participant="acme", submission=wanted), after, directory)
    assert examine(after, public(signer)).wrong == ""

    def told(file):
        return sorted(json.dumps(line, sort_keys=True) for line in lines(file) if "event" in line or "blob" in line)

    assert told(before) == told(after)


async def test_the_facts_that_held_are_part_of_it(kit, tmp_path):
    """The profile, keys and versions noted before the call come with it; the same facts are noted once."""
    signer, evidence = signer_of(), kit.journal.evidence()
    assert await evidence.note_facts(kit.market, "acme", {"profile": "old"})
    assert await evidence.note_facts(kit.market, "acme", {"profile": "default 1"})
    assert not await evidence.note_facts(kit.market, "acme", {"profile": "default 1"})
    await seal(kit)
    kit.clock.advance(86400)
    wanted = await a_life(kit)
    await seal(kit)
    kit.clock.advance(86400)
    await evidence.note_facts(kit.market, "acme", {"profile": "another one"})
    file = tmp_path / "one.zip"
    await exported(kit, signer, Scope(participant="acme", submission=wanted), file)
    assert examine(file, public(signer)).wrong == ""
    assert [line["text"] for line in lines(file) if "profile" in line.get("text", "")][0] == '{"profile":"default 1"}'
    raw = content(file)["evidence.jsonl"]
    assert b'"old' not in raw
    assert b"another one" not in raw


async def test_heads_are_signed_once_per_block_and_key(kit):
    """A second time there is nothing to sign; a new key signs the same block anew."""
    first, second, evidence = signer_of(), signer_of(), kit.journal.evidence()
    await kit.accept(kit.asset("A"), kit.asset("B", participant="other"))
    await seal(kit)
    made = await evidence.sign_heads(first)
    assert [(head.participant, head.number) for head in made] == [("acme", 1), ("other", 1)]
    journal = await evidence.read(sealing.identity)
    assert all(head.signed_by(journal, public(first)) for head in made)
    assert not any(head.signed_by("another journal", public(first)) for head in made)
    assert await evidence.sign_heads(first) == []
    assert len(await evidence.sign_heads(second)) == 2
    stored = await evidence.read(lambda rows: heads.of(rows, "acme"))
    assert sorted(head.kid for head in stored) == sorted((first.kid, second.kid))


async def test_the_sealer_signs_once_a_day_and_at_the_stop(kit):
    """Not with each block; and what contradicts a signed head is an alarm, not a signature."""
    signer, evidence = signer_of(), kit.journal.evidence()
    fence = await kit.journal.acquire(sealing.SEALER)
    sealer = Sealer(
        SealerSettings(anchor=None, signer=signer),
        evidence=evidence,
        alarms=kit.journal,
        fence=fence,
        woken=asyncio.Event(),
        clock=kit.clock,
        room=Room(),
    )

    async def signed():
        return [head.number for head in await evidence.read(lambda rows: heads.of(rows, "acme"))]

    for number, (wait_s, wanted) in enumerate([(0, [1]), (3600, [1]), (80_000, [1]), (4000, [1, 4])]):
        kit.clock.advance(wait_s)
        await kit.accept(kit.asset(f"A{number}"))
        await sealer.round()
        assert await signed() == wanted
    await kit.accept(kit.asset("A9"))
    await sealer.finish()
    assert await signed() == [1, 4, 5]
    assert "EVIDENCE_BROKEN" not in await kit.codes()
    await evidence.write(lambda tx: tx.run("UPDATE blocks SET hash = ? WHERE number = 4", (b"x" * 32,)))
    await kit.accept(kit.asset("A10"))
    await sealer.finish()
    assert await signed() == [1, 4, 5]
    assert "EVIDENCE_BROKEN" in await kit.codes()


async def test_a_stop_leaves_no_block_without_the_anchor(kit, tmp_path, monkeypatch):
    """The stop cuts a round off between a block and its anchor: the last round finds nothing to seal, and the anchor follows all the same."""
    path, evidence = tmp_path / "journal.anchor", kit.journal.evidence()
    fence = await kit.journal.acquire(sealing.SEALER)
    sealer = Sealer(
        SealerSettings(anchor=path), evidence=evidence, alarms=kit.journal, fence=fence, woken=asyncio.Event(),
        clock=kit.clock, room=Room(),
    )  # fmt: skip
    await kit.accept(kit.asset("A1"))
    await sealer.round()
    sealed = evidence.seal

    async def cut_off(fence):
        await sealed(fence)
        raise asyncio.CancelledError

    await kit.accept(kit.asset("A2"))
    with monkeypatch.context() as patched:
        patched.setattr(evidence, "seal", cut_off)
        with pytest.raises(asyncio.CancelledError):
            await sealer.round()
    assert load(path).blocks["acme"][0] == 1
    await sealer.finish()
    assert load(path).blocks["acme"][0] == 2


async def test_a_chain_that_was_made_anew_is_not_signed(kit, tmp_path):
    """Once a head is signed, neither another chain nor a shorter one is signed or exported."""
    signer, evidence = signer_of(), kit.journal.evidence()
    for number in range(3):
        await kit.accept(kit.asset(f"A{number}"))
        await seal(kit)
    await evidence.sign_heads(signer)
    await evidence.write(lambda tx: tx.run("UPDATE blocks SET hash = ? WHERE number = 3", (b"x" * 32,)))
    await evidence.write(lambda tx: tx.run("UPDATE chains SET hash = ?", (b"x" * 32,)))
    with pytest.raises(EvidenceBroken, match="acme: block 3 is another one than was signed"):
        await evidence.sign_heads(signer)
    await evidence.write(lambda tx: tx.run("DELETE FROM blocks WHERE number = 3"))
    await evidence.write(lambda tx: tx.run("UPDATE chains SET number = 2"))
    with pytest.raises(EvidenceBroken, match="block 3 was signed, and the chain ends with block 2"):
        await exported(kit, signer, Scope(participant="acme", from_ns=0, to_ns=kit.clock.wall_ns()), tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


async def test_a_broken_chain_is_no_other_participants(kit, tmp_path):
    """What one participant's evidence has suffered stops neither the signature nor the export of another's, whatever their names."""
    signer, evidence = signer_of(), kit.journal.evidence()
    whose = ("acme", "beta", "zeta")
    for number in range(2):
        await kit.accept(*(kit.asset(f"A{number}", participant=name) for name in whose))
        await seal(kit)
        if number == 0:
            await evidence.sign_heads(signer)
    await evidence.write(lambda tx: tx.run("UPDATE blocks SET hash = ? WHERE participant = 'beta'", (b"x" * 32,)))
    with pytest.raises(EvidenceBroken, match="^beta: block 1 is another one than was signed"):
        await evidence.sign_heads(signer)
    for name, wanted in zip(whose, (2, 1, 2), strict=True):
        assert [head.number for head in await evidence.read(partial(heads.of, participant=name))][-1] == wanted
    assert await evidence.sign_heads(signer, "acme") == []
    file = tmp_path / "x.zip"
    await exported(kit, signer, Scope(participant="acme", from_ns=0, to_ns=kit.clock.wall_ns()), file)
    assert examine(file, public(signer)).wrong == ""


async def test_verify_sees_that_a_signed_block_was_made_anew_or_cut_off(kit, tmp_path):
    """A chain that agrees with itself, but not with what was signed."""
    signer, evidence = signer_of(), kit.journal.evidence()
    for number in range(2):
        await kit.accept(kit.asset(f"A{number}"))
        await seal(kit)
    await evidence.sign_heads(signer)

    async def faults():
        report = await verify(evidence.read, archive_directory=tmp_path, anchor_file=None)
        return [(fault.place, fault.text) for fault in report.faults]

    assert await faults() == []
    stored = (await evidence.read(lambda rows: sealing.stored_blocks(rows, "acme", 2, 1)))[0]
    journal = await evidence.read(sealing.identity)
    anew = replace(stored.block, sealed_ns=stored.block.sealed_ns + 1)

    def rebuild(tx):
        tx.run("UPDATE blocks SET hash = ?, sealed_ns = ? WHERE number = 2", (anew.hash(journal), anew.sealed_ns))
        tx.run("UPDATE chains SET hash = ?", (anew.hash(journal),))

    await evidence.write(rebuild)
    assert await faults() == [("block 2", "it is another one than was signed")]

    def cut(tx):
        tx.run("DELETE FROM blocks WHERE number = 2")
        tx.run("DELETE FROM events WHERE number = 2")
        tx.run("UPDATE sealed_writers SET number = 1")
        tx.run("UPDATE chains SET number = 1, hash = ?", (stored.block.previous,))

    await evidence.write(cut)
    assert await faults() == [("block 2", "it was signed, and the chain ends with block 1: it was cut off")]


async def test_what_was_changed_in_the_journal_is_not_handed_out(kit, tmp_path):
    """An event, or the headers of a call, that are not those that were sealed end the export, which leaves no file."""
    signer, evidence = signer_of(), kit.journal.evidence()
    wanted = await a_life(kit)
    await seal(kit)
    scope, file = Scope(participant="acme", submission=wanted), tmp_path / "x.zip"
    await evidence.write(lambda tx: tx.run("UPDATE calls SET headers = ?", ('{"signature":"forged"}',)))
    with pytest.raises(EvidenceBroken, match="the headers of SENDING"):
        await exported(kit, signer, scope, file)
    await evidence.write(lambda tx: tx.run("UPDATE events SET data = ? WHERE kind = 'CONFIRMED'", ("{}",)))
    with pytest.raises(EvidenceBroken, match="block 1: one of its events was changed"):
        await exported(kit, signer, scope, file)
    assert list(tmp_path.glob("*x.zip*")) == []


async def test_what_is_not_there_is_said(kit, tmp_path):
    """Another participant's submission, an empty span, and a file that exists."""
    signer = signer_of()
    wanted = await a_life(kit)
    file = tmp_path / "x.zip"
    await kit.accept(kit.asset("B", participant="other"))
    with pytest.raises(NotPossible, match=f"other has no submission {wanted}"):
        await exported(kit, signer, Scope(participant="other", submission=wanted), file)
    with pytest.raises(NotPossible, match="acme: no sealed evidence of 1970"):
        await exported(kit, signer, Scope(participant="acme", from_ns=0, to_ns=1), file)
    await exported(kit, signer, Scope(participant="acme", submission=wanted), file)
    with pytest.raises(NotPossible, match="is there already"):
        await exported(kit, signer, Scope(participant="acme", submission=wanted), file)


async def test_erased_bytes_are_told_as_erased(kit, tmp_path):
    """The digest stands, and that is no fault."""
    signer, evidence = signer_of(), kit.journal.evidence()
    wanted = await a_life(kit)
    await seal(kit)
    await evidence.write(lambda tx: tx.run("DELETE FROM blobs WHERE bytes = ?", (b"return of asset-1",)))
    file = tmp_path / "x.zip"
    done = await exported(kit, signer, Scope(participant="acme", submission=wanted), file)
    report = examine(file, public(signer))
    assert (report.wrong, report.count.erased, done.erased) == ("", 1, 1)


async def test_a_cut_after_the_signed_head_is_found_by_the_anchor_alone(kit, tmp_path):
    """Blocks that no signature stands for can be cut off without a trace; the anchor that was kept elsewhere names them."""
    signer, evidence = signer_of(), kit.journal.evidence()
    await kit.accept(kit.asset("asset-1"))
    await seal(kit)
    await evidence.sign_heads(signer)
    number, hash_ = (await evidence.read(sealing.heads))["acme"]
    await kit.accept(kit.asset("asset-2"))
    await seal(kit)
    await evidence.write_anchor(tmp_path / "anchor.json")

    def cut(tx):
        tx.run("DELETE FROM blocks WHERE number > ?", (number,))
        tx.run("UPDATE chains SET number = ?, hash = ?", (number, hash_))
        tx.run("DELETE FROM events WHERE number > 1")
        tx.run("UPDATE sealed_writers SET number = 1")

    await evidence.write(cut)
    file = tmp_path / "x.zip"
    await exported(kit, signer, Scope(participant="acme", from_ns=0, to_ns=kit.clock.wall_ns()), file)
    assert examine(file, public(signer)).wrong == ""
    report = examine(file, public(signer), load(tmp_path / "anchor.json"))
    assert report.place == "anchor"
    assert "names block 2" in report.wrong
    assert "ends with block 1" in report.wrong


async def test_who_agreed_to_a_decision_is_part_of_it(kit, tmp_path):
    """Who asked, who approved, and both reasons stand in the events of the submission."""
    signer = signer_of()
    await kit.accept(kit.asset("asset-1"))
    due = await kit.send()
    await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(status=0))
    wanted = Wanted(action=Action.RESEND, submission=due.submission)
    asked = Decision(by="Ann", reason="SMP never saw it")
    id_ = await kit.journal.ask_approval(wanted, asked, expires_ns=kit.clock.wall_ns() + 10**12)
    await kit.journal.approve(id_, Decision(by="Bob", reason="I asked SMP too"))
    file = tmp_path / "one.zip"
    await exported(kit, signer, Scope(participant="acme", submission=due.submission), file)
    assert examine(file, public(signer)).wrong == ""
    events = {line["event"][5]: json.loads(line["event"][7]) for line in lines(file) if "event" in line}
    assert (events["approval.asked"]["by"], events["approval.done"]["by"]) == ("Ann", "Bob")
    assert events["resend"] == {
        "by": "Ann", "reason": "SMP never saw it", "approval": str(id_), "approved_by": "Bob", "approved_because": "I asked SMP too",
    }  # fmt: skip


async def test_which_record_became_which_item_is_part_of_it(kit, tmp_path):
    """Runs of items and of parts of the readings: also where one blob holds records of several submissions, and where an item was replaced."""
    signer = signer_of()
    await kit.accept(
        kit.asset("A", "content A"),
        kit.unit("U", ["A"], readings=b"of the unit"),
        kit.asset("B", "content B"),
        kit.asset("Z", refusal=Refusal(reason=HostReason.RULE, text="of no item"), readings=b"of no item"),
        kit.asset("C", "content C"),
    )
    await kit.accept(kit.asset("X", "content X"), kit.asset("B", "newer content B"))
    due = await kit.sent("T1")
    await kit.settle(due)
    file = tmp_path / "one.zip"
    await exported(kit, signer, Scope(participant="acme", submission=due.submission), file)
    events = [line["event"] for line in lines(file) if "event" in line]
    blobs = {line["blob"]: line["text"].encode() for line in lines(file) if "blob" in line}
    items = {item.key: item.id for item in await kit.journal.submission_items(due.submission)}
    found = {}
    for event in events:
        for first, part, count in json.loads(event[7]).get("parts", ()):
            records = parts_of(blobs[event[8]])
            found |= {first + step: records[part + step] for step in range(count)}
    assert found == {
        items["A"]: b"readings of content A", items["B"]: b"readings of newer content B", items["C"]: b"readings of content C",
        items["X"]: b"readings of content X",
    }  # fmt: skip


def parts_of(blob):
    """The records of a blob of readings: each behind its length."""
    found = []
    while blob:
        size = int.from_bytes(blob[:4], "big")
        found.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    return found


async def test_a_segment_in_anothers_place_is_not_handed_out(kit, tmp_path):
    """Two participants' segments changed their names: neither is given what is the other's, nor anything that the journal did not write."""
    signer, evidence, directory = signer_of(), kit.journal.evidence(), tmp_path / "archive"
    for number in range(3):
        await kit.accept(
            kit.asset(f"A{number}", deadline_ns=1), kit.asset(f"B{number}", participant="beta", deadline_ns=1)
        )
        await seal(kit)
    await evidence.write(lambda tx: tx.run("UPDATE submissions SET state = 'EXPIRED'"))
    await evidence.write(lambda tx: tx.run("UPDATE writebacks SET step = 'written'"))
    settings = ArchiverSettings(directory=directory, after_s=0)
    assert (await Archiver(settings, evidence=evidence, journal=kit.journal, clock=kit.clock).archive(0)).segments == 2
    scope = Scope(participant="acme", from_ns=0, to_ns=kit.clock.wall_ns())
    await exported(kit, signer, scope, tmp_path / "whole.zip", directory)
    ours, theirs = sorted(directory.iterdir())
    other = theirs.read_bytes()
    ours.write_bytes(other)
    with pytest.raises(EvidenceBroken, match="the file is not the one that was written"):
        await exported(kit, signer, scope, tmp_path / "x.zip", directory)
    sha = hashlib.sha256(other).digest()
    await evidence.write(lambda tx: tx.run("UPDATE segments SET sha256 = ? WHERE participant = 'acme'", (sha,)))
    with pytest.raises(EvidenceBroken, match="it is of another participant"):
        await exported(kit, signer, scope, tmp_path / "x.zip", directory)
    assert not (tmp_path / "x.zip").exists()


# ------------------------------------------------------------------------------------------------------------- the file


async def two_blocks(kit):
    for number in range(2):
        await kit.accept(kit.asset(f"A{number}"))
        await seal(kit)
    return Scope(participant="acme", from_ns=0, to_ns=kit.clock.wall_ns())


async def test_two_exports_to_one_file_are_one_and_whole(kit, tmp_path):
    """Each writes beside it, under a name of its own; the second is told that the file is there."""
    signer, file = signer_of(), tmp_path / "x.zip"
    scope = await two_blocks(kit)
    await exported(kit, signer, scope, tmp_path / "first.zip")  # so that both below find every head signed
    ended = await asyncio.gather(*(exported(kit, signer, scope, file) for _ in range(2)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == ["Exported", "NotPossible"]
    assert examine(file, public(signer)).wrong == ""
    assert sorted(path.name for path in tmp_path.glob("*.zip*")) == ["first.zip", "x.zip"]
    assert not list(tmp_path.glob(".x*"))


async def test_an_export_to_a_disk_without_hard_links(kit, tmp_path, monkeypatch):
    """A FAT stick, some shares: it is written all the same, and still replaces nothing."""
    signer, file = signer_of(), tmp_path / "x.zip"
    scope = await two_blocks(kit)

    def no(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no)
    await exported(kit, signer, scope, file)
    assert (examine(file, public(signer)).wrong, file.stat().st_mode & 0o777) == ("", 0o600)
    other = file.with_name("y.zip")

    def late():
        with _File(other) as made:
            other.write_bytes(b"another one's")
            made.finish()

    with pytest.raises(NotPossible, match="is there already"):
        late()
    assert other.read_bytes() == b"another one's"
    assert not list(tmp_path.glob(".*zip*"))


def test_an_export_that_finds_no_room_leaves_nothing_behind(tmp_path):
    """It would hold personal data, and the room that was missing."""

    def write(file):
        with _File(file) as made, made.lines(Exported(head=None)) as lines:
            for _ in range(4000):
                lines.blob(os.urandom(32), (b"nonce", os.urandom(700)))

    with small_disk(tmp_path / "disk", 1) as disk:
        with pytest.raises(OSError, match="No space left"):
            write(disk.directory / "x.zip")
        assert list(disk.directory.iterdir()) == []
