"""Reading and writing single addresses of a device, grouped into few requests."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from adapters.modbus.codec import Kind, Shape, Unencodable, decode, encode, merge
from adapters.modbus.config import ModbusOptions
from adapters.modbus.layout import Image, Layout, Members, bad, members_of, reading_of, values_of
from adapters.modbus.link import Link, Refused
from adapters.modbus.places import Span
from adapters.modbus.shared import Shared
from adapters.modbus.targets import FieldTarget, OutcomeTarget, Target
from bridge.api import Address, Code, OutcomeField, Quality, Reading, Write, Written, fit_transaction_id

_SEPARATOR: Final = "; "


class _Place(NamedTuple):
    target: Target
    span: Span
    factor: Span | None
    column: str = ""
    """The field of the file that is joined on this one."""


class _Job(NamedTuple):
    """One value on its way into the device; `data` is empty for what shares its register with others."""

    turn: int
    write: Write
    shape: Shape
    span: Span
    value: object
    data: bytes


class Access:
    """The addresses of one device, read and written over one link."""

    def __init__(self, link: Link, options: ModbusOptions, layouts: Mapping[str, Layout]) -> None:
        self._link = link
        self._options = options
        self._layouts = layouts
        self._shared = Shared()

    async def read(self, addresses: Sequence[Address]) -> list[Reading]:
        """One reading each, in the same order. Raises `LinkError`."""
        places = [self._place(address) for address in addresses]
        image = Image()
        spans = [place.span for place in places if isinstance(place, _Place)]
        spans += [place.factor for place in places if isinstance(place, _Place) and place.factor is not None]
        await self._link.fetch(spans, image)
        members: dict[_Place, Members] = {}
        for place in places:
            if isinstance(place, _Place) and isinstance(place.target, FieldTarget) and place.target.members:
                members[place] = members_of(place.target, place.span, image, self._layouts)
        await self._link.fetch([span for found in members.values() for _, span in found.keys], image)
        return [self._reading(address, place, members, image) for address, place in zip(addresses, places, strict=True)]

    def _reading(
        self, address: Address, place: _Place | str, members: Mapping[_Place, Members], image: Image
    ) -> Reading:
        if isinstance(place, str):
            return bad(place)
        if place in members:
            return values_of(members[place], image)
        reading = reading_of(place.target, place.span, image, place.factor)
        sheet = self._layouts[address.flow].sheet
        if place.column and sheet is not None:
            return sheet.reading(place.column, reading)
        shown = (
            self._shared.shown(place.span, address, reading.value) if reading.quality is Quality.GOOD else reading.value
        )
        return reading if shown is reading.value else Reading(value=shown)

    async def write(self, writes: Sequence[Write]) -> list[Written]:
        """One result each, in the same order; the state of a place is written after the rest of its outcome. Raises `LinkError`."""
        results: dict[int, Written] = {}
        jobs: list[_Job] = []
        for index, write in enumerate(writes):
            job = self._job(index, write)
            if isinstance(job, _Job):
                jobs.append(job)
            else:
                results[index] = Written(address=write.address, error=job)
        for group in groups(jobs, self._options.max_registers_per_write, singly=self._link.singly):
            results |= await self._write(group)
        return [results[index] for index in range(len(writes))]

    async def _write(self, group: Sequence[_Job]) -> dict[int, Written]:
        try:
            data = await self._data(group)
            await self._link.write(Span(group[0].span.start, len(data) // 2, group[0].span.table), data)
        except Refused as error:
            if len(group) > 1:
                return {index: found for job in group for index, found in (await self._write([job])).items()}
            return {group[0].turn: Written(address=group[0].write.address, error=str(error))}
        for job in group:
            self._shared.wrote(job.span, job.write.address, job.value)
        return {job.turn: Written(address=job.write.address, value=job.value) for job in group}

    async def _data(self, group: Sequence[_Job]) -> bytes:
        first = group[0]
        if not first.data:
            return merge(first.shape, await self._link.read(first.span), first.value)
        return b"".join(job.data for job in group)

    def _place(self, address: Address) -> _Place | str:
        """Where an address is, or why it is nowhere."""
        layout = self._layouts.get(address.flow)
        if layout is None:
            return f"there is no flow {address.flow} here"
        number = layout.number(address.place)
        if number is None:
            return f"there is no record {address.place[:20]!r}; they are numbered 0 to {layout.count - 1}"
        sheet, name = layout.sheet, address.name
        if sheet is not None and isinstance(name, str) and name in sheet.columns:
            joined = layout.fields[sheet.on]
            return _Place(joined, layout.at(number, joined), layout.factor(number, joined), name)
        target = layout.target(address.name)
        if target is None:
            return f"{address.flow} has no {address.name.value if isinstance(address.name, OutcomeField) else address.name}"
        return _Place(target, layout.at(number, target), layout.factor(number, target))

    def _job(self, index: int, write: Write) -> _Job | str:
        """What is to be written for this, or why it cannot be."""
        place = self._place(write.address)
        if isinstance(place, str):
            return place
        if not isinstance(write.address.name, OutcomeField):
            return f"{write.address.name} is a field of the EMS's own; only outcomes are written"
        if not self._options.may_write(*place.span):
            return f"{place.span} is outside `writable:`"
        shape = place.target.shape
        try:
            value = held_as(write.address.name, write.value, shape)
            if isinstance(place.target, OutcomeTarget) and place.target.fixed:
                value = self._shared.put(place.span, write.address, value)
            if place.span.table.holds_bits:
                return _Job(index, write, shape, place.span, bool(value), struct.pack(">H", bool(value)))
            if shape.part is not None:
                held = decode(shape, merge(shape, bytes(2 * shape.registers), value))
                return _Job(index, write, shape, place.span, held, b"")
            data = encode(shape, value)
        except Unencodable as error:
            return f"{place.span}: {error}"
        return _Job(index, write, shape, place.span, decode(shape, data), data)


def groups(jobs: Sequence[_Job], limit: int, *, singly: bool = False) -> Iterator[list[_Job]]:
    """Jobs of one place whose registers follow each other, at most `limit` registers together; a place's group with the state comes last.

    Where registers are written `singly` the state stands alone: in a group it would come before what lies behind it.
    """
    by_place: dict[tuple[str, str], list[_Job]] = {}
    for job in jobs:
        by_place.setdefault((job.write.address.flow, job.write.address.place), []).append(job)
    for same in by_place.values():
        found: list[list[_Job]] = []
        for job in sorted(same, key=lambda job: job.span):
            last = found[-1] if found else None
            apart = singly and (_has_state([job]) or (last is not None and _has_state(last)))
            if last is not None and not apart and _joins(last, job, limit):
                last.append(job)
            else:
                found.append([job])
        yield from sorted(found, key=_has_state)


def _joins(group: Sequence[_Job], job: _Job, limit: int) -> bool:
    return (
        group[-1].span.table is job.span.table
        and bool(group[-1].data)
        and bool(job.data)
        and group[-1].span.end == job.span.start
        and job.span.end - group[0].span.start <= limit
    )


def _has_state(group: Sequence[_Job]) -> bool:
    return any(job.write.address.name is OutcomeField.STATE for job in group)


def held_as(name: OutcomeField, value: object, shape: Shape) -> object:
    """An outcome's value (see `OutcomeField`) as this shape takes it: a code's number or word, text cut to its place. Raises `Unencodable`."""
    if isinstance(value, Code):
        value = value.text if shape.kind is Kind.STRING else value.number
    elif isinstance(value, tuple):
        value = _SEPARATOR.join(str(line) for line in value)
    elif name is OutcomeField.UPDATED_AT and isinstance(value, int):
        return datetime.fromtimestamp(value // 1_000_000_000, UTC)
    elif name is OutcomeField.REQUEST and shape.kind is not Kind.STRING:
        return _number(value)
    if not isinstance(value, str):
        return value
    size = 2 * shape.registers
    text = fit_transaction_id(value, size) if name is OutcomeField.TRANSACTION_ID else value[:size]
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


def _number(value: object) -> int:
    text = str(value or 0)
    if not (text.isascii() and text.isdecimal()):
        raise Unencodable(f"{text[:20]!r} is no number")
    return int(text)
