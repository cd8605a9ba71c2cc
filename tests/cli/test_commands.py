"""The command line as a person meets it: what it prints, and its exit status."""

import io
import json
import os
import sys

import pytest
from joserfc import jws
from joserfc.jwk import KeySet

from bridge.cli import main

COMMANDS = [
    "demo",
    "run",
    "check",
    "decode",
    "sandbox",
    "submissions",
    "hold",
    "release",
    "alarms",
    "assets",
    "journal",
    "keys",
    "jws",
    "certificates",
]


@pytest.fixture
def say(monkeypatch, capsysbinary):
    """Run a command; returns its exit status, what it printed, and what it complained of."""

    for module in ("logs", "run", "sandbox"):  # a handler on this test's own stream would outlive it
        monkeypatch.setattr(f"bridge.cli.{module}.set_up", lambda _: None)

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["smp-bridge", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        captured = capsysbinary.readouterr()
        return status, captured.out, captured.err.decode()

    return run


@pytest.fixture
def key(say, tmp_path):
    """A fresh ES256 key and its JWK Set."""

    def make(alg="ES256", name="key"):
        path, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.jwks.json"
        assert say("keys", "new", "--out", path, "--alg", alg)[0] == 0
        status, printed, _ = say("keys", "jwks", path)
        assert status == 0
        public.write_bytes(printed)
        return path, public

    return make


def test_help_names_every_command(say):
    """A newcomer's first look."""
    status, printed, _ = say("--help")
    assert status == 0
    assert all(command in printed.decode() for command in COMMANDS)


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        "submissions list",
        "submissions show",
        "submissions resolve",
        "submissions retry",
        "submissions cancel",
        "alarms list",
        "alarms ack",
        "assets import",
        "assets list",
        "assets export",
        "keys new",
        "keys jwks",
        "jws sign",
        "jws verify",
        "certificates new",
        "certificates doctor",
    ],
)
def test_each_command_explains_itself(say, command):
    """Each --help works without a configuration and has a sentence about what the command does."""
    status, printed, _ = say(*command.split(), "--help")
    assert status == 0
    assert len(printed.decode().splitlines()) > 8
    assert b"completion" not in printed  # of the shell, which would be of the whole command and is not offered


@pytest.mark.parametrize("alg", ["ES256", "PS256", "EdDSA"])
@pytest.mark.parametrize("form", ["jws-detached", "jws-flattened", "jws-compact"])
def test_what_is_signed_verifies(say, key, tmp_path, alg, form):
    """Every form and algorithm: sign, verify by key set, and the payload comes out byte for byte."""
    private, public = key(alg)
    message = tmp_path / "message"
    message.write_bytes(b'{ "spaced":  1 }\n')
    status, token, _ = say("jws", "sign", message, "--key", private, "--form", form)
    assert status == 0
    more = ["--payload", message] if form == "jws-detached" else []
    assert say("jws", "verify", "--jwks", public, *more, "-", stdin=token) == (0, message.read_bytes(), "")


def test_another_library_agrees(say, key, tmp_path):
    """A compact token of ours is good for joserfc too."""
    private, public = key()
    (tmp_path / "message").write_bytes(b"hello")
    _, token, _ = say("jws", "sign", tmp_path / "message", "--key", private, "--form", "jws-compact")
    found = jws.deserialize_compact(
        token.strip(), KeySet.import_key_set(json.loads(public.read_text())), algorithms=["ES256"]
    )
    assert found.payload == b"hello"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda token: token[:-6] + (b"AAAAA\n" if token[-6:] != b"AAAAA\n" else b"BBBBB\n"), "signature"),
        (lambda token: b"e30" + token[token.index(b".") :], "alg"),
        (lambda token: token.replace(b".", b"!", 1), ""),
        (lambda token: b"", ""),
    ],
)
def test_a_bad_token_is_one_reason_and_status_1(say, key, tmp_path, spoil, reason):
    """Nothing on standard output, one line on standard error."""
    private, public = key()
    (tmp_path / "message").write_bytes(b"hello")
    _, token, _ = say("jws", "sign", tmp_path / "message", "--key", private, "--form", "jws-compact")
    status, printed, told = say("jws", "verify", "--jwks", public, "-", stdin=spoil(token))
    assert (status, printed) == (1, b"")
    assert len(told.splitlines()) == 1
    assert reason in told


def test_one_key_ignores_kids(say, key, tmp_path):
    """With --key and --alg that one key is tried, whatever kid the token names; another algorithm is refused."""
    private, public = key()
    [jwk] = json.loads(public.read_text())["keys"]
    del jwk["kid"]
    (tmp_path / "one.jwk").write_text(json.dumps(jwk))
    (tmp_path / "message").write_bytes(b"hello")
    _, token, _ = say(
        "jws", "sign", tmp_path / "message", "--key", private, "--form", "jws-compact", "--kid", "elsewhere"
    )
    assert say("jws", "verify", "--key", tmp_path / "one.jwk", "--alg", "ES256", token.decode().strip())[:2] == (
        0,
        b"hello",
    )
    assert say("jws", "verify", "--key", tmp_path / "one.jwk", "--alg", "PS256", token.decode().strip())[0] != 0


def test_an_unknown_kid_is_refused(say, key, tmp_path):
    """A key set chooses by kid alone."""
    private, public = key()
    (tmp_path / "message").write_bytes(b"hello")
    _, token, _ = say(
        "jws", "sign", tmp_path / "message", "--key", private, "--form", "jws-compact", "--kid", "elsewhere"
    )
    status, _, told = say("jws", "verify", "--jwks", public, "-", stdin=token)
    assert (status, "kid" in told) == (1, True)


def test_a_detached_token_needs_its_payload(say, key, tmp_path):
    """The reason names the option."""
    private, public = key()
    (tmp_path / "message").write_bytes(b"hello")
    _, token, _ = say("jws", "sign", tmp_path / "message", "--key", private)
    status, _, told = say("jws", "verify", "--jwks", public, "-", stdin=token)
    assert status == 1
    assert "--payload" in told


def test_a_key_is_never_overwritten_unasked(say, tmp_path):
    """A replaced key is gone, so it takes a --force; the file is for its owner alone."""
    path = tmp_path / "key.pem"
    assert say("keys", "new", "--out", path)[0] == 0
    before = path.read_bytes()
    status, _, told = say("keys", "new", "--out", path)
    assert (status, path.read_bytes()) == (1, before)
    assert "--force" in told
    assert path.stat().st_mode & 0o077 == 0


def test_no_configuration_is_said_with_a_hint(say, tmp_path):
    """`run`, `check`, `demo` and `submissions` end with status 2 and say what is missing."""
    for command in (["run"], ["check"], ["demo", "--once"], ["submissions", "list"]):
        status, _, told = say(*command, "--config", tmp_path / "none")
        assert status == 2, command
        assert "bridge.yaml" in told, command


def test_output_that_does_not_arrive_is_said(say, monkeypatch):
    """A full disk behind `>` is status 1 and a text; a reader that has gone (`| head -1`) is told nothing."""
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert say("decode", "0000", "4246")[::2] == (
            1,
            "the output cannot be written: No space left on device\nhint: is there room where it goes? What the command did before stands\n",
        )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert say("decode", "0000", "4246")[::2] == (1, "")
