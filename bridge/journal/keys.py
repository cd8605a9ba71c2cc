"""The port's part for signing keys: which state each is in, and how it got there. Only public halves are here; private ones stay in their files.

The states of DOMAIN 3. Ours: `next` is shown to the platform and does not sign yet, `active` signs (always exactly one), `retiring` is still shown for
its grace time, `revoked` is never used again. The platform's: `next`, `active` and `retiring` (until its grace time is over) verify, `revoked` does not.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.journal.people import Decision


class KeySide(enum.Enum):
    """Whose signing key it is."""

    OURS = "ours"
    THEIRS = "theirs"


class KeyState(enum.Enum):
    """Where a key stands in its life."""

    NEXT = "next"
    ACTIVE = "active"
    RETIRING = "retiring"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key. `jwk` is the public half as JSON; `place` the file of the private half (ours), or `configured` or `imported` (theirs).

    Times are UTC ns: `since_ns` in this state, `until_ns` the end of the grace time of a retiring key, `expires_ns` when it ends by itself (0: never).
    """

    participant: str
    side: KeySide
    kid: str
    alg: str
    state: KeyState
    jwk: str
    place: str
    since_ns: int = 0
    until_ns: int = 0
    expires_ns: int = 0
    by: str = ""
    reason: str = ""

    def lives(self, now_ns: int) -> bool:
        """Whether the other side should know it: not revoked, not past its grace time, not expired."""
        if self.state is KeyState.REVOKED or (self.expires_ns and self.expires_ns <= now_ns):
            return False
        return self.state is not KeyState.RETIRING or now_ns < self.until_ns


class KeyReader(Protocol):
    """Keys as people read them."""

    async def keys(self, participant: str = "") -> Sequence[KeyRecord]:
        """Every key that the journal knows, of one participant or of all."""
        ...


class AccountKeeper(Protocol):
    """What a person says of a participant's account."""

    async def release_account(self, participant: str, decision: Decision) -> None:
        """Logging in may be tried again: the alarm ACCOUNT_STOPPED ends, an event says who and why, and the topic `account:<participant>` is woken.

        Raises `NotPossible` when the account is not stopped.
        """
        ...


class KeyKeeper(AccountKeeper, Protocol):
    """What changes a key's state. Each is one durable commit and an event for each key; the topic `keys:<participant>` says when to look again."""

    async def introduce_keys(self, configured: Sequence[KeyRecord], grace_ns: int) -> None:
        """The keys that the configuration names: those that the journal does not know are active from now on.

        One of ours takes the place of the active one, which retires for the grace time. States that the journal knows stay as they are.
        """
        ...

    async def add_key(self, record: KeyRecord, decision: Decision) -> None:
        """A new key, `next` or (theirs only) `active`. Raises `NotPossible` when this key id is known already."""
        ...

    async def rotate_keys(
        self, participant: str, side: KeySide, kid: str, grace_ns: int, decision: Decision
    ) -> tuple[str, Sequence[str]]:
        """The next key becomes active, the active ones retire for the grace time; returns the ids of the new one and of those that retire.

        `kid` names the next key where there are several ('' where there is one). Raises `NotPossible` when there is none, or it has expired.
        """
        ...

    async def revoke_key(self, participant: str, side: KeySide, kid: str, decision: Decision) -> str:
        """Never use this key again. Our active one needs a next one, which takes its place at once and whose id is returned ('' otherwise).

        Raises `NotPossible` when the key is not known, is revoked already, or is the only one that can sign.
        """
        ...
