"""The public end point over TLS on a real journal, and a sender that knows SMP's key: every part of a message may be changed before it goes."""

import asyncio
import dataclasses
import functools
import inspect
import io
import json
import ssl
import tempfile
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from copy import deepcopy
from pathlib import Path

import aiohttp
import apsw
import certificates
from multidict import CIMultiDict
from quick_yaml import read_yaml
from yarl import URL

from bridge.clock import SystemClock
from bridge.envelope import Algorithm, SignatureForm
from bridge.envelope.base64url import decode, encode
from bridge.ids import submission_ids
from bridge.journal.port import AnswerNote, Candidate, SignedCall
from bridge.journal.postgres import open_postgres
from bridge.journal.sqlite import open_journal
from bridge.keys import KeySigner, new_key, public_from_jwk
from bridge.listening import server_context
from bridge.market.calls import CallMaker, Identity
from bridge.market.endpoint import Inbox, ReturnsEndpoint
from bridge.market.flood import Flood
from bridge.market.returns import ReturnReader
from bridge.market.tracker import Tracker
from bridge.metrics import Metrics
from bridge.model import Operation, Trigger
from bridge.profile import MessageKind, PlaceKind, ReturnResult, load_profile, parse_profile
from bridge.reports import MarketReport
from bridge.sandbox.pki import Authority
from bridge.submission import SubmissionState
from bridge.vocabulary import load_vocabulary
from bridge.web.public import Bounds, PublicListener
from bridge.wire import BatchReturn, ItemError, MessageMeta, Wire
from bridge.wire.parts import plant

SHIPPED = Path(__file__).parents[2] / "bridge/profiles"
FORMS = ("default", "odd", "compact")
ACME, OTHER, LIVE = "acme-test", "other-test", "acme-live"
ENTRIES = {ACME: ("ACME", "TEST"), OTHER: ("OTHER", "TEST"), LIVE: ("ACME", "LIVE")}  # sender and environment of each
_COUNTER = "smp_bridge_refused_returns_total"


def profile_of(name, **changes):
    """A shipped profile, or `compact`: the default one with the third signature form; these sections are changed."""
    return _profile(name, json.dumps(changes))


@functools.cache
def _shipped(name):
    return read_yaml(SHIPPED / f"{name}.yaml")


@functools.cache
def _profile(name, changed):
    content = deepcopy(_shipped("default" if name == "compact" else name))
    if name == "compact":
        content["signature"]["form"] = "jws-compact"
        content["return_content_types"] = ["application/jose"]
    for section, values in json.loads(changed).items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    return parse_profile(content)


def signer(alg=Algorithm.ES256, kid="smp-1"):
    return KeySigner(kid, alg, new_key(alg))


def public(key, **changes):
    return public_from_jwk(Path("test"), {**key.public_jwk(), **changes})


class StillClock:
    """Wall time stands still, so that ages are exact; the monotonic clock runs."""

    def __init__(self):
        self._real = SystemClock.here()
        self.at_ns = self._real.wall_ns() // 1_000_000 * 1_000_000

    def now(self):
        return self._real.now()._replace(wall_ns=self.at_ns)

    def wall_ns(self):
        return self.at_ns

    def mono_ns(self):
        return self._real.mono_ns()


@dataclasses.dataclass(frozen=True)
class Envelope:
    """A message as it travels, in its three parts; each may be replaced."""

    form: SignatureForm
    head: str
    payload: bytes
    tail: str

    def sent(self):
        """Body and values of the signature header."""
        if self.form is SignatureForm.JWS_DETACHED:
            return self.payload, [f"{self.head}..{self.tail}"]
        if self.form is SignatureForm.JWS_COMPACT:
            return f"{self.head}.{encode(self.payload)}.{self.tail}".encode(), []
        message = {"payload": encode(self.payload), "protected": self.head, "signature": self.tail}
        return json.dumps(message).encode(), []

    def but(self, **changes):
        return dataclasses.replace(self, **changes)

    @property
    def header(self):
        return json.loads(decode(self.head))


@dataclasses.dataclass(frozen=True)
class Draft:
    """A message before it is signed."""

    payload: bytes
    protected: dict

    @property
    def content(self):
        return json.loads(self.payload)

    def saying(self, content):
        return dataclasses.replace(
            self, payload=content if isinstance(content, bytes) else json.dumps(content).encode()
        )


