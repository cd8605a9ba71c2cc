"""The end point on a real socket and a real journal, and a sender that can make any message."""

import copy
import json
import socket
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from bridge.clock import SystemClock, iso_ms
from bridge.envelope import Algorithm, PublicKey, sign
from bridge.envelope.base64url import encode
from bridge.ids import submission_ids
from bridge.journal.sqlite import open_journal
from bridge.keys import KeySigner, new_key, public_from_jwk
from bridge.market.calls import Identity
from bridge.market.endpoint import Inbox, ReturnsEndpoint
from bridge.market.report import MarketMetrics
from bridge.market.returns import ReturnReader
from bridge.profile import SignatureForm, load_profile

PATH = "/v1/returns/acme-test"
HEADER = "x-jws-signature"


def signer(alg=Algorithm.ES256, kid="smp-1"):
    return KeySigner(kid, alg, new_key(alg))


def public(key, **changes) -> PublicKey:
    return public_from_jwk("test", {**key.public_jwk(), **changes})


class Counters(MarketMetrics):
    def __init__(self):
        self.refusals, self.taken = [], []

    def refused(self, reason):
        self.refusals.append(reason)

    def returned(self, verdict):
        self.taken.append(verdict)


class Tracker:
    def __init__(self):
        self.messages = []

    def returned(self, message):
        self.messages.append(message)


@dataclass
class Sender:
    """Knows SMP's key and how a return looks; every part of a message may be changed before it is sent."""

    url: str
    key: KeySigner
    counters: Counters
    tracker: Tracker
    journal: object
    http: aiohttp.ClientSession
    clock: SystemClock = field(default_factory=SystemClock.here)

    def message(self, **changes):
        base = {
            "messageId": str(uuid.uuid4()),
            "messageType": "batch.return",
            "schemaVersion": "1.0",
            "timestamp": iso_ms(self.clock.wall_ns()),
            "environment": "TEST",
            "sender": "SMP",
            "recipient": "ACME",
            "correlationId": "s-1",
            "data": {"transactionId": "a0B1", "transactionType": "asset.create", "result": "SUCCESS"},
        }
        merged = copy.deepcopy(base)
        for name, value in changes.items():
            if isinstance(value, dict):
                merged[name] = {**merged[name], **value}
            else:
                merged[name] = value
        return merged

    def sign(self, body, key=None, **protected):
        return sign(SignatureForm.JWS_DETACHED, body, key or self.key, protected).token

    def forge(self, body, header, key=None):
        """A token whose protected header is these exact bytes, truly signed."""
        key = key or self.key
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        signature = key.sign(f"{encode(head)}.{encode(body)}".encode())
        return f"{encode(head)}..{encode(signature)}"

    async def post(self, body, tokens=(), *, headers=None, path=PATH, method="POST"):
        sent = [("Content-Type", "application/json"), *((HEADER, token) for token in tokens), *(headers or [])]
        from multidict import CIMultiDict

        async with self.http.request(method, self.url + path, data=body, headers=CIMultiDict(sent)) as answer:
            return answer.status, await answer.read()

    async def good(self, message=None):
        body = json.dumps(message or self.message()).encode()
        return await self.post(body, [self.sign(body)])

    async def refused(self, status, reason, body, tokens, **how):
        """This message gets `status`, a body without a hint, and exactly this reason on our side; nothing is stored."""
        before, stored = len(self.counters.refusals), (await self.journal.counts()).get("returns")
        found, answer = await self.post(body, tokens, **how)
        assert (found, self.counters.refusals[before:]) == (status, [reason])
        assert reason not in answer.decode()
        if status != 409:
            assert (await self.journal.counts()).get("returns") == stored
        return answer


@asynccontextmanager
async def listening(directory, *, profile="default", keys=None, key=None):
    clock = SystemClock.here()
    key = key or signer()
    journal = await open_journal(directory / "journal.db", clock=clock, role="market", new_id=submission_ids(clock))
    fence = await journal.acquire("market:acme-test")
    counters, tracker = Counters(), Tracker()
    identity = Identity(participant="acme-test", sender="ACME", recipient="SMP", environment="TEST")
    reader = ReturnReader(
        identity=identity, profile=load_profile(profile), keys=keys if keys is not None else {key.kid: public(key)}
    )
    endpoint = ReturnsEndpoint(
        [Inbox(participant="acme-test", reader=reader, tracker=tracker, fence=fence)],
        journal=journal,
        clock=clock,
        metrics=counters,
    )
    runner = web.AppRunner(endpoint.application(), access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        async with aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Sender(url, key, counters, tracker, journal, http)
    finally:
        await runner.cleanup()
        await journal.release([fence])
        await journal.close()


@pytest.fixture
async def smp(tmp_path):
    """A sender whose first message was just answered 202, so that each refusal is one stated change."""
    async with listening(tmp_path) as sender:
        status, _ = await sender.good()
        assert status == 202
        yield sender


@pytest.fixture
def body(smp):
    return json.dumps(smp.message()).encode()
