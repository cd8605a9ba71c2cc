"""A simulated EMS with an OPC UA server: a folder per asset with a registration folder inside, and one unit (DOMAIN 6, layout 1)."""

import asyncio
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from cryptography import x509

from bridge.demo.memory import ItemView, Memory
from bridge.demo.opcua_keys import KeyFiles, make_pair
from bridge.demo.opcua_server import Login, OpcUaServer, Variable
from bridge.demo.plant import PlantAsset, plant
from bridge.model import EmsState

NAMESPACE: Final = "urn:acme:ems"
ROOT: Final = "EMS"
ASSETS: Final = f"{ROOT}/Assets"
UNITS: Final = f"{ROOT}/Units"
UNIT: Final = f"{UNITS}/UNIT01"
ERROR_LINES: Final = 10
MOST_ASSETS: Final = 999

_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS: Final = {int(state): state.word for state in EmsState}


class OpcUaEms:
    """Entered as an async context manager; then `url` is where it listens.

    `directory` receives its own certificate and key, and the bridge's: the only client that it lets in, with `user` and `password`.
    """

    def __init__(
        self,
        assets: int = 120,
        *,
        seed: int,
        directory: Path,
        site: str = "ipswich",
        gsp_group: str = "_A",
        prefix: str = "BESS",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if not 1 <= assets <= MOST_ASSETS:
            raise ValueError(f"this EMS has room for 1 to {MOST_ASSETS} assets")
        self.host = host
        self.assets: tuple[PlantAsset, ...] = tuple(plant(site, assets, seed, gsp_group=gsp_group, prefix=prefix))
        self.unit_reference = f"{prefix}-UNIT01"
        self.user = "smp-bridge"
        self.password = secrets.token_urlsafe(12)
        self.client_certificate = directory / f"{site}.crt.pem"
        self.client_key = directory / f"{site}.key.pem"
        self.server_certificate = directory / f"{site}-ems.crt.pem"
        self._site = site
        self._directory = directory
        uri = f"urn:acme:{site}:ems"
        self._application_uri = uri
        self._server = OpcUaServer(name=f"EMS {site}", application_uri=uri, host=host, port=port)
        self._places: dict[str, str] = {}
        self._memory = Memory()
        self._stack = AsyncExitStack()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    @property
    def url(self) -> str:
        """Where it listens, as a client is told."""
        return f"opc.tcp://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        own, client = await asyncio.to_thread(self._make_keys)
        await self._server.prepare(NAMESPACE, own, Login(self.user, self.password, client))
        await self._fill()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._server)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def request_assets(self) -> None:
        """Ask for the registration of every asset."""
        for asset in self.assets:
            await self._ask(self._places[asset.reference])

    async def request_unit(self, asset_keys: Sequence[str]) -> None:
        """Ask for the one unit, aligned to these assets."""
        members = [asset for asset in self.assets if asset.reference in set(asset_keys)]
        await self._server.put(f"{UNIT}/Capacity_kW", "Int32", sum(asset.max_export_kw for asset in members))
        await self._server.put(f"{UNIT}/AlignedAssets", "String", [asset.reference for asset in members])
        self._memory.expect(self.unit_reference)
        await self._ask(UNIT)

    def items(self) -> Mapping[str, ItemView]:
        """What was written back, by asset and unit reference: the words as this EMS noted them when they came, the rest as it stands."""
        return {reference: self._as_it_stands(view) for reference, view in self._memory.items().items()}

    def _make_keys(self) -> tuple[KeyFiles, x509.Certificate]:
        self._directory.mkdir(parents=True, exist_ok=True)
        hosts = (socket.gethostname(), "localhost", self.host)
        own = make_pair(self._directory, f"{self._site}-ems", self._application_uri, hosts=hosts)
        client = make_pair(self._directory, self._site, f"urn:smp-bridge:{self._site}", hosts=hosts[:1])
        return own, x509.load_pem_x509_certificate(client.certificate.read_bytes())

    async def _fill(self) -> None:
        folders: list[tuple[str, Sequence[Variable]]] = [(ROOT, ()), (ASSETS, ()), (UNITS, ())]
        for number, asset in enumerate(self.assets, 1):
            place = f"{ASSETS}/BESS{number:03d}"  # a place, whatever stands there: the reference is a variable
            folders += [(place, _asset_variables(asset)), (f"{place}/Registration", _registration())]
            self._places[asset.reference] = place
            self._memory.expect(asset.reference)
        folders += [(UNIT, self._unit_variables()), (f"{UNIT}/Registration", _registration())]
        self._places[self.unit_reference] = UNIT
        await self._server.add(folders)
        for reference, place in self._places.items():
            self._listen(reference, place)

    def _unit_variables(self) -> list[Variable]:
        return [
            Variable("UnitReference", "String", self.unit_reference),
            Variable("Name", "String", f"{self._site.capitalize()} Flexible Unit 1"),
            Variable("Service", "String", "DC"),
            Variable("Capacity_kW", "Int32", 0),
            Variable("GSPGroup", "String", self.assets[0].gsp_group),
            Variable("AlignedAssets", "String", []),
        ]

    async def _ask(self, place: str) -> None:
        """First the sequence, then the request: whoever sees the request sees its own sequence."""
        sequence = self._server.get(f"{place}/Registration/RequestSeq")
        await self._server.put(f"{place}/Registration/RequestSeq", "UInt32", (sequence + 1) % 2**32)
        await self._server.put(f"{place}/Registration/Request", "Int32", 1)

    def _listen(self, reference: str, place: str) -> None:
        """What the program of the EMS does when the host writes a state word: it notes it, and takes its request back."""

        async def state_written(number: int) -> None:
            self._memory.note(reference, _WORDS.get(number, str(number)))
            if number != EmsState.IDLE and self._server.get(f"{place}/Registration/Request"):
                await self._server.put(f"{place}/Registration/Request", "Int32", 0)

        self._server.watch(f"{place}/Registration/State", state_written)

    def _as_it_stands(self, view: ItemView) -> ItemView:
        registration = f"{self._places[view.reference]}/Registration"
        code = self._server.get(f"{registration}/ErrorCode")
        lines = self._server.get(f"{registration}/ErrorText") or ()
        return replace(
            view,
            transaction_id=self._server.get(f"{registration}/TransactionId") or "",
            error_code=str(code) if code else "",
            error_text="; ".join(line for line in lines if line),
        )


