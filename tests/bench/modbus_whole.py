"""How long the Modbus adapter takes to read an EMS whole, against libmodbus on this machine: `python tests/bench/modbus_whole.py [TIMES]`.

1,000 assets with 20 fields each in 60,000 holding registers: from the request to the arrival of the last record, and the CPU time of it, over TCP
and over TLS.
"""

import asyncio
import ssl
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

import trustme  # noqa: E402
from modbus_device import modbus_device  # noqa: E402
from modbus_lines import tls_in_front  # noqa: E402
from modbus_site import context_of  # noqa: E402
from modbus_whole import FIELDS, PLACES, REQUEST, WRITABLE, ask, fill, selection  # noqa: E402

from adapters.modbus import ADAPTER  # noqa: E402
from adapters.modbus.config import ModbusOptions  # noqa: E402

WITHIN_S = 60.0


async def measure(times: int, ca: Path | None, context: ssl.SSLContext | None) -> None:
    """So many requests on one session."""
    async with AsyncExitStack() as stack:
        device = await stack.enter_async_context(modbus_device())
        await fill(device)
        port = device.port
        if context is not None:
            port = await stack.enter_async_context(tls_in_front(port, context))
        way = {"tls": {"ca": str(ca)}} if ca is not None else {}
        options = ModbusOptions.model_validate(
            {"host": "127.0.0.1", "port": port, "poll": "10ms", "timeout": "5s", "writable": WRITABLE, **way}
        )
        session = await stack.enter_async_context(ADAPTER.open(context_of(options, [selection()])))
        took, used = [], []
        for turn in range(times):
            await ask(device, turn + 1)
            begun, cpu = time.perf_counter(), time.process_time()
            async with asyncio.timeout(WITHIN_S):
                (arrival,) = await session.receive()
            took.append(time.perf_counter() - begun)
            used.append(time.process_time() - cpu)
            assert len(arrival.records) == PLACES
            await device.put(REQUEST, 0)
            await asyncio.sleep(0.05)
        name = "TCP" if ca is None else "TLS (with the end of TLS in this process)"
        print(
            f"{name}: {PLACES} assets with {len(FIELDS)} fields in {statistics.median(took):.2f} s at the median of {times}, "
            f"{max(took):.2f} s at worst, {statistics.median(used):.2f} s CPU"
        )


async def main(times: int) -> None:
    """One transport after the other."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with tempfile.TemporaryDirectory() as folder:
        ca = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        await measure(times, None, None)
        await measure(times, ca, context)


asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
