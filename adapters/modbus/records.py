"""Whole records over one link: read under the guard that all adapters share."""

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from adapters.modbus.layout import Image, Layout, Members, bitsets, members_of, values_of
from adapters.modbus.link import Link
from adapters.modbus.places import Span
from bridge.api import Clock, LinkError, Reading, Record, Stamp, Torn, read_guarded

_STEP: Final = 32  # records that are made in one go; a thousand at once would hold the loop for long
_NOT_YET: Final = Stamp(0, 0, "")
TORN: Final = "torn: the EMS kept changing it while it was read"


class _Made(NamedTuple):
    """One record as its registers give it; without fields where nobody lives in its slot."""

    block: bytes
    fields: Mapping[str, Reading] | None
    problem: str


class _Fetched(NamedTuple):
    image: Image
    members: Mapping[Span, Members]
    made: dict[int, _Made]
    """What was made of it while the rest was read."""
    whole: bool = True
    """Whether the device refused nothing that was asked for together."""

    def signature(self, layout: Layout, number: int) -> bytes:
        """What of a record counts as a change: its own registers, and those that its bits stand for."""
        own = layout.signature(self.image.get(layout.span(number)) or b"")
        others = [span for _, bits in bitsets(layout, [number]) for _, span in self.members[bits].keys]
        return b"".join([own, *(self.image.get(span) or b"?" for span in others)]) if others else own


class _Polled:
    """A flow that is looked at again and again: the requests that fetch it, and what the device answered when there was nothing new."""

    def __init__(self, layout: Layout, asked: list[Span]) -> None:
        self._numbers = layout.places()
        self._parts = [list[tuple[int, slice]]() for _ in asked]
        self.asked = asked
        self.quiet: list[bytes] | None = None
        self.refused = False
        """It shows these registers one by one only, or not all of them."""
        starts = [request.start for request in asked]  # in order, for a flow's records are in one table
        for number in self._numbers:
            for chunk in layout.chunks_of(number):
                at = bisect_right(starts, chunk.start) - 1
                while at < len(asked) and starts[at] < chunk.end:
                    first, end = chunk.start - starts[at], chunk.end - starts[at]
                    self._parts[at].append((number, slice(max(0, 2 * first), 2 * end)))
                    at += 1

    def moved(self, answers: list[bytes] | None) -> Collection[int]:
        """The records whose registers are not as they were when there was nothing new; all of them where that is not known."""
        if answers is None or self.quiet is None:
            return self._numbers
        return {
            number: None
            for parts, before, now in zip(self._parts, self.quiet, answers, strict=True)
            if before != now
            for number, part in parts
            if before[part] != now[part]
        }


