"""The sealer: closes what happened into blocks every few seconds, keeps the anchor, and watches the journal's size. One task of the process with the market role."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bridge.clock import Clock
from bridge.envelope.keys import Signer
from bridge.errors import JournalFull
from bridge.journal.archiver import Room
from bridge.journal.evidence import Evidence
from bridge.journal.heads import EvidenceBroken
from bridge.journal.port import Fence

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
SIGN_EVERY_S: Final = 86_400.0
LARGE: Final = 0.8  # of the size cap: from here on a person is told
LARGE_NO_MORE: Final = 0.7
ARCHIVE_FROM: Final = 0.6  # of the size cap: from here on old evidence is moved by itself


def untold(_signed: bool) -> None:  # noqa: FBT001 - a callback's one word
    """Where nobody outside wants to know."""


class Alarms(Protocol):
    """The part of the journal that takes alarms."""

    async def alarm(self, code: str, *, text: str = "", clear: bool = False) -> None:
        """See `bridge.journal.port.Journal.alarm`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SealerSettings:
    """`anchor` is the anchor's file (None: none is kept), `max_bytes` the journal's size cap (0: none), `every_s` how long events may wait for their block.

    `signer` is the host's own key (None: heads are not signed), `sign_every_s` how long a block may wait for a signed head.
    `told` is called when there are new blocks, and with True when heads were signed, but only of a journal that agrees with its anchor. It must not wait.
    """

    anchor: Path | None
    max_bytes: int = 0
    every_s: float = EVERY_S
    signer: Signer | None = None
    sign_every_s: float = SIGN_EVERY_S
    told: Callable[[bool], None] = untold


class Sealer:
    """Woken by events, never by a clock alone: when nothing happened it does nothing."""

    def __init__(
        self,
        settings: SealerSettings,
        *,
        evidence: Evidence,
        alarms: Alarms,
        fence: Fence,
        woken: asyncio.Event,
        clock: Clock,
        room: Room,
    ) -> None:
        self._settings = settings
        self._evidence = evidence
        self._alarms = alarms
        self._fence = fence
        self._woken = woken
        self._clock = clock
        self._room = room
        self._trusted = False  # the anchor is known to be this journal's
        self._anchored: bool | None = None  # whether the last try to write it went well
        self._behind = (
            False  # there may be blocks that the anchor does not name: a stop can cut a round off between the two
        )
        self._large: bool | None = None
        self._full = False
        self._signed_ns: int | None = None  # None: not looked up yet
        self._unsigned = False
        self._broken = ""

    async def run(self) -> None:
        """Seal what an earlier run left, then what is appended, until cancelled. Raises `Fenced` and `JournalUnusable`."""
        busy = True
        while True:
            if not busy:
                await self._wait()
            await asyncio.sleep(self._settings.every_s)
            self._woken.clear()
            busy = await self.round()

    async def _wait(self) -> None:
        """Until something happens, or blocks have waited for their signed head for long enough."""
        left = None
        if self._unsigned and self._signed_ns is not None:
            left = max(0.0, self._settings.sign_every_s - (self._clock.wall_ns() - self._signed_ns) / 1e9)
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._woken.wait()

    async def round(self) -> bool:
        """Seal everything that is there, let the anchor follow, look at the size; whether there was anything, or it has to be tried again."""
        try:
            trusted = self._trusted
            sealed = await self._seal()
            if self._behind or not self._trusted:
                await self._keep_anchor()
            if self._trusted and (sealed or not trusted):
                self._settings.told(False)
            self._unsigned = self._unsigned or sealed
            await self._sign()
            await self._watch_size()
        except JournalFull as error:
            if not self._full:
                log.warning("sealing_waits", extra={"cause": str(error)})
            self._full = True
            self._room.tell(2)
            return True
        self._full = False
        return sealed

    async def finish(self) -> None:
        """The last block of an orderly stop, and its signature."""
        with suppress(JournalFull):
            await self.round()
            await self._sign(at_once=True)

    async def _sign(self, *, at_once: bool = False) -> None:
        """Sign the last blocks once a day, and at the stop."""
        signer = self._settings.signer
        if signer is None:
            return
        if self._signed_ns is None:
            self._signed_ns = await self._evidence.last_signed_ns(signer.kid)
        now_ns = self._clock.wall_ns()
        if not at_once and abs(now_ns - self._signed_ns) < self._settings.sign_every_s * 1e9:
            return
        try:
            made = await self._evidence.sign_heads(signer)
            if made and self._trusted:
                self._settings.told(True)
        except EvidenceBroken as error:
            await self._note_broken(str(error))
        else:
            await self._note_broken("")
        self._signed_ns, self._unsigned = now_ns, False

    async def _note_broken(self, problem: str) -> None:
        if problem != self._broken:
            self._broken = problem
            if problem:
                log.error("evidence_broken", extra={"cause": problem})
            await self._alarms.alarm("EVIDENCE_BROKEN", text=problem, clear=not problem)

    async def _seal(self) -> bool:
        if not self._trusted and self._settings.anchor is not None:
            await self._keep_anchor()  # from a journal's first block on there is an anchor
        events, behind, self._behind = 0, self._behind, True
        while step := (await self._evidence.seal(self._fence)).events:
            events += step
        self._behind = behind or events > 0
        return events > 0

    # the anchor ------------------------------------------------------------------------------------------------------

    async def _keep_anchor(self) -> None:
        """Write it where it agrees with the journal; an anchor that does not is left for the person who reconciles."""
        path = self._settings.anchor
        if path is None:
            return
        if not self._trusted:
            finding = await self._evidence.compare(path)
            self._trusted = finding.verdict.safe
            if not self._trusted:
                await self._note_anchor(finding.text)
                return
        try:
            await self._evidence.write_anchor(path)
        except OSError as error:
            await self._note_anchor(f"the anchor {path} cannot be written: {error.strerror or error}")
        else:
            self._behind = False
            await self._note_anchor("")

    async def _note_anchor(self, problem: str) -> None:
        if self._anchored is not (not problem):
            self._anchored = not problem
            if problem:
                log.warning("anchor_not_kept", extra={"cause": problem})
            await self._alarms.alarm("ANCHOR", text=problem, clear=not problem)

    # the size --------------------------------------------------------------------------------------------------------

    async def _watch_size(self) -> None:
        cap = self._settings.max_bytes
        if not cap:
            return
        used = await self._evidence.used_bytes()
        self._room.tell(2 if used >= cap * LARGE else int(used >= cap * ARCHIVE_FROM))
        large = used >= cap * (LARGE_NO_MORE if self._large else LARGE)
        if large is not self._large:
            self._large = large
            text = f"{used / 1e6:,.0f} MB of {cap / 1e6:,.0f} MB are used"
            await self._alarms.alarm("JOURNAL_LARGE", text=text, clear=not large)
