"""The EMS behind MQTT, a process of its own: each message is a new asset that carries the moment of its publishing (CLOCK_MONOTONIC) as its name."""

import json
import random
import socket
import sys
import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

TOPIC = "bench/slot"
SLOTS = 100  # topics: places of the EMS, where one asset follows another


class Publisher:
    """One paho client without a thread: `publish` itself writes to the socket."""

    def __init__(self, port):
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.max_inflight_messages_set(0)
        self.client.on_socket_open = lambda _c, _u, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.connect("127.0.0.1", port)
        while not self.client.is_connected():
            self.client.loop(0.1)

    def paced(self, prefix, count, rate, seed=1):
        """So many a second, at random distances around that (half to one and a half), so that no rhythm of anybody meets them."""
        draw = random.Random(seed)
        due = time.monotonic()
        for number in range(count):
            due += draw.uniform(0.5, 1.5) / rate
            while (left := due - time.monotonic()) > 0:
                self.client.loop(left if left > 0.002 else 0.0)
            self._publish(prefix, number)
        self._drain()
        return {"last_ns": time.monotonic_ns()}

    def burst(self, prefix, count, topic=TOPIC, slots=SLOTS):
        """All as fast as the broker takes them."""
        for number in range(count):
            self._publish(prefix, number, topic, slots)
            if number % 200 == 199:
                self._drain()
        self._drain()
        return {"last_ns": time.monotonic_ns()}

    def _publish(self, prefix, number, topic=TOPIC, slots=SLOTS):
        body = {
            "id": f"{prefix}{number:06d}", "name": "", "mpan": "1910000000000", "postcode": "RH10 1AB", "gspGroup": "_J", "kw": 50,
        }  # fmt: skip
        body["name"] = f"T{time.monotonic_ns()}"
        self.last = self.client.publish(f"{topic}/{number % slots}", json.dumps(body), 1)

    def _drain(self):
        while not self.last.is_published():
            self.client.loop(0.05)


def main():
    publisher = Publisher(json.loads(sys.argv[1])["broker"])
    print(json.dumps({"port": 0}), flush=True)
    import select

    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 1.0)
        publisher.client.loop(0.0)
        if not ready:
            continue
        line = sys.stdin.readline()
        if not line:
            return
        order = json.loads(line)
        print(json.dumps(getattr(publisher, order.pop("op"))(**order)), flush=True)


if __name__ == "__main__":
    main()
