"""Erasing a person's data, on both engines: bytes, nonces and copies are gone from the disk, and evidence is whole without them."""

import asyncio
import base64
import json
import lzma
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import orjson
import pytest

from bridge.envelope import Algorithm
from bridge.errors import NotPossible
from bridge.journal import sealing
from bridge.journal.archiver import Archiver, ArchiverSettings
from bridge.journal.eraser import Eraser
from bridge.journal.examine import examine
from bridge.journal.export import export
from bridge.journal.export_plan import Scope
from bridge.journal.people import Decision
from bridge.journal.retention import Cut
from bridge.journal.terms import Terms
from bridge.journal.verify import verify
from bridge.journal.wiping import wipe
from bridge.keys import KeySigner, new_key, public_from_jwk, thumbprint
from bridge.model import ErrorNote, ItemState, Trigger
from bridge.submission import Admission, SubmissionState

MPAN, OTHER = "1012345678903", "1023456789017"
NAME = "Zoë Müller"
TERMS = Terms(mpans=[MPAN], contacts=[NAME])
WHY = Decision(by="Ann Smith", reason="request 17 of the register")
FIRST_OF_USERS = 16384  # PostgreSQL's own tables have lower numbers
STRANGER = Path(__file__).parents[3] / "docs/verify_evidence.py"


class Desk:
    """A journal with its archive, and short words for what is done to it."""

    def __init__(self, kit, directory):
        self.kit, self.directory = kit, directory / "journal.db.archive"
        key = new_key(Algorithm.ES256)
        self.signer = KeySigner(thumbprint(key), Algorithm.ES256, key)

    @property
    def evidence(self):
        return self.kit.journal.evidence()

    def eraser(self):
        return Eraser(self.directory, evidence=self.evidence, journal=self.kit.journal, clock=self.kit.clock)

    async def erase(self, terms=TERMS):
        return await self.eraser().erase("acme", terms, WHY)

    async def seal(self):
        fence = await self.kit.journal.acquire(sealing.SEALER)
        while (await self.evidence.seal(fence)).events:
            pass
        await self.kit.journal.release([fence])

    async def archive(self):
        """Everything up to now moves to a segment; the last block stays, as ever."""
        await self.seal()
        await self.evidence.note_facts(self.kit.market, "acme", {"at": self.kit.clock.wall_ns()})
        await self.seal()
        self.kit.clock.advance(3600)
        settings = ArchiverSettings(directory=self.directory, after_s=60)
        archiver = Archiver(settings, evidence=self.evidence, journal=self.kit.journal, clock=self.kit.clock)
        return await archiver.archive(60)

    async def verify(self):
        await self.seal()
        return await verify(self.evidence.read, archive_directory=self.directory, anchor_file=None)

    async def faults(self):
        return [f"{fault.place}: {fault.text}" for fault in (await self.verify()).faults]

    async def export(self, file, **scope):
        await self.seal()
        await self.evidence.sign_heads(self.signer)
        now_ns = self.kit.clock.wall_ns()
        where = {"archive_directory": self.directory, "file": file, "now_ns": now_ns}
        return await export(self.evidence.read, Scope(participant="acme", **scope), self.signer, **where)

    def names(self):
        return sorted(path.name for path in self.directory.iterdir())

    async def rows(self, sql, *args):
        return await self.evidence.read(lambda rows: rows.all(sql, args))

    async def on_disk(self, *, wiped=True):
        """Everything that lies on the disk, unpacked: the file and its log, or the tables as their files hold them, and the archive."""
        found = {path.name: lzma.decompress(path.read_bytes()) for path in self.directory.glob("*.xz")}
        if self.kit.engine.name == "sqlite":
            if wiped:
                wipe(self.kit.engine.path)
            return found | {
                path.name: path.read_bytes()
                for path in self.kit.engine.path.parent.glob("**/journal.db*")
                if path.is_file()
            }
        from bridge.journal import pg_wiping  # noqa: PLC0415

        if wiped:
            pg_wiping.wipe(self.kit.engine.server, alone=True)
        cluster = self.kit.engine.cluster
        cluster.admin("CHECKPOINT", database=self.kit.engine.database)
        oid = await self.rows("SELECT CAST(oid AS BIGINT) FROM pg_database WHERE datname = current_database()")
        files = (cluster.directory / "data/base" / str(oid[0][0])).iterdir()
        ours = [
            path for path in files if path.name[:1].isdigit() and int(re.split(r"[._]", path.name)[0]) >= FIRST_OF_USERS
        ]
        return found | {path.name: path.read_bytes() for path in ours}


