"""The journal that the configuration names: a file, or a PostgreSQL database. What belongs to PostgreSQL is imported only where it is used."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge.clock import Clock
from bridge.config.host import JournalOptions, PostgresOptions
from bridge.errors import ConfigError, JournalUnusable, Problem
from bridge.journal.keeper import KeptJournal
from bridge.journal.port import JournalReader
from bridge.journal.sqlite import open_journal, open_reader
from bridge.journal.wiping import BESIDE_BYTES, wipe

if TYPE_CHECKING:
    from bridge.journal.pg_server import Server

_LONGER_S: Final = 5.0


async def open_configured_journal(
    options: JournalOptions,
    *,
    clock: Clock,
    role: str,
    new_id: Callable[[], str],
    checkpoint: bool = True,
    stand_by: bool = False,
) -> KeptJournal:
    """Open the journal, made when it is not there. `checkpoint` is for the one process with the market role (files only).

    With `stand_by`, leases in a database are awaited until those of a process that died have run out; in a file they are free at once.

    Raises `JournalUnusable` when it cannot be used as it is.
    """
    if options.postgres is None:
        max_bytes = options.max_size or 0
        path = journal_file(options)
        return await open_journal(
            path, clock=clock, role=role, new_id=new_id, checkpoint=checkpoint, max_bytes=max_bytes
        )
    server = _server(options.postgres)
    from bridge.journal.postgres import LEASE_S, open_postgres  # noqa: PLC0415 - an extra

    stand_by_s = LEASE_S + _LONGER_S if stand_by else 0.0
    return await open_postgres(server, clock=clock, role=role, new_id=new_id, stand_by_s=stand_by_s)


async def open_configured_reader(options: JournalOptions) -> JournalReader:
    """Open the journal for reading only, beside a running service or without one. Raises `JournalUnusable` when there is none, or none that can be read."""
    if options.postgres is None:
        return await open_reader(journal_file(options))
    server = _server(options.postgres)
    from bridge.journal import postgres  # noqa: PLC0415 - an extra

    return await postgres.open_reader(server)


def wipe_configured(options: JournalOptions, *, alone: bool) -> bool:
    """Take away what deleted rows left in the journal's file or tables; `alone` when no service works on it.

    False when it was not done: a large file is not wiped beside a service, which would wait. Raises `NotPossible`, `JournalFull` and `JournalUnusable`.
    """
    if options.postgres is None:
        path = journal_file(options)
        if not alone and path.stat().st_size > BESIDE_BYTES:
            return False
        wipe(path)
        return True
    server = _server(options.postgres)
    from bridge.journal import pg_wiping  # noqa: PLC0415 - an extra

    pg_wiping.wipe(server, alone=alone)
    return alone


async def journal_exists(options: JournalOptions) -> bool:
    """Whether there is a journal already. Raises `JournalUnusable` when the database cannot be asked."""
    if options.postgres is None:
        return await asyncio.to_thread(journal_file(options).exists)
    server = _server(options.postgres)
    from bridge.journal import pg_opening  # noqa: PLC0415 - an extra

    return await asyncio.to_thread(pg_opening.exists, server)


def no_journal(options: JournalOptions) -> JournalUnusable:
    """That there is none yet."""
    return JournalUnusable(
        f"there is no journal at {journal_place(options)}", hint="the service makes it when it first runs"
    )


def journal_place(options: JournalOptions) -> str:
    """Where the journal is, for people."""
    found = options.postgres
    return str(options.path) if found is None else f"database {found.database} at {found.host}:{found.port}"


def journal_file(options: JournalOptions) -> Path:
    """The journal's file. Raises `ConfigError` where the journal is a database."""
    if options.path is None:
        text = f"this is for a journal in a file; the configured one is {journal_place(options)}"
        raise ConfigError(
            [Problem(text=text)], hint="a database is backed up and restored with its own means: pg_dump, pg_basebackup"
        )
    return options.path


def _server(options: PostgresOptions) -> "Server":
    if find_spec("psycopg") is None:
        hint = "pip install 'smp-bridge[postgres]', or from the source: pip install '.[postgres]'"
        raise JournalUnusable("a journal in PostgreSQL needs the package psycopg, which is not installed", hint=hint)
    from bridge.journal.pg_server import Server  # noqa: PLC0415 - an extra

    return Server(
        host=options.host,
        port=options.port,
        database=options.database,
        user=options.user,
        password=options.password,
        tls=options.tls,
        ca=options.ca,
        certificate=options.client_certificate,
        private_key=options.client_key,
    )
