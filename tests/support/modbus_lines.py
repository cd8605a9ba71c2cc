"""Other ways to a Modbus device than plain TCP: a serial line, a serial gateway, TLS in front. Nothing here knows a frame; bytes are handed on."""

import asyncio
import contextlib
import os
import pty
import ssl
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Line:
    """A serial line. `ours` is for the adapter, `drops` for the devices.

    Several devices are numbered from 1 and stand behind a hub that hands each request to the device of its first byte: libmodbus as a slave takes
    the request after one that was meant for another unit for that unit's answer, when it does not hear the answer.
    """

    def __init__(self, drops: int) -> None:
        self._masters, slaves = zip(*(pty.openpty() for _ in range(1 + drops)), strict=True)
        self._slaves = slaves
        for end in slaves:
            tty.setraw(end)
        self.ours, *self.drops = (Path(os.ttyname(end)) for end in slaves)
        loop = asyncio.get_running_loop()
        ours, *self._theirs = self._masters
        loop.add_reader(ours, self._send, ours)
        for end in self._theirs:
            loop.add_reader(end, self._answer, end, ours)

    @property
    def theirs(self) -> Path:
        """The end of the only device."""
        (drop,) = self.drops
        return drop

    def _send(self, source: int) -> None:
        data = os.read(source, 4096)
        if len(self._theirs) == 1:
            os.write(self._theirs[0], data)
        elif data[0] <= len(self._theirs):
            os.write(self._theirs[data[0] - 1], data)

    def _answer(self, source: int, ours: int) -> None:
        os.write(ours, os.read(source, 4096))

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for master in self._masters:
            loop.remove_reader(master)
        for end in (*self._masters, *self._slaves):
            os.close(end)


@asynccontextmanager
async def serial_line(drops: int = 1) -> AsyncIterator[Line]:
    """A line with nobody on it yet, and a place for so many devices."""
    line = Line(drops)
    try:
        yield line
    finally:
        line.close()


@asynccontextmanager
async def gateway(line: Path, *, most: int = 100) -> AsyncIterator[int]:
    """A gateway that hands RTU frames between TCP and a line, as they are, and takes so many connections. Yields its port."""
    end = os.open(line, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    writers: list[asyncio.StreamWriter] = []

    def from_line() -> None:
        data = os.read(end, 4096)
        for writer in writers:
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(writers) >= most:
            writer.close()
            return
        writers.append(writer)
        while data := await reader.read(4096):
            os.write(end, data)
        writers.remove(writer)
        writer.close()

    loop.add_reader(end, from_line)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in list(writers):
            writer.close()
        await server.wait_closed()
        loop.remove_reader(end)
        os.close(end)


@asynccontextmanager
async def one_at_a_time(port: int) -> AsyncIterator[tuple[int, list[int]]]:
    """A gateway in front of `port` that takes one connection and hangs up on any other. Yields its port and how many it took and refused."""
    taken = [0, 0]
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken[bool(writers)] += 1
        if writers:
            writer.close()
            return
        writers.append(writer)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, inner_writer))
            group.create_task(copy(inner_reader, writer))
        writers.remove(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], taken
    finally:
        server.close()
        for writer in list(writers):
            writer.close()
        await server.wait_closed()


@asynccontextmanager
async def tls_in_front(port: int, context: ssl.SSLContext, *, piece: int = 4096) -> AsyncIterator[int]:
    """TLS before a device on `port`, as a security gateway ends it; answers leave in pieces of so many bytes, a TLS record each. Yields its port."""
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
        try:
            while data := await reader.read(4096):
                for start in range(0, len(data), size):
                    writer.write(data[start : start + size])
                    await writer.drain()
                    await asyncio.sleep(0)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, inner_writer))
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, inner_writer, 4096))
            group.create_task(copy(inner_reader, writer, piece))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()
