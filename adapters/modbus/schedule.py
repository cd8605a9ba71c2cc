"""When polls are due, by the monotonic clock: at whole periods from the first one on, however long each takes. Pure."""


class Schedule:
    """One adapter's polls. Times are nanoseconds of the monotonic clock."""

    def __init__(self, now_ns: int, period_s: float) -> None:
        self._due_ns = now_ns
        self._period_ns = int(period_s * 1e9)
        self._began_ns: int | None = None

    def wait_s(self, now_ns: int) -> float:
        """How long until the next poll is due; 0 or less once it is."""
        return (self._due_ns - now_ns) / 1e9

    def begin(self, now_ns: int) -> float | None:
        """A poll begins: seconds since the last one began, None for the first."""
        before, self._began_ns = self._began_ns, now_ns
        return None if before is None else (now_ns - before) / 1e9

    def end(self, now_ns: int) -> None:
        """It is over, and the next one is due at the next whole period; polls that were missed are not made up for."""
        late_ns = now_ns - self._due_ns
        self._due_ns += self._period_ns * (1 + late_ns // self._period_ns)