@pytest.fixture
def desk(kit, tmp_path):
    return Desk(kit, tmp_path)


def item(key, mpan=MPAN, name=NAME):
    return json.dumps({"assetReference": key, "importMpan": mpan, "controlContact.name": name}, ensure_ascii=False)


def jws(payload):
    """A compact JWS: nothing of its payload can be read in its bytes."""
    parts = (b'{"alg":"PS256"}', payload.encode(), b"s" * 64)
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def lines(file):
    with zipfile.ZipFile(file) as archive:
        return [json.loads(line) for line in archive.read("evidence.jsonl").splitlines()]


async def a_life(kit, key, mpan=MPAN, name=NAME, *, outcome=ItemState.REGISTERED):
    """One submission whose readings, call, answer and return hold the person's data, and its end."""
    record = item(key, mpan, name)
    candidate = kit.asset(key, record, readings=b"\x00" + record.encode())
    call = kit.call(body=jws(record), headers={"signature": f"signature of {key}"})
    await kit.accept(candidate, fast=kit.fast(f"S-{key}", key, call=call))
    answer = kit.answer(f"T-{key}", body=record.encode())
    await kit.journal.answered(kit.market, f"S-{key}", SubmissionState.AWAITING_RETURN, answer)
    back = kit.returned(f"R-{key}", transaction_id=f"T-{key}", body=jws(record), headers={"signature": f"of R-{key}"})
    parked = await kit.journal.park_return(kit.market, back)
    found = await kit.journal.find_submission("acme", submission=f"S-{key}")
    result = kit.result(found.items[0].id, key, outcome)
    state = SubmissionState.CONFIRMED if outcome is ItemState.REGISTERED else SubmissionState.PARTIAL
    if outcome is ItemState.REFUSED:
        errors = (ErrorNote(code="E7", text=f"no meter {mpan} of {name}", field="/mpan"),)
        result, state = type(result)(item=result.item, state=outcome, errors=errors), SubmissionState.FAILED
    await kit.journal.settle(
        kit.market, f"S-{key}", state, [result], cause=f"return R-{key}", return_id=parked.return_id
    )
    await kit.write_all()
    return f"S-{key}"


def held(found, *words):
    """Which files hold one of these words, in any form."""
    terms = Terms(
        contacts=[word for word in words if not word.isdigit()], mpans=[word for word in words if word.isdigit()]
    )
    return sorted(name for name, data in found.items() if terms.within(data))


