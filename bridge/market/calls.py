"""One participant's messages: from items to the exact signed bytes, and from SMP's bytes to what they say. No I/O.

Everything that has a name on the wire comes from the profile (`bridge.wire`); everything signed goes through `bridge.envelope`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bridge.clock import Clock, Stamp
from bridge.envelope import (
    BodyRefused,
    PublicKey,
    SignatureRefused,
    Signer,
    certified,
    parse_strict,
    sign,
    unwrap,
    verify,
)
from bridge.envelope.keys import blocks, current, withdrawn
from bridge.identifiers import Severity
from bridge.journal.port import Member, ReturnMessage
from bridge.lane import SignedCall
from bridge.market.echoes import SHOWN, Echoes
from bridge.model import Kind, Operation, Refusal
from bridge.platform import AnswerClass, BatchSemantics, Exchange, Report, ReportedError, classify
from bridge.profile import AnswersSigned, FreshnessMode, Profile, StatusWord
from bridge.profile.model import Call
from bridge.validation import Finding, Validator
from bridge.vocabulary import Vocabulary
from bridge.wire import BatchReturn, ItemError, MessageMeta, Rendered, RenderedItem, Token, Unreadable, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who speaks for whom: the names that stand signed in every message."""

    participant: str
    sender: str
    recipient: str
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainCall:
    """A signed call that is not a Create: nothing of it is journalled before it goes."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateReport:
    """What a 2xx to a Create says; without a transaction id, `problem` says why it cannot be used. `errors` are those that it names all the same, no warnings."""

    transaction_id: str = ""
    problem: str = ""
    errors: Sequence[ReportedError] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """What a status answer says; `report` is None while SMP is still at work."""

    report: Report | None = None
    unknown_word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReturn:
    """What a return says, and the ids that tie it to a submission of ours."""

    transaction_id: str
    answers_message_id: str
    correlation_id: str
    report: Report
    unknown_word: str = ""


# A status that is a failure without saying whose: an error that names no item, so that it registers nobody under any batch semantics.
_FAILED: Final = ReportedError(code="", text="SMP says that the transaction failed, and names no item")


class CallMaker:
    """Makes and reads one participant's calls."""

    def __init__(
        self,
        *,
        identity: Identity,
        profile: Profile,
        vocabulary: Vocabulary,
        signer: Signer,
        keys: Mapping[str, PublicKey],
        unit_validators: Mapping[tuple[str, str], Validator],
        clock: Clock,
        new_message_id: Callable[[], str],
        new_submission: Callable[[], str],
        jitter: Callable[[], float],
        trace_headers: Callable[[str], Mapping[str, str]] = lambda _: {},
        base_url: str = "",
        clock_state: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        """`clock_state` is what is known of this machine's clock now. `trace_headers` gives what a call of this submission carries so that SMP may join its trace. `base_url` is where calls go; some forms sign it."""
        self.profile = profile
        self.semantics = BatchSemantics(profile.batch_semantics.value)
        self.new_submission = new_submission
        self.jitter = jitter
        self._identity = identity
        self._vocabulary = vocabulary
        self._wire = Wire(profile)
        self._calls = profile.calls
        self._form = profile.signature_form
        self._told_profile = f"{profile.name} {profile.version} {profile.hash}"
        self._signer = signer
        self._keys = keys
        self._unit_validators = unit_validators
        self._clock = clock
        self._new_message_id = new_message_id
        self._trace_headers = trace_headers
        self._base_url = base_url
        self.echoes = Echoes()
        self._clock_state = clock_state
        self._classes = {key: AnswerClass(value.value) for key, value in profile.answer_classes.items()}

    # out -------------------------------------------------------------------------------------------------------------

    def render(self, operation: Operation, item: Mapping[str, object]) -> RenderedItem:
        """One item in its wire form, with its size."""
        return self._wire.render_item(operation.kind, item)

    def fit(self, operation: Operation, rendered: Sequence[RenderedItem]) -> int:
        """How many of these, from the front, one call may hold by count and by bytes; 0 when the first alone is too large."""
        return self._wire.fit(operation, rendered)

    def create(
        self,
        operation: Operation,
        rendered: Sequence[RenderedItem],
        *,
        submission: str,
        stamps: Mapping[str, Stamp],
        message_id: str | None = None,
    ) -> SignedCall:
        """Sign one Create call of these items; the submission's own id is its correlation id. `message_id` is that of a message signed anew."""
        word = operation.value
        meta = self._meta(word, correlation_id=submission, message_id=message_id)
        message = self._wire.render_create(operation, rendered, meta)
        signer = current(self._signer)
        call = self._calls[word]
        body, seals = self._sealed(message, signer, call)
        return SignedCall(
            message_id=meta.message_id,
            correlation_id=submission,
            method=call.method,
            path=call.path,
            headers=self._headers(call.content_type, message.headers, seals, submission),
            body=body,
            kid=signer.kid,
            profile=self._told_profile,
            stamps={**stamps, "signed": self._clock.now()},
            clock=self._clock_state(),
        )

    def status(self, transaction_id: str, *, submission: str = "") -> PlainCall:
        """Sign one Get Transaction Status call; `submission` is whose transaction it is, where that is known."""
        operation = self._wire.status_operation
        message = self._wire.render_status(transaction_id, self._meta(operation, correlation_id=""))
        call = self._calls[operation]
        body, seals = self._sealed(message, current(self._signer), call)
        return PlainCall(
            method=call.method,
            path=call.path,
            headers=self._headers(call.content_type, message.headers, seals, submission),
            body=body,
        )

    def login(self, username: str, password: str) -> PlainCall:
        """The Authenticate call; its body is a secret and is never logged or journalled."""
        call = self._calls[self._wire.authenticate_operation]
        self.echoes.note(password)
        return PlainCall(
            method=call.method,
            path=call.path,
            headers={"Content-Type": call.content_type},
            body=self._wire.render_authenticate(username, password),
        )

    def token_headers(self, token: str) -> Mapping[str, str]:
        """The header that carries the token."""
        self.echoes.note(token)
        return self._wire.token_headers(token)

    def complete_unit(self, item: dict[str, Any], members: Sequence[Member]) -> dict[str, Any]:
        """Fill what only the register knows: each aligned asset's id, and its capacity where the payload gave none (the asset's export capacity)."""
        known = {member.key: member for member in members}
        field_of = self._vocabulary.field
        aligned, reference = field_of(Kind.UNIT, "aligned"), field_of(Kind.UNIT, "aligned_reference")
        asset_id, capacity = field_of(Kind.UNIT, "aligned_id"), field_of(Kind.UNIT, "aligned_capacity")
        export = field_of(Kind.ASSET, "export_capacity")
        entries = []
        for entry in item.get(aligned, ()):
            member = known.get(entry.get(reference))
            filled = dict(entry)
            if member is not None and member.asset_id:
                filled.setdefault(asset_id, member.asset_id)
            if member is not None and member.content and capacity not in filled:
                value = orjson.loads(member.content).get(export)
                if value is not None:
                    filled[capacity] = value
            entries.append(filled)
        return {**item, aligned: entries}

    def check_unit(
        self, flow: tuple[str, str], item: Mapping[str, object], members: Sequence[Member]
    ) -> tuple[Refusal | None, list[Finding]]:
        """What only shows beside its assets, by the rules of its own flow (site, name): why a completed unit may not go out, and what is merely unusual.

        A flow that the configuration no longer has was checked when its record came.
        """
        validator = self._unit_validators.get(flow)
        if validator is None:
            return None, []
        assets = {member.key: orjson.loads(member.content) for member in members if member.content}
        found = [*validator.check(item), *validator.check_members(item, assets)]
        errors = [finding for finding in found if finding.severity is Severity.ERROR]
        return (errors[0].refusal if errors else None), [finding for finding in found if finding not in errors]

    @property
    def participant(self) -> str:
        """Whose calls these are."""
        return self._identity.participant

    @property
    def blocks(self) -> bool:
        """Whether making a call may take milliseconds whatever its size."""
        return blocks(self._signer)

    def is_fresh(self, call: SignedCall, now_ns: int) -> bool:
        """Whether a message signed before may still go as it is: its key was not revoked, the profile is the same, and its time is inside the profile's freshness window (DOMAIN 3)."""
        if withdrawn(self._signer, call.kid) or call.profile != self._told_profile:
            return False
        freshness, signed = self.profile.freshness, call.stamps.get("signed")
        if freshness.mode is FreshnessMode.OFF or signed is None:
            return True
        return abs(now_ns - signed.wall_ns) <= freshness.window_s * 1e9

    def _meta(self, operation: str, *, correlation_id: str, message_id: str | None = None) -> MessageMeta:
        return MessageMeta(
            message_id=message_id or self._new_message_id(),
            operation=operation,
            timestamp_ns=self._clock.wall_ns(),
            environment=self._identity.environment,
            sender=self._identity.sender,
            recipient=self._identity.recipient,
            correlation_id=correlation_id,
        )

    # in --------------------------------------------------------------------------------------------------------------

    def classify(self, exchange: Exchange) -> AnswerClass:
        """The answer's class by the profile's table."""
        return classify(exchange, self._classes)

    def read_login(self, exchange: Exchange) -> Token | None:
        """The token of an Authenticate answer, None when it holds none."""
        if exchange.failure is not None or exchange.status // 100 != 2:
            return None
        return self._wire.read_token(exchange.body)

    def read_answer(self, exchange: Exchange) -> CreateReport:
        """A 2xx to a Create: its transaction id, or why it is in doubt."""
        try:
            body, protected = self._opened(exchange)
        except (SignatureRefused, BodyRefused) as error:
            return CreateReport(problem=f"the answer cannot be used: {error}")
        answer = self._wire.read_answer(exchange.headers, body, protected)
        if SHOWN in answer.transaction_id:
            return CreateReport(problem="the answer's transaction id repeats a secret of ours")
        errors = [_reported(error) for error in answer.errors if not error.warning] if answer.errors else ()
        return CreateReport(transaction_id=answer.transaction_id, problem=answer.problem, errors=errors)

    def read_rejection(self, exchange: Exchange) -> Report:
        """A 400 or 422: whatever errors it names; an unreadable one names none."""
        try:
            body, protected = self._opened(exchange, demand=False)
        except (SignatureRefused, BodyRefused):
            return Report(rejected=True)
        answer = self._wire.read_answer(exchange.headers, body, protected)
        return Report(rejected=True, errors=[_reported(error) for error in answer.errors])

    def read_status(self, exchange: Exchange, transaction_id: str) -> StatusReport | None:
        """The answer to a status call for this transaction; None when it cannot be read, or names another one (what stands between may mix answers up)."""
        try:
            body, protected = self._opened(exchange)
        except (SignatureRefused, BodyRefused):
            return None
        answer = self._wire.read_status(exchange.headers, body, protected)
        if answer.transaction_id not in ("", transaction_id):
            return None
        if not answer.status.done:
            return StatusReport(unknown_word=answer.word if answer.status is StatusWord.UNKNOWN else "")
        errors = [_reported(error) for error in answer.errors]
        refused = any(not error.warning for error in errors)
        if answer.status is StatusWord.FAILED and not refused:
            errors.append(_FAILED)
        return StatusReport(
            report=Report(
                rejected=answer.status is StatusWord.REJECTED,
                success=True if answer.status is StatusWord.COMPLETED and not refused else None,
                created=dict(answer.created),
                errors=errors,
                total=answer.total,
                succeeded=answer.succeeded,
            )
        )

    def read_return(self, message: ReturnMessage) -> ReadReturn | None:
        """A stored return, read again from its bytes; None when its kind or schema is not known."""
        try:
            payload, protected = self._unwrapped(message)
            content = self.echoes.without(parse_strict(payload), payload)
            read = self._wire.read_return(self.echoes.among(message.headers), content, self.echoes.among(protected))
        except (SignatureRefused, BodyRefused, Unreadable):
            return None
        return ReadReturn(
            transaction_id=read.transaction_id or "",
            answers_message_id=read.in_reply_to,
            correlation_id=read.meta.correlation_id,
            report=report_of(read),
            unknown_word=read.unknown_word,
        )

    def poll_delay_s(self, attempt: int) -> float | None:
        """Seconds before the poll of this number (0 is the first); None when the plan is over."""
        return self.profile.poll_delay_s(attempt)

    def _opened(self, exchange: Exchange, *, demand: bool = True) -> tuple[object, Mapping[str, object]]:
        """The body of an answer, verified as `answers_signed` says, without secrets of ours that it sends back."""
        tokens = _tokens(self.profile, exchange.headers)
        mode = self.profile.answers_signed
        signed = self._wire.looks_signed(exchange.body, tokens)
        if mode is AnswersSigned.NO or (not signed and (mode is AnswersSigned.IF_PRESENT or not demand)):
            plain = parse_strict(exchange.body) if exchange.body else {}
            return self.echoes.without(plain, exchange.body), {}
        verified = verify(self._form, exchange.body, tokens, self._keys)
        return self.echoes.without(parse_strict(verified.payload), verified.payload), self.echoes.among(
            verified.protected
        )

    def _unwrapped(self, message: ReturnMessage) -> tuple[bytes, Mapping[str, Any]]:
        if self._form.certified:
            return message.body, {}
        return unwrap(self._form, message.body, _tokens(self.profile, message.headers))

    def _sealed(self, message: Rendered, signer: Signer, call: Call) -> tuple[bytes, Mapping[str, str]]:
        """The body as it travels, and the headers that hold the signature."""
        if self._form.certified:
            target = certified.Target(call.method, f"{self._base_url}{call.path}")
            encoding = self.profile.spec.signature.certificate_as
            values = certified.sign(target, message.body, signer, at_ns=self._clock.wall_ns(), encoding=encoding)
            return message.body, dict(zip(self.profile.signature_headers, values, strict=True))
        signed = sign(self._form, message.body, signer, message.protected)
        return signed.body, {} if signed.token is None else {self.profile.signature_header: signed.token}

    def _headers(
        self, content_type: str, headers: Mapping[str, str], seals: Mapping[str, str], submission: str
    ) -> dict[str, str]:
        made = {"Content-Type": content_type, **headers}
        if submission:
            made |= self._trace_headers(submission)
        return made | dict(seals)


def report_of(read: BatchReturn) -> Report:
    """A batch return as the ordered rule takes it."""
    return Report(
        rejected=read.rejected,
        success=read.success,
        understood=not read.unknown_word,
        created=dict(read.created),
        errors=[_reported(error) for error in read.errors],
        total=read.total,
        succeeded=read.succeeded,
    )


def _reported(error: ItemError) -> ReportedError:
    return ReportedError(
        code=error.code,
        text=error.message,
        warning=error.warning,
        reference=error.reference or "",
        index=error.index,
        field=error.field or "",
    )


def _tokens(profile: Profile, headers: Mapping[str, str]) -> Sequence[str]:
    """The signature header's value, if there is one; names are lower case."""
    value = headers.get(profile.signature_header.lower())
    return [] if value is None else [value]
