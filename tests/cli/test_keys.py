"""`smp-bridge keys`: the life of keys by commands alone, without a service; what is wrong is said, and nothing is left half done."""

import json

import pytest
from service import PARTICIPANT, prepared

from bridge.cli import main
from bridge.envelope import Algorithm
from bridge.keys import KeySigner, load_signer, new_key, public_jwks, write_private
from bridge.secret import Secret

WHO = ("--by", "Ada", "--reason", "yearly")


@pytest.fixture
async def made(tmp_path, monkeypatch):
    """A configuration that never ran."""
    async with prepared(tmp_path, profile="default") as found:
        monkeypatch.setattr("bridge.cli.keys.loaded", lambda _: found.config())
        yield found


@pytest.fixture
def say(monkeypatch, capsys):
    """Run `smp-bridge keys …` in a thread of its own; its exit status, what it printed, what it complained of."""

    async def run(*arguments):
        import asyncio
        import sys

        monkeypatch.setattr(sys, "argv", ["smp-bridge", "keys", *map(str, arguments)])

        def inside():
            try:
                main()
            except SystemExit as ended:
                return ended.code or 0
            return 0

        status = await asyncio.to_thread(inside)
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


async def kids(say):
    status, out, _ = await say("jwks", "--participant", PARTICIPANT)
    assert status == 0
    return [key["kid"] for key in json.loads(out)["keys"]]


async def test_a_key_id_that_looks_like_an_option_is_one_all_the_same(made, say, tmp_path):
    """The ids are base64url: one in 64 begins with a hyphen. A wrong option is still told."""
    file = tmp_path / "hyphen.pem"
    write_private(file, new_key(Algorithm.ES256))
    while not load_signer(file).kid.startswith("-"):
        write_private(file, new_key(Algorithm.ES256))
    kid, mine = load_signer(file).kid, ("--participant", PARTICIPANT)
    assert (await say("import", file, *mine, *WHO))[0] == 0
    status, out, told = await say("revoke", kid, *mine, *WHO)
    assert (status, told, f"{kid} is revoked" in out) == (0, "", True)
    status, _, told = await say("revoke", "-none", "--particpant", PARTICIPANT, *WHO)
    assert (status, "--participant" in told) == (2, True)


async def test_a_keys_whole_life(made, say, tmp_path):
    """new, list, jwks, rotate, revoke, import; each state as it is, before the service ever ran."""
    first = load_signer(tmp_path / "keys/acme.pem").kid
    assert await kids(say) == [first]
    new = ("new", "--out", tmp_path / "keys/second.pem", "--participant", PARTICIPANT, "--days", "30")
    status, out, _ = await say(*new, *WHO)
    second = out.split()[1]
    assert status == 0
    assert (tmp_path / "keys/second.pem").stat().st_mode & 0o777 == 0o600
    assert await kids(say) == [first, second]
    assert (await say("rotate", "--participant", PARTICIPANT, "--grace", "12h", *WHO))[0] == 0
    assert await kids(say) == [second, first]
    status, out, _ = await say("list", "--json")
    listed = {row["kid"]: row for row in json.loads(out)}
    assert [listed[kid]["state"] for kid in (first, second)] == ["retiring", "active"]
    assert listed[first]["until_ns"] - listed[first]["since_ns"] == 12 * 3600 * 10**9
    assert listed[second]["expires_ns"] > listed[second]["since_ns"]
    assert {row["side"] for row in listed.values()} == {"ours", "theirs"}
    assert (await say("revoke", first, "--participant", PARTICIPANT, *WHO))[0] == 0
    assert await kids(say) == [second]

    smp = [KeySigner(f"N{number}", Algorithm.ES256, new_key(Algorithm.ES256)) for number in range(2)]
    (tmp_path / "smp-next.json").write_text(json.dumps(public_jwks(smp)))
    status, out, _ = await say("import", tmp_path / "smp-next.json", "--participant", PARTICIPANT, *WHO)
    assert (status, out.splitlines()) == (0, ["N0: next key of theirs", "N1: next key of theirs"])
    assert (await say("rotate", "--smp", "--kid", "N1", "--participant", PARTICIPANT, *WHO))[0] == 0
    status, out, _ = await say("list", "--participant", PARTICIPANT)
    assert "SMP's  active    ES256  N1" in out
    assert "SMP's  next      ES256  N0" in out
    assert "grace time until" in out


