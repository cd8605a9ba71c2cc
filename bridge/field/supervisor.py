"""Keeps one session of one adapter open: a new one for every attempt, with backoff and jitter, under a deadline that no library can swallow."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from bridge.api import Adapter, Session, SessionContext
from bridge.clock import Clock
from bridge.errors import BridgeError, Fenced, JournalUnusable, LinkError, LinkRefused
from bridge.field.alarmword import AlarmWords
from bridge.field.certificates import PeerWatch
from bridge.field.intake import IntakeDesk
from bridge.field.links import STEADY_S, LinkAlarms
from bridge.field.recollection import Recollection
from bridge.field.report import FieldMetrics
from bridge.field.waiting import WaitingRoom, awaiting_by_place
from bridge.field.writeback import WriteBacks
from bridge.flow import FlowPlan
from bridge.journal.port import Candidate, Journal

log = logging.getLogger(__name__)

OPEN_DEADLINE_S: Final = 30.0
CLOSE_GRACE_S: Final = 5.0
FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 5.0
# Longer than for a lost link, and short enough for one that broke in such a way that it looked like a refusal: a peer that hangs up while
# it is being secured, say. Such a link too is back within 10 s of its peer's return.
REFUSED_DELAY_S: Final = 6.0
_ERROR_CHARS: Final = 500


class Supervisor:
    """The owner task of one adapter of one site."""

    def __init__(
        self,
        *,
        site: str,
        name: str,
        adapter: Adapter,
        options: Any,
        plans: Mapping[str, FlowPlan],
        journal: Journal,
        desk: IntakeDesk,
        writebacks: WriteBacks,
        clock: Clock,
        metrics: FieldMetrics,
        links: LinkAlarms,
        words: AlarmWords | None = None,
        word: Any = None,
        client_id: str,
        jitter: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        certified: Callable[[], None] = lambda: None,
    ) -> None:
        """`certified` is called when the EMS showed a certificate that was not known yet; its end is in `certificate_ends_ns`."""
        self._site = site
        self._name = name
        self._adapter = adapter
        self._options = options
        self._plans = plans
        self._journal = journal
        self._desk = desk
        self._writebacks = writebacks
        self._clock = clock
        self._metrics = metrics
        self._links = links
        self._words = words
        self._word = word
        self._client_id = client_id
        self._jitter = jitter
        self._sleep = sleep
        self._peer = PeerWatch(clock, links.ended, certified)
        self._room = WaitingRoom(plans=plans, desk=desk, clock=clock)

    @property
    def link(self) -> tuple[str, str]:
        """Site and adapter."""
        return self._site, self._name

    @property
    def certificate_ends_ns(self) -> int:
        """When the certificate ends that the EMS showed last (UTC ns); 0 where none was."""
        return self._peer.ends_ns

    async def run(self) -> None:
        """Open, serve, and open again until cancelled. Only a failure of the journal or of the lease ends it by itself."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._links.run())
                await self._sessions()
        except BaseExceptionGroup as error:
            raise _leaf(error) from error

    async def _sessions(self) -> None:
        failures = 0
        self._metrics.link(self._site, self._name, up=False)
        while True:
            started = self._clock.mono_ns()
            error = await self._one_session()
            steady = (self._clock.mono_ns() - started) / 1e9 > STEADY_S
            failures = 1 if steady else failures + 1
            told = f"{type(error).__name__}: {error}"[:_ERROR_CHARS]
            self._links.lost(error)
            self._metrics.broke(self._site, self._name, told)
            self._say(error, told, failures)
            await self._sleep(self._delay(error, failures))

    def _delay(self, error: BaseException, failures: int) -> float:
        if isinstance(error, LinkRefused):
            return REFUSED_DELAY_S * (0.75 + 0.5 * self._jitter())
        base = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 10))
        return base * (0.5 + 0.5 * self._jitter())

    def _say(self, error: BaseException, told: str, failures: int) -> None:
        """The first failure of a row is a warning, the rest are counted by the metric."""
        level = logging.WARNING if failures == 1 else logging.DEBUG
        if not isinstance(error, BridgeError):
            level = logging.ERROR
        fields = {
            "site": self._site,
            "adapter": self._name,
            "error": told,
            "hint": getattr(error, "hint", ""),
        }
        log.log(level, "link_lost", extra=fields, exc_info=error if level == logging.ERROR else None)

    async def _one_session(self) -> BaseException:
        """Run one session to its end in a task of its own and return why it ended; journal failures are raised."""
        opened = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._serve(opened), name=f"session:{self._site}/{self._name}")
        try:
            await _first(task, opened, OPEN_DEADLINE_S)
            if not opened.is_set() and not task.done():
                return await self._abandon(task, LinkError(f"no session within {OPEN_DEADLINE_S:g} s"))
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await self._abandon(task, LinkError("stopped"))
            raise
        finally:
            self._metrics.link(self._site, self._name, up=False)
        return _reason(task)

    async def _abandon(self, task: "asyncio.Task[None]", error: LinkError) -> BaseException:
        """Cancel a session; one that swallows the cancellation is left behind, so that it can never block a new one."""
        task.cancel()
        await asyncio.wait({task}, timeout=CLOSE_GRACE_S)
        if not task.done():
            log.error("session_abandoned", extra={"site": self._site, "adapter": self._name})
            return error
        if task.cancelled():
            return error
        found = task.exception()
        return error if found is None else _leaf(found)

    async def _serve(self, opened: asyncio.Event) -> None:
        awaited = await self._journal.awaited(self._site)
        context = SessionContext(
            site=self._site,
            adapter=self._name,
            options=self._options,
            selections=[plan.selection(awaiting_by_place(awaited, name)) for name, plan in self._plans.items()],
            clock=self._clock,
            heard=lambda: self._metrics.heard(self._site, self._name, self._clock.mono_ns()),
            client_id=self._client_id,
            word=self._word,
            intervals=self._metrics.intervals(self._site, self._name),
            lost=lambda count: self._metrics.lost(self._site, self._name, count),
            beyond=self._links.beyond,
            certified=self._peer.show,
            ahead=self._desk.ahead,
        )
        async with self._adapter.open(context) as session:
            opened.set()
            log.info("link_open", extra={"site": self._site, "adapter": self._name})
            self._metrics.link(self._site, self._name, up=True)
            self._links.opened()
            self._room.rearm(awaited)
            talk = asyncio.Lock()  # a session reads and writes for one task at a time
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reading(session, talk))
                group.create_task(self._writebacks.run(session, talk))
                group.create_task(self._room.run(session))
                group.create_task(self._peer.run())
                if self._words is not None:
                    group.create_task(self._words.run(session, talk))

    async def _reading(self, session: Session, talk: asyncio.Lock) -> None:
        """Read until told to end. A reader that is cancelled by nobody but its own library is a lost link: its group would take it for one that was told to."""
        task = asyncio.get_running_loop().create_task(self._receive(session, talk))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()  # what it has to say of its own end comes first
            raise
        if task.cancelled():
            raise LinkError("reading was cancelled from inside")
        task.result()

    async def _receive(self, session: Session, talk: asyncio.Lock) -> None:
        recollection = Recollection(site=self._site, plans=self._plans, journal=self._journal)

        async def look(candidates: Sequence[Candidate]) -> None:
            unseen = recollection.unseen(candidates)
            if unseen:
                async with talk:
                    await recollection.look(session, unseen)

        while True:
            arrivals = await session.receive()
            intake = await self._desk.take(arrivals, look if session.can_read else None)
            self._room.note(arrivals, intake)


async def _first(task: "asyncio.Task[None]", opened: asyncio.Event, deadline_s: float) -> None:
    """Wait until the session is open, or has failed, or the deadline is over."""
    waiter = asyncio.get_running_loop().create_task(opened.wait())
    try:
        await asyncio.wait({task, waiter}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        await asyncio.wait({waiter})


def _reason(task: "asyncio.Task[None]") -> BaseException:
    if task.cancelled():
        return LinkError("the session was cancelled from inside")
    error = task.exception()
    if error is None:
        return LinkError("the session ended by itself")
    leaf = _leaf(error)
    if isinstance(leaf, JournalUnusable | Fenced):
        raise leaf
    return leaf


def _leaf(error: BaseException) -> BaseException:
    """The most telling error of a group: a failing journal first, then a refusal, then a lost link, then whatever is there."""
    leaves = list(_leaves(error))
    for kind in (JournalUnusable, Fenced, LinkRefused):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    strange = [leaf for leaf in leaves if not isinstance(leaf, LinkError | asyncio.CancelledError)]
    return (strange or leaves)[0]


def _leaves(error: BaseException) -> "list[BaseException]":
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
