"""The reference script for Modbus TCP: pymodbus reads all slots every 10 ms and compares them with the last reading. See floor_smp.py."""

import asyncio

from floor_smp import run
from pymodbus.client import AsyncModbusTcpClient


async def work(options, smp):
    client = AsyncModbusTcpClient("127.0.0.1", port=options["peer"], retries=0)
    await client.connect()
    loop, before = asyncio.get_running_loop(), [b"\0" * 60] * 4
    due = loop.time()
    while True:
        words = (await client.read_holding_registers(0, count=120)).registers
        data = b"".join(word.to_bytes(2, "big") for word in words)
        for slot, old in enumerate(before):
            now = before[slot] = data[60 * slot : 60 * slot + 60]
            if now != old:
                text = lambda start, end, now=now: now[start:end].rstrip(b"\0").decode()  # noqa: E731
                fields = {"assetReference": text(20, 32), "assetName": text(0, 20), "importMpan": text(32, 46), "postcode": text(46, 54), "gspGroup": text(54, 56), "maxExportKw": words[30 * slot + 28], "maxImportKw": words[30 * slot + 28]}  # fmt: skip
                smp.send(fields)
        due += 0.01 * (1 + max(0.0, loop.time() - due) // 0.01)
        await asyncio.sleep(due - loop.time())


run(work)
