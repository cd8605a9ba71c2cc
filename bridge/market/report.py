"""What the market side reports of itself; the composition root hands in one that counts."""

from collections.abc import Mapping

from bridge.clock import Stamp
from bridge.platform import AnswerClass


class MarketMetrics:
    """Counts nothing; a base for those that do."""

    def answered(self, participant: str, answer: AnswerClass, stamps: Mapping[str, Stamp]) -> None:
        """A call was answered (or was not)."""

    def settled(self, participant: str, stamps: Mapping[str, Stamp]) -> None:
        """A submission was settled."""

    def smp_date(self, participant: str, date: str, answered: Stamp) -> None:
        """SMP's `Date` header of an answer, as it came ('' without one), and when the answer was here."""

    def circuit(self, participant: str, *, open_: bool) -> None:
        """Whether sending is paused."""

    def returned(self, verdict: str) -> None:
        """The end point answered a message."""

    def refused(self, reason: str) -> None:
        """The end point refused a message for this one reason."""
