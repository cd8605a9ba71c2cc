"""The port's part for access: which tokens of the admin API count, and what waits until a second person approves it.

A token itself never comes here, only its id. Every change is one durable commit with an event that says who and why.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bridge.journal.keys import KeySide
from bridge.journal.people import Decision

if TYPE_CHECKING:  # the port takes this part in
    from bridge.journal.port import ItemOutcome


class Action(enum.Enum):
    """What a person may want: of a submission (see `People` for what each does), of a participant's keys (see `KeyKeeper`) or profile (see `Profiles`)."""

    RESEND = "resend"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    RETRY = "retry"
    ROTATE_KEYS = "rotate-keys"
    REVOKE_KEY = "revoke-key"
    ACCEPT_PROFILE = "accept-profile"

    @property
    def of_keys(self) -> bool:
        """Whether it is about a participant's keys."""
        return self in (Action.ROTATE_KEYS, Action.REVOKE_KEY)

    @property
    def of_submission(self) -> bool:
        """Whether it is about a submission, which has a page."""
        return not self.of_keys and self is not Action.ACCEPT_PROFILE


class ApprovalState(enum.Enum):
    """What became of a request for a second person's word."""

    OPEN = "open"
    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One action on one submission, or on the keys or profile of a participant. `items` (ids) narrow a resend or cancel, `outcomes` belong to a confirm.

    `side`, `kid` and `grace_ns` are those of `KeyKeeper`; `profile` is the one that is accepted, as `Profiles.introduce_profile` named it ('' = the one that waits).
    """

    action: Action
    submission: str = ""
    items: Sequence[int] = ()
    outcomes: "Sequence[ItemOutcome]" = ()
    participant: str = ""
    side: KeySide = KeySide.OURS
    kid: str = ""
    grace_ns: int = 0
    profile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token that was given out. `participants` empty = all of them; `revoked_ns` 0 while it was not revoked. Times are UTC ns."""

    id: str
    holder: str
    role: str
    participants: tuple[str, ...]
    issued_by: str
    issued_ns: int
    expires_ns: int
    revoked_ns: int = 0
    revoked_by: str = ""
    revoke_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalView:
    """One request that needs, or needed, a second person; `subject` is a submission, or `keys:` or `profile:` and a participant. One whose time is over reads EXPIRED, whether or not its event is written yet."""

    id: int
    participant: str
    action: Action
    subject: str
    details: Mapping[str, object]
    asked_by: str
    reason: str
    asked_ns: int
    expires_ns: int
    state: ApprovalState
    decided_by: str
    decided_ns: int
    decision: str


class AccessReader(Protocol):
    """Access as it is read."""

    async def token(self, token: str) -> TokenView | None:
        """A token by its id; None when the journal knows of none."""
        ...

    async def tokens(self) -> Sequence[TokenView]:
        """Every token that was given out, newest first."""
        ...

    async def approvals(
        self, *, now_ns: int, open_only: bool = True, participants: Sequence[str] | None = None, limit: int = 100
    ) -> Sequence[ApprovalView]:
        """Requests for a second person's word, newest first; those of these participants, None = of all."""
        ...

    async def approval(self, approval: int, *, now_ns: int) -> ApprovalView | None:
        """One of them by its number."""
        ...


class Profiles(Protocol):
    """Which profile of a participant was accepted. Where four eyes are wanted another one is held until two people accept it."""

    async def introduce_profile(self, participant: str, profile: str, *, four_eyes: bool) -> bool:
        """The participant's process works by this profile (name, version and hash) from now on. Whether it is held: nothing of the participant goes out then.

        The first one counts as accepted, and without `four_eyes` each of them does.
        """
        ...

    async def accept_profile(self, participant: str, decision: Decision) -> str:
        """The profile that waits is accepted, and the hold ends; returns it. Raises `NotPossible` when none waits."""
        ...


class Access(AccessReader, Profiles, Protocol):
    """Access as it is changed."""

    async def note_token(self, token: TokenView) -> None:
        """From this commit on the token counts."""
        ...

    async def revoke_token(self, token: str, decision: Decision) -> TokenView:
        """From this commit on it does not count. Raises `NotPossible` when there is none, or it was revoked before."""
        ...

    async def perform(self, wanted: Wanted, decision: Decision) -> str:
        """Do it now; the id of the submission that goes on, the profile that was accepted, or of the key that is active now, '' where none takes the place of a revoked one.

        Raises `NotPossible` as `People` and `KeyKeeper` do.
        """
        ...

    async def ask_approval(self, wanted: Wanted, decision: Decision, *, expires_ns: int) -> int:
        """Note that somebody wants this and that a second person has to approve it; the number of the request.

        Raises `NotPossible` when there is no such submission or key, or another request for it is open.
        """
        ...

    async def approve(self, approval: int, decision: Decision) -> str:
        """A second person agrees, and it is done in the same commit: what `perform` returns.

        Raises `NotPossible`, and the request stays as it is, when it is not open, its time is over, the same person asked for it, or it cannot be done as things stand.
        """
        ...

    async def refuse_approval(self, approval: int, decision: Decision) -> None:
        """Somebody says no, or the one who asked takes it back. Raises `NotPossible` when it is not open."""
        ...
