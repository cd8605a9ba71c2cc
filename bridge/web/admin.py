"""The admin listener: metrics, health, latency, the operators' API and pages. Loopback unless the configuration says otherwise; nothing without a token unless it says so."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from bridge.clock import Clock
from bridge.journal.keys import KeyRecord
from bridge.journal.port import Journal
from bridge.keys import KeySigner
from bridge.metrics import Metrics
from bridge.web.api import Api
from bridge.web.connections import EmsLink, SmpLink, theirs
from bridge.web.guard import PERSON, Guard, Route
from bridge.web.operators import Operators
from bridge.web.pages import Pages
from bridge.web.public import Bounds, PublicListener
from bridge.web.roles import Person, Role, Territory
from bridge.web.tokens import Believer

STALE_S = 60.0
# Few people and a Prometheus, perhaps behind one proxy; it may ask once a minute over a connection that it keeps.
BOUNDS: Final = Bounds(per_source=64, in_all=128, idle_s=90.0)
LARGE_BYTES: Final = 128 * 1024  # of metrics: what is written in some milliseconds
SAMPLE_BYTES: Final = 64  # of a sample's line, at least

_OPERATE: Final = frozenset({Role.OPERATOR})
_APPROVE: Final = frozenset({Role.APPROVER})
_TAKE_BACK: Final = frozenset({Role.APPROVER, Role.OPERATOR, Role.CUSTODIAN})
_KEYS: Final = frozenset({Role.CUSTODIAN})
_TOKENS: Final = frozenset({Role.AUDITOR, Role.CUSTODIAN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What health is made of. `ready` is False until listeners and journal are up; `links` names each link and the age (s) of its last good reading, None before the first; `clock` is what disciplines this machine's clock."""

    ready: bool
    links: Mapping[str, float | None]
    reasons: tuple[str, ...] = ()
    clock: Mapping[str, object] = field(default_factory=dict)
    ems: Sequence[EmsLink] = ()
    smp: Sequence[SmpLink] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use the listener: tokens of the key `signer` that `journal` knows, and with `without_token` anybody on this machine for reading. `secure`: it speaks TLS. `usable`: see `Operators`."""

    signer: KeySigner | None
    journal: Journal
    territory: Territory
    clock: Clock
    without_token: bool = False
    secure: bool = False
    usable: Callable[[KeyRecord], None] = lambda _: None


class AdminListener:
    """Its routes, each with the roles that may take it."""

    def __init__(
        self,
        metrics: Metrics,
        health: Callable[[], Health],
        gauges: Callable[[], Awaitable[None]],
        latency: Callable[[], Awaitable[Mapping[str, Any]]],
        access: Access,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._gauges = gauges
        self._latency = latency
        self._territory = access.territory
        self._scrape = asyncio.Lock()
        self._size = 0
        believer = Believer.of(access.signer, access.journal, access.clock)
        self._guard = Guard(believer, metrics, without_token=access.without_token, secure=access.secure)
        self._operators = Operators(access.journal, access.territory, access.clock, access.usable)
        self._pages = Pages(self._operators, self._guard, believer, access.clock, self._connections)

    def application(self) -> web.Application:
        """The routes, ready to be served."""
        return self._guard.serve(self.routes())

    def door(self, context: ssl.SSLContext | None, bounds: Bounds = BOUNDS) -> PublicListener:
        """What listens for them: who has no token may not hold more open than `bounds` say."""
        return PublicListener(
            self.application(),
            bounds=bounds,
            context=context,
            refused=self._guard.count,
            malformed=self._guard.malformed,
        )

    def routes(self) -> list[Route]:
        """Every route and who may take it: without `roles`, all of them may."""
        api, pages = Api(self._operators), self._pages
        return [
            Route(method="GET", path="/metrics", handler=self._serve_metrics),
            Route(method="GET", path="/health/live", handler=self._serve_live),
            Route(method="GET", path="/health/ready", handler=self._serve_ready),
            Route(method="GET", path="/api/v1/latency", handler=self._serve_latency),
            Route(method="GET", path="/api/v1/connections", handler=self._serve_connections),
            Route(method="GET", path="/api/v1/whoami", handler=api.whoami),
            Route(method="GET", path="/api/v1/submissions", handler=api.submissions),
            Route(method="GET", path="/api/v1/submissions/{id}", handler=api.submission),
            Route(method="POST", path="/api/v1/submissions/{id}/resend", handler=api.resend, roles=_OPERATE),
            Route(method="POST", path="/api/v1/submissions/{id}/confirm", handler=api.confirm, roles=_OPERATE),
            Route(method="POST", path="/api/v1/submissions/{id}/cancel", handler=api.cancel, roles=_OPERATE),
            Route(method="POST", path="/api/v1/submissions/{id}/retry", handler=api.retry, roles=_OPERATE),
            Route(method="GET", path="/api/v1/alarms", handler=api.alarms),
            Route(method="POST", path="/api/v1/alarms/{id}/ack", handler=api.acknowledge, roles=_OPERATE),
            Route(method="GET", path="/api/v1/holds", handler=api.holds),
            Route(method="POST", path="/api/v1/holds", handler=api.hold, roles=_OPERATE),
            Route(method="POST", path="/api/v1/holds/release", handler=api.release, roles=_OPERATE),
            Route(method="GET", path="/api/v1/approvals", handler=api.approvals),
            Route(method="POST", path="/api/v1/approvals/{id}/approve", handler=api.approve, roles=_APPROVE),
            Route(method="POST", path="/api/v1/approvals/{id}/refuse", handler=api.refuse, roles=_TAKE_BACK),
            Route(method="GET", path="/api/v1/participants/{id}/keys", handler=api.keys),
            Route(method="POST", path="/api/v1/participants/{id}/keys/rotate", handler=api.rotate_keys, roles=_KEYS),
            Route(method="POST", path="/api/v1/participants/{id}/keys/revoke", handler=api.revoke_key, roles=_KEYS),
            Route(
                method="POST",
                path="/api/v1/participants/{id}/profile/accept",
                handler=api.accept_profile,
                roles=_OPERATE,
            ),
            Route(method="GET", path="/api/v1/tokens", handler=api.tokens, roles=_TOKENS),
            Route(method="GET", path="/", handler=pages.home),
            Route(method="GET", path="/connections", handler=pages.connections),
            Route(method="GET", path="/submissions", handler=pages.submissions),
            Route(method="GET", path="/submissions/{id}", handler=pages.submission),
            Route(method="POST", path="/submissions/{id}/{action}", handler=pages.wish, roles=_OPERATE),
            Route(method="POST", path="/alarms/{id}/ack", handler=pages.acknowledge, roles=_OPERATE),
            Route(method="POST", path="/approvals/{id}/approve", handler=pages.approve, roles=_APPROVE),
            Route(method="POST", path="/approvals/{id}/refuse", handler=pages.refuse, roles=_TAKE_BACK),
            Route(method="GET", path="/sign-in", handler=pages.sign_in, open=True),
            Route(method="POST", path="/sign-in", handler=pages.signed_in, open=True),
            Route(method="POST", path="/sign-out", handler=pages.sign_out, open=True),
        ]

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        person = request[PERSON]
        keep = None if person.participants is None else _Theirs(self._territory, person)
        async with self._scrape:  # the gauges are those of one scrape
            await self._gauges()
            # Those of a thousand sites take a second, in which records have to go on.
            large = self._size > LARGE_BYTES
            body = await asyncio.to_thread(self._metrics.render, keep) if large else self._metrics.render(keep)
            # To leave out what is another's takes as long, though little is left.
            self._size = len(body) if keep is None else keep.looked_at * SAMPLE_BYTES
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _serve_latency(self, request: web.Request) -> web.Response:
        """The latency book (docs/latency.md), as far as it is about what is theirs."""
        person, territory = request[PERSON], self._territory
        told = dict(await self._latency())
        if person.participants is not None:
            for part in ("flows", "exceeded"):
                told[part] = [
                    row for row in told[part] if person.sees(territory.flows.get((row["site"], row["flow"]), ""))
                ]
            told["intervals"] = [
                row for row in told["intervals"] if territory.shows_link(person, row["site"], row["adapter"])
            ]
        return web.json_response(told)

    def _connections(self, person: Person) -> tuple[Sequence[EmsLink], Sequence[SmpLink]]:
        health = self._health()
        return theirs(self._territory, person, health.ems, health.smp)

    async def _serve_connections(self, request: web.Request) -> web.Response:
        """Whether each EMS and each SMP is reached, since when, and what went wrong last."""
        ems, smp = self._connections(request[PERSON])
        return web.json_response({"ems": [link.told() for link in ems], "smp": [link.told() for link in smp]})

    async def _serve_live(self, _: web.Request) -> web.Response:
        """The event loop answers; that is all that `live` says."""
        return web.json_response({"live": True})

    async def _serve_ready(self, request: web.Request) -> web.Response:
        """Ready to take records and returns. A lost link does not make the host unready: it recovers alone and is shown by its age."""
        person, health = request[PERSON], self._health()
        links = {
            name: age for name, age in health.links.items() if self._territory.shows_link(person, *name.split("/", 1))
        }
        body = {
            "ready": health.ready,
            "reasons": list(health.reasons),
            "last_good_reading_age_s": links,
            "clock": dict(health.clock),
        }
        return web.json_response(body, status=200 if health.ready else 503)


class _Theirs:
    """Whether a sample is somebody's business, and how many were looked at."""

    def __init__(self, territory: Territory, person: Person) -> None:
        self._territory = territory
        self._person = person
        self.looked_at = 0

    def __call__(self, name: str, labels: Mapping[str, str]) -> bool:
        self.looked_at += 1
        return self._territory.shows_metric(self._person, name, labels)
