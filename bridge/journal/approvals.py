"""Tokens that were given out, and requests that wait for a second person; see `bridge.journal.access`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from bridge.errors import NotPossible
from bridge.journal import keyring, profiles, resolve
from bridge.journal.access import Action, ApprovalState, ApprovalView, TokenView, Wanted
from bridge.journal.keys import KeySide
from bridge.journal.moves import Submission, find
from bridge.journal.people import Decision
from bridge.journal.port import ItemOutcome
from bridge.journal.store import Row, Rows, Tx, dump, dump_errors, load_errors
from bridge.model import ItemState

_COLUMNS: Final = (
    "id, holder, role, participants, issued_by, issued_ns, expires_ns, revoked_ns, revoked_by, revoke_reason"
)
_APPROVAL: Final = "id, participant, action, subject, details, asked_by, reason, asked_ns, expires_ns, state, decided_by, decided_ns, decision"
_LIST_HINT: Final = "`smp-bridge token list` names those that were given out"

# ------------------------------------------------------------------------------------------------------------- tokens


def token(rows: Rows, id_: str) -> TokenView | None:
    """See the port."""
    row = rows.one(f"SELECT {_COLUMNS} FROM access_tokens WHERE id = ?", (id_,))  # noqa: S608 - constants
    return _token(row) if row else None


def tokens(rows: Rows) -> list[TokenView]:
    """See the port."""
    return [_token(row) for row in rows.all(f"SELECT {_COLUMNS} FROM access_tokens ORDER BY issued_ns DESC, id")]  # noqa: S608


def note_token(tx: Tx, new: TokenView) -> None:
    """See the port."""
    values = (new.id, new.holder, new.role, dump(list(new.participants)), new.issued_by, new.issued_ns, new.expires_ns)
    tx.run(
        "INSERT INTO access_tokens (id, holder, role, participants, issued_by, issued_ns, expires_ns) VALUES (?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    said = {"by": new.issued_by, "holder": new.holder, "role": new.role, "expires_ns": new.expires_ns}
    _say(tx, new, "token.new", said)


def revoke_token(tx: Tx, id_: str, decision: Decision) -> TokenView:
    """See the port."""
    found = token(tx, id_)
    if found is None:
        raise NotPossible(f"there is no token {id_}", hint=_LIST_HINT)
    if found.revoked_ns:
        raise NotPossible(f"token {id_} was revoked before, by {found.revoked_by}")
    tx.run(
        "UPDATE access_tokens SET revoked_ns = ?, revoked_by = ?, revoke_reason = ? WHERE id = ?",
        (tx.now.wall_ns, decision.by, decision.reason, id_),
    )
    _say(tx, found, "token.revoked", {**decision.said(), "holder": found.holder, "role": found.role})
    after = token(tx, id_)
    assert after is not None
    return after


def _say(tx: Tx, about: TokenView, kind: str, said: Mapping[str, object]) -> None:
    """In the record of each participant that the token is for: none of them reads the others' names there."""
    for participant in about.participants or ("",):
        tx.event(None, participant, kind, f"token:{about.id}", said)


def _token(row: Row) -> TokenView:
    return TokenView(
        id=row[0],
        holder=row[1],
        role=row[2],
        participants=tuple(orjson.loads(row[3])),
        issued_by=row[4],
        issued_ns=row[5],
        expires_ns=row[6],
        revoked_ns=row[7],
        revoked_by=row[8],
        revoke_reason=row[9],
    )


# ---------------------------------------------------------------------------------------------------- a second person


def approvals(
    rows: Rows, now_ns: int, participants: Sequence[str] | None, limit: int, *, open_only: bool
) -> list[ApprovalView]:
    """See the port."""
    terms: dict[str, Any] = {"state = 'open' AND expires_ns > ?": now_ns} if open_only else {}
    if participants is not None:
        terms["participant IN (SELECT value FROM json_each(?))"] = dump(list(participants))
    where = " AND ".join(terms) or "1 = 1"
    found = rows.all(
        f"SELECT {_APPROVAL} FROM approvals WHERE {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - constants
        (*terms.values(), limit),
    )
    return [_approval(row, now_ns) for row in found]


