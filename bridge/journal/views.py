"""The journal as people and trackers read it."""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from bridge.ids import first_submission_id
from bridge.journal.archive import segments_of
from bridge.journal.moves import COLUMNS, Submission, find
from bridge.journal.port import EventView, ItemView, OpenItem, OpenSubmission, SubmissionView
from bridge.journal.standing import item_state
from bridge.journal.store import Row, Rows, dump, load_errors, load_stamps
from bridge.model import Operation
from bridge.submission import SubmissionState

_FEW: Final = 50  # items
STRETCH: Final = 20_000  # submissions that are looked through in some 10 ms
_MS: Final = 1_000_000
_OF_TRANSACTION: Final = "participant = ? AND transaction_id = ? AND transaction_id <> ''"
_VIEW: Final = "seq, id, participant, site, flow, operation, state, transaction_id, items, reason, attempts, stamps"


# ------------------------------------------------------------------------------------------------------------ tracking


def find_submission(
    rows: Rows, participant: str, *, transaction_id: str, message_id: str, correlation_id: str, submission: str
) -> OpenSubmission | None:
    """By id, then by transaction id, then by the ids of any of its signed calls."""
    by_call = "seq = (SELECT max(submission) FROM calls WHERE participant = ? AND {} = ?)"
    tries = (
        (submission, "id = ? AND participant = ?", (submission, participant)),
        (
            transaction_id,
            _OF_TRANSACTION,
            (participant, transaction_id),
        ),
        (message_id, by_call.format("message_id"), (participant, message_id)),
        (correlation_id, by_call.format("correlation_id"), (participant, correlation_id)),
    )
    for given, where, args in tries:
        found = find(rows, where, args) if given else None
        if found is not None:
            return _open(rows, found, with_items=True)
    return None


def answered_by(rows: Rows, participant: str, transaction_id: str) -> OpenSubmission | None:
    """The submission of this transaction if it has few items: what is read here, others wait for."""
    found = find(rows, _OF_TRANSACTION, (participant, transaction_id))
    return _open(rows, found, with_items=True) if found is not None and found.items <= _FEW else None


def open_submissions(rows: Rows, participant: str) -> list[OpenSubmission]:
    """Those whose outcome is awaited, oldest first, without items."""
    found = rows.all(
        f"SELECT {COLUMNS} FROM submissions WHERE participant = ? AND state IN ('IN_DOUBT', 'AWAITING_RETURN', 'OVERDUE')"  # noqa: S608
        " ORDER BY seq",
        (participant,),
    )
    return [_open(rows, Submission(*row), with_items=False) for row in found]


def _open(rows: Rows, submission: Submission, *, with_items: bool) -> OpenSubmission:
    call = rows.one("SELECT message_id FROM calls WHERE id = ?", (submission.call,))
    items = (
        rows.table(
            "SELECT id, key, outcome, asset_id FROM items WHERE submission = ? ORDER BY id", (submission.seq,), 4
        )
        if with_items
        else []
    )
    state = submission.state.value
    return OpenSubmission(
        id=submission.id,
        participant=submission.participant,
        site=submission.site,
        flow=submission.flow,
        operation=submission.operation,
        state=submission.state,
        message_id=call[0] if call else "",
        transaction_id=submission.transaction_id,
        sent_ns=submission.sent_ns,
        items=[OpenItem(id=row[0], key=row[1], state=item_state(row[2], state), asset_id=row[3]) for row in items],
        stamps=load_stamps(submission.stamps),
    )


# -------------------------------------------------------------------------------------------------------------- people


def asked(
    *,
    participant: str = "",
    participants: Sequence[str] | None = None,
    site: str = "",
    state: SubmissionState | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    before: str = "",
) -> Mapping[str, str]:
    """The terms, each with its value, of what the port's `submissions` is asked for. An id begins with the time at which it was made."""
    terms = {
        "participant = ?": participant,
        "participant IN (SELECT value FROM json_each(?))": "" if participants is None else dump(list(participants)),
        "site = ?": site,
        "state = ?": state.value if state else "",
        "id >= ?": "" if since_ns is None else first_submission_id(since_ns),
        "id < ?": "" if until_ns is None else first_submission_id(until_ns + _MS),
        "seq < (SELECT seq FROM submissions WHERE id = ?)": before,
    }
    return {term: value for term, value in terms.items() if value}


