"""chronyd's own view, by `chronyc -c tracking`: a program of a few milliseconds, with a time limit."""

import asyncio
import math
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from contextlib import suppress
from typing import Final

from bridge.discipline.report import Discipline, unknown

TIMEOUT_S: Final = 5.0
END_S: Final = 1.0
LONGEST: Final = 4096  # bytes; a line of tracking has about 150
# The fields of one line (chrony's client.c, process_cmd_tracking): reference id, its name, stratum, reference time, correction still to be made
# (positive: the clock is slow), last offset, RMS offset, frequency, residual frequency, skew, root delay, root dispersion, interval, leap status.
FIELDS: Final = 14
_CORRECTION: Final = 4
_ROOT_DELAY: Final = 10
_ROOT_DISPERSION: Final = 11
_LEAP: Final = 13
UNSYNCHRONISED: Final = "Not synchronised"
_LEAPS: Final = frozenset({"Normal", "Insert second", "Delete second", UNSYNCHRONISED})


class Chrony:
    """What the chronyd of this machine reports; `program` is a path or looked up in PATH."""

    name = "chrony"

    def __init__(self, program: str = "chronyc", *, timeout_s: float = TIMEOUT_S) -> None:
        self._program = program
        self._timeout_s = timeout_s

    async def read(self) -> Discipline:
        """See `DisciplineSource`; the program is ended when it takes too long or the caller is cancelled."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._program, "-c", "tracking", stdin=DEVNULL, stdout=PIPE, stderr=STDOUT,
                env={**os.environ, "LC_ALL": "C"}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return unknown(self.name, f"cannot start {self._program}: {error.strerror}")
        try:
            async with asyncio.timeout(self._timeout_s):
                said = await _said(process)
        except TimeoutError:
            return unknown(self.name, f"{self._program} did not answer within {self._timeout_s:g} s")
        finally:
            await _ended(process)
        return tracking_report(said)


async def _said(process: Process) -> bytes:
    assert process.stdout is not None
    said = bytearray()
    while len(said) < LONGEST:
        block = await process.stdout.read(LONGEST - len(said))
        if not block:
            break
        said += block
    return bytes(said)


async def _ended(process: Process) -> None:
    """The program has ended, by itself or not, with whatever it started: nobody stays behind."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):  # a pipe that somebody else holds open is not waited for
        async with asyncio.timeout(END_S):
            await process.wait()


def tracking_report(said: bytes) -> Discipline:
    """The line that `chronyc -c tracking` printed; anything else is not known, in its own words."""
    lines = said.decode("ascii", "replace").strip().splitlines()
    found = [fields for line in lines if len(fields := line.split(",")) >= FIELDS]  # beside it a warning may stand
    fields = found[0] if len(found) == 1 else []
    if not fields or fields[_LEAP] not in _LEAPS:
        return unknown(Chrony.name, f"chronyc says: {_shown(lines[0]) if lines else 'nothing'}")
    try:
        correction, delay, dispersion = (float(fields[at]) for at in (_CORRECTION, _ROOT_DELAY, _ROOT_DISPERSION))
    except ValueError:
        correction = delay = dispersion = math.nan
    if not all(math.isfinite(figure) for figure in (correction, delay, dispersion)):
        return unknown(Chrony.name, f"chronyc gives figures that are none: {_shown(','.join(fields))}")
    synchronised = fields[_LEAP] != UNSYNCHRONISED
    return Discipline(
        source=Chrony.name,
        synchronised=synchronised,
        offset_s=correction,
        max_error_s=abs(correction) + dispersion + delay / 2,
        detail="" if synchronised else "chronyd follows no source of time",
    )


def _shown(text: str) -> str:
    """A program's words on one short line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
