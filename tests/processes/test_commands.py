"""Commands for people as processes of their own, beside the running service and without it."""

import asyncio
import json
import os
import sys

from processes import PARTICIPANT, world
from service import CLOCK

from bridge.ids import submission_ids
from bridge.journal.sqlite import open_journal


async def command(made, *arguments):
    """Run `smp-bridge` to its end: its exit status, what it printed, what it complained of."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from bridge.cli import main; main()", *arguments, "--config", str(made.config),
        env={**os.environ, **made.environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        printed, told = await process.communicate()
    return process.returncode, printed.decode(), told.decode()


async def raised(made, code, **where):
    journal = await open_journal(made.journal, clock=CLOCK, role="t", new_id=submission_ids(CLOCK), checkpoint=False)
    await journal.alarm(code, **where)
    await journal.close()


async def test_alarms(tmp_path):
    """Listed with what to do, acknowledged by name beside the service and after it, and still there."""
    async with world(tmp_path, assets=1) as made:
        status, _, told = await command(made, "alarms", "list")
        assert (status, "there is no journal" in told) == (1, True)
        service = await made.run()
        await service.until("ready")
        await raised(made, "STATUS_WORD", participant=PARTICIPANT, subject="s-1", text="LOST\x1b[2J")
        await raised(made, "STUCK", participant=PARTICIPANT, site="rugby", subject="batteries/7", text="no rights")
        status, printed, _ = await command(made, "alarms", "list")
        assert status == 0
        assert printed.index("STUCK") < printed.index("STATUS_WORD")
        assert "do: The EMS does not take the outcome." in printed
        assert "\x1b" not in printed

        status, printed, _ = await command(made, "alarms", "list", "--site", "rugby", "--json")
        [stuck] = json.loads(printed)
        assert (stuck["code"], stuck["subject"], stuck["acked_by"]) == ("STUCK", "batteries/7", "")
        status, printed, _ = await command(
            made, "alarms", "ack", str(stuck["id"]), "--by", "Ada", "--note", "new password"
        )
        assert status == 0
        assert "by Ada: new password" in printed
        assert await service.stop() == 0

        status, printed, _ = await command(made, "alarms", "list", "--participant", PARTICIPANT)
        assert "by Ada: new password" in printed
        status, _, told = await command(made, "alarms", "ack", "99", "--by", "Ada")
        assert (status, "no alarm 99" in told, "hint:" in told) == (1, True, True)
        assert (await command(made, "alarms", "ack", "1", "--by", " "))[0] == 2
        assert (await command(made, "alarms", "list", "--site", "nowhere"))[0] == 2
        assert (await command(made, "alarms", "list", "--participant", "nobody"))[0] == 2
        await raised(made, "STUCK", participant=PARTICIPANT, site="rugby", subject="batteries/7", clear=True)
        assert "STUCK" not in (await command(made, "alarms", "list"))[1]
        assert "STUCK" in (await command(made, "alarms", "list", "--all"))[1]