def _asset_variables(asset: PlantAsset) -> list[Variable]:
    return [
        Variable("AssetReference", "String", asset.reference),
        Variable("Name", "String", asset.name),
        Variable("ImportMPAN", "String", asset.import_mpan),
        Variable("ExportMPAN", "String", asset.export_mpan),
        Variable("Postcode", "String", asset.postcode),
        Variable("GSPGroup", "String", asset.gsp_group),
        Variable("ConnVoltage_kV", "Double", asset.voltage_kv),
        Variable("MaxExport_kW", "Int32", asset.max_export_kw),
        Variable("MaxImport_kW", "Int32", asset.max_import_kw),
        Variable("Storage_kWh", "Int32", asset.storage_kwh),
        Variable("Technology", "Int32", asset.technology),
        Variable("CommissionedOn", "DateTime", asset.commissioned),
    ]


def _registration() -> list[Variable]:
    return [
        Variable("Request", "Int32", 0),
        Variable("RequestSeq", "UInt32", 0),
        Variable("State", "Int32", int(EmsState.IDLE), writable=True),
        Variable("TransactionId", "String", "", writable=True),
        Variable("ErrorCode", "Int32", 0, writable=True),
        Variable("ErrorText", "String", [""] * ERROR_LINES, writable=True),
        Variable("LastUpdate", "DateTime", _NEVER, writable=True),
    ]
