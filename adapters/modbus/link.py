"""One unit over one connection, used once: one request in flight, every answer checked. With `bus` and `transport` the only files that touch the protocol library."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Final

from pymodbus.client.base import ModbusBaseClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from adapters.modbus.bus import bus_of
from adapters.modbus.config import ModbusOptions, WriteFunction
from adapters.modbus.layout import Image, requests
from adapters.modbus.places import Span, Table
from adapters.modbus.transport import Garbled
from adapters.modbus.turns import Counts, Gone
from bridge.api import Certified, Clock, LinkError, unseen

log = logging.getLogger(__name__)

_READS: Final[Mapping[Table, tuple[int, str]]] = {
    Table.COILS: (1, "read_coils"),
    Table.DISCRETE: (2, "read_discrete_inputs"),
    Table.HOLDING: (3, "read_holding_registers"),
    Table.INPUT: (4, "read_input_registers"),
}
"""The function that reads a table, and the library's name for it."""
WRITE_COIL: Final = 5
WRITE_ONE: Final = 6
WRITE_COILS: Final = 15
WRITE: Final = 16
_BYTE: Final = 8  # bits are answered in whole bytes
_BUSY: Final = frozenset({5, 6})
_EXCEPTIONS: Final[Mapping[int, str]] = {
    1: "illegal function",
    2: "illegal address",
    3: "illegal value",
    4: "device failure",
    5: "acknowledged, still at work",
    6: "busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target does not answer",
}
_LIBRARY_LOG: Final = "pymodbus.logging"


class Refused(Exception):
    """The device answered with an exception: the link is well, these registers are not. The text names both; `code` is the exception's, `reason` what it means."""

    def __init__(self, text: str, code: int, reason: str) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


