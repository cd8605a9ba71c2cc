"""Archive and verification: old settled evidence leaves the journal for files that verify, nothing else does, and at whatever moment a run ends nothing is lost."""

import asyncio
import dataclasses
import hashlib
import itertools
import lzma
import os
from base64 import b64decode
from pathlib import Path

import orjson
import pytest
from small_disk import small_disk

from bridge.errors import Fenced, LeaseHeld
from bridge.journal import archive, held, sealing
from bridge.journal.anchor import AnchorVerdict
from bridge.journal.archiver import ArchiveFailed, Archiver, ArchiverSettings
from bridge.journal.sealing import stored_blocks
from bridge.journal.segments import SegmentHead, SegmentWriter
from bridge.journal.verify import verify
from bridge.model import ItemState
from bridge.submission import Admission, SubmissionState

DAY_S = 86_400.0


class Place:
    """A journal with its archive's directory and its anchor."""

    def __init__(self, kit, directory):
        self.kit, self.directory, self.anchor = kit, directory / "archive", directory / "anchor.json"

    @property
    def evidence(self):
        return self.kit.journal.evidence()

    async def seal(self):
        fence = await self.kit.journal.acquire(sealing.SEALER)
        while (await self.evidence.seal(fence)).events:
            pass
        await self.kit.journal.release([fence])

    def archiver(self, evidence=None):
        settings = ArchiverSettings(directory=self.directory, after_s=30 * DAY_S)
        return Archiver(settings, evidence=evidence or self.evidence, journal=self.kit.journal, clock=self.kit.clock)

    async def archive(self, older_than_s=0.0):
        return await self.archiver().archive(older_than_s)

    async def verify(self):
        return await verify(self.evidence.read, archive_directory=self.directory, anchor_file=None)

    async def faults(self):
        return [f"{fault.place}: {fault.text}" for fault in (await self.verify()).faults]

    async def rows(self, sql, *args):
        return await self.evidence.read(lambda rows: rows.all(sql, args))

    async def run(self, sql, *args):
        await self.evidence.write(lambda tx: tx.run(sql, args))

    def lines(self):
        for path in sorted(self.directory.glob("*.xz")):
            yield from map(orjson.loads, lzma.decompress(path.read_bytes()).splitlines())

    async def everything(self):
        """All sealed evidence, wherever it is: events, and bytes by their digest."""
        events = {tuple(row) for row in await self.rows(_EVENTS)}
        bytes_ = {row[0]: row[1] for row in await self.rows("SELECT digest, bytes FROM blobs") if row[0]}
        for line in self.lines():
            if "event" in line:
                digest = line["event"][8]
                events.add((*line["event"][:8], bytes.fromhex(digest) if digest else None))
            elif "blob" in line and "text" in line:
                bytes_[bytes.fromhex(line["blob"])] = line["text"].encode()
            elif "blob" in line:
                bytes_[bytes.fromhex(line["blob"])] = b64decode(line["base64"])
        return {event for event in events if event[1] != archive.ARCHIVE}, bytes_


_EVENTS = "SELECT participant, writer, epoch, number, at_ns, kind, subject, data, digest FROM events"


@pytest.fixture
def place(kit, tmp_path):
    return Place(kit, tmp_path)


async def old_and_new(place):
    """Some submissions of 40 days ago that are done with, a few of each kind that are not, and new ones; all sealed."""
    kit = place.kit
    for name in "ABC":
        await kit.registered(f"{name}1", f"{name}2")
        await kit.write_all()
        await place.seal()
    due = await kit.journal.accept(kit.field, [kit.asset("F1", readings=b"\xff\xfe not text")], kit.fast("fast", "F1"))
    assert due.fast
    await kit.journal.answered(kit.market, "fast", SubmissionState.AWAITING_RETURN, kit.answer("TF"))
    await kit.journal.park_return(kit.market, kit.returned("RF", transaction_id="TF"))
    (parked,) = await kit.journal.unsettled_returns(kit.participant)
    item = due.accepted[0].item
    await kit.journal.settle(
        kit.market,
        "fast",
        SubmissionState.CONFIRMED,
        [kit.result(item, "F1", ItemState.REGISTERED)],
        cause="return",
        return_id=parked.id,
    )
    await kit.write_all()
    await place.seal()
    kit.clock.advance(40 * DAY_S)
    await kit.registered("N1")
    await kit.write_all()
    await place.seal()


