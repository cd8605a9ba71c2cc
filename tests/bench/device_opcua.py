"""The EMS behind OPC UA, a process of its own: asyncua's server without security; a new asset is written into a slot's variables with the moment."""

import asyncio
import json
import logging
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import asyncua  # noqa: E402
from children import serve  # noqa: E402

from bridge.demo.opcua_server import OpcUaServer, Variable, ua  # noqa: E402

SLOTS = 16
NAMESPACE = "urn:acme:bench"


class OpenServer(OpcUaServer):
    """The demo's server, for anybody and without security."""

    async def open_up(self):
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        server = asyncua.Server()
        await server.init()
        server.disable_clock()
        server.set_endpoint(f"opc.tcp://{self.host}:{self.port}/")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self.index = int(await server.register_namespace(NAMESPACE))
        self._server = server


class Device:
    """The address space and what the program of the EMS does with it."""

    def __init__(self, server, slots):
        self.server = server
        self.slots = slots
        self.written = {}
        self._number = 0

    async def fill(self):
        folders = [("EMS", ())]
        for slot in range(self.slots):
            text = [Variable(name, "String", value) for name, value in (("Name", ""), ("Reference", ""), ("MPAN", "1910000000000"), ("Postcode", "RH10 1AB"), ("GSPGroup", "_J"))]  # fmt: skip
            folders.append(
                (f"EMS/S{slot:04d}", [*text, Variable("KW", "Int32", 50), Variable("State", "Int32", 0, writable=True)])
            )
        await self.server.add(folders)
        for slot in range(self.slots):
            self.server.watch(f"EMS/S{slot:04d}/State", self._noting(slot))

    def _noting(self, slot):
        async def noted(number):
            if number:
                reference = self.server.get(f"EMS/S{slot:04d}/Reference")
                self.written.setdefault(reference, []).append((time.monotonic_ns(), number))

        return noted

    async def paced(self, prefix, count, rate, seed=1):
        """So many a second, at random distances around that; the same slot again only after all others."""
        draw, due = random.Random(seed), time.monotonic()
        for number in range(count):
            due += draw.uniform(0.5, 1.5) / rate
            await asyncio.sleep(due - time.monotonic())
            await self._put(f"{prefix}{number:05d}")
        return {"last_ns": time.monotonic_ns()}

    async def burst(self, prefix, count):
        """As many as there are slots, at most."""
        for number in range(count):
            await self._put(f"{prefix}{number:05d}")
        return {"last_ns": time.monotonic_ns()}

    async def _put(self, reference):
        """The name first: whoever sees the reference move sees the name that belongs to it."""
        place = f"EMS/S{self._number % self.slots:04d}"
        self._number += 1
        await self.server.put(f"{place}/Name", "String", f"T{time.monotonic_ns()}")
        await self.server.put(f"{place}/Reference", "String", reference)

    def outcomes(self, file=None):
        """How many references got a state; which and when (CLOCK_MONOTONIC) into a file where one is named."""
        if file:
            with open(file, "w") as out:
                json.dump(self.written, out)
        return {"written": len(self.written)}


async def main():
    options = json.loads(sys.argv[1])
    server = OpenServer(name="bench", application_uri="urn:acme:bench:ems", host="127.0.0.1", port=0)
    await server.open_up()
    device = Device(server, options.get("slots", SLOTS))
    await device.fill()
    async with server:
        await serve(device, port=server.port)


if __name__ == "__main__":
    asyncio.run(main())
