"""`smp-bridge check`: everything is said, nothing is started, and the exit status tells the two apart."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bridge.api import Private
from bridge.cli.check import check, examine, foreign_owners, load_here, load_whole, owners
from bridge.cli.run import _finished, run
from bridge.clock import SystemClock
from bridge.config.references import Wanted
from bridge.envelope import Algorithm
from bridge.errors import ConfigError
from bridge.keys import load_signer, new_key, public_jwks, write_private
from bridge.sandbox.pki import Authority
from tests.support.paper import find
from tests.support.private_files import write_private_file

GOOD = Path(__file__).parent / "config_cases" / "good"


@pytest.fixture
def real(tmp_path):
    """The good configuration with keys and certificates that are some."""
    directory = tmp_path / "real"
    shutil.copytree(GOOD, directory)
    keys = directory / "keys"
    write_private(keys / "sign.pem", new_key(Algorithm.ES256))
    pair = Authority("test", clock=SystemClock.here()).server("bridge")
    (keys / "returns.crt.pem").write_bytes(pair.certificate)
    write_private_file(keys / "returns.key.pem", pair.private_key)
    write_private_file(keys / "password", "correct-horse\n")
    write_private(keys / "smp.pem", new_key(Algorithm.ES256))
    (keys / "smp.jwks").write_text(json.dumps(public_jwks([load_signer(keys / "smp.pem")])))
    host = directory / "bridge.yaml"
    text = host.read_text().replace("certificate: keys/any.pem", "certificate: keys/returns.crt.pem")
    text = text.replace("private_key: keys/any.pem", "private_key: keys/returns.key.pem")
    text = text.replace("signing_key: keys/any.pem", "signing_key: keys/sign.pem")
    host.write_text(text.replace("smp_jwks: keys/any.pem", "smp_jwks: keys/smp.jwks"))
    return directory


def test_the_files_behind_it_are_read_too(real, capsys):
    """Keys that are none, a certificate of another key, an algorithm that the profile does not allow: all named at once, each at the line that names the file."""
    keys = real / "keys"
    write_private(keys / "returns.key.pem", new_key(Algorithm.ES256))
    host = real / "bridge.yaml"
    host.write_text(host.read_text() + "    profile: odd\n    ca: keys/password\n")
    write_private(keys / "sign.pem", new_key(Algorithm.EDDSA))
    assert examine(real, find_adapter=find, environ={}) == 2
    told = capsys.readouterr().err
    lines = host.read_text().splitlines()
    for name, path, text in (
        ("signing_key", "participants.acme-test.signing_key", "sign.pem: the key is for EdDSA, and the profile odd allows ES256, PS256"),
        ("returns", "listeners.returns.certificate", "returns.crt.pem: is not a PEM certificate chain"),
        ("ca", "participants.acme-test.ca", "password: holds no PEM certificate"),
    ):  # fmt: skip
        (line,) = [number for number, each in enumerate(lines, 1) if each.strip().startswith(f"{name}: ")]
        (problem,) = [each for each in told.splitlines() if text in each]
        assert problem.startswith(f"{host}:{line}:")
        assert f": {path}: the file {keys}/" in problem
    assert "key values mismatch" in told
    assert "3 problems." in told
    assert "correct-horse" not in told


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_keys_and_secrets_that_others_can_read_are_refused(real, capsys, mode):
    """Group or others may read or change none of them; every file is named with its place and what would be right."""
    for name in ("sign.pem", "returns.key.pem", "password"):
        (real / "keys" / name).chmod(mode)
    assert examine(real, find_adapter=find, environ={}) == 2
    lines = capsys.readouterr().err.splitlines()
    for line, place, name, what in zip(
        lines,
        ("listeners.returns.private_key", "participants.acme-test.password.file", "participants.acme-test.signing_key"),
        ("returns.key.pem", "password", "sign.pem"),
        ("private key", "secret", "private key"),
        strict=False,
    ):
        file = real / "keys" / name
        text = f"{place}: the file {file} is open to others (mode {mode:04o}), and a {what} belongs to its owner alone: chmod 600 {file}"
        assert line.startswith(f"{real / 'bridge.yaml'}:")
        assert line.endswith(text)
    assert lines[3].startswith(f"{real / 'sites/north.yaml'}:8:")
    assert "a secret belongs to its owner alone" in lines[3]
    assert lines[4].startswith("4 problems. ")
    assert len(lines) == 5
    with pytest.raises(ConfigError, match="chmod 600"):
        load_whole(real, find_adapter=find, environ={})
    assert load_here(real, find_adapter=find, environ={}).exposed, "no hindrance to a command that only looks"


def test_a_path_that_cannot_be_looked_at_is_said(real, capsys):
    """A name that no file system takes, or a directory on the way that we may not enter: a problem with its place, and no traceback."""
    host = real / "bridge.yaml"
    host.write_text(host.read_text().replace("signing_key: keys/sign.pem", f"signing_key: keys/{'x' * 300}"))
    assert examine(real, find_adapter=find, environ={}) == 2
    told = capsys.readouterr().err
    assert "participants.acme-test.signing_key: the path " in told
    assert "cannot be looked at: File name too long" in told
    shutil.rmtree(real / "sites")
    (real / "sites").symlink_to("sites")
    assert examine(real, find_adapter=find, environ={}) == 2
    assert f"{real / 'sites'}: cannot be looked into: Too many levels of symbolic links" in capsys.readouterr().err


def test_what_systemd_guards_may_have_any_mode(real, capsys):
    """Files under $CREDENTIALS_DIRECTORY are exempt, named as a credential or by their path."""
    host = real / "bridge.yaml"
    host.write_text(host.read_text().replace("{file: keys/password}", "{credential: password}"))
    for name in ("sign.pem", "returns.key.pem", "password"):
        (real / "keys" / name).chmod(0o440)
    assert examine(real, find_adapter=find, environ={"CREDENTIALS_DIRECTORY": str(real / "keys")}) == 0
    assert capsys.readouterr().err == ""


def test_the_adapters_private_keys_are_guarded_too():
    """Every option of a shipped adapter that names a private key carries the marker."""
    import adapters.modbus.config as modbus
    import adapters.mqtt.config as mqtt
    import adapters.opcua.config as opcua

    named = {
        modbus.Tls: ("private_key",),
        mqtt.Tls: ("private_key",),
        opcua.Security: ("private_key", "user_private_key"),
    }
    for model, names in named.items():
        for name in names:
            assert Wanted.of(model).member(name).has(Private), f"{model.__module__}.{name}"


def test_a_good_configuration_is_summed_up(real, capsys):
    """Participants, sites, adapters and flows are listed, and the status is 0."""
    assert examine(real, find_adapter=find, environ={}) == 0
    out = capsys.readouterr().out
    assert out.startswith("OK")
    for word in ("acme-test", "TEST", "site north", "adapter ems: paper", "flow batteries: asset.create by request"):
        assert word in out
    assert "correct-horse" not in out


def test_problems_exit_2(capsys, tmp_path):
    """Each problem stands on a line of its own with its place, the last line counts them and says what next."""
    shutil.copytree(GOOD, tmp_path, dirs_exist_ok=True)
    site = tmp_path / "sites/north.yaml"
    site.write_text(site.read_text().replace("linger:", "lnger:").replace("port:", "prt:"))
    assert examine(tmp_path, find_adapter=find, environ={}) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].startswith(f"{site}:7:5: adapters.ems.prt: unknown key; did you mean `port`?")
    assert lines[1].startswith(f"{site}:38:5: flows.batteries.lnger: unknown key; did you mean `linger`?")
    assert lines[2].startswith("2 problems. ")
    assert len(lines) == 3


def test_the_credentials_directory_is_the_service_managers(tmp_path):
    """`{credential: NAME}` is looked up where systemd says."""
    shutil.copytree(GOOD, tmp_path / "config")
    host = tmp_path / "config/bridge.yaml"
    host.write_text(host.read_text().replace("{file: keys/password}", "{credential: smp}"))
    (tmp_path / "smp").write_text("from-systemd")
    config = load_here(tmp_path / "config", find_adapter=find, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert config.participants["acme-test"].options.password.reveal() == "from-systemd"


def test_another_owner_of_our_packages_is_refused():
    """A stranger that installs a top-level `bridge` or `adapters` is named; our own name and no owner at all pass."""
    assert foreign_owners({}) == []
    assert foreign_owners({"bridge": ["smp-bridge"], "adapters": ["smp_bridge", "SMP-Bridge"]}) == []
    (problem,) = foreign_owners({"bridge": ["smp-bridge"], "adapters": ["adapters", "smp-bridge"]})
    assert "`adapters` also installs a top-level `adapters`" in problem.text


def test_owners_are_found_by_what_is_declared_and_by_what_is_installed(tmp_path, monkeypatch):
    """A distribution's own word counts, and without one its list of files; modules of that name inside other packages do not."""
    stored = {
        "declares": ("top_level.txt", "adapters\nother\n"),
        "lists": ("RECORD", "bridge/__init__.py,,\nbridge/x.py,,\n"),
        "innocent": ("RECORD", "inner/bridge/__init__.py,,\nbridge/data.txt,,\n"),
    }
    for name, (file, content) in stored.items():
        directory = tmp_path / f"{name}-1.0.dist-info"
        directory.mkdir()
        (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (directory / file).write_text(content)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert owners() == {"adapters": ["declares"], "bridge": ["lists"]}


@pytest.mark.parametrize(
    ("arguments", "status", "text"), [(["--help"], 0, "--config"), (["--config", "/nowhere"], 2, "bridge.yaml")]
)
def test_the_command(arguments, status, text):
    """The command shows its help, and exits 2 for a directory that holds nothing."""
    app = typer.Typer()
    app.command()(check)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == status
    assert text in result.output


def drafted(real):
    """The first site of the good configuration with two placeholders, as `browse` leaves them, and its name."""
    file = min((real / "sites").glob("*.yaml"))
    lines = file.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip().startswith("operation:"))
    lines[at] += "  # PLACEHOLDER: asset.create or unit.create?"
    at = next(number for number, line in enumerate(lines) if line.startswith("site:"))
    lines[at] += " # PLACEHOLDER"
    file.write_text("\n".join(["# Every line with PLACEHOLDER is a guess.", *lines]) + "\n")
    return file, lines[at].split()[1]


