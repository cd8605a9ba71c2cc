"""DOMAIN 9, rows 32 to 40: what a hostile text, disk, clock, flood or SMP may do, and what it must not."""

import asyncio
import csv
import dataclasses
import json
import logging
import re
import ssl
from ipaddress import ip_network
from pathlib import Path

import apsw
import pytest
import smp_server
from end_point import ACME, FORMS, listening, signer
from failing_vfs import FULL, SYNC, WRITE, FailingVfs
from outbound_rig import LOGIN, PASSWORD, TAKEN, logins, market
from prometheus_client import generate_latest

from adapters.modbus.access import held_as
from adapters.modbus.codec import PADS, Kind, Shape, encode
from bridge.api import OutcomeField
from bridge.cli.assets import OPTIONAL, REQUIRED, _exported
from bridge.cli.logs import JsonFormatter
from bridge.cli.submissions import _item_line, _whole
from bridge.cli.tables import read_table, write_table
from bridge.envelope import PublicKey
from bridge.errors import JournalUnusable
from bridge.journal.brownfield import AssetView
from bridge.journal.sqlite import open_reader
from bridge.market.echoes import Echoes
from bridge.market.flood import BURST, MOST_SOURCES, PER_S, Flood, Flooded
from bridge.metrics import Metrics
from bridge.model import ItemState
from bridge.model import Kind as AssetKind
from bridge.profile import ReturnResult
from bridge.reports import MarketReport
from bridge.sandbox.pki import Authority
from bridge.wire import ItemError

NS = 1_000_000_000
ALARMS = "SELECT code FROM alarms WHERE cleared_ns = 0 ORDER BY code"


# row 32 ------------------------------------------------------------------------------------------------------------------

HOSTILE = {
    "markup": "<script>alert(1)</script>",
    "ANSI escapes": "\x1b[2J\x1b]0;owned\x07",
    "a formula": "=cmd|'/c calc'!A0",
    "a line end": "fine\n2026-11-28 level=error event=forged",
    "1 MB": "x" * 1_000_000,
    "right-to-left marks": "abc\u202egpj.exe\u2066",
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_row_32_error_texts(tmp_path, what):
    """Row 32: "error text with markup, ANSI escapes, ..., newline, 1 MB, right-to-left marks": "stored raw, shown escaped, log on one line"."""
    text = HOSTILE[what]
    async with listening(tmp_path) as smp:
        ours = await smp.submission("BESS001")
        refused = ItemError(code="E1", message=text, reference="BESS001")
        draft, envelope = await smp.accepted(result=ReturnResult.ERRORS, errors=(refused,))
        assert await smp.state(ours) == "FAILED"
        reader = await open_reader(tmp_path / "journal.db")
        try:
            [item] = await reader.submission_items(ours)
        finally:
            await reader.close()
        assert item.errors[0].text
        assert text.startswith(item.errors[0].text)
        line = _item_line(item)
        assert line.isprintable()
        assert len(line) < 1000
        record = logging.LogRecord("bridge", logging.INFO, "", 0, "seen", None, None)
        record.text = text
        assert JsonFormatter().format(record).isprintable()
        assert (await smp.post(envelope))[0] == 200


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("registers", [1, 20])
def test_row_32_what_the_ems_is_told(what, registers):
    """Row 32: "EMS string cut safely": as many bytes as the place has, and nothing in them but printable ASCII; the registers hold them as they are."""
    shape = Shape(kind=Kind.STRING, registers=registers)
    text = held_as(OutcomeField.ERROR_TEXT, HOSTILE[what], shape)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) == min(len(HOSTILE[what]), 2 * registers)
    assert all(letter in {said, "?"} for letter, said in zip(text, HOSTILE[what], strict=False))
    assert encode(shape, text).decode().rstrip(PADS) == text.rstrip(PADS)


CELLS = [
    "=cmd|'/c calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\uff1d1",
    "'=1",
    "''=1",
    "plain",
    "a=b",
    "it's",
    "'quoted'",
    "x\n=1",
]


