"""Brings the anchor to the places off this host: the newest one only, tried again with pauses, and never in anybody's way.

Nothing is queued: what is brought is made in the moment of the try, so there is nothing that could grow. Each place has a courier and a thread of its own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from bridge.anchoring.places import ANSWER_S, NotTaken, Place
from bridge.anchoring.thread import Apart, StillBusy
from bridge.clock import Clock
from bridge.config.anchors import AnchorPlace
from bridge.envelope import PublicKey
from bridge.envelope.keys import Signer
from bridge.errors import JournalFull, JournalUnusable
from bridge.journal.anchor import Anchor, AnchorVerdict, parse
from bridge.journal.evidence import Evidence
from bridge.journal.port import Journal

log = logging.getLogger(__name__)

T = TypeVar("T")

NOT_ACCEPTED: Final = "ANCHOR_PLACE"
CONTRADICTS: Final = "ANCHOR"
PAUSES_S: Final = (2.0, 5.0, 15.0, 30.0, 60.0, 300.0)
GRACE_S: Final = 3.0  # beyond the limit that the place itself keeps
LOOK_S: Final = 0.5
FINISH_S: Final = 3.0
_TEXT_CHARS: Final = 300


class Courier:
    """Everything about one place. `hold(text)` is called once when the place knows of blocks that this journal does not have."""

    def __init__(
        self,
        name: str,
        place: Place,
        options: AnchorPlace,
        *,
        evidence: Evidence,
        journal: Journal,
        clock: Clock,
        hold: Callable[[str], Awaitable[None]],
        signer: Signer | None = None,
        keys: Mapping[str, PublicKey] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._place = place
        self._options = options
        self._evidence = evidence
        self._journal = journal
        self._clock = clock
        self._hold = hold
        self._signer = signer
        self._keys = keys or {}
        self._sleep = sleep
        self._apart = Apart(f"anchor-{name}")
        self._changed = asyncio.Event()
        self._at_once = asyncio.Event()
        self._wanted = 0  # counts the news; what was accepted is known by the count of its try
        self._accepted = 0
        self._accepted_ns: int | None = None  # wall time of the newest anchor that was accepted
        self._tried_ns: int | None = None  # monotonic time of the last good try's begin
        self._due_ns: int | None = None  # monotonic time since when an anchor is due that was not accepted
        self._looked = not place.readable
        self._held = False
        self._told: dict[str, bool | None] = {NOT_ACCEPTED: None, CONTRADICTS: None}  # None: what an earlier run left

    def news(self, signed: bool) -> None:  # noqa: FBT001 - the word of a callback
        """There are new blocks, or signed heads (`signed`: then it is brought at once)."""
        self._wanted += 1
        self._changed.set()
        if signed:
            self._at_once.set()

    @property
    def age_s(self) -> float | None:
        """The age of the newest anchor that this place accepted from this run; None for none."""
        return None if self._accepted_ns is None else (self._clock.wall_ns() - self._accepted_ns) / 1e9

    @property
    def waiting_s(self) -> float:
        """For how long an anchor has been due that this place did not accept; 0 when it has the newest that was due."""
        return 0.0 if self._due_ns is None else (self._clock.mono_ns() - self._due_ns) / 1e9

    async def run(self) -> None:
        """Bring what is new until cancelled. Raises `JournalUnusable`."""
        failures = 0
        while True:
            await self._until_due()
            problem = await self.bring()
            failures = failures + 1 if problem else 0
            with suppress(JournalFull):  # told at the next try
                await self._tell(problem)
            if problem:
                pause_s = PAUSES_S[min(failures, len(PAUSES_S)) - 1]
                left_s = self._options.alarm_after - self.waiting_s
                await self._sleep(min(pause_s, left_s) if left_s > 0 else pause_s)

    async def finish(self, within_s: float = FINISH_S) -> None:
        """The last try at a stop, after `run` has ended."""
        if self._accepted == self._wanted:
            return
        with suppress(TimeoutError, JournalFull, JournalUnusable):
            async with asyncio.timeout(within_s):
                await self._apart.idle()
                problem = await self.bring()
                if not problem:
                    await self._tell("")
                    return
        log.warning("anchor_not_brought_at_the_stop", extra={"place": self.name})

    async def bring(self) -> str:
        """One try; '' or why the place does not have the newest anchor now."""
        number, began_ns = self._wanted, self._clock.mono_ns()
        if self._due_ns is None:
            self._due_ns = began_ns
        try:
            await self.look()
            wall_ns = self._clock.wall_ns()
            body = await self._evidence.anchor_body(self._signer)
            await self._asked(lambda: self._place.send(body), ANSWER_S + GRACE_S)
        except NotTaken as error:
            return str(error)[:_TEXT_CHARS]
        self._accepted, self._accepted_ns, self._tried_ns, self._due_ns = number, wall_ns, began_ns, None
        return ""

    async def look(self, within_s: float | None = None) -> None:
        """Compare what lies there with the journal, once. Raises `NotTaken` where that cannot be done, or must not be replaced."""
        if self._looked:
            return
        content = await self._asked(self._place.read, within_s or ANSWER_S + GRACE_S)
        found = None if content is None else parse(content)
        if content is not None and found is None:
            raise NotTaken("what lies there is no anchor; remove it, or name another place")
        if found is not None:
            await self._compare(found)
        with suppress(JournalFull):
            await self._set(CONTRADICTS, "")
        self._looked = True

    async def _compare(self, found: Anchor) -> None:
        """Raises `NotTaken` for an anchor that this journal does not stand up to.

        What this host's key did not sign, although it has one, may be anybody's: it holds nothing up, and another journal's is not replaced.
        """
        finding = await self._evidence.compare_elsewhere(found)
        if finding.verdict.safe:
            return
        if self._signer is not None and not found.signed_by(self._keys):
            if finding.verdict is AnchorVerdict.FOREIGN:
                raise NotTaken("the anchor that lies there is of another journal and not signed by this host's key")
            return
        text = f"{self.name}: {finding.text}"
        with suppress(JournalFull):
            await self._set(CONTRADICTS, text)
            if not self._held:
                await self._hold(text)
                self._held = True
        raise NotTaken(finding.text)

    async def _asked(self, work: Callable[[], T], within_s: float) -> T:
        try:
            return await self._apart.run(work, within_s)
        except TimeoutError as error:
            self._place.interrupt()
            raise NotTaken(f"no answer within {within_s:g} s") from error
        except StillBusy as error:
            raise NotTaken("the try before has not come to an end") from error
        except asyncio.CancelledError:
            self._place.interrupt()
            raise

    async def _until_due(self) -> None:
        """Wait for something new, and then until the place's interval is over; signed heads wait for nothing."""
        while self._accepted == self._wanted:
            self._changed.clear()
            await self._changed.wait()
        if self._due_ns is not None or self._tried_ns is None:
            self._at_once.clear()
            return
        left_s = self._options.every - (self._clock.mono_ns() - self._tried_ns) / 1e9
        if left_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._at_once.wait()
        self._at_once.clear()

    # what people are told --------------------------------------------------------------------------------------------

    async def _tell(self, problem: str) -> None:
        if not problem:
            await self._set(NOT_ACCEPTED, "")
        elif self.waiting_s >= self._options.alarm_after:
            await self._set(NOT_ACCEPTED, f"no anchor was accepted for {self._options.alarm_after:g} s: {problem}")

    async def _set(self, code: str, text: str) -> None:
        """Raise it once, or clear it once, the one of an earlier run too."""
        if self._told[code] is bool(text):
            return
        if text:
            log.warning("anchor_not_at_its_place", extra={"place": self.name, "cause": text})
        await self._journal.alarm(code, subject=self.name, text=text, clear=not text)
        self._told[code] = bool(text)


