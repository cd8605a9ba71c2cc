"""An admin listener with a real journal behind it: two participants, TEST and LIVE, side by side on one site, and tokens for whom the test wants."""

import hashlib
import itertools
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer

from bridge.clock import Stamp
from bridge.envelope import Algorithm
from bridge.errors import ConfigError, Problem
from bridge.journal.access import TokenView
from bridge.journal.people import Decision
from bridge.journal.port import AnswerNote, Candidate, FastCall, SignedCall
from bridge.journal.sqlite import open_journal
from bridge.keys import KeySigner, new_key
from bridge.metrics import Metrics
from bridge.model import Operation, Trigger
from bridge.submission import SubmissionState
from bridge.web.admin import Access, AdminListener, Health
from bridge.web.roles import Role, Territory
from bridge.web.tokens import make_token, new_token_id

DAY_NS = 86_400 * 10**9
TEST, LIVE = "acme-test", "acme-live"
BOTH = (TEST, LIVE)
TERRITORY = Territory(
    environments={TEST: "TEST", LIVE: "LIVE"},
    four_eyes=frozenset({LIVE}),
    flows={("north", "trial"): TEST, ("north", "real"): LIVE, ("south", "trial"): TEST},
    adapters={("north", "ems"): frozenset(BOTH), ("north", "lab"): frozenset({TEST}), ("south", "ems"): frozenset({TEST})},
)  # fmt: skip
FLOWS = {TEST: "trial", LIVE: "real"}


class SteppedClock:
    """A clock that a test moves."""

    def __init__(self):
        self.ns = 1_795_000_000 * 10**9

    def now(self):
        self.ns += 1000
        return Stamp(self.ns, self.ns, "boot")

    def wall_ns(self):
        return self.now().wall_ns

    def mono_ns(self):
        return self.now().mono_ns


@dataclass
class AdminWorld:
    """What a test holds in its hands."""

    journal: object
    clock: SteppedClock
    signer: KeySigner
    metrics: Metrics
    listener: AdminListener
    http: TestClient = None
    latency: dict = field(default_factory=dict)
    _calls: itertools.count = field(default_factory=itertools.count)

    async def token(self, role=Role.OPERATOR, name="Ann", participants=(), days=1, signer=None, note=True):
        now_ns = self.clock.wall_ns()
        view = TokenView(
            id=new_token_id(), holder=name, role=role.value, participants=tuple(participants), issued_by="root",
            issued_ns=now_ns, expires_ns=now_ns + days * DAY_NS,
        )  # fmt: skip
        if note:
            await self.journal.note_token(view)
        return make_token(signer or self.signer, view).reveal(), view.id

    async def bearer(self, *args, **more):
        return {"Authorization": f"Bearer {(await self.token(*args, **more))[0]}"}

    async def ask(self, method, path, headers=None, body=None, **more):
        """Status and body, decoded where it is JSON."""
        data = {} if body is None else {"data": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        data["headers"] = {**data.get("headers", {}), **(headers or {})}
        async with self.http.request(method, path, allow_redirects=False, **data, **more) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text and answer.content_type == "application/json" else text

    async def in_doubt(self, participant, key="A", state=SubmissionState.IN_DOUBT):
        """A submission of this participant that a person has to decide, at the site that both share."""
        number = f"{participant}-{next(self._calls)}"
        return await undecided(self.journal, self.clock, participant, FLOWS[participant], key, number, state)

    async def kinds(self, subject):
        return [event.kind for event in await self.journal.events(subject)]


async def undecided(journal, clock, participant, flow, key, number, state=SubmissionState.IN_DOUBT, transaction_id=""):
    """A submission of one item that went out and came to this state: IN_DOUBT, RETRY_WAIT for an hour."""
    fields = {
        "site": "north", "flow": flow, "place": f"{participant}-{key}", "participant": participant,
        "operation": Operation.ASSET_CREATE, "trigger": Trigger.CHANGE, "request": None, "key": key, "content": key.encode(),
        "digest": hashlib.sha256(key.encode()).digest()[:16], "stamps": {"received": clock.now()},
    }  # fmt: skip
    field_, market = await journal.acquire("field:north"), await journal.acquire(f"market:{participant}")
    call = SignedCall(
        message_id=f"m-{number}", correlation_id=f"c-{number}", method="POST", path="/assets", headers={}, body=b"{}",
        kid="k", profile="default", stamps={"signed": clock.now()},
    )  # fmt: skip
    submission = f"s-{number}"
    fast = FastCall(submission=submission, keys=(key,), rows=(0,), call=call, market=market)
    assert (await journal.accept(field_, [Candidate(**fields)], fast)).fast
    answer = AnswerNote(
        status=0, headers={}, body=b"", detail=f"reset, says {participant}", transaction_id=transaction_id
    )
    later_ns = clock.wall_ns() + 3600 * 10**9
    await journal.answered(market, submission, state, answer, retry_ns=later_ns)
    await journal.release([field_, market])
    return submission


@asynccontextmanager
async def admin_world(directory, *, without_token=False, links=None, ems=(), smp=(), territory=TERRITORY):

    def usable(record):
        if record.kid == "unreadable":
            raise ConfigError([Problem(text="is not a private key in PEM")])

    clock, ids, metrics = SteppedClock(), itertools.count(1), Metrics()
    signer = KeySigner("host-1", Algorithm.ES256, new_key(Algorithm.ES256))
    journal = await open_journal(directory / "journal.db", clock=clock, role="all", new_id=lambda: f"s-{next(ids):04}")
    await journal.introduce(territory.environments)
    access = Access(
        signer=signer, journal=journal, territory=territory, clock=clock, without_token=without_token, usable=usable
    )  # fmt: skip
    latency = {"flows": [], "exceeded": [], "intervals": []}

    async def told():
        return latency

    async def gauges():
        pass

    listener = AdminListener(
        metrics, lambda: Health(ready=True, links=links or {}, ems=ems, smp=smp), gauges, told, access
    )
    world = AdminWorld(journal, clock, signer, metrics, listener, latency=latency)
    try:
        async with TestClient(TestServer(listener.application()), cookie_jar=CookieJar(unsafe=True)) as world.http:
            yield world
    finally:
        await journal.close()


__all__ = ["BOTH", "LIVE", "TERRITORY", "TEST", "Decision", "admin_world", "undecided"]
