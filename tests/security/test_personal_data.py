"""Planted people: their MPANs, names, numbers, addresses and places go through the whole service, and come out where they belong and nowhere else."""

import asyncio
import json
import re
import struct
from contextlib import AsyncExitStack

import modbus_records
import pytest
from leaks import hearing, shown
from modbus_device import malformed_device, modbus_device
from mosquitto import Peer, mosquitto
from mqtt_site import ASSET as REGISTRATION
from mqtt_site import CRAWLEY, REQUEST, RESULT, read_site, request
from otlp_collector import collector
from people import note, token
from quick_yaml import write_yaml
from service import ASSETS, fill, linked, made_alarm, prepared, until_words
from three_sites import BASE, CONFIG, STRIDE, modbus_command

from bridge.envelope import Algorithm
from bridge.journal.terms import Terms
from bridge.keys import new_key, write_private
from bridge.market.client import SmpClient
from bridge.sandbox.knobs import Fault, Refusal
from bridge.web.roles import Role

# Of four people: one is registered, one SMP refuses and quotes, of one the record is wrong in every field, of one the call is refused whole.
RUGBY = CONFIG / "sites/rugby.yaml"
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
    post, begin = SmpClient.post, SmpClient.begin

    async def posted(client, path, **more):
        urls.append(path)
        return await post(client, path, **more)

    def begun(client, path, **more):
        urls.append(path)
        return begin(client, path, **more)

    monkeypatch.setattr(SmpClient, "post", posted)
    monkeypatch.setattr(SmpClient, "begin", begun)
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
        out["URLs at SMP"] = "\n".join(urls)
        blobs = await gathered(made, good, out)
        await made.stop()
        out["traces"] = b"".join(traces.bodies).decode("latin-1")
    out["the log"] = heard.text
    assert '"event": "records_refused"' in out["the log"]
    assert '"event": "records_unusual"' in out["the log"]
    nobody_is_named(out, terms)
    assert sum(terms.within(data) for data in blobs) >= 8  # they were there


async def gathered(made, good, out):
    """Put what the host shows, raised and sealed into `out`; the bytes that it keeps, which may hold anybody."""
    out |= await shown(made, good, SHOWN)
    alarms = await made.read(lambda journal: journal.alarms(open_only=False))
    out["alarms"] = "\n".join(f"{one.subject} {one.text} {one.note}" for one in alarms)

    async def rows(query):
        return await made.read(lambda journal: journal.snapshot(lambda rows: rows.all(query)))

    events = await rows("SELECT kind, subject, data FROM events")
    out |= {f"event {kind} {number}": f"{subject} {data}" for number, (kind, subject, data) in enumerate(events)}
    return [data for (data,) in await rows("SELECT bytes FROM blobs")]


def nobody_is_named(out, terms):
    """Nobody is, in any of these texts; and each of them has something in it."""
    assert {where: text for where, text in out.items() if terms.within_text(text)} == {}
    assert all(out.values())


# ------------------------------------------------------------------------------------------------------ MQTT and Modbus


def body(number, **changes):
    """One person's registration as the EMS behind the broker publishes it."""
    who = person(number)
    fields = {name: who[name] for name in ("name", "mpan", "postcode", "who", "phone", "email")}
    return {**fields, "gspGroup": "_J", "kw": "49,5", **changes}


def registers(reference, number, **changes):
    """One person's record as layout 2 has it."""
    who = person(number)
    return modbus_records.record(reference, **{name: who[name] for name in ("name", "mpan", "postcode")} | changes)


BROKEN = {
    "EV3": body(2), "EV4": body(1, kw=NAMES[2]), "EV5": json.dumps(body(2))[:-9], "EV6": b"\xff" + json.dumps(body(2)).encode(),
    "EV7": [NAMES[2], MPANS[2]],
}  # fmt: skip
NO_REQUESTS = (f"please, {NAMES[0]}", {"action": "create", "of": NAMES[0]}, {"reqId": {"of": MPANS[0]}, "action": "create"}, {"reqId": "r-8", "action": NAMES[0]})  # fmt: skip


def write_sites(sites, broker, device, garbling):
    """The shipped sites of Crawley and Rugby, each with its flow of assets, on these servers; and one more like Rugby, whose device garbles its answers."""
    crawley = read_site(CRAWLEY)
    crawley["adapters"]["broker"] |= {"host": broker.host, "port": broker.port, "tls": None, "user": None, "password": None}  # fmt: skip
    crawley["adapters"]["broker"] = {k: v for k, v in crawley["adapters"]["broker"].items() if v is not None}
    chargers = crawley["flows"]["chargers"]
    chargers["wait_for_registration"] = "200ms"
    contact = {"name": "who", "phone": "phone", "email": "email"}
    chargers["records"]["fields"] |= {name: name for name in contact.values()}
    chargers["payload"] |= {f"controlContact.{end}": name for end, name in contact.items()}
    rugby = read_site(RUGBY)
    del rugby["adapters"]["ems"]["heartbeat"], crawley["flows"]["unit"], rugby["flows"]["unit"]
    for name, port in (("rugby", device.port), ("barrow", garbling)):
        there = rugby["adapters"]["ems"] | {"host": "127.0.0.1", "port": port}
        write_yaml(sites / f"{name}.yaml", {**rugby, "site": name, "adapters": {"ems": there}})
    write_yaml(sites / "crawley.yaml", crawley)


