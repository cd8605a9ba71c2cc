"""A server that keeps what is POSTed to it: HTTPS with an authority of its own. It can refuse, redirect, hang and be away."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import trustme
from aiohttp import web


class Notary:
    """`statuses` are used up one by one, then it answers 201."""

    def __init__(self, directory):
        self.authority = trustme.CA()
        self.ca = directory / "notary-ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.bodies = []
        self.headers = []
        self.statuses = []
        self.hangs = False
        self.posts = 0
        self.port = 0
        self._changed = asyncio.Event()
        self._runner = None

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}/anchors/host-1?kept=1"

    async def start(self, names=("127.0.0.1",)):
        """Listen, on the same port as before."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(context)
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self):
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def until(self, holds, within_s=20):
        """Wait until `holds(self)`."""
        async with asyncio.timeout(within_s):
            while not holds(self):
                self._changed.clear()
                await self._changed.wait()

    async def _take(self, request):
        self.posts += 1
        self._changed.set()
        body = await request.read()
        if self.hangs:
            await asyncio.Event().wait()
        status = self.statuses.pop(0) if self.statuses else 201
        if status // 100 == 2:
            self.bodies.append(body)
            self.headers.append((request.method, request.path_qs, {k.lower(): v for k, v in request.headers.items()}))
            self._changed.set()
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})


@asynccontextmanager
async def notary(directory):
    """A notary that listens."""
    made = Notary(directory)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