async def test_what_was_erased_is_nowhere_on_the_disk_and_evidence_is_whole(desk, tmp_path):
    """Readings, call, answer, return, headers, content and error texts are gone, in the journal and in a segment; what is somebody else's stays."""
    kit = desk.kit
    await a_life(kit, "asset-1")
    await desk.archive()
    await a_life(kit, "asset-2", outcome=ItemState.REFUSED)
    await a_life(kit, "asset-3", OTHER, "Bob Miller")
    await kit.write_all()
    await kit.journal.alarm("CONFLICT", participant="acme", subject="x", text=f"{MPAN} came again")
    await desk.seal()
    before = await desk.on_disk(wiped=False)
    assert len(held(before, MPAN)) >= 2

    wanted = await desk.eraser().find("acme", TERMS)
    found = await desk.erase()
    assert (found.pieces, len(found.items.ids)) == (wanted.pieces, 2) == (8, 2)
    assert found.subjects == ["R-asset-1", "R-asset-2", "S-asset-1", "S-asset-2"]
    after = await desk.on_disk()
    assert held(after, MPAN, NAME, "signature of asset-1", "signature of asset-2", "of R-asset-1") == []
    assert (await desk.eraser().find("acme", Terms(mpans=[OTHER]))).pieces == 4  # somebody else's are there
    assert (await desk.eraser().find("acme", TERMS)).nothing

    report = await desk.verify()
    assert [f"{fault.place}: {fault.text}" for fault in report.faults] == []
    assert report.chains[0].erased == 8
    for submission, erased in (("S-asset-1", 6), ("S-asset-2", 6), ("S-asset-3", 0)):
        file = tmp_path / f"{submission}.zip"
        done = await desk.export(file, submission=submission)
        seen = examine(file, {desk.signer.kid: public_from_jwk(None, desk.signer.public_jwk())})
        assert (seen.wrong, seen.count.erased, done.erased) == ("", erased, erased)
        events = [line["event"] for line in lines(file) if "event" in line]
        said = [json.loads(event[7]) for event in events if "erased" in event[5]]
        assert {(one["by"], one["reason"]) for one in said} == ({(WHY.by, WHY.reason)} if erased else set())
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [desk.signer.public_jwk()]}))
    told = subprocess.run(
        [sys.executable, STRANGER, tmp_path / "S-asset-1.zip", keys], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "6 pieces of bytes erased" in told.stdout


async def test_what_has_not_ended_is_refused_and_nothing_is_changed(desk):
    """Neither a submission under way nor a return that nobody dealt with loses what it needs."""
    kit = desk.kit
    await kit.accept(kit.asset("asset-1", item("asset-1")))
    with pytest.raises(NotPossible, match="1 submissions that hold it have not ended: id-"):
        await desk.erase()
    due = await kit.sent("T-1")
    with pytest.raises(NotPossible, match="have not ended"):
        await desk.erase()
    await kit.settle(due)
    await kit.journal.park_return(kit.market, kit.returned("R-1", transaction_id="T-9", body=jws(item("x"))))
    with pytest.raises(NotPossible, match="1 returns that hold it"):
        await desk.erase()
    assert await desk.rows("SELECT count(*) FROM events WHERE kind LIKE '%erased%'") == [(0,)]
    assert await desk.rows("SELECT count(*) FROM items WHERE length(content) = 0") == [(0,)]


async def test_the_reference_stands_and_what_its_ems_shows_is_not_kept_again(desk):
    """It is registered as before, with its ids; whatever the EMS shows is a repeat, and nothing is sent or stored."""
    kit = desk.kit
    await a_life(kit, "asset-1")
    await desk.erase()
    blobs = await desk.rows("SELECT count(*) FROM blobs")
    for shown in (item("asset-1"), item("asset-1", OTHER)):
        intake = await kit.accept(kit.asset("asset-1", shown, readings=shown.encode()))
        assert [one.admission for one in intake.accepted] == [Admission.REPEAT]
    assert await desk.rows("SELECT count(*) FROM blobs") == blobs
    assert await kit.next() is not None
    (view,) = await kit.journal.assets("acme")
    assert (view.state, view.asset_id, view.transaction_id) == (ItemState.REGISTERED, "asset-asset-1", "T-asset-1")
    assert await kit.codes() == []


async def test_a_refused_record_may_be_asked_for_anew(desk):
    """Under `change` it stays as it was; a request of the EMS creates it again, for that is a new record."""
    kit = desk.kit
    await a_life(kit, "asset-1", outcome=ItemState.REFUSED)
    await desk.erase()
    (same,) = (await kit.accept(kit.asset("asset-1", item("asset-1")))).accepted
    assert same.admission is Admission.REPEAT
    asked = kit.asset("asset-1", item("asset-1"), trigger=Trigger.REQUEST, request="2")
    (anew,) = (await kit.accept(asked)).accepted
    assert anew.admission is Admission.NEW


async def test_what_is_unknown_cannot_be_sent_again_without_its_content(desk):
    """A person is told so."""
    kit = desk.kit
    submission = await a_life(kit, "asset-1", outcome=ItemState.UNKNOWN)
    await desk.erase()
    with pytest.raises(NotPossible, match="the content was erased: asset-1"):
        await kit.journal.resend(submission, WHY)
    await kit.journal.cancel(submission, WHY)


async def test_bytes_that_somebody_took_away_without_a_word_are_a_fault(desk):
    """Only an event makes missing bytes erased ones; wherever they were."""
    kit = desk.kit
    await a_life(kit, "asset-1")
    await desk.archive()
    await a_life(kit, "asset-2")
    await desk.erase(Terms(contacts=["nobody at all"]))
    assert await desk.faults() == []
    await desk.evidence.write(lambda tx: tx.run("DELETE FROM blobs WHERE id = (SELECT max(id) FROM blobs)"))
    (fault,) = await desk.faults()
    assert fault.startswith("journal: the bytes of 1 are gone, and no event says who erased them: ")


async def test_what_is_erased_while_it_is_verified_is_no_fault(desk):
    """The walk had its list of segments already when one of them was written anew under another name."""
    await a_life(desk.kit, "A1")
    await desk.archive()
    await desk.seal()
    asked = desk.evidence.read

    async def read(work):
        value = await asked(work)
        if isinstance(value, Cut) and desk.names() == before:
            await desk.erase()
            await desk.seal()
        return value

    before = desk.names()
    report = await verify(read, archive_directory=desk.directory, anchor_file=None)
    assert desk.names() != before
    assert [f"{fault.place}: {fault.text}" for fault in report.faults] == []
    (chain,) = report.chains
    assert (chain.erased > 0, report.segments) == (True, 1)
    next(desk.directory.iterdir()).unlink()
    assert len(await desk.faults()) == 2  # named once, however often it was walked


async def test_a_run_that_was_cut_off_is_finished_by_the_next(desk, monkeypatch):
    """The old file of a segment still lies there: it is found, and goes; so do items whose bytes went already."""
    kit = desk.kit
    await a_life(kit, "asset-1")
    await desk.archive()
    (old,) = desk.directory.iterdir()
    kept = old.read_bytes()
    unlink = Path.unlink

    def cut(path, **more):
        if path == old:
            raise OSError(5, os.strerror(5))
        unlink(path, **more)

    monkeypatch.setattr(Path, "unlink", cut)
    with pytest.raises(Exception, match="cannot be changed"):
        await desk.erase()
    monkeypatch.undo()
    assert old.read_bytes() == kept
    found = await desk.erase()
    assert (found.left_over, len(found.items.ids), found.pieces) == ([old.name], 1, 0)
    assert held(await desk.on_disk(), MPAN, NAME) == []
    assert await desk.faults() == []


async def test_a_file_of_another_list_is_left_to_the_person(desk):
    """A segment that a restored journal does not know may be all that is left of something: nothing is erased around it."""
    kit = desk.kit
    await a_life(kit, "asset-1")
    await desk.archive()
    (path,) = desk.directory.iterdir()
    text = lzma.decompress(path.read_bytes())
    rows = [orjson.loads(line) for line in text.splitlines()]
    await desk.evidence.write(lambda tx: tx.run("DELETE FROM segments"))
    with pytest.raises(NotPossible, match="is not of this journal's list"):
        await desk.erase()
    assert rows[0]["participant"] == "acme"


async def test_a_reason_that_names_the_person_is_refused(desk):
    """It would stand in an event for ever."""
    await a_life(desk.kit, "asset-1")
    agreed = {"approved_by": "Bob", "approved_because": f"I know {NAME}"}
    for wrong in (
        Decision(by=NAME, reason="asked"),
        Decision(by="Ann", reason=f"of mpan {MPAN}"),
        Decision(by="Ann", reason="asked", more=agreed),
    ):
        with pytest.raises(NotPossible, match="which is never erased"):
            await desk.eraser().erase("acme", TERMS, wrong)


async def test_nothing_of_another_participant_is_touched(desk):
    """The same person's data at another participant are that one's to erase."""
    kit = desk.kit
    await kit.accept(kit.asset("asset-1", item("asset-1"), participant="other", readings=item("o").encode()))
    found = await desk.erase()
    assert found.nothing
    assert await desk.rows("SELECT count(*) FROM blobs WHERE participant = 'other'") == [(1,)]
    assert [terms_held for (terms_held,) in await desk.rows("SELECT content FROM items")] == [item("asset-1").encode()]


async def test_beside_a_service_the_tables_are_vacuumed_alone(desk):
    """Nobody is locked out: another session has the journal open, and works on meanwhile."""
    kit = desk.kit
    if kit.engine.name == "sqlite":
        return
    from bridge.journal import pg_wiping  # noqa: PLC0415

    await a_life(kit, "asset-1")
    await desk.erase()
    await asyncio.to_thread(pg_wiping.wipe, kit.engine.server, alone=False)
    await a_life(kit, "asset-2", OTHER, "Bob Miller")
    assert await desk.rows("SELECT count(*) FROM blobs WHERE participant = 'acme'") == [(4,)]


async def test_what_cannot_go_is_counted(desk):
    """A reference that is an MPAN, and events that were sealed with it, are told with their numbers."""
    kit = desk.kit
    await a_life(kit, MPAN)
    found = await desk.erase()
    assert found.stays["items.key"] == 1
    assert found.stays["event SENDING"] == 1
    assert found.pieces == 4
