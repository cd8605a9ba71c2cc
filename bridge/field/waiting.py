"""Requests whose retained registration has not come yet: how long they may wait, and what happens then."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from bridge.api import Arrival, CatchingUp, Session
from bridge.clock import Clock, Stamp
from bridge.field.intake import IntakeDesk
from bridge.flow import FlowPlan
from bridge.journal.port import Awaited, Intake
from bridge.submission import Admission

JUDGED_AFTER_S: Final = 1.0  # what came last is on its way through the host


class _Waiter(NamedTuple):
    """Until when a request waits (monotonic ns), when it came, and whether everything that the EMS had said by then is known to have come."""

    limit_ns: int
    received: Stamp
    last: bool = False


class WaitingRoom:
    """The waiting requests of one session. Time counts only while the session is open: without it no registration can arrive.

    A slow or silent link is no reason to refuse either: where messages stand in line, they are all heard first.
    """

    def __init__(self, *, plans: Mapping[str, FlowPlan], desk: IntakeDesk, clock: Clock) -> None:
        self._plans = plans
        self._desk = desk
        self._clock = clock
        self._due: dict[tuple[str, str, str], _Waiter] = {}
        self._changed = asyncio.Event()

    def rearm(self, awaited: Iterable[Awaited]) -> None:
        """Start anew with what the journal still holds (after a restart or reconnect)."""
        self._due = {
            (name, place, request): _Waiter(self._limit(name), received)
            for name, place, request, received in awaited
            if name in self._plans
        }
        self._changed.set()

    def note(self, arrivals: Sequence[Arrival], intake: Intake) -> None:
        """Take in what the last commit made of the arrivals: new waiters, and waiters that are complete now."""
        records = (record for arrival in arrivals for record in arrival.records)
        for record, accepted in zip(records, intake.accepted, strict=True):
            if record.request is None:
                continue
            waiter = (record.flow, record.place, record.request)
            if accepted.admission is Admission.REQUESTED:
                self._due[waiter] = _Waiter(self._limit(record.flow), record.received)
                self._changed.set()
            elif record.complete:
                self._due.pop(waiter, None)

    async def run(self, session: Session) -> None:
        """Refuse each request whose time is over; ends only by cancellation. Raises `LinkError` when a link that is asked gives no answer."""
        while True:
            self._changed.clear()
            await self._refuse(self._over(), session)
            next_ns = min((waiter.limit_ns for waiter in self._due.values()), default=None)
            timeout_s = None if next_ns is None else max(0.0, (next_ns - self._clock.mono_ns()) / 1e9)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _over(self) -> list[tuple[str, str, str]]:
        """Those whose time is over, the longest first."""
        now = self._clock.mono_ns()
        late = [(waiter.limit_ns, key) for key, waiter in self._due.items() if waiter.limit_ns <= now]
        return [key for _, key in sorted(late)]

    async def _refuse(self, late: Sequence[tuple[str, str, str]], session: Session) -> None:
        early = [key for key in late if not self._due[key].last] if isinstance(session, CatchingUp) else []
        if early:
            assert isinstance(session, CatchingUp)
            await session.caught_up()
            limit_ns = self._clock.mono_ns() + int(JUDGED_AFTER_S * 1e9)
            for key in early:
                if key in self._due:
                    self._due[key] = _Waiter(limit_ns, self._due[key].received, last=True)
        for key in late:
            waiter = self._due.get(key)
            if waiter is None or waiter.limit_ns > self._clock.mono_ns():
                continue
            del self._due[key]
            name, place, request = key
            await self._desk.refuse_unregistered(self._plans[name], place, request, waiter.received)

    def _limit(self, flow: str) -> int:
        return self._clock.mono_ns() + int(self._plans[flow].registration_wait_s * 1e9)


def awaiting_by_place(awaited: Sequence[Awaited], flow: str) -> Mapping[str, tuple[str, ...]]:
    """The journal's awaited requests of one flow, as `Selection.awaiting` wants them."""
    places: dict[str, list[str]] = {}
    for entry in awaited:
        if entry.flow == flow:
            places.setdefault(entry.place, []).append(entry.request)
    return {place: tuple(requests) for place, requests in places.items()}
