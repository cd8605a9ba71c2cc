"""One session: a poll loop on the monotonic clock, an inbox for what it finds, and reads and writes in between."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from adapters.modbus.access import Access
from adapters.modbus.config import CountFrom, ModbusOptions, RequestSubmit
from adapters.modbus.handshake import Handshake
from adapters.modbus.inbox import Inbox
from adapters.modbus.layout import Image, Layout, layout_of
from adapters.modbus.link import Link, Refused, connected
from adapters.modbus.places import Span
from adapters.modbus.records import Reader
from adapters.modbus.schedule import Schedule
from adapters.modbus.sidecar import Sheet, read_sheet
from adapters.modbus.watch import Watch
from adapters.modbus.wire import Wire, count_place, header
from bridge.api import (
    Address,
    AlarmWord,
    Arrival,
    LinkError,
    Quality,
    Reading,
    Record,
    Selection,
    SessionContext,
    Trigger,
    Write,
    Written,
)

MOST_RECORDS: Final = 1000
MOST_ARRIVALS: Final = 16


@asynccontextmanager
async def open_session(context: SessionContext) -> AsyncIterator["ModbusSession"]:
    """Connect, look at every flow's registers, and poll until left. Raises `LinkError`."""
    assert isinstance(context.options, ModbusOptions)
    wire = Wire(context.options)
    options = wire.options()
    context = context._replace(options=options, selections=[wire.selection(given) for given in context.selections])
    async with connected(options, context.clock, context.certified) as link:
        counts = await _counts(link, context.selections)
        sheets = await asyncio.to_thread(_sheets, context.selections)
        layouts = {
            selection.flow: layout_of(
                selection,
                counts.get(selection.flow, selection.records.each.most),
                options.gap,
                sheets.get(selection.flow),
            )
            for selection in context.selections
        }
        await _verify(link, layouts)
        session = ModbusSession(context, wire, link, layouts, Watch(options, _expected(context.selections, counts)))
        failure: LinkError | None = None
        async with asyncio.TaskGroup() as group:
            polling = group.create_task(session.poll())
            try:
                yield session
            except LinkError as error:
                failure = error  # raised below as itself, not as a group
            finally:
                session.close()
                polling.cancel()
        if failure is not None:
            raise failure


def _sheets(selections: Sequence[Selection]) -> dict[str, Sheet]:
    """The files beside the maps, read afresh: a row that was added is there after the next connect. Raises `LinkError` for one that is spoilt."""
    sheets: dict[str, Sheet] = {}
    for selection in selections:
        if selection.records.csv is not None:
            sheet = read_sheet(selection.records.csv, selection.records.columns)
            if sheet.problems:
                raise LinkError(sheet.problems[0], hint="smp-bridge check names every line that is wrong")
            sheets[selection.flow] = sheet
    return sheets


async def _counts(link: Link, selections: Sequence[Selection]) -> dict[str, int]:
    """How many records each flow has whose count stands in the device."""
    counts: dict[str, int] = {}
    for flow, count in _counted(selections):
        place = count_place(count)
        image = await _known(link, [place], f"the count of {flow}")
        counts[flow] = image.word(place)
        if counts[flow] > count.max:
            raise LinkError(
                f"{flow}: {place} counts {counts[flow]} records, `max` allows {count.max}",
                hint="is that the right register? if so, raise `max` and add the new records to `writable:`",
            )
    return counts


def _expected(selections: Sequence[Selection], counts: Mapping[str, int]) -> dict[Span, int]:
    """Registers that must stay as they were at opening: a changed count is another layout."""
    return {count_place(count): counts[flow] for flow, count in _counted(selections)}


def _counted(selections: Sequence[Selection]) -> Iterator[tuple[str, CountFrom]]:
    for selection in selections:
        count = selection.records.each.count
        if isinstance(count, CountFrom):
            yield selection.flow, count


async def _verify(link: Link, layouts: Mapping[str, Layout]) -> None:
    """The first and last record of each flow, and their outcomes, are registers of this device."""
    for layout in layouts.values():
        for number in sorted({0, layout.count - 1} & set(layout.places())):
            spans = [*layout.chunks_of(number), *(layout.at(number, target) for target in layout.targets.values())]
            await _known(link, spans, f"record {number} of {layout.flow}")


async def _known(link: Link, spans: list[Span], what: str) -> Image:
    image = Image()
    await link.fetch(spans, image)
    for span in spans:
        if image.get(span) is None:
            raise LinkError(f"{what}: {image.why(span)}", hint="do the addresses of the site file fit this device?")
    return image


