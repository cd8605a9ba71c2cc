"""A collector of traces: OTLP over HTTP on loopback, decoded by OpenTelemetry's own protobuf; it can refuse, hang and be crowded."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PATH = "/v1/traces"


@dataclass
class Collector:
    """What it holds, and how it answers: `statuses` are used up one by one, then it answers 200."""

    url: str = ""
    spans: list = field(default_factory=list)
    resources: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    bodies: list = field(default_factory=list)
    statuses: list = field(default_factory=list)
    answer_headers: dict = field(default_factory=dict)
    rejects: int = 0
    hangs: bool = False
    posts: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request):
        self.posts += 1
        self.changed.set()
        body = await request.read()
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.hangs:
            await asyncio.Event().wait()
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), headers=self.answer_headers, text="secret of a peer")
        for entry in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes(entry.resource))
            self.spans += [span for scope in entry.scope_spans for span in scope.spans]
        self.changed.set()
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejects
        return web.Response(body=answer.SerializeToString(), content_type="application/x-protobuf")

    async def until(self, holds, within_s=20):
        """Wait until `holds(self)`."""
        try:
            async with asyncio.timeout(within_s):
                while not holds(self):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"the collector holds {Counter(span.name for span in self.spans)}") from None

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def traces(self):
        """The spans by their traces, each in the order of time."""
        found = {}
        for span in sorted(self.spans, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano)):
            found.setdefault(span.trace_id, []).append(span)
        return found


def attributes(thing):
    """The attributes of a span or resource as a dictionary."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in thing.attributes}


@asynccontextmanager
async def collector():
    """A running collector on a free port."""
    held = Collector()
    app = web.Application()
    app.router.add_post(PATH, held.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    held.url = f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
    try:
        yield held
    finally:
        await runner.cleanup()
