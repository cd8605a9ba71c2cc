"""Sessions of the OPC UA adapter on a peer, and what they return."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from opcua_peer import Peer

from adapters.opcua import ADAPTER
from bridge.api import Address, OutcomeField, Reading, Record, Session, SessionContext

WITHIN_S = 20.0
PLACE = "BESS001"


@asynccontextmanager
async def opened_with(context: SessionContext) -> AsyncIterator[Session]:
    """A session of this context, bounded in time."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        yield session


@asynccontextmanager
async def opened(peer: Peer, **changes: object) -> AsyncIterator[Session]:
    """A session on Ipswich's own file; `changes` are options of the adapter."""
    async with opened_with(peer.context(**changes)) as session:
        yield session


async def next_record(session: Session) -> Record:
    """The one record that comes next."""
    async with asyncio.timeout(WITHIN_S):
        (arrival, *rest) = await session.receive()
    assert not rest
    (record,) = arrival.records
    return record


async def reading(session: Session, name: str | OutcomeField, place: str = PLACE) -> Reading:
    """What one address of the flow `batteries` holds."""
    (found,) = await session.read([Address("batteries", place, name)])
    return found


def told(entries: Sequence[logging.LogRecord], message: str) -> list[logging.LogRecord]:
    """The log's entries of this name."""
    return [entry for entry in entries if entry.message == message]
