"""What people decide of calls that cannot go on by themselves: send again, confirm, cancel, retry. Each is one event that says who and why."""

from collections.abc import Callable, Sequence
from typing import Final

from bridge.errors import NotPossible
from bridge.journal import writebacks
from bridge.journal.moves import Submission, find, move
from bridge.journal.outbound import tell
from bridge.journal.people import Decision
from bridge.journal.port import Fence, ItemOutcome
from bridge.journal.requeue import Again, requeue
from bridge.journal.settling import OUTCOMES, finish
from bridge.journal.standing import unblock_after
from bridge.journal.store import Row, Rows, Tx, dump, dump_errors
from bridge.model import EmsState, ErrorNote, HostReason, ItemState, Kind
from bridge.submission import SubmissionState, settled_state

_S = SubmissionState
RESEND_NEW: Final = 1
RESEND_SAME: Final = 2
_CANCELLABLE: Final = frozenset({_S.WAITING, _S.RETRY_WAIT, _S.SET_ASIDE, _S.IN_DOUBT})
_WITHDRAWABLE: Final = frozenset({_S.WAITING, _S.RETRY_WAIT, _S.SET_ASIDE})
_CONFIRMABLE: Final = frozenset({_S.IN_DOUBT, _S.OVERDUE})
_NAMED: Final = 50


def resend(tx: Tx, new_id: Callable[[], str], submission: str, decision: Decision, items: Sequence[int]) -> str:
    """See the port."""
    found = _load(tx, submission)
    if found.state is _S.IN_DOUBT:
        _whole(found, items)
        tx.run(
            "UPDATE submissions SET resend = ?, due_ns = 0, deadline_ns = ? WHERE seq = ?",
            (RESEND_NEW, _new_deadline_ns(tx, found), found.seq),
        )
        tx.event(None, found.participant, "resend", found.id, _said(decision))
        tx.topics.add(f"market:{found.participant}")
        return found.id
    unknown = _unknown_items(tx, found, items)
    _with_content(tx, found, unknown)
    again = Again(submission=new_id(), items=[row[0] for row in unknown])
    deadline_ns = _new_deadline_ns(tx, found)
    data = {**_said(decision), "into": again.submission, "items": _named(unknown)}
    tx.event(None, found.participant, "resend", found.id, data)
    requeue(tx, None, found, again, cause="sent again by a person", deadline_ns=deadline_ns, data=_said(decision))
    _clear_unresolved(tx, found)
    return again.submission


def confirm(tx: Tx, submission: str, outcomes: Sequence[ItemOutcome], decision: Decision) -> None:
    """See the port."""
    found = _load(tx, submission)
    if found.state in _CONFIRMABLE:
        rows = tx.all("SELECT id, key FROM items WHERE submission = ? ORDER BY id", (found.seq,))
        given = {outcome.item for outcome in outcomes}
        missing = [key for id_, key in rows if id_ not in given]
        if missing:
            raise NotPossible(
                f"{found.id} needs the outcome of each of its {len(rows)} items; missing: {', '.join(missing[:_NAMED])}",
                hint="an item that nobody can speak for has the outcome unknown",
            )
        state = settled_state([outcome.state for outcome in outcomes])
        finish(tx, None, found, state, outcomes, cause="confirmed by a person", data=_said(decision))
        return
    rows = _unknown_items(tx, found, [outcome.item for outcome in outcomes])
    _write(tx, found, outcomes, decision, kind="confirmed", named=_named(rows))


def cancel(tx: Tx, submission: str, decision: Decision, items: Sequence[int]) -> None:
    """See the port."""
    found = _load(tx, submission)
    note = ErrorNote(code=str(int(HostReason.CANCELLED)), text=f"cancelled by a person: {decision.reason}")
    if found.state in _CANCELLABLE:
        _whole(found, items)
        move(
            tx,
            None,
            found,
            _S.CANCELLED,
            cause="cancelled by a person",
            data=_said(decision),
            stamps={"settled": tx.now},
        )
        tx.run(
            "UPDATE items SET outcome = ?, errors = ? WHERE submission = ? AND outcome IS NULL",
            (ItemState.CANCELLED.value, dump_errors([note]), found.seq),
        )
        tell(tx, found, EmsState.CANCELLED, everyone=True)
        unblock_after(tx, found.participant, found.seq)
        return
    rows = _unknown_items(tx, found, items)
    outcomes = [ItemOutcome(item=row[0], state=ItemState.CANCELLED, errors=(note,)) for row in rows]
    _write(tx, found, outcomes, decision, kind="cancelled", named=_named(rows))


