"""What the market side tells of each submission for its trace; the composition root hands in what makes spans of it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bridge.clock import Stamp
from bridge.journal.port import OpenSubmission
from bridge.model import ItemState
from bridge.platform import AnswerClass, Exchange
from bridge.submission import SubmissionState

if TYPE_CHECKING:  # which tells us
    from bridge.market.answers import Outgoing


class MarketTraces:
    """Traces nothing; a base for what does. Nothing here waits or raises, and `stamps` are not changed after they were handed over."""

    on: bool = False  # whether anybody listens: where more has to be read only for this

    def called(
        self, participant: str, out: "Outgoing", exchange: Exchange, answer: AnswerClass, stamps: Mapping[str, Stamp]
    ) -> None:
        """One attempt has its answer, or will never have one."""

    def ended(
        self,
        submission: OpenSubmission,
        state: SubmissionState,
        stamps: Mapping[str, Stamp],
        *,
        cause: str,
        outcomes: Iterable[ItemState] = (),
    ) -> None:
        """A submission came to its end. `cause` is one of few words of ours, never a peer's text."""
