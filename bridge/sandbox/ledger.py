"""The sandbox's own book: every request as it came, everything that was created, every return that was sent."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

REGISTERED = "registered"
REFUSED = "refused"


@dataclass(slots=True, kw_only=True)
class RequestEntry:
    """One request. `arrived_ns` is CLOCK_MONOTONIC when its headers were there; `status` is 0 while it is worked on or when no answer was given.

    `traceparent` is the W3C header of that name, '' without one.
    """

    operation: str
    participant: str = ""
    message_id: str = ""
    correlation_id: str = ""
    arrived_ns: int
    bytes: int = 0
    verified: bool = False
    references: list[str] = field(default_factory=list)
    transaction_id: str = ""
    traceparent: str = ""
    status: int = 0
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class ReturnEntry:
    """One push of a return and what the participant answered (0: nothing)."""

    participant: str
    transaction_id: str
    message_id: str
    sent_ns: int
    status: int = 0
    problem: str = ""


class Ledger:
    """Written by the sandbox alone."""

    def __init__(self) -> None:
        self.requests: list[RequestEntry] = []
        self.returns: list[ReturnEntry] = []
        self._creates: Counter[str] = Counter()
        self._outcomes: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def created(self, reference: str, asset_id: str) -> None:
        """Something came into being."""
        self._creates[reference] += 1
        self._outcomes[reference] = REGISTERED
        self._ids.setdefault(reference, asset_id)

    def refused(self, reference: str) -> None:
        """Something was refused; what was created before stays created."""
        self._outcomes.setdefault(reference, REFUSED)
        if not self._creates[reference]:
            self._outcomes[reference] = REFUSED

    def outcomes(self) -> Mapping[str, str]:
        """`registered` or `refused` by reference."""
        return dict(self._outcomes)

    def creates(self, reference: str) -> int:
        """How often this reference was created; more than once is what must never happen."""
        return self._creates[reference]

    def ids(self) -> Mapping[str, str]:
        """The id given at the first creation, by reference."""
        return dict(self._ids)

    def of(self, operation: str) -> list[RequestEntry]:
        """The requests of one operation, in order of arrival."""
        return [entry for entry in self.requests if entry.operation == operation]

    def as_dict(self) -> dict[str, object]:
        """The whole book."""
        return {
            "requests": [asdict(entry) for entry in self.requests],
            "returns": [asdict(entry) for entry in self.returns],
            "creates": dict(self._creates),
            "outcomes": dict(self._outcomes),
            "ids": dict(self._ids),
        }
