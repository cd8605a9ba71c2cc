"""Layout 3: an awkward vendor map in all four tables, with a CSV file beside it, against libmodbus."""

import asyncio
import copy
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from modbus_device import JSMODBUS, LIBMODBUS, Device, modbus_device
from modbus_site import context_of, options_of, selections_of

from adapters.modbus import ADAPTER
from bridge.api import Address, Code, LinkError, OutcomeField, Quality, Session, Write

WITHIN_S = 10.0
ASK, ACKNOWLEDGED, ALARM, ERROR = 16, 32, 33, 399  # as on the wire
SITE = {
    "adapters": {
        "ems": {
            "protocol": "modbus",
            "host": "127.0.0.1",
            "address_base": "reference",
            "poll": "10ms",
            "timeout": "500ms",
            "busy_pause": "10ms",
            "writable": ["33..34", 40400],
        }
    },
    "flows": {
        "assets": {
            "records": {
                "each": {"base": 30001, "stride": 24, "count": 12},
                "key": "asset_no",
                "fields": {
                    "asset_no": {"at": 0, "type": "uint16"},
                    "kw": {"at": 1, "type": "float32", "order": "CDAB"},
                    "volts": {"at": 3, "type": "int16", "scale_at": 4, "missing": "sunspec"},
                    "technology": {"at": 5, "type": "uint16", "bits": "4..7"},
                    "label": {"at": 6, "type": "string", "registers": 8, "order": "BA", "pad": "space"},
                    "name": {"csv": "name"},
                    "mpan": {"csv": "mpan"},
                },
            },
            "submit": {"when": "request", "request": 17, "status": 33},
            "outcome": {
                "alarm": {"at": 34, "fixed": True, "type": "bit", "bit": 0},
                "errorCode": {"at": 40400, "fixed": True, "type": "uint16"},
            },
        }
    },
}
CSV = "asset_no;name;mpan;postcode;gsp_group\n7;North Yard;1012345678903;IP1 2AB;_A\n9;South Yard;1310000000040;IP1 2AC;_A\n"


def asset(number: int, *, volts: int = 330, power: int = -1, label: str = "BESS 1") -> list[int]:
    """24 input registers, built without the adapter's codec: 49.5 kW, words swapped, text with its bytes swapped."""
    text = label.ljust(16).encode()
    swapped = b"".join(text[at + 1 : at + 2] + text[at : at + 1] for at in range(0, 16, 2))
    body = struct.pack(">HHHhhH", number, 0x0000, 0x4246, volts, power, 0x00A1) + swapped
    return list(struct.unpack(">14H", body)) + [0] * 10


async def held(device: Device) -> Device:
    await device.put(0, *asset(7), table="input")
    await device.put(24, *asset(9, volts=-32768), table="input")
    return device


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    async with modbus_device() as device:
        yield await held(device)


@pytest.fixture(params=[LIBMODBUS, JSMODBUS], ids=["libmodbus", "jsmodbus"])
async def either(request) -> AsyncIterator[Device]:
    async with modbus_device(request.param) as device:
        yield await held(device)


@pytest.fixture
def site(tmp_path):
    made = copy.deepcopy(SITE)
    file = tmp_path / "assets.csv"
    file.write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    made["flows"]["assets"]["records"]["csv"] = {"file": str(file), "on": "asset_no"}
    return made


@asynccontextmanager
async def opened(device: Device, site: dict, **changes) -> AsyncIterator[Session]:
    options = options_of(site, port=device.port, **changes)
    selections = selections_of(site)
    assert list(ADAPTER.check(options, selections)) == []
    async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections)) as session:
        yield session


async def arrives(session: Session):
    async with asyncio.timeout(WITHIN_S):
        (arrival,) = await session.receive()
    return arrival


async def test_a_request_by_coil(device, site):
    """A coil asks, a coil acknowledges; each rise is a request of its own, also on a device that is busy now and then."""
    async with opened(device, site) as session:
        await device.order("busy", times=2, code=6)
        await device.put(ASK, 1, table="coils")
        first = await arrives(session)
        assert await device.words(ACKNOWLEDGED, table="coils") == [0]
        first.ack(True)
        await device.until(ACKNOWLEDGED, 1, table="coils")
        await device.put(ASK, 0, table="coils")
        await device.until(ACKNOWLEDGED, 0, table="coils")
        await device.put(ASK, 1, table="coils")
        second = await arrives(session)
    assert len({item.request for item in (*first.records, *second.records)}) == 2
    log = (await device.order("stats"))["log"]
    assert {entry[0] for entry in log} == {1, 3, 4, 5}


