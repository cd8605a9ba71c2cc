"""Wiping: what deleted rows left in the tables of a PostgreSQL journal. The server's own log and its backups are the server's."""

from typing import Final

import psycopg
from psycopg import sql

from bridge.journal.pg_server import Server, unreachable

_TABLES: Final = ("blobs", "items", "calls", "returns", "writebacks", "alarms", "submissions")


def wipe(server: Server, *, alone: bool) -> None:
    """Vacuum the tables that held it; `alone` writes them anew, for which nobody may work on them. Raises `JournalUnusable`."""
    how = sql.SQL("VACUUM (FULL)" if alone else "VACUUM")
    try:
        with server.connect("wipe") as db:
            for table in _TABLES:
                db.execute(sql.SQL("{} {}").format(how, sql.Identifier(server.schema, table)))
    except psycopg.Error as error:
        raise unreachable(server, error) from error
