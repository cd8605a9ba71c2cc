"""Reading and writing by address: which node an address is, and what may be written there."""

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.opcua.addresses import layout_of
from adapters.opcua.check import writable
from adapters.opcua.codec import encode, read_back
from adapters.opcua.config import OpcUaOptions
from adapters.opcua.errors import status_name
from adapters.opcua.link import Link
from adapters.opcua.places import Place
from adapters.opcua.structures import Shapes
from adapters.opcua.values import reading, variant_of
from adapters.opcua.words import printable
from bridge.api import Address, OutcomeField, Quality, Reading, Selection, Write, Written


class Access:
    """Fields and targets of the places that were found on this server."""

    def __init__(
        self,
        link: Link,
        shapes: Shapes,
        places: Mapping[tuple[str, str], Place],
        allowed: frozenset[tuple[str, OutcomeField]],
    ) -> None:
        self._link = link
        self._shapes = shapes
        self._places = places
        self._allowed = allowed

    async def read(self, addresses: Sequence[Address]) -> Sequence[Reading]:
        """Values of fields and targets, in one go."""
        nodes = [self._node(address) for address in addresses]
        values = iter(await self._link.read_values([node for node in nodes if node is not None]))
        return [
            _unknown(address) if node is None else self._back(address, next(values))
            for address, node in zip(addresses, nodes, strict=True)
        ]

    async def write(self, writes: Sequence[Write]) -> Sequence[Written]:
        """All writes that can be made, in one go; the others carry their reason. States come last: an EMS that sees one finds the rest in place."""
        results: dict[int, Written] = {}
        good: list[tuple[int, Any, Any, object]] = []
        for index in sorted(range(len(writes)), key=lambda each: writes[each].address.name is OutcomeField.STATE):
            entry = self._prepare(writes[index])
            if isinstance(entry, Written):
                results[index] = entry
            else:
                good.append((index, *entry))
        codes = await self._link.write([(node, variant) for _, node, variant, _ in good])
        for (index, _, _, value), code in zip(good, codes, strict=True):
            results[index] = _written(writes[index].address, value, code)
        return [results[index] for index in range(len(writes))]

    def _node(self, address: Address) -> Any:
        place = self._places.get((address.flow, address.place))
        if place is None:
            return None
        if isinstance(address.name, OutcomeField):
            return place.targets.get(address.name)
        return place.fields.get(address.name)

    def _back(self, address: Address, content: Any) -> Reading:
        """A target reads back as it was written, though a server may give null for an empty text."""
        if not isinstance(address.name, OutcomeField):
            return self._shapes.field(self._places[address.flow, address.place], address.name, content)
        found = reading(content)
        if not found.absent:
            return found
        target = self._places[address.flow, address.place].types[address.name]
        value = read_back(found.value, target)
        return Reading(value=value, source_ns=found.source_ns, absent=value is None)

    def _prepare(self, write: Write) -> Written | tuple[Any, Any, object]:
        """The node, the Variant and the value as the node will hold it; or why it is not written."""
        address = write.address
        if not isinstance(address.name, OutcomeField) or (address.flow, address.name) not in self._allowed:
            return Written(address=address, error=f"{_words(address)} is outside `writable:`")
        node = self._node(address)
        if node is None:
            return Written(address=address, error=f"{_words(address)} does not exist on the server")
        target = self._places[address.flow, address.place].types[address.name]
        try:
            value = encode(address.name, write.value, target)
        except ValueError as error:
            return Written(address=address, error=str(error))
        return node, variant_of(value, target), value


def allowed_targets(options: OpcUaOptions, selections: Sequence[Selection]) -> frozenset[tuple[str, OutcomeField]]:
    """The targets inside `writable:`; asked again here, although the configuration was checked at start."""
    inside = writable(options)
    return frozenset(
        (selection.flow, target)
        for selection in selections
        for layout in (layout_of(selection.records),)
        for target, text in selection.outcome.targets().items()
        if all(inside(each) for each in layout.spread(layout.address(text)))
    )


def _unknown(address: Address) -> Reading:
    return Reading(value=None, quality=Quality.BAD, detail=f"{_words(address)} does not exist on the server")


def _written(address: Address, value: object, code: int) -> Written:
    if code & 0xC0000000:
        return Written(address=address, error=f"the server answered {status_name(code)}")
    return Written(address=address, value=value)


def _words(address: Address) -> str:
    name = address.name.value if isinstance(address.name, OutcomeField) else address.name
    return f"{name} of {printable(address.place)}"