async def test_old_settled_evidence_moves_and_still_verifies(place):
    """Events, bytes and blocks leave; what admission needs stays; everything can be read and verified in the segment."""
    await old_and_new(place)
    before = await place.everything()
    events = len(await place.rows(_EVENTS))
    report = await place.archive(30 * DAY_S)
    assert (report.segments, report.events) == (1, events - len(await place.rows(_EVENTS)) + 1)
    assert report.events > 10
    assert await place.everything() == before
    found = await place.verify()
    assert found.faults == []
    (chain,) = found.chains
    assert (chain.archived, chain.erased, chain.unsealed) == (report.blocks, 0, 1)
    assert [path.stat().st_mode & 0o777 for path in place.directory.iterdir()] == [0o600]
    # the rows that rule admission are as they were
    (again,) = (await place.kit.accept(place.kit.asset("A1"))).accepted
    assert again.admission is Admission.REPEAT
    (again,) = (await place.kit.accept(place.kit.asset("B2", content="changed"))).accepted
    assert again.admission is Admission.DRIFT
    views = {view.id: view for view in await place.kit.journal.submissions()}
    assert views["fast"].state is SubmissionState.CONFIRMED
    assert await place.kit.journal.events("fast") == []
    names = await place.evidence.read(lambda rows: archive.segments_of(rows, "fast"))
    assert names == [path.name for path in place.directory.iterdir()]


async def test_the_bytes_of_calls_returns_answers_and_readings_are_in_the_segment(place):
    """Each kind of bytes is found under its digest, text as text."""
    await old_and_new(place)
    await place.archive(30 * DAY_S)
    held = {line.get("text", line.get("base64")) for line in place.lines() if "blob" in line}
    assert {"body-1", "the return as it came", "{}"} <= held
    assert any("readings of a" in text for text in held)
    nonces = [line for line in place.lines() if "blob" in line]
    for line in nonces:
        if "text" in line:
            data = bytes.fromhex(line["nonce"]) + line["text"].encode()
            assert hashlib.sha256(data).hexdigest() == line["blob"]
    left = {bytes(row[0]) for row in await place.rows("SELECT bytes FROM blobs")}
    assert b"the return as it came" not in left


