"""A clock beside the machine's: its wall time is moved by hand, its monotonic time is the real one, as when an operator or NTP sets a machine's clock."""

from bridge.clock import Stamp, SystemClock

S = 1_000_000_000


class ShiftedClock:
    """`bridge.clock.Clock`; `set_by` moves the wall clock from now on, `set_to` sets it to a moment (UTC, seconds)."""

    def __init__(self):
        self._real = SystemClock.here()
        self.ahead_ns = 0

    def set_by(self, seconds):
        self.ahead_ns += int(seconds * S)

    def set_to(self, moment_s):
        self.ahead_ns = int(moment_s * S) - self._real.wall_ns()

    def now(self):
        wall, mono, boot = self._real.now()
        return Stamp(wall + self.ahead_ns, mono, boot)

    def wall_ns(self):
        return self._real.wall_ns() + self.ahead_ns

    def mono_ns(self):
        return self._real.mono_ns()
