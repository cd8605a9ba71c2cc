"""Whose turn it is on a connection that several adapters share: one request at a time, in fair turn, and nobody pays for long for another's trouble.

Two rules keep the others' poll period. A unit that did not answer is asked again after one of its time-outs, then three, then nine each time.
A unit whose answer took longer than half the shortest poll of the others stands back for four times as long, at most two seconds.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

BACK_OFF: Final = (1, 3, 9)
"""In time-outs, for the first, the second and every further silence in a row: in the long run a dead unit takes a tenth of the line."""
STAND_BACK: Final = 4
"""In answers: a slow unit takes a fifth of the line."""
LONGEST_STAND_BACK_S: Final = 2.0  # a session opens within 30 s or not at all, and that takes a handful of requests
SLOW: Final = 0.5
"""In polls of the others: what takes no longer than this delays a poll, but never loses one."""


class Gone(Exception):
    """This adapter left while it waited for its turn."""


@dataclass(slots=True)
class Counts:
    """What one unit asked and got, since the line was opened; seconds on the line, and seconds in which it waited for its turn."""

    requests: int = 0
    answers: int = 0
    exceptions: int = 0
    silences: int = 0
    line_s: float = 0.0
    waited_s: float = 0.0


@dataclass(slots=True)
class Unit:
    """What is known of one unit identifier; it outlives the sessions of its adapters."""

    counts: Counts = field(default_factory=Counts)
    in_a_row: int = 0
    """How often in a row it did not answer."""
    shut_until: float = 0.0
    """It is not asked before, for a late answer may still be on its way, or none will come."""
    back_until: float = 0.0
    """It is not asked before unless everybody stands back."""

    def fell_silent(self, now: float, timeout_s: float) -> None:
        """No answer, or none that can be used."""
        self.shut_until = now + timeout_s * BACK_OFF[min(self.in_a_row, len(BACK_OFF) - 1)]
        self.in_a_row += 1
        self.counts.silences += 1

    def answered(self, now: float, took_s: float, others_poll_s: float | None) -> None:
        """An answer after so long; `others_poll_s` is the shortest poll of the others, None where there are none."""
        self.in_a_row = 0
        self.counts.answers += 1
        if others_poll_s is not None and took_s > SLOW * others_poll_s:
            self.back_until = now + min(STAND_BACK * took_s, LONGEST_STAND_BACK_S)


@dataclass(slots=True, eq=False)
class Seat:
    """One adapter at the line."""

    unit: Unit
    poll_s: float
    last: int = 0
    """The number of its last turn."""
    waiting: "deque[asyncio.Future[None]]" = field(default_factory=deque)


def chosen(seats: Iterable[Seat], now: float) -> Seat | None:
    """Who is next: of those that wait and may ask, the one whose last turn is longest ago. One that stands back goes first only where all others do, too."""
    seats = list(seats)
    all_back = all(max(seat.unit.back_until, seat.unit.shut_until) > now for seat in seats)
    may = [
        seat
        for seat in seats
        if seat.waiting and seat.unit.shut_until <= now and (all_back or seat.unit.back_until <= now)
    ]
    return min(may, key=lambda seat: seat.last, default=None)


class Turns:
    """Gives one seat after the other its turn. `now` is the loop's clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._taken = False
        self._number = 0
        self._alarm: asyncio.TimerHandle | None = None
        self.seats: list[Seat] = []

    def leave(self, seat: Seat) -> None:
        """This seat asks no more; whoever waits on it is told `Gone`."""
        if seat in self.seats:
            self.seats.remove(seat)
        while seat.waiting:
            future = seat.waiting.popleft()
            if not future.done():
                future.set_exception(Gone())
        self._next()

    async def take(self, seat: Seat) -> None:
        """Wait for a turn, which is over with `give`; where the line is free it begins at once. Raises `Gone`."""
        if seat not in self.seats:
            raise Gone
        if self._free(seat):
            self._grant(seat)
            return
        future = self._loop.create_future()
        seat.waiting.append(future)
        began = self._loop.time()
        self._next()
        try:
            await future
        except asyncio.CancelledError:
            if future in seat.waiting:
                seat.waiting.remove(future)
            elif not future.cancelled() and future.exception() is None:
                self.give()  # it was granted in the moment of the cancellation
            raise
        seat.unit.counts.waited_s += self._loop.time() - began

    def give(self) -> None:
        """The turn is over; the next one begins."""
        self._taken = False
        self._next()

    def _next(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        waiting = [seat for seat in self.seats if seat.waiting]
        if self._taken or not waiting:
            return
        now = self._loop.time()
        seat = chosen(self.seats, now)
        if seat is None:
            first = min(max(seat.unit.shut_until, seat.unit.back_until) for seat in waiting)
            self._alarm = self._loop.call_at(first, self._next)
            return
        future = seat.waiting.popleft()
        if future.done():  # cancelled, and its task has not run yet
            self._next()
            return
        self._grant(seat)
        future.set_result(None)

    def _free(self, seat: Seat) -> bool:
        """Whether this seat may go at once: nobody has the turn, and its unit may be asked. Who waits meanwhile might not ask, as a rule; one whose time has just come is overtaken once."""
        return not self._taken and max(seat.unit.shut_until, seat.unit.back_until) <= self._loop.time()

    def _grant(self, seat: Seat) -> None:
        self._number += 1
        seat.last = self._number
        self._taken = True
