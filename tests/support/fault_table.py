"""The table that `make faults` prints: one row per fault, red when a record was lost, sent twice or more are in doubt than may be."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

COLUMNS = (
    "fault", "rounds", "requested", "accepted once", "refused", "in doubt", "SENDING at the kill", "lost", "twice",
    "longest recovery s", "",
)  # fmt: skip

_COUNTS = ("rounds", "requested", "accepted_once", "refused", "in_doubt", "sending_at_kill", "lost", "twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of every record that was requested while one fault was injected `rounds` times.

    `requested` and `accepted_once` are counted by processes that the fault does not touch. `sending_at_kill` is how many submissions stood as
    SENDING in the journal when the process was killed (0 for faults that kill nothing), `recovery_s` the longest time from the end of the fault until
    work went on. `broken` names a promise of its own that the row saw broken.
    """

    fault: str
    rounds: int
    requested: int
    accepted_once: int
    refused: int = 0
    in_doubt: int = 0
    sending_at_kill: int = 0
    lost: int = 0
    twice: int = 0
    recovery_s: float = 0.0
    broken: str = ""

    @property
    def red(self) -> bool:
        """Whether the promise of docs/durability.md was broken: every record is accepted once, refused or in doubt, and nothing else."""
        unaccounted = self.requested != self.accepted_once + self.refused + self.in_doubt
        return bool(self.lost or self.twice or unaccounted or self.broken)


def merged(rows: Sequence[Row]) -> list[Row]:
    """One row for each fault, in the order in which they came: counts are added, the longest recovery stays, what was broken is told once."""
    found: dict[str, Row] = {}
    for row in rows:
        before = found.get(row.fault)
        found[row.fault] = row if before is None else _added(before, row)
    return list(found.values())


def _added(one: Row, other: Row) -> Row:
    counts = {name: getattr(one, name) + getattr(other, name) for name in _COUNTS}
    broken = "; ".join(dict.fromkeys(text for text in (one.broken, other.broken) if text))
    return replace(one, **counts, recovery_s=max(one.recovery_s, other.recovery_s), broken=broken)


def render(rows: Sequence[Row]) -> str:
    """The rows as a table for a person."""
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    counts = (
        row.rounds, row.requested, row.accepted_once, row.refused, row.in_doubt, row.sending_at_kill, row.lost, row.twice,
    )  # fmt: skip
    verdict = f"RED {row.broken}".rstrip() if row.red else "ok"
    return (row.fault, *(str(count) for count in counts), f"{row.recovery_s:.2f}", verdict)
