"""Planted people: their MPANs, names, numbers, addresses and places go through the whole service, and come out where they belong and nowhere else."""

import json
from contextlib import AsyncExitStack

import pytest
from leaks import hearing, shown
from otlp_collector import collector
from people import note, token
from service import ASSETS, fill, linked, made_alarm, prepared, until_words

from bridge.envelope import Algorithm
from bridge.journal.terms import Terms
from bridge.keys import new_key, write_private
from bridge.market.client import SmpClient
from bridge.sandbox.knobs import Fault, Refusal
from bridge.web.roles import Role

# Of four people: one is registered, one SMP refuses and quotes, of one the record is wrong in every field, of one the call is refused whole.
MPANS = ["1023456789017", "1012345678903", "1012345678904", "1098765432106"]
NAMES = ["Zoe Planted", "Yves Planted", "Xena Planted", "Will Planted"]
PLANTED = {
    "mpans": MPANS,
    "contacts": [
        *NAMES,
        *("01632 960001", "01632 960002", "01632 960003x", "01632 960004"),
        *("zoe@home.example", "yves@home.example", "xena at home.example", "will at home.example"),
        *("7 Planted Lane", "8 Planted Lane", "9 Planted Lane", "10 Planted Lane"),
        *("IP9 1ZZ", "IP9 2ZZ", "IP9 33Z", "IP9 4ZZ", "52.0567891", "52.0567892"),
    ],
}
SHOWN = ("/metrics", "/health/ready", "/api/v1/alarms", "/api/v1/submissions", "/api/v1/latency", "/")
FIELDS = ("reference", "name", "kw", "mpan", "postcode", "latitude", "who", "phone", "email", "tech")
PAYLOAD = ASSETS["payload"] | {
    "assetName": "name",
    "importMpan": "mpan",
    "postcode": "postcode",
    "latitude": "latitude",
    "longitude": {"const": 1.15},
    "controlContact.name": "who",
    "controlContact.phone": "phone",
    "controlContact.email": "email",
    "technologyType": {"from": "tech", "map": {"sun": "SOLAR"}},
}
FLOWS = {
    "assets": ASSETS | {"payload": PAYLOAD, "records": {"key": "reference", "fields": {name: name for name in FIELDS}}}
}


def person(number, **changes):
    """One person's record."""
    contacts = PLANTED["contacts"]
    return {
        "mpan": MPANS[number], "who": contacts[number], "phone": contacts[4 + number], "email": contacts[8 + number],
        "name": contacts[12 + number], "postcode": contacts[16 + number], "latitude": 52.0567891, "tech": "sun", **changes,
    }  # fmt: skip


@pytest.fixture
def heard():
    with hearing() as handler:
        yield handler


@pytest.mark.timeout(180)
async def test_nobody_is_named_in_logs_metrics_urls_alarms_or_sealed_events(tmp_path, heard, monkeypatch):
    """Registered, refused by SMP in words that quote them, refused by us field by field, refused whole: only bytes that can be erased hold them."""
    terms, out, urls = Terms(**PLANTED), {}, []
    post = SmpClient.post

    async def posted(client, path, **more):
        urls.append(path)
        return await post(client, path, **more)

    monkeypatch.setattr(SmpClient, "post", posted)
    async with AsyncExitStack() as stack:
        traces = await stack.enter_async_context(collector())
        host = {"host_key": "../keys/host.pem", "tracing": {"endpoint": traces.url}}
        made = await stack.enter_async_context(prepared(tmp_path, flows=FLOWS, host=host))
        write_private(tmp_path / "keys/host.pem", new_key(Algorithm.ES256))
        await made.start()
        view, good = await token(made, Role.VIEWER, "acme-test")
        await note(made, view)
        ems = await linked(made)
        quoted = f"no meter {MPANS[1]} at {PLANTED['contacts'][13]}, ask {NAMES[1]}"
        made.knobs.refuse["BESS00002"] = Refusal(message=quoted, field="importMpan")
        fill(ems, 1, **person(0))
        fill(ems, 1, first=2, **person(1))
        ems.request("assets", "B1")
        ems.request("assets", "B2")
        await until_words(ems, ["B1", "B2"], {3: 1, 4: 1})
        fill(ems, 1, first=3, **person(2))
        for number, wrong in enumerate(
            ({"kw": NAMES[2]}, {"tech": NAMES[2]}, {"latitude": MPANS[2]}, {"name": f"=1+{NAMES[2]}"}), 4
        ):
            fill(ems, 1, first=number, **person(2, mpan=MPANS[1], **wrong))
        ems.request("assets", *(f"B{number}" for number in range(3, 8)), problem="")
        ems.request("assets", "B7", sequence="2", problem=f"its payload ends within {NAMES[2]}")
        await until_words(ems, [f"B{number}" for number in range(3, 8)], {7: 5})
        fill(ems, 1, first=9, **person(3))
        body = json.dumps({"errors": [{"code": "X", "message": f"{MPANS[3]} {NAMES[3]}"}], "title": NAMES[3]})
        made.knobs.faults = [Fault(operation="asset.create", status=400, body=body)]
        ems.request("assets", "B9")
        await until_words(ems, ["B9"], {4: 1})
        made.knobs.faults = [Fault(operation="asset.create", status=403, body=body)]
        fill(ems, 1, first=10, **person(3))
        ems.request("assets", "B10")
        await made_alarm(made, "CIRCUIT_OPEN")
        drifted = person(0, mpan=MPANS[1], who=NAMES[3])
        fill(ems, 1, **drifted)
        ems.request("assets", "B1", sequence="2")
        await made_alarm(made, "DRIFT")
        out |= await shown(made, good, SHOWN)
        out["URLs at SMP"] = "\n".join(urls)
        alarms = await made.read(lambda journal: journal.alarms(open_only=False))
        out["alarms"] = "\n".join(f"{one.subject} {one.text} {one.note}" for one in alarms)
        rows = await made.read(
            lambda journal: journal.snapshot(lambda rows: rows.all("SELECT kind, subject, data FROM events"))
        )
        out |= {f"event {kind} {number}": f"{subject} {data}" for number, (kind, subject, data) in enumerate(rows)}
        blobs = await made.read(lambda journal: journal.snapshot(lambda rows: rows.all("SELECT bytes FROM blobs")))
        await made.stop()
        out["traces"] = b"".join(traces.bodies).decode("latin-1")
    out["the log"] = heard.text
    assert '"event": "records_refused"' in out["the log"]
    assert '"event": "records_unusual"' in out["the log"]
    found = {where: text for where, text in out.items() if terms.within_text(text)}
    assert found == {}
    assert all(out.values())
    assert sum(terms.within(data) for (data,) in blobs) >= 8  # they were there