def approval(rows: Rows, id_: int, now_ns: int) -> ApprovalView | None:
    """See the port."""
    row = rows.one(f"SELECT {_APPROVAL} FROM approvals WHERE id = ?", (id_,))  # noqa: S608 - constants
    return _approval(row, now_ns) if row else None


def perform(tx: Tx, new_id: Callable[[], str], wanted: Wanted, decision: Decision) -> str:
    """See the port."""
    if wanted.action is Action.RESEND:
        return resolve.resend(tx, new_id, wanted.submission, decision, wanted.items)
    if wanted.action is Action.CONFIRM:
        resolve.confirm(tx, wanted.submission, wanted.outcomes, decision)
    elif wanted.action is Action.CANCEL:
        resolve.cancel(tx, wanted.submission, decision, wanted.items)
    elif wanted.action is Action.RETRY:
        resolve.retry(tx, wanted.submission, decision)
    elif wanted.action is Action.ACCEPT_PROFILE:
        return profiles.accept(tx, wanted.participant, decision, wanted=wanted.profile)
    elif wanted.action is Action.ROTATE_KEYS:
        return keyring.rotate(tx, wanted.participant, wanted.side, wanted.kid, wanted.grace_ns, decision)[0]
    else:
        return keyring.revoke(tx, wanted.participant, wanted.side, wanted.kid, decision)
    return wanted.submission


def ask(tx: Tx, wanted: Wanted, decision: Decision, expires_ns: int) -> int:
    """See the port."""
    expire(tx)
    if wanted.action is Action.ACCEPT_PROFILE:
        wanted = replace(wanted, profile=wanted.profile or profiles.waiting(tx, wanted.participant))
    participant, subject = _subject(tx, wanted)
    row = tx.one(f"SELECT {_APPROVAL} FROM approvals WHERE subject = ? AND state = 'open'", (subject,))  # noqa: S608
    if row is not None:
        raise NotPossible(
            f"{subject}: {row[2]} was asked for by {row[5]} and waits for a second person",
            hint="approve or refuse that first",
        )
    id_ = tx.insert(
        "INSERT INTO approvals (participant, action, subject, details, asked_by, reason, asked_ns, expires_ns, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open')",
        (
            participant, wanted.action.value, subject, dump(_details(wanted)), decision.by, decision.reason,
            tx.now.wall_ns, expires_ns,
        ),
    )  # fmt: skip
    said = {**decision.said(), "approval": id_, "action": wanted.action.value, "expires_ns": expires_ns}
    tx.event(None, participant, "approval.asked", subject, said)
    return id_


def approve(tx: Tx, new_id: Callable[[], str], id_: int, decision: Decision) -> str:
    """See the port."""
    found = _open(tx, id_)
    if same_person(found.asked_by, decision.by):
        raise NotPossible(
            f"{found.asked_by} asked for {found.action.value} of {found.subject}: a second person has to approve it",
            hint="somebody else with the role approver does",
        )
    _decide(tx, found, ApprovalState.DONE, decision)
    more = {"approval": str(id_), "approved_by": decision.by, "approved_because": decision.reason}
    asked = Decision(by=found.asked_by, reason=found.reason, more=more)
    return perform(tx, new_id, _wanted(found), asked)


def refuse(tx: Tx, id_: int, decision: Decision) -> None:
    """See the port."""
    _decide(tx, _open(tx, id_), ApprovalState.REFUSED, decision)


