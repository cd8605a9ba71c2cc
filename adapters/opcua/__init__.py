"""OPC UA: records are folders of variables, requests are variables, outcomes are written into variables."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Final

from adapters.opcua.check import check, check_word
from adapters.opcua.config import (
    OnChange,
    OnRequest,
    OpcUaOptions,
    OpcUaOutcome,
    OpcUaRecords,
    OpcUaWord,
    certificates,
    kinds,
)
from adapters.opcua.entry import options_of
from bridge.api import Adapter, Clock, Credentials, Probe, Search, Seen, Session, SessionContext, Trigger

__all__ = ["ADAPTER"]


@asynccontextmanager
async def _open(context: SessionContext) -> AsyncIterator[Session]:
    """The library is loaded when it is first used, in a thread: it takes half a second, in which the records of other sites go on."""
    session = await asyncio.to_thread(import_module, "adapters.opcua.session")
    async with session.open_session(context) as opened:
        yield opened


@asynccontextmanager
async def _probe(context: SessionContext) -> AsyncIterator[Probe]:
    """See `bridge.api.Adapter`."""
    probe = await asyncio.to_thread(import_module, "adapters.opcua.probe")
    async with probe.open_probe(context) as opened:
        yield opened


async def _handshake(context: SessionContext) -> str:
    """See `bridge.api.Adapter`."""
    servers = await asyncio.to_thread(import_module, "adapters.opcua.servers")
    return str(await servers.shake_hands(context.options, context.clock))


class _Browser:
    """See `bridge.api.Browser`; the library is loaded when it is first used."""

    schemes: Final[Sequence[str]] = ("opc.tcp",)

    def options(self, url: str, credentials: Credentials) -> Mapping[str, Any]:
        """See `bridge.api.Browser`."""
        return options_of(url, credentials)

    async def browse(self, options: Any, search: Search, clock: Clock) -> Seen:
        """See `bridge.api.Browser`."""
        browse = await asyncio.to_thread(import_module, "adapters.opcua.browse")
        seen: Seen = await browse.browse(options, search, clock)
        return seen


ADAPTER: Final = Adapter(
    protocol="opcua",
    summary="OPC UA client: subscriptions for requests and changes, guarded reads, write-back",
    options=OpcUaOptions,
    records=OpcUaRecords,
    submit={Trigger.REQUEST: OnRequest, Trigger.CHANGE: OnChange},
    outcome=OpcUaOutcome,
    check=check,
    open=_open,
    word=OpcUaWord,
    check_word=check_word,
    certificates=certificates,
    handshake=_handshake,
    probe=_probe,
    browser=_Browser(),
    kinds=kinds,
)
