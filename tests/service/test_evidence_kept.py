"""What an export of one submission says beside the bytes: who was at the other end, the clock at the signature, the checks passed, which reading became what, who agreed."""

import asyncio
import hashlib
import json
import ssl
import zipfile

import pytest
from service import RETURNS_ALONE, fill, linked, prepared, service, until_words
from typer.testing import CliRunner

from bridge.cli.evidence import _export
from bridge.cli.evidence import app as evidence_app
from bridge.discipline import Discipline
from bridge.envelope import Algorithm
from bridge.journal.examine import examine
from bridge.journal.export_plan import Scope
from bridge.journal.sqlite import open_reader
from bridge.keys import load_signer, new_key, public_from_jwk, write_private
from bridge.material import host_signer
from bridge.profile import parse_profile


async def looked(made, work):
    """The result of `work` on the journal, beside the host or without it."""
    reader = await open_reader(made.journal_path)
    try:
        return await reader._reader.run(work)
    finally:
        await reader.close()


class Source:
    """A clock that is a little behind, and says so."""

    name = "kernel"

    async def read(self):
        return Discipline(source="kernel", synchronised=True, offset_s=0.0125, max_error_s=0.5)


async def test_an_export_tells_what_was_around_the_bytes(tmp_path):
    """Certificate of SMP, clock, checks of the return, and the parts of the readings."""
    async with prepared(tmp_path, host={"host_key": "../keys/host.pem"}, changes=RETURNS_ALONE) as made:
        write_private(tmp_path / "keys/host.pem", new_key(Algorithm.ES256))
        made.discipline = Source()
        await made.start()
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        (view,) = await made.read(lambda journal: journal.submissions())
        items = await made.read(lambda journal: journal.submission_items(view.id))
        await made.stop()
        file = tmp_path / "out.zip"
        await _export(
            made.config(), Scope(participant="acme-test", submission=view.id), host_signer(made.config()), file
        )
        shown = ssl.PEM_cert_to_DER_cert(made.sandbox.ca_pem.decode())
    with zipfile.ZipFile(file) as archive:
        lines = [json.loads(line) for line in archive.read("evidence.jsonl").splitlines()]
    events = {line["event"][5]: json.loads(line["event"][7]) for line in lines if "event" in line}
    sending = events["SENDING"]
    assert sending["clock"] == {"source": "kernel", "offset_s": 0.0125, "max_error_s": 0.5, "synchronised": True}
    # In SENDING when the call left with its intake, in WAITING when its turn came later.
    assert [found["parts"] for found in events.values() if "parts" in found] == [[[items[0].id, 0, 3]]]
    peer = events["AWAITING_RETURN"]["peer"]
    assert len(peer["sha256"]) == 64
    assert peer["sha256"] != hashlib.sha256(shown).hexdigest()  # the server's own, not its authority's
    assert peer["subject"].startswith("CN=")
    checks = events["return"]["checks"].split()
    assert checks == [
        *("coding", "type", "charset", "size", "form"),
        *("alg", "embedded", "crit", "b64", "kid", "alg_of_key", "use", "length", "signature", "barred"),
        *("json", "message_id", "recipient", "sender", "environment", "timestamp", "future", "age", "replay"),
    ]
    assert "peer" not in events["return"]  # nobody asked SMP for a certificate here


