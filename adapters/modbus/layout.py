"""Where things are: the registers of records and outcomes, which requests fetch them, and what they say. Pure."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from adapters.modbus.codec import Kind, Undecodable, blank, crc16, decode, decoder, scaled
from adapters.modbus.config import READ_LIMIT, SCALE_FACTOR, Crc, FieldTarget, ModbusOutcome, ModbusRecords, Target
from bridge.api import OutcomeField, Quality, Reading, Selection

_REGISTERS: Final = 65536


class Span(NamedTuple):
    """Consecutive registers."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The first register after it."""
        return self.start + self.size

    def __str__(self) -> str:
        return f"register {self.start}" if self.size == 1 else f"registers {self.start}..{self.end - 1}"


def requests(spans: Iterable[Span], limit: int, gap: int) -> list[Span]:
    """The fewest requests of at most `limit` registers that fetch these spans; longer spans are cut, near ones fetched together.

    At most `gap` unused registers lie between what is fetched together; -1 keeps neighbours apart too.
    """
    found: list[Span] = []
    for span in sorted(set(spans)):
        last = found[-1] if found else None
        if last is not None and span.start - last.end <= gap and max(span.end, last.end) - last.start <= limit:
            found[-1] = Span(last.start, max(span.end, last.end) - last.start)
            continue
        found += [Span(start, min(limit, span.end - start)) for start in range(span.start, span.end, limit)]
    return found


