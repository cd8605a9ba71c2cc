"""`host_key` and its passphrase in bridge.yaml."""

import shutil
from pathlib import Path

import pytest
from private_files import write_private_file

from bridge.config import load
from bridge.envelope import Algorithm
from bridge.errors import ConfigError
from bridge.keys import new_key, write_private
from bridge.material import host_signer, problems_of
from bridge.secret import Secret
from tests.support.paper import find

GOOD = Path(__file__).parent / "config_cases/good"
RIGHT = "the-right-passphrase"


@pytest.fixture
def directory(tmp_path):
    target = tmp_path / "config"
    shutil.copytree(GOOD, target)
    write_private(target / "host.pem", new_key(Algorithm.ES256), password=Secret(RIGHT))
    write_private(target / "plain.pem", new_key(Algorithm.EDDSA))
    write_private_file(target / "right", RIGHT)
    write_private_file(target / "wrong", "another-passphrase")
    return target


def config(directory, lines, **environ):
    path = directory / "bridge.yaml"
    path.write_text(f"{path.read_text()}\n{lines}\n")
    return load(directory, find, environ=environ, credentials_directory=directory)


@pytest.mark.parametrize("secret", ["{file: right}", "{env: PASS}", "{credential: right}"])
def test_an_encrypted_key_is_opened_by_its_passphrase(directory, secret):
    """From a file, a variable or a credential; it is shown nowhere."""
    found = config(directory, f"host_key: host.pem\nhost_key_password: {secret}", PASS=RIGHT)
    assert host_signer(found).alg is Algorithm.ES256
    assert RIGHT not in repr(found)
    assert not [each for each in problems_of(found) if each.path == "host_key"]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("host_key: host.pem", "is encrypted; give its password"),
        ("host_key: host.pem\nhost_key_password: {file: wrong}", "its password is wrong"),
        ("host_key: plain.pem\nhost_key_password: {file: right}", "is not encrypted; leave its password out"),
    ],
)
def test_a_passphrase_that_does_not_fit_is_told_by_the_check(directory, lines, text):
    """With the file, and neither passphrase."""
    [found] = [each for each in problems_of(config(directory, lines)) if each.path == "host_key"]
    assert text in found.text
    assert found.file == str(directory / "bridge.yaml")
    assert (directory / "bridge.yaml").read_text().splitlines()[found.line - 1].startswith("host_key: ")
    assert ".pem: " in found.text
    assert not any(secret in found.text for secret in (RIGHT, "another-passphrase"))


def test_a_passphrase_without_a_key_is_a_mistake(directory):
    """It opens nothing."""
    with pytest.raises(ConfigError, match="`host_key_password` needs `host_key`"):
        config(directory, "host_key_password: {file: right}")
