"""What an export of one submission says beside the bytes: who was at the other end, the clock at the signature, the checks passed, which reading became what, who agreed."""

import hashlib
import json
import ssl
import zipfile

from service import fill, linked, prepared, until_words

from bridge.cli.evidence import _export
from bridge.discipline import Discipline
from bridge.envelope import Algorithm
from bridge.journal.export_plan import Scope
from bridge.keys import new_key, write_private
from bridge.material import host_signer


class Source:
    """A clock that is a little behind, and says so."""

    name = "kernel"

    async def read(self):
        return Discipline(source="kernel", synchronised=True, offset_s=0.0125, max_error_s=0.5)


async def test_an_export_tells_what_was_around_the_bytes(tmp_path):
    """Certificate of SMP, clock, checks of the return, and the parts of the readings."""
    async with prepared(tmp_path, host={"host_key": "../keys/host.pem"}) as made:
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
        *("alg", "embedded", "crit", "b64", "kid", "alg_of_key", "use", "length", "signature", "barred"),
        *("recipient", "sender", "environment", "timestamp", "future", "age"),
    ]
    assert "peer" not in events["return"]  # nobody asked SMP for a certificate here
