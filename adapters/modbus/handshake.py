"""The request handshake of a header: the EMS raises a sequence and sets a command, the host answers in a status register (DOMAIN 6, layout 2)."""

import enum
import logging
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from adapters.modbus.config import RequestSubmit
from adapters.modbus.inbox import Inbox
from adapters.modbus.layout import Image, Span
from adapters.modbus.link import Link, Refused
from adapters.modbus.records import Reader
from bridge.api import Arrival, HostReason, LinkError

log = logging.getLogger(__name__)


class Status(enum.IntEnum):
    """What the host says of a request."""

    IDLE = 0
    BUSY = 2
    JOURNALLED = 3
    UNREADABLE = 4


class Command(NamedTuple):
    """What the EMS asks: the command word and the sequence that it raised for it."""

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
    ) -> None:
        self._submit = submit
        self._flows = flows
        self._link = link
        self._reader = reader
        self._inbox = inbox
        self._wake = wake
        self._handled: Command | None = None
        self._acks: deque[tuple[Command, bool]] = deque()

    def spans(self) -> list[Span]:
        """What has to be read at each poll."""
        registers = {self._submit.request, self._submit.sequence, *(register for _, register in self._submit.answers)}
        return [Span(register, 1) for register in registers]

    async def step(self, image: Image) -> None:
        """Look at a fresh header: take a new command up, or end the handshake when the EMS has cleared it. Raises `LinkError`."""
        command = Command(image.word(self._submit.request), image.word(self._submit.sequence))
        if not command.word:
            self._handled = None
            if self._submit.status is not None and image.word(self._submit.status) != Status.IDLE:
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
        log.warning("request_unreadable", extra={"register": self._submit.request, "error": text})
        await self._answer(Status.UNREADABLE, HostReason.UNREADABLE)

    async def _now(self) -> Command:
        """The command and its sequence as they stand, fresh from the device."""
        spans = [Span(self._submit.request, 1), Span(self._submit.sequence, 1)]
        image = Image()
        await self._link.fetch(spans, image)
        for span in spans:
            if image.get(span) is None:
                raise LinkError(image.why(span))
        return Command(image.word(self._submit.request), image.word(self._submit.sequence))

    async def _answer(self, status: Status, error: int) -> None:
        """Write the status after its error code, in one request where they stand side by side."""
        place, reason = self._submit.status, self._submit.error
        try:
            if place is not None and reason == place + 1:
                await self._link.write(place, struct.pack(">HH", status, error))
                return
            if reason is not None:
                await self._link.write(reason, struct.pack(">H", error))
            if place is not None:
                await self._link.write(place, struct.pack(">H", status))
        except Refused as refused:
            raise self._link.fail(f"the host's answer cannot be written: {refused}") from refused
