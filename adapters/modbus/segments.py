"""Registers of which nothing is known, cut into values: that cut is the most plausible whose values are said in the fewest bits. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from adapters.modbus.codec import Kind
from adapters.modbus.guess import weighed
from adapters.modbus.places import Span
from bridge.api import Guess

_ZERO: Final = b"\0\0"
_LEAST_ZEROS: Final = 4  # in a row, which are told as one
_LEAST_TEXT: Final = 2  # registers
_LONGEST_TEXT: Final = 64
_TEXT_SHARE: Final = 0.8
_WORDY: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_./")
_PRINTED: Final = range(0x20, 0x7F)
_KINDS: Final = {
    1: (Kind.UINT16, Kind.INT16),
    2: (Kind.UINT32, Kind.INT32, Kind.FLOAT32, Kind.EPOCH32),
    4: (Kind.FLOAT64, Kind.UINT64),
}
_BIG: Final = {1: "AB", 2: "ABCD", 4: "ABCDEFGH"}
_SWAPPED: Final = {1: "AB", 2: "CDAB", 4: "GHEFCDAB"}  # a device has one order of words, as a rule
_NEVER: Final = 1e9
_GSP_GROUP: Final = re.compile(rb"_[A-P]")  # the one text that fits a single register


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One value that registers could hold. `other` is what they could mean besides; `type` is '' for zeros that say nothing."""

    span: Span
    raw: bytes
    value: object
    type: str = ""
    order: str = ""
    other: str = ""

    @property
    def hex(self) -> str:
        """The registers in hexadecimal, zeros in a row as their number."""
        if not self.type and self.span.size >= _LEAST_ZEROS:
            return f"0000 x {self.span.size}"
        return " ".join(self.raw[at : at + 2].hex().upper() for at in range(0, len(self.raw), 2))


def segments(held: Sequence[tuple[Span, bytes]]) -> list[Segment]:
    """The values of these spans of registers, under the one order of words that fits them all best."""
    cuts = []
    for orders in (_BIG, _SWAPPED):
        cost, found = 0.0, []
        for span, raw in held:
            for segment, bits in _cut(span, raw, tuple(orders.items())):
                cost += bits
                found.append(segment)
        cuts.append((cost, found))
    return min(cuts, key=lambda cut: cut[0])[1]


def _cut(span: Span, raw: bytes, orders: tuple[tuple[int, str], ...]) -> Iterator[tuple[Segment, float]]:
    """Texts and rows of zeros first, numbers in what is left."""
    start = at = 0
    while at < span.size:
        size = _zeros(raw, at) or _text(raw, at)
        if not size:
            at += 1
            continue
        yield from _numbers(span, raw, start, at, orders)
        part = raw[2 * at : 2 * (at + size)]
        place = Span(span.start + at, size, span.table)
        if part.strip(b"\0"):
            (bits, best), *_ = weighed(part, (Kind.STRING,))
            yield (
                Segment(
                    span=place,
                    raw=part,
                    value=best.value,
                    type=best.type,
                    order="" if best.order == "AB" else best.order,
                ),
                bits,
            )
        else:
            yield Segment(span=place, raw=part, value=0), 0.0
        at += size
        start = at
    yield from _numbers(span, raw, start, span.size, orders)


def _zeros(raw: bytes, at: int) -> int:
    size = 0
    while raw[2 * (at + size) : 2 * (at + size) + 2] == _ZERO:
        size += 1
    return size if size >= _LEAST_ZEROS else 0


def _text(raw: bytes, at: int) -> int:
    """How many registers from here on are text; a last letter may stand alone in its register."""
    if _GSP_GROUP.fullmatch(raw[2 * at : 2 * at + 2]):
        return 1
    size = 0
    while size < _LONGEST_TEXT:
        pair = raw[2 * (at + size) : 2 * (at + size) + 2]
        if len(pair) < 2 or not all(byte in _PRINTED for byte in pair):
            alone = len(pair) == 2 and 0 in pair and any(byte in _PRINTED for byte in pair)
            size += 1 if alone and size >= _LEAST_TEXT - 1 and pair[0] else 0
            break
        size += 1
    part = raw[2 * at : 2 * (at + size)].rstrip(b"\0 ")
    wordy = sum(byte in _WORDY for byte in part)
    if (
        size < _LEAST_TEXT
        or not part.strip()
        or wordy < _TEXT_SHARE * len(part)
        or not weighed(raw[2 * at : 2 * (at + size)], (Kind.STRING,))
    ):
        return 0
    return size


def _numbers(
    span: Span, raw: bytes, start: int, end: int, orders: tuple[tuple[int, str], ...]
) -> Iterator[tuple[Segment, float]]:
    """The cheapest way to cut these registers into numbers of one, two and four; the narrower of two that are alike."""
    best: list[tuple[float, int]] = [(0.0, 0)]  # up to here: bits, and the width of the last value
    for at in range(start + 1, end + 1):
        ways = []
        for width, order in orders:
            if at - width >= start:
                bits, _, _ = _number(raw[2 * (at - width) : 2 * at], order)
                ways.append((best[at - width - start][0] + bits, width))
        best.append(min(ways))
    found = []
    at = end
    while at > start:
        width = best[at - start][1]
        part = raw[2 * (at - width) : 2 * at]
        bits, (kind, value), other = _number(part, dict(orders)[width])
        place = Span(span.start + at - width, width, span.table)
        order = dict(orders)[width]
        shown = "" if order in _BIG.values() else order
        found.append((Segment(span=place, raw=part, value=value, type=kind, order=shown, other=other), bits))
        at -= width
    yield from reversed(found)


@lru_cache(maxsize=65_536)
def _number(raw: bytes, order: str) -> tuple[float, tuple[str, object], str]:
    """The bits that it takes to say the most plausible number in these bytes, what it is, and the next one."""
    found = weighed(raw, _KINDS[len(raw) // 2], order)
    if not found:
        return _NEVER, ("", None), ""
    (bits, best), *others = found
    other = next((f"{guess.type} {_shown(guess)}" for _, guess in others if guess.value != best.value), "")
    return bits, (best.type, _shown(best)), other


def _shown(guess: Guess) -> object:
    """A value with no more digits than its width has."""
    if guess.type == Kind.FLOAT32.value and isinstance(guess.value, float):
        return float(f"{guess.value:.7g}")
    return guess.value
