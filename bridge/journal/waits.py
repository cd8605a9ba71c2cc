"""What kept a submission from its first call, or that this is a further one: such a wait is not the host's own (`bridge.latency.Wait`)."""

from collections.abc import Mapping
from typing import Final

from bridge.clock import Stamp
from bridge.journal.moves import Submission
from bridge.journal.store import Rows
from bridge.latency import Wait
from bridge.model import Kind
from bridge.submission import SubmissionState

# Arguments: received_ns, participant, participant, site, seq. A waiting submission has a reason only when a person let it go on.
_WHY: Final = (
    "SELECT reason, placed_ns, EXISTS (SELECT 1 FROM holds WHERE released_ns > ? AND (scope IN ('host', 'journal')"
    " OR (scope IN ('participant', 'profile') AND name = ?)"
    " OR (scope = 'environment' AND name = (SELECT environment FROM environments WHERE participant = ?))"
    " OR (scope IN ('site', 'ems') AND name = ?))) FROM submissions WHERE seq = ?"
)


def waited(rows: Rows, submission: Submission, stamps: Mapping[str, Stamp]) -> Wait | None:
    """Why this submission, which may go out now, could not before; None when only the host itself let it wait."""
    if submission.state is SubmissionState.IN_DOUBT:
        return Wait.RESEND
    if submission.attempts:
        return Wait.RETRY
    received, journalled = stamps.get("received"), stamps.get("journalled")
    if received is None or journalled is None:
        return Wait.RESEND  # a copy of what went out before (`requeue`)
    found = rows.one(
        _WHY, (received.wall_ns, submission.participant, submission.participant, submission.site, submission.seq)
    )
    assert found is not None
    reason, placed_ns, held = found
    if reason:
        return Wait.SET_ASIDE
    if held:
        return Wait.HOLD
    # `look_again` places a unit anew when its last asset lets it go.
    return Wait.MEMBERS if submission.operation.kind is Kind.UNIT and placed_ns > journalled.wall_ns else None
