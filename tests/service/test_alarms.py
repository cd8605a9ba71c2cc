"""Alarms of a running service: what the metric shows of them."""

import asyncio

from admin import get, value
from service import CLOCK, PARTICIPANT, linked, made_alarm, service

from bridge.ids import submission_ids
from bridge.journal.sqlite import open_journal

NAME = "smp_bridge_alarms"


async def beside(made, ask):
    """Change the journal beside the running host, as a command does."""
    journal = await open_journal(
        made.journal_path, clock=CLOCK, role="cli", new_id=submission_ids(CLOCK), checkpoint=False
    )
    try:
        return await ask(journal)
    finally:
        await journal.close()


async def test_metric_tells_open_from_acknowledged(tmp_path):
    """Raised, acknowledged and cleared by another process: each scrape shows what stands then, by code, participant and site."""
    async with service(tmp_path) as made:
        await linked(made)
        where = {"participant": PARTICIPANT, "site": "north"}
        for subject in ("assets/BATTERY-1", "assets/BATTERY-2"):
            await beside(made, lambda journal, s=subject: journal.alarm("STUCK", subject=s, **where))
        stuck = {"code": "STUCK", **where}
        _, text = await get(made, "/metrics")
        assert value(text, NAME, state="open", **stuck) == 2
        assert value(text, NAME, state="acked", **stuck) is None
        assert "BATTERY-1" not in text

        newest, _ = await beside(made, lambda journal: journal.alarms())
        await beside(made, lambda journal: journal.ack_alarm(newest.id, "Ada Lovelace", "on it"))
        _, text = await get(made, "/metrics")
        assert value(text, NAME, state="open", **stuck) == 1
        assert value(text, NAME, state="acked", **stuck) == 1
        assert "Lovelace" not in text

        await beside(made, lambda journal: journal.alarm("STUCK", subject="assets/BATTERY-2", clear=True, **where))
        _, text = await get(made, "/metrics")
        assert value(text, NAME, state="open", **stuck) == 1
        assert value(text, NAME, state="acked", **stuck) is None


async def cleared(made, code, within_s=10):
    async with asyncio.timeout(within_s):
        while code in [alarm.code for alarm in await made.read(lambda journal: journal.alarms())]:
            await asyncio.sleep(0.02)


async def test_a_lost_link_is_an_alarm_until_it_is_back(tmp_path):
    """After the time that the site states; start-up with nobody there counts too."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        await made.stop()
        site = made.directory / "config/sites/north.yaml"
        site.write_text(site.read_text() + "alarms: {link_down_after: 1s}\n")
        ems.reachable = False
        await made.start()
        await made_alarm(made, "LINK_DOWN")
        [alarm] = await made.read(lambda journal: journal.alarms())
        assert (alarm.site, alarm.subject, alarm.participant, alarm.count) == ("north", "ems", PARTICIPANT, 1)
        assert "not there" in alarm.text
        ems.reachable = True
        await cleared(made, "LINK_DOWN")


async def test_a_refused_link_is_an_alarm_at_once(tmp_path):
    """Credentials or trust: a person is needed now, not after a minute."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        await made.stop()
        ems.refuses = "bad user name or password"
        await made.start()
        await made_alarm(made, "LINK_REFUSED")
        [alarm] = await made.read(lambda journal: journal.alarms())
        assert "bad user name or password" in alarm.text
        await made.stop()
        ems.refuses = ""
        await made.start()
        await cleared(made, "LINK_REFUSED")
