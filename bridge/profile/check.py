"""What only shows when the sections of a profile are laid side by side, and beside the vocabulary and the schemas. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from bridge.model import Kind
from bridge.profile.model import Message, ProfileSpec, RecordMap, Signature, WireField
from bridge.profile.places import Place, PlaceKind
from bridge.profile.words import AlignBy, AnswersSigned, MessageKind, Returns, Shape, StatusWord, WireType
from bridge.vocabulary import FieldSpec, ValueType, Vocabulary

# A path inside the profile, and what is wrong there.
Found = tuple[str, str]

_PLAIN: Final[Mapping[ValueType, frozenset[WireType]]] = {
    ValueType.TEXT: frozenset({WireType.TEXT}),
    ValueType.ENUM: frozenset({WireType.TEXT, WireType.INTEGER}),
    ValueType.INTEGER: frozenset({WireType.INTEGER, WireType.NUMBER, WireType.DECIMAL_TEXT}),
    ValueType.NUMBER: frozenset({WireType.NUMBER, WireType.DECIMAL_TEXT}),
    ValueType.BOOLEAN: frozenset({WireType.BOOLEAN}),
    ValueType.INSTANT: frozenset({WireType.INSTANT}),
    ValueType.LIST: frozenset({WireType.LIST}),
}
_SENT: Final = (MessageKind.ASSET_CREATE, MessageKind.UNIT_CREATE, MessageKind.STATUS, MessageKind.RETURN)


def problems_of(
    spec: ProfileSpec, schemas: Mapping[Kind, Mapping[str, Any]], vocabulary: Vocabulary
) -> Iterator[Found]:
    """Every contradiction in a profile that is well formed in itself."""
    yield from _message(spec.message)
    for kind, records in ((Kind.ASSET, spec.asset), (Kind.UNIT, spec.unit)):
        yield from _records(kind, records, schemas[kind], vocabulary)
        yield from _envelope_clashes(kind, records, spec.message)
    yield from _signature(spec.signature)
    if spec.signature.form.certified:
        yield from _headers_alone(spec)
    yield from _answers(spec)
    yield from _errors(spec)
    yield from _returns(spec)


def _message(message: Message) -> Iterator[Found]:
    """Everything that decides whom and what a message is for must be under the signature."""
    for name in ("id", "type", "schema_version", "timestamp", "environment", "sender", "recipient", "correlation_id"):
        place: Place = getattr(message, name)
        if not place.signed:
            yield f"message.{name}", "an HTTP header is not signed; use body: or protected:"
    for name in ("id", "timestamp", "sender", "recipient"):
        place = getattr(message, name)
        if not place.present:
            yield f"message.{name}", "must stand in the message; use body: or protected:"
    if message.type.present:
        missing = [kind.value for kind in _SENT if kind not in message.types]
        if missing:
            yield "message.types", f"words are missing for {', '.join(missing)}"
        words = [str(word).casefold() for word in message.types.values()]
        if len(set(words)) < len(words):
            yield "message.types", "two kinds of message have the same word"
    for name in ("id", "type", "schema_version", "timestamp", "environment", "sender", "recipient", "correlation_id"):
        place = getattr(message, name)
        if place.kind is PlaceKind.BODY and not place.path:
            yield f"message.{name}", "cannot be the whole body"
    yield from _reserved(message)


def _reserved(message: Message) -> Iterator[Found]:
    for name in ("id", "type", "schema_version", "timestamp", "environment", "sender", "recipient", "correlation_id"):
        place: Place = getattr(message, name)
        if place.kind is PlaceKind.PROTECTED and place.name in _JOSE_HEADERS:
            yield f"message.{name}", f"`{place.name}` has a meaning of its own in a protected header; use another name"


def _signature(signature: Signature) -> Iterator[Found]:
    """The headers that belong to the form, and no others."""
    for name in ("date_header", "certificate_header", "digest_header"):
        given = getattr(signature, name) is not None
        if given and not signature.form.certified:
            yield f"signature.{name}", f"belongs to `dip-headers`; {signature.form.value} has one header at most"
        elif not given and signature.form.certified:
            yield f"signature.{name}", "is missing; add it (`dip-headers` needs four headers)"
    names = [name.lower() for name in signature.headers]
    if len(set(names)) < len(names):
        yield "signature", "two of its headers have the same name"


def _headers_alone(spec: ProfileSpec) -> Iterator[Found]:
    """`dip-headers` has no protected header, signs a request's method and address, and leaves the algorithm to the kind of key."""
    signature = spec.signature
    if {"PS256", "RS256"} <= set(signature.algorithms):
        yield "signature.algorithms", "PS256 and RS256 exclude each other: a certificate says only that its key is RSA"
    if signature.answers_signed is not AnswersSigned.NO:
        yield (
            "signature.answers_signed",
            "must be `no`: a request's method and address are signed, and an answer has neither",
        )
    if signature.sign_acks:
        yield (
            "signature.sign_acks",
            "must be false: a request's method and address are signed, and an answer has neither",
        )
    for section, model in (
        ("message", spec.message),
        ("batch_return", spec.batch_return),
        ("status_question", spec.status_question),
    ):
        for name, value in model:
            places = value if isinstance(value, tuple) else (value,)
            if any(isinstance(place, Place) and place.kind is PlaceKind.PROTECTED for place in places):
                yield f"{section}.{name}", "protected: needs a JWS; `dip-headers` has no protected header"


