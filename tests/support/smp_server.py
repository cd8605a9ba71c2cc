"""A small TLS server that misbehaves as it is told, in place of SMP: what a test wants to see on the wire is one function."""

import asyncio
import ssl
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.clock import SystemClock
from bridge.sandbox.pki import Authority

CLOCK = SystemClock.here()
OK = "HTTP/1.1 200 OK"


class Request:
    """One request as it came: the head's first line, its headers with lower-case names, the body's bytes."""

    def __init__(self, line, headers, body):
        self.line, self.headers, self.body = line, headers, body

    @property
    def path(self):
        return self.line.split(" ")[1]


def answer(status="200 OK", body=b"{}", **headers):
    """The bytes of a whole answer; `Retry_After` becomes Retry-After."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Script:
    """What the server does with each request, first to last: bytes to answer, or a coroutine function of (request, writer).

    Paths in `by_path` have answers of their own, which do not use the script up. When the script is over, `rest` answers.
    """

    def __init__(self, *steps, rest=None, by_path=None):
        self.steps, self.rest, self.by_path = list(steps), rest or answer("599 Nothing left"), by_path or {}
        self.requests = []

    def next(self, request):
        self.requests.append(request)
        if request.path in self.by_path:
            return self.by_path[request.path]
        return self.steps.pop(0) if self.steps else self.rest

    def on(self, path):
        return [request for request in self.requests if request.path == path]


class Server:
    """Where it listens, whom to trust for it, and how many connections it has seen."""

    def __init__(self, authority, script):
        self.authority, self.script = authority, script
        self.port = 0
        self.connections = 0

    def url(self, host="localhost"):
        return f"https://{host}:{self.port}"


def server_context(authority, *, hosts=("localhost", "127.0.0.1"), client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = authority.server("smp", hosts)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(pair.certificate + pair.private_key)
        context.load_cert_chain(file.name)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.decode())
    return context


@asynccontextmanager
async def smp_server(*steps, rest=None, by_path=None, authority=None, context=None, **tls):
    """A server with this script; `context=False` speaks no TLS at all."""
    authority = authority or Authority("authority", clock=CLOCK)
    made = Server(authority, Script(*steps, rest=rest, by_path=by_path))
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        made.connections += 1
        try:
            while True:
                request = await _read(reader)
                step = made.script.next(request)
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                else:
                    await step(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    if context is None:
        context = server_context(authority, **tls)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context or None)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(head[0], headers, body)


async def reset(request, writer):
    """Cut the connection without an answer."""
    writer.transport.abort()


async def silence(request, writer):
    """Never answer."""
    await asyncio.Event().wait()


async def endless(request, writer):
    """An answer without an end."""
    writer.write(f"{OK}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while not writer.transport.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)


async def drip(request, writer):
    """One byte of an answer at a time, for ever."""
    writer.write(f"{OK}\r\nContent-Length: 100000\r\n\r\n".encode())
    while not writer.transport.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def gigabyte(request, writer):
    """1 GB, declared and begun."""
    writer.write(f"{OK}\r\nContent-Length: 1000000000\r\n\r\n".encode())
    for _ in range(1000):
        if writer.transport.is_closing():
            return
        writer.write(b" " * 1_000_000)
        await writer.drain()
        await asyncio.sleep(0)


async def half(request, writer):
    """An answer cut in its middle."""
    writer.write(f'{OK}\r\nContent-Length: 100\r\n\r\n{{"transactionId"'.encode())
    await writer.drain()
    writer.transport.abort()