def expire(tx: Tx) -> None:
    """Those whose time is over end, each with an event."""
    due = tx.all("SELECT id FROM approvals WHERE state = 'open' AND expires_ns <= ?", (tx.now.wall_ns,))
    for (id_,) in due:
        found = approval(tx, id_, 0)
        assert found is not None
        _decide(tx, found, ApprovalState.EXPIRED, Decision(by="", reason="nobody approved it in time"))


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's, however they are written."""
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _decide(tx: Tx, found: ApprovalView, state: ApprovalState, decision: Decision) -> None:
    tx.run(
        "UPDATE approvals SET state = ?, decided_by = ?, decided_ns = ?, decision = ? WHERE id = ?",
        (state.value, decision.by, tx.now.wall_ns, decision.reason, found.id),
    )
    said = {**decision.said(), "approval": found.id, "action": found.action.value, "asked_by": found.asked_by}
    tx.event(None, found.participant, f"approval.{state.value}", found.subject, said)


def _open(tx: Tx, id_: int) -> ApprovalView:
    found = approval(tx, id_, tx.now.wall_ns)
    if found is None:
        raise NotPossible(f"there is no request {id_} for a second person")
    if found.state is not ApprovalState.OPEN:
        raise NotPossible(f"request {id_} is {found.state.value}", hint="ask anew for what is still wanted")
    return found


def _subject(rows: Rows, wanted: Wanted) -> tuple[str, str]:
    """Whose it is, and what it is about."""
    if wanted.action is Action.ACCEPT_PROFILE:
        if not wanted.profile:
            raise NotPossible(f"no profile of {wanted.participant} waits for being accepted")
        return wanted.participant, profiles.subject_of(wanted.participant)
    if wanted.action.of_keys:
        known = [record.kid for record in keyring.keys(rows, wanted.participant) if record.side is wanted.side]
        if wanted.kid and wanted.kid not in known:
            raise NotPossible(f"{wanted.participant} has no key {wanted.kid}")
        return wanted.participant, f"keys:{wanted.participant}"
    found = _submission(rows, wanted.submission)
    return found.participant, found.id


def _submission(rows: Rows, submission: str) -> Submission:
    found = find(rows, "id = ?", (submission,))
    if found is None:
        raise NotPossible(f"there is no submission {submission}", hint="`smp-bridge submissions list` names them")
    return found


def _details(wanted: Wanted) -> dict[str, object]:
    if wanted.action is Action.ACCEPT_PROFILE:
        return {"profile": wanted.profile}
    if wanted.action.of_keys:
        return {"side": wanted.side.value, "kid": wanted.kid, "grace_ns": wanted.grace_ns}
    outcomes = [[o.item, o.state.value, o.asset_id, dump_errors(o.errors)] for o in wanted.outcomes]
    found: dict[str, object] = {"items": list(wanted.items), "outcomes": outcomes}
    return {name: value for name, value in found.items() if value}


def _wanted(found: ApprovalView) -> Wanted:
    details: Any = found.details
    if found.action is Action.ACCEPT_PROFILE:
        return Wanted(action=found.action, participant=found.participant, profile=details["profile"])
    if found.action.of_keys:
        return Wanted(
            action=found.action, participant=found.participant, side=KeySide(details["side"]), kid=details["kid"],
            grace_ns=details["grace_ns"],
        )  # fmt: skip
    outcomes = [
        ItemOutcome(item=item, state=ItemState(state), asset_id=asset_id, errors=load_errors(errors))
        for item, state, asset_id, errors in details.get("outcomes", ())
    ]
    return Wanted(action=found.action, submission=found.subject, items=details.get("items", ()), outcomes=outcomes)


def _approval(row: Row, now_ns: int) -> ApprovalView:
    state = ApprovalState(row[9])
    over = state is ApprovalState.OPEN and row[8] <= now_ns
    return ApprovalView(
        id=row[0],
        participant=row[1],
        action=Action(row[2]),
        subject=row[3],
        details=orjson.loads(row[4]),
        asked_by=row[5],
        reason=row[6],
        asked_ns=row[7],
        expires_ns=row[8],
        state=ApprovalState.EXPIRED if over else state,
        decided_by=row[10],
        decided_ns=row[11],
        decision=row[12],
    )
