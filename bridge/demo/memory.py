"""What a simulated EMS remembers of the outcomes that were written into it: the demo's own witness."""

from dataclasses import dataclass, field
from typing import Final

from bridge.model import EmsState

FINAL_WORDS: Final = frozenset(state.word for state in EmsState if state.final)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """One asset or unit as its EMS last heard of it: the state word ('' when never written) and every state word in the order written."""

    reference: str
    state: str = ""
    transaction_id: str = ""
    error_code: str = ""
    error_text: str = ""
    writes: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """Whether the last word is an outcome that stays."""
        return self.state in FINAL_WORDS


@dataclass(slots=True)
class Memory:
    """The outcomes by reference, in the order of the plant."""

    _items: dict[str, ItemView] = field(default_factory=dict)

    def expect(self, reference: str) -> None:
        """Know an item that nothing was written for yet."""
        self._items.setdefault(reference, ItemView(reference=reference))

    def note(
        self, reference: str, state: str, *, transaction_id: str = "", error_code: str = "", error_text: str = ""
    ) -> None:
        """Remember what was written for an item."""
        before = self._items.get(reference, ItemView(reference=reference))
        self._items[reference] = ItemView(
            reference=reference,
            state=state,
            transaction_id=transaction_id,
            error_code=error_code,
            error_text=error_text,
            writes=(*before.writes, state),
        )

    def items(self) -> dict[str, ItemView]:
        """Every item as it stands."""
        return dict(self._items)
