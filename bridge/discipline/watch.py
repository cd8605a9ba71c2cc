"""The one task that reads the clock's discipline, at a calm pace, and tells the gate, the metrics and the alarms."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from bridge.discipline.gate import SigningGate
from bridge.discipline.judge import Judge, Limits, Standing
from bridge.discipline.report import DisciplineSource
from bridge.errors import JournalFull
from bridge.journal.port import Journal

log = logging.getLogger(__name__)

CODES: Final = ("CLOCK_OFFSET", "CLOCK_UNSYNCHRONISED")


class ClockWatch:
    """Watches this machine's clock. Without a source it only clears what an earlier run with one raised."""

    def __init__(
        self,
        source: DisciplineSource | None,
        *,
        limits: Limits,
        every_s: float,
        gate: SigningGate,
        seen: Callable[[Standing], None],
        journal: Journal | None,
    ) -> None:
        """`seen` gets each standing (metrics). `journal` takes the alarms: that of the process that signs, None in one that does not."""
        self._source = source
        self._judge = Judge(limits)
        self._limits = limits
        self._every_s = every_s
        self._gate = gate
        self._seen = seen
        self._journal = journal
        self._standing: Standing | None = None
        # How each alarm stands in the journal: whether it is raised, and whether it says that signing is held. None: as an earlier run left it.
        self._told: dict[str, tuple[bool, bool] | None] = {}

    @property
    def standing(self) -> Standing | None:
        """What is known now; None without a source or before the first reading."""
        return self._standing

    def told(self) -> Mapping[str, object]:
        """What health shows of it: source, whether signing is held, and the figures in seconds."""
        if self._standing is None:
            return {"source": "none", "signing_held": False}
        report = self._standing.report
        return {
            "source": report.source,
            "signing_held": self._standing.held,
            "synchronised": report.synchronised,
            "offset_s": report.offset_s,
            "max_error_s": report.max_error_s,
            "detail": report.detail,
        }

    def signed_by(self) -> Mapping[str, object]:
        """What evidence keeps of it at each signature, in seconds; nothing without a source."""
        if self._standing is None:
            return {}
        report = self._standing.report
        found = {"source": report.source, "offset_s": report.offset_s, "max_error_s": report.max_error_s}
        return found | {"synchronised": report.synchronised}

    async def look(self) -> None:
        """Read once and let it count. The host looks before it starts to sign."""
        if self._source is None:
            return
        before, now = self._standing, self._judge.take(await self._source.read())
        self._standing = now
        self._gate.set(held=now.held)
        self._seen(now)
        if before is None or before.held != now.held:
            _log("signing_held" if now.held else "signing_not_held", now, quiet=not now.held)
        if before is None or before.adrift != now.adrift:
            _log("clock_unsynchronised" if now.adrift else "clock_synchronised", now, quiet=not now.adrift)

    async def run(self) -> None:
        """Tell what the first look found, then look again and again until cancelled."""
        await self._remember()
        while True:
            await self._tell()
            if self._source is None:
                return
            await asyncio.sleep(self._every_s)
            await self.look()

    async def _remember(self) -> None:
        """Which of the two an earlier run left standing, so that only a change is written."""
        if self._journal is None:
            return
        standing = {alarm.code for alarm in await self._journal.alarm_counts()}
        self._told = {code: None if code in standing else (False, False) for code in CODES}

    async def _tell(self) -> None:
        """Raise and clear, each once; while the journal is full, at a later look."""
        standing, journal = self._standing, self._journal
        if journal is None:
            return
        far = standing is not None and standing.far
        adrift = standing is not None and standing.adrift
        offset, drift = (far, far and self._gate.held), (adrift, False)
        with suppress(JournalFull):
            if self._told["CLOCK_OFFSET"] != offset:
                await journal.alarm("CLOCK_OFFSET", text=self._offset_text(standing), clear=not far)
                self._told["CLOCK_OFFSET"] = offset
            if self._told["CLOCK_UNSYNCHRONISED"] != drift:
                text = standing.report.detail if standing is not None else ""
                await journal.alarm("CLOCK_UNSYNCHRONISED", text=text, clear=not adrift)
                self._told["CLOCK_UNSYNCHRONISED"] = drift

    def _offset_text(self, standing: Standing | None) -> str:
        if standing is None or standing.report.offset_s is None:
            return ""
        offset_s = standing.report.offset_s
        way = "behind" if offset_s > 0 else "ahead"
        what = f"the clock is {abs(offset_s):.3f} s {way}, says {standing.report.source}"
        if standing.held:
            return f"{what}; nothing is signed until it is within {self._limits.hold_s:g} s"
        return f"{what}; signing goes on"


def _log(event: str, standing: Standing, *, quiet: bool) -> None:
    report = standing.report
    level = logging.INFO if quiet else logging.WARNING
    told = {"source": report.source, "offset_s": report.offset_s, "max_error_s": report.max_error_s}
    log.log(level, event, extra={**told, "detail": report.detail})
