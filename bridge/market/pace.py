"""When a call may leave: rate (token bucket), concurrency, circuit. Decided here, without I/O."""

from collections.abc import Callable, Sequence
from typing import Final

from bridge.clock import Clock
from bridge.latency import Wait

LONG_PAUSE_S: Final = 300.0  # of one that the platform asks for: a person should hear that so long nothing leaves
LONGEST_PAUSE_S: Final = 24 * 3600.0  # whatever a Retry-After says: a date in the year 9999 must not silence an account
CIRCUIT_DELAYS_S: Final = (5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FAILURES_IN_A_ROW: Final = (
    3  # calls of whichever submissions, after which one at a time feels whether the platform is back
)


class Pace:
    """The gates of one participant. `rate_per_s` 0 means no limit of rate."""

    def __init__(
        self,
        *,
        clock: Clock,
        rate_per_s: float,
        burst: float,
        concurrency: int,
        jitter: Callable[[], float],
        circuit_s: Sequence[float] = CIRCUIT_DELAYS_S,
        held: Callable[[], bool] = lambda: False,
    ) -> None:
        """`held` says whether the host's clock is too wrong to sign anything; whoever knows it wakes the sender when that ends."""
        self._clock = clock
        self._rate = rate_per_s
        self._burst = max(1.0, burst)
        self._concurrency = concurrency
        self._jitter = jitter
        self._circuit_s = circuit_s
        self._held = held
        self._level = self._burst
        self._filled_ns = clock.mono_ns()
        self._open_until_ns = 0
        self._asked_until_ns = 0  # as the platform said, however well it answers other calls
        self._paused_until_ns = 0  # when the last pause was over, or will be
        self._held_until_ns = 0
        self._trips = 0
        self._failures = 0
        self._doubts = 0
        self._poll_waits = False
        self._poll_is_next = False
        self._open_reason = ""
        self._asked_reason = ""
        self.in_flight = 0
        self.told = True
        """Whether an alarm may stand that says that the circuit is open: by an earlier run, perhaps."""

    @property
    def circuit_open(self) -> bool:
        """Whether sending is paused."""
        return self._clock.mono_ns() < self._shut_until_ns

    @property
    def _shut_until_ns(self) -> int:
        return max(self._open_until_ns, self._asked_until_ns)

    @property
    def reason(self) -> str:
        """Why sending is paused, by the pause that lasts longest; '' where it is not."""
        if not self.circuit_open:
            return ""
        return self._asked_reason if self._asked_until_ns >= self._open_until_ns else self._open_reason

    @property
    def asked_s(self) -> float:
        """Seconds that are left of a pause that the platform asked for; 0 without one."""
        return max(0, self._asked_until_ns - self._clock.mono_ns()) / 1e9

    @property
    def held(self) -> bool:
        """Whether nothing may be signed now, whatever the other gates say."""
        return self._held()

    def let_go(self) -> None:
        """The clock, or whoever else `held` speaks for, lets calls leave again."""
        self._held_until_ns = self._clock.mono_ns()

    def shut_since(self, mono_ns: int) -> Wait | None:
        """Which gate was shut at some time after this moment; None when all were open, whatever rate and concurrency said."""
        if self._held_until_ns > mono_ns:
            return Wait.CLOCK
        return Wait.CIRCUIT if self._paused_until_ns > mono_ns else None

    def free(self) -> bool:
        """Whether a call may leave now."""
        return (
            self.in_flight < self._room and not self.circuit_open and not self._held() and self._fill() >= self._needed
        )

    def slots(self) -> int:
        """How many calls may leave now."""
        if not self.free():
            return 0
        room = self._room - self.in_flight
        return min(room, max(1, int(self._fill() - self._needed + 1.0))) if self._rate else room

    @property
    def _needed(self) -> float:
        """What the bucket must hold before a call may leave; a poll that waits gets every other token."""
        return 2.0 if self._poll_is_next else 1.0

    def poll_wait_s(self) -> float:
        """Take a token for a status poll and return 0, or the seconds after which to ask again: polls count against the same rate."""
        if not self._rate:
            return 0.0
        missing = 1.0 - self._fill()
        self._poll_waits = missing > 0
        if missing > 0:
            return max(0.001, missing / self._rate)
        self._level -= 1.0
        self._poll_is_next = False
        return 0.0

    @property
    def _room(self) -> int:
        """Calls that may be under way: after a pause one alone goes first, so that what waited does not fall upon a platform that is not back."""
        return 1 if self._trips or self._failures >= FAILURES_IN_A_ROW else self._concurrency

    def take(self) -> None:
        """Count a call that leaves."""
        self._fill()
        if self._rate:
            self._level -= 1.0
            self._poll_is_next = self._poll_waits
        self.in_flight += 1

    def give_back(self, *, unused: bool = False) -> None:
        """A call ended; `unused` when it never left, so that it costs no rate either."""
        self.in_flight -= 1
        if unused and self._rate:
            self._level = min(self._burst, self._level + 1.0)

    def trip(self, reason: str, *, delay_s: float | None = None) -> float:
        """Open the circuit: nothing leaves for a while, longer each time in a row; returns the pause in seconds."""
        pause_s = delay_s
        if pause_s is None:
            pause_s = self._circuit_s[min(self._trips, len(self._circuit_s) - 1)] * (0.9 + 0.2 * self._jitter())
        self._trips += 1
        self._open_reason = reason
        self._open_until_ns = self._clock.mono_ns() + int(pause_s * 1e9)
        self._paused_until_ns = self._shut_until_ns
        return pause_s

    def pause(self, delay_s: float, reason: str) -> None:
        """The platform asked for a pause (`Retry-After`): it counts for every call of the participant, polls too, and is no fault. Nothing shortens it."""
        until_ns = self._clock.mono_ns() + int(delay_s * 1e9)
        if until_ns >= self._asked_until_ns:
            self._asked_until_ns, self._asked_reason = until_ns, reason
        self._paused_until_ns = self._shut_until_ns

    def failed(self, reason: str, delays_s: Sequence[float]) -> float | None:
        """A call certainly was not processed. From the third in a row on nothing leaves for a while; returns that pause in seconds, with jitter."""
        self._failures += 1
        if self._failures < FAILURES_IN_A_ROW:
            return None
        pause_s = delays_s[min(self._failures - FAILURES_IN_A_ROW, len(delays_s) - 1)] * (0.9 + 0.2 * self._jitter())
        self._open_reason = reason
        self._open_until_ns = max(self._open_until_ns, self._clock.mono_ns() + int(pause_s * 1e9))
        self._paused_until_ns = self._shut_until_ns
        return pause_s

    def doubted(self, reason: str) -> float | None:
        """What became of a call nobody knows. From the third in a row on the circuit opens, so that a platform that fails does not put all that waits in doubt.

        Returns the pause in seconds; None too for what left before it.
        """
        self._doubts += 1
        return None if self._doubts < FAILURES_IN_A_ROW or self.circuit_open else self.trip(reason)

    def close(self) -> None:
        """An answer came that shows the account and the path are well. A pause that the platform asked for goes on: that answer may be to an earlier call."""
        self._trips = self._failures = self._doubts = 0
        self._open_until_ns = 0
        self._paused_until_ns = min(self._paused_until_ns, max(self._clock.mono_ns(), self._asked_until_ns))

    def wait_s(self) -> float | None:
        """Seconds until time alone opens a gate; None when only an ending call or a better clock can."""
        if self._held():
            return None
        if self.circuit_open:
            return (self._shut_until_ns - self._clock.mono_ns()) / 1e9
        if self.in_flight >= self._room:
            return None
        missing = self._needed - self._fill()
        return max(0.0, missing / self._rate) if self._rate and missing > 0 else 0.0

    def _fill(self) -> float:
        if not self._rate:
            return self._burst
        now = self._clock.mono_ns()
        self._level = min(self._burst, self._level + (now - self._filled_ns) / 1e9 * self._rate)
        self._filled_ns = now
        return self._level
