"""A valid profile whose names, paths, nesting, places, units and shapes are drawn from a seed: what works under it works by data alone."""

from collections.abc import Mapping
from random import Random
from typing import Any

from bridge.model import Kind
from bridge.profile import shipped_profiles
from bridge.profile.load import load_profile
from bridge.vocabulary import FieldSpec, ValueType, load_vocabulary

_SYLLABLES = [
    "ba",
    "be",
    "bi",
    "bo",
    "bu",
    "da",
    "de",
    "di",
    "do",
    "du",
    "fa",
    "fe",
    "fi",
    "fo",
    "fu",
    "ga",
    "ge",
    "gi",
    "go",
    "gu",
    "la",
    "le",
    "li",
    "lo",
    "lu",
    "ma",
    "me",
    "mi",
    "mo",
    "mu",
    "na",
    "ne",
    "ni",
    "no",
    "nu",
    "ra",
    "re",
    "ri",
    "ro",
    "ru",
    "sa",
    "se",
    "si",
    "so",
    "su",
    "ta",
    "te",
    "ti",
    "to",
    "tu",
    "va",
    "ve",
    "vi",
    "vo",
    "vu",
    "za",
    "ze",
    "zi",
    "zo",
    "zu",
]
_MEMBERS = ("id", "type", "schema_version", "timestamp", "environment", "sender", "recipient", "correlation_id")
_STATUS = ("RECEIVED", "QUEUED", "PROCESSING", "COMPLETED", "COMPLETED_WITH_ERRORS", "REJECTED", "FAILED", "NOT_FOUND")
_KINDS = ("asset.create", "unit.create", "transaction.status", "batch.return", "ack")


