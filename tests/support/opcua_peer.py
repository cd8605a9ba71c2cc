"""A node-opcua server in a process of its own: another library's reading of the standard than the adapter's."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mosquitto import free_port
from opcua_site import context_of, options_of, read_site, security_of, selections_of

from bridge.api import SessionContext
from bridge.demo.opcua_keys import KeyFiles, make_pair

SERVER = Path(__file__).parents[1] / "peers" / "opcua" / "server.js"
ANSWER_S = 30.0
SERVER_URI = "urn:acme:peer"
CLIENT_URI = "urn:smp-bridge:test"
USER = "smp-bridge"
PASSWORD = "a password"
PLACES = ("BESS001", "BESS002", "BESS003")
ASSETS = "EMS/Assets"
UNIT = "EMS/Units/UNIT01"


class Peer:
    """The orders of `tests/peers/opcua/server.js`, and layout 1 with three assets."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        self._process = process
        self.directory = directory
        self.port = 0
        self._serves: dict[str, object] | None = None  # the settings under which it listens now
        self.own: KeyFiles = make_pair(directory, "peer", SERVER_URI, hosts=("127.0.0.1",))
        self.client: KeyFiles = make_pair(directory, "client", CLIENT_URI)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    async def order(self, op: str, **details: object) -> dict[str, Any]:
        """Send one order and wait for its answer."""
        self._process.stdin.write(json.dumps({"op": op, **details}, default=str).encode() + b"\n")
        async with asyncio.timeout(ANSWER_S):
            line = await self._process.stdout.readline()
        assert line, "the node-opcua server has ended; are its npm packages installed (make peers)?"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer

    async def start(self, **changes: object) -> None:
        """Listen, again on the same port after `stop`; with the order's defaults unless told otherwise."""
        order = {
            "port": self.port or free_port(),
            "certificate": self.own.certificate,
            "key": self.own.private_key,
            "uri": SERVER_URI,
            "pki": self.directory / "pki",
            "user": USER,
            "password": PASSWORD,
            "policies": ["Basic256Sha256"],
            "modes": ["SignAndEncrypt"],
        }
        self.port = (await self.order("start", **{**order, **changes}))["port"]
        self._serves = changes

    async def stop(self) -> None:
        """Close every connection and stop listening; the values stay."""
        await self.order("stop")
        self._serves = None

    async def again(self, **changes: object) -> None:
        """A restart of the server, with these changes of its settings."""
        await self.stop()
        await self.start(**changes)

    async def fresh(self, **changes: object) -> None:
        """As at the beginning: first values, no connection, default settings but for these."""
        await self.order("reset")
        if self._serves != changes:
            await self.again(**changes)

    async def mute(self) -> None:
        """Let every subscription fall silent; the server is of no further use."""
        assert (await self.order("mute-subscriptions"))["count"]
        self._serves = None

    async def variable(self, path: str, type_name: str, value: object, **more: object) -> None:
        """Add a variable; before `start`."""
        await self.order("variable", path=path, type=type_name, value=value, **more)

    async def set(self, path: str, value: object, **more: object) -> None:
        """Change a variable's value."""
        await self.order("set", path=path, value=value, **more)

    async def value(self, path: str) -> Any:
        """A variable's value as the server holds it."""
        return (await self.order("get", path=path))["value"]

    async def request(self, place: str) -> None:
        """Ask for an asset's submission: first the sequence, then the request."""
        registration = f"{ASSETS}/{place}/Registration"
        await self.set(f"{registration}/RequestSeq", await self.value(f"{registration}/RequestSeq") + 1)
        await self.set(f"{registration}/Request", 1)

    async def layout(self, places: Sequence[str] = PLACES) -> None:
        """Layout 1 of the simulated EMS: these assets and one unit."""
        for number, place in enumerate(places, 1):
            for each in _asset(f"{ASSETS}/{place}", number):
                await self.order("variable", **each)
        for name, type_name, value in (
            ("UnitReference", "String", "UNIT-1"),
            ("Name", "String", "Unit 1"),
            ("Service", "String", "DC"),
            ("Capacity_kW", "Int32", 1000),
            ("GSPGroup", "String", "_A"),
        ):
            await self.variable(f"{UNIT}/{name}", type_name, value)
        await self.variable(f"{UNIT}/AlignedAssets", "String", ["REF1", "REF2"], length=0)
        for each in _registration(UNIT):
            await self.order("variable", **each)
        await self.order("folder", path="EMS/Spare")
        number = f"{ASSETS}/$/Registration/RequestSeq"
        await self.order("method", path="EMS/Register", arguments=[["assetName", "String"]], number=number)
        await self.order(
            "method", path="EMS/Count", arguments=[["kw", "Int32"]], number=f"{ASSETS}/BESS001/MaxExport_kW"
        )

    async def grow(self, place: str, number: int, *, without: Sequence[str] = ()) -> None:
        """Add an asset to the tree of the server that runs, all but these nodes of it."""
        variables = [
            each for each in _asset(f"{ASSETS}/{place}", number) if each["path"].split("/", 3)[3] not in without
        ]
        await self.order("grow", variables=variables)

    async def prune(self, place: str) -> None:
        """Take an asset out of the tree of the server that runs."""
        await self.order("prune", path=f"{ASSETS}/{place}")

    def security(self, **changes: Any) -> dict[str, Any]:
        """What the adapter needs to be let in."""
        given = {
            "certificate": self.client.certificate,
            "key": self.client.private_key,
            "servers": [self.own.certificate],
            "user": USER,
            "password": PASSWORD,
        }
        return {**security_of(**given), **changes}

    def context(self, *, security: dict[str, Any] | None = None, **changes: Any) -> SessionContext:
        """Ipswich's own file on this server; `changes` are options of the adapter."""
        site = read_site()
        options = options_of(
            site, **{"url": self.url, "security": security or self.security(), "sampling_interval": "10ms",
                     "publishing_interval": "20ms", **changes}
        )  # fmt: skip
        return context_of(options, selections_of(site))


