"""The sections of a profile: all that differs from one platform, or one version of it, to the next. No address, credential or key stands here."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from bridge.profile.places import ABSENT, Place, Places, Pointer, Pointers
from bridge.profile.words import (
    AlignBy,
    AnswersSigned,
    AnswerWord,
    CertificateForm,
    ErrorSeverity,
    FreshnessMode,
    MessageKind,
    ReturnResult,
    Returns,
    Semantics,
    Shape,
    SignatureForm,
    StatusWord,
    TimeForm,
    WireType,
)


class Section(BaseModel):
    """A part of a profile: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _path(value: str) -> str:
    if not value.startswith("/") or any(letter in value for letter in "?#\\ \r\n") or "//" in value:
        raise ValueError("must be a path such as /path/of/the/call, without query or blanks")
    return value


def _power_of_ten(value: Decimal) -> Decimal:
    if value <= 0 or value.normalize().as_tuple().digits != (1,):
        raise ValueError("must be a power of ten such as 0.001, so that both ways are exact")
    return value


def _exact(value: object) -> object:
    return repr(value) if isinstance(value, float) else value


def _distinct(words: Mapping[Any, Any]) -> Mapping[Any, Any]:
    folded = [str(word).casefold() for word in words]
    twice = sorted({word for word in folded if folded.count(word) > 1})
    if twice:
        raise ValueError(f"words are compared without case, and {', '.join(twice)} stands twice")
    return words


Word = str | int
Path = Annotated[str, AfterValidator(_path)]
Scale = Annotated[Decimal, BeforeValidator(_exact), AfterValidator(_power_of_ten), PlainSerializer(str)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(gt=0)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]


class Call(Section):
    """One operation of SMP: where its request goes. `content_type` is that of the signed body as it is sent."""

    method: Literal["POST", "PUT"] = "POST"
    path: Path
    content_type: str = "application/json"


class Authenticate(Call):
    """The login; `extra` are further members with fixed values, such as a grant type."""

    username: Pointer
    password: Pointer
    extra: Mapping[str, Word] = {}


class Calls(Section):
    """The four calls."""

    authenticate: Authenticate
    asset_create: Annotated[Call, Field(alias="asset.create")]
    unit_create: Annotated[Call, Field(alias="unit.create")]
    status: Annotated[Call, Field(alias="transaction.status")]


class TokenRules(Section):
    """How a token is read from the login's answer and shown with each call. `lifetime_s` is the pointer to its life in seconds."""

    value: Pointers
    lifetime: Pointers = ()
    default_lifetime_s: Annotated[float, Field(gt=0)] = 3600
    header: HeaderName = "Authorization"
    format: Annotated[str, Field(pattern=r"^[^{}\r\n]*\{token\}[^{}\r\n]*$")] = "Bearer {token}"
    renew_at: Annotated[float, Field(gt=0, lt=1)] = 0.8


class Message(Section):
    """The members that every signed message carries, ours and theirs, and the word for each kind of message."""

    id: Place
    type: Place = ABSENT
    schema_version: Place = ABSENT
    timestamp: Place
    environment: Place = ABSENT
    sender: Place
    recipient: Place
    correlation_id: Place = ABSENT
    version: Word = "1.0"
    time: TimeForm = TimeForm.ISO_MS_Z
    types: Annotated[Mapping[MessageKind, Word], Field(default_factory=dict)]


class WireField(Section):
    """One field of a record: where it stands inside the record and how it is written. Wire value = host value x `scale`."""

    at: Pointer
    type: WireType | None = None
    scale: Scale | None = None
    time: TimeForm = TimeForm.ISO_MS_Z
    enum: Annotated[Mapping[str, Word], AfterValidator(_distinct)] = {}
    item: "Annotated[Mapping[str, WireFieldOrPath], Field(default_factory=dict)]"


def _short_field(value: object) -> object:
    return {"at": value} if isinstance(value, str) else value


WireFieldOrPath = Annotated[WireField, BeforeValidator(_short_field)]