def retry(tx: Tx, submission: str, decision: Decision) -> None:
    """See the port. What was set aside is signed anew, as a new message."""
    found = _load(tx, submission)
    if found.state is _S.SET_ASIDE:
        columns = {"due_ns": 0, "call": None}
        move(tx, None, found, _S.WAITING, cause="retried by a person", data=_said(decision), columns=columns)
        tell(tx, found, EmsState.RECEIVED, everyone=False)
    elif found.state is _S.RETRY_WAIT:
        tx.run("UPDATE submissions SET due_ns = 0 WHERE seq = ?", (found.seq,))
        tx.event(None, found.participant, "retry", found.id, _said(decision))
    else:
        hint = "IN_DOUBT: `submissions resolve`; an ended one: `submissions resolve ID --resend` for its unknown items"
        raise NotPossible(f"{found.id} is {found.state.value}; only SET_ASIDE and RETRY_WAIT can be retried", hint=hint)
    tx.topics.add(f"market:{found.participant}")


def withdraw(tx: Tx, rest_id: str, submission: str, outcomes: Sequence[ItemOutcome], decision: Decision) -> None:
    """See the port."""
    found = _load(tx, submission)
    if found.state not in _WITHDRAWABLE:
        raise NotPossible(f"{found.id} is {found.state.value}: it does not wait any more")
    known = {outcome.item for outcome in outcomes}
    rows = tx.all("SELECT id FROM items WHERE submission = ? ORDER BY id", (found.seq,))
    rest = [row[0] for row in rows if row[0] not in known]
    again = [Again(submission=rest_id, items=rest)] if rest else []
    data = {
        **_said(decision),
        "withdrawn": len(rows) - len(rest),
        "again": {part.submission: len(part.items) for part in again},
    }
    finish(tx, None, found, _S.CANCELLED, outcomes, cause="found to be known already", data=data, again=again)


def standing_item(rows: Rows, participant: str, kind: Kind, key: str) -> tuple[str, int] | None:
    """See the port."""
    row = rows.one(
        "SELECT s.id, i.id FROM register r JOIN items i ON i.id = r.item JOIN submissions s ON s.seq = i.submission"
        " WHERE r.participant = ? AND r.kind = ? AND r.key = ?",
        (participant, kind.value, key),
    )
    return (row[0], row[1]) if row else None


def set_aside(tx: Tx, fence: Fence, submission: str, cause: str) -> None:
    """What cannot go on waits for a person and stands in nobody's way."""
    tx.check(fence)
    found = _load(tx, submission)
    if found.state is not _S.IN_DOUBT:
        _aside(tx, fence, found, cause, {})
        return
    tx.run("UPDATE submissions SET resend = 0, reason = ? WHERE seq = ?", (cause, found.seq))
    tx.event(fence, found.participant, "not_sent_again", found.id, {"cause": cause})
    tx.raise_alarm(
        "IN_DOUBT", participant=found.participant, subject=found.id, text=f"it cannot be sent again: {cause}"
    )


def put_aside(tx: Tx, submission: str, cause: str, decision: Decision) -> None:
    """See the port."""
    found = _load(tx, submission)
    if found.state not in (_S.WAITING, _S.RETRY_WAIT):
        raise NotPossible(f"{found.id} is {found.state.value}: it does not wait")
    _aside(tx, None, found, cause, _said(decision))


def _aside(tx: Tx, fence: Fence | None, found: Submission, cause: str, data: dict[str, object]) -> None:
    move(tx, fence, found, _S.SET_ASIDE, cause=cause, data=data)
    tell(tx, found, EmsState.HELD, everyone=True)


def _load(tx: Tx, submission: str) -> Submission:
    found = find(tx, "id = ?", (submission,))
    if found is None:
        raise NotPossible(f"there is no submission {submission}", hint="`smp-bridge submissions list` names them")
    return found


def _whole(found: Submission, items: Sequence[int]) -> None:
    if items:
        raise NotPossible(
            f"{found.id} is {found.state.value}: one call went out or waits, and only the whole can be decided",
            hint="leave --item away",
        )


