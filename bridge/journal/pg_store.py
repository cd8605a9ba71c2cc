"""The journal's transaction on PostgreSQL: the same statements, translated once each, and the few things that SQLite does in another way."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final, NamedTuple, cast

import orjson
import psycopg
from psycopg.adapt import Buffer
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import TextBinaryLoader

from bridge.clock import Clock
from bridge.journal.store import Ids, Numbers, Row, Rows, Tx, dump

Args = Sequence[Any] | Mapping[str, Any]

# PostgreSQL's text holds no NUL: one of the code points that Unicode reserves for a program's own use stands in its place on disk. Whoever sends that
# one, or the next, finds it again too: the next one stands before them there.
_NUL: Final = "\x00"
_STAND_IN: Final = "\ufdd0"
_ITSELF: Final = "\ufdd1"
_NUL_IN_JSON: Final = "\\u0000"
_RESERVED: Final = re.compile(f"[{_STAND_IN}{_ITSELF}]")
_ON_DISK: Final = re.compile(f"{_ITSELF}([{_STAND_IN}{_ITSELF}])|{_STAND_IN}")
_NOT_ASKED: Final = -1
_FIRST_IDS: Final = 4
_MOST_IDS: Final = 512
_PART: Final = re.compile(
    r"(?P<quoted>'(?:[^']|'')*')"
    r"|json_each\((?:\?|:(?P<list>\w+))\)"
    r"|\b(?P<element>(?:\w+\.)?value) ->> "
    r"|(?P<cross>\bCROSS JOIN\b)"
    r"|(?P<mark>\?)"
    r"|(?<!:):(?P<name>[a-z_]\w*)"
    r"|(?P<percent>%)"
)


class Statement(NamedTuple):
    """A statement in PostgreSQL's words; `lists` are the places or names of the arguments that are JSON lists."""

    sql: bytes
    lists: frozenset[int | str]


@lru_cache(maxsize=2000)
def translate(sql: str) -> Statement:
    """One of the use cases' statements (the rules stand in `bridge.journal.store`) as psycopg takes it."""
    lists: set[int | str] = set()
    places = 0

    def part(match: re.Match[str]) -> str:
        nonlocal places
        text, found = match.group(), match.groupdict()
        if found["quoted"] or found["percent"]:
            return text.replace("%", "%%")
        if found["cross"]:
            return "JOIN"
        if found["element"]:
            return f"{found['element']}::json ->> "
        name = found["list"] or found["name"]
        here = f"%({name})s" if name else "%s"
        if text.startswith("json_each"):
            lists.add(name or places)
            here = f"json_array_elements_text({here}::json)"
        places += not name
        return here

    return Statement(_PART.sub(part, sql).encode(), frozenset(lists))


class _TruthDumper(Int8BinaryDumper):
    """Truth as 0 or 1."""

    def dump(self, obj: int) -> Buffer | None:
        """See psycopg."""
        return super().dump(int(obj))


class _TextLoader(TextBinaryLoader):
    """Text with its NULs back in place."""

    def load(self, data: Buffer) -> bytes | str:
        """See psycopg."""
        text = super().load(data)
        if isinstance(text, str) and (_STAND_IN in text or _ITSELF in text):
            return _ON_DISK.sub(lambda found: found[1] or _NUL, text)
        return text


def adapt(db: psycopg.Connection[Any]) -> None:
    """Teach a connection how the journal's values travel. Every integer is a BIGINT, so that one statement has one set of types."""
    db.adapters.register_dumper(int, Int8BinaryDumper)
    db.adapters.register_dumper(bool, _TruthDumper)
    for kind in ("text", "varchar"):
        db.adapters.register_loader(kind, _TextLoader)


def _told(args: Args, lists: frozenset[int | str]) -> Args:
    """The arguments without NULs."""
    if isinstance(args, Mapping):
        return {name: _clean(value, is_list=name in lists) for name, value in args.items()}
    return [_clean(value, is_list=place in lists) for place, value in enumerate(args)]


