"""The adapter contract against a node-opcua server."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from opcua_peer import ASSETS, Peer

from adapters.opcua import ADAPTER
from bridge.testing.contract import AdapterContract, Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


class OpcUaRig(Rig):
    library = "asyncua"
    number_field = "export_kw"

    def __init__(self, peer: Peer) -> None:
        context = peer.context()
        self.adapter = ADAPTER
        self.peer = peer
        self.options = context.options
        self.selection = context.selections[0]

    def places(self) -> tuple[str, str]:
        return "BESS001", "BESS002"

    def key(self, place: str) -> str:
        return f"REF{int(place[-1])}"

    async def request(self, place: str) -> None:
        await self.peer.request(place)

    async def outcome(self, place: str) -> Mapping[str, object]:
        registration = f"{ASSETS}/{place}/Registration"
        return {
            "state": await self.peer.value(f"{registration}/State"),
            "transactionId": await self.peer.value(f"{registration}/TransactionId"),
        }

    async def stop_peer(self) -> None:
        await self.peer.stop()

    async def start_peer(self) -> None:
        await self.peer.start()

    async def spoil(self, place: str) -> bool:
        await self.peer.order("set", path=f"{ASSETS}/{place}/ImportMPAN", status="BadSensorFailure")
        await self.request(place)
        return True


class TestOpcUa(AdapterContract):
    @pytest.fixture(autouse=True)
    def _shared(self, peer: Peer) -> None:
        self.peer = peer

    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        yield OpcUaRig(self.peer)
