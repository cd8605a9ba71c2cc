"""`smp-bridge token`: made once, listed without itself, revoked at once."""

import asyncio
import json
import stat
import sys
from functools import partial

import aiohttp
import memory_adapter as memory
import pytest
from service import prepared

from bridge.cli import main
from bridge.cli.check import load_here
from bridge.envelope import Algorithm
from bridge.keys import new_key, write_private


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """Run `smp-bridge token …` beside the loop: its exit status, what it printed, and what it complained of."""
    known = memory.memory_adapter(memory.MemoryEms(), "north")
    monkeypatch.setattr("bridge.cli.journals.load_here", partial(load_here, find_adapter=lambda _: known))

    def run(*arguments):
        sys.argv = ["smp-bridge", "token", *arguments, "--config", str(tmp_path / "config")]
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    monkeypatch.setattr(sys, "argv", [])
    return lambda *arguments: asyncio.to_thread(run, *map(str, arguments))


async def test_a_token_from_its_making_to_its_end(tmp_path, say):
    """It opens the admin listener of a host that runs, until it is revoked beside it; no list has it."""
    async with prepared(tmp_path, host={"host_key": "../keys/host.pem"}) as made:
        write_private(tmp_path / "keys/host.pem", new_key(Algorithm.ES256))
        await made.start()
        who = ("--role", "operator", "--participant", "acme-test", "--days", "2", "--for", "Ann Smith", "--by", "Bob")
        code, token, told = await say("new", *who)
        assert code == 0, told
        id_, token = told.split(":")[0], token.strip()
        assert token not in told
        url = f"http://127.0.0.1:{made.running.admin_port}/api/v1/whoami"
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
            async with http.get(url) as answer:
                found = await answer.json()
            assert (found["name"], found["role"], found["participants"]) == ("Ann Smith", "operator", ["acme-test"])
            code, shown, _ = await say("list", "--json")
            [row] = json.loads(shown)
            assert (code, row["id"], row["holder"], row["issued_by"]) == (0, id_, "Ann Smith", "Bob")
            assert token[-40:] not in shown
            code, shown, _ = await say("revoke", id_, "--by", "Bob", "--reason", "left")
            assert (code, "revoked" in shown) == (0, True)
            async with http.get(url) as answer:
                assert answer.status == 401
        assert "revoked by Bob: left" in (await say("list", "--all"))[1]
        assert id_ not in (await say("list"))[1]
        assert (await say("revoke", id_, "--by", "Bob", "--reason", "again"))[0] == 1
        await made.stop()


async def test_a_token_in_a_file(tmp_path, say):
    """Its owner alone reads it, it is not printed, and no file is replaced; the journal is made where there is none yet."""
    async with prepared(tmp_path, host={"host_key": "../keys/host.pem"}):
        write_private(tmp_path / "keys/host.pem", new_key(Algorithm.ES256))
        out = tmp_path / "token"
        code, printed, _ = await say("new", "--role", "viewer", "--all", "--by", "Bob", "--out", out)
        assert (code, printed, stat.S_IMODE(out.stat().st_mode)) == (0, "", 0o600)
        assert out.read_text().count(".") == 2
        assert (await say("new", "--role", "viewer", "--all", "--by", "Bob", "--out", out))[0] == 1


async def test_what_cannot_be_made(tmp_path, say):
    """Without a host key, for nobody, for a stranger, or for ever: a clear error, and nothing is made."""
    async with prepared(tmp_path):
        start = ("new", "--role", "viewer", "--by", "Bob")
        code, out, told = await say(*start, "--all")
        assert (code, out, "`host_key` is missing" in told) == (2, "", True)
        for more, said in (
            ((), "either --participant"),
            (("--participant", "bolt"), "known are acme-test"),
            (("--all", "--days", "400"), "366"),
            (("--all", "--for", "a\u0007"), "person's name"),
        ):
            code, out, told = await say(*start, *more)
            assert (code, out, said in told) == (2, "", True), told