class ModbusSession:
    """A `bridge.api.Session`."""

    can_read = True

    def __init__(
        self, context: SessionContext, wire: Wire, link: Link, layouts: Mapping[str, Layout], watch: Watch
    ) -> None:
        self._context = context
        self._wire = wire
        self._options: ModbusOptions = context.options
        self._link = link
        self._watch = watch
        self._layouts = layouts
        self._inbox = Inbox(arrivals=MOST_ARRIVALS, records=MOST_RECORDS)
        self._access = Access(link, self._options, layouts)
        self._reader = Reader(link, layouts, context.clock, context.ahead)
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._handshakes = self._shake_hands()
        self._changes: dict[str, dict[int, bytes]] = {
            selection.flow: {} for selection in context.selections if selection.trigger is Trigger.CHANGE
        }
        self._spans = [*watch.spans(), *(span for handshake in self._handshakes for span in handshake.spans())]
        link.lost = self._inbox.fail

    async def receive(self) -> Sequence[Arrival]:
        """See `bridge.api.Session`."""
        try:
            return await self._inbox.take()
        except asyncio.CancelledError:
            self._link.fail("receiving was cancelled")
            raise

    async def read(self, addresses: Sequence[Address]) -> Sequence[Reading]:
        """See `bridge.api.Session`."""
        readings = await self._access.read(addresses)
        if self._watch.vouches and any(reading.quality is Quality.GOOD for reading in readings):
            self._context.heard()
        return readings

    async def write(self, writes: Sequence[Write]) -> Sequence[Written]:
        """See `bridge.api.Session`."""
        return await self._access.write(writes)

    def places(self, flow: str) -> Sequence[str]:
        """See `bridge.api.ListsPlaces`."""
        return [str(number) for number in self._layouts[flow].places()]

    async def write_word(self, word: AlarmWord) -> str:
        """See `bridge.api.WordSession`."""
        place, data = self._wire.word(self._context.word), word.bits.to_bytes(2, "big")
        if not self._options.may_write(*place):
            return f"{place} is outside `writable:`"
        try:
            await self._link.write(place, data)
            held = await self._link.read(place)
        except Refused as error:
            return str(error)
        return "" if held == data else f"read back {int.from_bytes(held, 'big')}, wrote {word.bits}"

    def close(self) -> None:
        """Nothing works from here on; acknowledgements that come late do nothing."""
        self._link.fail("the session is closed")

    async def poll(self) -> None:
        """Poll until the link is lost; that is told through the inbox."""
        now_ns = self._context.clock.mono_ns
        schedule = Schedule(now_ns(), self._options.poll)
        self._context.intervals.agreed("poll", configured_s=self._options.poll)
        try:
            while True:
                await self._answer_acks()
                left_s = schedule.wait_s(now_ns())
                if left_s > 0:
                    await self._wait(left_s)
                    continue
                achieved_s = schedule.begin(now_ns())
                if achieved_s is not None:
                    self._context.intervals.achieved("poll", achieved_s)
                await self._look()
                await self._link.rest()
                schedule.end(now_ns())
        except LinkError as error:
            self._inbox.fail(error)

    async def _wait(self, seconds: float) -> None:
        """Until the next poll, or until an acknowledgement has to be written."""
        alarm = self._loop.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            alarm.cancel()

    async def _answer_acks(self) -> None:
        self._woken.clear()
        for handshake in self._handshakes:
            await handshake.answer_acks()

    async def _look(self) -> None:
        image = await _known(self._link, self._spans, "the header") if self._spans else Image()
        moved = self._watch.moved(image, self._context.clock.mono_ns())
        if moved and self._spans:
            self._context.heard()
        if not self._watch.alive:
            return
        for handshake in self._handshakes:
            await handshake.step(image)
        for flow, seen in self._changes.items():
            records = await self._reader.changed(flow, seen)
            if moved:
                self._context.heard()
            await self._deliver(records)

    async def _deliver(self, records: Sequence[Record]) -> None:
        for start in range(0, len(records), MOST_RECORDS):
            await self._inbox.put(Arrival(records=records[start : start + MOST_RECORDS], ack=lambda _: None))
            await asyncio.sleep(0)  # whoever takes them goes first; what is left of this poll has time

    def _shake_hands(self) -> list[Handshake]:
        """One handshake for each header; flows that share one are told apart by the command."""
        flows: dict[tuple[Span | None, ...], dict[int, str]] = {}
        submits: dict[tuple[Span | None, ...], RequestSubmit] = {}
        for selection in self._context.selections:
            if isinstance(selection.submit, RequestSubmit):
                key = header(selection.submit)
                submits[key] = selection.submit
                flows.setdefault(key, {})[selection.submit.equals] = selection.flow
        return [
            Handshake(
                submit=submit,
                flows=flows[key],
                link=self._link,
                reader=self._reader,
                inbox=self._inbox,
                wake=self._woken.set,
                clock=self._context.clock,
            )
            for key, submit in submits.items()
        ]
