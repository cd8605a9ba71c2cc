"""Other ways to a Modbus device than plain TCP: a serial line, a serial gateway, TLS in front. Nothing here knows a frame; bytes are handed on."""

import asyncio
import os
import pty
import ssl
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Line:
    """A serial line: two pseudo-terminals whose ends are joined. `ours` is for the adapter, `theirs` for the device."""

    def __init__(self) -> None:
        self._masters, slaves = zip(*(pty.openpty() for _ in range(2)), strict=True)
        self._slaves = slaves
        for end in slaves:
            tty.setraw(end)
        self.ours, self.theirs = (Path(os.ttyname(end)) for end in slaves)
        loop = asyncio.get_running_loop()
        first, second = self._masters
        loop.add_reader(first, self._copy, first, second)
        loop.add_reader(second, self._copy, second, first)

    def _copy(self, source: int, target: int) -> None:
        os.write(target, os.read(source, 4096))

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for master in self._masters:
            loop.remove_reader(master)
        for end in (*self._masters, *self._slaves):
            os.close(end)


@asynccontextmanager
async def serial_line() -> AsyncIterator[Line]:
    """A line with nobody on it yet."""
    line = Line()
    try:
        yield line
    finally:
        line.close()


@asynccontextmanager
async def gateway(line: Path) -> AsyncIterator[int]:
    """A gateway that hands RTU frames between TCP and a line, as they are. Yields its port."""
    end = os.open(line, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    writers: list[asyncio.StreamWriter] = []

    def from_line() -> None:
        data = os.read(end, 4096)
        for writer in writers:
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