def test_row_32_csv(tmp_path):
    """Row 32: "CSV guarded": no cell that a spreadsheet would work out; read again, each is what it was."""
    known = AssetView(
        participant=ACME, kind=AssetKind.ASSET, key="", state=ItemState.REGISTERED, asset_id="", source="", site="", flow="", transaction_id="", submission="",
    )  # fmt: skip
    views = [dataclasses.replace(known, key=cell, asset_id=cell, source=cell, transaction_id=cell) for cell in CELLS]
    file = tmp_path / "assets.csv"
    assert write_table(file, (*REQUIRED, *OPTIONAL), _exported(views)) == len(CELLS)
    with file.open(newline="") as opened:
        cells = [cell for row in csv.reader(opened) for cell in row]
    assert [cell for cell in cells if re.match(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]", cell)] == []
    good = [cell for cell in CELLS if cell.isprintable()]
    write_table(file, (*REQUIRED, *OPTIONAL), _exported([view for view in views if view.key in good]))
    table = read_table(file, REQUIRED, OPTIONAL)
    assert table.problems == []
    assert [
        line.cells[name] for line in table.lines for name in ("reference", "asset_id", "source", "transaction_id")
    ] == [cell for cell in good for _ in range(4)]


# row 33 ------------------------------------------------------------------------------------------------------------------

LATER = {"type": "about:blank", "title": "Try again later", "status": 503}


async def test_row_33_a_full_disk(tmp_path):
    """Row 33: "disk full": "503 + Retry-After; never a 2xx without a record"; the same message is taken once there is room."""
    disk = FailingVfs()
    try:
        async with listening(tmp_path, vfs=disk.name) as smp:
            ours = await smp.submission("BESS001")
            body, tokens = smp.seal(smp.draft()).sent()
            before, told, counted = smp.stored(), smp.told(), smp.refusals()
            disk.fail("-wal", "write", FULL)
            status, headers, answer = await smp.send(body, tokens)
            after = (smp.new_refusals(counted), smp.stored(), smp.told())
            disk.heal()
            assert (status, headers.get("Retry-After")) == (503, "5")
            assert (json.loads(answer), after) == (LATER, ({"journal_full": 1}, before, told))
            async with asyncio.timeout(10):
                while (await smp.send(body, tokens))[0] == 503:
                    await asyncio.sleep(0.02)
            await smp.settled()
            assert (smp.rows("SELECT count(*) FROM returns"), await smp.state(ours)) == ([1], "CONFIRMED")
    finally:
        disk.unregister()


DISKS = {
    "read-only": ("write", apsw.SQLITE_READONLY),
    "failing writes": ("write", WRITE),
    "failing syncs": ("sync", SYNC),
}


async def refused_by_its_disk(directory, disk, seen, verb, code):
    """The same message twice to an end point whose disk fails; `seen` gets its key, the message, and what was found, for the end of such a host raises over whatever is raised here."""
    async with listening(directory, vfs=disk.name) as smp:
        message = smp.seal(smp.draft()).sent()
        before, told, counted = smp.stored(), smp.told(), smp.refusals()
        disk.fail("-wal", verb, code)
        answers = [await smp.send(*message) for _ in range(2)]
        found = [(status, headers.get("Retry-After"), answer.decode()) for status, headers, answer in answers]
        seen |= {"key": smp.key, "message": message, "answers": found, "counted": smp.new_refusals(counted)}
        seen["changed"] = (smp.stored(), smp.told()) != (before, told)
        disk.heal()


@pytest.mark.parametrize("what", DISKS)
async def test_row_33_a_disk_that_fails(tmp_path, what):
    """Row 33: "journal read-only": 503 + Retry-After and no record; whoever opens the journal next takes the same message, once."""
    disk = FailingVfs()
    try:
        with pytest.raises(JournalUnusable):  # it is never trusted again, not even for giving its leases back
            await refused_by_its_disk(tmp_path, disk, seen := {}, *DISKS[what])
        assert [(status, after) for status, after, _ in seen["answers"]] == [(503, "5")] * 2
        assert [json.loads(answer) for _, _, answer in seen["answers"]] == [LATER] * 2
        assert (seen["counted"], seen["changed"]) == ({"journal_failed": 2}, False)
        async with listening(tmp_path, key=seen["key"]) as smp:
            assert [(await smp.send(*seen["message"]))[0] for _ in range(2)] == [202, 200]
            assert smp.rows("SELECT count(*) FROM returns") == [1]
    finally:
        disk.unregister()


# row 34 ------------------------------------------------------------------------------------------------------------------


async def shaken(smp, context):
    """Shake hands and post a good message in one go; the first line of the answer, or the error."""
    body, [token] = smp.seal(smp.draft()).sent()
    try:
        reader, writer = await asyncio.open_connection("localhost", smp.port, ssl=context)
    except OSError as error:
        return error
    try:
        writer.write(smp.head(f"Content-Length: {len(body)}", "Connection: close", token=token) + body)
        async with asyncio.timeout(5):
            answer = await reader.read()
        return answer.split(b"\r\n", 1)[0].decode() or ConnectionError("closed")
    except OSError as error:
        return error
    finally:
        writer.transport.abort()


def trusting(smp, *, pair=None, directory=None):
    """A context that trusts the end point, and shows this certificate."""
    context = ssl.create_default_context(cadata=smp.ca.decode())
    if pair is not None:
        (directory / "client.pem").write_bytes(pair.certificate + pair.private_key)
        context.load_cert_chain(directory / "client.pem")
    return context


# Of SHA-1, of no encryption, of nobody's certificate, without a secret for each connection: each could be spoken with the listener's kind of key or any.
WEAK = "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-NULL-SHA:AECDH-AES128-SHA:AECDH-NULL-SHA:AES128-SHA:NULL-SHA256"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("what", ["TLS 1.0", "TLS 1.1", "weak ciphers"])
async def test_row_34_old_tls(tmp_path, what):
    """Row 34: "TLS 1.0/1.1, weak cipher": the handshake is refused; TLS 1.2 with a good cipher is taken."""
    async with listening(tmp_path) as smp:
        context = trusting(smp)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await shaken(smp, context) == "HTTP/1.1 202 Accepted"
        await smp.settled()
        before, counted = smp.stored(), smp.refusals()
        weak = trusting(smp)
        if what == "weak ciphers":
            weak.maximum_version = ssl.TLSVersion.TLSv1_2
            weak.set_ciphers(f"{WEAK}:@SECLEVEL=0")
        else:
            weak.minimum_version = weak.maximum_version = ssl.TLSVersion[
                what.replace(" ", "v").replace(".", "_").replace("v1_0", "v1")
            ]
            weak.set_ciphers("ALL:@SECLEVEL=0")
        assert isinstance(await shaken(smp, weak), OSError)
        assert (smp.new_refusals(counted), smp.stored()) == ({"handshake": 1}, before)


async def test_row_34_client_certificates(tmp_path):
    """Row 34: "no client certificate when mTLS is on, certificate of another participant": refused in the handshake, 403."""
    authority, stranger = (Authority(name, clock=smp_server.CLOCK) for name in ("clients", "strangers"))
    limits = {"client_names": frozenset({"smp.example"})}
    async with listening(tmp_path, tls={"client_ca": authority.pem}, limits=limits) as smp:
        good = trusting(smp, pair=authority.client("smp.example"), directory=tmp_path)
        assert await shaken(smp, good) == "HTTP/1.1 202 Accepted"
        await smp.settled()
        ((kept,),) = await smp.journal.snapshot(lambda rows: rows.all("SELECT data FROM events WHERE kind = 'return'"))
        assert "CN=smp.example" in json.loads(kept)["peer"]["subject"]
        before, counted = smp.stored(), smp.refusals()
        assert isinstance(await shaken(smp, trusting(smp)), OSError)
        wrong = trusting(smp, pair=stranger.client("smp.example"), directory=tmp_path)
        assert isinstance(await shaken(smp, wrong), OSError)
        other = trusting(smp, pair=authority.client("other.example"), directory=tmp_path)
        assert await shaken(smp, other) == "HTTP/1.1 403 Forbidden"
        assert smp.new_refusals(counted) == {"handshake": 2, "client_certificate": 1}
        assert smp.stored() == before


async def test_row_34_networks(tmp_path):
    """Row 34: "IP not in list": closed before the handshake; where it is in the list, taken."""
    networks = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")]
    async with listening(tmp_path, tls={"allowed": [*networks, ip_network("127.0.0.0/8")]}) as smp:
        assert await shaken(smp, trusting(smp)) == "HTTP/1.1 202 Accepted"
    (tmp_path / "other").mkdir()
    async with listening(tmp_path / "other", tls={"allowed": networks}) as smp:
        assert isinstance(await shaken(smp, trusting(smp)), OSError)
        assert smp.refusals() == {"source_not_allowed": 1}


# row 35 ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def verified(monkeypatch):
    """The kid of each costly call."""
    calls, real = [], PublicKey.verify

    def verify(key, signing_input, signature):
        calls.append(key.kid)
        return real(key, signing_input, signature)

    monkeypatch.setattr(PublicKey, "verify", verify)
    return calls


@pytest.mark.jws
async def test_row_35_verify_is_called_once(smp, verified):
    """Row 35: "bad signature v. other participant's key": "each path calls verify exactly once"; so does a good message."""
    draft, good = await smp.accepted()
    assert verified == ["smp-1"]
    await smp.unauthentic("bad_signature", good.but(tail=smp.seal(smp.draft()).tail))
    assert verified == ["smp-1"] * 2
    await smp.unauthentic("bad_signature", smp.seal(draft, signer(kid="smp-1")))
    assert verified == ["smp-1"] * 3
    assert (await smp.post(good))[0] == 200
    assert verified == ["smp-1"] * 4
    await smp.unauthentic("kid_unknown", smp.seal(draft, signer(kid="other-1")))
    assert verified == ["smp-1"] * 4


# row 36 ------------------------------------------------------------------------------------------------------------------


class HandClock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self):
        self.ns = NS

    def __call__(self):
        return self.ns


