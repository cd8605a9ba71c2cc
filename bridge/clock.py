"""Wall and monotonic time as one injected collaborator, and the stamp that every hop leaves."""

import time
from dataclasses import dataclass
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


def iso_ms(wall_ns: int) -> str:
    """UTC time as `2026-11-23T10:00:00.000Z`, the form DOMAIN 2 asks for on the wire."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1_000_000:03d}Z"
