"""The stand-in for SMP as a server: the four calls over TLS, and the pushes of results."""

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, Final, Self

import orjson
from aiohttp import web

from bridge.clock import Clock
from bridge.model import Operation
from bridge.profile import AUTHENTICATE, MessageKind
from bridge.sandbox.accounts import Accounts
from bridge.sandbox.certified import CertifiedKey
from bridge.sandbox.certified import verify as verify_headers
from bridge.sandbox.control import HOST as CONTROL_HOST
from bridge.sandbox.control import Control
from bridge.sandbox.jose import NotAuthentic, SigningKey, verify
from bridge.sandbox.knobs import Fault
from bridge.sandbox.ledger import Ledger, RequestEntry
from bridge.sandbox.options import SandboxOptions
from bridge.sandbox.pki import Authority, Pair
from bridge.sandbox.register import Register
from bridge.sandbox.sender import ReturnSender, spoiled
from bridge.vocabulary import load_vocabulary
from bridge.wire import CreateAnswer, ItemError, MessageMeta, Rendered, Unreadable, Wire

_PIECE: Final = b" " * 65536
_ROOM: Final = 65536
RECEIVED: Final = "RECEIVED"
_TRACEPARENT: Final = "traceparent"  # W3C Trace Context
_LONGEST_TRACEPARENT: Final = 200