class Heard(Tracker):
    """The real tracker, which also remembers what it was told."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.messages = []

    def returned(self, message):
        self.messages.append(message)
        super().returned(message)


class Side:
    """One participant entry's market side without calls out."""

    def __init__(self, name, sender, fence, field):
        self.name, self.sender, self.fence, self.field = name, sender, fence, field
        self.tracker = None


class Smp:
    """What the tests speak through."""

    def __init__(self, profile, key, clock, journal, path, metrics):
        self.profile, self.key, self.clock, self.journal = profile, key, clock, journal
        self.wire = Wire(profile)
        self.sides = {}
        self.url = ""
        self.http = None
        self._metrics = metrics
        self._database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._first_401 = None

    # making messages -------------------------------------------------------------------------------------------------

    @property
    def form(self):
        return self.profile.signature_form

    def draft(self, **changes):
        """A return; `changes` are members of `MessageMeta` or of `BatchReturn`."""
        meta = {
            "message_id": str(uuid.uuid4()),
            "operation": MessageKind.RETURN.value,
            "timestamp_ns": self.clock.wall_ns(),
            "environment": "TEST",
            "sender": "SMP",
            "recipient": "ACME",
            "correlation_id": "s-1",
        }
        meta = {name: changes.pop(name, value) for name, value in meta.items()}
        rest = {"transaction_id": "a0B1", "operation": "asset.create", "result": ReturnResult.SUCCESS, **changes}
        rendered = self.wire.render_return(BatchReturn(meta=MessageMeta(**meta), **rest))
        return Draft(rendered.body, dict(rendered.protected))

    def put(self, draft, member, value):
        """The draft with another raw value where the profile has this member of a message."""
        place = getattr(self.profile.spec.message, member)
        if place.kind is PlaceKind.PROTECTED:
            return dataclasses.replace(draft, protected={**draft.protected, place.name: value})
        return draft.saying(plant(draft.content, place.path, value))

    def with_extra(self, draft, raw):
        """The draft with one more member in its body, whose value are these raw bytes."""
        raw = raw if isinstance(raw, bytes) else raw.encode()
        return draft.saying(draft.payload.replace(b"{", b'{"extra":' + raw + b",", 1))

    def with_body(self, message, payload):
        """A message that was signed with another body in its place."""
        if self.form.certified:
            return message.but(body=payload, digest=certificates.digest(payload))
        return message.but(payload=payload)

    def seal(self, draft, key=None, header=None):
        """Sign it. `header` replaces the whole protected header by these bytes, or some members of it (None takes one out)."""
        key = key or self.key
        if self.form.certified:
            return certificates.Headed.made(self.profile.signature_headers, draft.payload, key, at_ns=self.clock.at_ns)
        members = {**draft.protected, "alg": key.alg.value, "kid": key.kid}
        if isinstance(header, dict):
            members = {name: value for name, value in {**members, **header}.items() if value is not None}
        head = encode(header if isinstance(header, bytes) else json.dumps(members).encode())
        signature = key.sign(f"{head}.{encode(draft.payload)}".encode())
        return Envelope(self.form, head, draft.payload, encode(signature))

    # sending them ----------------------------------------------------------------------------------------------------

    def path(self, name=ACME):
        return self.profile.return_path.replace("{participant}", name)

    async def send(self, body, tokens=(), *, headers=(), path=None, method="POST", skip=()):
        """Status, headers and body of the answer to exactly this; a token is a value of the signature header, or a header with its value."""
        own = self.profile.signature_header
        sent = CIMultiDict([(own, token) if isinstance(token, str) else token for token in tokens])
        given = CIMultiDict(headers)
        if "Content-Type" not in given and "Content-Type" not in skip:
            sent["Content-Type"] = self.profile.return_content_types[0]
        sent.extend(given)
        url = URL(self.url + (path or self.path()), encoded=True)
        if isinstance(body, bytes) and len(body) > 2**20:
            body = io.BytesIO(body)
        async with self.http.request(method, url, data=body, headers=sent, skip_auto_headers=skip) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    async def post(self, message, **how):
        """Status and body of the answer to an envelope, or to a draft that is sealed first."""
        envelope = self.seal(message) if isinstance(message, Draft) else message
        status, _, body = await self.send(*envelope.sent(), **how)
        return status, body

    def head(self, *lines, token=None):
        """The head of a POST as bytes, with these lines at its end; `token` is the signature header's value."""
        given = [
            f"POST {self.path()} HTTP/1.1",
            "Host: localhost",
            f"Content-Type: {self.profile.return_content_types[0]}",
            *([f"{self.profile.signature_header}: {token}"] if token else []),
            *lines,
        ]
        return "\r\n".join(given).encode() + b"\r\n\r\n"

    async def raw(self, sent, *, more=b"", within_s=15.0, then=None):
        """Send these bytes on a connection of their own, and `more` again and again; what is answered until the server closes it.

        `then` is called with the writer after that.
        """
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=self.trust)
        try:
            writer.write(sent)
            answer = asyncio.get_running_loop().create_task(reader.read())
            async with asyncio.timeout(within_s):
                try:
                    while more and not answer.done():
                        writer.write(more)
                        await writer.drain()
                        await asyncio.sleep(0.001)  # a flood all the same, which leaves the processor to others
                    if then is not None:
                        await writer.drain()
                        await then(writer)
                except ConnectionError:
                    pass
                return await answer
        finally:
            writer.transport.abort()

    async def accepted(self, draft=None, **changes):
        """A message that was just taken, so that what the test changes is all that is wrong; returns its draft and its envelope."""
        draft = draft or self.draft(**changes)
        envelope = self.seal(draft)
        status, _ = await self.post(envelope)
        assert status == self.profile.spec.ack.status
        await self.settled()
        return draft, envelope

    async def settled(self):
        """Wait until whatever was taken has been dealt with."""
        await self.until(
            "SELECT count(*) FROM returns r WHERE verdict = '' AND NOT EXISTS"
            " (SELECT 1 FROM returns o WHERE o.participant = r.participant AND o.message_id = r.message_id AND o.id < r.id)",
            [0],
        )

    async def refused(self, status, reason, body, tokens=(), *, alarms=(), **how):
        """This gets `status` and a body without a hint; inside, exactly this reason is counted once; nothing is stored, nobody acts."""
        before, told, counted = self.stored(), self.told(), self.refusals()
        found, headers, answer = await self.send(body, tokens, **how)
        assert (found, self.new_refusals(counted)) == (status, {reason: 1})
        assert json.loads(answer) == {"type": "about:blank", "title": json.loads(answer)["title"], "status": status}
        assert reason not in answer.decode()
        if status == 401:
            plain = ({name: value for name, value in headers.items() if name != "Date"}, answer)
            self._first_401 = self._first_401 or plain
            assert plain == self._first_401
        after = self.stored()
        assert sorted(after.pop("alarms")) == sorted([*before.pop("alarms"), *alarms])
        assert (after, self.told()) == (before, told)

    async def unauthentic(self, reason, message, **how):
        """A 401 for this reason; `message` is an envelope, or body and header values."""
        parts = message if isinstance(message, tuple) else message.sent()
        await self.refused(401, reason, *parts, **how)

    # looking ---------------------------------------------------------------------------------------------------------

    def refusals(self):
        """How often each reason was counted."""
        samples = [sample for family in self._metrics.registry.collect() for sample in family.samples]
        return {sample.labels["reason"]: sample.value for sample in samples if sample.name == _COUNTER}

    def new_refusals(self, before):
        return {
            reason: count - before.get(reason, 0)
            for reason, count in self.refusals().items()
            if count != before.get(reason, 0)
        }

    def rows(self, sql):
        return [row[0] for row in self._database.execute(sql)]

    def stored(self):
        """Everything on disk that a message could have changed."""
        counts = {
            table: self.rows(f"SELECT count(*) FROM {table}")[0]
            for table in ("returns", "blobs", "events", "items", "writebacks")
        }
        return {
            **counts,
            "states": self.rows("SELECT state FROM submissions ORDER BY seq"),
            "alarms": self.rows("SELECT code FROM alarms WHERE cleared_ns = 0"),
        }

    def effects(self):
        """What is stored but for the facts of the record: a duplicate is one, and has no effect."""
        return {name: found for name, found in self.stored().items() if name != "events"}

    def told(self):
        return {name: len(side.tracker.messages) for name, side in self.sides.items()}

    async def until(self, sql, wanted, within_s=5.0):
        """Wait until this query's rows are these."""
        found = None
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while (found := self.rows(sql)) != wanted:
                    await asyncio.sleep(0.01)
        assert found == wanted

    # a submission of ours --------------------------------------------------------------------------------------------

    async def submission(self, *keys, transaction_id="a0B1", state=SubmissionState.AWAITING_RETURN, name=ACME):
        """A Create of these assets that was sent and answered so; its id is also its correlation id."""
        side = self.sides[name]
        await self.journal.accept(side.field, [_candidate(key, side.name, self.clock) for key in keys])
        due = await self.journal.next_call(side.name, self.clock.wall_ns(), allow=list(Operation))
        call = SignedCall(
            message_id=f"m-{due.submission}", correlation_id=due.submission, method="POST", path="/", headers={}, body=b"{}",
            kid="k", profile="p",
        )  # fmt: skip
        await self.journal.sending(side.fence, due.submission, call, len(keys))
        if state is SubmissionState.SENDING:
            return due.submission
        note = AnswerNote(status=202, headers={}, body=b"{}", detail="", transaction_id=transaction_id)
        retry_ns = self.clock.wall_ns() + 3600 * 10**9
        await self.journal.answered(side.fence, due.submission, state, note, retry_ns=retry_ns)
        return due.submission

    async def state(self, submission):
        return (await self.journal.submission(submission)).state.value


