"""`smp-bridge certificates`: what it makes serves, and what is wrong is said in words."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bridge.cli import main

ROOT = Path(__file__).parents[2]
URI = "urn:acme:smp-bridge:ipswich"


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


def make(say, out, *more):
    return say("certificates", "new", "--out", out, "--uri", URI, "--bits", 2048, *more)


def test_a_new_certificate_carries_what_opc_ua_asks_for(say, tmp_path):
    """The URI, the hosts, the usages of part 6; and the key is for its owner's eyes."""
    out = tmp_path / "keys" / "ipswich"
    status, printed, _ = make(say, out, "--host", "bridge.acme.example", "--host", "10.0.0.7", "--days", 30)
    assert status == 0
    made = x509.load_pem_x509_certificate((tmp_path / "keys" / "ipswich.crt.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [URI]
    assert names.get_values_for_type(x509.DNSName) == ["bridge.acme.example"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.content_commitment
    assert usage.key_encipherment
    assert usage.data_encipherment
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.subject.rfc4514_string() == "CN=smp-bridge ipswich"
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == 30
    key_file = tmp_path / "keys" / "ipswich.key.pem"
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert load_pem_private_key(key_file.read_bytes(), None).public_key() == made.public_key()
    assert made.fingerprint(made.signature_hash_algorithm).hex() in printed
    assert "PRIVATE KEY" not in printed
    openssl = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile"]
    subprocess.run([*openssl, f"{out}.crt.pem", f"{out}.crt.pem"], check=True, capture_output=True)


def test_a_request_for_an_authority_carries_the_same(say, tmp_path):
    """An authority can only sign what stands in the request."""
    assert make(say, tmp_path / "own", "--csr")[0] == 0
    asked = x509.load_pem_x509_csr((tmp_path / "own.csr.pem").read_bytes())
    names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [URI]
    assert asked.is_signature_valid
    assert not (tmp_path / "own.crt.pem").exists()


def test_a_key_is_replaced_only_when_that_is_said(say, tmp_path):
    """The EMS trusts the old one; it is gone once it is replaced."""
    assert make(say, tmp_path / "own")[0] == 0
    before = (tmp_path / "own.key.pem").read_bytes()
    status, _, complaint = make(say, tmp_path / "own")
    assert status == 1
    assert "own.crt.pem is there already" in complaint
    assert "--force" in complaint
    assert (tmp_path / "own.key.pem").read_bytes() == before
    assert make(say, tmp_path / "own", "--force")[0] == 0
    assert (tmp_path / "own.key.pem").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--uri", "ipswich"), "'ipswich' is no application URI"),
        (("--uri", "urn:acme:north yard"), "is no application URI"),
        (("--uri", URI, "--bits", "1024"), "1024 bits is not possible; choose one of 2048, 3072, 4096"),
        (("--uri", URI, "--host", "north yard"), "'north yard' is neither a DNS name nor an address"),
        (("--uri", URI, "--name", "x" * 65), "1 to 64 characters"),
    ],
)
def test_a_wish_that_no_server_would_take_is_refused(say, tmp_path, arguments, words):
    """In words, before anything is written."""
    status, _, complaint = say("certificates", "new", "--out", tmp_path / "own", *arguments)
    assert status == 1
    assert words in complaint
    assert not list(tmp_path.iterdir())


@pytest.fixture
def site(say, tmp_path, monkeypatch):
    """A configuration with the sample of OPC UA as its only site, and the files that it names; returns its directory."""
    directory = tmp_path / "config"
    shutil.copytree(ROOT / "tests/unit/config_cases/good", directory)
    shutil.rmtree(directory / "sites")
    (directory / "sites").mkdir()
    shutil.copy(ROOT / "adapters/opcua/sample.yaml", directory / "sites/ipswich.yaml")
    for name in ("opcua-sample", "opcua-sample-ems"):
        assert make(say, tmp_path / "keys" / name)[0] == 0
    monkeypatch.setenv("SAMPLE_OPCUA_PASSWORD", "correct-horse")
    return directory


def test_the_doctor_finds_nothing_where_all_is_well(say, site):
    """Each file is named with what it is good for; --site leaves the host's own out."""
    status, printed, _ = say("certificates", "doctor", "--config", site, "--site", "opcua-sample")
    assert status == 0, printed
    assert "ipswich.yaml: adapters.ems.security (OPC UA application)" in printed
    assert f"opcua-sample.crt.pem: CN=smp-bridge opcua-sample, {URI}, valid until" in printed
    assert "trusted: CN=smp-bridge opcua-sample-ems" in printed
    assert printed.endswith("0 wrong, 0 to watch\n")


def test_the_doctor_says_what_is_wrong_and_fails(say, site, tmp_path):
    """The host's listener among it: its files are no certificates here."""
    shutil.copy(tmp_path / "keys/opcua-sample-ems.key.pem", tmp_path / "keys/opcua-sample.key.pem")
    status, printed, _ = say("certificates", "doctor", "--config", site)
    assert status == 1
    assert "opcua-sample.key.pem: is not the key of" in printed
    assert "name the key that was made with it" in printed
    assert "bridge.yaml: listeners.returns (TLS server)" in printed
    assert "any.pem: is no certificate" in printed
    assert "correct-horse" not in printed
    assert say("certificates", "doctor", "--config", site, "--site", "norwich")[0] == 1


def test_the_doctor_connects_when_it_is_told(say, site, monkeypatch):
    """Nobody is there: that is wrong, and said as the host itself would say it."""
    with socket.socket() as closed:  # bound and not listening: nobody else can have this port
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SAMPLE_OPCUA_URL", f"opc.tcp://127.0.0.1:{closed.getsockname()[1]}")
        status, printed, _ = say("certificates", "doctor", "--config", site, "--site", "opcua-sample", "--connect")
    assert status == 1
    assert "ipswich.yaml: adapters.ems, connecting" in printed
    assert "wrong  connecting to opc.tcp://127.0.0.1:" in printed
