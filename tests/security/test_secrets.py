"""Planted secrets in every place that takes one: none comes out in a log, an error, a metric, a page, the journal, an export, a crash or a `repr`."""

import asyncio
import json
import logging
import re
import traceback
import types
import typing
from pathlib import Path

import pytest
from leaks import LIVES, asked, hearing, leaked, planted_there
from people import note, token, unpacked
from private_files import write_private_file
from pydantic import BaseModel
from service import fill, linked, prepared, until_words

from bridge import registry
from bridge.cli.evidence import _export
from bridge.clock import SystemClock
from bridge.config import load
from bridge.config.host import HostOptions, ParticipantOptions
from bridge.envelope import Algorithm
from bridge.errors import ConfigError
from bridge.journal.access import TokenView
from bridge.journal.export_plan import Scope
from bridge.keys import load_signer, new_key, write_private
from bridge.market.client import SmpClient
from bridge.material import host_signer
from bridge.secret import Secret
from bridge.web.roles import Role
from bridge.web.tokens import make_token

PASSPHRASE = "passphrase-4471-of-the-signing-key"
HOST_PASSPHRASE = "passphrase-8812-of-the-host-key"
NOTARY = "token-5530-of-the-notary"
# Every field of a configuration that takes a secret. One that is not here is not tested: plant it below, and add it.
PLACES = {
    "HostOptions.host_key_password",
    "HostOptions.journal.anchors.mqtt.password",
    "HostOptions.journal.anchors.post.token",
    "HostOptions.journal.postgres.password",
    "HostOptions.tracing.headers",
    "ParticipantOptions.hsm.pin",
    "ParticipantOptions.password",
    "ParticipantOptions.signing_password",
    "mqtt.password",
    "opcua.security.password",
}


# --------------------------------------------------------------------------------------------------------------- places


def secret_fields(model, name, seen=()):
    """The dotted name of each field of a model, and of the models below it, whose type holds a `Secret`."""
    for field, info in model.model_fields.items():
        parts, models = [info.annotation], []
        for part in parts:
            parts += [
                each
                for each in typing.get_args(part)
                if isinstance(each, type | types.GenericAlias | types.UnionType) or typing.get_args(each)
            ]
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in seen:
                models.append(part)
        if Secret in parts:
            yield f"{name}.{field}"
        for each in models:
            yield from secret_fields(each, f"{name}.{field}", (*seen, model))


def test_every_place_that_takes_a_secret_is_known():
    """A new one has to be planted in these tests first."""
    found = {*secret_fields(HostOptions, "HostOptions"), *secret_fields(ParticipantOptions, "ParticipantOptions")}
    for protocol in ("opcua", "modbus", "mqtt"):
        found |= set(secret_fields(registry.find(protocol).options, protocol))
    assert found == PLACES


def test_every_place_is_planted_in_a_life():
    """Each place holds a secret in a life of a whole service at least, whose end is searched; the life itself asserts that its places do."""
    assert set().union(*LIVES.values()) == PLACES
    sources = "".join(file.read_text() for file in Path(__file__).parent.glob("test_secret*.py"))
    assert set(re.findall(r'planted_there\("(\w+)", config', sources)) == set(LIVES)


PLANTED = "planted-3390-in-the-file"
LITERALS = {
    "HostOptions.host_key_password": ("bridge", "journal: {path: j/j.db}\nhost_key: bridge.yaml\nhost_key_password: PLANTED"),
    "HostOptions.journal.anchors.mqtt.password": ("bridge", "journal: {path: j/j.db, anchors: {a: {mqtt: {broker: 'mqtts://b', topic: t, user: u, password: PLANTED}}}}"),
    "HostOptions.journal.anchors.post.token": ("bridge", "journal: {path: j/j.db, anchors: {a: {post: {url: 'https://n/a', token: PLANTED}}}}"),
    "HostOptions.journal.postgres.password": ("bridge", "journal: {postgres: {host: h, database: d, user: u, password: PLANTED}, anchor: a, archive: b}"),
    "HostOptions.tracing.headers": ("bridge", "tracing: {endpoint: 'https://c.example/v1/traces', headers: {Authorization: PLANTED}}"),
    "ParticipantOptions.hsm.pin": ("entry", "hsm: {module: m.so, token: t, key: k, pin: PLANTED}"),
    "ParticipantOptions.password": ("entry", "password: PLANTED"),
    "ParticipantOptions.signing_password": ("entry", "signing_password: PLANTED"),
    "mqtt.password": ("site", "protocol: mqtt, host: h, user: u, password: PLANTED"),
    "opcua.security.password": ("site", "protocol: opcua, url: 'opc.tcp://h:4840', security: {policy: Basic256Sha256, user: u, password: PLANTED}"),
}  # fmt: skip


