"""Alarms of a running service: what the metric shows of them."""

from admin import get, value
from service import CLOCK, PARTICIPANT, linked, service

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
        for subject in ("assets/B1", "assets/B2"):
            await beside(made, lambda journal, s=subject: journal.alarm("STUCK", subject=s, **where))
        stuck = {"code": "STUCK", **where}
        _, text = await get(made, "/metrics")
        assert value(text, NAME, state="open", **stuck) == 2
        assert value(text, NAME, state="acked", **stuck) is None
        assert "B1" not in text

        newest, _ = await beside(made, lambda journal: journal.alarms())
        await beside(made, lambda journal: journal.ack_alarm(newest.id, "Ada", "on it"))
        _, text = await get(made, "/metrics")
        assert value(text, NAME, state="open", **stuck) == 1
        assert value(text, NAME, state="acked", **stuck) == 1
        assert "Ada" not in text

        await beside(made, lambda journal: journal.alarm("STUCK", subject="assets/B2", clear=True, **where))
        _, text = await get(made, "/metrics")
        assert value(text, NAME, state="open", **stuck) == 1
        assert value(text, NAME, state="acked", **stuck) is None
