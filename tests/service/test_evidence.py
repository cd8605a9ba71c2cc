"""The running host seals its evidence and keeps the anchor."""

import asyncio

import apsw
from service import fill, linked, made_alarm, service, until_words

from bridge.cli import journal as journal_cli
from bridge.journal import sealing
from bridge.journal.anchor import AnchorVerdict, judge, load
from bridge.journal.backup import back_up
from bridge.journal.sqlite import open_reader
from bridge.sandbox import Knobs


async def looked(made, work):
    """The result of `work` on the journal, beside the host or without it."""
    reader = await open_reader(made.journal_path)
    try:
        return await reader._reader.run(work)
    finally:
        await reader.close()


def unsealed(rows):
    return rows.all("SELECT count(*) FROM events")[0][0] - rows.all("SELECT coalesce(sum(events), 0) FROM blocks")[0][0]


async def verdict(made):
    anchor = load(made.config().host.journal.anchor_file)
    return (await looked(made, lambda rows: judge(rows, anchor))).verdict


QUICKLY = {"journal": {"path": "../var/journal.db", "seal_every": "100ms"}}


async def test_an_orderly_stop_seals_everything(tmp_path):
    """After the stop no event is outside of a block, and the anchor names the last one."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        await made.stop()
        assert await looked(made, unsealed) == 0
        assert await verdict(made) is AnchorVerdict.AGREES
        assert load(made.config().host.journal.anchor_file).blocks == await looked(made, sealing.heads)
        await made.start()
    assert await looked(made, unsealed) == 0


async def test_events_are_sealed_while_the_host_runs_and_after_it_was_lost(tmp_path):
    """Blocks follow within moments; what a lost process left is sealed by the next one."""
    async with service(tmp_path, host=QUICKLY) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        async with asyncio.timeout(10):
            while await looked(made, unsealed):
                await asyncio.sleep(0.05)
        more = fill(ems, 2, first=5)
        ems.request("assets", *more)
        await until_words(ems, more, {3: 2})
        await made.kill()
        await made.start()
        async with asyncio.timeout(10):
            while await looked(made, unsealed):
                await asyncio.sleep(0.05)
        assert await verdict(made) is AnchorVerdict.AGREES


async def test_an_anchor_that_is_ahead_is_left_alone(tmp_path):
    """A journal that is older than its anchor goes on sealing, but the anchor stays as it was, and a person is told."""
    async with service(tmp_path, host=QUICKLY) as made:
        ems = await linked(made)
        places = fill(ems, 1)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 1})
        await made.stop()
        anchor = made.config().host.journal.anchor_file
        text = anchor.read_text()
        number = load(anchor).blocks["acme-test"][0]
        anchor.write_text(ahead := text.replace(f'"number": {number}', f'"number": {number + 100}'))
        assert ahead != text
        await made.start()
        async with asyncio.timeout(10):
            while "ANCHOR" not in [alarm.code for alarm in await made.read(lambda journal: journal.alarms())]:
                await asyncio.sleep(0.05)
        await made.stop()
        assert anchor.read_text() == ahead
        assert await verdict(made) is AnchorVerdict.BEHIND


async def test_archive_verify_and_backup_beside_a_working_host(tmp_path):
    """While records come and are settled, people archive, verify and back up again and again: every look finds everything whole, and no record suffers."""
    async with service(tmp_path, host=QUICKLY) as made:
        ems = await linked(made)
        options = made.config().host.journal
        looks = 0
        for first in range(1, 200, 10):
            places = fill(ems, 5, first=first)
            ems.request("assets", *places)
            report, _ = await journal_cli._archive(options, 0.0)
            found = await journal_cli._verify(options)
            assert found.faults == [], first
            looks += report.segments
            await asyncio.to_thread(back_up, made.journal_path, tmp_path / f"backup-{first}.db")
            await until_words(ems, places, {3: 5})
        assert looks >= 3
        await made.stop()
        found = await journal_cli._verify(options)
        assert (found.faults, found.unlisted) == ([], [])
        assert found.segments >= 3
        assert all(made.ledger.creates(ems.fields[place]["reference"]) == 1 for place in ems.fields)


class Ballast:
    """Something that fills the journal from outside: another connection knows nothing of the host's cap."""

    def __init__(self, path):
        self._db = apsw.Connection(str(path))
        self._db.set_busy_timeout(10_000)

    def fill_to(self, size):
        """More and more until the file has this size, whatever the host writes meanwhile."""
        while self._db.execute("PRAGMA page_count").fetchall()[0][0] * 4096 < size:
            self._db.execute(
                "INSERT INTO blobs (participant, nonce, bytes, digest) VALUES ('ballast', x'', zeroblob(100000), x'')"
            )
        while self._db.execute("PRAGMA freelist_count").fetchall()[0][0]:
            self._db.execute(
                "INSERT INTO blobs (participant, nonce, bytes, digest) VALUES ('ballast', x'', zeroblob(3900), x'')"
            )

    def drop(self):
        self._db.execute("DELETE FROM blobs WHERE participant = 'ballast'")


async def test_at_the_size_cap_the_sources_wait_and_nothing_is_lost(tmp_path):
    """No acknowledgement to the EMS, 503 to SMP, an alarm; with room again all goes on alone."""
    capped = {"journal": {**QUICKLY["journal"], "max_size": "10MB"}}
    knobs = Knobs(returns="hold", retry_delay_s=0.2, retries=1000)
    async with service(tmp_path, host=capped, knobs=knobs) as made:
        ems = await linked(made)
        places = fill(ems, 30)
        for number, place in enumerate(places[:12], 1):  # a call each
            ems.request("assets", place)
            await until_words(ems, places, {2: number, None: 30 - number})
        ballast = Ballast(made.journal_path)
        ballast.fill_to(8_500_000)
        ems.request("assets", places[12])  # something happens, so that the sealer looks
        await made_alarm(made, "JOURNAL_LARGE")
        ballast.fill_to(10_000_000)
        pushing = made._group.create_task(made.sandbox.release())
        for place in places[13:]:
            ems.request("assets", place)
        async with asyncio.timeout(20):
            while 503 not in {entry.status for entry in made.ledger.returns}:
                await asyncio.sleep(0.02)
        waiting = [place for place in places if ems.last(place) is None]
        assert waiting
        statuses = [entry.status for entry in made.ledger.returns if entry.status]  # 0: not answered yet
        assert set(statuses) <= {202, 503}
        assert statuses.count(202) < 12  # what still fits into pages that were begun
        ballast.drop()
        made.knobs.returns = "push"
        await pushing
        async with asyncio.timeout(30):
            while {ems.last(place) for place in places} != {3}:
                await made.sandbox.release()
                await asyncio.sleep(0.05)
        assert all(made.ledger.creates(ems.fields[place]["reference"]) == 1 for place in places)

        async def large():
            return "JOURNAL_LARGE" in [alarm.code for alarm in await made.read(lambda journal: journal.alarms())]

        async with asyncio.timeout(10):
            while await large():
                await asyncio.sleep(0.05)
