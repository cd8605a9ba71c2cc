"""`smp-bridge evidence erase` as an operator meets it: beside the running service, and what it says when the service is in the way."""

import asyncio
import json
import re
from functools import partial

import memory_adapter as memory
import pytest
from ruamel.yaml import YAML
from service import ASSETS, fill, linked, service, until_words

from bridge.cli import main
from bridge.cli.check import load_here

MPAN = "1023456789017"
CONTACT = {"name": "Zoe Planted", "phone": "+44 7700 900123", "email": "zoe@planted.example"}


def told(capsys, monkeypatch, *arguments):
    """Run a command; its exit status, what it printed, and what it complained of."""
    monkeypatch.setattr("sys.argv", ["smp-bridge", *map(str, arguments)])
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def four_eyes(directory, *, wanted):
    """The participant's entry, as somebody changes it."""
    file, yaml = directory / "config/bridge.yaml", YAML()
    document = yaml.load(file.read_text())
    document["participants"]["acme-test"]["four_eyes"] = wanted
    with file.open("w") as target:
        yaml.dump(document, target)


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.timeout(120)
async def test_beside_the_service_and_after_it(tmp_path, monkeypatch, capsys):
    """Nothing of the person is left in any file, the service works on, evidence is whole; a large journal waits for the service's end."""
    known = memory.memory_adapter(memory.MemoryEms(), "north")
    monkeypatch.setattr("bridge.cli.journals.load_here", partial(load_here, find_adapter=lambda _: known))
    say = partial(asyncio.to_thread, told, capsys, monkeypatch)
    config = ("--config", tmp_path / "config")
    who = ("--participant", "acme-test", *config, "--by", "Ann", "--reason", "request 17")
    payload = ASSETS["payload"] | {f"controlContact.{name}": {"const": text} for name, text in CONTACT.items()}
    host = {"journal": {"path": "../var/journal.db", "seal_every": "100ms"}}
    async with service(tmp_path, flows={"assets": ASSETS | {"payload": payload}}, host=host) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})

        def left():
            return [
                path.name
                for path in (tmp_path / "var").glob("**/*")
                if path.is_file() and b"zoe@planted" in path.read_bytes()
            ]

        assert left()
        status, printed, _ = await say("evidence", "erase", *who[:4], "--contact", CONTACT["email"], "--dry-run")
        assert status == 0
        assert re.match(r"would be erased: \d+ pieces of bytes .* the content of 2 items", printed)
        assert left()
        assert (await say("evidence", "erase", *who[:4], "--mpan", MPAN))[0] == 2  # who, and why?
        four_eyes(tmp_path, wanted=True)
        status, _, complained = await say("evidence", "erase", *who, "--mpan", MPAN)
        assert (status, "wants four eyes" in complained) == (2, True)
        agreed = ("--approved-by", " ann", "--approved-because", "seen")
        status, _, complained = await say("evidence", "erase", *who, "--mpan", MPAN, *agreed)
        assert (status, "a second person has to" in complained) == (2, True)
        assert left()
        people = tmp_path / "people.txt"
        people.write_bytes(b"\xef\xbb\xbf" + f"{MPAN}\r\n".encode())  # as Windows' editors write it
        status, printed, _ = await say("evidence", "erase", *who[:4], "--from", people, "--dry-run")
        assert (status, "the content of 2 items" in printed) == (0, True)
        people.write_text(f"{CONTACT['name']}\n{MPAN}\n")
        agreed = ("--approved-by", "Bob", "--approved-because", "seen")
        with monkeypatch.context() as cut_off:
            cut_off.setattr("bridge.cli.erase.wipe_configured", interrupted)
            assert (await say("evidence", "erase", *who, *agreed, "--from", people))[0] == 130
        assert left()
        status, printed, _ = await say("evidence", "erase", *who, *agreed, "--from", people)
        assert printed.startswith("nothing holds it that could be erased\n")
        rows = "SELECT data FROM events WHERE kind = 'erased'"
        said = await made.read(lambda journal: journal.snapshot(lambda tables: tables.all(rows)))
        assert said
        assert all({"by": "Ann", "approved_by": "Bob"}.items() <= json.loads(data).items() for (data,) in said)
        four_eyes(tmp_path, wanted=False)
        assert (status, printed.splitlines()[-1]) == (0, "the journal's file holds nothing of it any more")
        assert left() == []
        again = (await say("evidence", "erase", *who, "--mpan", MPAN))[1]
        assert again == "nothing holds it that could be erased\n"

        more = fill(ems, 1, first=3)
        ems.request("assets", *more)
        await until_words(ems, more, {3: 1})
        monkeypatch.setattr("bridge.journal.configured.BESIDE_BYTES", 0)
        status, printed, _ = await say("evidence", "erase", *who, "--mpan", MPAN)
        assert status == 0
        assert "stop the service, then run `smp-bridge journal wipe`" in printed
        status, _, complained = await say("journal", "wipe", *config)
        assert (status, "stop it first" in complained) == (1, True)
    assert await say("journal", "wipe", *config) == (0, "what was deleted is gone from the journal's file\n", "")
    assert left() == []
    status, printed, _ = await say("journal", "verify", *config)
    assert (status, "are erased; their digests stand" in printed) == (0, True)