async def test_the_facts_are_those_of_the_files_on_disk(tmp_path):
    """Each digest, public key, certificate and bound in the facts of a running host, against the files that it was given."""
    async with service(tmp_path) as made:
        (facts,) = [json.loads(row[0]) for row in await looked(made, facts_events)]
        config, keys = tmp_path / "config", tmp_path / "keys"
        assert facts["host"] == {"sha256": sha256_of(config / "bridge.yaml")}
        assert facts["mapping"] == {
            "north": {"sha256": sha256_of(config / "sites/north.yaml"), "flows": ["assets", "unit"]}
        }
        assert facts["profile"]["hash"] == parse_profile(json.loads((config / "profile.yaml").read_text())).hash
        own = load_signer(keys / "acme.pem").public_jwk()
        (ours,) = facts["keys"]["ours"]
        assert {name: ours[name] for name in ("kty", "crv", "x", "y")} == {
            name: own[name] for name in ("kty", "crv", "x", "y")
        }
        theirs = json.loads((keys / "smp.jwks.json").read_text())["keys"]
        assert sorted(key["kid"] for key in facts["keys"]["theirs"]) == sorted(key["kid"] for key in theirs)
        assert {(key["kid"], key["x"]) for key in facts["keys"]["theirs"]} == {(key["kid"], key["x"]) for key in theirs}
        certificates = facts["certificates"]
        assert certificates["ca"] == pems(keys / "smp-ca.pem")
        assert certificates["returns"] == pems(keys / "returns.crt.pem")
        assert certificates["ca"] != certificates["returns"]
        assert [certificates[name] for name in ("client", "signing", "smp", "returns_client_ca")] == [[]] * 4
        assert facts["tls_minimum"] == made.sandbox_profile.spec.transport.tls_minimum
        text = json.dumps(facts)
        assert "PRIVATE" not in text
        assert "s3cret-of-the-test" not in text


def facts_events(rows):
    return rows.all("SELECT b.bytes FROM events e JOIN blobs b ON b.digest = e.digest WHERE e.kind = 'facts'")


def sha256_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def pems(file):
    found = []
    for part in file.read_text().split("-----BEGIN CERTIFICATE-----")[1:]:
        inner = part.split("-----END CERTIFICATE-----")[0]
        found.append(f"-----BEGIN CERTIFICATE-----{inner}-----END CERTIFICATE-----")
    assert found
    return found


@pytest.mark.parametrize("killed", [False, True], ids=["beside", "after a kill"])
async def test_an_export_has_what_no_head_stood_for_yet(tmp_path, monkeypatch, killed):
    """By the command, beside the service or after it was lost: a head is signed first that covers the newest events, and the file is whole."""
    quickly = {"host_key": "../keys/host.pem", "journal": {"path": "../var/journal.db", "seal_every": "100ms"}}
    async with prepared(tmp_path, host=quickly, changes=RETURNS_ALONE) as made:
        write_private(tmp_path / "keys/host.pem", new_key(Algorithm.ES256))
        await made.start()
        ems = await linked(made)
        places = fill(ems, 3)
        ems.request("assets", *places[:2])
        await until_words(ems, places[:2], {3: 2})
        await made.stop()  # signs a head, older than what comes now
        before = (await looked(made, newest_head))[0][0]
        await made.start()
        ems = await linked(made)
        ems.request("assets", places[2])
        await until_words(ems, places[2:], {3: 1})
        if killed:
            await made.kill()
        assert (await looked(made, newest_head))[0][0] == before
        (newest, _) = await made.read(lambda journal: journal.submissions())
        out = tmp_path / "out.zip"
        monkeypatch.setattr(
            "bridge.cli.evidence.loaded", lambda directory: made.config()
        )  # whose EMS is of this process
        options = ["--participant", "acme-test", "--from", "2020-01-01", "--to", "2100-01-01", "--config", str(tmp_path / "config"), str(out)]  # fmt: skip
        ran = await asyncio.to_thread(CliRunner().invoke, evidence_app, ["export", *options])
        assert ran.exit_code == 0, (ran.output, ran.exception)
        signer = host_signer(made.config())
        report = examine(out, {signer.kid: public_from_jwk(out, signer.public_jwk())})
        assert (report.place, report.wrong) == ("", "")
        assert report.manifest["head"][0] > before
        with zipfile.ZipFile(out) as archive:
            lines = [json.loads(line) for line in archive.read("evidence.jsonl").splitlines()]
        assert "return" in {line["event"][5] for line in lines if "event" in line}
        assert newest.id in {line["event"][6] for line in lines if "event" in line}
        await made.stop()


def newest_head(rows):
    return rows.all("SELECT coalesce(max(number), 0) FROM signed_heads")