def _clean(value: Any, *, is_list: bool) -> Any:
    if type(value) is not str:
        return value
    if is_list and _NUL_IN_JSON in value:
        return dump(_without_nul(orjson.loads(value)))
    if _STAND_IN in value or _ITSELF in value:
        value = _RESERVED.sub(rf"{_ITSELF}\g<0>", value)
    return value.replace(_NUL, _STAND_IN) if _NUL in value else value


def _without_nul(value: Any) -> Any:
    return [_without_nul(part) for part in value] if isinstance(value, list) else _clean(value, is_list=False)


class PgRows(Rows):
    """Statements on one connection, inside one transaction."""

    dialect: ClassVar[str] = "postgres"

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self._cursor = db.cursor(binary=True)

    def all(self, sql: str, args: Args = ()) -> list[Row]:
        """All rows."""
        return self._done(sql, args).fetchall()

    def table(self, sql: str, args: Sequence[Any], width: int, *, blobs: Sequence[int] = ()) -> list[Row]:
        """All rows: the server sends them together."""
        del width, blobs
        return self.all(sql, args)

    def one(self, sql: str, args: Args = ()) -> Row | None:
        """The first row, if there is one."""
        return self._done(sql, args).fetchone()

    def size(self) -> int:
        """How large the database is, in bytes."""
        return int(self.all("SELECT pg_database_size(current_database())")[0][0])

    def _done(self, sql: str, args: Args) -> psycopg.Cursor[Row]:
        statement = translate(sql)
        return self._cursor.execute(statement.sql, _told(args, statement.lists))


class _SequenceIds(Ids):
    """Ids from the table's own sequence, a few at a time: no other process gets them, and what is committed later elsewhere has higher ones."""

    __slots__ = ("_left", "_more", "_sequence", "_tx")

    def __init__(self, tx: "PgTx", sequence: str) -> None:
        self._tx = tx
        self._sequence = sequence
        self._left: list[int] = []
        self._more = _FIRST_IDS
        super().__init__(_NOT_ASKED)

    @property
    def last(self) -> int:
        """The newest id so far, also of transactions that are under way."""
        if self._last == _NOT_ASKED:
            row = self._tx.one(f"SELECT coalesce(pg_sequence_last_value('{self._sequence}'), 0)")
            self._last = row[0] if row else 0
        return self._last

    def next(self) -> int:
        """A new id."""
        if not self._left:
            rows = self._tx.all(f"SELECT nextval('{self._sequence}') FROM generate_series(1, ?)", (self._more,))  # noqa: S608
            self._left = sorted((row[0] for row in rows), reverse=True)
            self._more = min(self._more * 8, _MOST_IDS)
        self._last = self._left.pop()
        return self._last


class PgTx(PgRows, Tx):
    """The part of a write transaction that belongs to one request."""

    def __init__(
        self, db: psycopg.Connection[Any], clock: Clock, writer: str, numbers: Numbers, topics: set[str]
    ) -> None:
        Tx.__init__(self, cast("Any", db), clock, writer, numbers, topics)
        PgRows.__init__(self, db)

    def run(self, sql: str, args: Args = ()) -> None:
        """One statement without rows."""
        self._done(sql, args)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each of `rows`."""
        statement = translate(sql)
        told = [_told(row, statement.lists) for row in rows]
        if len(told) == 1:
            self._cursor.execute(statement.sql, told[0])
        elif told:
            self._cursor.executemany(statement.sql, told)

    def insert(self, sql: str, args: Args, *, key: str = "id") -> int:
        """Insert one row; the value of its column `key`, which the engine gave it."""
        row = self.one(f"{sql} RETURNING {key}", args)
        assert row is not None
        return int(row[0])

    def ids(self, *tables: tuple[str, str]) -> list[Ids]:
        """Where the ids of rows planned in memory come from, for each (table, column)."""
        return [_SequenceIds(self, f"{table}_{key}_seq") for table, key in tables]
