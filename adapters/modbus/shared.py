"""Places that all records share: one alarm coil, one error register for a whole device (layout 3). Pure."""

from typing import TypeAlias

from adapters.modbus.places import Span
from bridge.api import Address, OutcomeField

_Key: TypeAlias = tuple[Span, str | OutcomeField]


class Shared:
    """What each record last said of a shared place, for as long as the connection stands.

    The place shows the newest value that says something is there: an alarm stays until no record has one, and an error is not hidden by the next success.
    """

    def __init__(self) -> None:
        self._said: dict[_Key, dict[Address, object]] = {}
        self._stands: dict[_Key, object] = {}
        self._told: dict[Address, object] = {}

    def put(self, span: Span, address: Address, value: object) -> object:
        """What is to stand there, now that this record says this."""
        said = self._said.setdefault((span, address.name), {})
        said.pop(address, None)
        said[address] = value
        return value or next((other for other in reversed(said.values()) if other), value)

    def wrote(self, span: Span, address: Address, held: object) -> None:
        """This stands there now, written for this record; nothing to note where the place is not shared."""
        key = (span, address.name)
        if key in self._said:
            self._stands[key] = held
            self._told[address] = held

    def shown(self, span: Span, address: Address, value: object) -> object:
        """What this record is shown of a place that was read: its own value, as long as the newest of ours still stands there."""
        key = (span, address.name)
        if key in self._stands and self._stands[key] == value:
            return self._told.get(address, value)
        return value