class Link:
    """A connected device. After any time-out, cancellation or wrong answer every call raises `LinkError`."""

    def __init__(self, options: ModbusOptions, clock: Clock, certified: Certified = unseen) -> None:
        self._options = options
        self._error: LinkError | None = None
        self.lost: Callable[[LinkError], None] = lambda _: None
        self._bus = bus_of(options, clock)
        self._member = self._bus.join(options, self.fail, certified)

    async def connect(self) -> None:
        """Connect. Raises `LinkError` when nobody is there, `LinkRefused` when TLS cannot come about."""
        await self._bus.open(self._member)
        self.check()

    async def rest(self) -> None:
        """Between two polls: close the connection where the device wants that; the next request opens it again. Raises `LinkError` once the link has ended."""
        if self._options.close_after_poll:
            try:
                await self._bus.rest(self._member)
            except Gone:
                self.check()

    @property
    def client(self) -> ModbusBaseClient:
        """The library's client; there is one once `connect` was called."""
        return self._bus.client

    @property
    def counts(self) -> Counts:
        """What this unit asked and got since the connection was opened."""
        return self._member.seat.unit.counts

    def close(self) -> None:
        """Close the connection, unless others use it too."""
        self._bus.leave(self._member)

    async def read(self, span: Span) -> bytes:
        """The bytes of these registers, or bits as registers of 0 or 1; no more than one request may ask for. Raises `Refused` or `LinkError`."""
        function, name = _READS[span.table]
        ask = getattr(self.client, name)
        answer = await self._ask(lambda: ask(span.start, count=span.size, device_id=self._options.unit), function, span)
        if not span.table.holds_bits:
            if len(answer.registers) != span.size:
                raise self.fail(f"asked for {span.size} registers from {span.start}, got {len(answer.registers)}")
            return struct.pack(f">{span.size}H", *answer.registers)
        if len(answer.bits) != -(-span.size // _BYTE) * _BYTE:
            raise self.fail(f"asked for {span.size} bits from {span.start}, got {len(answer.bits)}")
        return struct.pack(f">{span.size}H", *answer.bits[: span.size])

    async def write(self, span: Span, data: bytes) -> None:
        """Write these, in one request unless the device takes only one at a time. Raises `Refused` or `LinkError`."""
        words = struct.unpack(f">{span.size}H", data)
        function = self._options.write_function
        if span.table is Table.COILS:
            one_by_one = function is WriteFunction.SINGLE or span.size == 1  # hardly a device writes one coil by 15
        else:
            one_by_one = function is WriteFunction.SINGLE or (function is WriteFunction.AUTO and span.size == 1)
        if not one_by_one:
            await self._write_several(span, list(words))
            return
        for offset, word in enumerate(words):
            await self._write_one(Span(span.start + offset, 1, span.table), word)

    @property
    def singly(self) -> bool:
        """Whether the device takes one register at a time, so that what is written together would be seen to come one after the other."""
        return self._options.write_function is WriteFunction.SINGLE or self._options.max_registers_per_write == 1

    async def _write_one(self, span: Span, word: int) -> None:
        client, at, unit = self.client, span.start, self._options.unit
        if span.table is Table.COILS:
            answer = await self._ask(lambda: client.write_coil(at, bool(word), device_id=unit), WRITE_COIL, span)
            held: list[int] = list(answer.bits[:1])
        else:
            answer = await self._ask(lambda: client.write_register(at, word, device_id=unit), WRITE_ONE, span)
            held = list(answer.registers)
        if (answer.address, held) != (at, [word]):
            raise self.fail(f"wrote {word} to {span}, the answer speaks of {held} at {answer.address}")

    async def _write_several(self, span: Span, words: list[int]) -> None:
        client, at, unit = self.client, span.start, self._options.unit
        if span.table is Table.COILS:
            bits = [bool(word) for word in words]
            answer = await self._ask(lambda: client.write_coils(at, bits, device_id=unit), WRITE_COILS, span)
        else:
            answer = await self._ask(lambda: client.write_registers(at, words, device_id=unit), WRITE, span)
        if (answer.address, answer.count) != (at, span.size):
            raise self.fail(f"wrote {span}, the answer speaks of {answer.count} from {answer.address}")

    async def fetch(self, spans: list[Span], image: Image, read: Callable[[], None] = lambda: None) -> bool:
        """Read these spans into the image in as few requests as there can be; what the device refuses is noted there. Raises `LinkError`.

        `read` is called after each answer, before the next request: it does not block. Returns whether nothing was refused.
        """
        whole = True
        for request in self.requests(spans):
            try:
                image.put(request, await self.read(request))
                read()
            except Refused as error:
                whole = False
                inside = [span for span in spans if _within(span, request)]
                if len(set(inside)) > 1:
                    await self._one_by_one(inside, image)
                else:
                    image.refuse(request, str(error))
        return whole

    async def look(self, asked: Sequence[Span]) -> list[bytes] | None:
        """The answers to these requests; None when the device refuses one of them (`fetch` finds out which of its registers). Raises `LinkError`."""
        try:
            return [await self.read(request) for request in asked]
        except Refused:
            return None

    def requests(self, spans: Iterable[Span]) -> list[Span]:
        """The fewest requests that fetch these spans."""
        options = self._options
        return requests(spans, options.max_registers_per_read, options.gap, bits=options.max_bits_per_read)

    async def _one_by_one(self, spans: list[Span], image: Image) -> None:
        for span in dict.fromkeys(spans):
            try:
                image.put(span, await self.read(span))
            except Refused as error:
                image.refuse(span, str(error))

    def fail(self, text: str) -> LinkError:
        """End this link: the error is told to its owner, and returned to be raised."""
        error = LinkError(f"{self._options.where} unit {self._options.unit}: {text}")
        if self._error is None:
            self._error = error
            self._bus.leave(self._member)
            self.lost(error)
        return error

    def check(self) -> None:
        """Raise `LinkError` when the link has ended."""
        if self._error is not None:
            raise LinkError(str(self._error), hint=self._error.hint)

    async def _ask(self, send: Callable[[], Awaitable[ModbusPDU]], function: int, span: Span) -> ModbusPDU:
        """One request, repeated with a pause while the device says that it is busy."""
        for left in range(self._options.busy_retries, -1, -1):
            answer = await self._exchange(send, function, span)
            if not answer.isError():
                return answer
            code = answer.exception_code
            if code not in _BUSY or not left:
                hint = (
                    "; does the device take another `write_function`?"
                    if code == 1 and function in {WRITE_ONE, WRITE}
                    else ""
                )
                reason = f"exception {code} ({_EXCEPTIONS.get(code, 'unknown')})"
                raise Refused(f"{span}: the device answers {reason}{hint}", code, reason)
            await asyncio.sleep(self._options.busy_pause)
        raise AssertionError("unreachable")

    async def _exchange(self, send: Callable[[], Awaitable[ModbusPDU]], function: int, span: Span) -> ModbusPDU:
        self.check()
        try:
            answer = await self._bus.exchange(self._member, send)
        except Gone:
            self.check()
            raise AssertionError("unreachable") from None
        except (ModbusException, OSError) as error:
            raise self.fail(f"{span}: {_why(error, self._options)}") from error
        except asyncio.CancelledError:
            self.fail("a request was cancelled")
            raise
        if answer.function_code & 0x7F != function:
            raise self.fail(f"{span}: asked with function {function}, answered with {answer.function_code}")
        return answer


def _why(error: Exception, options: ModbusOptions) -> str:
    if isinstance(error, Garbled):
        return "the answer cannot be read"
    return f"no answer within {options.timeout:g} s, or the connection broke"


def _within(span: Span, request: Span) -> bool:
    return span.table is request.table and request.start <= span.start and span.end <= request.end


@asynccontextmanager
async def connected(options: ModbusOptions, clock: Clock, certified: Certified = unseen) -> AsyncIterator[Link]:
    """Connect, and close whatever happens; at the end the log says what the unit asked and got. Raises `LinkError` when nobody is there."""
    library = logging.getLogger(_LIBRARY_LOG)
    if library.level == logging.NOTSET:  # it dumps whole frames on any failure; a level that was set stays
        library.setLevel(logging.CRITICAL + 1)
    link = Link(options, clock, certified)
    try:
        await link.connect()
        yield link
    finally:
        link.close()
        if link.counts.answers:
            log.info("modbus_unit", extra={"link": options.where, "unit": options.unit, **asdict(link.counts)})
