"""The journal on a PostgreSQL server, for several processes on one or several machines."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import psycopg

from bridge.clock import Clock
from bridge.journal import pg_leases, pg_opening
from bridge.journal.cases import JournalCases, ReaderCases
from bridge.journal.pg_engine import PgReader, PgWriter
from bridge.journal.pg_leases import RELEASED
from bridge.journal.pg_server import Server, unreachable
from bridge.journal.pg_wake import PgWake, listen
from bridge.journal.port import Fence
from bridge.journal.sides import ReadSide

LEASE_S: Final = 30.0
_RENEW_SHARE: Final = 3  # while it waits for a lease, a process renews those it has three times within their length
_MARGIN_S: Final = 0.02

_log = logging.getLogger(__name__)


async def open_postgres(
    server: Server,
    *,
    clock: Clock,
    role: str,
    new_id: Callable[[], str],
    lease_s: float = LEASE_S,
    stand_by_s: float = 0.0,
) -> "PostgresJournal":
    """Open the journal of `server`, made when it is not there. A lease that is not renewed for `lease_s` seconds may be taken over.

    `acquire` waits up to `stand_by_s` seconds for a lease that another owner has; longer than `lease_s`, and a process that died is succeeded.

    Raises `JournalUnusable` when the server cannot be reached, does not keep what it acknowledges, or holds another program's tables or a journal of
    a newer major version.
    """
    name = f"{role}-{new_id()}"
    db = await asyncio.to_thread(pg_opening.open_writer, server, f"{role} write")
    opened = [db]
    try:
        opened.append(await asyncio.to_thread(server.connect, f"{role} read"))
        opened.append(await asyncio.to_thread(listen, server))
    except psycopg.Error as error:
        for one in opened:
            one.close()
        raise unreachable(server, error) from error
    wake = PgWake(partial(listen, server), opened[2])
    writer = PgWriter(server, f"journal-{role}", db, clock=clock, writer=name, wake=wake)
    reader = PgReader(server, f"journal-{role}-read", opened[1])
    owner = f"{name}, process {os.getpid()} on {socket.gethostname()}"
    return PostgresJournal(
        writer,
        reader,
        wake,
        clock=clock,
        owner=owner,
        new_id=new_id,
        aside=lambda: PgReader(server, f"journal-{role}-aside", None),
        lease_s=lease_s,
        stand_by_s=stand_by_s,
    )


async def open_reader(server: Server) -> "PostgresReader":
    """Open the journal of `server` for reading only, beside a running service or without one.

    Raises `JournalUnusable` when there is none, or when it is foreign or of a newer major version.
    """
    db = await asyncio.to_thread(pg_opening.open_existing, server, "look")
    return PostgresReader(PgReader(server, "journal-read", db))


class PostgresReader(ReaderCases):
    """`bridge.journal.port.JournalReader` on PostgreSQL; open it with `open_reader`."""


class PostgresJournal(JournalCases):
    """`bridge.journal.port.Journal` on PostgreSQL; open it with `open_postgres`."""

    def __init__(
        self,
        writer: PgWriter,
        reader: PgReader,
        wake: PgWake,
        *,
        clock: Clock,
        owner: str,
        new_id: Callable[[], str],
        aside: Callable[[], ReadSide],
        lease_s: float,
        stand_by_s: float,
    ) -> None:
        super().__init__(writer, reader, wake, clock=clock, owner=owner, new_id=new_id, aside=aside)
        self._lease_s = lease_s
        self._lease_ns = int(lease_s * 1_000_000_000)
        self._stand_by_s = stand_by_s
        self._held: dict[str, Fence] = {}

    async def acquire(self, lease: str) -> Fence:
        """See the port. `LeaseHeld` while another owner's lease has not run out by the database's clock, and standing by did not help."""
        loop, released = asyncio.get_running_loop(), self.woken(RELEASED)
        until = loop.time() + self._stand_by_s
        waited = False
        while True:
            released.clear()
            got = (await self._writer.run(lambda tx: pg_leases.acquire(tx, lease, self._owner, self._lease_ns))).value
            if isinstance(got, Fence):
                self._held[lease] = got
                return got
            left_s = until - loop.time()
            if left_s <= 0:
                raise got.error
            if not waited:
                waited = True
                _log.warning(
                    "standing_by", extra={"lease": lease, "owner": got.owner, "free_in_s": round(got.left_s, 1)}
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, got.left_s + _MARGIN_S, self._lease_s / _RENEW_SHARE)):
                    await released.wait()
            await self.renew(list(self._held.values()))

    async def renew(self, fences: Sequence[Fence]) -> None:
        """See the port."""
        await self._writer.run(lambda tx: pg_leases.renew(tx, fences, self._lease_ns))

    async def release(self, fences: Sequence[Fence]) -> None:
        """See the port."""
        await self._writer.run(lambda tx: pg_leases.release(tx, fences))
        for fence in fences:
            self._held.pop(fence.lease, None)