async def test_the_segment_is_on_disk_before_its_rows_leave(place, monkeypatch):
    """Its content is synced, then it gets its name, then the name is synced; not before that is a row deleted. A power cut forgets what was not synced."""
    await old_and_new(place)
    steps, fsync, rename = [], os.fsync, Path.rename

    def synced(handle):
        fsync(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        steps.append("names" if path == place.directory else "content" if path.parent == place.directory else "other")

    def renamed(path, target):
        steps.append("renamed")
        return rename(path, target)

    def deleting(name):
        delete = getattr(archive, name)

        def deleted(*args, **named):
            steps.append("deleted")
            return delete(*args, **named)

        monkeypatch.setattr(archive, name, deleted)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    for name in ("delete_blobs", "delete_block"):
        deleting(name)
    assert (await place.archive(30 * DAY_S)).segments == 1
    in_order = [step for step, _ in itertools.groupby(step for step in steps if step != "other")]
    assert in_order == ["content", "renamed", "names", "deleted"]


async def test_what_is_not_settled_stays_and_moves_later(place):
    """Waiting, sent, in doubt, returns not dealt with, and outcomes the EMS was not told keep their blocks; when they end, these go too."""
    kit = place.kit
    told = await kit.registered("T1")  # its write-back is not done
    await place.seal()
    await kit.accept(kit.asset("D1"))
    sent = await kit.sent("T-open")
    await place.seal()
    await kit.accept(kit.asset("W1"))
    await place.seal()
    await kit.journal.park_return(kit.market, kit.returned("R-early", transaction_id="unheard"))
    await place.seal()
    await kit.registered("OK1")
    await kit.journal.wrote_back(kit.field, [])
    await place.seal()
    kit.clock.advance(40 * DAY_S)
    await kit.accept(kit.asset("Z"))
    await place.seal()
    before = await place.everything()
    await place.archive(DAY_S)
    assert await place.everything() == before
    kinds = {row[0] for row in await place.rows("SELECT kind FROM events")}
    assert {"SENDING", "AWAITING_RETURN", "WAITING", "return"} <= kinds
    assert [event.kind for event in await kit.journal.events(told.submission)][-1] == "CONFIRMED"
    assert (await kit.journal.unsettled_returns(kit.participant))[0].message.body == b"the return as it came"
    assert await place.faults() == []
    (before_bodies,) = await place.rows("SELECT count(*) FROM calls c JOIN blobs b ON b.id = c.body")
    assert before_bodies[0] >= 1
    await kit.settle(sent)
    (parked,) = await kit.journal.unsettled_returns(kit.participant)
    await kit.journal.close_return(kit.market, parked.id, "orphan")
    due = await kit.sent("T-w1")
    await kit.settle(due)
    await kit.write_all()
    await place.seal()
    kit.clock.advance(40 * DAY_S)
    await kit.registered("LAST")
    await place.seal()
    left = len(await place.rows(_EVENTS))
    await place.archive(DAY_S)
    assert len(await place.rows(_EVENTS)) < left
    assert await place.faults() == []
    assert (await place.archive(DAY_S)).segments == 0


async def test_an_id_of_a_deleted_blob_is_never_given_out_again(place):
    """Rows that stay still name their old bytes; no later bytes may come under that name."""
    kit = place.kit
    await kit.registered("A1")
    await kit.write_all()
    await place.seal()
    kit.clock.advance(40 * DAY_S)
    await kit.accept(kit.asset("X", readings=b""))
    await place.seal()
    newest = (await place.rows("SELECT max(id) FROM blobs"))[0][0]
    await place.archive(DAY_S)
    await kit.accept(kit.asset("Y", readings=b"new readings"))
    ((id_,),) = await place.rows("SELECT id FROM blobs WHERE bytes <> ?", b"")
    assert id_ > newest


async def test_two_runs_at_once_are_one(place):
    """The second one is told that somebody archives, and that this ends: no process has to be stopped."""
    other = await place.kit.engine.open("cli")
    fence = await other.acquire(archive.ARCHIVE)
    with pytest.raises(LeaseHeld, match="the archive is worked on by the service or another command") as told:
        await place.archive()
    assert told.value.hint == "try again when that is done"
    await other.release([fence])
    await place.archive()


async def test_a_run_that_takes_longer_than_a_lease_keeps_it(place, monkeypatch):
    """It is renewed beside the work: nobody else takes the archive over meanwhile."""
    await old_and_new(place)
    monkeypatch.setattr(held, "RENEW_S", 0.01)
    kit, archiver = place.kit, place.archiver()
    other, write = await kit.engine.open("cli"), archiver._write

    async def slowly(*args):
        await kit.engine.lease_runs_out(archive.ARCHIVE)
        async with asyncio.timeout(10):
            while (await place.rows("SELECT expires_ns FROM leases WHERE lease = ?", archive.ARCHIVE)) == [(0,)]:
                await asyncio.sleep(0.01)
        with pytest.raises(LeaseHeld):
            await other.acquire(archive.ARCHIVE)
        return await write(*args)

    archiver._write = slowly
    assert (await archiver.archive(30 * DAY_S)).segments == 1
    await other.release([await other.acquire(archive.ARCHIVE)])


async def test_an_archive_that_somebody_took_over_does_not_end_the_host(place):
    """The run by itself ends, and is tried again later; its last word is that of whoever has the archive now."""
    await old_and_new(place)
    archiver = place.archiver()

    async def taken(*_):
        raise Fenced("archive: epoch 1 is no longer the owner's")

    archiver._write = taken
    assert await archiver._try(30 * DAY_S) is False
    assert await place.kit.codes() == []
    assert (await place.archive(30 * DAY_S)).segments == 1


# ------------------------------------------------------------------------------------------------- ends at any moment


class Lost(BaseException):
    """The process is gone."""


class Failing:
    """Evidence whose n-th call never returns: before or after it was done."""

    def __init__(self, evidence, left, *, done):
        self._evidence, self.left, self._done = evidence, left, done

    async def _call(self, call, work):
        if self.left == 0 and not self._done:
            raise Lost
        value = await call(work)
        if self.left == 0:
            raise Lost
        self.left -= 1
        return value

    async def read(self, work):
        return await self._call(self._evidence.read, work)

    async def write_beyond(self, work):
        return await self._call(self._evidence.write_beyond, work)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_a_run_that_is_lost_at_any_step_loses_nothing(place, done):
    """At each of its steps: everything is still there, all of it verifies, and the next run brings the work to its end without a second copy."""
    kit = place.kit
    await old_and_new(place)
    before = await place.everything()
    steps, lost = 0, True
    while lost:
        failing = Failing(place.evidence, steps, done=done)
        try:
            await place.archiver(failing).archive(30 * DAY_S)
            lost = False
        except Lost:
            pass
        assert await place.everything() == before, steps
        assert await place.faults() == [], steps
        steps += 1 if steps < 12 else 3
    assert steps > 15
    await place.archive(30 * DAY_S)
    found = await place.verify()
    assert (found.faults, found.unlisted) == ([], [])
    held = [tuple(line["event"][:4]) for line in place.lines() if "event" in line]
    assert len(held) == len(set(held))
    assert await kit.journal.events("fast") == []
    assert not list(place.directory.glob(".*"))


async def test_a_written_segment_that_was_not_named_is_taken_up(place):
    """Lost between the file and its row: the next run names that very file."""
    await old_and_new(place)
    calls = Failing(place.evidence, 10**6, done=False)
    await place.archiver(calls).archive(
        400 * DAY_S
    )  # nothing is that old: it counts the steps before the first segment

    async def no(*_, **__):
        raise Lost

    archiver = place.archiver()
    archiver._name_and_empty = no
    with pytest.raises(Lost):
        await archiver.archive(30 * DAY_S)
    (path,) = place.directory.iterdir()
    content = path.read_bytes()
    assert (await place.verify()).unlisted == [path.name]
    report = await place.archive(30 * DAY_S)
    assert report.segments == 1
    assert [found.name for found in place.directory.iterdir()] == [path.name]
    assert path.read_bytes() == content
    assert await place.faults() == []


async def test_a_written_segment_whose_call_is_open_again_is_left_alone(place):
    """A backup from before the call ended was restored, and the segment that was written after it lies in the archive: what the call needs stays here."""
    kit = place.kit
    due = await kit.registered("A1")
    await kit.write_all()
    await place.seal()
    await kit.registered("Z1")
    await place.seal()
    archiver = place.archiver()

    async def no(*_, **__):
        raise Lost

    archiver._name_and_empty = no
    with pytest.raises(Lost):
        await archiver.archive(0)
    (path,) = place.directory.iterdir()
    await place.run(
        "UPDATE submissions SET state = 'IN_DOUBT', resend = 2, due_ns = 0, placed_ns = 0 WHERE id = ?", due.submission
    )
    assert (await place.archive(0)).segments == 0
    assert (await kit.due()).call.body == b"body-1"
    assert (await place.verify()).unlisted == [path.name]
    assert await place.faults() == []


async def test_a_segment_of_another_history_deletes_nothing(place):
    """A named segment that is whole, but whose blocks are not those of the journal: nothing is deleted on its word."""
    await old_and_new(place)
    archiver = place.archiver()

    async def no(*_):
        raise Lost

    archiver._empty = no
    with pytest.raises(Lost):
        await archiver.archive(30 * DAY_S)
    await place.run("UPDATE blocks SET hash = root WHERE number = 3")
    before = await place.rows(_EVENTS)
    with pytest.raises(ArchiveFailed):
        await place.archive(30 * DAY_S)
    assert await place.rows(_EVENTS) == before


async def test_a_segment_that_is_gone_keeps_nobody_elses_evidence_here(place):
    """Its own participant's stays in the journal, and that is told; of the others what is old moves, or all of them would run out of room."""
    await old_and_new(place)
    archiver, kit = place.archiver(), place.kit

    async def no(*_):
        raise Lost

    archiver._empty = no
    with pytest.raises(Lost):
        await archiver.archive(30 * DAY_S)
    (path,) = place.directory.iterdir()
    path.unlink()
    for number in range(2):
        await kit.accept(kit.asset(f"B{number}", participant="beta"))
        await place.seal()
    await place.run("UPDATE submissions SET state = 'EXPIRED' WHERE participant = 'beta'")
    await place.run("UPDATE writebacks SET step = 'written'")
    ours = await place.rows("SELECT count(*) FROM blocks WHERE participant = 'acme'")
    with pytest.raises(ArchiveFailed, match=path.name):
        await place.archive(0)
    assert [found.name.split("-")[0] for found in place.directory.iterdir()] == ["beta"]
    assert await place.rows("SELECT count(*) FROM blocks WHERE participant = 'acme'") == ours


async def test_bytes_that_were_changed_keep_nobody_elses_evidence_here(place):
    """They cannot be archived as what was sealed, at no time; what is old of the participants behind that one moves all the same."""
    kit = place.kit
    for name in ("acme", "beta"):
        for number in range(2):
            await kit.accept(kit.asset(f"{name}{number}", participant=name))
            await place.seal()
    await place.run("UPDATE submissions SET state = 'EXPIRED'")
    await place.run("UPDATE writebacks SET step = 'written'")
    await place.run("UPDATE blobs SET nonce = bytes WHERE participant = 'acme'")
    for _ in range(2):
        with pytest.raises(ArchiveFailed, match="the bytes of"):
            await place.archive(0)
    assert [found.name.split("-")[0] for found in place.directory.glob("[!.]*")] == ["beta"]
    assert await place.rows("SELECT number FROM blocks WHERE participant = 'acme'") == [(1,), (2,)]


async def test_a_segment_that_is_gone_is_named(place):
    """Moved away before the journal was emptied of it: the error says which file is missing, not only which directory it was in."""
    await old_and_new(place)
    archiver = place.archiver()

    async def no(*_):
        raise Lost

    archiver._empty = no
    with pytest.raises(Lost):
        await archiver.archive(30 * DAY_S)
    (path,) = place.directory.iterdir()
    path.unlink()
    with pytest.raises(ArchiveFailed, match=f"the archive cannot be used: {path}: No such file"):
        await place.archive(30 * DAY_S)


async def test_a_damaged_segment_stops_deletion(place):
    """A named file that does not verify any more: nothing is deleted on its word, and a person is told."""
    await old_and_new(place)
    archiver = place.archiver()

    async def no(*_):
        raise Lost

    archiver._empty = no
    with pytest.raises(Lost):
        await archiver.archive(30 * DAY_S)
    before = await place.rows(_EVENTS)
    (path,) = place.directory.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArchiveFailed) as failed:
        await place.archive(30 * DAY_S)
    assert failed.value.hint
    assert await place.rows(_EVENTS) == before


