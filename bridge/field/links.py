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
STEADY_S: Final = 10.0  # a session that ends sooner has settled nothing
_TEXT_CHARS: Final = 500


class LinkAlarms:
    """The alarms of one adapter's link. LINK_REFUSED at once, LINK_DOWN after `after_s` without a session, both cleared when one opens; BEYOND_LIMIT ends with its session, CERTIFICATE_ENDED with another certificate.

    A link that opens and is lost again and again (two hosts with one client id, a peer that hangs up at what it is told) is as good as down: after a
    session of less than `STEADY_S` the time without one goes on, and the next one has to last so long before it clears anything.
    """

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
        self._before_ns: int = self._since_ns
        self._opened_ns: int | None = None
        self._short = False  # the last session was too short
        self._reason = "it was never open"
        self._refusal = ""
        self._left_out = ""
        self._ended = ""
        # What the journal says; None = what an earlier process left there.
        self._told: dict[str, bool | None] = {DOWN: None, REFUSED: None, BEYOND: None, ENDED: None}

    def opened(self) -> None:
        """A session is open."""
        self._opened_ns = self._clock.mono_ns()
        if not self._short:
            self._settled()
        self._changed.set()

    def _settled(self) -> None:
        """The link is well again."""
        if self._since_ns is not None:
            self._before_ns = self._since_ns
        self._since_ns, self._refusal, self._short = None, "", False

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
        if self._opened_ns is not None:
            self._short = not self._steady()
            self._opened_ns = None
            if not self._short:
                self._since_ns = self._clock.mono_ns()
            elif self._since_ns is None:
                self._since_ns = self._before_ns
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
        if self._short and self._opened_ns is not None and self._steady():
            self._settled()
        down = self._since_ns is not None and self._down_s() >= self._after_s
        lasting = f" that lasted {STEADY_S:g} s" if self._short else ""
        text = f"no session{lasting} for {self._after_s:g} s: {self._reason}"
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

    def _steady(self) -> bool:
        """Whether the session that opened last has lasted."""
        return self._opened_ns is not None and (self._clock.mono_ns() - self._opened_ns) / 1e9 >= STEADY_S

    def _left_s(self) -> float | None:
        """How long until LINK_DOWN is due, or an open session has lasted; None when nothing is awaited."""
        if self._since_ns is None:
            return None
        waits = [] if self._told[DOWN] is True else [self._after_s - self._down_s()]
        if self._opened_ns is not None:
            waits.append(STEADY_S - (self._clock.mono_ns() - self._opened_ns) / 1e9)
        return max(0.001, min(waits)) if waits else None
