"""A broker of MQTT 5 that is played: it answers what a client sends as it is told to, and notes it."""

import asyncio
from contextlib import asynccontextmanager, suppress

from mosquitto import HOST

CONNECT, PUBLISH, SUBSCRIBE = 1, 3, 8


@asynccontextmanager
async def serving(handler, **options):
    """A server with this handler; yields its port."""
    server = await asyncio.start_server(handler, HOST, 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


class PlayedBroker:
    """`greeting` are the properties of its CONNACK. Each message is acknowledged `after_s`; `under_way` holds how many were not, as each came."""

    def __init__(self, greeting=b"", after_s=0.0):
        self.greeting, self.after_s = greeting, after_s
        self.under_way = []
        self._open = set()

    async def serve(self, reader, writer):
        """One connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self._answer(*await _packet(reader), writer)
        writer.close()

    def _answer(self, kind, body, writer):
        if kind == CONNECT:
            writer.write(bytes([0x20, 3 + len(self.greeting), 0, 0, len(self.greeting)]) + self.greeting)
        elif kind == SUBSCRIBE:
            writer.write(b"\x90\x05" + body[:2] + b"\x00\x01\x01")
        elif kind == PUBLISH:
            at = 2 + int.from_bytes(body[:2], "big")
            mid = body[at : at + 2]
            self._open.add(mid)
            self.under_way.append(len(self._open))
            asyncio.get_running_loop().call_later(self.after_s, self._acknowledge, mid, writer)

    def _acknowledge(self, mid, writer):
        self._open.discard(mid)
        writer.write(b"\x40\x02" + mid)


async def _packet(reader):
    """The kind of the next packet, and all that follows its length."""
    (head,) = await reader.readexactly(1)
    size, shift, more = 0, 0, True
    while more:
        (byte,) = await reader.readexactly(1)
        size, shift, more = size | (byte & 0x7F) << shift, shift + 7, byte >= 0x80
    return head >> 4, await reader.readexactly(size)