async def flooded(smp, forged, number, statuses):
    """Send so many; how often each status came."""
    body, tokens = forged.sent()
    answers = await asyncio.gather(*(smp.send(body, tokens) for _ in range(number)))
    found = [status for status, _, _ in answers]
    assert {status: found.count(status) for status in set(found)} == statuses
    return [headers for status, headers, _ in answers if status == 429]


@pytest.mark.parametrize("form", FORMS)
async def test_row_36_a_flood_of_bad_signatures(tmp_path, verified, form):
    """Row 36: "429 after a limit per source; cheap checks run before the RSA verify": counted, told once, no more verified."""
    clock = HandClock()
    async with listening(tmp_path, profile=form, limits={"flood": Flood(clock)}) as smp:
        draft, good = await smp.accepted()
        forged = smp.seal(draft, signer(kid="smp-1"))
        verified.clear()
        before, counted = smp.effects(), smp.refusals()
        refused = await flooded(smp, forged, BURST + 40, {401: BURST, 429: 40})
        assert {headers["Retry-After"] for headers in refused} == {"1"}
        assert smp.new_refusals(counted) == {"bad_signature": BURST, "flood": 40}
        assert len(verified) == BURST
        assert smp.effects() == {**before, "alarms": ["FLOOD"]}
        assert smp.rows("SELECT count FROM alarms") == [1]
        await smp.unauthentic("kid_unknown", smp.seal(draft, signer(kid="other-1")))
        await smp.refused(429, "flood", *good.sent())
        clock.ns += int(NS / PER_S)
        assert (await smp.post(good))[0] == 200
        clock.ns += 60 * NS
        await flooded(smp, forged, BURST + 1, {401: BURST, 429: 1})
        assert smp.rows("SELECT count FROM alarms") == [2]


