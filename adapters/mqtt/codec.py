"""JSON payloads to objects, outcomes to payloads. Pure."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from adapters.mqtt.config import NUMBER
from bridge.api import Code, OutcomeField

_SHOWN: Final = 80
_BOM: Final = "\ufeff"
_EXACT: Final = 2.0**53


class Unreadable(Exception):
    """A payload that cannot be used; the text says why, on one line and without the peer's own text."""


def text_of(payload: bytes, limit: int) -> str:
    """A payload's text, without a byte order mark. Raises `Unreadable`."""
    if len(payload) > limit:
        raise Unreadable(f"has {len(payload)} bytes, `max_payload` allows {limit}")
    try:
        return payload.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 (byte {error.start})") from None


def parse(payload: bytes, limit: int) -> dict[str, Any]:
    """A payload that is one JSON object. Raises `Unreadable`."""
    flat = _flat(payload) if len(payload) <= limit else None
    return _object(text_of(payload, limit)) if flat is None else flat


def _flat(payload: bytes) -> dict[str, Any] | None:
    """What a record usually is, one level, read by the quicker parser; None for all else, and for what the two might read differently.

    That parser lets a member stand twice: then the payload has more quotation marks than the names and texts that are left, as it has where one is escaped.
    And it makes a rounded number of an integer that is too long for it.
    """
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if type(found) is not dict:
        return None
    quoted = len(found)
    for value in found.values():
        kind = type(value)
        if kind is str:
            quoted += 1
        elif kind is dict or kind is list or (kind is float and not -_EXACT < value < _EXACT):
            return None
    return found if payload.count(b'"') == 2 * quoted else None


def _object(text: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"is not JSON ({error.msg}, character {error.pos})") from None
    except RecursionError:
        raise Unreadable("is nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise Unreadable(f"holds a number that cannot be read ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise Unreadable("names a member twice")
    return made


def _constant(word: str) -> Any:
    raise Unreadable(f"holds {word}, which is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant)


def find(value: Any, steps: Sequence[str]) -> Any:
    """The value at a member's path; None when there is nothing. A step into a list is the element's number."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def member(word: str, values: Mapping[OutcomeField, object]) -> object:
    """The JSON value of one member of an outcome, named as in `outcome.payload`."""
    value = values.get(OutcomeField(word.removesuffix(NUMBER)))
    if isinstance(value, Code):
        return value.number if word.endswith(NUMBER) else value.text
    if word == OutcomeField.UPDATED_AT.value and isinstance(value, int):
        return instant(value)
    return list(value) if isinstance(value, tuple) else value


def encode(payload: Mapping[str, str], values: Mapping[OutcomeField, object]) -> bytes:
    """The whole message of an outcome."""
    body: dict[str, Any] = {}
    for path, word in payload.items():
        *parents, leaf = path.split(".")
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = member(word, values)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def instant(wall_ns: int) -> str:
    """UTC nanoseconds as `2026-11-23T10:00:00.000Z`."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def printable(text: object) -> str:
    """A peer's text, fit for a log line: one line, capped."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:_SHOWN])
