"""`smp-bridge probe` as an integrator meets it: the three shipped sites on node-opcua, libmodbus and mosquitto, in a process of its own."""

import asyncio
import socket

import pytest
import pytest_asyncio
from opcua_peer import ASSETS
from probe_world import ASSET_TOPIC, BASE, STRIDE, interrupted, probe_world

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_world(tmp_path_factory):
    async with probe_world(tmp_path_factory.mktemp("probe")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def world(running_world):
    await running_world.fresh()
    return running_world


def values(adapter):
    return {(each["flow"], each["place"], each["name"]): each for each in adapter["values"]}


async def test_all_is_well(world):
    """Every configured value of every adapter, exit 0, and three EMSs to which nobody wrote."""
    before = await world.written()
    said = await world.probe("--json")
    assert (said.code, said.err) == (0, "")
    crawley, ipswich, rugby = said.json["adapters"]
    assert [each["site"] for each in (crawley, ipswich, rugby)] == ["crawley", "ipswich", "rugby"]
    assert said.json["problems"] == 0
    reference = values(ipswich)["batteries", "BESS001", "reference"]
    assert (reference["value"], reference["quality"]) == ("REF1", "good")
    assert 0 <= reference["age_s"] < 600
    assert reference["source_time"].endswith("Z")
    assert values(rugby)["unit", "0", "assets"]["value"] == ["RK1", "RK2"]
    assert values(rugby)["unit", "0", "assets"]["source_time"] is None
    assert (
        values(crawley)["chargers", "EV2", "kw"] | {"value": "49,5", "how": "retained"}
        == values(crawley)["chargers", "EV2", "kw"]
    )
    await world.settled()
    opcua, modbus, heard = await world.written()
    assert (opcua, modbus, heard) == (before[0], before[1], before[2] + 1)
    assert (opcua, modbus) == ([], 0)
    assert not world.journal.exists()


async def test_the_tables(world):
    """A line for each value with where it is, what it is and how old; a line for each adapter; the last one says the count."""
    said = await world.probe("--site", "ipswich")
    lines = said.out.splitlines()
    assert lines[0].split() == [
        "SITE/ADAPTER",
        "FLOW",
        "PLACE",
        "FIELD",
        "VALUE",
        "QUALITY",
        "SOURCE",
        "TIME",
        "(UTC)",
        "AGE",
    ]
    [line] = [line for line in lines if line.split()[1:4] == ["batteries", "BESS002", "postcode"]]
    assert line.split()[0] == "ipswich/ems"
    assert line.split()[4:7] == ["IP1", "2AB", "good"]
    assert lines[-2].startswith("ipswich/ems")
    assert " ok " in lines[-2]
    assert "Basic256Sha256/SignAndEncrypt" in lines[-2]
    assert lines[-1] == "0 problems; nothing was written"
    assert "rugby" not in said.out


async def test_everything_that_is_wrong_is_said_at_once(world):
    """A bad quality, a value that the rules refuse, a key that stands twice, another device: exit 1, each with its place, the rest as ever."""
    await world.opcua.set(f"{ASSETS}/BESS003/ImportMPAN", "1012345678903", status="BadSensorFailure")
    await world.opcua.set(f"{ASSETS}/BESS002/AssetReference", "REF1")
    await world.opcua.set(f"{ASSETS}/BESS001/Postcode", "nowhere")
    await world.modbus.put(0, 0x1234)
    await world.modbus.put(BASE + STRIDE + 39, 0xBEEF)
    said = await world.probe("--brief")
    assert said.code == 1
    problems = said.out.partition("Good to know")[0]
    for line in (
        "ipswich/ems batteries BESS003 import_mpan: quality bad: BadSensorFailure",
        "ipswich/ems batteries BESS002: has the key REF1, which BESS001 has too",
        "ipswich/ems batteries BESS001: would be refused: postcode",
        "rugby/ems adapter.magic: register 0 holds 0x1234, the site file says 0x534d",
        "rugby/ems batteries 1: would be refused: CRC: register 219 holds BEEF",
    ):
        assert line in problems
    assert "crawley" not in problems
    assert said.out.splitlines()[-1] == "5 problems; nothing was written"


async def test_who_does_not_answer_delays_nobody(world):
    """A device that takes the connection and is silent, an address where nobody is: both are told in their own time, the others are read."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = str(silent.getsockname()[1])
        started = asyncio.get_running_loop().time()
        said = await world.probe(
            "--json", "--deadline", 5, SMP_BRIDGE_IPSWICH_URL=f"opc.tcp://127.0.0.1:{port}", SMP_BRIDGE_RUGBY_PORT="1"
        )
        took_s = asyncio.get_running_loop().time() - started
    assert said.code == 1
    crawley, ipswich, rugby = said.json["adapters"]
    assert len(crawley["values"]) == 17
    assert crawley["problems"] == []
    assert [each["with"] for each in (ipswich, rugby)] == ["not reached", "not reached"]
    assert "no connection within" in rugby["problems"][0]["text"]
    assert "no answer" in ipswich["problems"][0]["text"]
    assert ipswich["took_s"] < 10
    assert took_s < 40


async def test_watch(world):
    """What changes is printed with the time, and what becomes well again; Ctrl-C ends it with exit 0."""
    process = await world.started("probe", "--config", world.config, "--watch", "--wait", 0.3)
    printed: list[str] = []

    async def until(part):
        async with asyncio.timeout(60):
            while not any(part in line for line in printed):
                line = (await process.stdout.readline()).decode()
                assert line, printed
                printed.append(line)

    try:
        for adapter in ("opcua", "modbus", "mqtt"):
            await until(f"{adapter} ")
        await world.opcua.set(f"{ASSETS}/BESS001/MaxExport_kW", 50000)
        await until("ipswich/ems batteries BESS001 export_kw: 49500 -> 50000")
        await world.opcua.set(f"{ASSETS}/BESS001/MaxExport_kW", 49500, status="BadSensorFailure")
        await until("problem: ipswich/ems batteries BESS001 export_kw: quality bad: BadSensorFailure")
        await world.opcua.set(f"{ASSETS}/BESS001/MaxExport_kW", 49500, status="Good")
        await until("well again: ipswich/ems batteries BESS001 export_kw")
        await world.modbus.put(BASE + 29, 110)
        await until("rugby/ems batteries 0 voltage: 330 -> 110")
        await world.mqtt.publish(ASSET_TOPIC.format("EV1"), b'{"name": "Other"}', retain=True)
        await until("crawley/broker chargers EV1 name: Charger -> Other")
        await world.opcua.order("drop")
        await until("ipswich/ems: ")
    finally:
        code = await interrupted(process)
    assert code == 0
    assert not [line for line in printed if "adapter.heartbeat:" in line]


async def test_only_one_site_matters_when_it_is_named(world):
    """Another site's broken file is no hindrance then; without the name it is, and so is a name that nobody has."""
    broken = world.config / "sites" / "aaa.yaml"
    broken.write_text("site: aaa\nadapters: 5\n")
    try:
        assert (await world.probe("--site", "rugby", "--brief", SMP_BRIDGE_IPSWICH_CERTIFICATE="missing")).code in {
            0,
            1,
        }
        whole = await world.probe("--brief")
        nobody = await world.probe("--site", "nobody")
    finally:
        broken.unlink()
    assert (whole.code, "aaa.yaml" in whole.err) == (2, True)
    assert nobody.code == 2
    assert "there is no site nobody; the sites are aaa, crawley, ipswich, rugby" in nobody.err
