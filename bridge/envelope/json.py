"""Strict JSON of a validly signed body: what Python's own parser lets through silently is refused (DOMAIN 9 rows 19 to 21, 27)."""

import json
import re
from typing import Any, Final, NoReturn

from bridge.errors import BridgeError

MAX_DEPTH: Final = 32
LARGEST_EXACT: Final = 2**53
MAX_DIGITS: Final = 16
MAX_VALUES: Final = 250_000
# A string without its end runs to the end of the text: one match, so that no text makes the search start over again and again.
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
_BOM: Final = b"\xef\xbb\xbf"


class BodyRefused(BridgeError):
    """A validly signed body that is not the JSON we take; `reason` is stable text for our own counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_strict(payload: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of an RFC 8259 text.

    Raises `BodyRefused`: byte order mark, invalid UTF-8, lone surrogates, depth, number of values, duplicate members, NaN and infinities, integers beyond 2^53, negative zero.
    """
    if payload.startswith(_BOM):
        raise BodyRefused("byte_order_mark")
    _check_structure(payload, max_depth)
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BodyRefused("not_utf8") from error
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise BodyRefused("not_json") from error
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_structure(payload: bytes, most: int) -> None:
    """Count brackets and commas outside strings before any parser recurses or builds anything."""
    depth = values = 0
    for match in _STRUCTURE.finditer(payload):
        letter = match.group()[0]
        if letter in b"[{":
            depth += 1
            if depth > most:
                raise BodyRefused("too_deep")
        elif letter in b"]}":
            depth -= 1
        elif letter in b",":
            values += 1
            if values > MAX_VALUES:
                raise BodyRefused("too_many_values")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BodyRefused("duplicate_member")
    return members


def _constant(_: str) -> NoReturn:
    raise BodyRefused("not_a_number")


def _integer(digits: str) -> int:
    if digits == "-0":
        raise BodyRefused("negative_zero")
    if len(digits.lstrip("-")) > MAX_DIGITS or abs(value := int(digits)) > LARGEST_EXACT:
        raise BodyRefused("integer_too_large")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise BodyRefused("not_a_number")
    if value == 0 and digits.startswith("-"):
        raise BodyRefused("negative_zero")
    return value


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_constant, parse_int=_integer, parse_float=_real
)


def _check_surrogates(value: Any) -> None:
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise BodyRefused("lone_surrogate")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_surrogates(name)
            _check_surrogates(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_surrogates(inner)
