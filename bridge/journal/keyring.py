"""The states of signing keys, in the journal's tables. See `bridge.journal.keys` for what they mean."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bridge.errors import NotPossible
from bridge.journal.keys import KeyRecord, KeySide, KeyState
from bridge.journal.people import Decision
from bridge.journal.store import Row, Rows, Tx

HOST: Final = "host"
_COLUMNS: Final = "participant, side, kid, alg, state, jwk, place, since_ns, until_ns, expires_ns, changed_by, reason"
_NAMES: Final = "smp-bridge keys list"


def keys(rows: Rows, participant: str) -> list[KeyRecord]:
    """See the port."""
    where, args = ("WHERE participant = ?", (participant,)) if participant else ("", ())
    found = rows.all(f"SELECT {_COLUMNS} FROM signing_keys {where} ORDER BY participant, side, since_ns, kid", args)  # noqa: S608
    return [_record(row) for row in found]


def introduce(tx: Tx, configured: Sequence[KeyRecord], grace_ns: int) -> None:
    """See the port."""
    for record in configured:
        known = {key.kid: key for key in keys(tx, record.participant) if key.side is record.side}
        if record.kid in known:
            _keep(tx, known[record.kid], record)
            continue
        decision = Decision(by=HOST, reason="named by the configuration")
        if record.side is KeySide.OURS:
            for key in known.values():
                if key.state is KeyState.ACTIVE:
                    _move(tx, key, KeyState.RETIRING, decision, until_ns=tx.now.wall_ns + grace_ns)
        _insert(tx, replace(record, state=KeyState.ACTIVE), decision)


def add(tx: Tx, record: KeyRecord, decision: Decision) -> None:
    """See the port."""
    if any((key.side, key.kid) == (record.side, record.kid) for key in keys(tx, record.participant)):
        raise NotPossible(f"the key {record.kid} of {record.participant} is known already", hint=f"`{_NAMES}` shows it")
    if record.side is KeySide.OURS and record.state is not KeyState.NEXT:
        raise NotPossible("a key of ours is `next` first", hint="`smp-bridge keys rotate` makes it the active one")
    _insert(tx, record, decision)


def rotate(
    tx: Tx, participant: str, side: KeySide, kid: str, grace_ns: int, decision: Decision
) -> tuple[str, list[str]]:
    """See the port."""
    mine = [key for key in keys(tx, participant) if key.side is side]
    chosen = _next(tx, mine, participant, kid)
    retired = [key for key in mine if key.state is KeyState.ACTIVE]
    for key in retired:
        _move(tx, key, KeyState.RETIRING, decision, until_ns=tx.now.wall_ns + grace_ns)
    _move(tx, chosen, KeyState.ACTIVE, decision)
    return chosen.kid, [key.kid for key in retired]


def revoke(tx: Tx, participant: str, side: KeySide, kid: str, decision: Decision) -> str:
    """See the port."""
    mine = [key for key in keys(tx, participant) if key.side is side]
    found = next((key for key in mine if key.kid == kid), None)
    if found is None:
        raise NotPossible(f"{participant} has no key {kid} among {side.value}", hint=f"`{_NAMES}` names them")
    if found.state is KeyState.REVOKED:
        raise NotPossible(f"the key {kid} is revoked already", hint="there is nothing left to do")
    successor = ""
    if side is KeySide.OURS and found.state is KeyState.ACTIVE:
        try:
            chosen = _next(tx, mine, participant, "")
        except NotPossible as error:
            raise NotPossible(
                f"{kid} is the key that signs for {participant}, and no single next key can take its place",
                hint="`smp-bridge keys new` makes one; to send nothing until then: `smp-bridge hold`",
            ) from error
        _move(tx, chosen, KeyState.ACTIVE, decision)
        successor = chosen.kid
    _move(tx, found, KeyState.REVOKED, decision)
    return successor


def _next(tx: Tx, mine: Sequence[KeyRecord], participant: str, kid: str) -> KeyRecord:
    waiting = [key for key in mine if key.state is KeyState.NEXT and kid in ("", key.kid)]
    if not waiting:
        what = f"no next key {kid}".rstrip()
        raise NotPossible(
            f"{participant} has {what}",
            hint="`smp-bridge keys new` makes one of ours, `keys import` takes one of SMP's",
        )
    if len(waiting) > 1:
        names = ", ".join(key.kid for key in waiting)
        raise NotPossible(f"{participant} has several next keys: {names}", hint="say which one with --kid")
    if not waiting[0].lives(tx.now.wall_ns):
        raise NotPossible(f"the next key {waiting[0].kid} has expired", hint="make or import a newer one")
    return waiting[0]


def _keep(tx: Tx, key: KeyRecord, configured: KeyRecord) -> None:
    """A configured key in its known state; its file may have moved, or hold another key under the same id."""
    if (key.jwk, key.place) == (configured.jwk, configured.place):
        return
    tx.run(
        "UPDATE signing_keys SET jwk = ?, alg = ?, place = ? WHERE participant = ? AND side = ? AND kid = ?",
        (configured.jwk, configured.alg, configured.place, key.participant, key.side.value, key.kid),
    )
    if key.jwk != configured.jwk:
        told = {"side": key.side.value, "kid": key.kid, "alg": configured.alg, "state": key.state.value, "by": HOST}
        tx.event(None, key.participant, "key.replaced", f"key:{key.side.value}:{key.kid}", told)


def _insert(tx: Tx, record: KeyRecord, decision: Decision) -> None:
    tx.run(
        f"INSERT INTO signing_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            record.participant, record.side.value, record.kid, record.alg, record.state.value, record.jwk, record.place,
            tx.now.wall_ns, 0, record.expires_ns, decision.by, decision.reason,
        ),
    )  # fmt: skip
    _say(tx, record, record.state, decision, before="")


def _move(tx: Tx, key: KeyRecord, state: KeyState, decision: Decision, *, until_ns: int = 0) -> None:
    tx.run(
        "UPDATE signing_keys SET state = ?, since_ns = ?, until_ns = ?, changed_by = ?, reason = ?"
        " WHERE participant = ? AND side = ? AND kid = ?",
        (
            state.value, tx.now.wall_ns, until_ns, decision.by, decision.reason, key.participant, key.side.value, key.kid,
        ),
    )  # fmt: skip
    _say(tx, key, state, decision, before=key.state.value, until_ns=until_ns)


def _say(tx: Tx, key: KeyRecord, state: KeyState, decision: Decision, *, before: str, until_ns: int = 0) -> None:
    told = {
        "side": key.side.value,
        "kid": key.kid,
        "alg": key.alg,
        "before": before,
        "state": state.value,
        "until_ns": until_ns,
        "expires_ns": key.expires_ns,
        **decision.said(),
    }
    tx.event(None, key.participant, f"key.{state.value}", f"key:{key.side.value}:{key.kid}", told)
    tx.topics.add(topic(key.participant))


def topic(participant: str) -> str:
    """What wakes those who use this participant's keys."""
    return f"keys:{participant}"


def _record(row: Row) -> KeyRecord:
    return KeyRecord(
        participant=row[0],
        side=KeySide(row[1]),
        kid=row[2],
        alg=row[3],
        state=KeyState(row[4]),
        jwk=row[5],
        place=row[6],
        since_ns=row[7],
        until_ns=row[8],
        expires_ns=row[9],
        by=row[10],
        reason=row[11],
    )
