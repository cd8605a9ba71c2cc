"""The port's part for people: what an operator decides of calls that cannot go on by themselves, and what is held.

Every call names who decides and why, is one durable commit and one event for each submission it changes, works beside a running service or
without one, and raises `NotPossible` (nothing was changed) when the journal's state does not allow it.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bridge.model import Kind

if TYPE_CHECKING:  # the port takes this part in
    from bridge.journal.port import ItemOutcome


class Scope(enum.Enum):
    """What a hold covers.

    The host's own: JOURNAL holds everything (the journal is older than its anchor), EMS one site (it shows what the journal never heard of),
    PROFILE one participant (its profile is another one than was accepted, and that takes two people).
    """

    PARTICIPANT = "participant"
    ENVIRONMENT = "environment"
    SITE = "site"
    HOST = "host"
    JOURNAL = "journal"
    EMS = "ems"
    PROFILE = "profile"

    @property
    def by_itself(self) -> bool:
        """Whether the host sets it by itself, because its journal may not know all that was sent; only `journal reconcile` releases it."""
        return self in (Scope.JOURNAL, Scope.EMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who decided, and why; both stand in the events, and so does `more`: by which token it came, or who approved it."""

    by: str
    reason: str
    more: Mapping[str, str] = field(default_factory=dict)

    def said(self) -> dict[str, object]:
        """It as an event carries it."""
        return {"by": self.by, "reason": self.reason, **self.more}


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldView:
    """One hold; `released_ns` 0 while it stands. `name` is '' for the host and its journal."""

    scope: Scope
    name: str
    reason: str
    by: str
    held_ns: int
    released_ns: int = 0
    released_by: str = ""
    release_reason: str = ""


class HoldReader(Protocol):
    """Holds as people read them."""

    async def holds(self, *, standing_only: bool = True) -> Sequence[HoldView]:
        """Holds, newest first."""
        ...

    async def standing_item(self, participant: str, kind: Kind, key: str) -> tuple[str, int] | None:
        """The submission and the item (ids) that stand for a key; None when it was never seen."""
        ...

    async def unknown_transactions(self, site: str, shown: Sequence[str]) -> Sequence[str]:
        """Those of the transaction ids that an EMS shows which the journal has never heard of for this site's flows.

        `shown` is as the EMS holds it: the id itself, cut short by the site's layout, or `#` and hex digits (`bridge.api.fit_transaction_id`).
        """
        ...


class People(HoldReader, Protocol):
    """What people decide."""

    async def resend(self, submission: str, decision: Decision, *, items: Sequence[int] = ()) -> str:
        """Send again as a new message. IN_DOUBT: the whole submission, at its turn; a return of the first message still settles it until then.

        Ended submissions: their items with outcome UNKNOWN (all of them, or those of `items`) become a new WAITING submission and the old outcomes stay.
        Returns the id of the submission that will go out.
        """
        ...

    async def confirm(self, submission: str, outcomes: "Sequence[ItemOutcome]", decision: Decision) -> None:
        """Settle by a person's word. IN_DOUBT and OVERDUE need the outcome of every item; of an ended submission only UNKNOWN items move, its state stays."""
        ...

    async def cancel(self, submission: str, decision: Decision, *, items: Sequence[int] = ()) -> None:
        """Give up: WAITING, RETRY_WAIT, SET_ASIDE and IN_DOUBT become CANCELLED; of an ended submission the UNKNOWN items do, its state stays.

        A cancelled reference may be requested, and then created, again.
        """
        ...

    async def retry(self, submission: str, decision: Decision) -> None:
        """SET_ASIDE becomes WAITING again; RETRY_WAIT is due at once."""
        ...

    async def withdraw(self, submission: str, outcomes: "Sequence[ItemOutcome]", decision: Decision) -> None:
        """Items of a waiting submission (WAITING, RETRY_WAIT, SET_ASIDE) turned out to be known already: they get these outcomes and never go out.

        The submission is CANCELLED; what is left of it waits on as a new one at the same place in line.
        """
        ...

    async def put_aside(self, submission: str, cause: str, decision: Decision) -> None:
        """A waiting submission (WAITING, RETRY_WAIT) becomes SET_ASIDE until somebody retries or cancels it."""
        ...

    async def hold(self, scope: Scope, name: str, decision: Decision) -> bool:
        """From this commit on nothing of the scope becomes SENDING, until `release_hold`; False when it is held already (the first reason stands)."""
        ...

    async def release_hold(self, scope: Scope, name: str, decision: Decision) -> None:
        """End a hold. Raises `NotPossible` when there is none."""
        ...

    async def introduce(self, environments: Mapping[str, str]) -> None:
        """Note which environment each participant entry speaks to, so that a hold of an environment covers it."""
        ...