async def test_row_36_good_messages_are_no_flood(tmp_path):
    """Row 36: a source whose signatures are good is never limited, however fast it sends."""
    async with listening(tmp_path, limits={"flood": Flood(HandClock(), burst=3)}) as smp:
        body, tokens = smp.seal(smp.draft()).sent()
        answers = await asyncio.gather(*(smp.send(body, tokens) for _ in range(40)))
        assert sorted(status for status, _, _ in answers) == [200] * 39 + [202]


def test_row_36_each_source_by_itself():
    """Row 36: "a limit per source": another source is not limited, and a million sources take no more memory than some thousand."""
    flood = Flood(HandClock(), burst=2)
    for _ in range(2):
        flood.charge("192.0.2.1")
    with pytest.raises(Flooded):
        flood.charge("192.0.2.1")
    flood.charge("192.0.2.2")
    for number in range(MOST_SOURCES + 10):
        flood.charge(f"source-{number}")
    assert len(flood._tokens) == MOST_SOURCES


# row 37 ------------------------------------------------------------------------------------------------------------------


async def test_row_37_time_jumps_back(smp):
    """Row 37: "time jumps back 10 min": "replay store still holds; no re-acceptance": the replay is a duplicate or out of the window."""
    ours = await smp.submission("BESS001")
    _, message = await smp.accepted()
    before, told = smp.effects(), smp.told()
    smp.clock.at_ns -= 600 * NS
    await smp.unauthentic("from_the_future", message)
    smp.clock.at_ns += 400 * NS
    assert (await smp.post(message))[0] == 200
    assert (smp.effects(), smp.told(), await smp.state(ours)) == (before, told, "CONFIRMED")


