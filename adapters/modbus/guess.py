"""The codec by hand: one value of given registers, and what registers could mean when nothing is known of them. Pure."""

import math
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from adapters.modbus.codec import (
    BITS,
    FLOATS,
    LOCAL,
    ORDERS,
    WIDTHS,
    Kind,
    Shape,
    Undecodable,
    decode,
    orders_of,
)
from bridge.api import Guess

_DIGIT: Final = math.log2(10)
_RECENT: Final = range(
    int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2045, 1, 1, tzinfo=UTC).timestamp())
)
_HALVES: Final = frozenset({Kind.INT8L, Kind.INT8H, Kind.UINT8L, Kind.UINT8H})
_BCD: Final = frozenset({Kind.BCD16, Kind.BCD32})
_PACKED: Final = {Kind.FLOAT16: ">e", Kind.FLOAT32: ">f", Kind.FLOAT64: ">d"}
_RARITY: Final = {"CDAB": 0.5, "GHEFCDAB": 0.5, "DCBA": 1.5, "HGFEDCBA": 1.5, "BA": 2.0, "BADC": 3.0, "BADCFEHG": 3.0}
_HARDLY: Final = 60.0  # bits; what is only shown because it cannot be excluded


class Registers:
    """A `bridge.api.Codec` over registers."""

    types: Final[Sequence[str]] = tuple(kind.value for kind in Kind)

    def orders(self, type_: str, raw: bytes) -> Sequence[str]:
        """The orders that a value of this type can have in so many bytes, the default first."""
        kind = Kind(type_)
        width = len(raw) // 2 if kind is Kind.BIT and len(raw) // 2 in ORDERS else None
        return orders_of(kind, width)

    def decode(self, raw: bytes, *, type_: str, order: str, bit: int | None) -> object:
        """The value in these bytes as they lie on the wire; `order` may be '' for the default. Raises `ValueError`."""
        kind = Kind(type_)
        registers = self._registers(raw, kind)
        known = self.orders(type_, raw)
        if order and order not in known:
            raise ValueError(f"the type {type_} has the orders {', '.join(known)} here; {order} is none of them")
        if (kind is Kind.BIT) != (bit is not None):
            raise ValueError("the type bit, and only it, needs the number of the bit; 0 is the least significant")
        if bit is not None and not 0 <= bit < BITS * registers:
            raise ValueError(f"there is no bit {bit}; they are numbered 0 to {BITS * registers - 1}")
        try:
            value = decode(Shape(kind=kind, registers=registers, order=order, bit=bit or 0), raw)
        except Undecodable as error:
            raise ValueError(str(error)) from None
        if value is None:
            raise ValueError("these registers say that there is no date-time")
        return value

    def guesses(self, raw: bytes) -> Sequence[Guess]:
        """What these bytes could mean; what is said in the fewest bits is the most plausible and comes first. Raises `ValueError`."""
        self._registers(raw, Kind.STRING)
        return [guess for _, guess in weighed(raw, tuple(Kind))]

    def _registers(self, raw: bytes, kind: Kind) -> int:
        """How many registers these bytes are. Raises `ValueError`."""
        size = len(raw)
        if not raw or size % 2:
            raise ValueError(
                f"registers have two bytes each; {'there are none' if not raw else f'these are {size} bytes'}"
            )
        width = WIDTHS.get(kind)
        if kind is Kind.BIT and size // 2 not in ORDERS:
            raise ValueError(f"a bit is one of 1, 2 or 4 registers; these are {size // 2}")
        if kind is not Kind.BIT and width is not None and size != 2 * width:
            raise ValueError(f"the type {kind.value} takes {2 * width} bytes; these are {size}")
        return size // 2


def weighed(raw: bytes, kinds: Sequence[Kind], only: str = "") -> list[tuple[float, Guess]]:
    """What whole registers could mean as one of these kinds, in `only` this order where one is named: with the bits that it takes to say each, the fewest first."""
    registers = len(raw) // 2
    found: dict[tuple[Kind, object], tuple[float, Guess]] = {}
    for kind in kinds:
        if kind is Kind.BIT or WIDTHS.get(kind, registers) != registers:
            continue
        for order in [only] if only else orders_of(kind):
            for value in _values(Shape(kind=kind, registers=registers, order=order), raw):
                size = _bits_to_say(kind, value) + _RARITY.get(order, 0)
                found.setdefault((kind, repr(value)), (size, Guess(kind.value, order, value)))
    return sorted(found.values(), key=lambda told: told[0])


def _values(shape: Shape, raw: bytes) -> Iterator[object]:
    try:
        value = decode(shape, raw)
    except Undecodable:
        return
    if value not in {None, ""} and (not isinstance(value, str) or value.isprintable()):
        yield value


def _bits_to_say(kind: Kind, value: object) -> float:
    """About how many bits it takes to say this value in a way that people would: few digits, recent dates, words. The fewer, the likelier it is meant."""
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, datetime):
        return _of_moment(kind, value)
    if isinstance(value, tuple):
        return 12 + 4.0 * len(value)
    if kind in FLOATS and isinstance(value, float):
        return _of_float(kind, value)
    assert isinstance(value, int)
    size = _of_integer(value) + (0 if kind.value.startswith("uint") else 0.5)
    if kind in _HALVES:
        return size + 10
    return size + 6 if kind in _BCD else size


def _of_integer(value: int) -> float:
    digits = str(abs(value)).rstrip("0")
    return min(math.log2(abs(value) + 1), _DIGIT * len(digits) + 1.5) + (2 if value < 0 else 0)


def _of_float(kind: Kind, value: float) -> float:
    if not math.isfinite(value):
        return _HARDLY
    if not value:
        return 4.0
    exponent = math.floor(math.log10(abs(value)))
    far = max(0, abs(exponent) - 5)
    return _DIGIT * _digits(kind, value) + 2 + (value < 0) + 3 * far


def _digits(kind: Kind, value: float) -> int:
    """The fewest decimal digits that name this very float in its width."""
    form = _PACKED[kind]
    wanted = struct.pack(form, value)
    for digits in range(1, 17):
        text = f"{value:.{digits}g}"
        try:
            same = struct.pack(form, float(text)) == wanted
        except OverflowError:
            continue
        if same:
            return len(text.partition("e")[0].replace(".", "").strip("-0"))
    return 17


def _of_moment(kind: Kind, value: datetime) -> float:
    second = int(value.timestamp())
    if second not in _RECENT:
        return _HARDLY
    whole = sum(saved for step, saved in ((60, 6), (3600, 5), (86400, 4)) if second % step == 0)
    return (32 if kind in LOCAL else 26) - whole


def _of_text(value: str) -> float:
    """Letters and digits are cheap; capitals after small letters, and blanks in front, look like swapped bytes."""
    size = 3.0 + sum(4.7 if letter.isalnum() or letter == " " else 6.5 for letter in value)
    swapped = sum(first.islower() and second.isupper() for first, second in pairwise(value))
    return size + 4 * swapped + (4 if value.startswith(" ") else 0)