async def test_what_the_map_and_the_file_say(either, site):
    """Input registers, scale factors, packed flags, swapped text; names and MPANs from the file, joined on the asset's number."""
    async with opened(either, site) as session:
        await either.put(ASK, 1, table="coils")
        north, south = (await arrives(session)).records
        read = await session.read(
            [Address("assets", place, name) for place in ("0", "1") for name in ("asset_no", "mpan")]
        )
    values = {name: reading.value for name, reading in north.fields.items()}
    assert values == {
        "asset_no": 7, "kw": 49.5, "volts": 33.0, "technology": 10, "label": "BESS 1", "name": "North Yard", "mpan": "1012345678903",
    }  # fmt: skip
    assert south.fields["volts"].absent
    assert south.fields["name"].value == "South Yard"
    assert [reading.value for reading in read] == [7, "1012345678903", 9, "1310000000040"]


async def test_an_asset_without_a_row(device, site):
    """Its registers are read, its names are not to be had, and the other assets are well."""
    await device.put(24, *asset(8), table="input")
    async with opened(device, site) as session:
        await device.put(ASK, 1, table="coils")
        north, other = (await arrives(session)).records
    assert north.fields["name"].value == "North Yard"
    assert other.fields["kw"].value == 49.5
    assert other.fields["name"].quality is Quality.BAD
    assert "no row for asset_no 8" in other.fields["name"].detail


async def test_places_that_all_assets_share(either, site):
    """One alarm coil and one error register: an alarm stays until no asset has one, and each asset reads back what it wrote."""
    one, other = (Address("assets", place, OutcomeField.ALARM) for place in ("0", "1"))
    bad, good = (Address("assets", place, OutcomeField.ERROR_CODE) for place in ("0", "1"))

    def said(alarm: bool, code: int) -> list[Write]:
        return [
            Write(address=one, value=alarm),
            Write(address=bad, value=Code(code, str(code))),
            Write(address=other, value=False),
            Write(address=good, value=Code(0, "")),
        ]

    async with opened(either, site) as session:
        for alarm, code in ((True, 9001), (False, 0)):
            written = await session.write(said(alarm, code))
            assert [item.error for item in written] == [""] * 4
            readings = await session.read([item.address for item in written])
            assert [reading.value for reading in readings] == [item.value for item in written]
            assert await either.words(ALARM, table="coils") == [int(alarm)]
            assert await either.words(ERROR) == [code]


async def test_outcomes_in_a_table_of_their_own(device, site):
    """`outcome.each`: records in input registers, results in holding registers with another distance."""
    site["adapters"]["ems"]["writable"].append("40501..40530")
    site["flows"]["assets"]["outcome"] = {
        "each": {"base": 40501, "stride": 2},
        "state": {"at": 0, "type": "uint16"},
        "errorCode": {"at": 1, "type": "uint16"},
    }
    async with opened(device, site) as session:
        writes = [
            Write(address=Address("assets", "1", OutcomeField.STATE), value=Code(4, "refused")),
            Write(address=Address("assets", "1", OutcomeField.ERROR_CODE), value=Code(77, "X")),
        ]
        assert [item.error for item in await session.write(writes)] == ["", ""]
        assert [item.value for item in await session.read([write.address for write in writes])] == [4, 77]
    assert await device.words(502, 2) == [4, 77]


async def test_flags_in_discrete_inputs(device, site):
    """A request by discrete input, and a record of bits."""
    site["flows"]["assets"]["submit"] = {"when": "request", "request": 10017, "status": 33}
    await device.put(ASK, 1, table="discrete")
    async with opened(device, site, max_bits_per_read=8) as session:
        assert len((await arrives(session)).records) == 2
    assert 2 in {entry[0] for entry in (await device.order("stats"))["log"]}


async def test_a_spoilt_file_opens_no_session(device, site, tmp_path):
    """What became of the file after the start is found at the next connect; `check` names the line."""
    options, selections = options_of(site, port=device.port), selections_of(site)
    (tmp_path / "assets.csv").write_text(CSV + "7;Again;1;2;3\n")
    (problem,) = ADAPTER.check(options, selections)
    assert problem.path == "flows.assets.records.csv.file"
    assert "assets.csv:4: asset_no 7 stands in line 2 already" in problem.text
    with pytest.raises(LinkError, match="stands in line 2"):
        async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections)):
            pass


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (lambda records: records.pop("csv"), "flows.assets.records.csv", "name it with"),
        (lambda records: records["csv"].update(on="name"), "flows.assets.records.csv.on", "asset_no"),
        (
            lambda records: records["fields"].update(gsp={"csv": "gsp"}),
            "flows.assets.records.csv.file",
            "lacks the column gsp",
        ),
    ],
)
def test_a_file_that_does_not_fit_the_map(site, change, where, what):
    """What is joined on must be a register, and what is asked for must be a column."""
    change(site["flows"]["assets"]["records"])
    found = {problem.path: problem.text for problem in ADAPTER.check(options_of(site), selections_of(site))}
    assert what in found[where]
