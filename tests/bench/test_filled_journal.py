"""A journal that the bench filled is one: its evidence is whole, and its rows belong together as those that the bridge wrote."""

import itertools
import sys
from contextlib import closing
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from growth import SITE, filled, lives  # noqa: E402
from peers import mqtt_peer  # noqa: E402
from rig import journal_of  # noqa: E402
from sites import mqtt_site  # noqa: E402
from worlds import World  # noqa: E402

from bridge.clock import SystemClock  # noqa: E402
from bridge.journal.sqlite import open_journal  # noqa: E402
from bridge.journal.verify import verify  # noqa: E402
from bridge.submission import SubmissionState  # noqa: E402

LIVES, COPIES = 10, 20
TOGETHER = {
    "each asset has its call": "SELECT count(*) FROM items i JOIN submissions s ON s.seq = i.submission JOIN calls c ON c.id = s.call AND c.submission = s.seq JOIN blobs b ON b.id = c.body",
    "each asset is the one of its key": "SELECT count(*) FROM items i JOIN register r ON r.item = i.id AND r.key = i.key",
    "each asset's place was told": "SELECT count(*) FROM items i JOIN writebacks w ON w.follows = i.id AND w.key = i.key AND w.place = i.place",
    "each transaction has its return": "SELECT count(*) FROM submissions s JOIN returns r ON r.transaction_id = s.transaction_id JOIN blobs b ON b.id = r.body",
    "each asset's submission has its events": "SELECT count(*) FROM items i JOIN submissions s ON s.seq = i.submission WHERE EXISTS (SELECT 1 FROM events e WHERE e.subject = s.id AND e.kind LIKE 'write_back.%')",
}


@pytest.mark.timeout(120)
async def test_a_filled_journal_is_whole(tmp_path):
    """Its blocks, digests and anchor agree; every copied asset has the rows of the first."""
    world = World(tmp_path / "world")
    small, full = world.directory / "small", world.directory / "full"
    async with world.receiver() as smp, mqtt_peer(tmp_path) as peer:
        await lives(world, smp, peer, {SITE: mqtt_site(peer.port, site=SITE)}, small, LIVES)
    with closing(journal_of(small)) as db:
        events = db.execute("SELECT count(*) FROM events").fetchone()[0]
    await filled(small, full, events * COPIES)
    with closing(journal_of(full)) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone()[0] == events * COPIES
        assert {name: db.execute(query).fetchone()[0] for name, query in TOGETHER.items()} == dict.fromkeys(
            TOGETHER, LIVES * COPIES
        )
    await _verified(full, LIVES * COPIES)


async def _verified(directory, calls):
    ids = itertools.count()
    path = directory / "journal.db"
    journal = await open_journal(path, clock=SystemClock.here(), role="test", new_id=lambda: f"id-{next(ids)}")
    try:
        anchor = directory.parent / f"{directory.name}.anchor" / f"{path.name}.json"
        found = await verify(journal.evidence().read, archive_directory=directory / "archive", anchor_file=anchor)
        assert found.faults == []
        assert len(await journal.submissions(state=SubmissionState.CONFIRMED, limit=calls * 2)) == calls
    finally:
        await journal.close()
