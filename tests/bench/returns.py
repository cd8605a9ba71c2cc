"""Returns as SMP pushes them: signed, over one kept-alive TLS connection to the bridge's own end point, each timed from its first byte out to its 2xx."""

import asyncio
import json
import ssl
import time
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ES256 = ec.ECDSA(SHA256())
CONNECTIONS = 4
HEAD = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nx-jws-signature: %b\r\nContent-Length: %d\r\n\r\n%b"


def b64(data):
    return urlsafe_b64encode(data).rstrip(b"=")


class Pusher:
    """Pushes what is due; `pushed` holds for each its references, when its first byte left, when its answer came, and the answer's status."""

    def __init__(self, options):
        self.key = load_pem_private_key(Path(options["smp_key"]).read_bytes(), None)
        self.protected = b64(json.dumps({"alg": "ES256", "kid": options["smp_kid"]}).encode())
        self.ca = options["ca"]
        self.pushed = []
        self._queue = asyncio.Queue()
        self._tasks = []
        self._delay_s = 0.0

    def turn(self, url, delay_s):
        for task in self._tasks:
            task.cancel()
        self._tasks, self._queue, self._delay_s = [], asyncio.Queue(), delay_s
        if url:
            address, _, path = url.removeprefix("https://").partition("/")
            port = int(address.rpartition(":")[2])
            self._tasks = [asyncio.ensure_future(self._push(port, f"/{path}".encode())) for _ in range(CONNECTIONS)]

    def reset(self):
        self.pushed.clear()

    def due(self, transaction, body):
        if self._tasks:
            asyncio.get_running_loop().call_later(self._delay_s, self._queue.put_nowait, (transaction, body))

    async def _push(self, port, path):
        context = ssl.create_default_context(cafile=self.ca)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            while True:
                transaction, create = await self._queue.get()
                if reader.at_eof():  # nobody pushed for longer than the end point keeps a connection
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                references, body = self._message(transaction, json.loads(create))
                r, s = utils.decode_dss_signature(self.key.sign(self.protected + b"." + b64(body), ES256))
                token = self.protected + b".." + b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
                request = HEAD % (path, token, len(body), body)
                sent_ns = time.monotonic_ns()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                answered_ns = time.monotonic_ns()
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
                self.pushed.append((references, sent_ns, answered_ns, int(head.split(b" ", 2)[1])))
        finally:
            writer.close()

    def _message(self, transaction, create):
        references = [asset["assetReference"] for asset in create["data"]["assets"]]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
        message = {
            "messageId": str(uuid4()), "messageType": "batch.return", "schemaVersion": "1.0", "timestamp": now, "environment": "TEST",
            "sender": "SMP", "recipient": "ACME", "correlationId": create["correlationId"],
            "data": {"transactionId": transaction, "transactionType": "asset.create", "result": "SUCCESS", "completedAt": now,
                     "created": [{"assetReference": one, "assetId": f"ID-{one}"} for one in references], "errors": []},
        }  # fmt: skip
        return references, json.dumps(message).encode()
