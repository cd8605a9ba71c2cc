"""The demo's independent witness: what the simulated EMSs and the sandbox themselves say. It knows nothing of the bridge's inside."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from bridge.demo.memory import ItemView

REGISTERED: Final = "registered"
REFUSED: Final = "refused"
_WORDS: Final = frozenset({REGISTERED, REFUSED})


class Ems(Protocol):
    """A simulated EMS as the witness sees it."""

    def items(self) -> Mapping[str, ItemView]:
        """What was written back, by reference."""


class Ledger(Protocol):
    """The sandbox's own book."""

    def outcomes(self) -> Mapping[str, str]:
        """`registered` or `refused` by asset or unit reference, for everything the sandbox decided."""

    def creates(self, reference: str) -> int:
        """How often this reference was created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One flow of one site as EMS and sandbox saw it. `written_back` counts final words in the EMS that equal the sandbox's own decision."""

    site: str
    protocol: str
    flow: str
    operation: str
    items: int
    registered: int
    refused: int
    unknown: int
    written_back: int
    created_twice: int

    @property
    def settled(self) -> bool:
        """Whether the EMS knows every outcome."""
        return self.items > 0 and self.written_back == self.items


def observe(
    ems: Ems, ledger: Ledger, references: Iterable[str], *, site: str, protocol: str, flow: str, operation: str
) -> Seen:
    """Count one flow: items out of the EMS's memory, outcomes out of the ledger."""
    held = ems.items()
    mine = [held[reference] for reference in references if reference in held]
    decided = ledger.outcomes()
    words = [decided.get(item.reference, "") for item in mine]
    return Seen(
        site=site,
        protocol=protocol,
        flow=flow,
        operation=operation,
        items=len(mine),
        registered=words.count(REGISTERED),
        refused=words.count(REFUSED),
        unknown=len([word for word in words if word not in _WORDS]),
        written_back=sum(item.final and item.state == word for item, word in zip(mine, words, strict=True)),
        created_twice=sum(ledger.creates(item.reference) > 1 for item in mine),
    )