# RFC 7515 section 4.1 and RFC 7797: names that mean something to every verifier.
_JOSE_HEADERS: Final = frozenset(
    {"alg", "jku", "jwk", "kid", "x5u", "x5c", "x5t", "x5t#S256", "typ", "cty", "crit", "b64"}
)


def _records(kind: Kind, records: RecordMap, schema: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Found]:
    specs = vocabulary.fields(kind)
    path = kind.value
    if records.at.kind is not PlaceKind.BODY:
        yield f"{path}.at", "records stand in the body; use body:"
    yield from _fields(f"{path}.fields", records.fields, specs, schema)
    for name in records.omitted:
        if name not in specs:
            yield f"{path}.omitted", f"{name} is no field of the vocabulary"
        elif name in records.fields:
            yield f"{path}.omitted", f"{name} is mapped above; it cannot be omitted too"
    missing = [name for name in specs if name not in records.fields and name not in records.omitted]
    if missing:
        yield f"{path}.fields", f"{', '.join(missing)} are not mapped; map them or list them under `omitted`"
    for name in schema.get("required", ()):
        if not any(mapped == name or mapped.startswith(f"{name}.") for mapped in records.fields):
            yield f"{path}.fields", f"{name} is required by the schema but not mapped"


def _fields(
    path: str, fields: Mapping[str, WireField], specs: Mapping[str, FieldSpec], schema: Mapping[str, Any]
) -> Iterator[Found]:
    taken: dict[tuple[str, ...], str] = {}
    for name, field in fields.items():
        here = f"{path}.{name}"
        spec = specs.get(name)
        if spec is None:
            yield here, "is no field of the vocabulary"
            continue
        for other, owner in taken.items():
            shorter = min(len(other), len(field.at))
            if other[:shorter] == field.at[:shorter]:
                yield f"{here}.at", f"overlaps the place of {owner}"
        taken[field.at] = name
        inner = _inside(schema, name)
        yield from _field(here, field, spec, inner)
        if spec.item:
            yield from _fields(f"{here}.item", field.item, spec.item, _inside(inner, None))
            missing = [member for member in spec.item if member not in field.item]
            if missing:
                yield f"{here}.item", f"{', '.join(missing)} are not mapped"
        elif field.item:
            yield f"{here}.item", "this field is no list of objects"


def _field(here: str, field: WireField, spec: FieldSpec, schema: Mapping[str, Any]) -> Iterator[Found]:
    numeric = spec.type in {ValueType.INTEGER, ValueType.NUMBER}
    if field.scale is not None and not numeric:
        yield f"{here}.scale", "belongs to numbers"
    if field.type is not None and field.type not in _PLAIN[spec.type]:
        allowed = ", ".join(sorted(word.value for word in _PLAIN[spec.type]))
        yield f"{here}.type", f"the host's field is {spec.type.value}; it can be written as {allowed}"
    if field.type is WireType.INTEGER and field.scale is not None and field.scale < 1:
        yield f"{here}.scale", "would lose digits in an integer; use number or decimal_text"
    if field.enum:
        if spec.type is not ValueType.ENUM:
            yield f"{here}.enum", "belongs to fields of fixed words"
        missing = [word for word in schema.get("enum", ()) if word not in field.enum]
        if missing:
            yield f"{here}.enum", f"no word for {', '.join(map(str, missing))}"
        words = [str(word).casefold() for word in field.enum.values()]
        if len(set(words)) < len(words):
            yield f"{here}.enum", "two of the host's words have the same word on the wire"