Handler = Callable[[web.Request, RequestEntry], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """The call is answered with this status and this text."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


class Sandbox:
    """Entered as an async context manager; then `base_url` is where participants call it. Ports are free ones unless the options name them."""

    def __init__(self, options: SandboxOptions, *, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._profile = options.profile
        self._wire = Wire(options.profile)
        self._random = Random(options.seed)
        self._return_urls = {entry.name: entry.return_url for entry in options.participants}
        self._generation = 1
        self._stack = AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._port = 0
        self.control_port = 0
        self.knobs = options.knobs
        self.ledger = Ledger()
        self.authority = Authority("smp-bridge sandbox", clock=clock)
        self._key = self._new_key()
        self._retired: list[SigningKey | CertifiedKey] = []
        self.accounts = Accounts(options.participants, clock=clock, random=self._random)
        self.register = Register(
            options.profile,
            load_vocabulary(),
            self.knobs,
            self.ledger,
            random=self._random,
            name=options.name,
        )
        self._sender = ReturnSender(
            profile=options.profile,
            wire=self._wire,
            register=self.register,
            ledger=self.ledger,
            knobs=self.knobs,
            clock=clock,
            random=self._random,
            seal=self._seal,
            url_of=lambda name: self._return_urls[name],
            sender_of=lambda name: self.accounts.by_name[name].sender or name,
            environment=options.environment,
            trust=self._trust(),
        )

    # for those who set it up -----------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Where it listens, without a path."""
        return f"https://{self._options.host}:{self._port}"

    @property
    def name(self) -> str:
        """How it calls itself, in its messages and in its certificate."""
        return self._options.name

    @property
    def ca_pem(self) -> bytes:
        """The authority that signed its certificate."""
        return self.authority.pem

    def jwks(self) -> Mapping[str, Any]:
        """Its public keys: the current one first, then retired ones."""
        return {"keys": [key.public() for key in (self._key, *self._retired)]}

    def set_return_url(self, participant: str, url: str) -> None:
        """Where a participant's returns go from now on."""
        self._return_urls[participant] = url

    def rotate_key(self) -> str:
        """Sign with a new key from now on; returns its id. The old one stays in the set."""
        self._generation += 1
        self._retired.insert(0, self._key)
        self._key = self._new_key()
        return self._key.kid

    @property
    def certificate(self) -> bytes:
        """The certificate (PEM) that its messages show now; empty where the profile has them show none."""
        return self._key.certificate if isinstance(self._key, CertifiedKey) else b""

    @cached_property
    def _foreign(self) -> SigningKey | CertifiedKey:
        """A key that is not ours, under the same name."""
        return self._new_key()

    def _new_key(self) -> SigningKey | CertifiedKey:
        kid = f"smp-{self._generation}"
        if not self._profile.signature_form.certified:
            return SigningKey(kid)
        return CertifiedKey(kid, profile=self._profile, authority=self.authority, subject=self._options.name)

    def _seal(self, rendered: Rendered, url: str) -> tuple[bytes, dict[str, str]]:
        """The body of a push to this address, and the headers that sign it; spoiled where the knobs say so."""
        knobs, key = self.knobs, self._foreign if self.knobs.wrong_key else self._key
        if isinstance(key, CertifiedKey):
            assert isinstance(self._key, CertifiedKey)
            headers = key.headers("POST", url, rendered.body, at_ns=self._clock.wall_ns(), shown=self._key)
            name = self._profile.signature_header
            return rendered.body, headers | {name: spoiled(headers[name])} if knobs.wrong_signature else headers
        body, token = key.sign(self._profile.signature_form, rendered.body, rendered.protected)
        if token is not None:
            return body, {self._profile.signature_header: spoiled(token) if knobs.wrong_signature else token}
        return spoiled(body.decode()).encode() if knobs.wrong_signature else body, {}

    async def release(self) -> int:
        """Push the returns that were held."""
        return await self._sender.release()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.push_async_callback(self._end_tasks)
            await self._sender.open()
            stack.push_async_callback(self._sender.close)
            runner = web.AppRunner(self._application(), handle_signals=False, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, self._options.host, self._options.port, ssl_context=self._context())
            await site.start()
            self._port = runner.addresses[0][1]
            await self._open_control(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open_control(self, stack: AsyncExitStack) -> None:
        if self._options.control_port is None:
            return
        runner = web.AppRunner(Control(self).application(), handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, CONTROL_HOST, self._options.control_port).start()
        self.control_port = runner.addresses[0][1]

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    # calls -----------------------------------------------------------------------------------------------------------

    def _application(self) -> web.Application:
        self._tasks: set[asyncio.Task[None]] = set()
        app = web.Application(client_max_size=self._profile.limits.max_body_bytes + _ROOM)
        handlers: Mapping[str, Handler] = {
            AUTHENTICATE: self._authenticate,
            Operation.ASSET_CREATE.value: self._create,
            Operation.UNIT_CREATE.value: self._create,
            MessageKind.STATUS.value: self._status,
        }
        for operation, call in self._profile.calls.items():
            app.router.add_route(call.method, call.path, self._booked(operation, handlers[operation]))
        return app

    def _booked(self, operation: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            entry = RequestEntry(operation=operation, arrived_ns=self._clock.mono_ns())
            entry.traceparent = request.headers.get(_TRACEPARENT, "")[:_LONGEST_TRACEPARENT]
            self.ledger.requests.append(entry)
            fault = self.knobs.next_fault(operation)
            if fault is not None and not fault.process:
                await request.read()
                return await self._misbehave(request, entry, fault)
            try:
                answer = await handler(request, entry)
            except Refused as error:
                answer = self._refusal(error)
                entry.problem = str(error)
            if fault is not None:
                return await self._misbehave(request, entry, fault)
            await asyncio.sleep(self.knobs.answer_delay_s)
            entry.status = answer.status
            return answer

        return handle

    async def _misbehave(self, request: web.Request, entry: RequestEntry, fault: Fault) -> web.StreamResponse:
        """Answer as the fault says."""
        if fault.drop:
            entry.problem = "dropped"
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        entry.status = fault.status
        headers = {"Content-Type": fault.content_type, **fault.headers}
        if fault.names:
            errors = tuple(
                ItemError(code="VALIDATION_ERROR", message="named by a fault", reference=name) for name in fault.names
            )
            return self._signed(fault.status, self._wire.render_answer(CreateAnswer(errors=errors)))
        if not fault.size:
            return web.Response(status=fault.status, body=fault.body.encode(), headers=headers)
        answer = web.StreamResponse(status=fault.status, headers=headers)
        await answer.prepare(request)
        try:
            for _ in range(fault.size // len(_PIECE)):
                await answer.write(_PIECE)
        except (ConnectionError, asyncio.CancelledError):
            entry.problem = "the caller left"
        return answer

    async def _authenticate(self, request: web.Request, entry: RequestEntry) -> web.StreamResponse:
        user, password = self._wire.read_credentials(await request.read())
        token = self.accounts.login(user, password, self.knobs.token_life_s)
        if token is None:
            raise Refused(401, "wrong user or password")
        entry.participant = user
        return web.Response(body=self._wire.render_token(token), content_type="application/json")

    async def _create(self, request: web.Request, entry: RequestEntry) -> web.StreamResponse:
        operation = Operation(entry.operation)
        headers, body, protected = await self._open(request, entry)
        try:
            meta, items = self._wire.read_request(operation, headers, body, protected)
        except Unreadable as error:
            raise Refused(400, str(error)) from error
        self._book(entry, meta, [self.register.reference(operation, item) for item in items])
        if len(items) > self._profile.limits.records:
            raise Refused(413, f"at most {self._profile.limits.records} records a call")
        received_ns = self._clock.wall_ns()
        before = self.register.seen(entry.participant, meta.message_id) if self.knobs.recognises_repeats else None
        transaction = before or self.register.accept(entry.participant, operation, meta, items, received_ns)
        entry.transaction_id = transaction.id
        if before is None:
            if self.knobs.return_early:
                transaction.ready.set()
                await self._sender.push(transaction)
            else:
                self._start(self._sender.follow(transaction))
        answer = CreateAnswer(transaction_id=transaction.id, status=RECEIVED, received_ns=received_ns)
        return self._signed(202, self._wire.render_answer(answer))

    async def _status(self, request: web.Request, entry: RequestEntry) -> web.StreamResponse:
        headers, body, protected = await self._open(request, entry)
        meta, transaction_id = self._wire.read_status_request(headers, body, protected)
        self._book(entry, meta, [])
        entry.transaction_id = transaction_id
        answer = self.register.status(transaction_id, entry.participant)
        return self._signed(200, self._wire.render_status_answer(answer))

    def _book(self, entry: RequestEntry, meta: MessageMeta, references: list[str]) -> None:
        entry.message_id, entry.correlation_id, entry.references = meta.message_id, meta.correlation_id, references

    async def _open(
        self, request: web.Request, entry: RequestEntry
    ) -> tuple[Mapping[str, str], object, Mapping[str, Any]]:
        """Token, then signature over the raw bytes, then JSON."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        participant = self.accounts.participant_of(self._wire.read_shown_token(headers))
        raw = await request.read()
        entry.bytes = len(raw)
        if participant is None:
            raise Refused(401, "the token is not known or has expired")
        entry.participant = participant
        wait_s = self.accounts.wait_s(participant, self.knobs.most_per_minute)
        if wait_s:
            raise Refused(429, "too many calls", {"Retry-After": str(wait_s)})
        try:
            payload, protected = self._verified(request, raw, headers, participant)
        except NotAuthentic as error:
            raise Refused(401, f"the signature is not good: {error}") from error
        entry.verified = True
        try:
            return headers, orjson.loads(payload), protected
        except orjson.JSONDecodeError as error:
            raise Refused(400, f"not JSON: {error}") from error

    def _verified(
        self, request: web.Request, raw: bytes, headers: Mapping[str, str], participant: str
    ) -> tuple[bytes, Mapping[str, Any]]:
        profile, keys = self._profile, self.accounts.keys(participant)
        if profile.signature_form.certified:
            url = f"https://{request.host}{request.raw_path}"
            verify_headers(profile, request.method, url, raw, headers, keys)
            return raw, {}
        tokens = request.headers.getall(profile.signature_header, [])
        payload, protected, _ = verify(profile.signature_form, raw, tokens, keys)
        return payload, protected

    def _start(self, work: Any) -> None:
        assert self._group is not None
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # answers ---------------------------------------------------------------------------------------------------------

    def _refusal(self, error: Refused) -> web.Response:
        entry = ItemError(code="REQUEST_REFUSED", message=str(error))
        answer = self._signed(error.status, self._wire.render_answer(CreateAnswer(errors=(entry,))))
        answer.headers.update(error.headers)
        return answer

    def _signed(self, status: int, rendered: Rendered) -> web.Response:
        headers = {"Content-Type": "application/json", **rendered.headers}
        if not self.knobs.sign_answers or self._profile.signature_form.certified:
            return web.Response(status=status, body=rendered.body, headers=headers)
        body, more = self._seal(rendered, "")
        return web.Response(status=status, body=body, headers=headers | more)

    # TLS -------------------------------------------------------------------------------------------------------------

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        load_pair(context, self.authority.server("sandbox", ["localhost", "127.0.0.1", "::1"]))
        if self._options.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self._options.client_ca.decode())
        return context

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._options.return_ca is not None:
            context.load_verify_locations(cadata=self._options.return_ca.decode())
        load_pair(context, self.authority.client("sandbox"))
        return context


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """Give a context a certificate that is only in memory; Python reads them from files alone."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(pair.certificate + pair.private_key)
        context.load_cert_chain(file.name)
