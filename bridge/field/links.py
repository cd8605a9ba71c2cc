"""A link that is down for too long, refused, has more behind it than is kept, or whose EMS's certificate has ended, told as alarms."""

import asyncio
from typing import Final

from bridge.clock import Clock
from bridge.errors import JournalFull, LinkRefused
from bridge.journal.port import Journal

DOWN: Final = "LINK_DOWN"
REFUSED: Final = "LINK_REFUSED"
BEYOND: Final = "BEYOND_LIMIT"
ENDED: Final = "CERTIFICATE_ENDED"
AGAIN_S: Final = 1.0
_TEXT_CHARS: Final = 500


class LinkAlarms:
    """The alarms of one adapter's link. LINK_REFUSED at once, LINK_DOWN after `after_s` without a session, both cleared when one opens; BEYOND_LIMIT ends with its session, CERTIFICATE_ENDED with another certificate."""

    def __init__(
        self, *, site: str, adapter: str, participant: str, journal: Journal, clock: Clock, after_s: float
    ) -> None:
        self._site = site
        self._adapter = adapter
        self._participant = participant
        self._journal = journal
        self._clock = clock
        self._after_s = after_s
        self._changed = asyncio.Event()
        self._since_ns: int | None = clock.mono_ns()
        self._reason = "it was never open"
        self._refusal = ""
        self._left_out = ""
        self._ended = ""
        # What the journal says; None = what an earlier process left there.
        self._told: dict[str, bool | None] = {DOWN: None, REFUSED: None, BEYOND: None, ENDED: None}

    def opened(self) -> None:
        """A session is open."""
        self._since_ns, self._refusal = None, ""
        self._changed.set()

    def beyond(self, text: str) -> None:
        """The EMS offers more than the adapter keeps; the first text of a session stands. It may come before the session is open."""
        if not self._left_out:
            self._left_out = text[:_TEXT_CHARS]
            self._changed.set()

    def ended(self, text: str) -> None:
        """The certificate that the EMS showed has ended; '' when it shows one that has not."""
        if text != self._ended:
            self._ended = text[:_TEXT_CHARS]
            self._changed.set()

    def lost(self, error: BaseException) -> None:
        """A session ended, or none could be opened."""
        if self._since_ns is None:
            self._since_ns = self._clock.mono_ns()
        self._left_out = ""
        self._reason = f"{type(error).__name__}: {error}"[:_TEXT_CHARS]
        if isinstance(error, LinkRefused):
            self._refusal = str(error)[:_TEXT_CHARS]
        self._changed.set()

    async def run(self) -> None:
        """Tell what changes, until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self._tell()
                timeout_s = self._left_s()
            except JournalFull:
                timeout_s = AGAIN_S
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _tell(self) -> None:
        down = self._since_ns is not None and self._down_s() >= self._after_s
        text = f"no session for {self._after_s:g} s: {self._reason}"
        await self._set(DOWN, text if down else "")
        await self._set(REFUSED, self._refusal)
        await self._set(BEYOND, self._left_out)
        await self._set(ENDED, self._ended)

    async def _set(self, code: str, text: str) -> None:
        """Raise it once, or clear it once; what an earlier process left is cleared when a session opens, not before."""
        told = self._told[code]
        if text and told is not True:
            await self._alarm(code, text=text, clear=False)
            self._told[code] = True
        elif not text and (told is True or (told is None and self._since_ns is None)):
            await self._alarm(code, text="", clear=True)
            self._told[code] = False

    async def _alarm(self, code: str, *, text: str, clear: bool) -> None:
        await self._journal.alarm(
            code, participant=self._participant, site=self._site, subject=self._adapter, text=text, clear=clear
        )

    def _down_s(self) -> float:
        assert self._since_ns is not None
        return (self._clock.mono_ns() - self._since_ns) / 1e9

    def _left_s(self) -> float | None:
        """How long until LINK_DOWN is due; None when nothing is."""
        if self._since_ns is None or self._told[DOWN] is True:
            return None
        return max(0.001, self._after_s - self._down_s())
