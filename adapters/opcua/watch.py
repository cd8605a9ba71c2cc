"""What the subscription said last: which records are due to be read, and whether the link still lives. Touches no library."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from adapters.opcua.places import Place
from bridge.api import Clock, LinkError, Quality, Reading


@dataclass(slots=True, kw_only=True, eq=False)
class Watched:
    """A place and the latest that is known of its trigger. `seen` is what the last returned record answered to."""

    place: Place
    request: int | None = None
    sequence: int | None = None
    seen: object = None
    lived: bool = False  # the server told of its nodes

    @property
    def asks(self) -> bool:
        """Whether the trigger asks for something that was not returned yet. A request that a method numbers is told by its own value alone."""
        if self.place.method is not None:
            answered = self.seen[0] if isinstance(self.seen, tuple) else 0
            return bool(self.request) and answered != self.request
        return bool(self.request) and self.sequence is not None and self.seen != (self.request, self.sequence)

    def note_request(self, reading: Reading) -> None:
        """The trigger's value; back to zero arms it again."""
        self.request = whole(reading)
        if self.request == 0:
            self.seen = None

    def note_sequence(self, reading: Reading) -> None:
        """The sequence's value."""
        self.sequence = whole(reading)


class Handle(NamedTuple):
    """A node that is watched for a record: the request or sequence that asks for it, or under `change` one of its nodes, `at` of its place."""

    watched: Watched
    role: str
    node: Any
    at: int | None = None
    deadband: float = 0.0


def whole(reading: Reading) -> int | None:
    """A good whole number; None for anything else, which then asks for nothing."""
    if reading.quality is Quality.GOOD and isinstance(reading.value, int):
        return int(reading.value)
    return None


class Due:
    """Records to be read, each at most once however often it changed, so the queue never outgrows the number of places."""

    def __init__(self) -> None:
        self._waiting: dict[Watched, None] = {}
        self.stirred = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, watched: Watched) -> None:
        """This record must be read."""
        self._waiting[watched] = None
        self.stirred.set()

    def drop(self, watched: Watched) -> None:
        """This record need not be read any more."""
        self._waiting.pop(watched, None)

    def take(self, limit: int) -> list[Watched]:
        """The longest waiting ones."""
        taken = list(self._waiting)[:limit]
        for watched in taken:
            del self._waiting[watched]
        return taken


class Changes:
    """What each watched node held when its record was read last, so that what did not move since, or less than its deadband, wakes nobody."""

    def __init__(self) -> None:
        self._taken: dict[Watched, Sequence[tuple[object, object]]] = {}

    def take(self, watched: Watched, held: Sequence[tuple[object, object]]) -> None:
        """This, status and value of each node, is in the record that is read now; slow drift is measured against it, and so is seen in the end."""
        self._taken[watched] = held

    def matters(self, watched: Watched, at: int, status: object, value: object, deadband: float) -> bool:
        """Whether this differs from what the record held."""
        before = self._taken.get(watched)
        return before is None or before[at][0] != status or not _near(before[at][1], value, deadband)


def _near(before: object, now: object, deadband: float) -> bool:
    if isinstance(before, int | float) and isinstance(now, int | float) and not isinstance(now, bool):
        return abs(now - before) <= deadband or (before != before and now != now)  # noqa: PLR0124 - not a number stays so
    return type(before) is type(now) and before == now


class Rhythm:
    """When the next poll begins: on a grid that does not drift, whatever a poll takes; a beat that was missed is left out."""

    def __init__(self, clock: Clock, interval_s: float) -> None:
        self._clock = clock
        self._interval_ns = round(interval_s * 1e9)
        self._next_ns = clock.mono_ns() + self._interval_ns
        self._began_ns: int | None = None

    def pace(self, interval_s: float) -> None:
        """At this interval from the next poll on, which stays at its time."""
        self._interval_ns = round(interval_s * 1e9)

    def left_s(self) -> float:
        """Seconds until the next poll; never below 0."""
        return max(0, self._next_ns - self._clock.mono_ns()) / 1e9

    def begin(self) -> float | None:
        """A poll begins now; returns the seconds since the one before, None for the first."""
        now, before = self._clock.mono_ns(), self._began_ns
        self._began_ns = now
        self._next_ns += (max(0, now - self._next_ns) // self._interval_ns + 1) * self._interval_ns
        return None if before is None else (now - before) / 1e9


class Pulse:
    """Publish responses as a sign of life, and their numbering as proof that none was lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limit_s = 0.0
        self._beat_ns = clock.mono_ns()
        self._beats = False
        self._number: int | None = None

    def start(self, limit_s: float) -> None:
        """From now on a silence longer than this is a lost link."""
        self._limit_s = limit_s
        self._beat_ns = self._clock.mono_ns()

    def beat(self) -> float | None:
        """A publish response came; returns the seconds since the one before, None for the first."""
        before_ns, self._beat_ns = self._beat_ns, self._clock.mono_ns()
        first, self._beats = not self._beats, True
        return None if first else (self._beat_ns - before_ns) / 1e9

    def left_s(self) -> float:
        """Seconds until the silence is too long."""
        return self._limit_s - (self._clock.mono_ns() - self._beat_ns) / 1e9

    def number(self, number: int) -> None:
        """The number of a notification message; raises `LinkError` when one before it never came (OPC 10000-4, 5.14.1: 1 follows 2^32-1)."""
        expected = None if self._number is None else self._number % (2**32 - 1) + 1
        if expected is not None and number != expected:
            raise LinkError(f"notification {expected} was lost: {number} came")
        self._number = number


def is_repeat(watched: Watched, content: Any) -> bool:
    """Whether this was returned already; remembers it otherwise."""
    if watched.seen == content:
        return True
    watched.seen = content
    return False
