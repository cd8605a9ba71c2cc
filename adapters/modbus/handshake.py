"""The request handshake of a header: the EMS raises a sequence and sets a command, the host answers in a status register (DOMAIN 6, layout 2).

A map with less has a coil that asks and a coil that acknowledges (layout 3): then each rise of the request is one more, numbered by the host.
"""

import enum
import logging
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from adapters.modbus.config import RequestSubmit
from adapters.modbus.inbox import Inbox
from adapters.modbus.layout import Image
from adapters.modbus.link import Link, Refused
from adapters.modbus.places import Span, Table
from adapters.modbus.records import Reader
from adapters.modbus.wire import span_of
from bridge.api import Arrival, Clock, HostReason, LinkError

log = logging.getLogger(__name__)


class Status(enum.IntEnum):
    """What the host says of a request."""

    IDLE = 0
    BUSY = 2
    JOURNALLED = 3
    UNREADABLE = 4


_NS_PER_MS: Final = 1_000_000


class Command(NamedTuple):
    """What the EMS asks: the command word and the sequence that it raised for it, or that the host gave to this rise."""

    word: int
    sequence: int


class Handshake:
    """One header and the flows that its commands ask for."""

    def __init__(
        self,
        *,
        submit: RequestSubmit,
        flows: Mapping[int, str],
        link: Link,
        reader: Reader,
        inbox: Inbox,
        wake: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._request = span_of(submit.request)
        self._sequence = None if submit.sequence is None else span_of(submit.sequence)
        self._status = None if submit.status is None else span_of(submit.status)
        self._error = None if submit.error is None else span_of(submit.error)
        self._clock = clock
        self._rise = 0
        self._flows = flows
        self._link = link
        self._reader = reader
        self._inbox = inbox
        self._wake = wake
        self._handled: Command | None = None
        self._acks: deque[tuple[Command, bool]] = deque()

    def spans(self) -> list[Span]:
        """What has to be read at each poll."""
        places = {self._request, self._sequence, self._status, self._error}
        return [place for place in places if place is not None]

    async def step(self, image: Image) -> None:
        """Look at a fresh header: take a new command up, or end the handshake when the EMS has cleared it. Raises `LinkError`."""
        if not image.word(self._request):
            self._rise = 0
        elif not self._rise:
            self._rise = self._clock.wall_ns() // _NS_PER_MS
        command = self._command(image)
        if not command.word:
            self._handled = None
            if self._status is not None and image.word(self._status) != Status.IDLE:
                await self._answer(Status.IDLE, 0)
        elif command != self._handled:
            await self._take_up(command)

    async def answer_acks(self) -> None:
        """Tell the EMS what became of its requests. Raises `LinkError`."""
        while self._acks:
            command, taken = self._acks.popleft()
            if await self._now() != command:
                continue  # withdrawn, or the next one already: that status would be read as the answer to another request
            if taken:
                await self._answer(Status.JOURNALLED, 0)
            else:
                await self._answer(Status.UNREADABLE, HostReason.UNREADABLE)

    async def _take_up(self, command: Command) -> None:
        flow = self._flows.get(command.word)
        if flow is None:
            await self._refuse(command, f"command {command.word} belongs to no flow")
            return
        await self._answer(Status.BUSY, 0)
        current = command

        async def sequence() -> int:
            nonlocal current
            current = await self._now()
            return current.sequence

        _, records = await self._reader.requested(flow, sequence)
        if current.word != command.word:
            return  # withdrawn while it was read; the next poll sees what is asked now
        if not records:
            await self._refuse(current, f"{flow} has no record")
            return
        self._handled = current
        await self._inbox.put(Arrival(records=records, ack=lambda taken: self._ack(current, taken)))

    def _ack(self, command: Command, taken: bool) -> None:  # noqa: FBT001 - the contract's own form
        self._acks.append((command, taken))
        self._wake()

    async def _refuse(self, command: Command, text: str) -> None:
        self._handled = command
        log.warning("request_unreadable", extra={"register": str(self._request), "error": text})
        await self._answer(Status.UNREADABLE, HostReason.UNREADABLE)

    async def _now(self) -> Command:
        """The command and its sequence as they stand, fresh from the device."""
        spans = [self._request] if self._sequence is None else [self._request, self._sequence]
        image = Image()
        await self._link.fetch(spans, image)
        for span in spans:
            if image.get(span) is None:
                raise LinkError(image.why(span))
        return self._command(image)

    def _command(self, image: Image) -> Command:
        number = self._rise if self._sequence is None else image.word(self._sequence)
        return Command(image.word(self._request), number)

    async def _answer(self, status: Status, error: int) -> None:
        """Write the status after its error code, in one request where they stand side by side."""
        place, reason = self._status, self._error
        try:
            together = place is not None and place.table is Table.HOLDING and reason == Span(place.start + 1, 1)
            if together and place is not None and not self._link.singly:
                await self._link.write(Span(place.start, 2), struct.pack(">HH", status, error))
                return
            if reason is not None:
                await self._link.write(reason, struct.pack(">H", error))
            if place is not None and place.table is Table.COILS:
                if status is not Status.BUSY:  # a coil says no more than whether the request is ours by now
                    await self._link.write(place, struct.pack(">H", status is Status.JOURNALLED))
            elif place is not None:
                await self._link.write(place, struct.pack(">H", status))
        except Refused as refused:
            raise self._link.fail(f"the host's answer cannot be written: {refused}") from refused