def submissions(rows: Rows, terms: Mapping[str, str], limit: int, below: int = 0) -> tuple[list[SubmissionView], int]:
    """Submissions of these terms, newest first, among the next `STRETCH` below this place in the order in which they were made (0 = the end); and the place to go on below, 0 where there are none.

    No index knows who has which, and whoever looks for few among millions must not keep others waiting for the reading thread.
    """
    top = below or ((rows.one("SELECT max(seq) FROM submissions") or (0,))[0] or 0) + 1
    bottom = max(top - STRETCH, 0)
    wanted = {"seq >= ?": bottom, "seq < ?": top, **terms}
    found = rows.all(
        f"SELECT {_VIEW} FROM submissions WHERE {' AND '.join(wanted)} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - constants
        (*wanted.values(), limit),
    )
    return [_submission_view(rows, row) for row in found], bottom


def submission(rows: Rows, submission: str) -> SubmissionView | None:
    """One submission by its id."""
    row = rows.one(f"SELECT {_VIEW} FROM submissions WHERE id = ?", (submission,))  # noqa: S608 - a constant
    return None if row is None else _submission_view(rows, row)


def _submission_view(rows: Rows, row: Row) -> SubmissionView:
    seq, id_, participant, site, flow, operation, state, transaction_id, items, reason, attempts, stamps = row
    counted = rows.all(
        "SELECT outcome, count(*) FROM items WHERE submission = ? AND outcome IS NOT NULL GROUP BY outcome", (seq,)
    )
    return SubmissionView(
        id=id_,
        participant=participant,
        site=site,
        flow=flow,
        operation=Operation(operation),
        state=SubmissionState(state),
        transaction_id=transaction_id,
        items=items,
        outcomes=dict(counted),
        reason=reason,
        attempts=attempts,
        stamps=load_stamps(stamps),
        segments=segments_of(rows, id_),
    )


def submission_items(rows: Rows, submission: str) -> list[ItemView]:
    """The items of one submission, in the order of the call."""
    found = rows.all(
        "SELECT i.id, i.key, i.place, i.site, i.flow, i.outcome, s.state, i.asset_id, i.errors, w.step FROM submissions s"
        " JOIN items i ON i.submission = s.seq"
        " LEFT JOIN writebacks w ON w.site = i.site AND w.flow = i.flow AND w.place = i.place AND w.slot = i.slot AND w.follows = i.id"
        " WHERE s.id = ? ORDER BY i.id",
        (submission,),
    )
    return [
        ItemView(
            id=row[0],
            key=row[1],
            place=row[2],
            site=row[3],
            flow=row[4],
            state=item_state(row[5], row[6]),
            asset_id=row[7],
            errors=load_errors(row[8]),
            written_back=row[9] or "",
        )
        for row in found
    ]


def events(rows: Rows, subject: str, limit: int) -> list[EventView]:
    """The events of one subject, oldest first."""
    found = rows.all(
        "SELECT writer, epoch, number, at_ns, kind, subject, data FROM events WHERE subject = ? ORDER BY id LIMIT ?",
        (subject, limit),
    )
    return [
        EventView(
            writer=row[0],
            epoch=row[1],
            number=row[2],
            at_ns=row[3],
            kind=row[4],
            subject=row[5],
            data=orjson.loads(row[6]),
        )
        for row in found
    ]


def counts(rows: Rows) -> dict[str, int]:
    """Gauges of the whole journal."""
    one = {
        "items.waiting": "SELECT coalesce(sum(items), 0) FROM submissions WHERE state IN ('WAITING', 'RETRY_WAIT')",
        "writebacks.pending": "SELECT count(*) FROM writebacks WHERE step IN ('pending', 'retry')",
        "writebacks.stuck": "SELECT count(*) FROM writebacks WHERE step IN ('retry', 'stuck') AND step = 'stuck'",
        "returns.parked": "SELECT count(*) FROM returns WHERE verdict IN ('', 'orphan')",
        "alarms.open": "SELECT count(*) FROM alarms WHERE cleared_ns = 0",
    }
    found = {name: int((rows.one(sql) or (0,))[0]) for name, sql in one.items()} | {"bytes": rows.size()}
    by_state = rows.all("SELECT state, count(*) FROM submissions GROUP BY state")
    return found | {f"submissions.{state}": int(count) for state, count in by_state}
