"""The market side's use cases: what may go out next, commit 2, answers, outcomes."""

from collections.abc import Sequence
from typing import Final

from bridge.clock import Stamp
from bridge.errors import IllegalMove, Replaced, TransactionKnown
from bridge.journal import writebacks
from bridge.journal.calls import clock_of, envelope_digest, insert_call, load_call, same_call
from bridge.journal.holds import SITE_HELD, held, participant_held
from bridge.journal.moves import COLUMNS, Submission, check_revision, find_all, load, move
from bridge.journal.port import AnswerNote, DueCall, Fence, NoneDue, ParkedReturn, SignedCall, WaitingItem
from bridge.journal.returns import any_waiting, waiting_for
from bridge.journal.standing import members
from bridge.journal.store import NO_BLOB, Rows, Tx, dump, dump_stamps, load_stamps
from bridge.journal.waits import waited
from bridge.model import EmsState, Kind, Operation
from bridge.submission import SubmissionState

_S = SubmissionState
_DETAIL_CHARS: Final = 500
# A clock that was set back by less is not told from a caller that looked at it a moment before the last commit.
SET_BACK_NS: Final = 10_000_000_000
_MOST_LATE: Final = 100
_MOST_TOGETHER: Final = 1000  # items of the calls that are given out at once
_ANEW: Final = 1  # `resend` of a person: a new message; 2 is the same message again
_SAME: Final = 2
_OF_ATTEMPT: Final = frozenset({"sent", "answered"})  # hops that a further attempt goes through again, or does not
_READY: Final = frozenset({_S.WAITING, _S.RETRY_WAIT})
_ALLOWED: Final = "operation IN (SELECT value FROM json_each(?))"
_IN_LINE: Final = "participant = ? AND state IN ('WAITING', 'RETRY_WAIT')"
_NEXT_DUE: Final = f"SELECT min(due_ns) FROM submissions WHERE {_IN_LINE} AND blocked = 0 AND due_ns > ? AND {_ALLOWED}"  # noqa: S608
_DUE: Final = (
    "(due_ns <= ? OR placed_ns > ?)"  # a wait that began in the future is one that a clock set back would make longer
)
_AGAIN: Final = "participant = ? AND state = 'IN_DOUBT' AND resend > 0"
_NEXT_AGAIN: Final = f"SELECT min(due_ns) FROM submissions WHERE {_AGAIN} AND due_ns > ? AND {_ALLOWED}"  # noqa: S608
_NEXT_DEADLINE: Final = f"SELECT min(deadline_ns) FROM submissions WHERE {_IN_LINE} AND deadline_ns > 0 AND {_ALLOWED}"  # noqa: S608


# --------------------------------------------------------------------------------------------------------- what is due


def next_calls(
    rows: Rows, participant: str, now_ns: int, allow: Sequence[Operation], most: int
) -> list[tuple[DueCall, int]] | NoneDue:
    """What may go out, so many at most, each with the revision of its items that the caller is about to sign."""
    allowed = dump([operation.value for operation in allow])
    found = find_all(
        rows,
        f"{_IN_LINE} AND deadline_ns > 0 AND deadline_ns <= ? AND {_ALLOWED} ORDER BY deadline_ns",
        (participant, now_ns, allowed),
        most,
    )
    if not found and not participant_held(rows, participant):
        args = (participant, now_ns, now_ns + SET_BACK_NS, allowed)
        found = find_all(
            rows, f"{_AGAIN} AND {_DUE} AND NOT {SITE_HELD} AND {_ALLOWED} ORDER BY position, seq", args, most
        )
        found += find_all(
            rows,
            f"{_IN_LINE} AND blocked = 0 AND {_DUE} AND NOT {SITE_HELD} AND {_ALLOWED} ORDER BY position, seq",
            args,
            most - len(found),
        )
    if not found:
        return NoneDue(next_ns=_next_ns(rows, participant, now_ns, allowed))
    return [(_due_call(rows, one), one.revision) for one in _together(found)]


def _together(found: Sequence[Submission]) -> list[Submission]:
    """As many of these, from the front, as are signed in one go: one large one, or several small ones."""
    taken = list(found[:1])
    items = taken[0].items
    for one in found[1:]:
        items += one.items
        if items > _MOST_TOGETHER:
            break
        taken.append(one)
    return taken


def past_deadline(rows: Rows, participant: str, now_ns: int) -> tuple[list[str], int]:
    """What has waited past its deadline, oldest first, and when the next one's is over."""
    late = rows.all(
        f"SELECT id FROM submissions WHERE {_IN_LINE} AND deadline_ns > 0 AND deadline_ns <= ? ORDER BY deadline_ns LIMIT ?",  # noqa: S608
        (participant, now_ns, _MOST_LATE),
    )
    later = rows.one(
        f"SELECT min(deadline_ns) FROM submissions WHERE {_IN_LINE} AND deadline_ns > ?",  # noqa: S608
        (participant, now_ns),
    )
    return [row[0] for row in late], (later[0] if later else None) or 0


