"""Commands for people as processes of their own, beside the running service and without it."""

import json

from processes import PARTICIPANT, world
from service import CLOCK

from bridge.ids import submission_ids
from bridge.journal.sqlite import open_journal


async def raised(made, code, **where):
    journal = await open_journal(made.journal, clock=CLOCK, role="t", new_id=submission_ids(CLOCK), checkpoint=False)
    await journal.alarm(code, **where)
    await journal.close()


async def test_alarms(tmp_path):
    """Listed with what to do, acknowledged by name beside the service and after it, and still there."""
    async with world(tmp_path, assets=1) as made:
        status, _, told = await made.say("alarms", "list")
        assert (status, "there is no journal" in told) == (1, True)
        service = await made.run()
        await service.until("ready")
        await raised(made, "STATUS_WORD", participant=PARTICIPANT, subject="s-1", text="LOST\x1b[2J")
        await raised(made, "STUCK", participant=PARTICIPANT, site="rugby", subject="batteries/7", text="no rights")
        status, printed, _ = await made.say("alarms", "list")
        assert status == 0
        assert printed.index("STUCK") < printed.index("STATUS_WORD")
        assert "do: The EMS does not take the outcome." in printed
        assert "\x1b" not in printed

        status, printed, _ = await made.say("alarms", "list", "--site", "rugby", "--json")
        [stuck] = json.loads(printed)
        assert (stuck["code"], stuck["subject"], stuck["acked_by"]) == ("STUCK", "batteries/7", "")
        status, printed, _ = await made.say("alarms", "ack", str(stuck["id"]), "--by", "Ada", "--note", "new password")
        assert status == 0
        assert "by Ada: new password" in printed
        assert await service.stop() == 0

        status, printed, _ = await made.say("alarms", "list", "--participant", PARTICIPANT)
        assert "by Ada: new password" in printed
        status, _, told = await made.say("alarms", "ack", "99", "--by", "Ada")
        assert (status, "no alarm 99" in told, "hint:" in told) == (1, True, True)
        assert (await made.say("alarms", "ack", "1", "--by", " "))[0] == 2
        assert (await made.say("alarms", "list", "--site", "nowhere"))[0] == 2
        assert (await made.say("alarms", "list", "--participant", "nobody"))[0] == 2
        await raised(made, "STUCK", participant=PARTICIPANT, site="rugby", subject="batteries/7", clear=True)
        assert "STUCK" not in (await made.say("alarms", "list"))[1]
        assert "STUCK" in (await made.say("alarms", "list", "--all"))[1]


async def test_assets(tmp_path):
    """Imported before the service ever ran, listed beside it and exported after it; by what stands in the files alone."""
    async with world(tmp_path, assets=2) as made:
        first, second = (asset.reference for asset in made.ems["rugby"].assets)
        file = tmp_path / "portal.csv"
        file.write_text(f"reference;asset_id;state;source\n{first};SMP-1;registered;portal\n")
        assert (await made.say("assets", "list"))[0] == 1
        status, _, told = await made.say("assets", "import", str(file), "--by", "Ada", "--dry-run")
        assert (status, "no journal" in told, made.journal.exists()) == (1, True, False)
        status, printed, _ = await made.say("assets", "import", str(file), "--by", "Ada")
        assert (status, "1 new" in printed) == (0, True)

        service = await made.run()
        await service.until("ready")
        await made.ems["rugby"].request_assets()
        await made.until_words("rugby", "registered", 2)
        assert [made.sandbox.ledger.creates(reference) for reference in (first, second)] == [0, 1]
        status, printed, _ = await made.say("assets", "list", "--state", "registered", "--json")
        views = {view["key"]: view for view in json.loads(printed)}
        assert (views[first]["asset_id"], views[first]["source"], views[first]["site"]) == ("SMP-1", "portal", "rugby")
        assert (views[second]["source"], views[second]["kind"]) == ("", "asset")
        assert first in (await made.say("assets", "list", "--participant", PARTICIPANT))[1]
        assert await service.stop() == 0

        out = tmp_path / "known.csv"
        assert (await made.say("assets", "export", str(out)))[0] == 0
        header, *rows = out.read_text().splitlines()
        assert header == "reference,asset_id,state,source,kind,site,flow,transaction_id"
        assert sorted(row.split(",")[:4] for row in rows) == sorted(
            [[first, "SMP-1", "registered", "portal"], [second, views[second]["asset_id"], "registered", "smp-bridge"]]
        )
        assert (await made.say("assets", "export", str(out)))[0] == 1
        assert (await made.say("assets", "export", str(out), "--force"))[0] == 0
        status, _, told = await made.say("assets", "import", str(out), "--by", "")
        assert status == 2
        status, printed, _ = await made.say("assets", "import", str(out), "--by", "Bob")
        assert "2 known already" in printed
        out.write_text(out.read_text().replace("SMP-1", "SMP-2"))
        status, _, told = await made.say("assets", "import", str(out), "--by", "Bob")
        assert status == 2
        assert f"{out}:" in told
        assert "asset_id: the journal knows it as SMP-1" in told
