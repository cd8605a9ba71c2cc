"""The last five minutes of one figure: a bounded ring of samples, and exact percentiles of what is in it. Pure."""

import statistics
from array import array
from typing import Final, NamedTuple

SPAN_NS: Final = 300 * 1_000_000_000
MOST: Final = 16_384  # samples of a figure: 256 KiB at most, and 54 a second over the whole span


class Figures(NamedTuple):
    """Exact figures of the samples in a window, in nanoseconds.

    `full` says that the ring held as many samples as it can and older ones were lost: then `span_ns`, the time that the samples reach back,
    is shorter than the window was meant to be.
    """

    samples: int
    p50_ns: float
    p95_ns: float
    p99_ns: float
    max_ns: float
    span_ns: int
    full: bool


class Window:
    """Samples of one figure. `add` is for the hot path; everything is worked out when somebody asks."""

    __slots__ = ("_at", "_most", "_next", "_span_ns", "_values")

    def __init__(self, *, span_ns: int = SPAN_NS, most: int = MOST) -> None:
        self._span_ns = span_ns
        self._most = most
        self._at = array("q")
        self._values = array("q")
        self._next = 0  # where the oldest sample stands once the ring has come round

    def add(self, at_ns: int, value_ns: int) -> None:
        """Keep one sample. `at_ns` is monotonic time, about as late as that of the sample before."""
        if len(self._at) < self._most:
            self._at.append(at_ns)
            self._values.append(value_ns)
            return
        place = self._next
        self._at[place] = at_ns
        self._values[place] = value_ns
        self._next = (place + 1) % self._most

    def figures(self, now_ns: int) -> Figures | None:
        """How many, percentiles (linear between samples, as `statistics.quantiles` has them with method `inclusive`) and maximum; None without a sample."""
        since_ns = now_ns - self._span_ns
        values = [value for at, value in zip(self._at, self._values, strict=True) if at >= since_ns]
        if not values:
            return None
        full = len(values) == self._most
        span_ns = now_ns - self._at[self._next] if full else self._span_ns
        if len(values) == 1:
            only = values[0]
            return Figures(1, only, only, only, only, span_ns, full)
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        return Figures(len(values), cuts[49], cuts[94], cuts[98], max(values), span_ns, full)
