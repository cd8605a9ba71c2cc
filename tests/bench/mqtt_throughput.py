"""How fast the MQTT adapter takes requests, against mosquitto on this machine: `python tests/bench/mqtt_throughput.py [RATE]`.

Without RATE a flood of 20,000 requests (registrations known, QoS 1, TLS), acknowledged as they come; with RATE so many a second for 10 s, and the CPU time they cost.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

from mosquitto import Peer, mosquitto  # noqa: E402
from mqtt_site import ASSET, REQUEST, context_of, options_of, read_site, registration, request  # noqa: E402

from adapters.mqtt import ADAPTER  # noqa: E402

PLACES = 200
FLOOD = 20_000
EXTRA = "max_inflight_messages 0\nmax_queued_messages 0"


async def _publish(directory: Path, broker, count: int, rate: float) -> asyncio.subprocess.Process:
    """The requests, from a process of their own."""
    code = (
        "import sys, time, json\n"
        "from paho.mqtt import client as m, enums\n"
        f"c = m.Client(enums.CallbackAPIVersion.VERSION2); c.tls_set({str(broker.ca)!r}); c.max_inflight_messages_set(1000)\n"
        f"c.connect('127.0.0.1', {broker.port}); c.loop_start(); start = time.monotonic()\n"
        f"for n in range({count}):\n"
        f"    body = {json.dumps(json.dumps(request('R')))}.replace('\"R\"', '\"r-%d\"' % n)\n"
        f"    i = c.publish({REQUEST!r}.format('EV%03d' % (n % {PLACES})), body, 1)\n"
        f"    due = start + n / {rate or 1e9}\n"
        "    time.sleep(max(0, due - time.monotonic()))\n"
        "i.wait_for_publish(60); c.disconnect(); c.loop_stop()\n"
    )
    (directory / "publish.py").write_text(code)
    return await asyncio.create_subprocess_exec(sys.executable, str(directory / "publish.py"))


async def main(rate: float) -> None:
    """Measure once and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with mosquitto(directory / "broker", tls=True, extra=EXTRA) as broker:
            options = options_of(read_site(), **broker.options())
            async with Peer(broker) as ems, ADAPTER.open(context_of(options)) as session:
                for number in range(PLACES):
                    await ems.publish(ASSET.format(f"EV{number:03d}"), registration(number), retain=True)
                count = int(rate * 10) or FLOOD
                publisher = await _publish(directory, broker, count, rate)
                seen, batches = 0, 0
                first = cpu = 0.0
                while seen < count:
                    arrivals = await session.receive()
                    if not seen:
                        first, cpu = time.perf_counter(), time.process_time()
                    seen += len(arrivals)
                    batches += 1
                    for arrival in arrivals:
                        assert arrival.records[0].complete
                        arrival.ack(True)
                took, used = time.perf_counter() - first, time.process_time() - cpu
                await publisher.wait()
                print(f"{seen} requests in {took:.2f} s: {seen / took:.0f} a second, {1e6 * used / seen:.0f} µs CPU each, {100 * used / took:.1f} % of one core, {seen / batches:.1f} a batch")  # fmt: skip


asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
