"""The embedded journal: SQLite behind the port."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from bridge.clock import Clock
from bridge.journal import leases, opening
from bridge.journal.cases import JournalCases, ReaderCases
from bridge.journal.connections import Reader, translated
from bridge.journal.engine import Writer
from bridge.journal.leases import LeaseLocks
from bridge.journal.port import (
    Fence,
)
from bridge.journal.wake import Wake


async def open_journal(
    path: Path,
    *,
    clock: Clock,
    role: str,
    new_id: Callable[[], str],
    checkpoint: bool = True,
    max_bytes: int = 0,
    vfs: str | None = None,
) -> "SqliteJournal":
    """Open the journal at `path`, made when it is not there. `checkpoint` is for the one process with the market role; `max_bytes` caps the file (0 = the disk).

    `vfs` names SQLite's way to the disk, for tests that make the disk fail.

    Raises `JournalUnusable` when the file is unreadable, foreign, emptied, or of a newer major version.
    """
    path = await asyncio.to_thread(path.resolve)
    db = await asyncio.to_thread(opening.open_writer, path, checkpoint=checkpoint, max_bytes=max_bytes, vfs=vfs)
    name = f"{role}-{new_id()}"
    try:
        wake = Wake(path, name)
    except OSError as error:
        db.close()
        raise translated(error) from error
    writer = Writer(f"journal-{role}", db, clock=clock, writer=name, wake=wake, checkpoint=checkpoint)
    reader = Reader(f"journal-{role}-read", opening.open_reader(path, vfs=vfs))
    return SqliteJournal(
        writer,
        reader,
        wake,
        LeaseLocks(path),
        clock=clock,
        owner=name,
        new_id=new_id,
        aside=lambda: Reader(f"journal-{role}-aside", opening.open_reader(path, vfs=vfs)),
    )


async def open_reader(path: Path) -> "SqliteReader":
    """Open the journal at `path` for reading only, beside a running service or without one.

    Raises `JournalUnusable` when there is none, or when it is unreadable, foreign or of a newer major version.
    """
    path = await asyncio.to_thread(path.resolve)
    return SqliteReader(Reader("journal-read", await asyncio.to_thread(opening.open_existing, path, migrated=True)))


class SqliteReader(ReaderCases):
    """`bridge.journal.port.JournalReader` on SQLite; open it with `open_reader`."""


class SqliteJournal(JournalCases):
    """`bridge.journal.port.Journal` on SQLite; open it with `open_journal`."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        wake: Wake,
        locks: LeaseLocks,
        *,
        clock: Clock,
        owner: str,
        new_id: Callable[[], str],
        aside: Callable[[], Reader],
    ) -> None:
        super().__init__(writer, reader, wake, clock=clock, owner=owner, new_id=new_id, aside=aside)
        self._locks = locks

    async def acquire(self, lease: str) -> Fence:
        """See the port."""
        taken = self._locks.take(lease)
        try:
            return (await self._writer.run(lambda tx: leases.acquire(tx, lease, self._owner))).value
        except BaseException:
            if taken:
                self._locks.give(lease)
            raise

    async def renew(self, fences: Sequence[Fence]) -> None:
        """See the port."""
        await self._writer.run(lambda tx: leases.renew(tx, fences))

    async def release(self, fences: Sequence[Fence]) -> None:
        """See the port."""
        await self._writer.run(lambda tx: leases.release(tx, fences))
        for fence in fences:
            self._locks.give(fence.lease)

    async def close(self) -> None:
        """See the port."""
        await super().close()
        self._locks.give_all()