def _next_ns(rows: Rows, participant: str, now_ns: int, allowed: str) -> int:
    times = (
        rows.one(_NEXT_DUE, (participant, now_ns, allowed)),
        rows.one(_NEXT_AGAIN, (participant, now_ns, allowed)),
        rows.one(_NEXT_DEADLINE, (participant, allowed)),
    )
    return min((row[0] for row in times if row and row[0]), default=0)


def _due_call(rows: Rows, submission: Submission) -> DueCall:
    items = rows.table(
        "SELECT id, key, content, received_ns, received_mono, received_boot FROM items WHERE submission = ? ORDER BY id",
        (submission.seq,),
        6,
        blobs=(2,),
    )
    unit = submission.operation.kind is Kind.UNIT and items
    stamps = load_stamps(submission.stamps)
    return DueCall(
        submission=submission.id,
        site=submission.site,
        flow=submission.flow,
        operation=submission.operation,
        state=submission.state,
        items=[WaitingItem(id=row[0], key=row[1], content=row[2], received=Stamp(*row[3:])) for row in items],
        attempts=submission.attempts,
        deadline_ns=submission.deadline_ns,
        call=load_call(rows, submission.call) if submission.call and submission.resend != _ANEW else None,
        members=members(rows, items[0][0]) if unit else (),
        stamps=stamps,
        waited=waited(rows, submission, stamps),
    )


# ------------------------------------------------------------------------------------------------------------ commit 2


def sending(
    tx: Tx, fence: Fence, submission: str, call: SignedCall, items: int, *, signed_revision: int | None, rest_id: str
) -> None:
    """The signed bytes and SENDING; what does not fit becomes a submission of its own, next in line."""
    tx.check(fence)
    found = load(tx, submission)
    check_revision(found, signed_revision)
    before, doubt = found.state, found.state is _S.IN_DOUBT
    if before.terminal or before is _S.SET_ASIDE or held(tx, found.participant, found.site):
        raise Replaced(f"{found.id} was settled, set aside or held meanwhile", hint="take the next call again")
    if doubt and not found.resend:
        raise IllegalMove(f"{found.id} is in doubt, and nobody said that it goes again")
    if items < found.items:
        _split(tx, fence, found, items, rest_id)
    if found.attempts:
        kept = {hop: stamp for hop, stamp in load_stamps(found.stamps).items() if hop not in _OF_ATTEMPT}
        found.stamps = dump_stamps(kept)
    stored, body = found.call, NO_BLOB
    if not same_call(tx, found.call, call):
        inserted = insert_call(tx, found.participant, found.seq, call)
        stored, body = inserted.id, inserted.body
    move(
        tx,
        fence,
        found,
        _S.SENDING,
        cause=_CAUSES[found.resend if doubt else 0],
        data={
            "message": call.message_id,
            "kid": call.kid,
            "attempt": found.attempts + 1,
            "envelope": envelope_digest(call),
            **clock_of(call),
        },
        blob=body,
        stamps={**call.stamps, "journalled": tx.now},
        columns={
            "attempts": found.attempts + 1,
            "epoch": fence.epoch,
            "call": stored,
            "sent_ns": tx.now.wall_ns,
            "resend": 0,
        },
    )
    if found.attempts == 0 or found.resend == _ANEW:
        tell(tx, found, EmsState.SENT, everyone=found.resend == _ANEW)


_CAUSES: Final = {
    0: "a slot is free",
    _ANEW: "sent again by a person",
    _SAME: "the same message again, for the platform recognises repeats",
}


def _split(tx: Tx, fence: Fence, submission: Submission, items: int, rest_id: str) -> None:
    """Items beyond the first `items` go to a new submission that keeps the place in line; it stays open where its origin was."""
    first = tx.one(
        "SELECT id, received_ns, received_mono, received_boot FROM items WHERE submission = ? ORDER BY id LIMIT 1 OFFSET ?",
        (submission.seq, items),
    )
    assert first is not None
    stamps = dump_stamps({"received": Stamp(*first[1:])})  # its own: the origin may have waited for long
    rest = submission.items - items
    keep_open = submission.open and rest < submission.max_items
    tx.run("UPDATE submissions SET open = 0, items = ? WHERE seq = ?", (items, submission.seq))
    rest_seq = tx.insert(
        "INSERT INTO submissions (id, participant, site, flow, operation, state, position, open, items, max_items, due_ns, deadline_ns,"
        " blocked, echoes, stamps) SELECT ?, participant, site, flow, operation, 'WAITING', position, ?, ?, max_items, due_ns,"
        " deadline_ns, 0, echoes, ? FROM submissions WHERE seq = ?",
        (rest_id, keep_open, rest, stamps, submission.seq),
        key="seq",
    )
    tx.run(
        "UPDATE items SET submission = ? WHERE submission = ? AND id >= ?",
        (rest_seq, submission.seq, first[0]),
    )
    submission.items, submission.open = items, False
    data = {"from": submission.id, "items": rest, "first": first[0]}
    tx.event(fence, submission.participant, _S.WAITING.value, rest_id, data)
    tx.topics.add(f"market:{submission.participant}")


