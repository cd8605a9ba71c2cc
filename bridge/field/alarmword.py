"""The alarm word of a site: one value in its EMS whose bits say which alarms of the site stand, written whenever it changes and on each new session."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bridge.api import AlarmWord, Session, WordSession
from bridge.clock import Clock
from bridge.errors import JournalFull, LinkError
from bridge.journal.alarms import AlarmBit, bits_of
from bridge.journal.port import Journal
from bridge.journal.store import ALARMS

log = logging.getLogger(__name__)

RETRY_DELAYS_S: Final = (1, 2, 4, 8, 16, 30)
TRIES_BEFORE_ALARM: Final = 10
WRITE_S: Final = 10.0
CODE: Final = "ALARM_WORD"


class AlarmWords:
    """The alarm word of one site, on whatever session of its adapter is open.

    A word that the EMS does not take is tried again, and after some tries an alarm of its own; outcomes go on. One that costs the session waits longer
    on each of the next ones before it is tried, so that outcomes come first there.
    """

    def __init__(
        self,
        *,
        site: str,
        adapter: str,
        participants: Sequence[str],
        journal: Journal,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._site = site
        self._adapter = adapter
        self._participants = tuple(participants)
        self._journal = journal
        self._clock = clock
        self._sleep = sleep
        self._woken = journal.woken(ALARMS)
        self._lost = 0
        self._failed = 0
        self._alarmed: bool | None = None  # None = what an earlier process left there

    def look(self) -> None:
        """Something changed that is no row yet: the journal is full."""
        self._woken.set()

    async def run(self, session: Session, talk: asyncio.Lock) -> None:
        """Keep the word of this session right until it ends (`LinkError`) or the task is cancelled. `talk` is held while the session is asked."""
        if self._lost:
            await self._sleep(_delay_s(self._lost))
        written: AlarmBit | None = None
        while True:
            self._woken.clear()
            bits = await self._bits()
            if bits == written:
                await self._woken.wait()
                continue
            error = await self._write(session, talk, bits)
            if not error:
                written = bits
                await self._tell("")
                continue
            await self._tell(error)
            await self._pause(_delay_s(self._failed))

    async def _bits(self) -> AlarmBit:
        bits = bits_of(await self._journal.alarm_codes(self._site, self._participants))
        return bits | AlarmBit.JOURNAL_FULL if self._journal.full else bits

    async def _write(self, session: Session, talk: asyncio.Lock, bits: AlarmBit) -> str:
        words = tuple(bit.word for bit in AlarmBit if bit in bits)
        word = AlarmWord(bits=int(bits), words=words, at_ns=self._clock.wall_ns())
        try:
            async with talk:
                error = await _in_time(session, word)
        except LinkError:
            self._lost += 1
            raise
        self._lost = 0
        self._failed = self._failed + 1 if error else 0
        if self._failed == 1:
            log.warning("alarm_word_refused", extra={"site": self._site, "adapter": self._adapter, "error": error})
        return error

    async def _tell(self, error: str) -> None:
        """Raise the word's own alarm after enough tries, clear it once the word stands."""
        stands = self._failed >= TRIES_BEFORE_ALARM
        if self._alarmed is stands or (error and not stands):
            return
        try:
            await self._journal.alarm(CODE, site=self._site, subject=self._adapter, text=error, clear=not stands)
            self._alarmed = stands
        except JournalFull:
            return  # told at the next try or change

    async def _pause(self, seconds: float) -> None:
        """Until the next try, or until the word is another one."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return


async def _in_time(session: Session, word: AlarmWord) -> str:
    """Why the word does not stand in the EMS, '' when it does. One that takes too long costs the session, as any cancelled call does."""
    if not isinstance(session, WordSession):
        return "the adapter's session takes no alarm word"
    try:
        async with asyncio.timeout(WRITE_S):
            return await session.write_word(word)
    except TimeoutError as error:
        raise LinkError(f"the alarm word was not written within {WRITE_S:g} s") from error


def _delay_s(tries: int) -> float:
    return float(RETRY_DELAYS_S[min(tries, len(RETRY_DELAYS_S)) - 1])
