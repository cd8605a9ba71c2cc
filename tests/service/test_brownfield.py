"""Assets that SMP holds already, end to end: imported, asked for by an EMS, aligned to by a unit; no Create of them reaches SMP."""

import asyncio

import pytest
from service import PARTICIPANT, every_profile, fill, linked, made_alarm, service, until_words

from bridge.api import OutcomeField
from bridge.cli import assets as command
from bridge.errors import ConfigError
from bridge.model import ItemState, Kind
from bridge.sandbox import Knobs


def say(made, monkeypatch, capsys):
    """Run `smp-bridge assets …` beside the running service; returns what it printed."""

    async def run(function, *arguments, **options):
        monkeypatch.setattr(command, "loaded", lambda _: made.config())
        await asyncio.to_thread(function, *arguments, **options)
        return capsys.readouterr().out

    return run


def creates(made, key):
    return made.ledger.creates(key)


@every_profile
async def test_import_ask_align(tmp_path, profile, monkeypatch, capsys):
    """A unit waits for an asset that only SMP knows; the import wakes it, the EMS is told what stands, and nothing is created twice."""
    async with service(tmp_path, profile=profile, knobs=Knobs(registered={"BESS00001": "SMP-77"})) as made:
        ems = await linked(made)
        run = say(made, monkeypatch, capsys)
        held, new = fill(ems, 1), fill(ems, 1, first=2)
        ems.request("assets", *new)
        await until_words(ems, new, {3: 1})
        ems.put("U1", reference="UNIT1", kw=5, assets=("BESS00001", "BESS00002"))
        ems.request("unit", "U1")
        await until_words(ems, ["U1"], {1: 1})

        file = tmp_path / "portal.csv"
        file.write_text("\ufeffReference;Asset ID;State;Source\nBESS00001;SMP-77;registered;portal of 2024\n", "utf-8")
        printed = await run(command.import_, file, "Ada", participant="", over_refused=False, dry_run=True)
        assert printed.startswith(f"would import for {PARTICIPANT}: 1 new")
        assert (await made.read(lambda journal: journal.member(PARTICIPANT, Kind.ASSET, "BESS00001"))).state is None
        printed = await run(command.import_, file, "Ada", participant="", over_refused=False, dry_run=False)
        assert printed.startswith(f"imported for {PARTICIPANT}: 1 new")
        await until_words(ems, ["U1"], {3: 1})

        ems.request("assets", *held)
        await until_words(ems, held, {3: 1})
        assert (creates(made, "BESS00001"), creates(made, "BESS00002"), creates(made, "UNIT1")) == (0, 1, 1)
        member = await made.read(lambda journal: journal.member(PARTICIPANT, Kind.ASSET, "BESS00001"))
        assert (member.state, member.asset_id) == (ItemState.REGISTERED, "SMP-77")

        # The same content again is told the same; other content is drift.
        ems.request("assets", *held, sequence="2")
        await ems.until(lambda: ems.last("B1", OutcomeField.STATE) == 3)
        ems.put("B1", reference="BESS00001", kw=6)
        ems.request("assets", *held, sequence="3")
        await until_words(ems, held, {10: 1})
        await made_alarm(made, "DRIFT")
        assert creates(made, "BESS00001") == 0


async def test_aligned_by_its_id(tmp_path, monkeypatch, capsys):
    """A profile that aligns by asset id: the unit carries the imported id, and a registered row without one is a problem."""
    held = Knobs(registered={"BESS00001": "SMP-77"})
    async with service(tmp_path, changes={"align_by": "id"}, knobs=held) as made:
        ems = await linked(made)
        run = say(made, monkeypatch, capsys)
        file = tmp_path / "portal.csv"
        file.write_text("reference,asset_id,state\nBESS00001,,registered\n")
        with pytest.raises(ConfigError, match=r":2: asset_id: is empty"):
            await run(command.import_, file, "Ada", participant="", over_refused=False, dry_run=False)
        file.write_text("reference,asset_id,state\nBESS00001,SMP-77,registered\n")
        await run(command.import_, file, "Ada", participant="", over_refused=False, dry_run=False)
        ems.put("U1", reference="UNIT1", kw=5, assets=("BESS00001",))
        ems.request("unit", "U1")
        await until_words(ems, ["U1"], {3: 1})
        [transaction] = made.sandbox.register.transactions.values()
        [aligned] = transaction.items[0]["alignedAssets"]
        assert aligned["assetId"] == "SMP-77"


async def test_refused_for_it_is_there_already(tmp_path, monkeypatch, capsys):
    """The EMS asked before anybody imported: SMP refused the repeat. A person's second word puts it right in the EMS too."""
    async with service(tmp_path, knobs=Knobs(registered={"BESS00001": "SMP-77"})) as made:
        ems = await linked(made)
        run = say(made, monkeypatch, capsys)
        places = fill(ems, 1)
        ems.request("assets", *places)
        await until_words(ems, places, {4: 1})
        file = tmp_path / "portal.csv"
        file.write_text("reference,asset_id,state\nBESS00001,SMP-77,registered\n")
        with pytest.raises(ConfigError, match=r":2: state: .*--over-refused"):
            await run(command.import_, file, "Ada", participant="", over_refused=False, dry_run=False)
        await run(command.import_, file, "Ada", participant="", over_refused=True, dry_run=False)
        await until_words(ems, places, {3: 1})
        assert made.ledger.creates("BESS00001") == 0


async def test_every_problem_at_once(tmp_path, monkeypatch, capsys):
    """Of the file and of what the journal knows, each by line and column; nothing is imported."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        run = say(made, monkeypatch, capsys)
        places = fill(ems, 1)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 1})
        file = tmp_path / "portal.csv"
        file.write_text(
            "reference,asset_id,state\nBESS00001,other,registered\nNEW1,A1,registred\n,A2,registered\nNEW2,A3,registered\nNEW2,A3,registered\n"
        )
        with pytest.raises(ConfigError) as refused:
            await run(command.import_, file, "Ada", participant="", over_refused=False, dry_run=False)
        said = [str(problem).removeprefix(f"{file}:") for problem in refused.value.problems]
        assert [text.split(": ")[:2] for text in said] == [
            ["2", "asset_id"],
            ["3", "state"],
            ["4", "reference"],
            ["6", "reference"],
        ]
        assert "did you mean" in said[1] or "known are" in said[1]
        known = await made.read(lambda journal: journal.assets(PARTICIPANT))
        assert [view.key for view in known] == ["BESS00001"]


async def test_export_is_an_import_elsewhere(tmp_path, monkeypatch, capsys):
    """What one host knows becomes known to another, and its EMS is told; nothing is created there."""
    file = tmp_path / "known.csv"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with service(tmp_path / "one") as made:
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        ids = {view.key: view.asset_id for view in await made.read(lambda journal: journal.assets())}
        printed = await say(made, monkeypatch, capsys)(command.export, file, participant="", force=False)
        assert printed.startswith(f"3 rows of {PARTICIPANT}")
    async with service(tmp_path / "two") as made:
        ems = await linked(made)
        run = say(made, monkeypatch, capsys)
        printed = await run(command.import_, file, "Ada", participant="", over_refused=False, dry_run=False)
        assert "3 new" in printed
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        assert made.ledger.creates("BESS00001") == 0
        found = {view.key: view for view in await made.read(lambda journal: journal.assets())}
        assert {key: view.asset_id for key, view in found.items()} == ids
        assert {view.source for view in found.values()} == {"smp-bridge"}
        assert "3 known already" in await run(
            command.import_, file, "Ada", participant="", over_refused=False, dry_run=False
        )