def _asset(base: str, number: int) -> list[dict[str, Any]]:
    """Every variable of one asset, as the server takes it."""
    fields = (
        ("AssetReference", "String", f"REF{number}"),
        ("Name", "String", f"Battery {number}"),
        ("ImportMPAN", "String", "1012345678903"),
        ("ExportMPAN", "String", "1310000000040"),
        ("Postcode", "String", "IP1 2AB"),
        ("GSPGroup", "String", "_A"),
        ("ConnVoltage_kV", "Double", 33.0),
        ("MaxExport_kW", "Int32", 49500),
        ("MaxImport_kW", "Int32", 49500),
        ("Storage_kWh", "Int32", 99000),
        ("Technology", "Int32", 0),
        ("CommissionedOn", "DateTime", "2020-05-01T00:00:00Z"),
    )
    found = [{"path": f"{base}/{name}", "type": type_name, "value": value} for name, type_name, value in fields]
    return found + _registration(base)


def _registration(base: str) -> list[dict[str, Any]]:
    fields: tuple[tuple[str, str, object, dict[str, object]], ...] = (
        ("Request", "Int32", 0, {}),
        ("RequestSeq", "UInt32", 0, {}),
        ("State", "Int32", 0, {"writable": True}),
        ("TransactionId", "String", "", {"writable": True}),
        ("ErrorCode", "Int32", 0, {"writable": True}),
        ("ErrorText", "String", [""] * 10, {"writable": True, "length": 10}),
        ("LastUpdate", "DateTime", "1970-01-01T00:00:00Z", {"writable": True}),
    )
    return [
        {"path": f"{base}/Registration/{name}", "type": type_name, "value": value, **more}
        for name, type_name, value, more in fields
    ]


@asynccontextmanager
async def opcua_peer(directory: Path) -> AsyncIterator[Peer]:
    """A peer with nothing in it that does not listen yet; it ends with the block."""
    node = shutil.which("node")
    assert node, "node is not installed (make peers)"
    process = await asyncio.create_subprocess_exec(
        node, str(SERVER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield await asyncio.to_thread(Peer, process, directory)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
