"""The admin listener: metrics, health and latency. Loopback unless the configuration says otherwise."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from bridge.metrics import Metrics

STALE_S = 60.0
LARGE_BYTES: Final = 128 * 1024  # of metrics: what is written in some milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What health is made of. `ready` is False until listeners and journal are up; `links` names each link and the age (s) of its last good reading, None before the first; `clock` is what disciplines this machine's clock."""

    ready: bool
    links: Mapping[str, float | None]
    reasons: tuple[str, ...] = ()
    clock: Mapping[str, object] = field(default_factory=dict)


class AdminListener:
    """`/metrics`, `/health/live`, `/health/ready`, `/api/v1/latency`."""

    def __init__(
        self,
        metrics: Metrics,
        health: Callable[[], Health],
        gauges: Callable[[], Awaitable[None]],
        latency: Callable[[], Awaitable[Mapping[str, object]]],
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._gauges = gauges
        self._latency = latency
        self._scrape = asyncio.Lock()
        self._size = 0

    def application(self) -> web.Application:
        """The routes, ready to be served."""
        app = web.Application()
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/health/live", self._serve_live)
        app.router.add_get("/health/ready", self._serve_ready)
        app.router.add_get("/api/v1/latency", self._serve_latency)
        return app

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        async with self._scrape:  # the gauges are those of one scrape
            await self._gauges()
            # Those of a thousand sites take a second, in which records have to go on.
            large = self._size > LARGE_BYTES
            body = await asyncio.to_thread(self._metrics.render) if large else self._metrics.render()
            self._size = len(body)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _serve_latency(self, _: web.Request) -> web.Response:
        """The latency book (docs/latency.md)."""
        return web.json_response(await self._latency())

    async def _serve_live(self, _: web.Request) -> web.Response:
        """The event loop answers; that is all that `live` says."""
        return web.json_response({"live": True})

    async def _serve_ready(self, _: web.Request) -> web.Response:
        """Ready to take records and returns. A lost link does not make the host unready: it recovers alone and is shown by its age."""
        health = self._health()
        body = {
            "ready": health.ready,
            "reasons": list(health.reasons),
            "last_good_reading_age_s": dict(health.links),
            "clock": dict(health.clock),
        }
        return web.json_response(body, status=200 if health.ready else 503)
