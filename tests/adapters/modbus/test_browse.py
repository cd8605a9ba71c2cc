"""A scan of libmodbus and jsmodbus: only stated addresses, holes found by halving, bounded and paced, and not one write; and what drafts are made of."""

import asyncio
import ssl
import struct
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
import trustme
from modbus_device import JSMODBUS, LIBMODBUS, malformed_device, modbus_device
from modbus_lines import gateway, serial_line, tls_in_front
from modbus_records import HEADER, record

from adapters.modbus import ADAPTER
from adapters.modbus import scan as scanning
from adapters.modbus.browse import COLUMNS
from adapters.modbus.drafts import drafts
from adapters.modbus.entry import options_of, spans_of
from adapters.modbus.places import AddressBase, Span, Table
from adapters.modbus.segments import segments
from bridge.api import Credentials, LinkError, LinkRefused, Search, Secret, Selection, Trigger
from bridge.clock import SystemClock

pytestmark = pytest.mark.asyncio(loop_scope="module")
READING = {1, 2, 3, 4}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def libmodbus():
    async with filled(LIBMODBUS) as device:
        await device.order("refuse", **{"from": 60, "to": 99})
        yield device


def filled(command):
    @asynccontextmanager
    async def made():
        async with modbus_device(command) as device:
            await device.put(0, *HEADER)
            for number in range(3):
                data = record(f"RK{number + 1:02}", name=f"South Yard Battery {number + 1:03}")
                await device.put_bytes(100 + 80 * number, data)
            yield device

    return made()


async def browsed(port, *ranges, most=10_000, units=(), start="", **options):
    made = ADAPTER.options.model_validate({"host": "127.0.0.1", "port": port, "timeout": "500ms", **options})
    search = Search(ranges=ranges, most=most, units=units, start=start)
    return await ADAPTER.browser.browse(made, search, SystemClock.here())


def rows(seen, table="holding"):
    found = [dict(zip(COLUMNS, row, strict=True)) for row in seen.rows]
    return {row["ADDRESS"]: row for row in found if row["TABLE"] == table}


def problems(flows, writable, **options):
    """What `check` of the adapter says of drafts."""
    made = ADAPTER.options.model_validate({"host": "h", "writable": writable, **options})
    selections = [
        Selection(
            flow=flow.name,
            trigger=Trigger.CHANGE,
            records=ADAPTER.records.model_validate(flow.records),
            submit=ADAPTER.submit[Trigger.CHANGE].model_validate({}),
            outcome=ADAPTER.outcome.model_validate(flow.outcome),
        )
        for flow in flows
    ]
    return list(ADAPTER.check(made, selections))


def registers(*words, at=0, table=Table.HOLDING):
    return [(Span(at, len(words), table), struct.pack(f">{len(words)}H", *words))]