class Reader:
    """Reads the records of a device's flows; `ahead` is shown those of a request that are complete while others are still read."""

    def __init__(
        self,
        link: Link,
        layouts: Mapping[str, Layout],
        clock: Clock,
        ahead: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self._link = link
        self._layouts = layouts
        self._clock = clock
        self._ahead = ahead
        self._polled: dict[str, _Polled] = {}

    async def requested(self, flow: str, sequence: Callable[[], Awaitable[int]]) -> tuple[int, list[Record]]:
        """All records of a flow and the sequence that they belong to; torn ones say so. Raises `LinkError`."""
        layout = self._layouts[flow]
        latest, fetched = 0, _Fetched(Image(), {}, {})

        async def number() -> int:
            nonlocal latest
            latest = await sequence()
            return latest

        async def block() -> None:
            nonlocal fetched
            fetched = await self._fetch(layout, layout.places(), self._ahead)

        try:
            await read_guarded(number, block)
        except Torn:
            return latest, await self._records(layout, layout.places(), fetched, str(latest), torn=True)
        return latest, await self._records(layout, layout.places(), fetched, str(latest))

    async def changed(self, flow: str, seen: dict[int, bytes]) -> list[Record]:
        """The records of a flow whose fields differ from `seen`, which is brought up to date; one that keeps moving while it is read is torn.

        As a rule nothing is new, and then the device answers as it did before: that is looked for first.
        """
        layout, polled = self._layouts[flow], self._watch(flow)
        answers = None if polled.refused or layout.refers else await self._link.look(polled.asked)
        if answers is not None and answers == polled.quiet:
            return []
        moved = polled.moved(answers)
        fetched = await self._fetched(layout, polled, moved, answers)
        polled.refused = not fetched.whole
        records: list[Record] = []
        quiet = True
        for number in moved:
            signature = fetched.signature(layout, number)
            if seen.get(number, b"") == signature:
                continue
            if layout.is_empty(fetched.image.get(layout.span(number)) or b""):
                seen.pop(number, None)
                continue
            found, last, torn = await self._steady(layout, number, fetched, signature)
            if torn:  # the last reading may have been the whole record, and nobody has seen it
                seen.pop(number, None)
            else:
                seen[number] = last
            quiet = quiet and last == signature and not torn
            records += found
        polled.quiet = answers if quiet else None
        return records

    def _watch(self, flow: str) -> _Polled:
        """What is asked at each poll; worked out once, for a flow may have a thousand records."""
        polled = self._polled.get(flow)
        if polled is None:
            layout = self._layouts[flow]
            spans = [span for number in layout.places() for span in layout.chunks_of(number)]
            polled = self._polled[flow] = _Polled(layout, self._link.requests(spans))
        return polled

    async def _fetched(
        self, layout: Layout, polled: _Polled, numbers: Collection[int], answers: list[bytes] | None
    ) -> _Fetched:
        """These records of a flow, from these answers where there are any."""
        if answers is None:
            return await self._fetch(layout, numbers)
        image = Image()
        for request, data in zip(polled.asked, answers, strict=True):
            image.put(request, data)
        return await self._completed(layout, numbers, image, {})

    async def look(self, flow: str) -> tuple[list[Record], dict[int, str]]:
        """Every record of a flow as it stands, whether anybody asked for it or not, and why those are missing that the device does not show. Raises `LinkError`."""
        layout, image, lacking = self._layouts[flow], Image(), dict[int, str]()
        await self._link.fetch([span for number in layout.places() for span in layout.chunks_of(number)], image)
        for number in layout.places():
            for span in layout.chunks_of(number):
                if not image.knows(span):
                    lacking.setdefault(number, image.why(span))
        there = [number for number in layout.places() if number not in lacking]
        fetched = await self._completed(layout, there, image, {})
        return await self._records(layout, there, fetched, None), lacking

    async def _steady(
        self, layout: Layout, number: int, fetched: _Fetched, signature: bytes
    ) -> tuple[list[Record], bytes, bool]:
        """A changed record once two readings of it agree (none when it was emptied meanwhile), its last signature, and whether no two agreed."""
        unseen = True

        async def moved() -> int:
            nonlocal fetched, signature, unseen
            if not unseen:
                again = await self._again(layout, number, fetched)
                if again is not fetched:
                    fetched, signature = again, again.signature(layout, number)
            unseen = False
            return int.from_bytes(signature, "big")

        async def nothing() -> None:
            """What was read to compare is the record."""

        torn = False
        try:
            await read_guarded(moved, nothing)
        except Torn:
            torn = True
        return await self._records(layout, [number], fetched, None, torn=torn), signature, torn

    async def _again(self, layout: Layout, number: int, before: _Fetched) -> _Fetched:
        """One record read anew: what was read `before`, where the device answers the same."""
        asked = self._link.requests(layout.chunks_of(number))
        answers = None if layout.refers else await self._link.look(asked)
        if answers is None:
            return await self._fetch(layout, [number])
        if all(before.image.get(span) == data for span, data in zip(asked, answers, strict=True)):
            return before
        image = Image()
        for span, data in zip(asked, answers, strict=True):
            image.put(span, data)
        return await self._completed(layout, [number], image, {})

    async def _fetch(
        self, layout: Layout, numbers: Collection[int], show: Callable[[Record], None] | None = None
    ) -> _Fetched:
        image = Image()
        spans = [span for number in numbers for span in layout.chunks_of(number)]
        early = _Early(layout, [] if next(bitsets(layout, numbers), None) else list(numbers), image, show)
        whole = await self._link.fetch(spans, image, early.more)
        for span in spans:
            if not image.knows(span):
                raise LinkError(f"{layout.flow}: {image.why(span)}", hint="do base, stride and count fit the device?")
        return (await self._completed(layout, numbers, image, early.made))._replace(whole=whole)

    async def _completed(
        self, layout: Layout, numbers: Collection[int], image: Image, made: dict[int, _Made]
    ) -> _Fetched:
        """What was read of these records, with the values that their bit sets stand for."""
        if len(layout.chunks) > 1:
            for number in numbers:
                image.settle(layout.span(number))
        members: dict[Span, Members] = {}
        for target, span in bitsets(layout, numbers):
            members[span] = members_of(target, span, image, self._layouts)
        await self._link.fetch([span for found in members.values() for _, span in found.keys], image)
        return _Fetched(image, members, made)

    async def _records(
        self, layout: Layout, numbers: Sequence[int], fetched: _Fetched, request: str | None, *, torn: bool = False
    ) -> list[Record]:
        received = self._clock.now()
        records: list[Record] = []
        for index, number in enumerate(numbers, 1):
            if index % _STEP == 0:
                await asyncio.sleep(0)
            block = fetched.image.get(layout.span(number)) or b""
            made = fetched.made.get(number) or _made(layout, number, block, fetched.image, fetched.members)
            if made.fields is None:
                continue
            if torn:
                made = _Made(block, {}, TORN)
            records.append(_record(layout, number, received, request, made))
        return records


class _Early:
    """Makes the records of a request one after the other, each while the device is asked for the next ones, and shows them.

    The work is done in a turn of the loop of its own: by then the next request has left.
    """

    def __init__(
        self, layout: Layout, numbers: Sequence[int], image: Image, show: Callable[[Record], None] | None
    ) -> None:
        self._layout = layout
        self._numbers = numbers if show else []
        self._image = image
        self._show = show or (lambda _: None)
        self._due = False
        self.made: dict[int, _Made] = {}

    def more(self) -> None:
        """Another answer has come."""
        if not self._due and len(self.made) < len(self._numbers):
            self._due = True
            asyncio.get_running_loop().call_soon(self._make)

    def _make(self) -> None:
        self._due = False
        layout, image = self._layout, self._image
        for number in self._numbers[len(self.made) : len(self.made) + _STEP]:
            if not all(image.knows(span) for span in layout.chunks_of(number)):
                return
            # Its gaps are not settled yet: they may hold registers of others, and whether those can be read is still to be found out.
            made = self.made[number] = _made(layout, number, image.filled(layout.span(number)), image, {})
            if made.fields is not None:
                self._show(_record(layout, number, _NOT_YET, None, made))


def _made(layout: Layout, number: int, block: bytes, image: Image, members: Mapping[Span, Members]) -> _Made:
    if layout.is_empty(block):
        return _Made(block, None, "")
    fields = {
        cut.name: values_of(members[layout.at(number, cut.target)], image)
        if cut.target.of is not None
        else layout.reading(number, cut, block)
        for cut in layout.cuts
    }
    if layout.sheet is not None:
        fields |= layout.sheet.readings(fields[layout.sheet.on])
    return _Made(block, fields, layout.problem(image, number))


def _record(layout: Layout, number: int, received: Stamp, request: str | None, made: _Made) -> Record:
    return Record(
        flow=layout.flow,
        place=str(number),
        fields=made.fields or {},
        received=received,
        request=request,
        problem=made.problem,
        raw=made.block,
    )
