"""The running host seals its evidence and keeps the anchor."""

import asyncio

from service import fill, linked, service, until_words

from bridge.journal import sealing
from bridge.journal.anchor import AnchorVerdict, judge, load
from bridge.journal.sqlite import open_reader


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
