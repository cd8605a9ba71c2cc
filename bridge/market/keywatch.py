"""One participant's keys while the host runs: what a person changed is in use at once, without a restart."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from bridge.errors import ConfigError, JournalFull
from bridge.journal.port import Journal
from bridge.keyring import KeyRing

log = logging.getLogger(__name__)

UNUSABLE: Final = "KEY_UNUSABLE"


class KeyWatch:
    """Owns the ring: nobody else changes it."""

    def __init__(
        self, ring: KeyRing, *, participant: str, journal: Journal, changed: Callable[[], Awaitable[None]]
    ) -> None:
        """`changed` is told after each change, so that evidence holds which keys were used."""
        self._ring = ring
        self._participant = participant
        self._journal = journal
        self._changed = changed
        self._woken = journal.woken(f"keys:{participant}")

    async def run(self) -> None:
        """Take what the journal says whenever it changes, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self.look()

    async def look(self) -> None:
        """Take the states of now. A key that should sign and cannot be read is an alarm; the former one signs on."""
        records = await self._journal.keys(self._participant)
        before = self._ring.signer.kid
        try:
            await asyncio.to_thread(self._ring.take, records)
        except ConfigError as error:
            text = f"{self._ring.signer.kid} signs on: {'; '.join(str(problem) for problem in error.problems)}"
            log.error("key_unusable", extra={"participant": self._participant, "reason": text})
            with suppress(JournalFull):
                await self._journal.alarm(UNUSABLE, participant=self._participant, text=text)
        else:
            with suppress(JournalFull):
                await self._journal.alarm(UNUSABLE, participant=self._participant, clear=True)
        with suppress(JournalFull):
            await self._changed()
        log.info(
            "keys_changed",
            extra={"participant": self._participant, "before": before, "signs": self._ring.signer.kid},
        )