class RecordMap(Section):
    """The records of a Create call: the place that holds them, as a list or as one object, and every field by the host's own name.

    `omitted` names the host's fields that this platform does not take.
    """

    at: Place
    shape: Literal["list", "object"] = "list"
    fields: Mapping[str, WireFieldOrPath]
    omitted: tuple[str, ...] = ()


class Schemas(Section):
    """The JSON Schemas of items in the host's own words: a shipped one by its name, or a file beside the profile."""

    asset: str = "asset"
    unit: str = "unit"


class Answer(Section):
    """The immediate answer to a Create call."""

    transaction_id: Places
    status: Places = ()
    received_at: Places = ()
    errors: Places = ()


class StatusQuestion(Section):
    """What our status call carries besides the message's own members."""

    transaction_id: Place


class StatusAnswer(Section):
    """The answer to a status call, with the words for its state."""

    transaction_id: Places = ()
    status: Places
    words: Annotated[Mapping[Word, StatusWord], AfterValidator(_distinct)]
    submitted_at: Places = ()
    updated_at: Places = ()
    total: Places = ()
    succeeded: Places = ()
    failed: Places = ()
    errors: Places = ()
    created: Places = ()


class BatchReturn(Section):
    """A return: which transaction, what became of it. `in_reply_to` echoes the message id of our call."""

    transaction_id: Places
    transaction_type: Places = ()
    in_reply_to: Places = ()
    result: Places = ()
    words: Annotated[Mapping[Word, ReturnResult], AfterValidator(_distinct)] = {}
    completed_at: Places = ()
    total: Places = ()
    succeeded: Places = ()
    created: Places = ()
    errors: Places = ()


class Created(Section):
    """One entry of the list of what was created: our reference and SMP's id; as a map, reference to id."""

    shape: Shape = Shape.LIST
    reference: Pointers = ()
    id: Pointers = ()


class ErrorShape(Section):
    """One entry of an error list. As a map its key is the reference, and `unnamed` the key of errors that name no item."""

    shape: Shape = Shape.LIST
    unnamed: str = "*"
    code: Pointers
    message: Pointers
    severity: Pointers = ()
    severities: Annotated[Mapping[Word, ErrorSeverity], AfterValidator(_distinct)] = {}
    index: Pointers = ()
    first_index: Literal[0, 1] = 0
    reference: Pointers = ()
    field: Pointers = ()
    value: Pointers = ()


class Ack(Section):
    """How we answer a return: at first, when it is a repeat, and when we cannot use it."""

    content_type: str = "application/json"
    status: Literal[200, 201, 202, 204] = 202
    duplicate_status: Literal[200, 201, 202, 204] = 200
    quarantine_status: Literal[202, 422] = 202
    message_id: Pointer | None = None
    received_at: Pointer | None = None
    state: Pointer | None = None
    state_word: Word = "STORED"


class Limits(Section):
    """How much and how fast. `rate_per_minute` 0 means no limit that we know of."""

    records: Positive = 1000
    aligned: Positive = 1000
    max_body_bytes: Positive = 4_000_000
    max_answer_bytes: Positive = 4_194_304
    rate_per_minute: Annotated[float, Field(ge=0)] = 0
    burst: Positive = 10
    concurrency: Positive = 4
    transaction_id: Annotated[int, Field(gt=0, le=1000)] = 128
    error_text: Positive = 1000


class Signature(Section):
    """How messages are signed. `header` is where a detached signature stands; answers and returns take the same form.

    Under `dip-headers`, three more headers: the signer's certificate, the time of signing, and the body's digest.
    """

    form: SignatureForm
    header: HeaderName
    date_header: HeaderName | None = None
    certificate_header: HeaderName | None = None
    certificate_as: CertificateForm = CertificateForm.PEM
    digest_header: HeaderName | None = None
    algorithms: Annotated[tuple[Literal["PS256", "RS256", "ES256", "EdDSA"], ...], Field(min_length=1)] = (
        "PS256",
        "RS256",
        "ES256",
        "EdDSA",
    )
    answers_signed: AnswersSigned = AnswersSigned.IF_PRESENT
    sign_acks: bool = False

    @property
    def headers(self) -> tuple[str, ...]:
        """Every header that a signature takes: its own, then those of time, certificate and digest where there are some."""
        more = (self.date_header, self.certificate_header, self.digest_header)
        return (self.header, *(name for name in more if name is not None))


