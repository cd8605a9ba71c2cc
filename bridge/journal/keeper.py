"""What keeps the journal's evidence while the host runs: one part, started once by the process with the market role."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bridge.clock import Clock
from bridge.envelope.keys import Signer
from bridge.journal.archiver import Archiver, ArchiverSettings, Room
from bridge.journal.evidence import Evidence
from bridge.journal.port import Fence, Journal
from bridge.journal.retention import Retention
from bridge.journal.sealer import ARCHIVE_FROM, EVERY_S, LARGE, Sealer, SealerSettings, untold
from bridge.journal.sealing import SEALER
from bridge.journal.store import EVENTS

log = logging.getLogger(__name__)

FINISH_S: Final = 10.0


class KeptJournal(Journal, Protocol):
    """A journal whose evidence can be kept."""

    def evidence(self) -> Evidence:
        """The evidence of this journal; closed with it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """Where the anchor and the archive are, the size cap (bytes, 0 = none), how old settled evidence is when it moves by itself, and the host's own key. `told`: see `SealerSettings`.

    `retention_s` is how old it is when it ends (0: never); none does while `wrong_clock` says that the clock is known to be wrong.
    """

    anchor: Path | None
    archive: Path
    max_bytes: int = 0
    archive_after_s: float = 30 * 86_400.0
    retention_s: float = 0.0
    seal_every_s: float = EVERY_S
    signer: Signer | None = None
    told: Callable[[bool], None] = untold
    wrong_clock: Callable[[], bool] = bool


class Keeper:
    """Seals, keeps the anchor, watches the size, archives when there is little room, and ends what is too old."""

    def __init__(self, settings: KeeperSettings, journal: KeptJournal, *, clock: Clock, fence: Fence) -> None:
        self.fence = fence
        self._room = Room()
        self._sealer = Sealer(
            SealerSettings(
                anchor=settings.anchor,
                max_bytes=settings.max_bytes,
                every_s=settings.seal_every_s,
                signer=settings.signer,
                told=settings.told,
            ),
            evidence=journal.evidence(),
            alarms=journal,
            fence=fence,
            woken=journal.woken(EVENTS),
            clock=clock,
            room=self._room,
        )
        self._archiver = Archiver(
            ArchiverSettings(
                directory=settings.archive,
                after_s=settings.archive_after_s,
                max_bytes=settings.max_bytes,
                archive_from=ARCHIVE_FROM,
                hurry_from=LARGE,
            ),
            evidence=journal.evidence(),
            journal=journal,
            clock=clock,
        )
        self._retention = Retention(
            settings.retention_s,
            settings.archive,
            archiver=self._archiver,
            evidence=journal.evidence(),
            journal=journal,
            clock=clock,
            wrong_clock=settings.wrong_clock,
        )
        self._ends = settings.retention_s > 0

    async def run(self) -> None:
        """Work until cancelled. Raises `Fenced` and `JournalUnusable`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sealer.run())
            group.create_task(self._archiver.run(self._room))
            if self._ends:
                group.create_task(self._retention.run())

    async def finish(self) -> None:
        """The last block of an orderly stop, within a limit: what is left is sealed at the next start."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self._sealer.finish()


async def start_keeper(settings: KeeperSettings, journal: KeptJournal, *, clock: Clock) -> Keeper:
    """Take the sealer's lease. Raises `LeaseHeld` when another process keeps this journal's evidence."""
    return Keeper(settings, journal, clock=clock, fence=await journal.acquire(SEALER))
