"""The vocabulary's types: how a value becomes one, or why it cannot. Shared by the checks at start and by the mapping of records. Pure."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeAlias

from bridge.model import HostReason

Convert: TypeAlias = Callable[[object], object]

LARGEST_EXACT: Final = 2**53  # beyond it JSON readers disagree about integers
_CONTROL: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_SHOWN: Final = 40
_SHOWN_BITS: Final = 128  # Python refuses to spell integers of thousands of digits
_UNSET_BEFORE: Final = datetime(1970, 1, 2, tzinfo=UTC)


class WrongValue(Exception):
    """A value that cannot be used: the host's reason and what would be right. Caught where the field's name is known."""

    def __init__(self, reason: HostReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def wrong_type(value: object, wanted: str) -> WrongValue:
    """The refusal of a value of another type."""
    return WrongValue(HostReason.WRONG_TYPE, f"is {shown(value)}, must be {wanted}")


def shown(value: object) -> str:
    """A peer's value for a person's eyes: its type, and a short clean form where that helps."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return "a number of many digits"
    if isinstance(value, int | float | Decimal):
        return f"the number {str(value)[:_SHOWN]}"
    if isinstance(value, str):
        return f"the text {clean(value)!r}"
    return f"a value of type {type(value).__name__}"


def clean(text: str, limit: int = _SHOWN) -> str:
    """Peer text, capped and without control characters."""
    cut = text[:limit]
    return _CONTROL.sub("?", cut) + ("…" if len(text) > limit else "")


def is_unset(value: object) -> bool:
    """Whether an EMS means "nothing here": null, empty text, or a date-time at its protocol's zero (1601 in OPC UA, 1970 in epoch registers)."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value or value.isspace()
    return isinstance(value, datetime) and value.tzinfo is not None and value < _UNSET_BEFORE


def to_text(value: object) -> str:
    """Text without outer blanks, in Unicode NFC, without control characters or line breaks."""
    if type(value) is not str:
        if isinstance(value, str):
            return to_text(str(value))
        raise wrong_type(value, "text (give a `format` or a `map` to make text of it)")
    if value.isascii() and value.isprintable():
        return value.strip()
    stripped = value.strip(" \t")
    if _CONTROL.search(stripped):
        raise WrongValue(
            HostReason.TEXT_NOT_ALLOWED, f"is {shown(value)}, must not hold control characters or line breaks"
        )
    return unicodedata.normalize("NFC", stripped)


def to_number(value: object) -> int | float:
    """A finite number that JSON can carry exactly."""
    if type(value) is float or type(value) is int:
        number: int | float = value
    elif isinstance(value, Decimal):
        number = _from_decimal(value)
    else:
        raise wrong_type(value, "a number (text becomes one by `number: {decimal: …}`)")
    if not -LARGEST_EXACT <= number <= LARGEST_EXACT:  # also false for NaN
        raise WrongValue(HostReason.NOT_A_NUMBER, f"is {shown(value)}, must be a finite number up to 2^53")
    return number


def to_integer(value: object) -> int:
    """A whole number; a float is taken when it is whole."""
    number = value if type(value) is int and -LARGEST_EXACT <= value <= LARGEST_EXACT else to_number(value)
    if isinstance(number, int):
        return number
    if not number.is_integer():
        raise WrongValue(HostReason.WRONG_TYPE, f"is {shown(value)}, must be a whole number (give `round: 0`)")
    return int(number)


def to_boolean(value: object) -> bool:
    """A boolean; numbers and words become one by a `map`."""
    if not isinstance(value, bool):
        raise wrong_type(value, "true or false (give a `map`)")
    return value


def to_instant(value: object) -> str:
    """UTC as `2026-11-23T10:00:00.000Z`; a time without a zone is refused (DOMAIN 2)."""
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise wrong_type(value, "a date-time such as 2026-11-23T10:00:00Z (or give its `format`)") from None
    if not isinstance(moment, datetime):
        raise wrong_type(value, "a date-time (give its `format`)")
    if moment.tzinfo is None:
        raise WrongValue(
            HostReason.WRONG_TYPE,
            f"is {clean(str(value))!r}, a time without a zone; must have one (Z, or `format` with `zone`)",
        )
    try:
        return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    except (OverflowError, ValueError):
        raise wrong_type(str(value), "a date-time between the years 1 and 9999") from None


def to_texts(value: object) -> list[str]:
    """A list of texts."""
    if not isinstance(value, list | tuple):
        raise wrong_type(value, "a list")
    return [to_text(item) for item in value]


def _from_decimal(value: Decimal) -> int | float:
    if not value.is_finite():
        return float("nan")  # a signalling one cannot be converted; the caller's range refuses each of them
    whole = value == value.to_integral_value()
    return int(value) if whole and abs(value) <= LARGEST_EXACT else float(value)


# By the word of `type` in the vocabulary.
CONVERTERS: Final[Mapping[str, Convert]] = {
    "text": to_text,
    "enum": to_text,
    "integer": to_integer,
    "number": to_number,
    "boolean": to_boolean,
    "instant": to_instant,
    "list": to_texts,
}
NUMERIC: Final = frozenset({"integer", "number"})
