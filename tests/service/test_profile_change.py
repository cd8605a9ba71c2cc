"""A participant that wants four eyes, and whose profile changed: nothing goes out until two people accept it, and then everything that waited does."""

import asyncio

import pytest
import typer
from service import PARTICIPANT, fill, linked, profile_content, service, until_words, write_profile

from bridge.cli import hold
from bridge.model import EmsState

REGISTERED, HELD = int(EmsState.REGISTERED), int(EmsState.HELD)
WHO = {"profile": PARTICIPANT, "by": "Ann", "reason": "new limits from SMP"}


async def test_a_changed_profile_waits_for_two_people(tmp_path, monkeypatch):
    config = tmp_path / "config"
    async with service(tmp_path, entry={"four_eyes": True}) as made:
        monkeypatch.setattr(hold, "loaded", lambda _: made.config())  # which knows the adapter of the tests
        ems = await linked(made)
        first, second = fill(ems, 1), fill(ems, 1, first=2)
        ems.request("assets", *first)
        await until_words(ems, first, {REGISTERED: 1})
        await made.stop()
        write_profile(config / "profile.yaml", profile_content("default", limits={"burst": 7}))
        await made.start()
        ems.request("assets", *second)
        await until_words(ems, second, {HELD: 1})
        for given in ({}, {"approved_by": "ann", "approved_because": "me too"}):
            with pytest.raises(typer.BadParameter):
                await asyncio.to_thread(hold.release, **WHO, **given, config=config)
        await made.stop()
        await made.start()  # a restart changes nothing
        assert [made.ledger.creates(ems.fields[place]["reference"]) for place in (*first, *second)] == [1, 0]
        await asyncio.to_thread(hold.release, **WHO, approved_by="Bob", approved_because="read it", config=config)
        await until_words(ems, second, {REGISTERED: 1})
        assert made.ledger.creates(ems.fields[second[0]]["reference"]) == 1
