"""The journal on a PostgreSQL server, for several processes on one or several machines."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import psycopg

from bridge.clock import Clock
from bridge.journal import leases, pg_leases, pg_opening
from bridge.journal.cases import JournalCases, ReaderCases
from bridge.journal.pg_engine import PgReader, PgWriter
from bridge.journal.pg_server import Server, unreachable
from bridge.journal.pg_wake import PgWake, listen
from bridge.journal.port import Fence
from bridge.journal.sides import ReadSide

_LEASE_S: Final = 30.0


async def open_postgres(
    server: Server, *, clock: Clock, role: str, new_id: Callable[[], str], lease_s: float = _LEASE_S
) -> "PostgresJournal":
    """Open the journal of `server`, made when it is not there. A lease that is not renewed for `lease_s` seconds may be taken over.

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
        lease_ns=int(lease_s * 1_000_000_000),
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
        lease_ns: int,
    ) -> None:
        super().__init__(writer, reader, wake, clock=clock, owner=owner, new_id=new_id, aside=aside)
        self._lease_ns = lease_ns

    async def acquire(self, lease: str) -> Fence:
        """See the port. `LeaseHeld` while another owner's lease has not run out by the database's clock."""
        done = await self._writer.run(lambda tx: pg_leases.acquire(tx, lease, self._owner, self._lease_ns))
        return done.value

    async def renew(self, fences: Sequence[Fence]) -> None:
        """See the port."""
        await self._writer.run(lambda tx: pg_leases.renew(tx, fences, self._lease_ns))

    async def release(self, fences: Sequence[Fence]) -> None:
        """See the port."""
        await self._writer.run(lambda tx: leases.release(tx, fences))