@pytest.mark.parametrize(
    "form",
    ["PLANTED", "[PLANTED]", "{text: PLANTED}", "{env: NOT_SET, default: PLANTED}", "{file: gone, more: PLANTED}"],
)
@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_literal_secret_is_named_by_its_place_and_never_repeated(tmp_path, place, form):
    """Whatever stands where a reference should, the error tells the place alone."""
    where, text = LITERALS[place]
    text = text.replace("PLANTED", form.replace("PLANTED", PLANTED))
    (tmp_path / "sites").mkdir()
    entry = f"participants:\n  acme:\n    sender: A\n    {text if where == 'entry' else 'username: u'}\n"
    (tmp_path / "bridge.yaml").write_text((f"{text}\n" if where == "bridge" else "journal: {path: j/j.db}\n") + entry)
    adapter = f"{{{text}}}" if where == "site" else "{protocol: modbus, host: h}"
    (tmp_path / "sites/north.yaml").write_text(
        f"site: north\nparticipant: acme\nadapters: {{ems: {adapter}}}\nflows: {{}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, registry.find, environ={})
    told = (
        f"{caught.value} {caught.value!r} {caught.value.problems!r} {''.join(traceback.format_exception(caught.value))}"
    )
    assert PLANTED not in told
    assert place.rsplit(".", 1)[1] in told


@pytest.mark.parametrize(
    "content",
    [
        '{"kty": "EC", "crv": "P-256", "d": "PLANTED"}',
        "-----BEGIN PRIVATE KEY-----\nPLANTED\n-----END PRIVATE KEY-----\n",
        "PLANTED",
    ],
)
def test_a_key_file_that_cannot_be_read_is_not_quoted(tmp_path, content):
    """Only its name."""
    file = tmp_path / "key"
    file.write_text(content.replace("PLANTED", PLANTED))
    with pytest.raises(ConfigError) as caught:
        load_signer(file, password=Secret(PASSPHRASE))
    told = "".join(traceback.format_exception(caught.value))
    assert str(file) in told
    assert PLANTED not in told
    assert PASSPHRASE not in told


# -------------------------------------------------------------------------------------------------------- a whole life


def pem_lines(file):
    return [line for line in file.read_text().splitlines() if line and not line.startswith("-")]


@pytest.fixture
def heard():
    with hearing() as handler:
        yield handler


@pytest.mark.timeout(180)
async def test_nothing_of_a_whole_life_holds_a_secret(tmp_path, heard, monkeypatch):
    """A start, a submission with its return, people with good and bad tokens, a refused login, a crash: everything that came out is searched."""
    out, planted = {}, {"the password of SMP": "s3cret-of-the-test", "the passphrase": PASSPHRASE}
    planted |= {"the host key's passphrase": HOST_PASSPHRASE, "the notary's token": NOTARY}
    nobody = {"post": {"url": "https://127.0.0.1:9/anchors", "token": {"file": "../keys/notary"}}, "alarm_after": "1s"}
    options = {
        "host": {
            "host_key": "../keys/host.pem", "host_key_password": {"file": "../keys/host-passphrase"},
            "journal": {"path": "../var/journal.db", "anchors": {"nobody": nobody}},
        }, "passphrase": PASSPHRASE,
        "entry": {"signing_password": {"file": "../keys/passphrase"}},
    }  # fmt: skip
    async with prepared(tmp_path, **options) as made:
        keys = tmp_path / "keys"
        write_private(keys / "host.pem", new_key(Algorithm.ES256), password=Secret(HOST_PASSPHRASE))
        for name, text in (("passphrase", PASSPHRASE), ("host-passphrase", HOST_PASSPHRASE), ("notary", NOTARY)):
            write_private_file(keys / name, text)
        for name in ("host.pem", "acme.pem", "returns.key.pem"):
            planted |= {f"line {number} of {name}": line for number, line in enumerate(pem_lines(keys / name))}
        config = made.config()
        planted_there("alone", config, planted)
        out["repr of the configuration"] = f"{config!r} {config} {config.host!r} {config.participants!r}"
        await made.start()
        good, text = await token(made, Role.OPERATOR, "acme-test")
        lost, revoked = await token(made, Role.AUDITOR, "acme-test")
        await note(made, good, lost)
        planted |= {"an admin token": text, "a revoked token": revoked, "its signature": text.rsplit(".", 1)[1]}
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {3: 1})
        planted |= {f"token {number} of SMP": found for number, found in enumerate(made.sandbox.accounts._tokens)}
        assert any(name.startswith("token 0") for name in planted)
        out |= await asked(made, text, revoked)

        made.sandbox.accounts.expire()
        made.sandbox.accounts._by_user.clear()  # the account is gone: logging in is refused from now on
        ems.request("assets", *fill(ems, 1, first=2))
        async with asyncio.timeout(20):
            while not any("wrong user" in row.problem for row in made.ledger.requests):
                await asyncio.sleep(0.03)
        await made.stop()
        file = tmp_path / "out.zip"
        await _export(
            config,
            Scope(participant="acme-test", from_ns=0, to_ns=SystemClock.here().wall_ns()),
            host_signer(config),
            file,
        )
        out["the export"] = unpacked(file)
        out["the journal"] = "".join(
            path.read_bytes().decode("latin-1") for path in tmp_path.glob("var*/**/*") if path.is_file()
        )
        out["a crash"] = await crashed(made, monkeypatch)
    out["the log"] = heard.text
    assert '"event": "ready"' in out["the log"]
    assert leaked(planted, out) == []


async def crashed(made, monkeypatch):
    """The service dies of a defect of ours in the middle of a login; what is printed of that."""

    async def boom(self, path, **more):
        raise RuntimeError(f"a defect at {path}")

    monkeypatch.setattr(SmpClient, "post", boom)
    made.mortal = True
    await made.start()
    error = await made.crashed()
    logging.getLogger("bridge").error("crashed", exc_info=error)
    return "".join(traceback.format_exception(error)) + repr(error)


def test_a_secret_shows_nowhere_by_itself():
    """Printed, formatted, dumped or pickled."""
    import pickle

    secret = Secret(PLANTED)
    view = TokenView(id="t", holder="Ann", role="viewer", participants=(), issued_by="root", issued_ns=1, expires_ns=2)
    made = make_token(_signer(), view)
    for one in (secret, made):
        assert {str(one), repr(one), f"{one}", f"{one!s:>4}"[:8], str([one])[1:-1], "%s" % one} == {"[secret]"}  # noqa: UP031
        with pytest.raises(TypeError):
            pickle.dumps(one)
        with pytest.raises(TypeError):
            json.dumps(one)


def _signer():
    from bridge.keys import KeySigner

    return KeySigner("host-1", Algorithm.ES256, new_key(Algorithm.ES256))
