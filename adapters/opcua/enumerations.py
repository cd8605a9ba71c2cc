"""The names of an enumeration's values, as the server states them (OPC 10000-3, 8.39 to 8.41 and 8.48): `Technology#$name`.

A variable's own list goes before that of its data type, and a data type's definition before its older properties.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from adapters.opcua.library import ua
from adapters.opcua.link import Link
from adapters.opcua.paths import NAME
from adapters.opcua.places import Place
from adapters.opcua.values import reading
from adapters.opcua.words import printable
from bridge.api import Quality, Reading

Names = Mapping[int, str]

_LISTS: Final = ("EnumStrings", "EnumValues")


async def learn_names(link: Link, places: Sequence[Place]) -> None:
    """Read the names of each field that asks for them into its place. Raises `LinkError`."""
    wanted = [
        (place, field)
        for place in places
        for field, member in place.members.items()
        if member == (NAME,) and field in place.fields
    ]
    if not wanted:
        return
    nodes = list(dict.fromkeys(place.fields[field] for place, field in wanted))
    own = await _listed(link, nodes)
    data_types = [_content(each) for each in await link.read([(node, ua.AttributeIds.DataType) for node in nodes])]
    distinct = list(dict.fromkeys(each for each in data_types if each is not None))
    typed = dict(zip(distinct, await _defined(link, distinct), strict=True))
    found = {node: names or typed.get(kind, {}) for node, names, kind in zip(nodes, own, data_types, strict=True)}
    for place, field in wanted:
        place.names[field] = found[place.fields[field]]


def name_of(value: Any, names: Names) -> Reading:
    """A DataValue's number by its name; BAD where it is no number, or has none."""
    found = reading(value)
    if found.value is None:
        return found
    if isinstance(found.value, bool) or not isinstance(found.value, int):
        return _bad(found, "this is no number of an enumeration; take `#$name` away")
    if not names:
        return _bad(found, "the server gives no names for its numbers; take `#$name` away, and map the numbers")
    if found.value not in names:
        return _bad(found, f"{found.value} has no name; the names are {printable(', '.join(names.values()))}")
    return Reading(value=names[found.value], quality=found.quality, source_ns=found.source_ns, detail=found.detail)


def _bad(found: Reading, detail: str) -> Reading:
    return Reading(value=None, quality=Quality.BAD, source_ns=found.source_ns, detail=detail)


async def _defined(link: Link, data_types: Sequence[Any]) -> list[Names]:
    """Of each data type: its definition's names, else those of its properties."""
    definitions = await link.read([(each, ua.AttributeIds.DataTypeDefinition) for each in data_types])
    found: list[Names] = []
    for value in definitions:
        stated = _content(value)
        members = (stated.Fields or ()) if isinstance(stated, ua.EnumDefinition) else ()
        found.append({int(each.Value): str(each.Name) for each in members})
    older = [index for index, names in enumerate(found) if not names]
    for index, names in zip(older, await _listed(link, [data_types[each] for each in older]), strict=True):
        found[index] = names
    return found


async def _listed(link: Link, nodes: Sequence[Any]) -> list[Names]:
    """What the properties EnumStrings (counted from 0) and EnumValues of each node say; nothing where it has none."""
    properties = await link.translate([(node, [(0, name)]) for node in nodes for name in _LISTS])
    there = [each for each in properties if each is not None]
    values = dict(zip(there, await link.read_values(there), strict=True))
    found: list[Names] = []
    for start in range(0, len(properties), len(_LISTS)):
        strings, pairs = (
            _content(values[each]) if each is not None else None for each in properties[start : start + len(_LISTS)]
        )
        names = {number: str(each.Text or "") for number, each in enumerate(strings or ()) if each.Text}
        names |= {int(each.Value): str(each.DisplayName.Text or "") for each in pairs or ()}
        found.append(names)
    return found


def _content(value: Any) -> Any:
    return value.Value.Value if value.Value is not None and value.StatusCode.is_good() else None
