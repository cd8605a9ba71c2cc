"""A session in a process of its own, to be killed: prints the id of each request and acknowledges none. Run with the checkout and tests/support on PYTHONPATH."""

import asyncio
import sys

from mqtt_site import context_of, options_of, read_site

from adapters.mqtt import ADAPTER


async def main(port: int, version: str) -> None:
    """Until killed."""
    options = options_of(read_site(), host="127.0.0.1", port=port, version=version)
    async with ADAPTER.open(context_of(options)) as session:
        while True:
            for arrival in await session.receive():
                print(arrival.records[0].request, flush=True)


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