# ------------------------------------------------------------------------------------------------------------- answers


def answered(
    tx: Tx, fence: Fence, submission: str, state: SubmissionState, answer: AnswerNote, *, retry_ns: int, cause: str
) -> list[ParkedReturn]:
    """The answer as evidence and the move that it causes; in an unchanged or a terminal state it is only a note.

    With IN_DOUBT, `retry_ns` is when the same message goes again.
    """
    tx.check(fence)
    found = load(tx, submission)
    if answer.transaction_id and state is _S.AWAITING_RETURN:
        _check_transaction(tx, found, answer.transaction_id)
    blob = tx.blob(found.participant, answer.body)
    cause = (cause or answer.detail)[:_DETAIL_CHARS]
    if state is found.state or found.state.terminal:
        tx.event(fence, found.participant, "answer", found.id, {"cause": cause, **answer_data(answer)}, blob=blob)
        return came_before(tx, found, answer)
    columns: dict[str, object] = {}
    if answer.transaction_id:
        found.transaction_id = columns["transaction_id"] = answer.transaction_id
    if state is _S.IN_DOUBT and retry_ns:
        columns |= {"due_ns": retry_ns, "placed_ns": tx.now.wall_ns, "resend": _SAME}
        tx.topics.add(f"market:{found.participant}")
    if state in _READY:
        columns |= {"due_ns": retry_ns, "placed_ns": tx.now.wall_ns}  # 0 = at once
        tx.topics.add(f"market:{found.participant}")
    move(
        tx, fence, found, state, cause=cause, data=answer_data(answer), blob=blob, stamps=answer.stamps, columns=columns
    )
    if state is _S.IN_DOUBT:
        tell(tx, found, EmsState.IN_DOUBT, everyone=True)
    elif state is _S.AWAITING_RETURN:
        tell(tx, found, EmsState.SENT, everyone=False)
    return came_before(tx, found, answer)


def _check_transaction(rows: Rows, submission: Submission, transaction_id: str) -> None:
    other = rows.one(
        "SELECT id FROM submissions WHERE participant = ? AND transaction_id = ? AND transaction_id <> '' AND seq <> ? LIMIT 1",
        (submission.participant, transaction_id, submission.seq),
    )
    if other is not None:
        raise TransactionKnown(f"the answer's transaction id {transaction_id} is that of {other[0]} already")


def answer_data(answer: AnswerNote) -> dict[str, object]:
    """An answer as an event tells it; its body is the event's blob."""
    said: dict[str, object] = {
        "status": answer.status,
        "headers": dict(answer.headers),
        "detail": answer.detail[:_DETAIL_CHARS],
        "transaction": answer.transaction_id,
    }
    return said | {"peer": dict(answer.peer)} if answer.peer else said


def came_before(tx: Tx, submission: Submission, answer: AnswerNote) -> list[ParkedReturn]:
    """Returns that came before this answer, of any message of the submission: one that was sent again has several. As a rule none waits for anything."""
    if not any_waiting(tx, submission.participant):
        return []
    calls = tx.all("SELECT message_id, correlation_id FROM calls WHERE submission = ?", (submission.seq,))
    ours = sorted({id_ for call in calls for id_ in call})
    return waiting_for(tx, submission.participant, answer.transaction_id or submission.transaction_id, ours)


def recover(tx: Tx, fence: Fence, *, repeats: bool) -> list[str]:
    """Whatever was SENDING when an earlier owner stopped is in doubt now; where the platform recognises repeats, all that is in doubt goes again."""
    tx.check(fence)
    participant = fence.lease.removeprefix("market:")
    found = tx.all(
        f"SELECT {COLUMNS} FROM submissions WHERE participant = ? AND state = 'SENDING' AND epoch < ? ORDER BY seq",  # noqa: S608
        (participant, fence.epoch),
    )
    doubtful = [Submission(*row) for row in found]
    for submission in doubtful:
        move(tx, fence, submission, _S.IN_DOUBT, cause="the bridge stopped while it was sent", data={})
        tell(tx, submission, EmsState.IN_DOUBT, everyone=True)
    if repeats:
        tx.run(
            "UPDATE submissions SET resend = ?, due_ns = 0 WHERE participant = ? AND state = 'IN_DOUBT' AND resend = 0",
            (_SAME, participant),
        )
    return [submission.id for submission in doubtful]


def tell(tx: Tx, submission: Submission, state: EmsState, *, everyone: bool) -> None:
    """Tell the places of a submission's items where they stand."""
    writebacks.announce(
        tx,
        submission.seq,
        submission.site,
        state=state,
        transaction_id=submission.transaction_id,
        everyone=everyone,
        echoes=submission.echoes,
    )
