"""The kernel's clock discipline by `adjtimex(2)`, read only and without privileges.

The kernel knows of an offset only while it is told to remove one itself: by ntpd and systemd-timesyncd (its phase-locked loop, which holds at most
0.5 s; a larger one is stepped) or by `adjtime(3)` (OpenNTPD, of any size). chronyd keeps its offset to itself; under chronyd this source says
whether the clock is synchronised (`rtcsync`) and how wrong it may be, and `bridge.discipline.chrony` knows the offset.
"""

import ctypes
import os
from typing import Final

from bridge.discipline.report import Discipline, unknown

TIME_ERROR: Final = 5
STA_UNSYNC: Final = 0x0040
STA_NANO: Final = 0x2000
READ: Final = 0
READ_ADJTIME: Final = 0xA001  # ADJ_OFFSET_SS_READ: what an adjtime(3) under way has left, in µs; sets nothing

_LONG: Final = ctypes.c_long


class Timex(ctypes.Structure):
    """The head of `struct timex` (linux/timex.h), which is the same on every Linux; what follows `status` is room for what the kernel writes there."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", _LONG),
        ("freq", _LONG),
        ("maxerror", _LONG),
        ("esterror", _LONG),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


class Kernel:
    """The kernel's own discipline."""

    name = "kernel"

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    async def read(self) -> Discipline:
        """Two system calls of some microseconds; see `DisciplineSource`."""
        adjtimex = getattr(self._libc, "adjtimex", None)
        if adjtimex is None:
            return unknown(self.name, "this system has no adjtimex(2)")
        now, slew = Timex(modes=READ), Timex(modes=READ_ADJTIME)
        state = adjtimex(ctypes.byref(now))
        if state < 0:
            return unknown(self.name, f"adjtimex: {os.strerror(ctypes.get_errno())}")
        left_us = slew.offset if adjtimex(ctypes.byref(slew)) >= 0 else 0
        return kernel_report(
            state=state, status=now.status, offset=now.offset, left_us=left_us, max_error_us=now.maxerror
        )


def kernel_report(*, state: int, status: int, offset: int, left_us: int, max_error_us: int) -> Discipline:
    """What `adjtimex` answered: its result, `status`, `offset` (ns under STA_NANO, else µs), what adjtime(3) has left, and `maxerror`."""
    synchronised = state != TIME_ERROR and not status & STA_UNSYNC
    return Discipline(
        source=Kernel.name,
        synchronised=synchronised,
        offset_s=offset / (1e9 if status & STA_NANO else 1e6) + left_us / 1e6,
        max_error_s=max_error_us / 1e6,
        detail="" if synchronised else "nothing synchronises this machine's clock, says its kernel",
    )
