"""How submissions end: outcomes of items, refusals by the host, and what late news may still add."""

from collections.abc import Mapping, Sequence
from typing import Final

from bridge.journal import writebacks
from bridge.journal.moves import Submission, check_revision, load, move
from bridge.journal.outbound import answer_data, came_before, tell
from bridge.journal.port import AnswerNote, Fence, ItemOutcome, Overtaken, Stamps
from bridge.journal.requeue import Again, requeue
from bridge.journal.returns import close_return, transaction_of
from bridge.journal.standing import unblock_after
from bridge.journal.store import NO_BLOB, Blob, Row, Tx, dump, dump_errors
from bridge.model import EmsState, ErrorNote, ItemState, Refusal
from bridge.submission import SubmissionState

_S = SubmissionState
# One statement for all, for each step of one waits for a busy loop; the plus keeps SQLite from looking through the whole submission for each id.
OUTCOMES: Final = (
    "UPDATE items SET outcome = k.value ->> 0, asset_id = k.value ->> 1, errors = k.value ->> 2 FROM json_each(?) k"
    " WHERE items.id = CAST(k.value ->> 3 AS BIGINT) AND +items.submission = ?"
)
_NAMED: Final = 50  # ids of items that an event names; the rest is in their rows

# What becomes of items that a terminal move does not name.
_UNNAMED: Final = {_S.CANCELLED: ItemState.CANCELLED, _S.EXPIRED: ItemState.EXPIRED}
_OF_THE_HOST: Final = frozenset({_S.OVERDUE, _S.UNRESOLVED, _S.SET_ASIDE})  # its own words for what nobody told it
_TOLD: Final = {_S.IN_DOUBT: EmsState.IN_DOUBT, _S.SET_ASIDE: EmsState.HELD}


def settle(
    tx: Tx,
    fence: Fence,
    submission: str,
    state: SubmissionState,
    outcomes: Sequence[ItemOutcome],
    *,
    cause: str,
    return_id: int | None,
    answer: AnswerNote | None,
    stamps: Stamps | None,
    again: Sequence[Again] = (),
) -> bool:
    """Move a submission with its items' outcomes; on one that has ended, take what contradicts nothing. `again` names items that are sent again.

    Returns whether it moved. Raises `Overtaken`, see the port.
    """
    tx.check(fence)
    found = load(tx, submission)
    if found.state.terminal and state in _OF_THE_HOST:
        return False  # somebody told it in the same moment, and our silence contradicts nobody
    if found.state is _S.SENDING and state is _S.REJECTED and answer is not None:
        _not_overtaken(tx, found, answer)
    blob = tx.blob(found.participant, answer.body) if answer else NO_BLOB
    data: dict[str, object] = {"outcomes": _counted(outcomes), "return": return_id}
    if answer is not None:
        data |= answer_data(answer)
    if found.state.terminal:
        agreed = _enrich(tx, fence, found, outcomes, cause, data, blob)
        _close(tx, fence, return_id, agreed=agreed)
        return False
    columns: dict[str, object] = {}
    if answer is not None and answer.transaction_id:
        found.transaction_id = columns["transaction_id"] = answer.transaction_id
    elif return_id is not None and not found.transaction_id:
        # A call in doubt had no answer: its return alone says which transaction it was.
        found.transaction_id = columns["transaction_id"] = transaction_of(tx, return_id)
    data["again"] = {part.submission: len(part.items) for part in again}
    finish(
        tx,
        fence,
        found,
        state,
        outcomes,
        cause=cause,
        data=data,
        blob=blob,
        stamps=stamps,
        columns=columns,
        again=again,
    )
    _close(tx, fence, return_id, agreed=True)
    return True


def _not_overtaken(tx: Tx, submission: Submission, answer: AnswerNote) -> None:
    """Sent again on the word of this answer, what SMP returned as registered would be registered twice."""
    returns = came_before(tx, submission, answer)
    if returns:
        raise Overtaken(f"a result of {submission.id} was returned before its own answer refused it", returns)


def finish(
    tx: Tx,
    fence: Fence | None,
    found: Submission,
    state: SubmissionState,
    outcomes: Sequence[ItemOutcome],
    *,
    cause: str,
    data: Mapping[str, object],
    blob: Blob = NO_BLOB,
    stamps: Stamps | None = None,
    columns: Mapping[str, object] | None = None,
    again: Sequence[Again] = (),
) -> None:
    """The move, the outcomes, the words to the EMS, and what depends on them; without a fence a person speaks."""
    move(
        tx,
        fence,
        found,
        state,
        cause=cause,
        data=data,
        blob=blob,
        stamps={**(stamps or {}), "settled": tx.now},
        columns=columns,
    )
    _write(tx, found, outcomes)
    if state.terminal:
        _name_the_rest(tx, found, state)
    for part in again:
        requeue(tx, fence, found, part, cause=cause, deadline_ns=found.deadline_ns, data={})
    if state.terminal or state in _TOLD:
        tell(tx, found, _TOLD.get(state, EmsState.SENT), everyone=True)
        unblock_after(tx, found.participant, found.seq)


