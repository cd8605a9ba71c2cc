"""How a submission moves: the table of legal moves, the row, the event, the alarms that belong to a state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bridge.errors import JournalUnusable, Replaced
from bridge.journal.port import Fence, Stamps
from bridge.journal.store import NO_BLOB, Blob, Rows, Tx, dump_stamps, load_stamps
from bridge.model import Operation
from bridge.submission import SubmissionState, check_move

_S = SubmissionState
# States that a person should hear of; the alarm is cleared when the submission leaves the state.
_ALARMS: Final[Mapping[SubmissionState, str]] = {
    _S.IN_DOUBT: "IN_DOUBT",
    _S.OVERDUE: "OVERDUE",
    _S.UNRESOLVED: "UNRESOLVED",
    _S.SET_ASIDE: "SET_ASIDE",
}
COLUMNS: Final = (
    "seq, id, participant, site, flow, operation, state, position, open, items, max_items, due_ns, deadline_ns, revision, echoes,"
    " attempts, call, transaction_id, sent_ns, stamps, resend"
)


@dataclass(slots=True)
class Submission:
    """A submission's row."""

    seq: int
    id: str
    participant: str
    site: str
    flow: str
    operation: Operation
    state: SubmissionState
    position: int
    open: bool
    items: int
    max_items: int
    due_ns: int
    deadline_ns: int
    revision: int
    echoes: bool
    attempts: int
    call: int | None
    transaction_id: str
    sent_ns: int
    stamps: str
    resend: int

    def __post_init__(self) -> None:
        self.operation = Operation(self.operation)
        self.state = SubmissionState(self.state)


def find(rows: Rows, where: str, args: tuple[object, ...]) -> Submission | None:
    """The first submission for which `where` (SQL of ours) holds."""
    return next(iter(find_all(rows, where, args, 1)), None)


def find_all(rows: Rows, where: str, args: tuple[object, ...], most: int) -> list[Submission]:
    """The first submissions, so many at most, for which `where` (SQL of ours) holds."""
    found = rows.all(f"SELECT {COLUMNS} FROM submissions WHERE {where} LIMIT ?", (*args, most))  # noqa: S608
    return [Submission(*row) for row in found]


def load(rows: Rows, submission: str) -> Submission:
    """The submission of this id, which must exist."""
    found = find(rows, "id = ?", (submission,))
    if found is None:
        raise JournalUnusable(
            f"submission {submission} is not in the journal", hint="was the journal restored or changed?"
        )
    return found


def check_revision(submission: Submission, seen: int | None) -> None:
    """Raise `Replaced` when an item was replaced since the submission was given out with revision `seen` (None = it was not)."""
    if seen is not None and seen != submission.revision:
        text = f"{submission.id}: an item was replaced since it was given out"
        raise Replaced(text, hint="take the next call again")


def move(
    tx: Tx,
    fence: Fence | None,
    submission: Submission,
    after: SubmissionState,
    *,
    cause: str,
    data: Mapping[str, object],
    blob: Blob = NO_BLOB,
    stamps: Stamps | None = None,
    columns: Mapping[str, object] | None = None,
) -> None:
    """Move a submission and say so: row, event, alarm; without a fence a person did it. `columns` are further columns of the row to set. Raises `IllegalMove`."""
    before = submission.state
    check_move(before, after)
    values = {"state": after.value, "reason": cause, "open": 0, **(columns or {})}
    if stamps:
        values["stamps"] = dump_stamps({**load_stamps(submission.stamps), **stamps})
    sets = ", ".join(f"{name} = ?" for name in values)
    tx.run(f"UPDATE submissions SET {sets} WHERE seq = ?", (*values.values(), submission.seq))  # noqa: S608
    tx.event(
        fence,
        submission.participant,
        after.value,
        submission.id,
        {"from": before.value, "cause": cause, "items": submission.items, **data},
        blob=blob,
    )
    submission.state = after
    _alarms(tx, submission, before, after, cause)


def _alarms(tx: Tx, submission: Submission, before: SubmissionState, after: SubmissionState, cause: str) -> None:
    where = {"participant": submission.participant, "subject": submission.id}
    if before in _ALARMS:
        tx.clear_alarm(_ALARMS[before], **where)
    if after in _ALARMS:
        tx.raise_alarm(_ALARMS[after], **where, text=cause)
