"""Where things are: the registers of records and outcomes, which requests fetch them, and what they say. Pure."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, NamedTuple

from adapters.modbus.codec import Kind, Undecodable, blank, crc16, decode, decoder, scaled
from adapters.modbus.config import BIT_LIMIT, Crc, ModbusOutcome, ModbusRecords
from adapters.modbus.places import Span, Table
from adapters.modbus.sidecar import Sheet
from adapters.modbus.targets import READ_LIMIT, SCALE_FACTOR, FieldTarget, OutcomeTarget, Target
from bridge.api import OutcomeField, Quality, Reading, Selection

_ADDRESSES: Final = 65536


def requests(spans: Iterable[Span], limit: int, gap: int, *, bits: int = BIT_LIMIT) -> list[Span]:
    """The fewest requests of at most `limit` registers or `bits` bits that fetch these spans; longer spans are cut, near ones fetched together.

    At most `gap` unused addresses lie between what is fetched together; -1 keeps neighbours apart too.
    """
    found: list[Span] = []
    for span in sorted(set(spans), key=_BY_TABLE):
        most = bits if span.table.holds_bits else limit
        last = found[-1] if found and found[-1].table is span.table else None
        if last is not None and span.start - last.end <= gap and max(span.end, last.end) - last.start <= most:
            found[-1] = Span(last.start, max(span.end, last.end) - last.start, span.table)
            continue
        found += [Span(at, min(most, span.end - at), span.table) for at in range(span.start, span.end, most)]
    return found


_BY_TABLE: Final = itemgetter(2, 0, 1)


class _Held(NamedTuple):
    """One table's part of an image: two bytes for each address, and whether they are known."""

    data: bytearray
    known: bytearray


class Image:
    """What was read of the device's tables, and what it refused to show."""

    def __init__(self) -> None:
        self._tables: dict[Table, _Held] = {}
        self._refusals: dict[Span, str] = {}

    def put(self, span: Span, data: bytes) -> None:
        """Keep the bytes of these addresses, two for each."""
        held = self._held(span.table)
        held.data[2 * span.start : 2 * span.end] = data
        held.known[span.start : span.end] = b"\1" * span.size

    def settle(self, span: Span) -> None:
        """What was not read of these registers is of no interest: it counts as zeros."""
        self._held(span.table).known[span.start : span.end] = b"\1" * span.size

    def refuse(self, span: Span, text: str) -> None:
        """Keep why the device did not show these."""
        self._refusals[span] = text

    def get(self, span: Span) -> bytes | None:
        """The bytes of these registers, None where one of them is not known."""
        start, size, table = span
        held = self._tables.get(table)
        if held is None or 0 in held.known[start : start + size]:
            return None
        return bytes(held.data[2 * start : 2 * (start + size)])

    def filled(self, span: Span) -> bytes:
        """The bytes of these registers, zeros where they are not known."""
        return bytes(self._held(span.table).data[2 * span.start : 2 * span.end])

    def knows(self, span: Span) -> bool:
        """Whether all of these registers are known."""
        start, size, table = span
        held = self._tables.get(table)
        return held is not None and 0 not in held.known[start : start + size]

    def word(self, span: Span) -> int:
        """One register, or bit, that was read."""
        return int.from_bytes(self._held(span.table).data[2 * span.start : 2 * span.start + 2], "big")

    def why(self, span: Span) -> str:
        """Why these registers are not known."""
        for refused, text in self._refusals.items():
            if refused.table is span.table and refused.start < span.end and span.start < refused.end:
                return text
        return f"{span} were not read"

    def _held(self, table: Table) -> _Held:
        if table not in self._tables:
            self._tables[table] = _Held(bytearray(2 * _ADDRESSES), bytearray(_ADDRESSES))
        return self._tables[table]


class Cut(NamedTuple):
    """One field within the bytes of its record's block: compiled once, for a call reads a thousand records."""

    name: str
    start: int
    end: int
    decode: Callable[[bytes], object]
    target: FieldTarget
    power: int | None
    """Where its scale factor begins, for a field that has one."""