def garbled(frame):
    """An answer that no library can read, with somebody in it."""
    text = f"{NAMES[3]} {MPANS[3]}".encode()
    return frame[:4] + struct.pack(">HBBB", len(text) + 3, frame[6], frame[7], len(text) - 7) + text


def spelled_out(text):
    """The frames that a library wrote into this text byte by byte (0x57 0x69 …), as text."""
    runs = re.findall(r"(?:\b0x[0-9a-f]{1,2}\b[ ,]*){6,}", text)
    return "\n".join(
        bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]+)", run)).decode("latin-1") for run in runs
    )


async def until_heard(heard, count, *parts):
    """Wait until so many lines of the log have all of these."""
    async with asyncio.timeout(30):
        while sum(all(part in line for part in parts) for line in heard.lines) < count:  # noqa: ASYNC110 - a log has no events
            await asyncio.sleep(0.03)


@pytest.mark.timeout(180)
async def test_nor_is_anybody_by_what_speaks_to_mqtt_and_modbus(tmp_path, heard):
    """The same of what the adapters say: people registered and refused, records and requests that cannot be read, answers that are garbled, links that break with people in them."""
    terms, out = Terms(**PLANTED), {}
    async with AsyncExitStack() as stack:
        traces = await stack.enter_async_context(collector())
        broker = await stack.enter_async_context(mosquitto(tmp_path / "broker"))
        device = await stack.enter_async_context(modbus_device())
        garbling = await stack.enter_async_context(malformed_device(garbled))
        host = {"host_key": "../keys/host.pem", "tracing": {"endpoint": traces.url}}
        made = await stack.enter_async_context(prepared(tmp_path, host=host))
        write_private(tmp_path / "keys/host.pem", new_key(Algorithm.ES256))
        write_sites(tmp_path / "config/sites", broker, device, garbling)
        for name in ("EV2", "RK2"):
            quoted = f"no meter {MPANS[1]} at {PLANTED['contacts'][13]}, ask {NAMES[1]}"
            made.knobs.refuse[name] = Refusal(message=quoted, field="importMpan")
        await device.put(0, *modbus_records.HEADER)
        unreadable = bytearray(registers("RK5", 2))
        unreadable[0] = 0xFF
        shut = registers("RK4", 0, mpan=MPANS[1])
        for number, record in enumerate([registers("RK1", 0), registers("RK2", 1), registers("RK3", 2), shut[:78] + b"\0\7" + shut[80:], bytes(unreadable), registers("RK6", 1, mpan=NAMES[2])]):  # fmt: skip
            await device.put_bytes(BASE + STRIDE * number, record)
        ems = await stack.enter_async_context(Peer(broker))
        await ems.subscribe(RESULT.format("+"))
        told = {"EV1": body(0), "EV2": body(1), **BROKEN}
        for name, registration in told.items():
            await ems.publish(REGISTRATION.format(name), registration, retain=True)
        await made.start()
        view, good = await token(made, Role.VIEWER, "acme-test")
        await note(made, view)
        for site in ("crawley", "rugby"):
            await until_heard(heard, 1, "link_open", f'"{site}"')
        for name in told:
            await ems.publish(REQUEST.format(name), request(f"r-{name}"))
        for message in NO_REQUESTS:
            await ems.publish(REQUEST.format("EV1"), message)
        await modbus_command(device, 1)

        async def words():
            results = [(ems.on(RESULT.format(name)) or [{"state": ""}])[-1]["state"] for name in told]
            return results, [(await device.words(BASE + STRIDE * number + 60))[0] for number in range(6)]

        wanted = (["registered", "refused", *["refused_by_host"] * len(BROKEN)], [3, 4, 7, 7, 7, 7])
        found = None
        try:
            async with asyncio.timeout(30):
                while (found := await words()) != wanted:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{found}, expected {wanted}") from None
        await broker.stop()
        await device.order("away")
        for site in ("crawley", "rugby", "barrow"):
            await until_heard(heard, 1, "link_lost", f'"{site}"')
        await broker.start()
        await device.listen()
        for site in ("crawley", "rugby"):
            await until_heard(heard, 2, "link_open", f'"{site}"')
        await ems.reconnected()
        await ems.publish(REGISTRATION.format("EV1"), body(1, who=NAMES[3]), retain=True)
        await ems.publish(REQUEST.format("EV1"), request("r-again"))
        await device.put_bytes(BASE, registers("RK1", 3))
        await modbus_command(device, 1)
        await made_alarm(made, "DRIFT")
        blobs = await gathered(made, good, out)
        await made.stop()
        out["traces"] = b"".join(traces.bodies).decode("latin-1")
    out["the log"] = heard.text + spelled_out(heard.text)
    for said in ("mqtt_message_put_aside", "modbus_unit", "records_refused"):
        assert f'"event": "{said}"' in out["the log"], said
    nobody_is_named(out, terms)
    assert sum(terms.within(data) for data in blobs) >= 8  # they were there