def test_a_draft_is_accepted_with_a_warning_and_never_run(real, capsys):
    """`check` exits 0 and lists what is left with its place; `run` refuses before it opens anything, unless it works other sites only."""
    file, name = drafted(real)
    assert examine(real, find_adapter=find, environ={}) == 0
    told = capsys.readouterr()
    assert told.out.startswith("OK")
    listed = told.err.splitlines()
    assert len(listed) == 3
    assert listed[0].startswith(f"{file}:2:")
    assert listed[0].endswith("this stands for a value that nobody has given yet")
    assert listed[1].endswith("PLACEHOLDER: asset.create or unit.create?")
    assert "2 placeholders of a draft are left" in listed[2]
    loaded = load_whole(real, find_adapter=find, environ={})
    with pytest.raises(ConfigError) as raised:
        _finished(loaded, [])
    assert len(raised.value.problems) == 2
    assert "take the word PLACEHOLDER out" in raised.value.hint
    _finished(loaded, [f"not-{name}"])


@pytest.fixture
def hung_up():
    """How often SIGHUP did what it did before; this process keeps no part of what a start makes of it."""
    found = []
    before = signal.signal(signal.SIGHUP, lambda *_: found.append(None))
    yield found
    signal.signal(signal.SIGHUP, before)


def test_a_reload_during_the_start_does_not_end_it(hung_up, monkeypatch):
    """Its first second is imports and the configuration: whoever renews a certificate then is not heard, and need not be."""
    os.kill(os.getpid(), signal.SIGHUP)
    assert len(hung_up) == 1

    def loads(_):
        os.kill(os.getpid(), signal.SIGHUP)
        raise ConfigError([])

    monkeypatch.setattr("bridge.cli.run.load_whole", loads)
    monkeypatch.setattr("bridge.cli.run.set_up", lambda _: None)
    with pytest.raises(ConfigError):
        run(Path())
    assert len(hung_up) == 1


@pytest.mark.usefixtures("hung_up")
def test_run_refuses_a_draft(real, monkeypatch):
    """The command itself, before the service: a configuration error."""
    drafted(real)
    loaded = load_whole(real, find_adapter=find, environ={})
    monkeypatch.setattr("bridge.cli.run.load_whole", lambda _: loaded)
    monkeypatch.setattr("bridge.cli.run.set_up", lambda _: None)
    with pytest.raises(ConfigError, match="PLACEHOLDER"):
        run(real)


def test_a_finished_site_has_no_placeholders(real, capsys):
    """Nothing is said of it."""
    assert examine(real, find_adapter=find, environ={}) == 0
    assert capsys.readouterr().err == ""
