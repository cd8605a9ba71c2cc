"""From a record of the EMS to an item in the host's own words. Compiled once per flow into closures; pure, and never raises for what an EMS can hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from bridge.config.kinds import CONVERTERS, Convert, WrongValue, clean, is_unset, shown
from bridge.config.payload import ITEM, Payload, Rule
from bridge.config.site import FlowConfig
from bridge.config.verbs import formatted, steps_of
from bridge.config.words import Words, words_of
from bridge.model import HostReason, Quality, Reading, Record, Refusal
from bridge.vocabulary import Vocabulary

Fields: TypeAlias = Mapping[str, Reading]
Fetch: TypeAlias = Callable[[Fields], object]

DIGEST_BYTES: Final = 16
TORN: Final = "torn"  # a record's problem that begins with this word is a torn read
_MAX_PROBLEM: Final = 200
_MAX_LISTED: Final = 10
_ABSENT: Final = object()  # leave the field out
_MISSING: Final = object()  # no default: refuse
_GOOD: Final = Quality.GOOD
_NEVER_UNSET: Final = frozenset({int, float, bool})


class Mapped(NamedTuple):
    """What a record became: `item` is whole only when `refusals` is empty. `members` are the references of a unit's aligned assets.

    An aligned asset whose capacity or asset id the payload does not give is left without it: the market side fills both from what is registered when it signs.
    """

    key: str | None
    item: Mapping[str, object] = {}
    refusals: tuple[Refusal, ...] = ()
    members: tuple[str, ...] = ()


class _Wrong(Exception):
    """Several refusals at once (the elements of a list)."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__()
        self.refusals = refusals


class _Target(NamedTuple):
    """One field of the item: where it stands and how it is made."""

    name: str
    parents: tuple[str, ...]
    leaf: str
    fetch: Fetch


@dataclass(frozen=True, slots=True)
class Mapper:
    """One flow's mapping, ready to run."""

    _targets: tuple[_Target, ...]
    _reference: _Target
    _aligned: str = ""
    _member: str = ""

    def map(self, record: Record) -> Mapped:
        """Map one record; everything wrong with it is in `refusals`, nothing is raised."""
        if record.problem:
            return Mapped(key=self.key_of(record.fields), refusals=(_whole(record.problem),))
        refusals: list[Refusal] = []
        item = _build(self._targets, record.fields, refusals)
        key = item.get(self._reference.leaf)
        if key is None and not refusals:
            refusals.append(
                Refusal(reason=HostReason.NO_KEY, text=f"{self._reference.name} is missing; every record needs its key")
            )
        return Mapped(
            key=key if isinstance(key, str) else None,
            item=item,
            refusals=tuple(refusals),
            members=self._members(item) if self._aligned else (),
        )

    def key_of(self, fields: Fields) -> str | None:
        """The key that these readings map to, None when it cannot be told; for the check before a write-back."""
        try:
            key = self._reference.fetch(fields)
        except (WrongValue, _Wrong):
            return None
        return key if isinstance(key, str) else None

    def _members(self, item: Mapping[str, object]) -> tuple[str, ...]:
        entries = item.get(self._aligned)
        if not isinstance(entries, list):
            return ()
        return tuple(entry[self._member] for entry in entries if self._member in entry)


def compile_flow(flow: FlowConfig, vocabulary: Vocabulary) -> Mapper:
    """Compile a checked flow; call it once at start."""
    words = words_of(vocabulary, flow.operation.kind)
    targets = _compile(flow.payload, words)
    reference = next(target for target in targets if target.name == words.reference)
    aligned = next(iter(words.lists), "")
    return Mapper(targets, reference, aligned, words.lists[aligned].reference if aligned else "")


def canonical(item: Mapping[str, object]) -> bytes:
    """The one spelling of an item's content: JSON with sorted keys."""
    return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)


def digest(content: bytes) -> bytes:
    """What is compared to tell whether two contents are equal."""
    return sha256(content).digest()[:DIGEST_BYTES]


def _build(targets: Sequence[_Target], fields: Fields, refusals: list[Refusal], prefix: str = "") -> dict[str, Any]:
    item: dict[str, Any] = {}
    for name, parents, leaf, fetch in targets:
        try:
            value = fetch(fields)
        except WrongValue as wrong:
            refusals.append(Refusal(reason=wrong.reason, text=f"{prefix}{name} {wrong.text}"))
            continue
        except _Wrong as several:
            refusals.extend(several.refusals)
            continue
        if value is _ABSENT:
            continue
        if parents:
            place = item
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = value
        else:
            item[leaf] = value
    return item


def _whole(problem: str) -> Refusal:
    """The refusal of a record that as a whole cannot be used."""
    reason = HostReason.TORN_RECORD if problem.lower().startswith(TORN) else HostReason.UNREADABLE
    return Refusal(reason=reason, text=clean(problem, _MAX_PROBLEM))


