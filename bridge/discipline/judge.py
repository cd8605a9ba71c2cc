"""From readings of the clock's discipline to what they mean: may be signed, and what is an alarm. No I/O."""

from dataclasses import dataclass
from typing import Final

from bridge.discipline.report import Discipline

MOST_MISSES: Final = 3  # readings in a row that may fail before the last good one counts no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Offsets in seconds, either way: above `alarm_s` a person should know, above `hold_s` nothing is signed."""

    alarm_s: float = 0.1
    hold_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of the clock now. `far` is the alarm about the offset; `adrift`: nothing synchronises the clock, or nobody can say."""

    report: Discipline
    held: bool = False
    far: bool = False
    adrift: bool = False


class Judge:
    """Remembers what a single reading cannot say."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._last: Standing | None = None
        self._misses = 0

    def take(self, read: Discipline) -> Standing:
        """One more reading.

        Only a reported offset holds. One that cannot be read any more neither holds nor frees at once: the last good reading counts for
        `MOST_MISSES` more; then nothing is known, which is an alarm, and the business goes on.
        """
        report = self._counted(read)
        limits, last = self._limits, self._last
        offset_s = abs(report.offset_s or 0.0)
        # Half the limit back before the alarm ends, or an offset near the limit would raise a row each time.
        far = offset_s > limits.alarm_s or (last is not None and last.far and offset_s > limits.alarm_s / 2)
        self._last = Standing(
            report=report, held=offset_s > limits.hold_s, far=far, adrift=report.synchronised is not True
        )
        return self._last

    def _counted(self, read: Discipline) -> Discipline:
        if read.known:
            self._misses = 0
            return read
        self._misses += 1
        kept = self._last is not None and self._last.report.known and self._misses <= MOST_MISSES
        return self._last.report if kept and self._last is not None else read
