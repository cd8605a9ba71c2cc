"""How long each adapter takes to read an EMS whole, against servers on this machine: `python tests/bench/reading.py [PROTOCOL …] [--times 3]`.

1,000 assets with 20 fields each, from the opening of a session (or the EMS's request) to the last record, and this process's CPU time of it.
Ends with 1 where the median of a row is above 5 s. One function for each protocol yields its rows.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

MOST_S = 5.0


class Row(NamedTuple):
    """One way of reading: seconds and CPU seconds of each time."""

    name: str
    took_s: Sequence[float]
    cpu_s: Sequence[float]


async def mqtt(directory: Path, times: int) -> AsyncIterator[Row]:
    """mosquitto and aedes over TLS: retained registrations on change in each format, and requests that came while nobody was there."""
    from aedes import aedes  # noqa: PLC0415 - each protocol's own peers
    from mosquitto import mosquitto  # noqa: PLC0415
    from mqtt_site import context_of, options_of, read_site  # noqa: PLC0415
    from mqtt_whole import UNBOUNDED, ask, fill, flow, read_whole  # noqa: PLC0415

    from adapters.mqtt import ADAPTER  # noqa: PLC0415

    async def rows(peer: str, broker, version: str, kind: str) -> AsyncIterator[Row]:
        options = options_of(read_site(), **broker.options(version=version))
        await fill(broker, kind)
        found = [await read_whole(options, flow(kind)) for _ in range(times)]
        yield Row(f"mqtt, {peer}, {version}, {kind}, on change", *zip(*found, strict=True))
        if kind != "json":
            return
        found = []
        for _ in range(times):
            async with ADAPTER.open(context_of(options, flow(kind, asked=True))):
                pass
            await ask(broker)
            found.append(await read_whole(options, flow(kind, asked=True)))
        yield Row(f"mqtt, {peer}, {version}, {kind}, requests kept", *zip(*found, strict=True))

    for kind, version in (("json", "3.1.1"), ("json", "5"), ("jmespath", "5"), ("csv", "5"), ("plain", "5")):
        async with mosquitto(directory / f"{kind}-{version}", tls=True, extra=UNBOUNDED) as broker:
            async for row in rows("mosquitto", broker, version, kind):
                yield row
    for kind in ("json", "plain"):
        async with aedes(directory / f"aedes-{kind}", tls=True) as broker:
            await broker.start()
            async for row in rows("aedes", broker, "3.1.1", kind):
                yield row


async def modbus(directory: Path, times: int) -> AsyncIterator[Row]:
    """libmodbus and jsmodbus over TCP, and libmodbus behind TLS whose far end is in this process: one request after the other on one session."""
    import ssl  # noqa: PLC0415

    import trustme  # noqa: PLC0415
    from modbus_device import JSMODBUS, LIBMODBUS, modbus_device  # noqa: PLC0415
    from modbus_lines import tls_in_front  # noqa: PLC0415
    from modbus_whole import fill, read_whole  # noqa: PLC0415

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for peer, command in (("libmodbus", LIBMODBUS), ("jsmodbus", JSMODBUS)):
        async with modbus_device(command) as device:
            await fill(device)
            yield Row(f"modbus, {peer}, tcp", *zip(*await read_whole(device, device.port, times), strict=True))
            if peer == "libmodbus":
                async with tls_in_front(device.port, context) as port:
                    found = await read_whole(device, port, times, tls={"ca": str(directory / "ca.pem")})
                yield Row(f"modbus, {peer}, tls", *zip(*found, strict=True))


async def opcua(directory: Path, times: int) -> AsyncIterator[Row]:
    """node-opcua over Basic256Sha256 and SignAndEncrypt: the library alone as the floor, then all of it on change, told and polled."""
    from opcua_peer import opcua_peer  # noqa: PLC0415 - each protocol's own peers
    from opcua_whole import fill, read_floor, read_whole  # noqa: PLC0415

    async with opcua_peer(directory) as peer:
        await fill(peer)
        await peer.start()
        found = [await read_floor(peer) for _ in range(times)]
        yield Row("opcua, node-opcua, the library alone, node ids known", *zip(*found, strict=True))
        for watch in ("subscription", "polling"):
            found = [await read_whole(peer, watch=watch) for _ in range(times)]
            yield Row(f"opcua, node-opcua, {watch}, on change", *zip(*found, strict=True))


PROTOCOLS: dict[str, Callable[[Path, int], AsyncIterator[Row]]] = {"mqtt": mqtt, "modbus": modbus, "opcua": opcua}


async def main(protocols: list[str], times: int) -> int:
    """One after the other."""
    slow = 0
    with tempfile.TemporaryDirectory() as name:
        for protocol in protocols:
            async for row in PROTOCOLS[protocol](Path(name), times):
                median = statistics.median(row.took_s)
                slow += median > MOST_S
                print(
                    f"{row.name}: {median:.2f} s at the median of {times}, {max(row.took_s):.2f} s at worst, "
                    f"{statistics.median(row.cpu_s):.2f} s CPU",
                    flush=True,
                )
    return int(slow > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocols", nargs="*", default=list(PROTOCOLS), choices=[*PROTOCOLS, []], metavar="PROTOCOL")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.protocols, given.times)))
