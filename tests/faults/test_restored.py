"""A journal restored from yesterday: the host holds, is reconciled, and goes on; what SMP has is created by nobody again."""

import asyncio
import time

from fault_table import Row
from processes import world

WHO = ("--by", "bob", "--reason", "the disk was replaced")
EACH = 6


async def test_restored_from_yesterday(tmp_path, table):
    """Of what was registered since the backup, one site asks again while everything is held, the other shows it in its EMS; both know it again afterwards, and new records leave."""
    async with world(tmp_path, assets=EACH) as made:
        process = await made.run()
        await process.until("ready")
        backup = tmp_path / "yesterday.backup"
        assert (await made.say("journal", "backup", backup))[0] == 0
        for site, ems in made.ems.items():
            await ems.request_assets()
            await made.until_words(site, "registered", EACH)
        await process.kill()  # it did not end in good order, either
        assert (await made.say("journal", "restore", backup))[0] == 0
        await (await made.run()).until("ready")
        await made.ems["rugby"].request_assets()
        async with asyncio.timeout(30):
            while "WAITING" not in await made.states():
                await asyncio.sleep(0.05)
        assert len(made.sandbox.ledger.of("asset.create")) == 2, "it sends before it was reconciled"
        started = time.monotonic()
        status, _, told = await made.say("journal", "reconcile", *WHO)
        assert (status, told) == (0, "")
        for site, ems in made.ems.items():
            await ems.request_assets()
            await made.until_words(site, "registered", EACH)
        recovery_s = time.monotonic() - started
        await asyncio.sleep(0.3)  # long enough for a second Create to reach SMP, were there one
        creates = [count for site in made.ems for count in made.created(site)]
        table.add(
            Row(
                fault="journal restored from yesterday",
                rounds=1,
                requested=len(creates),
                accepted_once=creates.count(1),
                lost=creates.count(0),
                twice=sum(count > 1 for count in creates),
                recovery_s=recovery_s,
            )  # fmt: skip
        )
