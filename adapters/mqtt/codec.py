"""Payloads to readings and request ids, outcomes to payloads. Pure."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from adapters.mqtt.config import NUMBER, Scalar
from bridge.api import Code, OutcomeField, Quality, Reading

MOST_ID: Final = 200
_SHOWN: Final = 80
_BOM: Final = "\ufeff"


class Unreadable(Exception):
    """A payload that cannot be used; the text says why, on one line and without the peer's own text."""


class Source(NamedTuple):
    """Where a field comes from: a placeholder of the topic, or the steps of a member's path."""

    placeholder: str
    steps: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Source":
        """From the site file's own spelling."""
        return cls(text[1:], ()) if text.startswith("$") else cls("", tuple(text.split(".")))


def parse(payload: bytes, limit: int) -> dict[str, Any]:
    """A payload that is one JSON object. Raises `Unreadable`."""
    if len(payload) > limit:
        raise Unreadable(f"has {len(payload)} bytes, `max_payload` allows {limit}")
    try:
        value = _DECODER.decode(payload.decode("utf-8").removeprefix(_BOM))
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 (byte {error.start})") from None
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


def reading(body: Mapping[str, Any], source: Source, placeholders: Mapping[str, str]) -> Reading:
    """One field. A member that is missing or null is absent: a flow's `default:` may stand in for it."""
    if source.placeholder:
        return Reading(value=placeholders[source.placeholder])
    value = find(body, source.steps)
    if value is None:
        return Reading(value=None, quality=Quality.BAD, detail=f"{'.'.join(source.steps)} is not there", absent=True)
    return Reading(value=value)


def request_id(body: Mapping[str, Any], steps: Sequence[str]) -> str:
    """The request's id as text. Raises `Unreadable` when there is none that could be kept and given back."""
    value = find(body, steps)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return str(value)
    if not isinstance(value, str) or not value:
        raise Unreadable(f"has no request id at {'.'.join(steps)}; must be text or a whole number")
    if len(value) > MOST_ID or not value.isprintable():
        raise Unreadable(f"has a request id that is longer than {MOST_ID} characters or not printable")
    return value


def fits(body: Mapping[str, Any], where: Sequence[tuple[tuple[str, ...], Scalar]]) -> bool:
    """Whether a request holds what `where:` asks. A number is never a text, and true is never 1."""
    return all(_same(find(body, steps), wanted) for steps, wanted in where)


def _same(value: Any, wanted: Scalar) -> bool:
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


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
