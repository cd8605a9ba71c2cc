"""Values that configuration models share: durations, sizes, names, environments."""

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

_UNITS_S: Final = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)")
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"


def duration_s(value: object) -> float:
    """Seconds of a duration written as `250ms`, `5s`, `10min`, `24h`, `7d`; a bare 0 is allowed, other bare numbers have no unit."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match:
            return float(Decimal(match[1]) * _UNITS_S[match[2]])
    if value == 0 and type(value) is int:
        return 0.0
    raise ValueError("must be a duration with its unit, such as 250ms, 5s, 10min or 24h")


def is_duration(value: object) -> bool:
    """Whether a value is written as a duration, in whatever range."""
    return isinstance(value, str) and _DURATION.fullmatch(value.strip()) is not None


def duration_text(seconds: float) -> str:
    """Seconds in the largest unit of which they are whole; 0 has none."""
    exact = Decimal(repr(seconds))
    unit, size = next(
        ((unit, size) for unit, size in reversed(_UNITS_S.items()) if exact % size == 0), ("us", _UNITS_S["us"])
    )
    return f"{(exact / size).normalize():f}{unit}" if seconds else "0"


_UNITS_BYTES: Final = {
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(" + "|".join(_UNITS_BYTES) + ")")


def size_bytes(value: object) -> int:
    """Bytes of a size written as `500MB`, `2GB`, `1.5GiB`."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            return int(Decimal(match[1]) * _UNITS_BYTES[match[2]])
    raise ValueError("must be a size with its unit, such as 500MB, 2GB or 1.5GiB")


Size = Annotated[int, BeforeValidator(size_bytes)]
Duration = Annotated[float, BeforeValidator(duration_s)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def check_name(name: str) -> str | None:
    """What is wrong with a name that stands in URLs, metrics and files, if anything."""
    if re.fullmatch(NAME_PATTERN, name):
        return None
    return "a name is made of a-z, 0-9, `-` and `_`, starts with a letter or digit, and has at most 63 characters"