def test_a_segment_that_finds_no_room_leaves_nothing_behind(tmp_path):
    """Its last bytes find no room when it is closed too: the file that holds the rest goes all the same, and with it the room that it took."""

    def write(disk):
        with SegmentWriter(disk.directory / ".x.partial", SegmentHead(journal="j", participant="acme")) as writer:
            disk.fill()
            writer.finish()

    with small_disk(tmp_path / "disk", 1) as disk:
        with pytest.raises(OSError, match="No space left"):
            write(disk)
        assert [path.name for path in disk.directory.iterdir()] == ["filler"]


# ------------------------------------------------------------------------------------------------------- verification


async def sealed_journal(place):
    for name in "ABCD":
        await place.kit.registered(f"{name}1", f"{name}2")
        await place.seal()
    assert await place.faults() == []


FORGED = (
    "INSERT INTO events (participant, writer, epoch, number, at_ns, kind, subject, data)"
    " SELECT participant, 'market:forged', 1, 0, at_ns, kind, subject, data FROM events WHERE number = 3 AND writer = 'market:acme'"
)
TAMPERING = {
    "changed data": (
        "UPDATE events SET data = '{}' WHERE number = 3 AND writer = 'market:acme'",
        "one of its events was changed",
    ),
    "changed time": (
        "UPDATE events SET at_ns = at_ns + 1 WHERE number = 2 AND writer = 'field:north'",
        "one of its events was changed",
    ),
    "changed digest": (
        "UPDATE events SET digest = NULL WHERE number = 1 AND writer = 'field:north'",
        "one of its events was changed",
    ),
    "deleted event": ("DELETE FROM events WHERE number = 3 AND writer = 'market:acme'", "3 of its 4 events are there"),
    "changed bytes": ("UPDATE blobs SET bytes = nonce WHERE id = 2", "bytes that belong to its events were changed"),
    "changed root": ("UPDATE blocks SET root = previous WHERE number = 2", "its header was changed"),
    "changed hash": ("UPDATE blocks SET hash = root WHERE number = 2", "its header was changed"),
    "deleted block": ("DELETE FROM blocks WHERE number = 2", "block 2: missing"),
    "deleted last block": ("DELETE FROM blocks WHERE number = 4", "block 4: missing"),
    "shorter chain": (
        "UPDATE chains SET number = 3, hash = (SELECT hash FROM blocks WHERE number = 3)",
        "stand outside of every block",
    ),
    "unreadable ranges": ("UPDATE blocks SET ranges = 'nonsense' WHERE number = 2", "its header was changed"),
    "unreadable readings": (
        "UPDATE events SET data = '{\"readings\":\"zz\"}' WHERE kind = 'SENDING' AND number = 1",
        "one of its events was changed",
    ),
    "inserted event": (FORGED, "1 events stand outside of every block"),
}


