"""Single values both ways: texts, integers, instants. Readers are tolerant (numbers may be strings) and answer None for what is no value of theirs."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, TypeAlias, TypeVar

from bridge.clock import iso_ms
from bridge.profile import TimeForm

Word: TypeAlias = str | int
E = TypeVar("E", bound=Enum)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_MS_NS: Final = 1_000_000
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999
_MAX_TEXT: Final = 4096


def read_text(value: object) -> str:
    """Text, or a whole number as text; '' for anything else."""
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ""


def read_integer(value: object) -> int | None:
    """A whole number, also as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def read_iso(value: object) -> int | None:
    """RFC 3339 text as UTC nanoseconds; None without a zone, with a leap second, or outside the calendar."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        return None
    try:
        moment = datetime.fromisoformat(value.upper())
        return (moment - _EPOCH) // _MICROSECOND * 1000
    except (ValueError, OverflowError):
        return None


def read_epoch_ms(value: object) -> int | None:
    """Milliseconds since 1970 as UTC nanoseconds."""
    number = read_integer(value)
    return number * _MS_NS if number is not None and 0 <= number <= _LAST_MS else None


def write_epoch_ms(wall_ns: int) -> int:
    """UTC nanoseconds as milliseconds since 1970."""
    return wall_ns // _MS_NS


def write_iso_offset(wall_ns: int) -> str:
    """UTC nanoseconds as text with milliseconds and +00:00."""
    return iso_ms(wall_ns).removesuffix("Z") + "+00:00"


TIME_READERS: Final[Mapping[TimeForm, Callable[[object], int | None]]] = {
    TimeForm.ISO_MS_Z: read_iso,
    TimeForm.ISO_MS_OFFSET: read_iso,
    TimeForm.EPOCH_MS: read_epoch_ms,
}
TIME_WRITERS: Final[Mapping[TimeForm, Callable[[int], Word]]] = {
    TimeForm.ISO_MS_Z: iso_ms,
    TimeForm.ISO_MS_OFFSET: write_iso_offset,
    TimeForm.EPOCH_MS: write_epoch_ms,
}


def fold(word: object) -> str:
    """A word as words are compared: without case, numbers as text."""
    return read_text(word).strip().casefold()


def word_reader(words: Mapping[Word, E]) -> Callable[[object], E | None]:
    """From a peer's word to its meaning."""
    table = {fold(word): meaning for word, meaning in words.items()}

    def read(value: object) -> E | None:
        return table.get(fold(value))

    return read


def word_writer(words: Mapping[Word, E]) -> Callable[[E], Word]:
    """From a meaning to the first word that has it; the meaning's own name where the profile has none."""
    table: dict[E, Word] = {}
    for word, meaning in words.items():
        table.setdefault(meaning, word)

    def write(meaning: E) -> Word:
        return table.get(meaning, str(meaning.value))

    return write
