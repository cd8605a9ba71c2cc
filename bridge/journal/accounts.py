"""A participant's account that logging in was stopped for: a person says that it may be tried again."""

from typing import Final

from bridge.errors import NotPossible
from bridge.journal.people import Decision
from bridge.journal.store import Tx

STOPPED: Final = "ACCOUNT_STOPPED"


def topic(participant: str) -> str:
    """What wakes the one who logs in."""
    return f"account:{participant}"


def release(tx: Tx, participant: str, decision: Decision) -> None:
    """See the port."""
    standing = tx.one(
        "SELECT 1 FROM alarms WHERE code = ? AND participant = ? AND cleared_ns = 0", (STOPPED, participant)
    )
    if standing is None:
        raise NotPossible(f"the account of {participant} is not stopped", hint="`smp-bridge alarms list` says what is")
    tx.clear_alarm(STOPPED, participant=participant)
    told = {"by": decision.by, "reason": decision.reason}
    tx.event(None, participant, "account.released", f"account:{participant}", told)
    tx.topics.add(topic(participant))
