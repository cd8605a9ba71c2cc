"""Whole records over one link: read under the guard that all adapters share."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from adapters.modbus.layout import Image, Layout, Members, bitsets, members_of, values_of
from adapters.modbus.link import Link
from adapters.modbus.places import Span
from bridge.api import Clock, LinkError, Reading, Record, Torn, read_guarded

_STEP: Final = 32  # records that are made in one go; a thousand at once would hold the loop for long
TORN: Final = "torn: the EMS kept changing it while it was read"


class _Fetched(NamedTuple):
    image: Image
    members: Mapping[Span, Members]


class Reader:
    """Reads the records of a device's flows."""

    def __init__(self, link: Link, layouts: Mapping[str, Layout], clock: Clock) -> None:
        self._link = link
        self._layouts = layouts
        self._clock = clock

    async def requested(self, flow: str, sequence: Callable[[], Awaitable[int]]) -> tuple[int, list[Record]]:
        """All records of a flow and the sequence that they belong to; torn ones say so. Raises `LinkError`."""
        layout = self._layouts[flow]
        latest, fetched = 0, _Fetched(Image(), {})

        async def number() -> int:
            nonlocal latest
            latest = await sequence()
            return latest

        async def block() -> None:
            nonlocal fetched
            fetched = await self._fetch(layout, layout.places())

        try:
            await read_guarded(number, block)
        except Torn:
            return latest, await self._records(layout, layout.places(), fetched, str(latest), torn=True)
        return latest, await self._records(layout, layout.places(), fetched, str(latest))

    async def changed(self, flow: str, seen: dict[int, bytes]) -> list[Record]:
        """The records of a flow whose fields differ from `seen`, which is brought up to date; one that keeps moving while it is read is torn."""
        layout = self._layouts[flow]
        fetched = await self._fetch(layout, layout.places())
        records: list[Record] = []
        for number in layout.places():
            signature = layout.signature(fetched.image, number)
            if seen.get(number, b"") == signature:
                continue
            if layout.is_empty(fetched.image.get(layout.span(number)) or b""):
                seen.pop(number, None)
                continue
            found, seen[number] = await self._steady(layout, number, fetched, signature)
            records += found
        return records

    async def look(self, flow: str) -> tuple[list[Record], dict[int, str]]:
        """Every record of a flow as it stands, whether anybody asked for it or not, and why those are missing that the device does not show. Raises `LinkError`."""
        layout, image, lacking = self._layouts[flow], Image(), dict[int, str]()
        await self._link.fetch([span for number in layout.places() for span in layout.chunks_of(number)], image)
        for number in layout.places():
            for span in layout.chunks_of(number):
                if not image.knows(span):
                    lacking.setdefault(number, image.why(span))
        there = [number for number in layout.places() if number not in lacking]
        fetched = await self._completed(layout, there, image)
        return await self._records(layout, there, fetched, None), lacking

    async def _steady(
        self, layout: Layout, number: int, fetched: _Fetched, signature: bytes
    ) -> tuple[list[Record], bytes]:
        """A changed record once two readings of it agree (none when it was emptied meanwhile), and its signature."""
        unseen = True

        async def moved() -> int:
            nonlocal fetched, signature, unseen
            if not unseen:
                fetched = await self._fetch(layout, [number])
                signature = layout.signature(fetched.image, number)
            unseen = False
            return int.from_bytes(signature, "big")

        async def nothing() -> None:
            """What was read to compare is the record."""

        torn = False
        try:
            await read_guarded(moved, nothing)
        except Torn:
            torn = True
        return await self._records(layout, [number], fetched, None, torn=torn), signature

    async def _fetch(self, layout: Layout, numbers: Collection[int]) -> _Fetched:
        image = Image()
        spans = [span for number in numbers for span in layout.chunks_of(number)]
        await self._link.fetch(spans, image)
        for span in spans:
            if not image.knows(span):
                raise LinkError(f"{layout.flow}: {image.why(span)}", hint="do base, stride and count fit the device?")
        return await self._completed(layout, numbers, image)

    async def _completed(self, layout: Layout, numbers: Collection[int], image: Image) -> _Fetched:
        """What was read of these records, with the values that their bit sets stand for."""
        if len(layout.chunks) > 1:
            for number in numbers:
                image.settle(layout.span(number))
        members: dict[Span, Members] = {}
        for target, span in bitsets(layout, numbers):
            members[span] = members_of(target, span, image, self._layouts)
        await self._link.fetch([span for found in members.values() for _, span in found.keys], image)
        return _Fetched(image, members)

    async def _records(
        self, layout: Layout, numbers: Sequence[int], fetched: _Fetched, request: str | None, *, torn: bool = False
    ) -> list[Record]:
        received = self._clock.now()
        records: list[Record] = []
        for index, number in enumerate(numbers, 1):
            if index % _STEP == 0:
                await asyncio.sleep(0)
            block = fetched.image.get(layout.span(number)) or b""
            if layout.is_empty(block):
                continue
            records.append(
                Record(
                    flow=layout.flow,
                    place=str(number),
                    fields={} if torn else self._fields(layout, number, block, fetched),
                    received=received,
                    request=request,
                    problem=TORN if torn else layout.problem(fetched.image, number),
                    raw=block,
                )
            )
        return records

    def _fields(self, layout: Layout, number: int, block: bytes, fetched: _Fetched) -> dict[str, Reading]:
        fields = {
            cut.name: values_of(fetched.members[layout.at(number, cut.target)], fetched.image)
            if cut.target.members is not None
            else layout.reading(number, cut, block)
            for cut in layout.cuts
        }
        if layout.sheet is not None:
            fields |= layout.sheet.readings(fields[layout.sheet.on])
        return fields
