"""`smp-bridge evidence` as an operator meets it, on a journal that a service wrote with a host key of its own."""

import asyncio
import json
import re
import sys
import zipfile
from functools import partial

import memory_adapter as memory
import pytest
from private_files import write_private_file
from ruamel.yaml import YAML
from service import fill, linked, service, until_words

from bridge.cli import main
from bridge.cli.check import load_here
from bridge.cli.evidence import _scope
from bridge.clock import iso_ms
from bridge.envelope import Algorithm
from bridge.keys import load_signer, new_key, public_jwks, write_private
from bridge.secret import Secret

PASSPHRASE = Secret("a passphrase of the host's key")


def told(capsys, monkeypatch, *arguments):
    """Run a command; its exit status, what it printed, and what it complained of."""
    monkeypatch.setattr(sys, "argv", ["smp-bridge", *map(str, arguments)])
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


async def _work(directory, key):
    host = {"journal": {"path": "../var/journal.db", "seal_every": "100ms"}, "host_key": str(key)}
    host["host_key_password"] = {"file": str(write_private_file(key.with_name("passphrase"), PASSPHRASE.reveal()))}
    async with service(directory, host=host) as made:
        ems = await linked(made)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 2})
        (submission, *_) = await made.read(lambda journal: journal.submissions())
        await made.stop()
        heads = await made.read(lambda journal: journal.snapshot(lambda rows: rows.all("SELECT kid FROM signed_heads")))
        await made.start()
    return submission.id, heads


@pytest.mark.parametrize("last", ["2026-11-30", "20261130", "2026-W49-1", "2026W491"])
def test_a_day_is_whole_in_each_spelling(last):
    """Days of ISO 8601: the last one ends with its last moment, whoever writes it without hyphens too."""
    scope = _scope("acme", "", "2026-11-01", last)
    assert (iso_ms(scope.from_ns), iso_ms(scope.to_ns)) == ("2026-11-01T00:00:00.000Z", "2026-11-30T23:59:59.999Z")


@pytest.mark.timeout(120)
def test_from_export_to_verify(tmp_path, monkeypatch, capsys):
    """The stop signs, with a key that is encrypted; export and verify say what they did; a changed file, a wrong key and a missing key are told."""
    key = tmp_path / "host.pem"
    write_private(key, new_key(Algorithm.ES256), password=PASSPHRASE)
    submission, heads = asyncio.run(_work(tmp_path, key))
    kid = load_signer(key, password=PASSPHRASE).kid
    assert {row[0] for row in heads} == {kid}
    known = memory.memory_adapter(memory.MemoryEms(), "north")
    monkeypatch.setattr("bridge.cli.journals.load_here", partial(load_here, find_adapter=lambda _: known))
    say = partial(told, capsys, monkeypatch)
    config, out, keys = tmp_path / "config", tmp_path / "out.zip", tmp_path / "keys.json"
    status, printed, _ = say("keys", "jwks", key, "--password-file", tmp_path / "passphrase")
    assert status == 0
    keys.write_text(printed)
    assert say("keys", "jwks", key)[0] == 2  # it is encrypted
    wanted = ("--participant", "acme-test", "--config", config)

    status, printed, complained = say("evidence", "export", *wanted, "--submission", submission, out)
    assert (status, complained) == (0, "")
    assert re.search(r"\d+ events in \d+ blocks", printed)
    assert kid in printed
    for given in (("--config", config), ("--keys", keys)):
        status, printed, _ = say("evidence", "verify", out, *given)
        assert status == 0
        assert "everything is as it was sealed and signed" in printed
    with zipfile.ZipFile(out) as archive:
        lines = [json.loads(line) for line in archive.read("evidence.jsonl").splitlines()]
        raw = b"".join(archive.read(name) for name in archive.namelist())
    facts = next(json.loads(line["text"]) for line in lines if '"smp-bridge facts 1"' in line.get("text", ""))
    assert facts["participant"] == "acme-test"
    assert len(facts["mapping"]["north"]["sha256"]) == 64
    assert b"PRIVATE KEY" not in raw
    assert b'"d":' not in raw

    anchor = next(tmp_path.glob("**/journal.db.json"))
    status, printed, _ = say("evidence", "verify", out, "--keys", keys, "--anchor", anchor, "--json")
    assert (status, json.loads(printed)["wrong"]) == (0, "")
    assert json.loads(printed)["notes"]

    other = tmp_path / "other.pem"
    write_private(other, new_key(Algorithm.ES256))
    keys.write_text(json.dumps(public_jwks([load_signer(other)])))
    status, printed, _ = say("evidence", "verify", out, "--keys", keys)
    assert status == 1
    assert f"WRONG signature.json: it is of the key {kid}, which is none of the host's public keys" in printed
    assert "if that was an earlier key of the host, nothing need be wrong" in printed

    status, _, complained = say("evidence", "export", *wanted, "--submission", submission, out)
    assert (status, "is there already" in complained) == (1, True)
    span = tmp_path / "span.zip"
    assert say("evidence", "export", *wanted, "--from", "2020-01-01", span)[0] == 0
    ends = ("--from", "0001-01-01", "--to", "9999-12-31")
    assert say("evidence", "export", *wanted, *ends, tmp_path / "ever.zip")[0] == 0
    assert say("evidence", "verify", span, "--config", config)[0] == 0
    assert say("evidence", "export", *wanted, tmp_path / "x.zip")[0] == 2
    assert say("evidence", "export", *wanted, "--from", "yesterday", tmp_path / "x.zip")[0] == 2
    assert say("evidence", "export", "--participant", "nobody", "--config", config, "--submission", "x", span)[0] == 2

    yaml = YAML(typ="safe")
    document = yaml.load((config / "bridge.yaml").read_text())
    document["participants"]["successor"] = document["participants"].pop("acme-test")
    with (config / "bridge.yaml").open("w") as file:
        yaml.dump(document, file)
    status, printed, _ = say("evidence", "export", *wanted, "--submission", submission, tmp_path / "left.zip")
    assert (status, "events in" in printed) == (0, True)
    erasing = ("evidence", "erase", *wanted, "--mpan", "1012345678903", "--dry-run")
    assert say(*erasing)[0] == 0
    assert say("evidence", "erase", "--participant", "nobody", *erasing[4:])[0] == 2
    document["participants"]["acme-test"] = document["participants"].pop("successor")
    del document["host_key"], document["host_key_password"]
    with (config / "bridge.yaml").open("w") as file:
        yaml.dump(document, file)
    status, _, complained = say("evidence", "export", *wanted, "--submission", submission, tmp_path / "y.zip")
    assert (status, "`host_key` is missing in bridge.yaml" in complained) == (2, True)
