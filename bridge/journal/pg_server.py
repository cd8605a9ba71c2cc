"""The PostgreSQL server of a journal: how to reach it, what each of our sessions sets, and what its errors mean to us."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import errors, sql

from bridge.errors import JournalFull, JournalUnusable
from bridge.journal.pg_store import adapt
from bridge.secret import Secret

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA: Final = "smp_bridge"
_CONNECT_S: Final = 5
_LOCK: Final = "10s"  # a commit takes milliseconds: whoever holds a lock for so long is stuck
_IDLE: Final = "5s"  # between two statements of a transaction; then a frozen process stands in nobody's way any more
_STATEMENTS: Final = 1000  # prepared ones kept per session
_PREPARE_AFTER: Final = 2
_TEXT_CHARS: Final = 300
_REPEAT: Final = (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation)
_GONE: Final = (
    "08",
    "57P",
    "25P03",
)  # connection exceptions; the server shuts down, ends our session, or we were idle in a transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the journal's database is, and as whom we come. `host` may be the directory of a UNIX socket; `tls` is libpq's sslmode.

    Without `ca` the system's authorities verify the server.
    """

    host: str
    database: str
    user: str
    port: int = 5432
    password: Secret | None = None
    tls: str = "verify-full"
    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    schema: str = SCHEMA

    @property
    def key(self) -> int:
        """The journal's number among the database's advisory locks."""
        return int.from_bytes(hashlib.sha256(f"smp-bridge/{self.schema}".encode()).digest()[:8], "big", signed=True)

    def __str__(self) -> str:
        return f"database {self.database} at {self.host}:{self.port}"

    def connect(self, name: str) -> Connection:
        """A session of ours, each statement outside of BEGIN and COMMIT by itself. Raises psycopg's errors."""
        db = psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=self.database,
            user=self.user,
            password=self.password.reveal() if self.password else None,
            **self._tls(),
            application_name=f"smp-bridge {name}"[:63],
            client_encoding="utf8",
            connect_timeout=_CONNECT_S,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
            autocommit=True,
        )
        try:
            db.prepare_threshold = _PREPARE_AFTER
            db.prepared_max = _STATEMENTS
            adapt(db)
            db.execute(self._settings())
        except BaseException:
            db.close()
            raise
        return db

    def _tls(self) -> dict[str, Any]:
        if self.host.startswith("/") or self.tls == "disable":
            return {"sslmode": "disable"}
        return {
            "sslmode": self.tls,
            "sslrootcert": str(self.ca) if self.ca else "system",
            "sslcert": str(self.certificate) if self.certificate else None,
            "sslkey": str(self.private_key) if self.private_key else None,
        }

    def _settings(self) -> sql.Composed:
        """Indexes are preferred even on small tables: what a statement looks at is what it can conflict about with another process."""
        return sql.SQL(
            "SET search_path TO {schema}; SET lock_timeout TO {lock}; SET idle_in_transaction_session_timeout TO {idle};"
            " SET enable_seqscan TO off; SET jit TO off; SET statement_timeout TO 0; SET default_transaction_read_only TO off"
        ).format(schema=sql.Identifier(self.schema), lock=sql.Literal(_LOCK), idle=sql.Literal(_IDLE))


def repeatable(error: psycopg.Error) -> bool:
    """Whether another process was faster, so that the same work is done again from its beginning."""
    return isinstance(error, _REPEAT)


def lost(error: psycopg.Error, db: Connection | None) -> bool:
    """Whether the session is gone (or could not be had), rather than a statement refused."""
    if db is None:
        return isinstance(error, psycopg.OperationalError)
    return db.closed or (error.sqlstate or "").startswith(_GONE)


def translated(error: Exception) -> Exception:
    """The bridge's own error for one of psycopg's; other errors are returned as they are. No value of a row and no password is in it."""
    if isinstance(error, errors.DiskFull):
        return JournalFull("the database's disk is full", hint="make room; it goes on by itself")
    if isinstance(error, errors.LockNotAvailable):
        return JournalUnusable("the journal was locked for too long", hint="look for a stopped process that holds it")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return JournalUnusable("the database takes no writes", hint="is this a standby server? name the primary one")
    if isinstance(error, psycopg.Error):
        return JournalUnusable(f"the database failed: {_said(error)}", hint="look at the server and its log")
    return error


def unreachable(server: Server, error: psycopg.Error) -> JournalUnusable:
    """That the server cannot be reached, or refuses us."""
    hint = "is the server running, and do host, port, user, password and TLS fit? `journal.postgres` in bridge.yaml names them"
    return JournalUnusable(f"{server} cannot be used: {_said(error)}", hint=hint)


def _said(error: psycopg.Error) -> str:
    """The server's or the library's own words without details, which hold values."""
    text = error.diag.message_primary or str(error).strip().split("\n", maxsplit=1)[0] or type(error).__name__
    return f"{text[:_TEXT_CHARS]} ({error.sqlstate})" if error.sqlstate else text[:_TEXT_CHARS]
