"""The SMP half of the reference scripts: ES256, POST over kept-alive TLS, and with a journal one durable commit before each POST (README.md, "Floors").

The least code that does this at all, as good as it can be made; nothing is checked, retried or followed up. With one `floor_PROTOCOL.py` it has at most
120 lines. Pinned by `floors.sha256`; changed only in a commit of its own that tells the figures before and after.
"""

import asyncio
import gc
import json
import sqlite3
import ssl
import sys
from base64 import urlsafe_b64encode
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from uuid import uuid4

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ES256 = ec.ECDSA(SHA256())
HEAD = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nAccept-Encoding: identity\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
CONST = {"connectionType": "DISTRIBUTION", "connectionVoltageKv": 0.4, "technologyType": "EV_CHARGING", "meteringType": "HH", "meteringIntervalMs": 1800000, "effectiveFrom": "2026-12-01T00:00:00Z"}  # fmt: skip


def b64(data):
    return urlsafe_b64encode(data).rstrip(b"=")


class Connection(asyncio.Protocol):
    def __init__(self, answered):
        self.answered, self.buffer = answered, b""

    def connection_made(self, transport):
        self.write = transport.write

    def data_received(self, data):
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self.buffer = b""
            self.answered(self, body)


class Smp:
    async def open(self, options, connections=4):  # as many calls at a time as the default profile allows
        self.loop, self.free, self.waiting = asyncio.get_running_loop(), [], deque()
        self.key = load_pem_private_key(Path(options["key"]).read_bytes(), None)
        self.protected = b64(orjson.dumps({"alg": "ES256", "kid": options["kid"]}))
        to = {"host": "127.0.0.1", "port": options["port"], "ssl": ssl.create_default_context(cafile=options["ca"])}
        told = self.loop.create_future()
        _, login = await self.loop.create_connection(lambda: Connection(lambda _, body: told.set_result(body)), **to)
        login.write(HEAD % (b"/api/v1/authenticate", b"", len(options["login"]), options["login"].encode()))
        self.token = (
            b"Authorization: Bearer %b\r\nx-jws-signature: " % orjson.loads(await told)["access_token"].encode()
        )
        for _ in range(connections):
            self.free.append((await self.loop.create_connection(lambda: Connection(self.answered), **to))[1])
        self.queue = SimpleQueue() if options["journal"] else None
        if self.queue is not None:
            Thread(target=self.keep, args=(options["journal"],), daemon=True).start()
        sys.setswitchinterval(0.0002)
        gc.freeze()

    def keep(self, path):
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, reference TEXT, call BLOB)")
        while True:
            reference, call, done = self.queue.get()
            db.execute(
                "INSERT INTO calls (reference, call) VALUES (?, ?)", (reference, call)
            )  # a transaction of its own
            self.loop.call_soon_threadsafe(self.kept, call, done)

    def kept(self, call, done):
        self.post(call)
        done()

    def send(self, fields, done=lambda: None):
        """One asset as one call; `done` is called once it is in the journal, or at once without one."""
        meta = {"messageId": str(uuid4()), "messageType": "asset.create", "schemaVersion": "1.0", "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z", "environment": "TEST", "sender": "ACME", "recipient": "SMP", "correlationId": str(uuid4())}  # fmt: skip
        body = orjson.dumps({**meta, "data": {"assets": [{**fields, **CONST}]}})
        r, s = utils.decode_dss_signature(self.key.sign(self.protected + b"." + b64(body), ES256))
        extra = self.token + self.protected + b".." + b64(r.to_bytes(32, "big") + s.to_bytes(32, "big")) + b"\r\n"
        call = HEAD % (b"/api/v1/assets", extra, len(body), body)
        if self.queue is not None:
            self.queue.put((fields["assetReference"], call, done))
        else:
            self.kept(call, done)

    def post(self, call):
        if self.free:
            self.free.pop().write(call)
        else:
            self.waiting.append(call)

    def answered(self, connection, _):
        if self.waiting:
            connection.write(self.waiting.popleft())
        else:
            self.free.append(connection)


def run(work):
    """Run one reference script: its options are JSON in its only argument; it says when it is ready, and ends by a signal."""
    options, smp = json.loads(sys.argv[1]), Smp()

    async def main():
        await smp.open(options)
        await work(options, smp)

    asyncio.run(main())
