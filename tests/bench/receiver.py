"""SMP as the bench sees it, a process of its own: a TLS server that answers each call at once and stamps the first byte of each request.

The stamp is CLOCK_MONOTONIC in `data_received`, before anything of the request is looked at. Requests are kept as they came and judged when they are
asked for, so that judging costs the measurement nothing. Standard input: one JSON order a line; standard output: one JSON answer a line.
"""

import asyncio
import itertools
import json
import ssl
import sys
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

from children import serve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from returns import Pusher

ES256 = ec.ECDSA(SHA256())
ANSWER = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class Receiver:
    """What was received since the last `reset`."""

    def __init__(self, options):
        self.public = load_pem_private_key(Path(options["participant_key"]).read_bytes(), None).public_key()
        self.creates = []
        self.assets = [0, 0]  # how many were counted, in how many of the creates
        self.transactions = itertools.count(1)
        self.others = {"authenticate": 0, "status": 0}
        self.pusher = Pusher(options)

    def take(self, first_ns, head, body):
        """One whole request; returns its answer."""
        path = head.split(b" ", 2)[1]
        if path == b"/api/v1/assets":
            transaction = b"T%012d" % next(self.transactions)  # never one twice, whatever was reset
            self.creates.append((first_ns, head, body))
            self.pusher.due(transaction.decode(), body)
            return (
                b"202 Accepted",
                b'{"transactionId":"%b","status":"RECEIVED","receivedAt":"2026-11-25T00:00:00.000Z"}' % transaction,
            )
        if path == b"/api/v1/authenticate":
            self.others["authenticate"] += 1
            return b"200 OK", b'{"access_token":"of-the-bench","expires_in":3600}'
        self.others["status"] += 1
        transaction = json.loads(body)["data"]["transactionId"]
        return b"200 OK", json.dumps({"transactionId": transaction, "status": "PROCESSING"}).encode()

    # orders -------------------------------------------------------------------------------------------------------------

    def reset(self):
        self.creates.clear()
        self.assets = [0, 0]
        self.pusher.reset()
        return {}

    def count(self):
        """Calls and the assets in them."""
        assets, creates = self.assets
        assets += sum(body.count(b'"assetReference"') for *_, body in self.creates[creates:])
        self.assets = [assets, len(self.creates)]
        return {"creates": len(self.creates), "assets": assets, **self.others}

    def returns(self, url=None, delay_s=0.05):
        """Push a return for each Create from now on; without a URL hold them back."""
        self.pusher.turn(url, delay_s)
        return {}

    def pushed(self, file=None):
        """How many returns were answered; each of them into a file where one is named."""
        if file:
            with open(file, "w") as out:
                json.dump(self.pusher.pushed, out)
        return {"pushed": len(self.pusher.pushed)}

    def dump(self, file):
        """What each Create said, when its first byte came, and whether its signature is the participant's. Goes to a file: it may be large."""
        found = [self._judged(*create) for create in self.creates]
        with open(file, "w") as out:
            json.dump(found, out)
        return {"creates": len(found)}

    def _judged(self, first_ns, head, body):
        assets = json.loads(body)["data"]["assets"]
        return {"first_ns": first_ns, "good": self._verified(head, body), "bytes": len(head) + 4 + len(body),
                "assets": [(asset["assetReference"], asset["assetName"]) for asset in assets]}  # fmt: skip

    def _verified(self, head, body):
        values = [
            value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
            if name.lower() == b"x-jws-signature"
        ]
        if len(values) != 1:
            return False
        protected, middle, signature = values[0].split(b".")
        raw = urlsafe_b64decode(signature + b"==")
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        signed = protected + b"." + urlsafe_b64encode(body).rstrip(b"=")
        try:
            self.public.verify(utils.encode_dss_signature(r, s), signed, ES256)
        except InvalidSignature:
            return False
        return middle == b"" and len(raw) == 64 and json.loads(urlsafe_b64decode(protected + b"=="))["alg"] == "ES256"


class Connection(asyncio.Protocol):
    """One connection; requests one after the other."""

    def __init__(self, receiver):
        self.receiver = receiver
        self.buffer = bytearray()
        self.first_ns = 0
        self.need = 0  # bytes until the request is whole, once its head was seen

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        now_ns = time.monotonic_ns()
        if not self.buffer:
            self.first_ns, self.need = now_ns, 0
        self.buffer += data
        while self.buffer and len(self.buffer) >= self.need:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            self.need = end + 4 + length
            if len(self.buffer) < self.need:
                return
            body = bytes(self.buffer[end + 4 : self.need])
            del self.buffer[: self.need]
            status, answer = self.receiver.take(self.first_ns, head, body)
            self.transport.write(ANSWER % (status, len(answer), answer))
            self.first_ns, self.need = now_ns, 0


async def main():
    options = json.loads(sys.argv[1])
    receiver = Receiver(options)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options["certificate"], options["private_key"])
    server = await asyncio.get_running_loop().create_server(lambda: Connection(receiver), "127.0.0.1", 0, ssl=context)
    await serve(receiver, port=server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    asyncio.run(main())