@pytest.mark.parametrize("case", TAMPERING)
async def test_tampering_is_found_with_its_place(place, case):
    """Whatever is changed in the sealed rows, verification names it."""
    await sealed_journal(place)
    sql, wanted = TAMPERING[case]
    if case == "shorter chain":
        await place.run("DELETE FROM blocks WHERE number = 5")
        await place.run("DELETE FROM blocks WHERE number = 4")
    await place.run(sql)
    faults = await place.faults()
    assert any(wanted in fault for fault in faults), faults
    assert len(faults) <= 3


async def test_unsealed_events_that_are_gone_are_found(place):
    """A hole behind the last sealed number shows before the next block, too."""
    await sealed_journal(place)
    for name in "XYZ":
        await place.kit.accept(place.kit.asset(name))
    assert (await place.verify()).chains[0].unsealed == 3
    await place.run("DELETE FROM events WHERE subject IN (SELECT subject FROM events WHERE number = 6 AND writer = 'field:north')"
                    " AND number = 6 AND writer = 'field:north'")  # fmt: skip
    assert await place.faults() == ["not sealed yet: field:north/1: 1 events after number 4 are missing"]


async def test_erased_bytes_are_erased_not_broken(place):
    """The digest stands; only the bytes are gone, and an event says who erased them."""
    await sealed_journal(place)
    rows = await place.rows("SELECT digest FROM blobs WHERE id IN (1, 2) ORDER BY id")
    await place.run("DELETE FROM blobs WHERE id IN (1, 2)")
    assert "no event says who erased them" in (await place.faults())[0]
    said = {"by": "Ann", "reason": "asked", "digests": [digest.hex() for (digest,) in rows]}
    await place.evidence.write(lambda tx: tx.event(None, "acme", "erased", "S-1", said))
    found = await place.verify()
    assert found.faults == []
    assert found.chains[0].erased == 2


