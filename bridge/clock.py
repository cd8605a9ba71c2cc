"""Wall and monotonic time as one injected collaborator, and the stamp that every hop leaves."""

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from pathlib import Path
from typing import NamedTuple, Protocol


class Stamp(NamedTuple):
    """When a hop happened: UTC nanoseconds since 1970, monotonic nanoseconds, and the boot they belong to."""

    wall_ns: int
    mono_ns: int
    boot: str


class Clock(Protocol):
    """What the rest of the bridge may know of time."""

    def now(self) -> Stamp:
        """Both clocks, read together."""

    def wall_ns(self) -> int:
        """UTC nanoseconds since 1970."""

    def mono_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC: never jumps, runs on while the process is frozen."""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's own clocks."""

    boot: str = ""

    @classmethod
    def here(cls) -> "SystemClock":
        """A clock that knows this boot."""
        return cls(boot=_boot_id())

    def now(self) -> Stamp:
        """Both clocks, read together."""
        return Stamp(time.time_ns(), time.monotonic_ns(), self.boot)

    def wall_ns(self) -> int:
        """UTC nanoseconds since 1970."""
        return time.time_ns()

    def mono_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC."""
        return time.monotonic_ns()


def utc_ns(text: str, *, last: bool = False) -> int:
    """UTC ns of a day or time such as `2026-11-01` or `2026-11-01T08:00` (UTC where no offset is said); of a day its begin, or its `last` moment. Raises `ValueError`."""
    try:
        found = datetime.combine(date.fromisoformat(text), time_of_day.max if last else time_of_day.min)
    except ValueError:  # it is no day alone
        found = datetime.fromisoformat(text)
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return int(aware.timestamp()) * 1_000_000_000 + aware.microsecond * 1000


def iso_ms(wall_ns: int) -> str:
    """UTC time as `2026-11-23T10:00:00.000Z`, the form DOMAIN 2 asks for on the wire."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1_000_000:03d}Z"


def http_date_s(text: str) -> float | None:
    """An HTTP date (RFC 9110 section 5.6.7) as UTC seconds since 1970; None when it is none."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - every command imports this module, and few need such a date

    try:
        when = parsedate_to_datetime(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
