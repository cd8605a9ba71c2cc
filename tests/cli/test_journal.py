"""`smp-bridge journal` as an operator meets it, on a journal that a service wrote."""

import asyncio
import json
import sys
from functools import partial

import apsw
import memory_adapter as memory
import pytest
from service import fill, linked, service, until_words

from bridge.cli import main
from bridge.cli.check import load_here


@pytest.fixture
def say(monkeypatch, capsys):
    """Run a command; returns its exit status, what it printed, and what it complained of."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["smp-bridge", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The configuration of a service that has worked and was stopped; its EMS is in memory only, which the commands would not find."""

    async def work():
        async with service(tmp_path, host={"journal": {"path": "../var/journal.db", "seal_every": "100ms"}}) as made:
            ems = await linked(made)
            for first in (1, 10, 20):
                places = fill(ems, 3, first=first)
                ems.request("assets", *places)
                await until_words(ems, places, {3: 3})
                await asyncio.sleep(0.2)

    asyncio.run(work())
    known = memory.memory_adapter(memory.MemoryEms(), "north")
    monkeypatch.setattr("bridge.cli.journals.load_here", partial(load_here, find_adapter=lambda _: known))
    return tmp_path / "config"


def test_from_verify_to_restore(say, config, tmp_path):
    """Verify, archive, verify again, back up, change, restore: each says what it did, and the host would hold afterwards."""
    journal = tmp_path / "var/journal.db"
    status, printed, complained = say("journal", "verify", "--config", config)
    assert (status, complained) == (0, "")
    assert "acme-test: " in printed
    assert "anchor: agrees" in printed
    assert "everything is as it was sealed" in printed
    status, printed, _ = say("journal", "archive", "--config", config, "--older-than", "0s")
    assert status == 0
    assert f"segments in {journal}.archive" in printed
    status, printed, _ = say("journal", "verify", "--config", config)
    assert status == 0
    assert "of them in the archive" in printed
    status, printed, _ = say("submissions", "list", "--config", config)
    assert "(archived: acme-test-" in printed
    identity = printed.splitlines()[-1].split()[0]
    status, printed, _ = say("submissions", "show", identity, "--config", config)
    assert "older ones in the archive: acme-test-" in printed
    backup = tmp_path / "backup.db"
    status, printed, _ = say("journal", "backup", backup, "--config", config)
    assert status == 0
    assert "3 submissions" in printed
    status, _, complained = say("journal", "backup", backup, "--config", config)
    assert status == 1
    assert "hint: name another file" in complained
    status, printed, _ = say("journal", "restore", backup, "--config", config)
    assert status == 0
    assert "journal.db.replaced-" in printed
    status, printed, _ = say("journal", "verify", "--config", config)
    assert status == 1
    assert "anchor: behind: the journal was restored from backup.db" in printed


def test_the_list_of_submissions_is_narrowed(say, config):
    """By site and by the time at which each was made, page after page; a name or time that is none is told."""

    def listed(*arguments):
        status, printed, _ = say("submissions", "list", "--json", *arguments, "--config", config)
        assert status == 0
        return json.loads(printed)

    newest, middle, oldest = (view["id"] for view in listed())
    assert [view["id"] for view in listed("--site", "north", "--before", newest, "--limit", "1")] == [middle]
    assert [view["id"] for view in listed("--before", middle)] == [oldest]
    day = listed()[0]["received"][:10]
    assert len(listed("--since", day)) == 3
    assert listed("--until", "2020-01-01") == []
    assert all(view["received"] <= view["sent"] <= view["settled"] for view in listed())
    status, printed, _ = say("submissions", "list", "--site", "north", "--config", config)
    assert "RECEIVED (UTC)" in printed
    for wrong in (("--site", "nowhere"), ("--since", "yesterday")):
        assert say("submissions", "list", *wrong, "--config", config)[0] == 2
    status, _, complained = say("submissions", "list", "--before", "s-0", "--config", config)
    assert (status, "there is no submission s-0" in complained) == (1, True)


def test_verify_names_what_is_wrong(say, config, tmp_path):
    """Exit status 1, the place in a line, and the same as JSON."""
    db = apsw.Connection(str(tmp_path / "var/journal.db"))
    db.execute("UPDATE events SET data = '{}' WHERE id = (SELECT min(id) FROM events)")  # in the first block always
    db.close()
    status, printed, _ = say("journal", "verify", "--config", config)
    assert status == 1
    assert "FAULT acme-test block 1: one of its events was changed" in printed
    assert "1 faults" in printed
    status, printed, _ = say("journal", "verify", "--json", "--config", config)
    assert status == 1
    (fault,) = json.loads(printed)["faults"]
    assert (fault["participant"], fault["place"]) == ("acme-test", "block 1")


def test_commands_without_a_journal(say, config, tmp_path):
    """Each says that there is none, and makes none."""
    for file in (tmp_path / "var").iterdir():
        if file.is_file():
            file.unlink()
    for command in (["verify"], ["archive"], ["backup", tmp_path / "b.db"]):
        status, _, complained = say("journal", *command, "--config", config)
        assert status == 1, command
        assert "there is no journal" in complained
    assert not (tmp_path / "var/journal.db").exists()
    status, _, complained = say("journal", "archive", "--older-than", "long", "--config", config)
    assert status == 2
