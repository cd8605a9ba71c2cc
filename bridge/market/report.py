"""What the market side reports of itself; the composition root hands in one that counts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridge.clock import Stamp
from bridge.journal.port import OpenSubmission
from bridge.platform import AnswerClass

if TYPE_CHECKING:  # which tells us
    from bridge.market.answers import Outgoing


class MarketMetrics:
    """Counts nothing; a base for those that do."""

    def answered(self, participant: str, out: "Outgoing", answer: AnswerClass, stamps: Mapping[str, Stamp]) -> None:
        """A call was answered (or was not). `stamps` are those of this attempt and of what came before the first; nothing of an attempt in between."""

    def settled(self, participant: str, found: OpenSubmission, stamps: Mapping[str, Stamp]) -> None:
        """A submission was settled; `found` is how it stood before, `stamps` are all that are known of it."""

    def smp_date(self, participant: str, date: str, answered: Stamp) -> None:
        """SMP's `Date` header of an answer, as it came ('' without one), and when the answer was here."""

    def circuit(self, participant: str, *, open_: bool) -> None:
        """Whether sending is paused."""

    def returned(self, verdict: str) -> None:
        """The end point answered a message."""

    def refused(self, reason: str) -> None:
        """The end point refused a message for this one reason."""