async def test_segments_are_verified_too(place):
    """A segment that was changed, or is gone, is named with its blocks; one nobody knows is mentioned and left alone."""
    await old_and_new(place)
    await place.archive(30 * DAY_S)
    (path,) = place.directory.iterdir()
    content = path.read_bytes()
    text = lzma.decompress(content).replace(b'"body-1"', b'"body-X"', 1)
    path.write_bytes(lzma.compress(text))
    faults = await place.faults()
    assert any(path.name in fault for fault in faults), faults
    path.unlink()
    faults = await place.faults()
    assert any("it cannot be read" in fault for fault in faults)
    assert any(fault.startswith("blocks 1 to 4: missing") for fault in faults), faults
    path.write_bytes(content)
    stranger = place.directory / f"acme-00000007-00000009-00000000{''.join(path.suffixes[-2:])}"
    stranger.write_bytes(content)
    found = await place.verify()
    assert found.faults == []
    assert found.unlisted == [stranger.name]


async def test_a_block_rebuilt_alone_does_not_follow_the_one_before(place):
    """Its own hash is right again, and still it is not the block that was there."""
    await sealed_journal(place)
    old = next(one.block for one in await place.evidence.read(lambda rows: stored_blocks(rows, "acme", 2, 1)))
    made = dataclasses.replace(old, previous=b"\x07" * 32)
    journal = await place.evidence.read(sealing.identity)
    await place.run("UPDATE blocks SET previous = ?, hash = ? WHERE number = 2", made.previous, made.hash(journal))
    assert "block 2: it does not follow the block before it" in await place.faults()


