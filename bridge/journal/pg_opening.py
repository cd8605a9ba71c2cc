"""Opening a PostgreSQL journal: refused when it is foreign, newer or not safe; made and migrated otherwise, never reset."""

from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from bridge.errors import JournalUnusable
from bridge.journal.opening import MAJOR
from bridge.journal.pg_server import Connection, Server, translated, unreachable

_SCHEMA: Final = Path(__file__).parent / "schema" / "postgres"
_LEAST_VERSION: Final = 150_000
_WEAK: Final = frozenset({"off", "local", "remote_write"})  # for synchronous_commit


def open_writer(server: Server, name: str) -> Connection:
    """A session that writes, to a journal that exists and has this version's schema."""
    try:
        db = server.connect(name)
    except psycopg.Error as error:
        raise unreachable(server, error) from error
    try:
        _check_server(server, db)
        _migrate(server, db)
        prepare(db)
    except psycopg.Error as error:
        db.close()
        raise translated(error) from error
    except BaseException:
        db.close()
        raise
    return db


def open_existing(server: Server, name: str) -> Connection:
    """A session that reads, to a journal that this version can read; raises `JournalUnusable` otherwise."""
    db, found = _look(server, name)
    if found is None:
        db.close()
        raise JournalUnusable(f"there is no journal in {server}", hint="the service makes it when it first runs")
    try:
        _check_major(server, found[0])
    except JournalUnusable:
        db.close()
        raise
    return db


def exists(server: Server) -> bool:
    """Whether there is a journal. Raises `JournalUnusable` when nobody can say, or another program's tables are there."""
    db, found = _look(server, "look")
    db.close()
    return found is not None


def _look(server: Server, name: str) -> tuple[Connection, tuple[int, int] | None]:
    try:
        db = server.connect(name)
    except psycopg.Error as error:
        raise unreachable(server, error) from error
    try:
        return db, _version(server, db)
    except psycopg.Error as error:
        db.close()
        raise translated(error) from error
    except BaseException:
        db.close()
        raise


def prepare(db: Connection) -> None:
    """Make each commit of this session durable before it is answered, whatever the role or the database was set to."""
    if _setting(db, "synchronous_commit") in _WEAK:
        db.execute("SET synchronous_commit TO on")


def _check_server(server: Server, db: Connection) -> None:
    if db.info.server_version < _LEAST_VERSION:
        raise JournalUnusable(
            f"{server} is PostgreSQL {db.info.server_version // 10_000}", hint="15 or newer is needed"
        )
    if _setting(db, "server_encoding") != "UTF8":
        raise JournalUnusable(f"{server} is not in UTF-8", hint="make it with ENCODING 'UTF8'")
    if _setting(db, "fsync") != "on":
        hint = "turn `fsync` on, else a power cut loses what was acknowledged"
        raise JournalUnusable(f"{server} does not write through to its disk", hint=hint)


def _migrate(server: Server, db: Connection) -> None:
    """One process at a time, each step whole or not at all."""
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (server.key,))
        found = _version(server, db)
        if found is None:
            if not db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (server.schema,)).fetchall():
                db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(server.schema)))
            db.execute("CREATE TABLE version (major BIGINT NOT NULL, minor BIGINT NOT NULL)")
            db.execute("INSERT INTO version (major, minor) VALUES (%s, 0)", (MAJOR,))
            found = (MAJOR, 0)
        _check_major(server, found[0])
        for file in sorted(_SCHEMA.glob("[0-9]*.sql")):
            if int(file.stem) > found[1]:
                db.execute(file.read_bytes())
                db.execute("UPDATE version SET minor = %s", (int(file.stem),))


def _version(server: Server, db: Connection) -> tuple[int, int] | None:
    """The version of the schema, None when there is no journal yet; raises `JournalUnusable` when the place is another program's."""
    tables = {row[0] for row in db.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (server.schema,))}
    if not tables:
        return None
    if "version" not in tables or "leases" not in tables:
        text = f"the schema {server.schema} of {server} is not a journal of smp-bridge"
        raise JournalUnusable(text, hint="name another database")
    row = db.execute("SELECT major, minor FROM version").fetchone()
    if row is None:
        hint = "restore it from a backup; it is never repaired or reset by itself"
        raise JournalUnusable(f"the journal in {server} says no version", hint=hint)
    return row[0], row[1]


def _check_major(server: Server, major: int) -> None:
    if major > MAJOR:
        text = f"the journal in {server} was written by major version {major}, this is {MAJOR}"
        raise JournalUnusable(text, hint="run the version that wrote it, or a newer one")


def _setting(db: Connection, name: str) -> Any:
    row = db.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return row[0] if row else None
