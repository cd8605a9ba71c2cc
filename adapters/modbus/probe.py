"""One look at everything that a site file names in a device: its own words, the handshake, every record and what stands beside it. Reads, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from adapters.modbus.access import Access
from adapters.modbus.config import CountFrom, Framing, ModbusOptions, RequestSubmit
from adapters.modbus.layout import Image, Layout, bad, layout_of
from adapters.modbus.link import Link, connected
from adapters.modbus.places import Span
from adapters.modbus.records import Reader
from adapters.modbus.sidecar import Sheet, read_sheet
from adapters.modbus.wire import Wire, count_place, span_of
from bridge.api import Address, Beside, LinkError, Look, Quality, Reading, Record, Selection, SessionContext, Trouble

LONGEST_BEAT_S: Final = 15.0
_HINT_MAP: Final = "do the addresses of the site file, and its `address_base`, fit this device?"


@asynccontextmanager
async def open_probe(context: SessionContext) -> AsyncIterator["ModbusProbe"]:
    """Connect as a session does; no handshake is answered. Raises `LinkRefused` or `LinkError`."""
    wire = Wire(context.options)
    options = wire.options()
    selections = [wire.selection(given) for given in context.selections]
    word = None if context.word is None else wire.word(context.word)
    async with connected(options, context.clock) as link:
        yield ModbusProbe(context._replace(options=options, selections=selections), link, word)


@dataclass(slots=True)
class _Found:
    records: list[Record] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


class ModbusProbe:
    """A `bridge.api.Probe`."""

    def __init__(self, context: SessionContext, link: Link, word: Span | None) -> None:
        self._context = context
        self._options: ModbusOptions = context.options
        self._link = link
        self._word = word

    async def look(self, wait_s: float) -> Look:
        """See `bridge.api.Probe`. A heartbeat is waited for until it moves, or would count as stale."""
        self._link.check()
        found = _Found()
        try:
            await self._device(found, wait_s)
            for selection in self._context.selections:
                await self._flow(found, selection)
            await self._link.rest()
        except LinkError as error:
            found.troubles.append(Trouble(text=str(error), hint=error.hint))
        return Look(said=self._said(), records=found.records, beside=found.beside, troubles=found.troubles)

    # the device itself -----------------------------------------------------------------------------------

    async def _device(self, found: _Found, wait_s: float) -> None:
        """Magic and version hold what they should, the heartbeat moves, the alarm word is a register of the device."""
        options = self._options
        for name, fixed in (("magic", options.magic), ("version", options.version)):
            if fixed is None:
                continue
            place, reading = span_of(fixed), await self._word_at(span_of(fixed))
            found.beside.append(Beside("", "", f"adapter.{name}", reading))
            if reading.quality is Quality.GOOD and reading.value != fixed.value:
                text = f"{place} holds {reading.value:#06x}, the site file says {fixed.value:#06x}"
                hint = "another device, another firmware, or another `address_base`?"
                found.troubles.append(Trouble(text=text, hint=hint, name=f"adapter.{name}"))
        if options.heartbeat is not None:
            await self._beats(found, span_of(options.heartbeat), options.heartbeat.stale, wait_s)
        if self._word is not None:
            found.beside.append(Beside("", "", "alarms.word", await self._word_at(self._word)))

    async def _beats(self, found: _Found, place: Span, stale_s: float, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        limit_s = max(wait_s, min(stale_s, LONGEST_BEAT_S))
        end = loop.time() + limit_s
        first = now = await self._word_at(place)
        while now == first and now.quality is Quality.GOOD and loop.time() < end:
            await asyncio.sleep(min(self._options.poll, max(0.0, end - loop.time())))
            now = await self._word_at(place)
        found.beside.append(Beside("", "", "adapter.heartbeat", now))
        if now == first and now.quality is Quality.GOOD:
            text = f"{place} has stood at {now.value} for {limit_s:g} s; it counts as stale after {stale_s:g} s"
            grave = limit_s >= stale_s
            hint = "does the program of the EMS still run?"
            found.troubles.append(Trouble(text=text, hint=hint, name="adapter.heartbeat", grave=grave))

    async def _word_at(self, place: Span) -> Reading:
        image = Image()
        await self._link.fetch([place], image)
        return _word(image, place)

    # flows -------------------------------------------------------------------------------------------------

    async def _flow(self, found: _Found, selection: Selection) -> None:
        await self._handshake(found, selection)
        layouts = {
            each.flow: layout_of(each, await self._count(found, each, quietly=each is not selection), self._options.gap, self._sheet(found, each))
            for each in self._needed(selection)
        }  # fmt: skip
        layout = layouts[selection.flow]
        records, lacking = await Reader(self._link, layouts, self._context.clock).look(selection.flow)
        found.records += records
        found.troubles += [
            Trouble(text=why, hint=_HINT_MAP, flow=selection.flow, place=str(number)) for number, why in lacking.items()
        ]
        empty = layout.count - len(records) - len(lacking)
        if empty and records:
            text = f"{empty} of {layout.count} slots are empty"
            found.troubles.append(Trouble(text=text, flow=selection.flow, grave=False))
        await self._targets(found, layouts, selection.flow, records)

    def _needed(self, selection: Selection) -> Iterator[Selection]:
        """The flow itself and those whose records its bit sets stand for."""
        of = {target.members[0] for target in selection.records.registers.values() if target.members is not None}
        yield from (each for each in self._context.selections if each is selection or each.flow in of)

    async def _handshake(self, found: _Found, selection: Selection) -> None:
        if not isinstance(selection.submit, RequestSubmit):
            return
        places = {name: span_of(place) for name, place in selection.submit.places}
        image = Image()
        await self._link.fetch(list(places.values()), image)
        found.beside += [
            Beside(selection.flow, "", f"submit.{name}", _word(image, place)) for name, place in places.items()
        ]

    async def _count(self, found: _Found, selection: Selection, *, quietly: bool) -> int:
        """How many records there are; one that is beyond `max` is told, and as many as may be are read."""
        count = selection.records.each.count
        if not isinstance(count, CountFrom):
            return int(selection.records.each.most)
        reading = await self._word_at(count_place(count))
        number = reading.value if isinstance(reading.value, int) else 0
        if not quietly:
            found.beside.append(Beside(selection.flow, "", "records.each.count", reading))
            if number > count.max:
                text = f"{count_place(count)} counts {number} records, `max` allows {count.max}: no session opens"
                hint = "is that the right register? if so, raise `max` and add the new records to `writable:`"
                found.troubles.append(Trouble(text=text, hint=hint, flow=selection.flow, name="records.each.count"))
        return min(number, count.max)

    def _sheet(self, found: _Found, selection: Selection) -> Sheet | None:
        if selection.records.csv is None:
            return None
        sheet = read_sheet(selection.records.csv, selection.records.columns)
        found.troubles += [Trouble(text=text, flow=selection.flow, name="records.csv") for text in sheet.problems]
        return sheet

    async def _targets(self, found: _Found, layouts: dict[str, Layout], flow: str, records: Sequence[Record]) -> None:
        """What stands where outcomes will be written. Whether it may be written, no device tells before it is."""
        names = list(layouts[flow].targets)
        addresses = [Address(flow, record.place, name) for record in records for name in names]
        readings = await Access(self._link, self._options, layouts).read(addresses)
        found.beside += [
            Beside(flow, address.place, f"outcome.{address.name.value}", reading)  # type: ignore[union-attr]
            for address, reading in zip(addresses, readings, strict=True)
        ]

    def _said(self) -> str:
        options = self._options
        if options.serial is not None:
            way = "RTU"
        else:
            way = (
                "RTU over TCP"
                if options.framing is Framing.RTU
                else "Modbus TCP" + (" over TLS" if options.tls else "")
            )
        return f"{options.where} unit {options.unit}, {way}"


def _word(image: Image, place: Span) -> Reading:
    return Reading(value=image.word(place)) if image.knows(place) else bad(image.why(place))
