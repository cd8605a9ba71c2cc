"""Outcomes under which links ended: a peer may hang up over one that it does not want, a broker over a topic, a device over a register. No I/O.

Each would end every link anew, hold up all others and keep the records from being read.
"""

from collections.abc import Sequence
from typing import Final

from bridge.journal.port import DueWriteBack

BREAKS: Final = 5  # links; about half a minute with the supervisor's pauses


class Suspects:
    """Those of one adapter, over all its links. They come after all others, one by one.

    Given up is one under which `BREAKS` links ended, and with it its flow where none of that was taken meanwhile, until a link ends over something else.
    """

    def __init__(self) -> None:
        self._rows: dict[
            int, tuple[int, int]
        ] = {}  # by row: the outcome's generation, and how many links ended under it
        self._flows: dict[str, int] = {}
        self._over_outcomes = False

    def opened(self) -> None:
        """There is a new link. Where the last one did not end while outcomes were written, one more try is worth it."""
        if not self._over_outcomes:
            self._rows = {id_: (gen, min(breaks, BREAKS - 1)) for id_, (gen, breaks) in self._rows.items()}
            self._flows = {flow: min(breaks, BREAKS - 1) for flow, breaks in self._flows.items()}
        self._over_outcomes = False

    def choose(self, due: Sequence[DueWriteBack]) -> tuple[Sequence[DueWriteBack], Sequence[DueWriteBack]]:
        """What of this is to be written together now, and what is given up on this link; the rest has its turn after that."""
        if not self._rows:
            return due, ()
        others = [row for row in due if not self._breaks(row)]
        if others:
            return others, ()
        given_up = [row for row in due if max(self._breaks(row), self._flows.get(row.flow, 0)) >= BREAKS]
        return ((), given_up) if given_up else ([min(due, key=self._breaks)], ())

    def ended(self, rows: Sequence[DueWriteBack]) -> None:
        """The link ended while these were written."""
        self._over_outcomes = True
        for row in rows:
            self._rows[row.id] = row.generation, self._breaks(row) + 1
        for flow in {row.flow for row in rows}:
            self._flows[flow] = self._flows.get(flow, 0) + 1

    def taken(self, rows: Sequence[DueWriteBack]) -> None:
        """The link stands, whatever the peer said of these."""
        for row in rows if self._rows else ():
            self._rows.pop(row.id, None)
            self._flows.pop(row.flow, None)

    def _breaks(self, row: DueWriteBack) -> int:
        generation, breaks = self._rows.get(row.id, (0, 0))
        return breaks if generation == row.generation else 0
