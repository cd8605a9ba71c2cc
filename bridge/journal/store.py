"""One transaction of the journal as its use cases see it: statements, fences, events numbered without holes, evidence blobs, alarms, topics to wake."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw
import orjson

from bridge.clock import Clock, Stamp
from bridge.errors import Fenced
from bridge.journal.port import Fence, Stamps
from bridge.model import ErrorNote

Row = tuple[Any, ...]
Numbers = dict[tuple[str, str, int], int]

_NONCE_BYTES: Final = 16


class Blob(NamedTuple):
    """Evidence on its way to disk: its row and the digest that its event carries."""

    id: int | None
    digest: bytes | None


NO_BLOB: Final = Blob(None, None)


class Rows:
    """Statements on one connection, inside one transaction."""

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db

    def all(self, sql: str, args: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """All rows."""
        return self.db.execute(sql, args).fetchall()

    def one(self, sql: str, args: Sequence[Any] | Mapping[str, Any] = ()) -> Row | None:
        """The first row, if there is one."""
        rows = self.db.execute(sql, args).fetchall()
        return rows[0] if rows else None


class Tx(Rows):
    """The part of a write transaction that belongs to one request."""

    def __init__(self, db: apsw.Connection, clock: Clock, writer: str, numbers: Numbers, topics: set[str]) -> None:
        super().__init__(db)
        self.clock = clock
        self.now: Stamp = clock.now()
        self.writer = writer
        self._numbers = numbers
        self.topics = topics

    def run(self, sql: str, args: Sequence[Any] | Mapping[str, Any] = ()) -> None:
        """One statement without rows."""
        self.db.execute(sql, args)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each of `rows`."""
        self.db.executemany(sql, rows)

    def holds(self, fence: Fence) -> bool:
        """Whether the fence is the newest epoch of a lease that was not given back."""
        row = self.one("SELECT epoch FROM leases WHERE lease = ? AND owner <> ''", (fence.lease,))
        return row is not None and row[0] == fence.epoch

    def check(self, fence: Fence) -> None:
        """Raise `Fenced` unless the fence holds."""
        if not self.holds(fence):
            raise Fenced(f"{fence.lease}: epoch {fence.epoch} is no longer the owner's")

    def event(
        self,
        fence: Fence | None,
        participant: str,
        kind: str,
        subject: str,
        data: Mapping[str, object],
        *,
        blob: Blob = NO_BLOB,
    ) -> None:
        """Append one event; without a fence it is this process's own."""
        writer, epoch = (fence.lease, fence.epoch) if fence else (self.writer, 0)
        number = self._number(participant, writer, epoch)
        self.run(
            "INSERT INTO events (participant, writer, epoch, number, at_ns, kind, subject, data, blob, digest)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (participant, writer, epoch, number, self.now.wall_ns, kind, subject, dump(data), blob.id, blob.digest),
        )

    def blob(self, participant: str, data: bytes) -> Blob:
        """Store bytes as evidence; nothing is stored for empty bytes."""
        if not data:
            return NO_BLOB
        nonce = os.urandom(_NONCE_BYTES)
        digest = hashlib.sha256(nonce + data).digest()
        self.run(
            "INSERT INTO blobs (participant, nonce, bytes, digest) VALUES (?, ?, ?, ?)",
            (participant, nonce, data, digest),
        )
        return Blob(self.db.last_insert_rowid(), digest)

    def raise_alarm(
        self, code: str, *, participant: str = "", site: str = "", subject: str = "", text: str = ""
    ) -> None:
        """Raise an alarm, or count the standing one again."""
        where = (code, participant, site, subject)
        self.run(
            "INSERT INTO alarms (code, participant, site, subject, text, count, raised_ns, last_ns) VALUES (?, ?, ?, ?, ?, 1, ?, ?)"
            " ON CONFLICT (code, participant, site, subject) WHERE cleared_ns = 0"
            " DO UPDATE SET count = count + 1, text = excluded.text, last_ns = excluded.last_ns",
            (*where, text, self.now.wall_ns, self.now.wall_ns),
        )

    def clear_alarm(self, code: str, *, participant: str = "", site: str = "", subject: str = "") -> None:
        """Clear a standing alarm, if there is one."""
        self.run(
            "UPDATE alarms SET cleared_ns = ? WHERE code = ? AND participant = ? AND site = ? AND subject = ? AND cleared_ns = 0",
            (self.now.wall_ns, code, participant, site, subject),
        )

    def _number(self, participant: str, writer: str, epoch: int) -> int:
        key = (participant, writer, epoch)
        last = self._numbers.get(key)
        if last is None:
            row = self.one("SELECT max(number) FROM events WHERE participant = ? AND writer = ? AND epoch = ?", key)
            last = (row[0] if row else None) or 0
        self._numbers[key] = last + 1
        return last + 1


def dump(value: object) -> str:
    """JSON as text, for a column."""
    return orjson.dumps(value).decode()


def dump_stamps(stamps: Stamps) -> str:
    """Stamps as JSON: `{hop: [wall, mono, boot]}`."""
    return dump({hop: list(stamp) for hop, stamp in stamps.items()})


def load_stamps(text: str) -> dict[str, Stamp]:
    """The stamps of `dump_stamps`."""
    return {hop: Stamp(*parts) for hop, parts in orjson.loads(text).items()}


def dump_errors(errors: Iterable[ErrorNote]) -> str:
    """Errors as JSON: `[[code, text, field]]`."""
    return dump([[note.code, note.text, note.field] for note in errors])


def load_errors(text: str) -> tuple[ErrorNote, ...]:
    """The errors of `dump_errors`."""
    if text == "[]":
        return ()
    return tuple(ErrorNote(code=code, text=text_, field=field) for code, text_, field in orjson.loads(text))
