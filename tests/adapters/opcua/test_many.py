"""5,000 variables of one node-opcua server: all of them read, all of them watched, within the limits that it states."""

import asyncio
import time

import pytest
import pytest_asyncio
from opcua_peer import ASSETS, opcua_peer
from opcua_site import read_site, selection_of

from adapters.opcua import ADAPTER

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 60.0
COUNT = 270  # assets of 19 variables: 5,130
NAMES = [f"BESS{number:03}" for number in range(1, COUNT + 1)]
FIELDS = {
    "reference": "AssetReference", "name": "Name", "import_mpan": "ImportMPAN", "export_mpan": "ExportMPAN", "postcode": "Postcode",
    "gsp_group": "GSPGroup", "voltage_kv": "ConnVoltage_kV", "export_kw": "MaxExport_kW", "import_kw": "MaxImport_kW",
    "storage_kwh": "Storage_kWh", "technology": "Technology", "commissioned": "CommissionedOn", "request": "Registration/Request",
    "number": "Registration/RequestSeq", "state": "Registration/State", "transaction": "Registration/TransactionId",
    "code": "Registration/ErrorCode", "text": "Registration/ErrorText", "updated": "Registration/LastUpdate",
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def big(tmp_path_factory):
    async with opcua_peer(tmp_path_factory.mktemp("big")) as peer:
        await peer.layout(NAMES)
        await peer.start(limits={"maxNodesPerRead": 400, "maxMonitoredItemsPerCall": 300, "maxNodesPerBrowse": 50})
        yield peer


async def test_all_of_them_are_read_and_watched(big, record_property):
    """Every record comes whole once, and a change of the very last one comes too; no request is larger than the server allows."""
    flow = read_site()["flows"]["batteries"]
    flow["submit"] = {"when": "change"}
    flow["records"]["fields"] = FIELDS
    context = big.context(sampling_interval=None)._replace(selections=[selection_of("batteries", flow)])
    began = time.perf_counter()
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        opened = time.perf_counter()
        found = {}
        while len(found) < COUNT:
            found |= {record.place: record for arrival in await session.receive() for record in arrival.records}
        read = time.perf_counter()
        assert sorted(found) == NAMES
        assert {len(record.fields) for record in found.values()} == {len(FIELDS)}
        assert not [record for record in found.values() if record.problem]
        await big.set(f"{ASSETS}/{NAMES[-1]}/Name", "Renamed")
        (arrival,) = await session.receive()
        assert (arrival.records[0].place, arrival.records[0].fields["name"].value) == (NAMES[-1], "Renamed")
    stats = await big.order("stats")
    assert len(stats["monitored"]) == COUNT * len(FIELDS) + 1  # and the tree itself
    assert stats["most"] <= 400
    record_property("opened_s", round(opened - began, 2))
    record_property("read_s", round(read - opened, 2))
    print(
        f"{COUNT * len(FIELDS)} variables: found and watched in {opened - began:.2f} s, read in {read - opened:.2f} s"
    )
