"""Tables and values for a person's eyes: columns that line up, times with their age, text from a peer made harmless."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from bridge.config.kinds import clean

_LONGEST: Final = 60
_STEPS: Final = ((60.0, 1.0, "s"), (3600.0, 60.0, "min"), (172_800.0, 3600.0, "h"), (float("inf"), 86_400.0, "d"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> Iterator[str]:
    """Lines whose cells stand below each other; the last column is as long as it is."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)][:-1]
    for row in (header, *rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        yield (indent + "  ".join([*cells, row[-1]])).rstrip()


def value_text(value: object, longest: int = _LONGEST) -> str:
    """A value as it is; text with blanks at its ends, and empty text, in quotes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return clean("[" + ", ".join(value_text(item) for item in value) + "]", longest)
    if isinstance(value, Mapping):
        return clean("{" + ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) + "}", longest)
    text = clean(str(value), longest)
    return f'"{text}"' if isinstance(value, str) and (not text or text != text.strip()) else text


def plain(value: object) -> object:
    """A value as JSON has it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def moment_text(wall_ns: int) -> str:
    """UTC with milliseconds."""
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def age_text(seconds: float) -> str:
    """An age in the unit that suits it; what lies ahead has a sign."""
    sign, size = ("-", -seconds) if seconds < 0 else ("", seconds)
    unit_s, unit = next((unit_s, unit) for limit, unit_s, unit in _STEPS if size < limit)
    return f"{sign}{size / unit_s:.1f} {unit}" if unit == "s" else f"{sign}{size / unit_s:.0f} {unit}"