class Image:
    """What was read of the device's registers, and what it refused to show."""

    def __init__(self) -> None:
        self._data = bytearray(2 * _REGISTERS)
        self._known = bytearray(_REGISTERS)
        self._refusals: dict[Span, str] = {}

    def put(self, start: int, data: bytes) -> None:
        """Keep the bytes of registers from `start` on."""
        self._data[2 * start : 2 * start + len(data)] = data
        self._known[start : start + len(data) // 2] = b"\1" * (len(data) // 2)

    def settle(self, span: Span) -> None:
        """What was not read of these registers is of no interest: it counts as zeros."""
        self._known[span.start : span.end] = b"\1" * span.size

    def refuse(self, span: Span, text: str) -> None:
        """Keep why the device did not show these."""
        self._refusals[span] = text

    def get(self, span: Span) -> bytes | None:
        """The bytes of these registers, None where one of them is not known."""
        if not self.knows(span):
            return None
        return bytes(self._data[2 * span.start : 2 * span.end])

    def knows(self, span: Span) -> bool:
        """Whether all of these registers are known."""
        return 0 not in self._known[span.start : span.end]

    def word(self, register: int) -> int:
        """One register that was read."""
        return int.from_bytes(self._data[2 * register : 2 * register + 2], "big")

    def why(self, span: Span) -> str:
        """Why these registers are not known."""
        for refused, text in self._refusals.items():
            if refused.start < span.end and span.start < refused.end:
                return text
        return f"{span} were not read"


class Cut(NamedTuple):
    """One field within the bytes of its record's block: compiled once, for a call reads a thousand records."""

    name: str
    start: int
    end: int
    decode: Callable[[bytes], object]
    target: FieldTarget
    power: int | None
    """Where its scale factor begins, for a field that has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One flow's registers. A place is the number of a record as text, counted from 0."""

    flow: str
    base: int
    stride: int
    count: int
    key: str
    fields: Mapping[str, FieldTarget]
    crc: Crc | None
    targets: Mapping[OutcomeField, Target]
    block: Span
    """From the first to the last register of each record that is of interest, as offsets."""
    chunks: tuple[Span, ...]
    """What is read of it: the same without wide gaps."""
    cuts: tuple[Cut, ...]
    """The fields within the bytes of `block`."""
    texts: tuple[tuple[int, int], ...]
    """Where the key and all texts are within them."""

    def places(self) -> range:
        """The numbers of all records."""
        return range(self.count)

    def number(self, place: str) -> int | None:
        """The record that a place names, if there is one."""
        number = int(place) if place.isascii() and place.isdecimal() and len(place) <= 5 else -1
        return number if 0 <= number < self.count and str(number) == place else None

    def span(self, number: int) -> Span:
        """From the first to the last register of one record that is of interest."""
        return Span(self.base + self.stride * number + self.block.start, self.block.size)

    def chunks_of(self, number: int) -> list[Span]:
        """The registers that are read of one record."""
        start = self.base + self.stride * number
        return [Span(start + chunk.start, chunk.size) for chunk in self.chunks]

    def at(self, number: int, target: Target) -> Span:
        """The registers of one value of one record."""
        return Span(self.base + self.stride * number + target.at, target.width)

    def factor(self, number: int, target: Target) -> Span | None:
        """The register of its scale factor, for a value of one record that has one."""
        at = target.scale_at if isinstance(target, FieldTarget) else None
        return None if at is None else Span(self.base + self.stride * number + at, 1)

    def target(self, name: str | OutcomeField) -> Target | None:
        """The value that an address names, if there is one."""
        return self.targets.get(name) if isinstance(name, OutcomeField) else self.fields.get(name)

    def is_empty(self, block: bytes) -> bool:
        """Whether nobody lives in the slot of these bytes: its key and all its texts are blank."""
        return all(blank(block[start:end]) for start, end in self.texts)

    def reading(self, number: int, cut: Cut, block: bytes) -> Reading:
        """One field of the record with these bytes; what cannot be decoded is a BAD reading that says what and where."""
        try:
            value = cut.decode(block[cut.start : cut.end])
            if value is None:
                return missing(self.at(number, cut.target))
            if cut.power is not None:
                value = scaled(value, _factor(block[cut.power : cut.power + 2]))
            return Reading(value=value)
        except Undecodable as error:
            return bad(f"{self.at(number, cut.target)}: {error}")

    def signature(self, image: Image, number: int) -> bytes:
        """The registers of the fields alone, so that what lies between them does not count as a change."""
        spans = [self.at(number, target) for target in self.fields.values()]
        spans += [span for span in (self.factor(number, target) for target in self.fields.values()) if span is not None]
        return b"".join(image.get(span) or b"" for span in spans)

    def problem(self, image: Image, number: int) -> str:
        """Why the record as a whole cannot be used, '' when it can."""
        if self.crc is None:
            return ""
        start = self.base + self.stride * number
        parts = [image.get(Span(start + first, last - first + 1)) or b"" for first, last in self.crc.over]
        held, right = image.word(start + self.crc.at), crc16(b"".join(parts))
        return (
            ""
            if held == right
            else f"CRC: register {start + self.crc.at} holds {held:04X}, the record gives {right:04X}"
        )


def layout_of(selection: Selection, count: int, gap: int) -> Layout:
    """The registers of a flow with so many records; at most `gap` unused ones are read along."""
    records, outcome = selection.records, selection.outcome
    assert isinstance(records, ModbusRecords)
    assert isinstance(outcome, ModbusOutcome)
    block = block_of(records)
    cuts = tuple(_cut(name, target, block) for name, target in records.fields.items())
    return Layout(
        flow=selection.flow,
        base=records.each.base,
        stride=records.each.stride,
        count=count,
        key=records.key,
        fields=records.fields,
        crc=records.crc,
        targets=outcome.targets(),
        block=block,
        chunks=tuple(requests(_parts(records), READ_LIMIT, gap)),
        cuts=cuts,
        texts=tuple((cut.start, cut.end) for cut in cuts if cut.name == records.key or cut.target.type is Kind.STRING),
    )


def _cut(name: str, target: FieldTarget, block: Span) -> Cut:
    start = 2 * (target.at - block.start)
    power = None if target.scale_at is None else 2 * (target.scale_at - block.start)
    return Cut(name, start, start + 2 * target.width, decoder(target.shape), target, power)


_factor: Final = decoder(SCALE_FACTOR)


def block_of(records: ModbusRecords) -> Span:
    """From the first to the last register of a record that is of interest, as offsets."""
    spans = _parts(records)
    start = min(span.start for span in spans)
    return Span(start, max(span.end for span in spans) - start)


def _parts(records: ModbusRecords) -> list[Span]:
    """The registers of a record that are of interest, as offsets: its fields, their scale factors, what its CRC covers."""
    spans = [Span(target.at, target.width) for target in records.fields.values()]
    spans += [Span(target.scale_at, 1) for target in records.fields.values() if target.scale_at is not None]
    if records.crc is not None:
        taken = {register for span in spans for register in range(span.start, span.end)}
        covered = {register for first, last in records.crc.over for register in range(first, last + 1)}
        spans += [Span(register, 1) for register in sorted((covered | {records.crc.at}) - taken)]
    return spans


def reading_of(target: Target, span: Span, image: Image, factor: Span | None = None) -> Reading:
    """One value as it was read, times the power of ten in `factor`; one that cannot be read or decoded is a BAD reading that says what and where."""
    data = image.get(span)
    power = None if factor is None else image.get(factor)
    if data is None or (factor is not None and power is None):
        return bad(image.why(span if data is None or factor is None else factor))
    try:
        value = decode(target.shape, data)
        if value is None:
            return missing(span)
        return Reading(value=value if power is None else scaled(value, _factor(power)))
    except Undecodable as error:
        return bad(f"{span}: {error}")


def bad(detail: str) -> Reading:
    """A value that cannot be used."""
    return Reading(value=None, quality=Quality.BAD, detail=detail)


def missing(span: Span) -> Reading:
    """A value that the device says it has not."""
    return Reading(value=None, detail=f"{span}: not implemented by the device", absent=True)


class Members(NamedTuple):
    """Record numbers of a bit set and the registers of what they stand for; `problem` names one that stands for nothing."""

    keys: tuple[tuple[Target, Span], ...] = ()
    problem: str = ""


def members_of(target: FieldTarget, span: Span, image: Image, layouts: Mapping[str, Layout]) -> Members:
    """Where the values are that a bit set stands for; to be called when the bit set itself was read."""
    assert target.members is not None
    flow, field = target.members
    layout = layouts[flow]
    other = layout.fields[field]
    numbers = reading_of(target, span, image).value
    if not isinstance(numbers, tuple):
        return Members(problem=image.why(span))
    for number in numbers:
        if number >= layout.count:
            return Members(problem=f"{span}: bit {number} is set, but there are {layout.count} records in {flow}")
    return Members(keys=tuple((other, layout.at(number, other)) for number in numbers))


def values_of(members: Members, image: Image) -> Reading:
    """The values that a bit set stands for, as a tuple; BAD as a whole when one of them is."""
    if members.problem:
        return bad(members.problem)
    values = []
    for target, span in members.keys:
        reading = reading_of(target, span, image)
        if reading.quality is not Quality.GOOD or reading.value in {"", None}:
            return bad(reading.detail or f"{span}: the record is empty, but its bit is set")
        values.append(reading.value)
    return Reading(value=tuple(values))


def bitsets(layout: Layout, numbers: Collection[int]) -> Iterator[tuple[FieldTarget, Span]]:
    """The bit sets of these records that stand for values of another flow."""
    for target in layout.fields.values():
        if target.members is not None:
            for number in numbers:
                yield target, layout.at(number, target)