def _unknown_items(tx: Tx, found: Submission, wanted: Sequence[int]) -> list[Row]:
    """The items (id, key) of an ended submission whose outcome nobody knows; raises `NotPossible` for any other that is wanted."""
    if not found.state.terminal:
        raise NotPossible(
            f"{found.id} is {found.state.value}: its outcome is still awaited",
            hint="a return or a status answer settles it; IN_DOUBT, UNRESOLVED and unknown items can be resolved by hand",
        )
    rows = tx.all("SELECT id, key, outcome FROM items WHERE submission = ? ORDER BY id", (found.seq,))
    chosen = [row for row in rows if not wanted or row[0] in set(wanted)]
    known = [row for row in chosen if row[2] != ItemState.UNKNOWN.value]
    if wanted and known:
        text = ", ".join(f"{row[1]} is {row[2]}" for row in known[:_NAMED])
        raise NotPossible(f"{found.id}: only items whose outcome is unknown can be resolved: {text}")
    unknown = [row for row in chosen if row[2] == ItemState.UNKNOWN.value and _newest(tx, row[0])]
    if not unknown:
        raise NotPossible(f"{found.id} is {found.state.value} and has no item whose outcome is unknown")
    return unknown


def _newest(tx: Tx, item: int) -> bool:
    """Whether this item still stands for its reference: one that was sent again does not."""
    row = tx.one(
        "SELECT r.item FROM items i JOIN register r ON r.participant = i.participant AND r.kind = i.kind AND r.key = i.key WHERE i.id = ?",
        (item,),
    )
    return row is not None and row[0] == item


def _write(
    tx: Tx, found: Submission, outcomes: Sequence[ItemOutcome], decision: Decision, *, kind: str, named: list[str]
) -> None:
    """Move items of an ended submission; its own state stays."""
    tx.run(OUTCOMES, (dump([(o.state.value, o.asset_id, dump_errors(o.errors), o.item) for o in outcomes]), found.seq))
    data = {**_said(decision), "items": named, "outcomes": sorted({o.state.value for o in outcomes})}
    tx.event(None, found.participant, kind, found.id, data)
    for outcome in outcomes:
        writebacks.announce_outcome(tx, outcome.item)
    _clear_unresolved(tx, found)
    sites = tx.all("SELECT DISTINCT site FROM items WHERE submission = ? AND site <> ''", (found.seq,))
    tx.topics.update(f"field:{row[0]}" for row in sites)  # items of an import may have come to several
    unblock_after(tx, found.participant, found.seq)


def _clear_unresolved(tx: Tx, found: Submission) -> None:
    """Nothing is left to decide once each item that nobody knows of was decided or goes again."""
    left = tx.one(
        "SELECT 1 FROM items i JOIN register r ON r.participant = i.participant AND r.kind = i.kind AND r.key = i.key AND r.item = i.id"
        " WHERE i.submission = ? AND i.outcome = 'unknown' LIMIT 1",
        (found.seq,),
    )
    if left is None:
        tx.clear_alarm("UNRESOLVED", participant=found.participant, subject=found.id)


def _with_content(tx: Tx, found: Submission, rows: Sequence[Row]) -> None:
    """What was imported and never asked for by an EMS has nothing that could be sent; neither has what was erased."""
    empty = tx.all(
        "SELECT id, site FROM items WHERE submission = ? AND (site = '' OR length(content) = 0)", (found.seq,)
    )
    erased = {row[0] for row in empty if row[1]}
    gone = [row[1] for row in rows if row[0] in erased]
    if gone:
        raise NotPossible(
            f"{found.id}: the content was erased: {', '.join(gone[:_NAMED])}",
            hint="cancel it, then the EMS may ask for it anew",
        )
    bare = {row[0] for row in empty}
    names = [row[1] for row in rows if row[0] in bare]
    if names:
        raise NotPossible(
            f"{found.id}: imported, and no EMS has shown its record yet: {', '.join(names[:_NAMED])}",
            hint="cancel it, then the EMS may ask for it; or import what is known of it",
        )


def _new_deadline_ns(tx: Tx, found: Submission) -> int:
    """From now on, as long as the flow let a record wait when these came; 0 = for ever."""
    row = tx.one("SELECT min(received_ns) FROM items WHERE submission = ?", (found.seq,))
    patience_ns = max(found.deadline_ns - ((row[0] if row else None) or found.deadline_ns), 0)
    return tx.now.wall_ns + patience_ns if patience_ns else 0


def _said(decision: Decision) -> dict[str, object]:
    return decision.said()


def _named(rows: Sequence[Row]) -> list[str]:
    return [row[1] for row in rows[:_NAMED]]
