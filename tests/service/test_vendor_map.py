"""The shipped site with an awkward vendor map and a CSV file beside it, once through the whole service: libmodbus on one side, the sandbox on the other."""

import asyncio
import os
import shutil
import struct
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from modbus_device import modbus_device
from processes import World, market_side
from service import CLOCK

from bridge.app import Host, Running
from bridge.config import load
from bridge.registry import find
from bridge.sandbox import Knobs, Refusal

SHIPPED = Path(__file__).parents[2] / "adapters/modbus"
ASK, ACKNOWLEDGED, ALARM, ERROR = 16, 32, 33, 399  # as on the wire: coils 17, 33, 34, register 40400
STRIDE = 24
WITHIN_S = 30


def asset(number: int, label: str, *, volts: int = 330) -> list[int]:
    """24 input registers, built without the adapter's codec: 49.5 MW with its words swapped, text with its bytes swapped."""
    text = label.ljust(16).encode()
    swapped = b"".join(text[at + 1 : at + 2] + text[at : at + 1] for at in range(0, 16, 2))
    return (
        list(struct.unpack(">14H", struct.pack(">HHHhhH", number, 0x0000, 0x4246, volts, -1, 0x0010) + swapped))
        + [0] * 10
    )


@asynccontextmanager
async def site(directory, device, knobs):
    """The sandbox, and a host with the shipped files as they are."""
    made = World(directory)
    async with AsyncExitStack() as stack:
        await market_side(made, stack, directory, profile="default", knobs=knobs)
        for name in ("vendor_map.yaml", "vendor_map.csv"):
            shutil.copy(SHIPPED / name, made.config / "sites" / name)
        ems = {"SMP_BRIDGE_DERBY_HOST": device.host, "SMP_BRIDGE_DERBY_PORT": str(device.port)}
        config = load(made.config, find, environ={**os.environ, **made.environment, **ems})
        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = Running()
        host = group.create_task(Host(config, clock=CLOCK).run(running))
        async with asyncio.timeout(WITHIN_S):
            await running.ready.wait()
        made.listening(running.returns_port)
        try:
            yield made
        finally:
            running.stop.set()
            async with asyncio.timeout(WITHIN_S):
                await host


async def ask(device):
    """The coil of the EMS rises, until the host says that the request is on disk."""
    await device.put(ASK, 1, table="coils")
    await until(device, "coils", ACKNOWLEDGED, 1)
    await device.put(ASK, 0, table="coils")
    await until(device, "coils", ACKNOWLEDGED, 0)


async def until(device, table, at, word):
    async with asyncio.timeout(WITHIN_S):
        while await device.words(at, table=table) != [word]:
            await asyncio.sleep(0.05)


async def test_a_vendor_map_from_request_to_written_back_outcome(tmp_path):
    """A coil asks and a coil acknowledges; eleven assets are registered, one is refused and its error stands in the EMS's own number; a drift raises the alarm coil."""
    refuse = {"VM07": Refusal(code="VALIDATION_ERROR", message="the MPAN is known elsewhere")}
    async with modbus_device() as device:
        for number in range(12):
            volts = -32768 if number == 4 else 330
            words = asset(number + 1, f"VM{number + 1:02d}", volts=volts)
            await device.put(STRIDE * number, *words, table="input")
        await device.order("busy", times=3, code=6)
        async with site(tmp_path, device, Knobs(refuse=refuse)) as made:
            await ask(device)
            await until(device, "holding", ERROR, 7)
            ledger = made.sandbox.ledger
            references = [f"VM{number:02d}" for number in range(1, 13)]
            assert [name for name in references if ledger.creates(name) != 1] == ["VM07"]
            assert await device.words(ALARM, table="coils") == [0]
            await device.put(3, 340, table="input")  # another voltage than the one that is registered
            await ask(device)
            await until(device, "coils", ALARM, 1)
            assert max(ledger.creates(name) for name in references) == 1
