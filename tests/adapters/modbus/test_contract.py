"""The adapter contract against devices of libmodbus and of jsmodbus."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from modbus_device import JSMODBUS, Device, modbus_device
from modbus_records import COMMAND, HEADER, SEQUENCE, record
from modbus_site import SAMPLE, options_of, read_site, selections_of

from adapters.modbus import ADAPTER
from bridge.testing.contract import AdapterContract, Rig


class ModbusRig(Rig):
    library = "pymodbus"
    number_field = "export_kw"

    def __init__(self, device: Device) -> None:
        site = read_site(SAMPLE)
        self.adapter = ADAPTER
        self.device = device
        self.options = options_of(site, port=device.port, poll="10ms", heartbeat=None)
        self.selection = selections_of(site)[0]
        self._sequence = 0

    async def prepare(self) -> None:
        await self.device.put(0, *HEADER)
        await self.device.put_bytes(100, record("RK01"))
        await self.device.put_bytes(180, record("RK02"))

    def places(self) -> tuple[str, str]:
        return "0", "1"

    def key(self, place: str) -> str:
        return f"RK0{int(place) + 1}"

    async def request(self, place: str) -> None:
        self._sequence += 1
        await self.device.put(SEQUENCE, self._sequence)
        await self.device.put(COMMAND, 1)

    async def outcome(self, place: str) -> Mapping[str, object]:
        base = 100 + 80 * int(place)
        text = (await self.device.bytes(base + 63, 9)).rstrip(b"\0").decode()
        return {"state": (await self.device.words(base + 60))[0], "transactionId": text}

    async def stop_peer(self) -> None:
        await self.device.order("away")

    async def start_peer(self) -> None:
        await self.device.listen()

    async def spoil(self, place: str) -> bool:
        await self.device.put(100 + 80 * int(place) + 16, 0xFFFF)
        await self.request(place)
        return True


class TestModbus(AdapterContract):
    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        async with modbus_device() as device:
            rig = ModbusRig(device)
            await rig.prepare()
            yield rig


class TestJsmodbus(AdapterContract):
    @asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        async with modbus_device(JSMODBUS) as device:
            rig = ModbusRig(device)
            await rig.prepare()
            yield rig
