"""How processes on one PostgreSQL journal wake each other: NOTIFY in the very commit, LISTEN on a session of its own, never polling."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg import sql

from bridge.journal.pg_server import Connection, Server
from bridge.journal.wake import Topics

_log = logging.getLogger(__name__)

_PAYLOAD_BYTES: Final = 7_900  # the server takes 8000
_EVERYTHING: Final = "*"
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0


def listen(server: Server) -> Connection:
    """A session that hears of every commit. Raises psycopg's errors."""
    db = server.connect("listen")
    try:
        db.execute(sql.SQL("LISTEN {}").format(sql.Identifier(server.schema)))
    except BaseException:
        db.close()
        raise
    return db


class PgWake:
    """This process's ear. While the server is away it is tried again, and then everybody looks, for something may have been missed."""

    def __init__(self, connect: Callable[[], Connection], db: Connection) -> None:
        self._loop = asyncio.get_running_loop()
        self._topics = Topics()
        self._connect = connect
        self._us = uuid.uuid4().hex
        self._db: Connection | None = None
        self._handle = -1
        self._pause_s = _FIRST_PAUSE_S
        self._closed = False
        self._again: asyncio.TimerHandle | None = None
        self._take(db)

    def event(self, topic: str) -> asyncio.Event:
        """A new waiter's event, for `Journal.woken`."""
        return self._topics.event(topic)

    def message(self, topics: set[str]) -> str:
        """What the commit tells the other processes."""
        text = "\n".join((self._us, *sorted(topics)))
        return text if len(text.encode()) <= _PAYLOAD_BYTES else f"{self._us}\n{_EVERYTHING}"

    def here(self, topics: set[str]) -> None:
        """Called on the loop after a commit: wake the waiters of this process; the commit itself told the others."""
        self._topics.set(topics)

    def close(self) -> None:
        """End. Safe to call twice."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        self._drop()

    def _take(self, db: Connection) -> None:
        self._db = db
        self._pause_s = _FIRST_PAUSE_S
        self._handle = db.fileno()
        self._loop.add_reader(self._handle, self._readable)

    def _drop(self) -> None:
        if self._db is not None:
            self._loop.remove_reader(self._handle)
            self._db.close()
            self._db = None

    def _readable(self) -> None:
        assert self._db is not None
        try:
            self._db.pgconn.consume_input()
            while (notice := self._db.pgconn.notifies()) is not None:
                self._heard(notice.extra.decode(errors="replace"))
        except psycopg.Error:
            _log.warning("wake_lost")
            self._lost()

    def _heard(self, message: str) -> None:
        sender, *topics = message.split("\n")
        if sender == self._us:
            return
        if topics == [_EVERYTHING]:
            self._topics.set_all()
        else:
            self._topics.set(topics)

    def _lost(self) -> None:
        self._drop()
        self._again = self._loop.call_later(self._pause_s, self._try)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _try(self) -> None:
        self._loop.run_in_executor(None, self._connected).add_done_callback(self._tried)

    def _connected(self) -> Connection | None:
        try:
            return self._connect()
        except psycopg.Error:
            return None

    def _tried(self, done: "asyncio.Future[Connection | None]") -> None:
        db = None if done.cancelled() else done.result()
        if self._closed:
            if db is not None:
                db.close()
        elif db is None:
            self._lost()
        else:
            _log.info("wake_restored")
            self._take(db)
            self._topics.set_all()