class Blocks(NamedTuple):
    """Where blocks that repeat are: the first at `base`, the next `stride` on."""

    base: int
    stride: int
    table: Table

    def at(self, number: int, offset: int, size: int) -> Span:
        """These addresses of one block."""
        return Span(self.base + self.stride * number + offset, size, self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One flow's registers. A place is the number of a record as text, counted from 0."""

    flow: str
    records: Blocks
    outcomes: Blocks
    count: int
    sheet: Sheet | None
    """The file that holds the rest of the fields."""
    fields: Mapping[str, FieldTarget]
    crc: Crc | None
    targets: Mapping[OutcomeField, OutcomeTarget]
    block: Span
    """From the first to the last register of each record that is of interest, as offsets."""
    chunks: tuple[Span, ...]
    """What is read of it: the same without wide gaps."""
    cuts: tuple[Cut, ...]
    """The fields within the bytes of `block`."""
    signed: tuple[tuple[int, int], ...]
    """Where the fields, their scale factors and the CRC are within them."""
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
        return self.records.at(number, self.block.start, self.block.size)

    def chunks_of(self, number: int) -> list[Span]:
        """The registers that are read of one record."""
        return [self.records.at(number, chunk.start, chunk.size) for chunk in self.chunks]

    def at(self, number: int, target: Target) -> Span:
        """The registers of one value of one record."""
        if not isinstance(target, OutcomeTarget):
            return self.records.at(number, target.at, target.width)
        if target.fixed:
            return Span(target.at, target.width, target.table or Table.HOLDING)
        return self.outcomes.at(number, target.at, target.width)

    def factor(self, number: int, target: Target) -> Span | None:
        """The register of its scale factor, for a value of one record that has one."""
        at = target.scale_at if isinstance(target, FieldTarget) else None
        return None if at is None else self.records.at(number, at, 1)

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

    @property
    def refers(self) -> bool:
        """Whether its records hold values of another flow's, that bits stand for."""
        return any(target.of is not None for target in self.fields.values())

    def signature(self, block: bytes) -> bytes:
        """The registers of the fields and the CRC alone, so that what lies between them does not count as a change."""
        return b"".join([block[start:end] for start, end in self.signed])

    def problem(self, image: Image, number: int) -> str:
        """Why the record as a whole cannot be used, '' when it can."""
        if self.crc is None:
            return ""
        spans = [self.records.at(number, first, last - first + 1) for first, last in self.crc.over]
        place = self.records.at(number, self.crc.at, 1)
        held, right = image.word(place), crc16(b"".join(image.get(span) or b"" for span in spans))
        return "" if held == right else f"CRC: {place} holds {held:04X}, the record gives {right:04X}"


def layout_of(selection: Selection, count: int, gap: int, sheet: Sheet | None = None) -> Layout:
    """The registers of a flow with so many records; at most `gap` unused ones are read along."""
    records, outcome = selection.records, selection.outcome
    assert isinstance(records, ModbusRecords)
    assert isinstance(outcome, ModbusOutcome)
    block = block_of(records)
    key = records.csv.on if records.csv is not None and records.key in records.columns else records.key
    cuts = tuple(_cut(name, target, block) for name, target in records.registers.items())
    return Layout(
        flow=selection.flow,
        records=blocks_of(records),
        outcomes=outcome_blocks(records, outcome),
        count=count,
        fields=records.registers,
        sheet=sheet,
        crc=records.crc,
        targets=outcome.targets(),
        block=block,
        chunks=tuple(requests(_parts(records), READ_LIMIT, gap)),
        cuts=cuts,
        signed=(
            *((cut.start, cut.end) for cut in cuts),
            *((cut.power, cut.power + 2) for cut in cuts if cut.power is not None),
            *_crc_of(records, block),  # it may be written last, and makes a record of what was none
        ),
        texts=tuple((cut.start, cut.end) for cut in cuts if cut.name == key or cut.target.type is Kind.STRING),
    )


def _crc_of(records: ModbusRecords, block: Span) -> Iterator[tuple[int, int]]:
    if records.crc is not None:
        start = 2 * (records.crc.at - block.start)
        yield start, start + 2


def blocks_of(records: ModbusRecords) -> Blocks:
    """Where the records of a flow are."""
    each = records.each
    return Blocks(each.base, each.stride, each.table or Table.HOLDING)


def outcome_blocks(records: ModbusRecords, outcome: ModbusOutcome) -> Blocks:
    """Where the outcomes of a flow are: in the records themselves unless the site says otherwise."""
    each = outcome.each
    return blocks_of(records) if each is None else Blocks(each.base, each.stride, each.table or Table.HOLDING)


def outcome_spans(selection: Selection, target: OutcomeTarget) -> Iterator[tuple[int, Span]]:
    """Where this value of an outcome is, record by record; once for a place that all share."""
    if target.fixed:
        yield 0, Span(target.at, target.width, target.table or Table.HOLDING)
        return
    blocks = outcome_blocks(selection.records, selection.outcome)
    for number in range(selection.records.each.most):
        yield number, blocks.at(number, target.at, target.width)


def _cut(name: str, target: FieldTarget, block: Span) -> Cut:
    start = 2 * (target.at - block.start)
    power = None if target.scale_at is None else 2 * (target.scale_at - block.start)
    return Cut(name, start, start + 2 * target.width, decoder(target.shape), target, power)


_factor: Final = decoder(SCALE_FACTOR)


def over_each_other(records: ModbusRecords) -> bool:
    """Whether one record reaches into the next, because `stride` is too small."""
    return records.each.most > 1 and block_of(records).end > records.each.stride


def block_of(records: ModbusRecords) -> Span:
    """From the first to the last register of a record that is of interest, as offsets."""
    spans = _parts(records) or [Span(0, 1)]
    start = min(span.start for span in spans)
    return Span(start, max(span.end for span in spans) - start)


def _parts(records: ModbusRecords) -> list[Span]:
    """The registers of a record that are of interest, as offsets: its fields, their scale factors, what its CRC covers."""
    spans = [Span(target.at, target.width) for target in records.registers.values()]
    spans += [Span(target.scale_at, 1) for target in records.registers.values() if target.scale_at is not None]
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
        if target.of is not None:
            for number in numbers:
                yield target, layout.at(number, target)