def _inside(schema: Any, name: str | None) -> Mapping[str, Any]:
    """The schema of a dotted field, or of a list's items (`name` None); empty where it says nothing."""
    found: Any = schema
    if name is None:
        found = schema.get("items", {})
    else:
        for part in name.split("."):
            found = found.get("properties", {}).get(part, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _envelope_clashes(kind: Kind, records: RecordMap, message: Message) -> Iterator[Found]:
    """The records and the message's members must not stand inside each other."""
    at = records.at.path
    for name in ("id", "type", "schema_version", "timestamp", "environment", "sender", "recipient", "correlation_id"):
        place: Place = getattr(message, name)
        if place.kind is not PlaceKind.BODY:
            continue
        shorter = min(len(at), len(place.path))
        inside_record = records.shape == "object" and len(place.path) > len(at)
        if at[:shorter] == place.path[:shorter] and not (inside_record and _apart(records, place.path[len(at) :])):
            yield f"{kind.value}.at", f"overlaps the place of message.{name}"


def _apart(records: RecordMap, rest: tuple[str, ...]) -> bool:
    return all(
        field.at[: min(len(field.at), len(rest))] != rest[: min(len(field.at), len(rest))]
        for field in records.fields.values()
    )


def _answers(spec: ProfileSpec) -> Iterator[Found]:
    """An answer that need not be signed cannot carry anything in a protected header; what must be read has a place."""
    sections: tuple[tuple[str, Any], ...] = (("answer", spec.answer), ("status_answer", spec.status_answer))
    for section, model in sections:
        for name, places in model:
            if not isinstance(places, tuple):
                continue
            protected = any(place.kind is PlaceKind.PROTECTED for place in places)
            if protected and spec.signature.answers_signed is not AnswersSigned.REQUIRED:
                yield f"{section}.{name}", "protected: needs `answers_signed: required`"
    if not any(place.present for place in spec.answer.transaction_id):
        yield "answer.transaction_id", "must stand in the answer"
    if not spec.status_question.transaction_id.present:
        yield "status_question.transaction_id", "must stand in the question"
    if not any(place.present for place in spec.status_answer.status):
        yield "status_answer.status", "must stand in the answer"
    for word in (StatusWord.COMPLETED, StatusWord.PROCESSING):
        if word not in spec.status_answer.words.values():
            yield "status_answer.words", f"no word means {word.value}"


def _errors(spec: ProfileSpec) -> Iterator[Found]:
    if spec.errors.shape is Shape.LIST and not spec.errors.reference and not spec.errors.index:
        yield "errors", "an entry must name its item; give `reference` or `index`, or `shape: map`"
    if spec.created.shape is Shape.LIST and _has_created(spec) and not spec.created.reference:
        yield "created.reference", "is missing; an entry of `created` must name its item"


def _has_created(spec: ProfileSpec) -> bool:
    return any(place.present for place in (*spec.batch_return.created, *spec.status_answer.created))


def _returns(spec: ProfileSpec) -> Iterator[Found]:
    """What a return says must be under its signature; asset ids can only come from where `created` stands."""
    for name, places in spec.batch_return:
        if isinstance(places, tuple) and any(not place.signed for place in places):
            yield f"batch_return.{name}", "an HTTP header is not signed; use body: or protected:"
    if not any(place.present for place in spec.batch_return.transaction_id):
        yield "batch_return.transaction_id", "must stand in the return"
    if spec.align_by is AlignBy.ID and (spec.returns is Returns.POLL or not _has_created(spec)):
        yield "align_by", "`id` needs asset ids, which only pushed returns with `created` bring"