class Couriers:
    """The couriers of all places."""

    def __init__(self, couriers: Sequence[Courier], journal: Journal) -> None:
        self._couriers = couriers
        self._journal = journal

    def __iter__(self) -> Iterator[Courier]:
        """Each of them."""
        return iter(self._couriers)

    def news(self, signed: bool) -> None:  # noqa: FBT001 - the word of a callback
        """See `Courier.news`."""
        for courier in self._couriers:
            courier.news(signed)

    async def look(self, within_s: float = LOOK_S) -> None:
        """Compare with the journal what lies at those places that can be read. Whoever takes longer is asked again later: a start does not wait for it."""
        await asyncio.gather(*(self._looked(courier, within_s) for courier in self._couriers))

    async def run(self) -> None:
        """Work until cancelled. Raises `JournalUnusable`."""
        with suppress(JournalFull):
            await self._forget()
        async with asyncio.TaskGroup() as group:
            for courier in self._couriers:
                group.create_task(courier.run())

    async def finish(self) -> None:
        """The last tries of a stop, side by side and for a short time."""
        await asyncio.gather(*(courier.finish() for courier in self._couriers))

    async def _looked(self, courier: Courier, within_s: float) -> None:
        with suppress(NotTaken, JournalFull):
            await courier.look(within_s)

    async def _forget(self) -> None:
        """Alarms of places that the configuration no longer names."""
        names = {courier.name for courier in self._couriers} | {""}
        for row in await self._journal.alarms():
            if row.code in (NOT_ACCEPTED, CONTRADICTS) and row.subject not in names:
                await self._journal.alarm(row.code, subject=row.subject, clear=True)