@pytest.mark.parametrize("mode", ["attempt", "event"])
async def test_row_37_a_clock_that_comes_back(tmp_path, mode):
    """Row 37: what was refused as too old and comes into the window again by a clock set back is still known as a replay."""
    async with listening(tmp_path, freshness={"mode": mode}) as smp:
        _, message = await smp.accepted()
        smp.clock.at_ns += 8 * 86400 * NS
        await smp.unauthentic("too_old", message)
        smp.clock.at_ns -= 8 * 86400 * NS
        assert (await smp.post(message))[0] == 200
        assert (smp.rows("SELECT count(*) FROM returns"), smp.told()[ACME]) == ([1], 1)


# row 38 ------------------------------------------------------------------------------------------------------------------


async def test_row_38_no_secret_is_told(tmp_path, caplog):
    """Row 38: "token or password echoed in logs, errors, metrics, ..., repr": absent, even where SMP itself sends them back."""
    caplog.set_level(logging.DEBUG)
    metrics = Metrics()

    async def echo(request, writer):
        told = request.headers["authorization"]
        writer.write(smp_server.answer("403 " + told, told, X_Told=told, Retry_After=told))
        await writer.drain()

    async with market(tmp_path, echo, metrics=MarketReport(metrics), login=logins("planted-token-")) as rig:
        await rig.submit("BESS001")
        async with asyncio.timeout(5):
            while not rig.pace.circuit_open or "CIRCUIT_OPEN" not in await rig.alarms():
                await asyncio.sleep(0.01)
        [request], [login] = rig.creates, rig.peer.script.on(LOGIN)
        assert request.headers["authorization"] == "Bearer planted-token-1"
        assert PASSWORD.encode() in login.body
        records = [record for record in caplog.records if not record.name.startswith("asyncio")]
        told = {
            "logs": "\n".join(JsonFormatter().format(record) for record in records),
            "metrics": generate_latest(metrics.registry).decode(),
            "errors": repr([await rig.view(), await rig.journal.alarms()]),
            "repr": repr([rig.outbound, vars(rig.outbound), vars(rig.outbound._tokens), vars(rig.maker)]),
            "evidence": repr([await rig.journal.events((await rig.view()).id)]),
        }
        assert [where for where, text in told.items() if "planted" in text] == []
    await no_secret_on_disk(tmp_path)