async def test_bytes_slipped_into_a_segment_are_found(place):
    """Their digest is right and the last line is made to fit: no event speaks of them."""
    await old_and_new(place)
    await place.archive(30 * DAY_S)
    (path,) = place.directory.iterdir()
    *lines, last = lzma.decompress(path.read_bytes()).splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if b'"blob"' in line)
    foreign = {"blob": hashlib.sha256(b"nfalse").hexdigest(), "nonce": b"n".hex(), "text": "false"}
    lines.insert(at, orjson.dumps(foreign) + b"\n")
    end = orjson.loads(last)
    end["end"]["blobs"] += 1
    end["sha256"] = hashlib.sha256(b"".join(lines)).hexdigest()
    path.write_bytes(lzma.compress(b"".join([*lines, orjson.dumps(end) + b"\n"])))
    faults = await place.faults()
    assert any("it holds bytes that none of its events speaks of" in fault for fault in faults), faults


async def test_the_anchor_is_part_of_the_verdict(place):
    """A journal that lacks what its anchor names is not whole."""
    await sealed_journal(place)
    await place.evidence.write_anchor(place.anchor)
    report = await verify(place.evidence.read, archive_directory=place.directory, anchor_file=place.anchor)
    assert (report.faults, report.anchor.verdict) == ([], AnchorVerdict.AGREES)
    place.anchor.write_text(place.anchor.read_text().replace('"number": 4', '"number": 40'))
    report = await verify(place.evidence.read, archive_directory=place.directory, anchor_file=place.anchor)
    assert [fault.place for fault in report.faults] == ["anchor"]


async def test_archived_blocks_do_not_hide_an_older_journal(place):
    """The anchor agrees after archiving, and is behind when the last block is not the anchor's."""
    await old_and_new(place)
    await place.evidence.write_anchor(place.anchor)
    await place.archive(0)
    assert (await place.evidence.compare(place.anchor)).verdict is AnchorVerdict.AGREES
    await place.run("UPDATE chains SET number = number - 1")
    assert (await place.evidence.compare(place.anchor)).verdict is AnchorVerdict.BEHIND


async def test_an_archived_submission_says_where_its_events_are(place):
    """People who look for it are told the segment."""
    await old_and_new(place)
    assert {tuple(view.segments) for view in await place.kit.journal.submissions()} == {()}
    await place.archive(30 * DAY_S)
    (path,) = place.directory.iterdir()
    found = {view.id: list(view.segments) for view in await place.kit.journal.submissions()}
    newest = (await place.kit.journal.submissions(limit=1))[0].id
    assert found == {id_: [] if id_ == newest else [path.name] for id_ in found}


@pytest.mark.parametrize("word", [ItemState.REGISTERED, ItemState.REFUSED], ids=["agrees", "contradicts"])
async def test_the_bytes_of_late_news_belong_to_its_event(place, word):
    """A status answer about an ended submission is evidence as well: its event names it, so that it is sealed and archived."""
    kit = place.kit
    due = await kit.registered("A1")
    await kit.settle(due, word, answer=kit.answer("T-A1", body=b"late news"), cause="status")
    ((digest, named),) = await place.rows(
        "SELECT b.digest, count(e.id) FROM blobs b LEFT JOIN events e ON e.digest = b.digest WHERE b.bytes = ? GROUP BY b.digest",
        b"late news",
    )
    assert (len(digest), named) == (32, 1)