class _Draw:
    """Names that never repeat, and choices, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self._used: set[str] = set()
        self._joiner = self.rng.choice(["", "_", "-"])

    def name(self) -> str:
        while True:
            parts = [
                "".join(self.rng.choices(_SYLLABLES, k=self.rng.randint(2, 3))) for _ in range(self.rng.randint(1, 2))
            ]
            name = self._joiner.join(parts) if self._joiner else parts[0] + "".join(part.title() for part in parts[1:])
            if name.lower() not in self._used:
                self._used.add(name.lower())
                return name

    def header(self) -> str:
        return "-".join(["X", *(part.title() for part in (self.name(), self.name()))])

    def path(self) -> str:
        return "".join(f"/{self.name()}" for _ in range(self.rng.randint(1, 4)))

    def pointer(self, groups: list[str]) -> str:
        return self.rng.choice(["", *groups]) + "/" + self.name()

    def word(self, *, number: bool) -> Any:
        if not number:
            return self.name()
        while True:
            value = self.rng.randint(1, 999)
            if str(value) not in self._used:
                self._used.add(str(value))
                return value

    def chance(self, likely: float = 0.5) -> bool:
        return self.rng.random() < likely

    def some(self, *choices: Any) -> Any:
        return self.rng.choice(choices)


def random_profile(seed: int) -> dict[str, Any]:
    """The content of a profile file, valid under the model; the same seed gives the same profile."""
    draw = _Draw(seed)
    message, bare = _message(draw)
    has_created = draw.chance()
    errors = _errors(draw)
    return {
        "name": f"drawn-{seed}",
        "version": str(draw.rng.randint(1, 99)),
        "calls": _calls(draw),
        "token": _token(draw),
        "message": message,
        "asset": _records(draw, Kind.ASSET, bare=bare, shape="list"),
        "unit": _records(draw, Kind.UNIT, bare=bare, shape=draw.some("list", "object")),
        "answer": {
            "transaction_id": _place(draw, header=True),
            "status": _place(draw),
            "received_at": _place(draw),
            "errors": _place(draw),
        },
        "status_question": {"transaction_id": f"body:/{draw.name()}" if draw.chance() else f"protected:{draw.name()}"},
        "status_answer": _status_answer(draw, has_created=has_created),
        "batch_return": _batch_return(draw, has_created=has_created),
        "created": _created(draw),
        "errors": errors,
        "ack": {"status": draw.some(200, 201, 202), "message_id": f"/{draw.name()}", "received_at": f"/{draw.name()}", "state": f"/{draw.name()}", "state_word": draw.word(number=draw.chance())},
        "limits": {"records": 1000, "max_body_bytes": 4_000_000, "concurrency": draw.rng.randint(1, 4)},
        "signature": {"form": draw.some("jws-detached", "jws-flattened", "jws-compact"), "header": draw.header()},
        "answer_classes": _answer_classes(),
        "transport": {"idempotency_header": draw.header()} if draw.chance() else {},
        "returns": "both",
        "return_path": f"{draw.path()}/{{participant}}{draw.some('', draw.path())}",
        "return_content_types": ["application/json", "application/jose", "application/jose+json"],
        # Without a list of what was created, only `partial` tells what became of the items that no error names.
        "batch_semantics": draw.some("partial", "unknown") if has_created else "partial",
    }  # fmt: skip


def _answer_classes() -> dict[str, str]:
    shipped = load_profile(shipped_profiles()[0])
    return {key: word.value for key, word in shipped.answer_classes.items()}


def _calls(draw: _Draw) -> dict[str, Any]:
    def call() -> dict[str, Any]:
        return {"method": draw.some("POST", "PUT"), "path": draw.path()}

    return {
        "authenticate": {**call(), "username": draw.path(), "password": draw.path()},
        "asset.create": call(),
        "unit.create": call(),
        "transaction.status": call(),
    }


def _token(draw: _Draw) -> dict[str, Any]:
    return {
        "value": [draw.path(), draw.path()],
        "lifetime": draw.path(),
        "header": draw.some("Authorization", draw.header()),
        "format": draw.some("Bearer {token}", "{token}", "Pass {token}"),
    }


def _message(draw: _Draw) -> tuple[dict[str, Any], bool]:
    """The message section, and whether the body is free of it, so that records can be the whole body."""
    bare = draw.chance(0.4)
    group = draw.some("", draw.path())
    places = {}
    for name in _MEMBERS:
        in_body = not bare and draw.chance(0.7)
        places[name] = f"body:{group}/{draw.name()}" if in_body else f"protected:{draw.name()}"
    if draw.chance(0.3):
        places["schema_version"] = "absent"
    number = draw.chance()
    types = {kind: draw.word(number=number) for kind in _KINDS}
    return {
        **places,
        "version": draw.word(number=False),
        "time": draw.some("iso_ms_z", "epoch_ms"),
        "types": types,
    }, bare


def _records(draw: _Draw, kind: Kind, *, bare: bool, shape: str) -> dict[str, Any]:
    specs = load_vocabulary().fields(kind)
    enums = load_profile(shipped_profiles()[0]).schemas[kind]["properties"]
    at = "body:" if bare and draw.chance() else f"body:{draw.path()}"
    return {"at": at, "shape": shape, "fields": _fields(draw, specs, enums)}


def _fields(draw: _Draw, specs: Mapping[str, FieldSpec], schema: Mapping[str, Any]) -> dict[str, Any]:
    groups = [draw.path() for _ in range(draw.rng.randint(0, 3))]
    return {name: _field(draw, spec, schema.get(name, {}), groups) for name, spec in specs.items()}


def _field(draw: _Draw, spec: FieldSpec, schema: Mapping[str, Any], groups: list[str]) -> Any:
    at = draw.pointer(groups)
    if spec.item:
        return {"at": at, "item": _fields(draw, spec.item, {})}
    if spec.type is ValueType.ENUM:
        number = draw.chance()
        return {"at": at, "enum": {word: draw.word(number=number) for word in schema["enum"]}} if draw.chance() else at
    if spec.type is ValueType.INTEGER:
        return draw.some(at, {"at": at, "type": "decimal_text", "scale": 0.001}, {"at": at, "type": "number", "scale": "0.001"}, {"at": at, "scale": 1000})  # fmt: skip
    if spec.type is ValueType.NUMBER:
        return draw.some(at, {"at": at, "type": "decimal_text"}, {"at": at, "type": "decimal_text", "scale": 1000})
    if spec.type is ValueType.INSTANT:
        return {"at": at, "time": draw.some("iso_ms_z", "epoch_ms")}
    return at


def _place(draw: _Draw, *, header: bool = False) -> str:
    if header and draw.chance(0.4):
        return f"header:{draw.header()}"
    return f"body:{draw.path()}"


def _signed_place(draw: _Draw) -> str:
    return f"body:{draw.path()}" if draw.chance(0.8) else f"protected:{draw.name()}"


def _status_answer(draw: _Draw, *, has_created: bool) -> dict[str, Any]:
    number = draw.chance()
    found = {
        "status": _place(draw),
        "words": {draw.word(number=number): word for word in _STATUS},
        **{name: _place(draw) for name in ("submitted_at", "updated_at", "total", "succeeded", "failed", "errors")},
        "transaction_id": _place(draw, header=True),
    }
    return {**found, "created": _place(draw)} if has_created else found


def _batch_return(draw: _Draw, *, has_created: bool) -> dict[str, Any]:
    number = draw.chance()
    found = {
        "transaction_id": _signed_place(draw),
        "transaction_type": _signed_place(draw),
        "result": _signed_place(draw),
        "words": {draw.word(number=number): word for word in ("SUCCESS", "ERRORS", "REJECTED")},
        "completed_at": _signed_place(draw),
        "errors": f"body:{draw.path()}",
    }
    if draw.chance():
        found["in_reply_to"] = _signed_place(draw)
    return {**found, "created": f"body:{draw.path()}"} if has_created else found


def _created(draw: _Draw) -> dict[str, Any]:
    if draw.chance(0.3):
        return {"shape": "map"}
    return {"shape": "list", "reference": draw.path(), "id": draw.path()}


def _errors(draw: _Draw) -> dict[str, Any]:
    number = draw.chance()
    found = {
        "code": draw.path(),
        "message": draw.path(),
        "severity": f"/{draw.name()}",
        "severities": {draw.word(number=number): word for word in ("ERROR", "WARNING")},
        "field": draw.path(),
        "value": draw.path(),
        "index": f"/{draw.name()}",
        "first_index": draw.some(0, 1),
    }
    if draw.chance(0.4):
        return {**found, "shape": "map", "unnamed": draw.some("*", "?", "-")}
    return {**found, "shape": "list", "reference": draw.path()}
