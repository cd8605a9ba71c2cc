"""The rhythm of each adapter: what the site file asks for, what the server made of it, and what really comes. Pure; the clock is handed in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from bridge.api import Intervals
from bridge.measure.window import Figures, Window

MOST_NAMES: Final = 8  # of one adapter; what it reports beyond is not kept


@dataclass(slots=True)
class Interval:
    """One interval of an adapter, in seconds; None for what nobody said."""

    configured_s: float | None = None
    revised_s: float | None = None
    window: Window = field(default_factory=Window)

    def achieved(self, now_ns: int) -> Figures | None:
        """What came in the last five minutes (ns); None without a sample."""
        return self.window.figures(now_ns)


class Rhythm(Intervals):
    """What the sessions of one adapter report, one after the other."""

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self._mono_ns = mono_ns
        self.known: dict[str, Interval] = {}

    def agreed(self, name: str, *, configured_s: float, revised_s: float | None = None) -> None:
        """See `bridge.api.Intervals`."""
        interval = self._of(name)
        if interval is not None:
            interval.configured_s, interval.revised_s = configured_s, revised_s

    def achieved(self, name: str, seconds: float) -> None:
        """See `bridge.api.Intervals`."""
        interval = self._of(name)
        if interval is not None:
            interval.window.add(self._mono_ns(), int(seconds * 1e9))

    def _of(self, name: str) -> Interval | None:
        found = self.known.get(name)
        if found is None and len(self.known) < MOST_NAMES:
            found = self.known[name] = Interval()
        return found


class IntervalBook:
    """The rhythm of every adapter of one process."""

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self._mono_ns = mono_ns
        self._rhythms: dict[tuple[str, str], Rhythm] = {}

    def of(self, site: str, adapter: str) -> Rhythm:
        """What the sessions of this adapter report to."""
        key = (site, adapter)
        if key not in self._rhythms:
            self._rhythms[key] = Rhythm(self._mono_ns)
        return self._rhythms[key]

    def all(self) -> Iterator[tuple[str, str, str, Interval]]:
        """Site, adapter, name and interval of each that was reported."""
        for (site, adapter), rhythm in list(self._rhythms.items()):
            for name, interval in list(rhythm.known.items()):
                yield site, adapter, name, interval
