"""The EMS behind Modbus TCP, a process of its own: a new asset is written into a slot of its registers together with the moment (CLOCK_MONOTONIC)."""

import asyncio
import json
import random
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from children import serve  # noqa: E402

from bridge.demo.modbus_server import RegisterBank, RegisterServer  # noqa: E402

STRIDE = 30
SLOTS = 4  # one request of 120 registers reads them all
CALL_BASE = 200  # the records of the 1000-asset call begin here
CALL_STRIDE = 60
HEADER = 190  # command, sequence, status, error
ANSWERED = (3, 4)
RECORD = struct.Struct(">20s12s14s8s2sH2x")  # name, reference, MPAN, postcode, GSP group, kW, spare: 30 registers


def record(name, reference):
    """The 30 registers of one asset."""
    return RECORD.pack(name.encode(), reference.encode(), b"1910000000000", b"RH10 1AB", b"_J", 50)


class Device:
    """The register bank and what the program of the EMS does with it."""

    def __init__(self, slots=SLOTS, stride=STRIDE):
        self.slots, self.stride = slots, stride
        self.bank = RegisterBank(lambda _start, _count: True, self._wrote)
        self._number = 0

    def _wrote(self, start, count):
        """The program of the EMS takes its command back once the host has answered it."""
        if start <= HEADER + 2 < start + count and self.bank.get(HEADER + 2)[0] in ANSWERED:
            self.bank.put(HEADER, [0])

    async def paced(self, prefix, count, rate, seed=1):
        """So many a second, at random distances around that; the same slot again only after four."""
        draw, due = random.Random(seed), time.monotonic()
        for number in range(count):
            due += draw.uniform(0.5, 1.5) / rate
            await asyncio.sleep(due - time.monotonic())
            self._put(f"{prefix}{number:05d}")
        return {"last_ns": time.monotonic_ns()}

    def burst(self, prefix, count):
        """As many as there are slots, at most."""
        for number in range(count):
            self._put(f"{prefix}{number:05d}")
        return {"last_ns": time.monotonic_ns()}

    def _put(self, reference):
        self.bank.put_bytes(self._number % self.slots * self.stride, record(f"T{time.monotonic_ns()}", reference))
        self._number += 1

    async def call(self, prefix, count):
        """Ask for the registration of so many new assets at once: the records first, then the sequence, then the command."""
        async with asyncio.timeout(30):
            while self.bank.get(HEADER)[0] or self.bank.get(HEADER + 2)[0]:
                await asyncio.sleep(0.01)
        for number in range(count):
            self.bank.put_bytes(
                CALL_BASE + number * CALL_STRIDE, record(f"T{time.monotonic_ns()}", f"{prefix}{number:05d}")
            )
        asked_ns = time.monotonic_ns()
        self.bank.put(HEADER + 1, [self.bank.get(HEADER + 1)[0] + 1])
        self.bank.put(HEADER, [1])
        return {"asked_ns": asked_ns}


async def main():
    device = Device(**json.loads(sys.argv[1]))
    async with RegisterServer(device.bank) as server:
        await serve(device, port=server.port)


if __name__ == "__main__":
    asyncio.run(main())
