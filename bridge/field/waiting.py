"""Requests whose retained registration has not come yet: how long they may wait, and what happens then."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from bridge.api import Arrival
from bridge.clock import Clock, Stamp
from bridge.field.intake import IntakeDesk
from bridge.flow import FlowPlan
from bridge.journal.port import Awaited, Intake
from bridge.submission import Admission


class WaitingRoom:
    """The waiting requests of one session. Time counts only while the session is open: without it no registration can arrive."""

    def __init__(self, *, plans: Mapping[str, FlowPlan], desk: IntakeDesk, clock: Clock) -> None:
        self._plans = plans
        self._desk = desk
        self._clock = clock
        self._due: dict[tuple[str, str, str], tuple[int, Stamp]] = {}
        self._changed = asyncio.Event()

    def rearm(self, awaited: Iterable[Awaited]) -> None:
        """Start anew with what the journal still holds (after a restart or reconnect)."""
        self._due = {
            (name, place, request): (self._limit(name), received)
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
                self._due[waiter] = (self._limit(record.flow), record.received)
                self._changed.set()
            elif record.complete:
                self._due.pop(waiter, None)

    async def run(self) -> None:
        """Refuse each request whose time is over; ends only by cancellation."""
        while True:
            self._changed.clear()
            now = self._clock.mono_ns()
            for waiter, (limit, received) in sorted(self._due.items(), key=lambda entry: entry[1][0]):
                if limit > now:
                    break
                self._due.pop(waiter, None)
                name, place, request = waiter
                await self._desk.refuse_unregistered(self._plans[name], place, request, received)
            next_ns = min((limit for limit, _ in self._due.values()), default=None)
            timeout_s = None if next_ns is None else max(0.0, (next_ns - self._clock.mono_ns()) / 1e9)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _limit(self, flow: str) -> int:
        return self._clock.mono_ns() + int(self._plans[flow].registration_wait_s * 1e9)


def awaiting_by_place(awaited: Sequence[Awaited], flow: str) -> Mapping[str, tuple[str, ...]]:
    """The journal's awaited requests of one flow, as `Selection.awaiting` wants them."""
    places: dict[str, list[str]] = {}
    for entry in awaited:
        if entry.flow == flow:
            places.setdefault(entry.place, []).append(entry.request)
    return {place: tuple(requests) for place, requests in places.items()}
