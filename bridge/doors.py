"""Opens the listeners of one process: returns for SMP, admin for operators and for Prometheus."""

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

from bridge.config import AdminListener as AdminOptions
from bridge.config import ReturnsListener as ReturnsOptions
from bridge.errors import ConfigError, Problem
from bridge.journal.keys import KeyRecord
from bridge.journal.port import Journal
from bridge.keyring import open_signer
from bridge.listening import both, is_loopback, renew_certificate, server_context
from bridge.market.endpoint import ReturnsEndpoint
from bridge.material import host_signer
from bridge.shared import Shared
from bridge.web.admin import Access, AdminListener, Health
from bridge.web.public import Bounds, PublicListener
from bridge.web.roles import Territory

log = logging.getLogger(__name__)


class Door(NamedTuple):
    """An open listener: its port, and what reads its certificate and key anew (raises `BridgeError`)."""

    port: int
    reload: Callable[[], None]


async def listen_to_smp(
    shared: Shared,
    endpoint: ReturnsEndpoint,
    options: ReturnsOptions,
    stack: AsyncExitStack,
    passed: socket.socket | None,
) -> Door:
    """The returns listener, on a socket that was passed or on the configured address."""
    context = server_context(options.certificate, options.private_key, options.client_ca)
    listener = PublicListener(
        endpoint.application(),
        bounds=Bounds(per_source=options.connections_per_source, in_all=options.connections),
        context=context,
        refused=shared.market_report.refused,
        malformed=endpoint.malformed,
        allowed=options.allow,
    )
    port = await listener.start(stack, options.host, options.port, passed)
    log.info("listening", extra={"listener": "returns", "address": options.host, "port": port})
    return Door(port, lambda: renew_certificate(context, options.certificate, options.private_key, options.client_ca))


async def listen_to_operators(
    shared: Shared,
    options: AdminOptions,
    journal: Journal,
    stack: AsyncExitStack,
    passed: socket.socket | None,
    *,
    health: Callable[[], Health],
    gauges: Callable[[], Awaitable[None]],
    reload: Callable[[], None],
) -> Door:
    """The admin listener; its `reload` does what is handed in as well. Raises `ConfigError` for a passed socket that needs TLS and has none."""
    context = None
    if options.certificate is not None and options.private_key is not None:
        context = server_context(options.certificate, options.private_key, None)
        reload = both(reload, context, options.certificate, options.private_key)
    without_token = options.without_token == "reading"  # noqa: S105 - a word of the configuration
    if passed is not None and not is_loopback(passed) and (without_token or context is None):
        text = "the socket that was passed for the admin listener is not of a loopback address: give it `certificate` and `private_key`, and no `without_token`"
        raise ConfigError([Problem(text=text, path="listeners.admin")])

    def usable(record: KeyRecord) -> None:
        """Raises `ConfigError` when this key of ours cannot be read."""
        open_signer(shared.config.participants[record.participant], record)

    access = Access(
        signer=host_signer(shared.config),
        journal=journal,
        territory=Territory.of(shared.config),
        clock=shared.clock,
        without_token=without_token,
        secure=context is not None,
        usable=usable,
    )
    admin = AdminListener(shared.metrics, health, gauges, shared.measured.told, access)
    port = await admin.door(context).start(stack, options.host, options.port, passed)
    log.info("listening", extra={"listener": "admin", "address": options.host, "port": port})
    return Door(port, reload)
