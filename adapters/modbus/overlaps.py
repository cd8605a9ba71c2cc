"""What the host writes, laid over what it reads and what else it writes: no two of them may share a register. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from adapters.modbus.codec import Shape, merge
from adapters.modbus.config import CountFrom, ModbusOptions, ModbusRecords, RequestSubmit
from adapters.modbus.layout import block_of, blocks_of, outcome_blocks, outcome_spans, over_each_other
from adapters.modbus.places import LAST_REGISTER, Span, Table
from adapters.modbus.targets import OutcomeTarget
from adapters.modbus.wire import count_place, span_of
from bridge.api import OutcomeField, Problem, Selection

_WHOLE: Final = 0xFFFF


class _Written(NamedTuple):
    """One place that the host writes."""

    path: str
    span: Span
    masks: tuple[int, ...]
    """Which bits of each of its registers are written."""
    name: str
    record: int | None
    same: tuple[object, ...]
    """Equal for what may stand in one place: the same word about the same record, whichever flow asked for it."""

    @property
    def where(self) -> str:
        """Its registers for a person's eyes."""
        return f"{self.span}" if self.record is None else f"{self.span} (record {self.record})"

    @property
    def unit(self) -> str:
        """What its table is made of."""
        return "coils" if self.span.table is Table.COILS else "registers"


class _Read(NamedTuple):
    """Some bits of one register that the host reads, as an offset in a record."""

    offset: int
    mask: int
    what: str


class _Claims:
    """Who writes which bits of which address: looked up by address, for a thousand records are laid over a thousand others."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[int, list[tuple[int, _Written]]]] = {}
        self.told: dict[str, str] = {}

    def write(self, place: _Written) -> None:
        """This is written; a place that another one has is told once for each line of the site file."""
        if place.path in self.told:
            return
        other = self.taken(place, but=place.same)
        if other is not None:
            self.told[place.path] = _shares(place, other)
            return
        self.hold(place)

    def taken(self, place: _Written, *, but: tuple[object, ...] | None = None) -> _Written | None:
        """What has some of these bits already, if it is not `but` the same."""
        held = self.tables.get(place.span.table, {})
        for at, mask in enumerate(place.masks, place.span.start):
            for taken, other in held.get(at, ()):
                if taken & mask and other.same != but:
                    return other
        return None

    def hold(self, place: _Written) -> None:
        """These bits are this one's."""
        held = self.tables.setdefault(place.span.table, {})
        for at, mask in enumerate(place.masks, place.span.start):
            held.setdefault(at, []).append((mask, place))

    def read(self, table: Table, begin: int, reads: Sequence[_Read], whose: str) -> None:
        """These bits are read, at their offsets behind `begin`."""
        held = self.tables.get(table)
        if not held:
            return
        for offset, mask, what in reads:
            for taken, place in held.get(begin + offset, ()):
                if taken & mask:
                    self.told.setdefault(
                        place.path,
                        f"{place.where} is read as {what}{whose}; the host would overwrite what it reads, so give it {place.unit} of its own",
                    )


class Device(NamedTuple):
    """One adapter and its flows, with addresses as they are on the wire."""

    options: ModbusOptions
    selections: Sequence[Selection]


class Across(NamedTuple):
    """What one adapter writes over what another one of the same device writes or reads; `of_first`: the path is one of the first adapter."""

    path: str
    text: str
    of_first: bool


def overlaps(options: ModbusOptions, selections: Sequence[Selection]) -> Iterator[Problem]:
    """Where the host would write over what it reads, or over another of its results; for addresses as they are on the wire."""
    claims = _Claims()
    device = Device(options, selections)
    for place in _written(device):
        claims.write(place)
    _lay_reads(claims, device)
    yield from (Problem(path=path, text=text) for path, text in claims.told.items())


def between(first: Device, second: Device) -> Iterator[Across]:
    """Where two adapters of one device are in each other's way; each knows nothing of the other, so not even the same word may be written twice."""
    of_first, of_second = _Claims(), _Claims()
    for place in _written(first):
        of_first.hold(place)
    for place in _written(second):
        of_second.hold(place)
        other = of_first.taken(place)
        if other is not None:
            yield Across(
                place.path,
                f"{place.where} is {_name(other)} of another adapter too, and one would overwrite the other",
                of_first=False,
            )
    for claims, reader, whose in ((of_second, first, False), (of_first, second, True)):
        _lay_reads(claims, reader)
        yield from (Across(path, text, of_first=whose) for path, text in claims.told.items())


def _written(device: Device) -> Iterator[_Written]:
    """Everything that the host writes: the answers of the handshakes before the results."""
    for selection in device.selections:
        yield from _answers(selection)
    for selection in device.selections:
        for name, target in selection.outcome.targets().items():
            yield from _results(selection, name, target)