class Freshness(Section):
    """How early or old a message may be: ATTEMPT takes `window_s` both ways, EVENT takes it into the future and `past_s` back, flagged late."""

    mode: FreshnessMode = FreshnessMode.EVENT
    window_s: Seconds = 300
    past_s: Annotated[float, Field(ge=0, le=604_800)] = 604_800


class Retry(Section):
    """Waits before a call that was certainly not processed leaves again; the last one repeats."""

    delays_s: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (1, 2, 4, 8, 16, 30)


class Poll(Section):
    """When the status of a transaction is asked for: after each of `delays_s` in turn, then every `every_s` until `until_s` have passed."""

    delays_s: tuple[Annotated[float, Field(gt=0)], ...] = (5, 10, 20, 40, 60)
    every_s: Annotated[float, Field(gt=0)] = 300
    until_s: Seconds = 86_400
    overdue_s: Seconds = 900

    def delay_s(self, attempt: int) -> float | None:
        """The wait before poll number `attempt` (from 0); None when the plan is over."""
        if attempt < len(self.delays_s):
            return self.delays_s[attempt]
        passed = sum(self.delays_s) + (attempt - len(self.delays_s) + 1) * self.every_s
        return self.every_s if passed <= self.until_s else None


def _text_keys(value: object) -> object:
    return {str(key): word for key, word in value.items()} if isinstance(value, Mapping) else value


def _answer_key(classes: Mapping[str, AnswerWord]) -> Mapping[str, AnswerWord]:
    for key in classes:
        status = key.removesuffix("+retry-after")
        if not (len(status) == 3 and status[0] in "12345" and (status[1:].isdigit() or status[1:] == "xx")):
            raise ValueError(
                f"{key!r} is no answer: must be a status (503), one with a condition (503+retry-after) or a hundred (3xx)"
            )
    return classes


class Transport(Section):
    """The connection. `idle_s` stays below the server's own limit, or a call meets a closing connection. A redirect is never followed.

    `traceparent` lets calls carry the W3C Trace Context header of that name while the host is traced; not for a platform that refuses what it does not know.
    """

    tls_minimum: Literal["1.2", "1.3"] = "1.2"
    redirects: Literal["never"] = "never"
    connect_s: Annotated[float, Field(gt=0)] = 10
    answer_s: Annotated[float, Field(gt=0)] = 60
    idle_s: Annotated[float, Field(gt=0)] = 50
    idempotency_header: HeaderName | None = None
    traceparent: bool = False


class ProfileSpec(Section):
    """A whole profile as its file says it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    version: Annotated[str, Field(min_length=1, max_length=40)]
    calls: Calls
    token: TokenRules
    message: Message
    asset: RecordMap
    unit: RecordMap
    schemas: Schemas = Schemas()
    answer: Answer
    status_question: StatusQuestion
    status_answer: StatusAnswer
    batch_return: BatchReturn
    created: Created = Created()
    errors: ErrorShape
    ack: Ack = Ack()
    limits: Limits = Limits()
    signature: Signature
    freshness: Freshness = Freshness()
    retry: Retry = Retry()
    poll: Poll = Poll()
    answer_classes: Annotated[
        Mapping[str, AnswerWord], BeforeValidator(_text_keys), AfterValidator(_answer_key), Field(min_length=1)
    ]
    transport: Transport = Transport()
    returns: Returns = Returns.BOTH
    return_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~/-]*\{participant\}[A-Za-z0-9._~/-]*$")]
    align_by: AlignBy = AlignBy.REFERENCE
    batch_semantics: Semantics = Semantics.UNKNOWN
    return_content_types: Annotated[tuple[str, ...], Field(min_length=1)] = ("application/json",)
    resubmit_unnamed: bool = False
    recognises_repeats: bool = False
