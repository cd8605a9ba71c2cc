"""A backup is put back: the host holds, is reconciled with what the EMSs show and the platform says, and goes on; nothing is created twice."""

import asyncio
import json
import sqlite3
from contextlib import closing

from processes import world

TABLES = ("events", "submissions", "items", "register", "triggers", "writebacks", "returns", "holds", "environments")
WHO = ("--by", "bob", "--reason", "the disk was replaced")


async def until_held(made):
    async with asyncio.timeout(30):
        while True:
            status, printed, _ = await made.say("hold", "--list", "--json")
            if status == 0 and any(hold["scope"] == "journal" for hold in json.loads(printed)):
                return
            await asyncio.sleep(0.1)


def held_in(made):
    """Everything that a reconciliation changes: the journal's rows, and the anchor."""
    with closing(sqlite3.connect(f"file:{made.journal}?mode=ro", uri=True)) as db:
        rows = {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    return rows, {
        file.name: file.read_bytes() for file in made.journal.parent.parent.glob(f"{made.journal.parent.name}.anchor/*")
    }


async def made_old(made, tmp_path):
    """Both sites are registered; then a backup from before that is restored."""
    process = await made.run()
    await process.until("ready")
    backup = tmp_path / "yesterday.backup"
    status, _, told = await made.say("journal", "backup", backup)
    assert (status, told) == (0, "")
    for ems in made.ems.values():
        await ems.request_assets()
    for site in made.ems:
        await made.until_words(site, "registered", 3)
    assert await process.stop() == 0
    status, printed, told = await made.say("journal", "restore", backup)
    assert (status, told) == (0, "")
    assert "journal reconcile" in printed


async def held_again(made, tmp_path):
    """A host on yesterday's journal holds, and one site's requests wait in it. Returns its process."""
    await made_old(made, tmp_path)
    process = await made.run()
    await process.until("ready")
    await until_held(made)
    await made.ems["rugby"].request_assets()
    async with asyncio.timeout(20):
        while "WAITING" not in await made.states():
            await asyncio.sleep(0.05)
        while len(await made.read(lambda journal: journal.holds())) < 2:  # the journal, and the site that shows more
            await asyncio.sleep(0.05)
    return process


async def test_a_restored_backup_is_reconciled(tmp_path):
    """One site asks again while everything is held, the other does not: the first one's waiting requests are withdrawn, the other's assets are made known."""
    async with world(tmp_path, assets=3) as made:
        process = await held_again(made, tmp_path)
        status, _, told = await made.say("release", "--host", *WHO)
        assert (status, "is not held" in told) == (1, True)
        before = held_in(made)
        assert before[1]
        status, printed, told = await made.say("journal", "reconcile", "--dry-run", *WHO)
        assert (status, told, "released" in printed) == (0, "", False)
        assert held_in(made) == before, "a dry run changes nothing"
        status, printed, told = await made.say("journal", "reconcile", *WHO)
        assert (status, told) == (0, ""), told
        assert printed.count("its waiting request is withdrawn as registered") == 3
        assert printed.count("made known as registered") == 3
        assert "the host: released by bob" in printed
        for site in made.ems:
            await made.ems[site].request_assets()
            await made.until_words(site, "registered", 3)
        await asyncio.sleep(0.5)
        for site in made.ems:
            assert made.created(site) == [1, 1, 1]
        _, printed, _ = await made.say("hold", "--list")
        assert printed == "nothing is held\n"
        assert await process.stop() == 0
        process = await made.run()
        await process.until("ready")
        assert (await made.say("hold", "--list"))[1] == "nothing is held\n"


async def test_an_ems_that_cannot_be_read_keeps_everything_held(tmp_path):
    """Its silence proves nothing; a person may leave it out by name, and then what waits of it is set aside."""
    async with world(tmp_path, assets=3) as made:
        await held_again(made, tmp_path)
        made.environment["SMP_BRIDGE_RUGBY_PORT"] = "1"
        status, _, told = await made.say("journal", "reconcile", *WHO)
        assert (status, "PROBLEM rugby/" in told, "--skip" in told) == (1, True, True)
        await until_held(made)
        status, printed, told = await made.say("journal", "reconcile", "--skip", "rugby", *WHO)
        assert (status, told, "set aside" in printed) == (0, "", True)
        await asyncio.sleep(0.5)
        assert made.created("rugby") == [1, 1, 1]
        status, printed, told = await made.say("submissions", "list", "--state", "set-aside", "--json")
        assert (status, told) == (0, "")
        aside = [one["id"] for one in json.loads(printed)]
        assert len(aside) == (await made.states()).count("SET_ASIDE") > 0
        status, printed, _ = await made.say("submissions", "show", aside[0])
        assert (status, "cannot be asked whether it was sent" in printed) == (0, True)
        for one in aside:
            assert (await made.say("submissions", "cancel", one, *WHO))[0] == 0
        assert (await made.say("submissions", "list", "--state", "set-aside", "--json"))[1].strip() == "[]"
        assert (await made.states()).count("CANCELLED") == len(aside)
        status, _, told = await made.say("submissions", "retry", aside[0], *WHO)
        assert (status, "CANCELLED" in told) == (1, True), "what was given up stays so"


async def test_a_platform_that_cannot_be_asked_keeps_everything_held(tmp_path):
    """Its silence proves nothing, nor does an answer that nobody can believe: nothing becomes unknown that it can still tell."""
    async with world(tmp_path, assets=3) as made:
        await held_again(made, tmp_path)
        there = made.environment["SMP_BRIDGE_SMP_URL"]
        made.environment["SMP_BRIDGE_SMP_URL"] = "https://127.0.0.1:1"
        status, printed, told = await made.say("journal", "reconcile", *WHO)
        assert (status, "could not be asked" in told, "made known" in printed) == (1, True, False)
        made.environment["SMP_BRIDGE_SMP_URL"] = there
        made.sandbox.rotate_key()
        status, printed, told = await made.say("journal", "reconcile", *WHO)
        assert (status, "signed with a key that this journal does not know" in told) == (1, True)
        assert "made known" not in printed
        await until_held(made)
        (tmp_path / "newer.json").write_text(json.dumps(made.sandbox.jwks()))
        assert (await made.say("keys", "import", tmp_path / "newer.json", "--participant", "acme-test", *WHO))[0] == 0
        status, printed, told = await made.say("journal", "reconcile", *WHO)
        assert (status, told, "as registered" in printed, "unknown;" in printed) == (0, "", True, False)
        assert made.created("rugby") == [1, 1, 1]


async def test_what_is_out_of_a_site_that_shows_nothing_is_asked_of_the_platform(tmp_path):
    """The journal knows its transaction, the EMS shows none (it is left out here): the platform says where it stands, before and after it has an outcome."""
    async with world(tmp_path, assets=1) as made:
        made.sandbox.knobs.returns = "hold"
        process = await made.run()
        await process.until("ready")
        await made.ems["rugby"].request_assets()
        async with asyncio.timeout(20):
            while await made.states() != ["AWAITING_RETURN"]:
                await asyncio.sleep(0.05)
        assert await process.stop() == 0
        status, printed, _ = await made.say("journal", "reconcile", "--dry-run", "--skip", "rugby", *WHO)
        assert status == 0
        assert "AWAITING_RETURN" in printed
        assert "the platform is still at work on it" in printed
        made.sandbox.set_return_url("acme-test", "")
        await made.sandbox.release()
        status, printed, _ = await made.say("journal", "reconcile", "--dry-run", "--skip", "rugby", *WHO)
        assert (status, "the platform has its outcome" in printed) == (0, True)
