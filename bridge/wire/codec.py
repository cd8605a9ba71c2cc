"""A profile, compiled once into both directions of every message: what the bridge writes a sandbox reads, and the other way round. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from bridge.lane import RenderedItem
from bridge.model import Kind, Operation
from bridge.profile import AUTHENTICATE, MessageKind, Profile, SignatureForm
from bridge.profile.model import RecordMap
from bridge.wire.errors import pick
from bridge.wire.message import MessageCodec
from bridge.wire.parts import Draft, Parts, finished, follow, plant, reader, writer
from bridge.wire.records import RecordCodec, compile_records
from bridge.wire.replies import Replies
from bridge.wire.scalars import read_text
from bridge.wire.values import MessageMeta, Rendered, Token, Unreadable

_LONGEST: Final = "0" * 128
_SIGNATURE_BYTES: Final = 1200  # an RSA-3072 signature, a kid of 128 and the JSON around them, in base64url
_MAX_TOKEN: Final = 64 * 1024


class Wire(Replies):
    """All messages of one profile. Reading never trusts: what is missing or of a wrong type reads as empty, and only a message without any sense raises."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile.spec, MessageCodec(profile.spec))
        self._profile = profile
        self._calls: Mapping[Operation, _CreateCall] = {
            Operation.ASSET_CREATE: _CreateCall(profile, Kind.ASSET, profile.spec.asset),
            Operation.UNIT_CREATE: _CreateCall(profile, Kind.UNIT, profile.spec.unit),
        }
        self._write_transaction = writer(profile.spec.status_question.transaction_id)
        self._read_transaction = reader(profile.spec.status_question.transaction_id)
        self._token = (pick(profile.spec.token.value), pick(profile.spec.token.lifetime))
        self._overhead = {operation: self._measure(operation) for operation in Operation}
        self._largest = {operation: self.largest(operation) for operation in Operation}

    # the bridge's side -----------------------------------------------------------------------------------------------

    @property
    def status_operation(self) -> str:
        """The host's word for the status call, as `Profile.calls` has it."""
        return MessageKind.STATUS.value

    @property
    def authenticate_operation(self) -> str:
        """The host's word for the login, as `Profile.calls` has it."""
        return AUTHENTICATE

    def render_item(self, kind: Kind, item: Mapping[str, object]) -> RenderedItem:
        """One item in its wire form; `len()` of it is what it costs in a call."""
        operation = Operation.ASSET_CREATE if kind is Kind.ASSET else Operation.UNIT_CREATE
        return RenderedItem(orjson.dumps(self._calls[operation].codec.write(item)))

    def fit(self, operation: Operation, rendered: Sequence[RenderedItem]) -> int:
        """How many of these, from the front, one signed call holds by count and by bytes; 0 when the first alone is too large."""
        if len(rendered) == 1:
            return int(len(rendered[0].content) <= self._largest[operation])
        limits = self._profile.limits
        most = limits.records if self._calls[operation].is_list else 1
        size = self._overhead[operation]
        for count, item in enumerate(rendered[:most]):
            size += len(item) + 1
            if self._signed_size(size) > limits.max_body_bytes:
                return count
        return min(most, len(rendered))

    def largest(self, operation: Operation) -> int:
        """How large one item may be, so that a signed call of it alone fits: what `fit` says, once for all; negative when nothing fits."""
        return self._largest_payload() - self._overhead[operation] - 1

    def render_create(
        self, operation: Operation, items: Sequence[RenderedItem | Mapping[str, object]], meta: MessageMeta
    ) -> Rendered:
        """A Create call of these items; rendered ones are taken as they are."""
        call, draft = self._calls[operation], Draft()
        contents = [
            item if isinstance(item, RenderedItem) else self.render_item(operation.kind, item) for item in items
        ]
        self._message.write(draft, call.kind, meta)
        self._idempotency(draft, meta)
        return finished(call.place(draft, contents))

    def render_status(self, transaction_id: str, meta: MessageMeta) -> Rendered:
        """A status call."""
        draft = Draft()
        self._message.write(draft, MessageKind.STATUS, meta)
        self._write_transaction(draft, transaction_id)
        return finished(draft)

    def render_authenticate(self, username: str, password: str) -> bytes:
        """The login's body. It is a secret: never logged, never journalled."""
        call = self._profile.spec.calls.authenticate
        body: Any = dict(call.extra)
        for path, value in ((call.username, username), (call.password, password)):
            body = plant(body, path, value)
        return orjson.dumps(body)

    def token_headers(self, token: str) -> Mapping[str, str]:
        """The header that shows a token."""
        rules = self._profile.token
        return {rules.header: rules.format.replace("{token}", token)}

    def read_token(self, body: bytes) -> Token | None:
        """The token of a login's answer; None when it holds none that a header could carry."""
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        value, lifetime = (pointer(content) for pointer in self._token)
        if not isinstance(value, str) or not value or len(value) > _MAX_TOKEN:
            return None
        if not value.isascii() or not value.isprintable() or " " in value:
            return None
        return Token(value, _lifetime(lifetime, self._profile.token.default_lifetime_s))

    def looks_signed(self, body: bytes, header_values: Sequence[str]) -> bool:
        """Whether an answer claims to be signed in the profile's form; says nothing of whether it is signed rightly."""
        form = self._profile.signature_form
        if form.certified:  # an answer has no method and address that could be signed
            return False
        if form is SignatureForm.JWS_DETACHED:
            return bool(header_values)
        if form is SignatureForm.JWS_COMPACT:
            return body.count(b".") == 2 and b"{" not in body
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            return False
        return isinstance(content, dict) and content.keys() >= _FLATTENED

    # the platform's side ---------------------------------------------------------------------------------------------

    def read_request(
        self, operation: Operation, headers: Mapping[str, str], body: object, protected: Mapping[str, object]
    ) -> tuple[MessageMeta, list[dict[str, Any]]]:
        """A Create call: its members and its items in the host's own names. Raises `Unreadable` when there are no records."""
        parts = Parts(headers, body, protected)
        meta = self._message.read(parts, MessageKind(operation.value))
        return meta, self._calls[operation].records(body)

    def read_status_request(
        self, headers: Mapping[str, str], body: object, protected: Mapping[str, object]
    ) -> tuple[MessageMeta, str]:
        """A status call: its members and the transaction id it asks for."""
        parts = Parts(headers, body, protected)
        return self._message.read(parts, MessageKind.STATUS), read_text(self._read_transaction(parts))

    def read_credentials(self, body: bytes) -> tuple[str, str]:
        """User name and password of a login; '' for what is missing."""
        call = self._profile.spec.calls.authenticate
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            return "", ""
        return read_text(follow(content, call.username)), read_text(follow(content, call.password))

    def render_token(self, token: Token) -> bytes:
        """A login's answer."""
        rules = self._profile.token
        body = plant(None, rules.value[0], token.value)
        if rules.lifetime:
            whole = token.lifetime_s
            body = plant(body, rules.lifetime[0], int(whole) if whole == int(whole) else whole)
        return orjson.dumps(body)

    def read_shown_token(self, headers: Mapping[str, str]) -> str:
        """The token that a call shows, '' when it shows none in the profile's form; header names are lower case."""
        rules = self._profile.token
        before, _, after = rules.format.partition("{token}")
        value = headers.get(rules.header.lower(), "")
        if len(value) <= len(before) + len(after) or not value.startswith(before) or not value.endswith(after):
            return ""
        return value[len(before) : len(value) - len(after)]

    # inside ----------------------------------------------------------------------------------------------------------

    def _idempotency(self, draft: Draft, meta: MessageMeta) -> None:
        header = self._profile.spec.transport.idempotency_header
        if header is not None:
            draft.headers[header] = meta.message_id

    def _measure(self, operation: Operation) -> int:
        """The bytes of a call without records, its members as long as they may be."""
        meta = MessageMeta(
            message_id=_LONGEST,
            operation=operation.value,
            timestamp_ns=0,
            environment=_LONGEST,
            sender=_LONGEST,
            recipient=_LONGEST,
            correlation_id=_LONGEST,
        )
        empty = [] if self._calls[operation].is_list else [RenderedItem(b"{}")]
        rendered = self.render_create(operation, empty, meta)
        return len(rendered.body) + len(orjson.dumps(dict(rendered.protected)))

    def _signed_size(self, payload: int) -> int:
        """How large a payload becomes on the wire."""
        if self._profile.signature_form in _BESIDE:
            return payload
        return (payload + 2) // 3 * 4 + _SIGNATURE_BYTES

    def _largest_payload(self) -> int:
        """The other way round: the largest one whose signed form is no larger than a body may be."""
        most = self._profile.limits.max_body_bytes
        return most if self._profile.signature_form in _BESIDE else (most - _SIGNATURE_BYTES) // 4 * 3