def _candidate(key, participant, clock):
    return Candidate(
        site="north", flow="assets", place=key, participant=participant, operation=Operation.ASSET_CREATE, trigger=Trigger.CHANGE,
        request=None, key=key, content=b"{}", digest=key.encode(), stamps={"received": clock.now()},
    )  # fmt: skip


def errors(*keys):
    """An error list that refuses these."""
    return tuple(ItemError(code="E1", message="no", reference=key) for key in keys)


def each(*cases):
    """Run a test for all of these cases on one end point, one after the other; a failure names its case."""

    def decorate(test):
        first, *names = inspect.signature(test).parameters

        async def run(**fixtures):
            for case in cases:
                values = case if isinstance(case, tuple) else (case,)
                try:
                    await test(fixtures[first], **dict(zip(names, values, strict=True)))
                except BaseException as error:
                    error.add_note(f"in the case {str(case)[:200]}")
                    raise

        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        run.__signature__ = inspect.Signature([inspect.Parameter(first, inspect.Parameter.KEYWORD_ONLY)])
        return run

    return decorate


@asynccontextmanager
async def listening(
    directory, *, profile="default", key=None, keys=None, sign_with=None, bounds=None, limits=None, postgres=None, vfs=None, tls=None,
    agreed=None, echoes=None, **changes,
):  # fmt: skip
    """An end point for three participant entries under one profile; `bounds` are the listener's, `limits` the end point's own. With `postgres`, its journal is there; with `vfs`, on that disk.

    Each entry has its own set of SMP's keys: `keys` is the first one's; the second one's holds the same key of SMP and another one, the LIVE one's a key for LIVE alone. `signers` has what signs with them.
    `echoes` are secrets of ours that messages may repeat. `tls` are `client_ca` (PEM of an authority) and `allowed` (networks). Where the profile has messages carry a certificate, `agreed` are those that are
    taken, and `keys` what our own records say of some.
    """
    parsed = profile_of(profile, **changes) if isinstance(profile, str) else profile
    certified = parsed.signature_form.certified
    clock, key, metrics = StillClock(), key or (certificates.holder() if certified else signer()), Metrics()
    path = directory / "journal.db"
    keys = keys if keys is not None else {} if certified else {key.kid: public(key)}
    signers, key_sets = {ACME: key}, {ACME: keys, OTHER: {}, LIVE: {}}
    if not certified:
        signers |= {OTHER: signer(kid="smp-for-other"), LIVE: signer(kid="smp-live")}
        key_sets |= {name: {signers[name].kid: public(signers[name])} for name in (OTHER, LIVE)}
        key_sets[OTHER][key.kid] = public(key)
    agreed = agreed or (certificates.agreed() if certified else None)
    async with AsyncExitStack() as stack:
        new_id = submission_ids(clock)
        if postgres is None:
            journal = await open_journal(path, clock=clock, role="all", new_id=new_id, vfs=vfs)
        else:
            journal = await open_postgres(postgres, clock=clock, role="all", new_id=new_id)
        stack.push_async_callback(journal.close)
        made = Smp(parsed, key, clock, journal, path if postgres is None else ":memory:", metrics)
        stack.callback(made._database.close)
        report = MarketReport(metrics)
        fences = []
        stack.push_async_callback(journal.release, fences)
        fences.append(field := await journal.acquire("field:north"))
        inboxes = []
        for name, (sender, environment) in ENTRIES.items():
            fences.append(fence := await journal.acquire(f"market:{name}"))
            side = made.sides[name] = Side(name, sender, fence, field)
            identity = Identity(participant=name, sender=sender, recipient="SMP", environment=environment)
            reader = ReturnReader(
                identity=identity, profile=parsed, keys=key_sets[name], signer=sign_with, agreed=agreed, echoes=echoes,
                return_url=certificates.URL.replace(ACME, name),
            )  # fmt: skip
            side.tracker = _tracker(side, identity, made, key_sets[name], report)
            if echoes is not None:
                side.tracker._maker.echoes = echoes
            inboxes.append(Inbox(participant=name, reader=reader, tracker=side.tracker, fence=side.fence))
        endpoint = ReturnsEndpoint(
            inboxes,
            journal=journal,
            clock=clock,
            metrics=report,
            **{"flood": Flood(clock.mono_ns, burst=100_000)} | (limits or {}),
        )
        made.endpoint, made.keys, made.signers = endpoint, keys, signers
        trust = await _tls(stack, endpoint, made, bounds or Bounds(linger_s=0.3), report, **tls or {})
        connector = aiohttp.TCPConnector(ssl=trust, limit=100)
        made.http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, auto_decompress=False))
        tasks = [asyncio.get_running_loop().create_task(side.tracker.run()) for side in made.sides.values()]
        try:
            yield made
            assert not [task for task in tasks if task.done()], "a tracker has ended"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _tls(stack, endpoint, made, bounds, report, client_ca=None, allowed=()):
    """Serve as the host does; returns a context that trusts it."""
    authority = Authority("authority", clock=SystemClock.here())
    pair = authority.server("bridge")
    with tempfile.TemporaryDirectory() as folder:
        certificate, private_key = Path(folder) / "crt", Path(folder) / "key"
        certificate.write_bytes(pair.certificate)
        private_key.write_bytes(pair.private_key)
        if client_ca is not None:
            (Path(folder) / "ca").write_bytes(client_ca)
        context = server_context(certificate, private_key, Path(folder) / "ca" if client_ca is not None else None)
    made.listener = PublicListener(
        endpoint.application(),
        bounds=bounds,
        context=context,
        refused=report.refused,
        malformed=endpoint.malformed,
        allowed=allowed,
    )
    port = await made.listener.start(stack, "127.0.0.1", 0, None)
    made.url, made.port = f"https://localhost:{port}", port
    made.ca = authority.pem
    made.trust = ssl.create_default_context(cadata=authority.pem.decode())
    return made.trust


def _tracker(side, identity, made, keys, report):
    maker = CallMaker(
        identity=identity, profile=made.profile, vocabulary=load_vocabulary(), signer=made.key, keys=keys, unit_validators={},
        clock=made.clock, new_message_id=lambda: "m", new_submission=lambda: "s", jitter=lambda: 0.5,
    )  # fmt: skip
    return Heard(
        participant=side.name, journal=made.journal, fence=side.fence, maker=maker, client=None, tokens=None, pace=None, clock=made.clock,
        metrics=report,
    )  # fmt: skip


__all__ = [
    "ACME",
    "FORMS",
    "LIVE",
    "OTHER",
    "Draft",
    "Envelope",
    "each",
    "errors",
    "listening",
    "load_profile",
    "profile_of",
    "public",
    "signer",
]
