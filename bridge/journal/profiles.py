"""Which profile of a participant was accepted; see `bridge.journal.access.Profiles`."""

from typing import Final

from bridge.errors import NotPossible
from bridge.journal import holds
from bridge.journal.people import Decision, Scope
from bridge.journal.store import Rows, Tx

BY_HOST: Final = "smp-bridge"
_ACCEPTED: Final = "profile.accepted:"
_WAITS: Final = "profile.waits:"


def subject_of(participant: str) -> str:
    """Under which subject its events stand."""
    return f"profile:{participant}"


def introduce(tx: Tx, participant: str, profile: str, *, four_eyes: bool) -> bool:
    """See the port."""
    accepted, waits = _value(tx, _ACCEPTED + participant), waiting(tx, participant)
    if accepted in ("", profile) or not four_eyes:
        if accepted != profile:
            _set(tx, _ACCEPTED + participant, profile)
            _say(tx, participant, accepted, profile, Decision(by=BY_HOST, reason="no second person was asked for"))
        if waits:
            _set(tx, _WAITS + participant, "")
            back = "the profile is the accepted one again" if accepted == profile else "four eyes are no longer wanted"
            holds.release(tx, Scope.PROFILE, participant, Decision(by=BY_HOST, reason=back))
        return False
    if waits != profile:
        if waits:
            other = Decision(by=BY_HOST, reason="yet another profile came")
            holds.release(tx, Scope.PROFILE, participant, other)
        _set(tx, _WAITS + participant, profile)
        text = f"the profile is another one than was accepted ({accepted} → {profile}); two people have to accept it"
        holds.hold(tx, Scope.PROFILE, participant, Decision(by=BY_HOST, reason=text))
    return True


def waiting(rows: Rows, participant: str) -> str:
    """The profile that waits for being accepted, '' for none."""
    return _value(rows, _WAITS + participant)


def accept(tx: Tx, participant: str, decision: Decision, *, wanted: str = "") -> str:
    """See the port. `wanted` is the profile that was looked at ('' = the one that waits); another one may have come since."""
    waits = waiting(tx, participant)
    if not waits:
        raise NotPossible(f"no profile of {participant} waits for being accepted")
    if wanted not in ("", waits):
        raise NotPossible(f"another profile of {participant} waits by now: {waits}", hint="ask anew, for that one")
    accepted = _value(tx, _ACCEPTED + participant)
    _set(tx, _ACCEPTED + participant, waits)
    _set(tx, _WAITS + participant, "")
    holds.release(tx, Scope.PROFILE, participant, decision)
    _say(tx, participant, accepted, waits, decision)
    return waits


def _say(tx: Tx, participant: str, before: str, now: str, decision: Decision) -> None:
    data = {**decision.said(), "before": before, "now": now}
    tx.event(None, participant, "profile.accepted", subject_of(participant), data)


def _value(rows: Rows, name: str) -> str:
    row = rows.one("SELECT value FROM meta WHERE name = ?", (name,))
    return str(row[0]) if row else ""


def _set(tx: Tx, name: str, value: str) -> None:
    tx.run(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
