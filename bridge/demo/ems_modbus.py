"""A simulated EMS with a Modbus TCP register map: a header with a request handshake, up to 64 asset records, one unit block (DOMAIN 6, layout 2)."""

import asyncio
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self

from bridge.demo.memory import ItemView, Memory
from bridge.demo.modbus_server import RegisterBank, RegisterServer
from bridge.demo.plant import PlantAsset, plant
from bridge.model import EmsState

MAGIC: Final = 0x534D
VERSION: Final = 0x0102
MOST_ASSETS: Final = 64
STRIDE: Final = 80
BASE: Final = 100
UNIT_BASE: Final = 6000

HEARTBEAT: Final = 5
COMMAND: Final = 6
SEQUENCE: Final = 7
STATUS: Final = 8
ERROR: Final = 9

ASSETS: Final = 1
UNIT: Final = 2
_ANSWERED: Final = (3, 4)

_RESULT: Final = 60
_RESULT_END: Final = 80
_BEAT_S: Final = 0.25

_RECORD: Final = struct.Struct(">32s14s8s2sHHiiIIH")  # +0 to +38
_UNIT_HEAD: Final = struct.Struct(">32s4si2s")  # +0 to +20
_RESULT_BLOCK: Final = struct.Struct(">HHH18sI")  # +60 to +73


class ModbusEms:
    """Entered as an async context manager; then `host` and `port` are where it listens. `directory` is not needed: Modbus has neither keys nor certificates."""

    def __init__(
        self,
        assets: int = MOST_ASSETS,
        *,
        seed: int,
        directory: Path | None = None,  # noqa: ARG002 - all simulated EMSs are made alike
        site: str = "rugby",
        gsp_group: str = "_E",
        prefix: str = "RK",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if not 1 <= assets <= MOST_ASSETS:
            raise ValueError(f"this register map has room for 1 to {MOST_ASSETS} assets")
        self.host = host
        self.assets: tuple[PlantAsset, ...] = tuple(plant(site, assets, seed, gsp_group=gsp_group, prefix=prefix))
        self.unit_reference = f"{prefix}-UNIT01"
        self.bank = RegisterBank(_may_write, self._written)
        self._server = RegisterServer(self.bank, host=host, port=port)
        self._asked: deque[int] = deque()
        self._memory = Memory()
        self._stack = AsyncExitStack()
        self._fill()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._server)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            beating = group.create_task(self._beat())
            stack.callback(beating.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def request_assets(self) -> None:
        """Ask for the registration of every asset."""
        self._ask(ASSETS)

    async def request_unit(self, asset_keys: Sequence[str]) -> None:
        """Ask for the one unit, aligned to these assets."""
        numbers = [number for number, asset in enumerate(self.assets) if asset.reference in set(asset_keys)]
        capacity_kw = sum(self.assets[number].max_export_kw for number in numbers)
        head = _UNIT_HEAD.pack(b"Rugby Flexible Unit 1", b"DC", capacity_kw, self.assets[0].gsp_group.encode())
        bits = [sum(1 << number % 16 for number in numbers if number // 16 == word) for word in range(4)]
        self.bank.put_bytes(UNIT_BASE, head + struct.pack(">4H20s", *bits, self.unit_reference.encode()))
        self._memory.expect(self.unit_reference)
        self._ask(UNIT)

    def items(self) -> Mapping[str, ItemView]:
        """What was written back, by asset and unit reference, from this EMS's own memory."""
        return self._memory.items()

    def _fill(self) -> None:
        self.bank.put(0, [MAGIC, VERSION, len(self.assets), STRIDE, BASE, 0, 0, 0, 0, 0])
        for number, asset in enumerate(self.assets):
            self.bank.put_bytes(BASE + STRIDE * number, record_bytes(asset))
            self._memory.expect(asset.reference)

    def _ask(self, command: int) -> None:
        self._asked.append(command)
        self._next()

    def _next(self) -> None:
        """Raise the next request once the handshake of the last one is over: first the sequence, then the command."""
        if self._asked and not self.bank.get(COMMAND)[0] and not self.bank.get(STATUS)[0]:
            self.bank.put(SEQUENCE, [self.bank.get(SEQUENCE)[0] % 0xFFFF + 1])
            self.bank.put(COMMAND, [self._asked.popleft()])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            self.bank.put(HEARTBEAT, [(self.bank.get(HEARTBEAT)[0] + 1) & 0xFFFF])

    def _written(self, start: int, count: int) -> None:
        """What the program of the EMS does when the host has written."""
        if start <= STATUS < start + count:
            if self.bank.get(STATUS)[0] in _ANSWERED:
                self.bank.put(COMMAND, [0])
            self._next()
            return
        base, reference = self._owner(start)
        if start <= base + _RESULT < start + count:
            self._note(base, reference)

    def _owner(self, register: int) -> tuple[int, str]:
        if register >= UNIT_BASE:
            return UNIT_BASE, self.unit_reference
        number = (register - BASE) // STRIDE
        reference = self.assets[number].reference if number < len(self.assets) else f"empty slot {number}"
        return BASE + STRIDE * number, reference

    def _note(self, base: int, reference: str) -> None:
        state, _, code, transaction, _ = _RESULT_BLOCK.unpack(self.bank.get_bytes(base + _RESULT, 14))
        known = {int(item): item.word for item in EmsState}
        self._memory.note(
            reference,
            known.get(state, str(state)),
            transaction_id=transaction.rstrip(b"\0").decode("ascii", "replace"),
            error_code=str(code) if code else "",
        )


def record_bytes(asset: PlantAsset) -> bytes:
    """The registers +0 to +49 of an asset's record, with their CRC."""
    body = _RECORD.pack(
        asset.name.encode(),
        asset.import_mpan.encode(),
        asset.postcode.encode(),
        asset.gsp_group.encode(),
        asset.technology,
        round(asset.voltage_kv * 10),
        asset.max_export_kw,
        asset.max_import_kw,
        asset.storage_kwh,
        int(asset.commissioned.timestamp()),
        0,
    )
    reference = asset.reference.encode().ljust(20, b"\0")
    return body + struct.pack(">H", crc(body + reference)) + reference


def crc(data: bytes) -> int:
    """CRC-16/MODBUS, bit by bit."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return value


def _may_write(start: int, count: int) -> bool:
    """The host may write its answers in the header and the result blocks, nothing else."""
    if start >= STATUS and start + count <= ERROR + 1:
        return True
    base = UNIT_BASE if start >= UNIT_BASE else BASE + (start - BASE) // STRIDE * STRIDE
    inside = start >= BASE and (start < BASE + STRIDE * MOST_ASSETS or start >= UNIT_BASE)
    return inside and base + _RESULT <= start and start + count <= base + _RESULT_END
