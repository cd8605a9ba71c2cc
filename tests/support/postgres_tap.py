"""Between a journal and its PostgreSQL server: a UNIX socket of our own that loses the line at a chosen statement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Tap:
    """Passes everything on until a client's message holds `trap`; then that line is lost, before the server hears of it or after it has answered."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.trap = b""
        self.answered = False
        self.sprung = 0

    def set(self, trap: bytes, *, answered: bool) -> None:
        self.trap, self.answered = trap, answered

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(str(self._target))
        mute = asyncio.Event()
        try:
            back = asyncio.ensure_future(self._down(up_reader, writer, mute))
            await self._up(reader, up_writer, mute)
            if mute.is_set():
                await back
            back.cancel()
        finally:
            for end in (writer, up_writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    async def _up(self, reader, up_writer, mute) -> None:
        while data := await reader.read(65536):
            if self.trap and self.trap in data:
                self.trap = b""
                self.sprung += 1
                if self.answered:
                    mute.set()
                    up_writer.write(data)
                return
            up_writer.write(data)

    async def _down(self, up_reader, writer, mute) -> None:
        with suppress(OSError):
            while data := await up_reader.read(65536):
                if mute.is_set():
                    return  # the server did it and said so; nobody hears
                writer.write(data)


@asynccontextmanager
async def tapped(directory: Path, target: Path) -> AsyncIterator[Tap]:
    """A tap whose socket stands in `directory`, where libpq looks for it."""
    tap = Tap(target)
    server = await asyncio.start_unix_server(tap.serve, str(directory / ".s.PGSQL.5432"))
    try:
        yield tap
    finally:
        server.close()