def _compile(payload: Payload, words: Words) -> tuple[_Target, ...]:
    targets = []
    for name, rule in payload.items():
        *parents, leaf = name.split(".")
        fetch = _each(rule, name, words.lists[name]) if rule.each is not None else _fetch(rule, words.kinds[name])
        targets.append(_Target(name, tuple(parents), leaf, fetch))
    return tuple(targets)


def _fetch(rule: Rule, kind: str) -> Fetch:
    if rule.has_const:
        return _constant(CONVERTERS[kind](rule.const))
    steps = steps_of(rule, kind)
    fallback = _fallback(rule, kind)
    source = rule.source
    if source is None or (rule.is_template and len(rule.fields()) > 1):
        return _templated(rule, steps, fallback)
    if source.startswith(f"{ITEM}."):
        return _inside(source.removeprefix(f"{ITEM}."), steps, fallback)
    return _single(source, steps, fallback)


def _constant(value: object) -> Fetch:
    def fetch(_fields: Fields) -> object:
        return value

    return fetch


def _fallback(rule: Rule, kind: str) -> object:
    """What stands in for nothing: `_MISSING` when the rule has no default, `_ABSENT` for `default: null`."""
    if not rule.has_default:
        return _MISSING
    return _ABSENT if rule.default is None else CONVERTERS[kind](rule.default)


def _single(source: str, steps: tuple[Convert, ...], fallback: object) -> Fetch:
    """One field of the record: checked for quality, replaced by the default where the EMS has nothing, then taken through the steps."""
    only = steps[0] if len(steps) == 1 else None

    def fetch(fields: Fields) -> object:
        reading = fields.get(source)
        if reading is not None and reading.quality is _GOOD:
            value = reading.value
            if type(value) is str:
                there = bool(value) and not value.isspace()
            else:
                there = type(value) in _NEVER_UNSET or not is_unset(value)
            if there:
                if only is not None:
                    return only(value)
                for step in steps:
                    value = step(value)
                return value
        elif reading is not None and not reading.absent:
            raise _bad_quality(reading, source)
        return _instead(fallback, source)

    return fetch


def _inside(path: str, steps: tuple[Convert, ...], fallback: object) -> Fetch:
    """A member of a list element that is itself an object: `$item.name`."""
    parts = path.split(".")

    def fetch(fields: Fields) -> object:
        value = fields[ITEM].value
        for part in parts:
            value = value.get(part) if isinstance(value, Mapping) else None
        if is_unset(value):
            return _instead(fallback, path)
        for step in steps:
            value = step(value)
        return value

    return fetch


def _templated(rule: Rule, steps: tuple[Convert, ...], fallback: object) -> Fetch:
    """A text made of several fields. Every one of them must be there and good."""
    parts = [(text, rule.source if name == "" else name, spec) for text, name, spec in rule.template()]
    finish = steps[-1]

    def fetch(fields: Fields) -> object:
        made = []
        for text, name, spec in parts:
            made.append(text)
            if name is None:
                continue
            reading = fields.get(name)
            if reading is not None and reading.quality is not _GOOD and not reading.absent:
                raise _bad_quality(reading, name)
            if reading is None or is_unset(reading.value):
                return _instead(fallback, name)
            made.append(formatted(reading.value, spec))
        return finish("".join(made))

    return fetch


def _each(rule: Rule, name: str, words: Words) -> Fetch:
    """A list with one object per element of a field."""
    source, fallback = str(rule.each), _ABSENT if rule.has_default else _MISSING
    targets = _compile(rule.item or {}, words)

    def fetch(fields: Fields) -> object:
        reading = fields.get(source)
        if reading is not None and reading.quality is not _GOOD and not reading.absent:
            raise _bad_quality(reading, source)
        if reading is None or reading.value is None:
            return _instead(fallback, source)
        if not isinstance(reading.value, list | tuple):
            raise WrongValue(HostReason.WRONG_TYPE, f"is {shown(reading.value)}, must be a list")
        refusals: list[Refusal] = []
        scope = dict(fields)
        made = []
        for index, element in enumerate(reading.value):
            scope[ITEM] = Reading(value=element)
            made.append(_build(targets, scope, refusals, f"{name}[{index}]."))
        if refusals:
            raise _Wrong(refusals[:_MAX_LISTED])
        return made

    return fetch


def _instead(fallback: object, source: str) -> object:
    if fallback is _MISSING:
        raise WrongValue(HostReason.MISSING_VALUE, f"is missing: the EMS has nothing in {source}")
    return fallback


def _bad_quality(reading: Reading, source: str) -> WrongValue:
    detail = f" ({clean(reading.detail, 80)})" if reading.detail else ""
    return WrongValue(
        HostReason.BAD_QUALITY,
        f"cannot be used: the EMS marks {source} as {reading.quality.value}{detail}, must be good",
    )
