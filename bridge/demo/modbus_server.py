"""A small Modbus TCP server over a bank of holding registers, for the simulated EMS: functions 3, 6 and 16 and the exception answers."""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Final, Self

REGISTERS: Final = 65536
READ: Final = 3
WRITE_ONE: Final = 6
WRITE: Final = 16
ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3

_HEADER: Final = struct.Struct(">HHHB")  # transaction, protocol (0), length of what follows, unit
_TWO: Final = struct.Struct(">HH")
_READ_MOST: Final = 125
_WRITE_MOST: Final = 123
_FRAME_MOST: Final = 254


class _Exception(Exception):
    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class RegisterBank:
    """Holding registers. `may_write(start, count)` guards what a client may touch; `written(start, count)` is called after it did."""

    def __init__(self, may_write: Callable[[int, int], bool], written: Callable[[int, int], None]) -> None:
        self._words = [0] * REGISTERS
        self._may_write = may_write
        self._written = written

    def put(self, start: int, words: Sequence[int]) -> None:
        """Set registers as the device itself does."""
        self._words[start : start + len(words)] = words

    def put_bytes(self, start: int, data: bytes) -> None:
        """Set registers from their big-endian bytes."""
        self.put(start, struct.unpack(f">{len(data) // 2}H", data))

    def get(self, start: int, count: int = 1) -> list[int]:
        """Registers as they are."""
        return self._words[start : start + count]

    def get_bytes(self, start: int, count: int) -> bytes:
        """Registers as their big-endian bytes."""
        return struct.pack(f">{count}H", *self.get(start, count))

    def answer(self, request: bytes) -> bytes:
        """The answer to one request, function code first; an exception answer for what cannot be done."""
        function = request[0]
        try:
            return {READ: self._read, WRITE_ONE: self._write_one, WRITE: self._write}[function](request)
        except KeyError:
            return bytes((function | 0x80, ILLEGAL_FUNCTION))
        except struct.error:
            return bytes((function | 0x80, ILLEGAL_VALUE))
        except _Exception as error:
            return bytes((function | 0x80, error.code))

    def _read(self, request: bytes) -> bytes:
        start, count = _TWO.unpack(request[1:])
        self._check(start, count, _READ_MOST)
        return bytes((READ, 2 * count)) + self.get_bytes(start, count)

    def _write_one(self, request: bytes) -> bytes:
        start, word = _TWO.unpack(request[1:])
        self._store(start, [word])
        return request

    def _write(self, request: bytes) -> bytes:
        start, count = _TWO.unpack(request[1:5])
        self._check(start, count, _WRITE_MOST)
        if len(request) != 6 + 2 * count or request[5] != 2 * count:
            raise _Exception(ILLEGAL_VALUE)
        self._store(start, struct.unpack(f">{count}H", request[6:]))
        return request[:5]

    def _check(self, start: int, count: int, most: int) -> None:
        if not 1 <= count <= most:
            raise _Exception(ILLEGAL_VALUE)
        if start + count > REGISTERS:
            raise _Exception(ILLEGAL_ADDRESS)

    def _store(self, start: int, words: Sequence[int]) -> None:
        if not self._may_write(start, len(words)):
            raise _Exception(ILLEGAL_ADDRESS)
        self.put(start, words)
        self._written(start, len(words))


class Connection(asyncio.Protocol):
    """One client: frames in, frames out, nothing waits."""

    def __init__(self, bank: RegisterBank, unit: int, open_connections: set["Connection"]) -> None:
        self._bank = bank
        self._unit = unit
        self._open = open_connections
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember it, so that the server can close it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own signature
        """Forget it."""
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer every whole frame; what is no Modbus ends the connection."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            transaction, protocol, length, unit = _HEADER.unpack_from(self._buffer)
            if protocol or not 2 <= length <= _FRAME_MOST:
                self.close()
                return
            if len(self._buffer) < 6 + length:
                return
            request, self._buffer = self._buffer[_HEADER.size : 6 + length], self._buffer[6 + length :]
            if unit == self._unit and self._transport is not None:
                answer = self._bank.answer(request)
                self._transport.write(_HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)

    def close(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()


class RegisterServer:
    """Serves a bank on a free port, or on the one given; entered as an async context manager."""

    def __init__(self, bank: RegisterBank, *, host: str = "127.0.0.1", port: int = 0, unit: int = 1) -> None:
        self._bank = bank
        self._host = host
        self._unit = unit
        self._open: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.port = port

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._bank, self._unit, self._open), self._host, self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._open):
            connection.close()
        await self._server.wait_closed()