def _lay_reads(claims: _Claims, device: Device) -> None:
    for span, what in _single(device.options, device.selections):
        claims.read(span.table, span.start, [_Read(0, _WHOLE, what)], "")
    for selection in device.selections:
        _lay_records(claims, selection)


def _shares(place: _Written, other: _Written) -> str:
    advice = f"give each {place.unit} of its own"
    if place.record != other.record and None not in {place.record, other.record}:
        advice += ", or the records a longer `stride`"
    return f"{place.where} shares {place.unit} with {_name(other)}; one would overwrite the other, so {advice}"


def _name(place: _Written) -> str:
    return place.name if place.record is None else f"{place.name} (record {place.record})"


def _answers(selection: Selection) -> Iterator[_Written]:
    """The host's side of the handshake; flows that share a `request` share all of it."""
    submit = selection.submit
    if not isinstance(submit, RequestSubmit):
        return
    for name, place in submit.answers:
        path = f"flows.{selection.flow}.submit.{name}"
        same = (span_of(submit.request), name)
        yield _Written(path, span_of(place), (_WHOLE,), f"the {name} of the flow {selection.flow}", None, same)


def _results(selection: Selection, name: OutcomeField, target: OutcomeTarget) -> Iterator[_Written]:
    """One value of an outcome, record by record. Places that cannot be written at all are told by others."""
    records, blocks = selection.records, outcome_blocks(selection.records, selection.outcome)
    table = (target.table or Table.HOLDING) if target.fixed else blocks.table
    if not table.writable or (not target.fixed and records.each.most > 1 and not blocks.stride):
        return
    path, what = f"flows.{selection.flow}.outcome.{name.value}", f"{name.value} of the flow {selection.flow}"
    begins, masks = blocks_of(records), masks_of(target.shape, table)
    for number, span in outcome_spans(selection, target):
        if span.end - 1 > LAST_REGISTER:
            return
        record = None if target.fixed else number
        same = (name, target.shape, span, None if target.fixed else begins.at(number, 0, 1))
        yield _Written(path, span, masks, what, record, same)


def masks_of(shape: Shape, table: Table) -> tuple[int, ...]:
    """Which bits of each of its registers a value is; a coil is one, in whatever `order`."""
    if shape.part is None or table.holds_bits:
        return (_WHOLE,) * shape.registers
    _, width, signed = shape.part
    ones = merge(shape, bytes(2 * shape.registers), -1 if signed else (1 << width) - 1)
    return tuple(int.from_bytes(ones[at : at + 2], "big") for at in range(0, len(ones), 2))


def _single(options: ModbusOptions, selections: Sequence[Selection]) -> Iterator[tuple[Span, str]]:
    """What is read besides the records."""
    for name, held in (("magic", options.magic), ("version", options.version), ("heartbeat", options.heartbeat)):
        if held is not None:
            yield span_of(held), f"the device's {name}"
    for selection in selections:
        submit, count = selection.submit, selection.records.each.count
        if isinstance(submit, RequestSubmit):
            for name, place in submit.places:
                if name in {"request", "sequence"}:
                    yield span_of(place), f"the {name} of the flow {selection.flow}"
        if isinstance(count, CountFrom):
            yield count_place(count), f"the count of the flow {selection.flow}"


def _lay_records(claims: _Claims, selection: Selection) -> None:
    """Each record that there may be; not where they lie over each other, which is told already and would be laid out without end."""
    records, each, blocks = selection.records, selection.records.each, blocks_of(selection.records)
    end = block_of(records).end
    if over_each_other(records) or each.base + each.stride * (each.most - 1) + end - 1 > LAST_REGISTER:
        return
    reads = list(_reads(records, blocks.table))
    for number in range(each.most):
        claims.read(
            blocks.table,
            blocks.base + blocks.stride * number,
            reads,
            f" of record {number} of the flow {selection.flow}",
        )


def _reads(records: ModbusRecords, table: Table) -> Iterator[_Read]:
    """What is read of one record: its fields, their scale factors, the CRC, and what that covers."""
    for name, field in records.registers.items():
        for offset, mask in enumerate(masks_of(field.shape, table), field.at):
            yield _Read(offset, mask, f"`{name}`")
        if field.scale_at is not None:
            yield _Read(field.scale_at, _WHOLE, f"the scale factor of `{name}`")
    if records.crc is not None:
        yield _Read(records.crc.at, _WHOLE, "the CRC")
        for offset in sorted({at for first, last in records.crc.over for at in range(first, last + 1)}):
            yield _Read(offset, _WHOLE, "a part of what the CRC covers")
