"""kill -9 while old evidence moves from the journal to the archive: it is in the journal, in a segment, or in both; never in neither."""

import asyncio
import itertools
import lzma
import os
import random
import signal
from pathlib import Path

import apsw
import orjson
import pytest
from fault_table import Row
from forked import forked

from bridge.clock import SystemClock
from bridge.journal import sealing
from bridge.journal.port import AnswerNote, Candidate, FastCall, ItemOutcome, SignedCall
from bridge.journal.sqlite import open_journal, open_reader
from bridge.journal.verify import verify
from bridge.model import ItemState, Operation, Trigger
from bridge.submission import SubmissionState

CODE = "import asyncio, sys; from pathlib import Path; from archive_child import main; asyncio.run(main(*map(Path, sys.argv[1:])))"
SUBMISSIONS, ROUNDS = 150, 15
CLOCK = SystemClock.here()


async def make(path: Path) -> None:
    """A journal of settled submissions, all sealed, a few to a block."""
    ids = itertools.count()
    journal = await open_journal(path, clock=CLOCK, role="all", new_id=lambda: f"s-{next(ids)}")
    field, market = await journal.acquire("field:s"), await journal.acquire("market:acme")
    sealer = await journal.acquire(sealing.SEALER)
    for number in range(SUBMISSIONS):
        key, id_ = f"K{number}", f"fast-{number}"
        candidate = Candidate(
            site="s", flow="f", place=key, participant="acme", operation=Operation.ASSET_CREATE, trigger=Trigger.CHANGE,
            request=None, key=key, content=b"{}", digest=b"0" * 16, readings=random.randbytes(6000), progress=False,
        )  # fmt: skip
        call = SignedCall(
            message_id=f"m{number}", correlation_id="c", method="POST", path="/", headers={}, body=random.randbytes(9000),
            kid="k", profile="p",
        )  # fmt: skip
        fast = FastCall(submission=id_, keys=(key,), rows=(0,), call=call, market=market)
        done = await journal.accept(field, [candidate], fast)
        note = AnswerNote(status=202, headers={}, body=b"{}", detail="", transaction_id=f"T{number}")
        await journal.answered(market, id_, SubmissionState.AWAITING_RETURN, note)
        outcome = ItemOutcome(item=done.accepted[0].item, state=ItemState.REGISTERED)
        await journal.settle(market, id_, SubmissionState.CONFIRMED, [outcome], cause="test")
        if number % 3 == 0:
            await journal.evidence().seal(sealer)
    await journal.evidence().write(lambda tx: tx.run("UPDATE writebacks SET step = 'written'"))
    while (await journal.evidence().seal(sealer)).events:
        pass
    await journal.close()


def held(path: Path, directory: Path) -> tuple[set, dict[str, int]]:
    """All events with the journal's and the segments' together, and how often each digest's bytes are held."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    events = {tuple(row) for row in db.execute("SELECT writer, epoch, number, kind, subject, hex(digest) FROM events")}
    bytes_ = {row[0]: 1 for row in db.execute("SELECT hex(digest) FROM blobs WHERE length(bytes) > 0")}
    db.close()
    for file in directory.glob("*.xz"):
        for line in map(orjson.loads, lzma.decompress(file.read_bytes()).splitlines()):
            if "event" in line:
                _, writer, epoch, number, _, kind, subject, _, digest = line["event"]
                events.add((writer, epoch, number, kind, subject, (digest or "").upper()))
            elif "blob" in line:
                bytes_[line["blob"].upper()] = bytes_.get(line["blob"].upper(), 0) + 1
    return {event for event in events if event[0] != "archive"}, bytes_


async def faults(path: Path, directory: Path) -> list[str]:
    reader = await open_reader(path)
    try:
        report = await verify(reader.snapshot, archive_directory=directory, anchor_file=None)
    finally:
        await reader.close()
    return [f"{fault.place}: {fault.text}" for fault in report.faults]


async def run(path: Path, directory: Path, kill_after_s: float | None) -> tuple[float, bool]:
    """One child; how long it worked, and whether it was killed."""
    child = await forked(path, directory, environment=os.environ, code=CODE)
    assert await child.stdout.readline() == b"begins\n"
    began = asyncio.get_running_loop().time()
    try:
        await asyncio.wait_for(child.wait(), kill_after_s if kill_after_s is not None else 60)
    except TimeoutError:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    spent = asyncio.get_running_loop().time() - began
    assert child.returncode in (0, -signal.SIGKILL)
    return spent, child.returncode != 0


@pytest.mark.timeout(300)
async def test_killed_while_archiving(tmp_path, table):
    """At random instants: everything stays, all of it verifies, and the last run brings the work to its end."""
    first = tmp_path / "measure" / "journal.db"
    path, directory = tmp_path / "var" / "journal.db", tmp_path / "archive"
    random.seed(3)
    await make(first)
    path.parent.mkdir()
    path.write_bytes(first.read_bytes())
    whole, kills = (await run(first, tmp_path / "measured", None))[0], 0
    before = held(path, directory)
    assert len(before[0]) == 3 * SUBMISSIONS
    for number in range(ROUNDS):
        _, killed = await run(path, directory, whole * random.uniform(0.02, 0.12))
        kills += killed
        after = held(path, directory)
        assert after[0] == before[0], number
        assert after[1].keys() == before[1].keys(), number
        assert await faults(path, directory) == [], number
    assert kills >= ROUNDS // 3
    _, killed = await run(path, directory, None)
    assert not killed
    events, bytes_ = held(path, directory)
    assert events == before[0]
    assert set(bytes_.values()) == {1}
    assert await faults(path, directory) == []
    kept = len({event[4] for event in events if event[3] == "CONFIRMED"})
    lost = SUBMISSIONS - kept
    table.add(
        Row(
            fault="kill -9 while evidence moves to the archive",
            rounds=ROUNDS + 1,
            requested=SUBMISSIONS,
            accepted_once=kept,
            lost=lost,
        )
    )