def refuse_waiting(
    tx: Tx, fence: Fence, submission: str, state: SubmissionState, refusal: Refusal, *, seen_revision: int | None
) -> None:
    """End a submission that never went out: its items are refused by the host, expired or cancelled."""
    tx.check(fence)
    found = load(tx, submission)
    check_revision(found, seen_revision)
    data = {"code": int(refusal.reason)}
    move(tx, fence, found, state, cause=refusal.text, data=data, stamps={"settled": tx.now})
    errors = dump_errors([ErrorNote(code=str(int(refusal.reason)), text=refusal.text)])
    outcome = _UNNAMED.get(state, ItemState.INVALID)
    tx.run("UPDATE items SET outcome = ?, errors = ? WHERE submission = ?", (outcome.value, errors, found.seq))
    tell(tx, found, outcome.ems, everyone=True)
    unblock_after(tx, found.participant, found.seq)


def _write(tx: Tx, submission: Submission, outcomes: Sequence[ItemOutcome]) -> None:
    tx.run(
        OUTCOMES, (dump([(o.state.value, o.asset_id, dump_errors(o.errors), o.item) for o in outcomes]), submission.seq)
    )


def _name_the_rest(tx: Tx, submission: Submission, state: SubmissionState) -> None:
    rest = _UNNAMED.get(state, ItemState.UNKNOWN)
    tx.run("UPDATE items SET outcome = ? WHERE submission = ? AND outcome IS NULL", (rest.value, submission.seq))


def _enrich(
    tx: Tx,
    fence: Fence,
    submission: Submission,
    outcomes: Sequence[ItemOutcome],
    cause: str,
    data: dict[str, object],
    blob: Blob,
) -> bool:
    """Asset ids of items whose outcome agrees are taken when nothing contradicts; else nothing is, and a person is told."""
    stored = {
        row[0]: row for row in tx.all("SELECT id, outcome, asset_id FROM items WHERE submission = ?", (submission.seq,))
    }
    against = [outcome.item for outcome in outcomes if _contradicts(outcome, stored.get(outcome.item))]
    if against:
        tx.raise_alarm(
            "CONFLICT",
            participant=submission.participant,
            subject=submission.id,
            text=f"{cause}: {len(against)} items differ from what was settled",
        )
        tx.event(
            fence,
            submission.participant,
            "conflict",
            submission.id,
            {**data, "cause": cause, "items": against[:_NAMED]},
            blob=blob,
        )
        return False
    new = [outcome for outcome in outcomes if outcome.asset_id and not stored[outcome.item][2]]
    for outcome in new:
        tx.run("UPDATE items SET asset_id = ? WHERE id = ?", (outcome.asset_id, outcome.item))
        writebacks.announce_item(tx, outcome.item)
    if new:
        tx.topics.add(f"field:{submission.site}")
    kind = "enriched" if new else "late_note"
    tx.event(
        fence,
        submission.participant,
        kind,
        submission.id,
        {**data, "cause": cause, "items": [o.item for o in new][:_NAMED]},
        blob=blob,
    )
    return True


def _contradicts(outcome: ItemOutcome, stored: Row | None) -> bool:
    if stored is None or stored[1] != outcome.state.value:
        return True
    return bool(outcome.asset_id and stored[2] and outcome.asset_id != stored[2])


def _close(tx: Tx, fence: Fence, return_id: int | None, *, agreed: bool) -> None:
    if return_id is not None:
        close_return(tx, fence, return_id, "settled" if agreed else "conflict")


def _counted(outcomes: Sequence[ItemOutcome]) -> dict[str, object]:
    """How many of each, and the ids of those that were not registered (the first few)."""
    counts: dict[str, object] = {}
    for state in (ItemState.REGISTERED, ItemState.REFUSED, ItemState.UNKNOWN):
        ids = [outcome.item for outcome in outcomes if outcome.state is state]
        if ids:
            counts[state.value] = len(ids)
        if ids and state is not ItemState.REGISTERED:
            counts[f"{state.value}_items"] = ids[:_NAMED]
    return counts