def packed(form, *values, at=0):
    raw = struct.pack(form, *values)
    return [(Span(at, len(raw) // 2), raw)]


# on devices ---------------------------------------------------------------------------------------------------


async def test_stated_addresses_with_their_holes_and_not_one_write(libmodbus):
    """Values around a hole to the very register, the hole with the device's reason; only reading functions reached the device, within the ranges."""
    before = await libmodbus.order("stats")
    seen = await browsed(libmodbus.port, "holding:0-150", "coils:0-20")
    after = await libmodbus.order("stats")
    found = rows(seen)
    assert (found["0"]["HEX"], found["0"]["VALUE"], found["0"]["TYPE"]) == ("534D", 0x534D, "uint16")
    assert found["60..99"]["TYPE"] == "not shown: exception 2 (illegal address)"
    assert (found["100..110"]["VALUE"], found["100..110"]["TYPE"]) == ("South Yard Battery 001", "string")
    assert found["136..137"]["TYPE"] == "epoch32"
    assert rows(seen, "coils")["16..20"]["VALUE"] == "0 0 0 0 0"
    log = after["log"][len(before["log"]) :]
    assert {function for function, _, _ in log} == {1, 3}
    assert max(start + count for _, start, count in log) <= 151
    assert after["writes"] == 0
    assert len(log) < 110


async def test_another_server():
    """jsmodbus shows the same; input registers too, and two units one after the other."""
    async with filled(JSMODBUS) as device:
        await device.put(7, 0x4246, 0, table="input")
        seen = await browsed(device.port, "holding:100-140", "input:7-8", units=(1, 1))
        assert await device.words(100, 3) == [0x536F, 0x7574, 0x6820]
    assert rows(seen)["116..122"]["VALUE"] == "1012345678903"
    assert rows(seen, "input")["7..8"] == {
        "UNIT": 1, "TABLE": "input", "ADDRESS": "7..8", "HEX": "4246 0000", "VALUE": 49.5, "TYPE": "float32", "ORDER": "",
    }  # fmt: skip


async def test_units_on_a_serial_line(libmodbus):
    """RTU frames from the URL on; a unit that is not there is told of, and the draft is of the one that is."""
    async with serial_line() as line:
        await libmodbus.order("serial", device=str(line.theirs), unit=3)
        given = options_of(f"modbus+serial://{line.ours}?parity=N&baudrate=115200", Credentials())
        # libmodbus waits 500 ms for the answer of the unit that is not there before it listens again
        options = ADAPTER.options.model_validate({**given, "timeout": "900ms"})
        search = Search(ranges=("holding:100-126",), units=(9, 3))
        seen = await ADAPTER.browser.browse(options, search, SystemClock.here())
    assert {row[0] for row in seen.rows} == {3}
    assert rows(seen)["116..122"]["VALUE"] == "1012345678903"
    assert any("unit 9" in note and "no answer" in note for note in seen.notes)
    assert seen.adds["unit"] == 3
    assert (await libmodbus.order("stats"))["writes"] == 0


async def seen_by(url, units=(1,), **given):
    """What is there by a URL and what a person gives at the command line."""
    options = ADAPTER.options.model_validate({**options_of(url, Credentials(**given)), "timeout": "700ms"})
    search = Search(ranges=("holding:100-126",), units=units)
    return await ADAPTER.browser.browse(options, search, SystemClock.here())


async def test_a_device_behind_tls(libmodbus, tmp_path):
    """By the authority that is named; a device of another one is never trusted unseen, and the hint says where to look."""
    authority, other = trustme.CA(), trustme.CA()
    for name, each in (("ca.pem", authority), ("other.pem", other)):
        each.cert_pem.write_to_path(str(tmp_path / name))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with tls_in_front(libmodbus.port, context) as port:
        seen = await seen_by(f"modbus+tls://127.0.0.1:{port}", trusted=(tmp_path / "ca.pem",))
        with pytest.raises(LinkRefused, match="CERTIFICATE_VERIFY_FAILED") as raised:
            await seen_by(f"modbus+tls://127.0.0.1:{port}", trusted=(tmp_path / "other.pem",))
    assert rows(seen)["116..122"]["VALUE"] == "1012345678903"
    assert raised.value.hint


async def test_rtu_frames_through_a_gateway():
    """libmodbus as a slave on a line behind a gateway that hands frames through."""
    async with filled(LIBMODBUS) as device, serial_line() as line, gateway(line.ours) as port:
        await device.order("serial", device=str(line.theirs), unit=3)
        seen = await seen_by(f"modbus+rtu://127.0.0.1:{port}", units=(3,))
        assert (await device.order("stats"))["writes"] == 0
    assert {row[0] for row in seen.rows} == {3}
    assert rows(seen)["116..122"]["VALUE"] == "1012345678903"


async def test_nothing_is_scanned_unasked(libmodbus):
    """Without a range, with too much, with words of others: a call to be corrected, and not one request or connection."""
    before = await libmodbus.order("stats")
    for ranges, more, part in (
        ((), {}, "--range holding:0-199"),
        (("holding:0-99",), {"most": 50}, "--most allows 50"),
        (("holding:0-1",), {"start": "x"}, "belong to OPC UA and MQTT"),
    ):
        with pytest.raises(ValueError, match=".") as raised:
            await browsed(libmodbus.port, *ranges, **more)
        assert part in str(raised.value)
    after = await libmodbus.order("stats")
    assert (after["reads"], after["connections"]) == (before["reads"], before["connections"])


async def test_requests_are_bounded_and_paced(libmodbus, monkeypatch):
    """A hole without end costs no more than the bound, with a pause between; what is left is named."""
    monkeypatch.setattr("adapters.modbus.browse.MOST_REQUESTS", 12)
    monkeypatch.setattr(scanning, "PAUSE_S", 0.03)
    loop = asyncio.get_running_loop()
    before, started = (await libmodbus.order("stats"))["reads"], loop.time()
    seen = await browsed(libmodbus.port, "holding:0-99")
    assert (await libmodbus.order("stats"))["reads"] - before == 12
    assert loop.time() - started >= 11 * 0.03
    assert any("stopped before register" in note and "after 12 requests" in note for note in seen.notes)


@pytest.mark.parametrize(("code", "asked"), [(1, 1), (2, 14)], ids=["no such function", "nothing but holes"])
async def test_a_table_that_is_not_there(code, asked):
    """Nothing is shown, the notes say why; a table that is not there is asked once, a hole of two blocks is halved down to each register."""
    functions = []

    def answer(frame):
        functions.append(frame[7])
        return frame[:4] + b"\0\3" + frame[6:7] + bytes([frame[7] | 0x80, code])

    async with malformed_device(answer) as port:
        seen = await browsed(port, "holding:0-7", max_registers_per_read=4)
    assert seen.rows == []
    assert any("does not show registers 0..7: exception" in note for note in seen.notes)
    assert set(functions) <= READING
    assert len(functions) == asked


async def test_a_device_that_falls_silent():
    """What came before is shown, with the reason; a unit that never answers is an error."""
    answers = []

    def answer(frame):
        answers.append(frame)
        return frame[:4] + b"\0\5" + frame[6:8] + b"\2\0\7" if len(answers) == 1 else None

    async with malformed_device(answer) as port:
        seen = await browsed(port, "holding:0-1", max_registers_per_read=1)
        assert rows(seen)["0"]["VALUE"] == 7
        assert any("no answer" in note for note in seen.notes)
        with pytest.raises(LinkError, match="no answer"):
            await browsed(port, "holding:0-1")


# values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "values"),
    [
        (packed(">ffI", 49.5, 231.4567, 100_000), [("float32", 49.5), ("float32", 231.4567), ("uint32", 100_000)]),
        (registers(0x0000, 0x4246, 0x74EA, 0x4367), [("float32", 49.5), ("float32", 231.4567)]),
        (registers(230, 231, 50, 0xFFF6), [("uint16", 230), ("uint16", 231), ("uint16", 50), ("int16", -10)]),
        (packed(">8sIh", b"LS1 2AB\0", 1_795_392_000, -5), [("string", "LS1 2AB"), ("epoch32", None), ("int16", -5)]),
        (registers(0x5F4A, 0, 0, 0, 0, 0, 7), [("string", "_J"), ("", 0), ("uint16", 7)]),
    ],
    ids=["big-endian", "words swapped", "small", "text", "zeros"],
)
async def test_what_registers_most_plausibly_hold(held, values):
    """The cut in values that are said in the fewest bits, under one order of words."""
    found = segments(held)
    assert [(each.type, None if each.type == "epoch32" else each.value) for each in found] == values
    assert b"".join(each.raw for each in found) == held[0][1]


@pytest.mark.parametrize("base", list(AddressBase))
async def test_records_that_repeat(base):
    """Base, stride and count from texts that come again; addresses as the site counts; the stand-in for the outcome is nobody's register."""
    names = ((f"RK{number:02}", f"South Yard Battery {number:03}") for number in range(3))
    raw = b"".join(record(reference, name=name).ljust(160, b"\0") for reference, name in names)
    [flow], writable = drafts(segments([(Span(100, len(raw) // 2), raw)]), base)
    start = {AddressBase.ZERO: 100, AddressBase.ONE: 101, AddressBase.REFERENCE: 40101}[base]
    assert flow.records["each"] == {"base": start, "stride": 80, "count": 3}
    assert flow.records["key"] == "text_40"
    assert flow.records["fields"]["mpan"] == {"at": 16, "type": "string", "registers": 7}
    assert flow.examples["gsp_group"] == "_A"
    assert writable == [{AddressBase.ZERO: 65535, AddressBase.ONE: 65536, AddressBase.REFERENCE: 465536}[base]]
    assert problems([flow], writable, address_base=base.value) == []


async def test_texts_in_a_row_are_no_records():
    """The five texts of a SunSpec common block stand at one distance by chance: one record, not four."""
    texts = (("Maker", 32), ("Model", 32), ("Opt", 16), ("1.2", 16), ("SN0001", 32))
    raw = b"SunS\0\1\0\x42" + b"".join(text.encode().ljust(size, b"\0") for text, size in texts)
    [flow], writable = drafts(segments([(Span(40_000, len(raw) // 2), raw)]), AddressBase.ZERO)
    assert "stride" not in flow.records["each"]
    assert problems([flow], writable) == []


async def test_input_registers():
    """Their table is named, and the outcome stands elsewhere."""
    held = [(Span(10, 2, Table.INPUT), b"EV01"), (Span(12, 1, Table.INPUT), b"\0\7")]
    flows, writable = drafts(segments(held), AddressBase.ZERO)
    assert flows[0].records["each"] == {"base": 10, "table": "input"}
    assert problems(flows, writable) == []


# words of the call --------------------------------------------------------------------------------------------


async def test_ranges():
    """Each address once, table by table."""
    spans = spans_of(["holding:10-19", "input: 5", "holding:15..29", "coils:0-0"], 1000)
    assert [str(span) for span in spans] == ["coil 0", "input register 5", "registers 10..29"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("0-9", "TABLE:FIRST-LAST"),
        ("inputs:0-9", "TABLE is coils, discrete, input, holding"),
        ("holding:9-0", "ends before it begins"),
        ("holding:65530-65536", "beyond 65535"),
        ("holding:400001", "reference number"),
    ],
)
async def test_ranges_that_are_wrong(text, part):
    """Each with what would be right."""
    with pytest.raises(ValueError, match=".") as raised:
        spans_of([text], 1_000_000)
    assert part in str(raised.value)


async def test_urls(tmp_path):
    """Each scheme to the options that a site file has for it."""
    assert options_of("modbus://there:1502", Credentials()) == {"host": "there", "port": 1502}
    assert options_of("modbus+rtu://there", Credentials()) == {"host": "there", "framing": "rtu"}
    ca = tmp_path / "ca.pem"
    assert options_of("modbus+tls://there", Credentials(trusted=(ca,))) == {"host": "there", "tls": {"ca": ca}}
    line = options_of("modbus+serial:///dev/ttyUSB0?baudrate=9600&parity=N&stop_bits=2", Credentials())
    made = ADAPTER.options.model_validate(dict(line))
    assert (str(made.serial.device), made.serial.baudrate, made.serial.stop_bits) == ("/dev/ttyUSB0", 9600, 2)


@pytest.mark.parametrize(
    ("url", "given", "part"),
    [
        ("modbus://", {}, "names no host"),
        ("modbus://there/1", {}, "--range"),
        ("modbus://there?unit=1", {}, "--unit"),
        ("modbus://there:99999", {}, "port"),
        ("modbus://there", {"user": "u"}, "no users"),
        ("modbus://there", {"password": Secret("p")}, "no users"),
        ("modbus://there", {"policy": "None"}, "OPC UA"),
        ("modbus://there", {"trusted": ("ca.pem",)}, "modbus+tls://"),
        ("modbus+tls://there", {"trusted": ("a.pem", "b.pem")}, "given once"),
        ("modbus+serial://ttyUSB0", {}, "three slashes"),
    ],
)
async def test_urls_that_are_wrong(url, given, part):
    """Each with what would be right."""
    with pytest.raises(ValueError, match=".") as raised:
        options_of(url, Credentials(**given))
    assert part in str(raised.value)