async def test_keys_are_listed_where_only_the_service_can_read_them(made, say, tmp_path, monkeypatch):
    """As beside a unit that is stopped: what the journal knows is shown, and that something is left out. What changes a key is refused, with the place."""
    found, file = made.config(), tmp_path / "keys/acme.pem"
    monkeypatch.setattr("bridge.cli.keys.loaded", lambda _: found)
    kid, new = load_signer(file).kid, tmp_path / "keys/second.pem"
    assert (await say("new", "--out", new, "--participant", PARTICIPANT, *WHO))[0] == 0
    file.unlink()
    status, out, told = await say("list")
    assert (status, kid in out, load_signer(new).kid in out) == (0, True, True)
    assert (told.count("\n"), "acme.pem: cannot be read" in told) == (1, True)
    status, _, told = await say("rotate", "--participant", PARTICIPANT, *WHO)
    assert (status, "signing_key: the file" in told, "hint: " in told) == (2, True, True)


async def test_what_is_wrong_is_said(made, say, tmp_path):
    """Each refusal names what is wrong and what would be right, and changes nothing."""
    first = load_signer(tmp_path / "keys/acme.pem").kid
    mine = ("--participant", PARTICIPANT)
    opened = tmp_path / "opened.pem"
    write_private(opened, new_key(Algorithm.ES256))
    opened.chmod(0o644)
    write_private(tmp_path / "ed.pem", new_key(Algorithm.EDDSA))
    (tmp_path / "words").write_text("")
    for arguments, text in (
        (("rotate", *mine, *WHO), "has no next key"),
        (("revoke", first, *mine, *WHO), "is the key that signs for acme-test"),
        (("revoke", "none", *mine, *WHO), "has no key none"),
        (("rotate", *mine, "--by", "Ada", "--reason", " "), "--reason must say why"),
        (("rotate", *mine, "--grace", "soon", *WHO), "must be a duration with its unit"),
        (("rotate", "--participant", "x", *WHO), "x is not a participant"),
        (("import", opened, *mine, *WHO), f"chmod 600 {opened}"),
        (("jwks",), "give either files of private keys, or --participant"),
        (("new", "--out", tmp_path / "keys/acme.pem", *mine, *WHO), "is there already"),
        (("new", "--out", tmp_path / "n.pem", "--password-env", "A", "--password-file", opened), "give one of"),
        (("new", "--out", tmp_path / "n.pem", "--password-env", "NOT_SET_ANYWHERE"), "holds no passphrase"),
        (("new", "--out", tmp_path / "n.pem", "--password-file", tmp_path / "words"), "holds no passphrase"),
        (
            ("new", "--out", tmp_path / "n.pem", "--password-file", opened, *mine, *WHO),
            "`signing_password` is the passphrase",
        ),
    ):
        status, out, err = await say(*arguments)
        assert status != 0, arguments
        assert text in " ".join(err.replace("│", "").split()), (arguments, err)
        assert out == ""
    assert await kids(say) == [first]
    assert not (tmp_path / "n.pem").exists()


async def test_a_passphrase_comes_from_a_file_a_variable_or_a_credential(say, tmp_path, monkeypatch):
    """The key is encrypted with it, and opened with nothing else."""
    (tmp_path / "words").write_text("correct horse\n")
    monkeypatch.setenv("THE_WORDS", "correct horse")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for option, value in (
        ("--password-file", tmp_path / "words"),
        ("--password-env", "THE_WORDS"),
        ("--password-credential", "words"),
    ):
        file = tmp_path / f"{option}.pem"
        status, out, err = await say("new", "--out", file, option, value)
        assert (status, err) == (0, "")
        assert b"ENCRYPTED" in file.read_bytes()
        assert "correct horse" not in out
        assert load_signer(file, password=Secret("correct horse")).kid == out.split()[1]