_BESIDE: Final = frozenset({SignatureForm.JWS_DETACHED, SignatureForm.DIP_HEADERS})  # the body is the payload itself


# RFC 7515 section 7.2.2.
_FLATTENED: Final = frozenset({"payload", "protected", "signature"})


class _CreateCall:
    """The records of one Create call."""

    def __init__(self, profile: Profile, kind: Kind, records: RecordMap) -> None:
        self.codec: RecordCodec = compile_records(records.fields, profile.vocabulary.fields(kind))
        self.is_list = records.shape == "list"
        self.kind = MessageKind.ASSET_CREATE if kind is Kind.ASSET else MessageKind.UNIT_CREATE
        self._path = records.at.path

    def place(self, draft: Draft, items: Sequence[RenderedItem]) -> Draft:
        """Put encoded records into a message."""
        found: Any = [orjson.Fragment(item.content) for item in items]
        if self.is_list:
            draft.body = plant(draft.body, self._path, found)
            return draft
        # Members of the message may stand inside the one record's object, so it cannot go in as finished bytes then.
        beside = follow(draft.body, self._path)
        one: Any = {**beside, **orjson.loads(items[0].content)} if isinstance(beside, dict) else found[0]
        draft.body = plant(draft.body, self._path, one)
        return draft

    def records(self, body: object) -> list[dict[str, Any]]:
        """The records of a message in the host's own names."""
        found = follow(body, self._path)
        entries: Iterable[Any] = found if self.is_list and isinstance(found, list) else [found]
        if self.is_list and not isinstance(found, list):
            raise Unreadable("there is no list of records where the profile has it")
        read = [self.codec.read(entry) for entry in entries if isinstance(entry, dict)]
        if len(read) != (len(found) if isinstance(found, list) else 1):
            raise Unreadable("a record is not an object")
        return read


def _lifetime(value: Any, default_s: float) -> float:
    """Seconds, also as text; the profile's default for anything that is no positive number."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        seconds = 0.0
    return seconds if 0.0 < seconds < float("inf") else default_s
