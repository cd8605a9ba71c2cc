"""The alarm of a journal without room, told by the engines' writers."""

from collections.abc import Callable
from typing import Final

from bridge.clock import Stamp, iso_ms
from bridge.journal.store import Tx

_CALM_NS: Final = 60_000_000_000


class Room:
    """JOURNAL_FULL of one writer: it can only be written once there is room again, and stands until none was missing for a minute.

    `tell` at the beginning of each transaction, `told` after its commit: what was rolled back is told again by the next one.
    """

    def __init__(self) -> None:
        self._since_ns = 0
        self._last: Stamp | None = None
        self._owed = False
        self._clearing = False
        self._stands = True  # perhaps, from before this start

    def tell(self, begin: Callable[[], Tx], *, full: bool) -> None:
        """Raise or clear the alarm in the transaction of `begin`; `full` when the one before found no room. As a rule there is nothing to tell."""
        if not (full or self._owed or self._stands):
            self._clearing = False
            return
        tx = begin()
        if full:
            self._last = tx.now
            self._since_ns = self._since_ns or tx.now.wall_ns
            self._owed = True
        calm = self._last is None or tx.now.mono_ns - self._last.mono_ns > _CALM_NS
        self._clearing = self._stands and not self._owed and calm
        if self._owed:
            text = f"no room since {iso_ms(self._since_ns)}; nothing was acknowledged until now"
            tx.raise_alarm("JOURNAL_FULL", text=text)
        elif self._clearing:
            tx.clear_alarm("JOURNAL_FULL")

    def told(self) -> None:
        """The transaction of the last `tell` is on disk."""
        if self._owed:
            self._owed, self._stands = False, True
        elif self._clearing:
            self._stands, self._since_ns = False, 0