async def no_secret_on_disk(directory):
    """A call that is answered as usual leaves neither token nor password in the journal's files."""
    (directory / "usual").mkdir()
    async with market(directory / "usual", TAKEN, login=logins("planted-token-")) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        assert rig.creates[0].headers["authorization"] == "Bearer planted-token-1"
    files = [file for file in (directory / "usual").rglob("*") if file.is_file()]
    assert any(b"x-jws" in file.read_bytes().lower() for file in files), "the call's headers are on disk"
    assert [file.name for file in files if b"planted" in file.read_bytes()] == []


def refused_with(token, code="{token}", field="{token}"):
    """A refusal that names its item, with the token in its texts, as it is and as JSON may write it."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in token)
    named = f'"code":"{code}","message":"no: {escaped}","field":"{field}","assetReference":"BESS001"'
    return smp_server.answer("400 Bad Request", f'{{"errors":[{{{named}}}]}}'.replace("{token}", token))


ECHOES = {
    "a refusal": ("REJECTED", refused_with),
    "escapes alone": ("REJECTED", lambda token: refused_with(token, code="E1", field="name")),
    "a password": ("REJECTED", lambda token: refused_with(PASSWORD, code=token, field="name")),
    "a transaction id": (
        "IN_DOUBT",
        lambda token: smp_server.answer("202 Accepted", json.dumps({"transactionId": token})),
    ),
    "no HTTP": ("IN_DOUBT", lambda token: b"HTTP/1.1 2O0 " + token.encode() + b"\r\n\r\n"),
    "a status": ("IN_DOUBT", lambda token: smp_server.answer("503 " + token, token)),
}


@pytest.mark.parametrize("what", ECHOES)
async def test_row_38_a_token_that_smp_sends_back(tmp_path, caplog, what):
    """Row 38: in a body it is evidence, byte for byte; nobody is shown it: not the log, an alarm, the metrics, the item that the EMS, pages and API get."""
    caplog.set_level(logging.DEBUG)
    state, answer = ECHOES[what]
    metrics = Metrics()

    async def echo(request, writer):
        writer.write(answer(request.headers["authorization"].removeprefix("Bearer ")))
        await writer.drain()
        writer.close()

    async with market(tmp_path, echo, metrics=MarketReport(metrics), login=logins("planted-token-")) as rig:
        await rig.submit("BESS001")
        view = await rig.until(state)
        items, events = await rig.journal.submission_items(view.id), await rig.journal.events(view.id)
        shown = _whole(view, items, events)
        told = {
            "pages, API and command line": json.dumps(shown, default=str),
            "alarms": repr(await rig.journal.alarms()),
            "logs": "\n".join(
                JsonFormatter().format(record) for record in caplog.records if not record.name.startswith("asyncio")
            ),
            "metrics": generate_latest(metrics.registry).decode(),
            "repr": repr([vars(rig.maker), rig.maker.echoes]),
        }
        assert [where for where, text in told.items() if "planted" in text] == []
        if what == "a refusal":
            assert [(error.code, error.text, error.field) for error in items[0].errors] == [
                ("[secret]", "no: [secret]", "[secret]")
            ]
        if what == "escapes alone":
            assert [error.text for error in items[0].errors] == ["no: [secret]"]
            return
    if what != "no HTTP":
        kept = b"".join(file.read_bytes() for file in tmp_path.glob("journal.db*") if file.is_file())
        assert b"planted-token-1" in kept, "evidence is what came"


async def test_row_38_a_return_that_holds_a_password(tmp_path):
    """Row 38: a return that repeats a secret of ours is stored as it came, and what is settled by it does not hold it; its replay is still known."""
    echoes = Echoes()
    echoes.note(PASSWORD)
    async with listening(tmp_path, echoes=echoes) as smp:
        ours = await smp.submission("BESS001")
        refused = ItemError(code="E1", message=f"user acme, password {PASSWORD}", reference="BESS001")
        _, envelope = await smp.accepted(result=ReturnResult.ERRORS, errors=(refused,))
        assert await smp.state(ours) == "FAILED"
        [item] = await smp.journal.submission_items(ours)
        assert [error.text for error in item.errors] == ["user acme, password [secret]"]
        assert PASSWORD not in repr([*await smp.journal.events(ours), *await smp.journal.alarms()])
        assert (await smp.post(envelope))[0] == 200
        strange = smp.put(smp.draft(), "type", f"of {PASSWORD}")
        assert (await smp.post(strange))[0] == 202
        assert PASSWORD not in repr(await smp.journal.alarms())
        assert "[secret]" in repr(await smp.journal.alarms())


def test_row_38_core_dumps():
    """Row 38: "core dump": the units forbid them."""
    for name in ("smp-bridge.service", "smp-bridge@.service"):
        assert "LimitCORE=0" in (Path(__file__).parents[2] / "systemd" / name).read_text().splitlines()


# row 39 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_row_39_a_redirect_is_never_followed(tmp_path, status):
    """Row 39: "SMP redirects 302 to another host": "never follow, never send token; WAITING, circuit open"."""
    authority = Authority(
        "authority", clock=smp_server.CLOCK
    )  # the other host is trusted: it is not its certificate that keeps us away
    async with smp_server.smp_server(rest=smp_server.answer(), authority=authority) as other:
        step = smp_server.answer(f"{status} Moved", Location=other.url() + "/take")
        async with market(tmp_path, step, peer_options={"authority": authority}) as rig:
            await rig.submit("BESS001")
            async with asyncio.timeout(5):
                while not rig.pace.circuit_open:
                    await asyncio.sleep(0.01)
                while await rig.alarms() != ["CIRCUIT_OPEN"]:
                    await asyncio.sleep(0.01)
            await rig.until("WAITING")
            assert len(rig.creates) == 1
        assert (other.connections, other.script.requests) == (0, [])


async def test_row_39_a_login_that_is_redirected(tmp_path):
    """Row 39: user and password go nowhere else either."""
    authority = Authority("authority", clock=smp_server.CLOCK)
    async with smp_server.smp_server(rest=smp_server.answer(), authority=authority) as other:
        login = smp_server.answer("307 Moved", Location=other.url() + LOGIN)
        async with market(tmp_path, login=login, peer_options={"authority": authority}) as rig:
            await rig.submit("BESS001")
            async with asyncio.timeout(5):
                while not rig.peer.script.on(LOGIN):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert rig.creates == []
        assert (other.connections, other.script.requests) == (0, [])


class Shifted:
    """The clock of an authority that issues its certificates so many days off."""

    def __init__(self, days):
        self.days = days

    def wall_ns(self):
        return smp_server.CLOCK.wall_ns() + self.days * 86400 * NS


@pytest.mark.parametrize("what", ["expired", "not yet valid", "another host's", "another authority's"])
async def test_row_39_a_certificate_that_is_not_good(tmp_path, what):
    """Row 39: "expired SMP certificate, wrong host name": RETRY_WAIT, and not one byte of a call leaves."""
    authority = Authority("authority", clock=smp_server.CLOCK)
    issuer = authority if what != "another authority's" else Authority("stranger", clock=smp_server.CLOCK)
    issuer._clock = Shifted({"expired": -400, "not yet valid": 60}.get(what, 0))
    context = smp_server.server_context(
        issuer, hosts=("other.example",) if what == "another host's" else ("localhost",)
    )
    async with (
        smp_server.smp_server(authority=authority, context=context) as peer,
        market(tmp_path, url=peer.url(), peer_options={"authority": authority}) as rig,
    ):
        await rig.submit("BESS001")
        await rig.until("RETRY_WAIT")
        assert peer.script.requests == []


BODIES = {"1 GB": smp_server.gigabyte, "HTML": smp_server.answer("200 OK", "<html><body>Sign in</body></html>")}


@pytest.mark.parametrize("what", BODIES)
async def test_row_39_an_answer_that_is_none(tmp_path, what):
    """Row 39: "1 GB or HTML as 2xx: IN_DOUBT; body capped"."""
    async with market(tmp_path, BODIES[what], settings={"max_answer_bytes": 200_000}) as rig:
        await rig.submit("BESS001")
        await rig.until("IN_DOUBT")
        assert (len(rig.creates), await rig.alarms()) == (1, ["IN_DOUBT"])
