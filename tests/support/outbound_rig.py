"""The real sender on a real journal against a server that misbehaves."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import smp_server as smp
from end_point import profile_of, signer

from bridge.ids import new_message_id, submission_ids
from bridge.journal.port import Candidate
from bridge.journal.sqlite import open_journal
from bridge.keys import public_from_jwk
from bridge.market.calls import CallMaker, Identity
from bridge.market.client import ClientSettings, SmpClient
from bridge.market.outbound import Outbound
from bridge.market.pace import CIRCUIT_DELAYS_S, Pace
from bridge.market.report import MarketMetrics
from bridge.market.token import TokenKeeper
from bridge.market.tracker import Tracker
from bridge.model import Kind, Operation, Trigger
from bridge.platform import Exchange
from bridge.profile import SignatureForm
from bridge.sandbox.jose import SigningKey
from bridge.validation import compile_validator
from bridge.vocabulary import load_vocabulary
from bridge.wire import Token

CLOCK = smp.CLOCK
ASSETS, LOGIN = "/api/v1/assets", "/api/v1/authenticate"
TAKEN = smp.answer("202 Accepted", '{"transactionId":"a0B1"}')
SMP_KEY = SigningKey("smp-1")


PASSWORD = "planted-password-7Q"


class Rig:
    def __init__(self, journal, field, outbound, pace, peer):
        self.journal, self.field, self.outbound, self.pace, self.peer = journal, field, outbound, pace, peer

    async def submit(self, *keys, **changes):
        await self.journal.accept(self.field, [replace(_candidate(key), **changes) for key in keys])

    async def view(self):
        [view] = await self.journal.submissions()
        return view

    async def until(self, state, within_s=8.0):
        """Wait until the one submission is in this state; returns it."""
        found = None
        try:
            async with asyncio.timeout(within_s):
                while (found := await self.view()).state.value != state:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"the submission is {found.state.value}: {found.reason}, expected {state}") from None
        return found

    async def alarms(self):
        return sorted({alarm.code for alarm in await self.journal.alarms()})

    @property
    def creates(self):
        return self.peer.script.on(ASSETS)


def _candidate(key):
    content = json.dumps({"assetReference": key, "assetName": "A"}).encode()
    return Candidate(
        site="north", flow="assets", place=key, participant="acme", operation=Operation.ASSET_CREATE, trigger=Trigger.CHANGE,
        request=None, key=key, content=content, digest=key.encode(), stamps={"received": CLOCK.now()},
    )  # fmt: skip


def logins(prefix="t"):
    """A login that gives t1, t2, …, each once."""
    count = 0

    async def step(request, writer):
        nonlocal count
        count += 1
        writer.write(smp.answer(body=json.dumps({"access_token": f"{prefix}{count}", "expires_in": 3600})))

    return step


async def given_token():
    return Exchange(sent=True, status=200), Token("secret-token", 3600.0)


@asynccontextmanager
async def market(
    directory,
    *steps,
    url=None,
    login=None,
    settings=None,
    profile=None,
    peer_options=None,
    rest=None,
    circuit=None,
    held=lambda: False,
    metrics=None,
    jitter=0.5,
):
    """One participant's sender; SMP is a server with this script, or whatever stands at `url` (then the token is simply there).

    `circuit` are the pauses in seconds after refusals that no single record causes; `held` says whether the clock holds signing; `metrics` hears what is reported,
    `jitter` is what is drawn between 0 and 1 each time.
    """
    parsed = profile_of("default", **{"retry": {"delays_s": [30]}, **(profile or {})})
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(
            smp.smp_server(*steps, rest=rest, by_path={LOGIN: login or logins()}, **(peer_options or {}))
        )
        (directory / "ca.pem").write_bytes(peer.authority.pem)
        values = {
            "base_url": url or peer.url(),
            "ca_file": str(directory / "ca.pem"),
            "answer_s": 5.0,
            **(settings or {}),
        }
        client = await stack.enter_async_context(SmpClient(ClientSettings(**values), clock=CLOCK))
        journal = await open_journal(directory / "journal.db", clock=CLOCK, role="all", new_id=submission_ids(CLOCK))
        stack.push_async_callback(journal.close)
        field, fence = await journal.acquire("field:north"), await journal.acquire("market:acme")
        maker = CallMaker(
            identity=Identity(participant="acme", sender="ACME", recipient="SMP", environment="TEST"), profile=parsed,
            vocabulary=load_vocabulary(), signer=signer(kid="acme-1"), keys=_smp_keys(),
            unit_validators={("north", "unit"): compile_validator(parsed, Kind.UNIT, {})}, clock=CLOCK, new_message_id=new_message_id,
            new_submission=submission_ids(CLOCK), jitter=lambda: jitter,
        )  # fmt: skip

        async def log_in():
            call = maker.login("acme", PASSWORD)
            exchange = await client.post(call.path, method=call.method, headers=call.headers, body=call.body)
            return exchange, maker.read_login(exchange)

        async def stopped(text):
            await journal.alarm("ACCOUNT_STOPPED", participant="acme", text=text)

        parts = {
            "journal": journal,
            "fence": fence,
            "maker": maker,
            "client": client,
            "clock": CLOCK,
            "metrics": metrics or MarketMetrics(),
        }
        parts["tokens"] = TokenKeeper(given_token if url else log_in, clock=CLOCK, stopped=stopped)
        pace = Pace(
            clock=CLOCK,
            rate_per_s=0,
            burst=10,
            concurrency=4,
            jitter=lambda: jitter,
            circuit_s=circuit or CIRCUIT_DELAYS_S,
            held=held,
        )
        tracker = Tracker(participant="acme", pace=pace, **parts)
        outbound = Outbound(participant="acme", tracker=tracker, pace=pace, **parts)
        tasks = [asyncio.get_running_loop().create_task(part.run()) for part in (tracker, outbound)]
        rig = Rig(journal, field, outbound, pace, peer)
        rig.maker, rig.directory = maker, directory
        try:
            yield rig
            assert not [task for task in tasks if task.done()], "a part of the market side has ended"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _smp_keys():
    return {"smp-1": public_from_jwk(Path("test"), SMP_KEY.public())}


def signed(body, key=SMP_KEY, status="202 Accepted"):
    _, token = key.sign(SignatureForm.JWS_DETACHED, body, {})
    return smp.answer(status, body, x_jws_signature=token)


def body_of(request):
    """The JSON of a request."""
    return json.loads(request.body)


def references(request):
    return [asset["assetReference"] for asset in body_of(request)["data"]["assets"]]


def takes(refuses=lambda _: None):
    """A platform that gives each call it takes a transaction id of its own; `refuses(references)` gives the answer to those it does not."""
    count = 0

    async def step(request, writer):
        nonlocal count
        refused = refuses(references(request))
        if refused is None:
            count += 1
        writer.write(refused or smp.answer("202 Accepted", json.dumps({"transactionId": f"T{count}"})))
        await writer.drain()

    return step
