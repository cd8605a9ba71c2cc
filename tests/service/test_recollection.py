"""A journal that is older than what was sent: the host starts in hold, whatever tells it, and nothing is created twice."""

import asyncio
import shutil

import pytest
from service import fill, linked, made_alarm, service, until_words, words

from bridge.api import OutcomeField
from bridge.journal.people import Scope


async def registered(made, sequence, count=2, first=1):
    ems = await linked(made)
    places = fill(ems, count, first)
    ems.request("assets", *places, sequence=sequence)
    await until_words(ems, places, {3: count})
    return ems, places


def put_aside(path, to):
    """The journal's files as a copy of the directory would have them."""
    to.mkdir()
    for file in path.parent.iterdir():
        if file.is_file() and file.name.startswith(path.name):
            shutil.copy(file, to / file.name)


def put_back(path, kept):
    for file in path.parent.iterdir():
        if file.is_file() and file.name.startswith(path.name):
            file.unlink()
    for file in kept.iterdir():
        shutil.copy(file, path.parent / file.name)


def lose(made, *, anchor):
    """The journal's files are gone, and perhaps its anchor too."""
    directory = made.journal_path.parent
    for file in directory.iterdir():
        if file.is_file():
            file.unlink()
    if anchor:
        shutil.rmtree(directory.parent / f"{directory.name}.anchor")


async def held(made, scope):
    async with asyncio.timeout(10):
        while not (found := [hold for hold in await made.read(lambda journal: journal.holds()) if hold.scope is scope]):
            await asyncio.sleep(0.02)
    return found[0]


async def test_a_journal_of_yesterday_starts_in_hold(tmp_path):
    """What was sent after the copy looks new to the old journal: it is taken, acknowledged, and not sent; the EMS keeps what it shows."""
    async with service(tmp_path) as made:
        await registered(made, "1")
        await made.stop()
        put_aside(made.journal_path, tmp_path / "yesterday")
        await made.start()
        ems, places = await registered(made, "2", first=3)
        shown = {place: ems.last(place, OutcomeField.TRANSACTION_ID) for place in places}
        await made.stop()
        put_back(made.journal_path, tmp_path / "yesterday")
        await made.start()
        await made_alarm(made, "HOLD")
        hold = await held(made, Scope.JOURNAL)
        assert "older than its anchor" in hold.reason
        assert "journal reconcile" in hold.reason
        acked = len(ems.acked)
        ems.request("assets", *places, sequence="2")
        await ems.until(lambda: len(ems.acked) > acked)
        site = await held(made, Scope.EMS)
        assert any(id_ in site.reason for id_ in shown.values())
        await asyncio.sleep(0.3)
        assert made.ledger.creates("BESS00003") == made.ledger.creates("BESS00004") == 1
        assert words(ems, places) == {3: 2}
        assert {place: ems.last(place, OutcomeField.TRANSACTION_ID) for place in places} == shown


@pytest.mark.parametrize("anchor", ["kept", "lost"])
async def test_a_journal_that_is_gone(tmp_path, anchor):
    """A new, empty journal: its anchor is another's, or, when that is gone too, the EMS shows what it never heard of."""
    async with service(tmp_path) as made:
        ems, places = await registered(made, "1")
        await made.stop()
        lose(made, anchor=anchor == "lost")
        await made.start()
        if anchor == "kept":
            assert "another journal" in (await held(made, Scope.JOURNAL)).reason
        sessions = ems.sessions
        assert sessions
        ems.request("assets", *places, sequence="7")
        assert "never heard of" in (await held(made, Scope.EMS)).reason
        await asyncio.sleep(0.3)
        assert made.ledger.creates("BESS00001") == 1


async def test_what_comes_later_in_a_session_is_looked_at_too(tmp_path):
    """The first record after the start is a new one; what was sent before comes behind it."""
    async with service(tmp_path) as made:
        ems, places = await registered(made, "1")
        await made.stop()
        lose(made, anchor=True)
        await made.start()
        ems.put("B9", reference="BESS00009", kw=7)
        ems.request("assets", "B9", sequence="2")
        await ems.until(lambda: made.ledger.creates("BESS00009") == 1)
        assert await made.read(lambda journal: journal.holds()) == []
        ems.request("assets", *places, sequence="7")
        assert "never heard of" in (await held(made, Scope.EMS)).reason
        await asyncio.sleep(0.3)
        assert made.ledger.creates("BESS00001") == made.ledger.creates("BESS00002") == 1


async def test_an_ems_that_shows_what_the_journal_knows_is_not_held(tmp_path):
    """An ordinary restart: a new request of a place that was told before goes its way."""
    async with service(tmp_path) as made:
        ems, _ = await registered(made, "1")
        await made.stop()
        await made.start()
        ems.put("B1", reference="BESS00009", kw=7)
        ems.request("assets", "B1", sequence="2")
        await ems.until(lambda: made.ledger.creates("BESS00009") == 1)
        assert await made.read(lambda journal: journal.holds()) == []
