"""What works on the journal goes on without a site whose file is wrong; what runs or checks does not."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli.certificates import app
from bridge.cli.check import load_here
from bridge.cli.journals import known_site, loaded
from bridge.config import load
from bridge.envelope import Algorithm
from bridge.errors import ConfigError
from bridge.keys import new_key, write_private
from bridge.material import host_signer
from bridge.secret import Secret
from tests.support.paper import find

GOOD = Path(__file__).parent / "config_cases" / "good"


@pytest.fixture
def directory(tmp_path):
    """The good site, and beside it one that names a file which is not there."""
    directory = tmp_path / "config"
    shutil.copytree(GOOD, directory)
    sites = directory / "sites"
    text = (sites / "north.yaml").read_text().replace("site: north", "site: leeds")
    (sites / "leeds.yaml").write_text(text.replace("certificate: ../keys/any.pem", "certificate: ../keys/none.pem"))
    return directory


def test_the_wrong_one_is_left_out_and_said(directory, capsys):
    found = load_here(directory, find_adapter=find, environ={}, tolerant=True)
    assert (list(found.sites), list(found.left_out)) == (["north"], ["leeds"])
    (problem,) = found.left_out["leeds"]
    assert "none.pem" in str(problem)
    assert (
        capsys.readouterr().err == "warning: site leeds is left out, 1 problem: `smp-bridge check` says what is wrong\n"
    )


def test_it_may_still_be_named(directory):
    """To hold it, for instance; a site that there is not is refused as ever."""
    found = load(directory, find, environ={}, tolerant=True)
    assert known_site(found, "leeds") == "leeds"
    with pytest.raises(Exception, match="york is not a site"):
        known_site(found, "york")


def test_the_doctor_says_what_is_wrong_with_it(directory, monkeypatch):
    """It is asked about certificates, and one is missing; of another site alone it is not asked."""
    monkeypatch.setattr("bridge.cli.certificates.load_here", partial(load_here, find_adapter=find, environ={}))

    def asked(*more):
        return CliRunner().invoke(app, ["doctor", "--config", str(directory), *more])

    def wrong(said):
        return int(said.stdout.splitlines()[-1].split()[0])

    whole, leeds, north = asked(), asked("--site", "leeds"), asked("--site", "north")
    assert (whole.exit_code, "none.pem" in whole.output, "none.pem" in north.output) == (1, True, False)
    assert isinstance(leeds.exception, ConfigError)
    assert "none.pem" in str(leeds.exception)
    (directory / "sites" / "leeds.yaml").unlink()
    assert wrong(whole) == wrong(asked()) + 1


def test_whoever_runs_it_is_told_everything(directory):
    with pytest.raises(ConfigError, match=r"none\.pem"):
        load(directory, find, environ={})


def test_a_mistake_in_the_hosts_own_file_is_no_sites(directory):
    host = directory / "bridge.yaml"
    host.write_text(host.read_text() + "nonsense: 1\n")
    with pytest.raises(ConfigError, match="nonsense") as caught:
        load(directory, find, environ={}, tolerant=True)
    assert "none.pem" not in str(caught.value)


def test_two_sites_of_one_name_are_both_left_out(directory):
    """Which one is meant nobody can tell."""
    leeds = directory / "sites" / "leeds.yaml"
    shutil.copy(directory / "sites" / "north.yaml", leeds)
    found = load(directory, find, environ={}, tolerant=True)
    assert (list(found.sites), list(found.left_out)) == ([], ["north"])


UNDER_SYSTEMD = {
    "password: {file: keys/password}": "password: {credential: smp-password}",
    "signing_key: keys/any.pem": "signing_key: /run/credentials/smp-bridge.service/signing-key",
    "journal: {path: var/journal.db}": "journal: {path: var/journal.db, anchors: {notary: {post: {url: 'https://notary.example/a', token: {credential: notary}}}}}\n"
    "tracing: {endpoint: 'http://127.0.0.1:4318/v1/traces', headers: {Authorization: {env: NOBODY_SET_THIS}}}",
}


@pytest.fixture
def service(directory):
    """The same host with its secrets where docs/systemd.md puts them, seen from outside of the unit."""
    host = directory / "bridge.yaml"
    text = host.read_text()
    for here, there in UNDER_SYSTEMD.items():
        assert here in text
        text = text.replace(here, there)
    host.write_text(text)
    return directory


def test_secrets_that_only_the_service_has_are_missed_by_who_uses_them(service):
    """A command on the journal needs none of them; one that does is told which, and where it is named."""
    found = load(service, find, environ={}, tolerant=True, withheld=True)
    options = found.participants["acme-test"].options
    assert str(options.signing_key) == "/run/credentials/smp-bridge.service/signing-key"
    with pytest.raises(ConfigError, match=r"password\.credential: there is no credentials directory") as caught:
        options.password.reveal()
    assert caught.value.hint
    with pytest.raises(ConfigError, match="bridge.yaml:.*NOBODY_SET_THIS is not set"):
        found.host.tracing.headers["Authorization"].reveal()
    assert repr(options.password) == "[secret]"


def test_a_key_that_only_the_service_can_read_is_told_where_it_is_named(service):
    """By whoever signs with it, and with what to do; a passphrase that is missing is told as itself."""
    host, loading = service / "bridge.yaml", partial(load, service, find, environ={}, tolerant=True, withheld=True)
    before = host.read_text()
    host.write_text(f"{before}host_key: /run/credentials/smp-bridge.service/host-key\n")
    with pytest.raises(ConfigError, match=r"bridge\.yaml:\d+:\d+: host_key: the file /run/.*/host-key: ") as caught:
        host_signer(loading())
    assert caught.value.hint
    write_private(service / "host.pem", new_key(Algorithm.ES256), password=Secret("x"))
    host.write_text(f"{before}host_key: host.pem\nhost_key_password: {{credential: host}}\n")
    with pytest.raises(ConfigError, match=r"^[^ ]*: host_key_password\.credential: there is no") as caught:
        host_signer(loading())
    assert caught.value.hint


def test_whoever_runs_or_checks_it_wants_them(service):
    """All of them at once, as ever."""
    with pytest.raises(ConfigError) as caught:
        load(service, find, environ={}, tolerant=True)
    assert {problem.path.rpartition(".")[2] for problem in caught.value.problems} == {
        "credential",
        "signing_key",
        "env",
    }
    assert len(caught.value.problems) == 4


def test_a_secret_in_the_file_is_no_secret_that_is_missing(service):
    """It is refused whoever reads."""
    host = service / "bridge.yaml"
    host.write_text(host.read_text().replace("password: {credential: smp-password}", "password: plain"))
    with pytest.raises(ConfigError, match="a secret never stands in this file"):
        load(service, find, environ={}, tolerant=True, withheld=True)


def test_the_commands_on_the_journal_go_without_them(service, monkeypatch):
    """Those that hold, look and prove; `check` does not."""
    monkeypatch.setattr("bridge.cli.journals.load_here", partial(load_here, find_adapter=find, environ={}))
    assert list(loaded(service).participants) == ["acme-test"]
