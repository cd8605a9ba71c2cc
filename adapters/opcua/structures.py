"""Structures of a server's own, taken apart by the definition that the server gives of them (OPC 10000-6, 5.2.6 and 5.2.7): a field is `Nameplate#Address.Postcode`.

The library's own way registers classes for the whole process, so that two servers with the same node ids would read each other's structures wrongly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from adapters.opcua.codec import builtin_type, decode
from adapters.opcua.enumerations import learn_names, name_of
from adapters.opcua.errors import status_name
from adapters.opcua.library import Buffer, ua, unpack
from adapters.opcua.link import Link
from adapters.opcua.places import Place
from adapters.opcua.values import reading
from adapters.opcua.words import printable
from bridge.api import Quality, Reading

_EXTENSION_OBJECT: Final = 22
_VARIANT: Final = 24
# Abstract types of namespace 0 whose values travel with their own type beside them.
_ABSTRACT: Final = frozenset({24, 26, 27, 28})
_DEEPEST: Final = 16
_PLAIN, _OPTIONAL, _UNION = (
    int(ua.StructureType[name]) for name in ("Structure", "StructureWithOptionalFields", "Union")
)
_NUMBERS: Final[Mapping[type, int]] = {
    bool: 1, int: 8, float: 11, str: 12, datetime: 13, UUID: 14, bytes: 15, ua.NodeId: 17, ua.ExpandedNodeId: 18,
    ua.StatusCode: 19, ua.QualifiedName: 20, ua.LocalizedText: 21, ua.Variant: _VARIANT,
}  # fmt: skip

Member: TypeAlias = tuple[str, ...]


class Typed(NamedTuple):
    """A value that is no structure, or a list of such, with its built-in type."""

    number: int
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a structure holds: (name, data type, value rank, whether it may be missing) of each field, in the order in which they travel."""

    name: str
    kind: int
    members: tuple[tuple[str, Any, int, bool], ...]


class Shapes:
    """The structures that one server's fields hold, learnt when a session opens."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._types: dict[Any, Shape | int] = {}
        self._encodings: dict[Any, Shape] = {}

    async def learn(self, places: Sequence[Place]) -> None:
        """Read what is needed to take the structures of these places apart, and to name the values of enumerations. Raises `LinkError`."""
        await learn_names(self._link, places)
        await self._learn(
            [each.fields[name] for each in places for name in each.members.keys() - each.names if name in each.fields]
        )

    async def _learn(self, nodes: Sequence[Any]) -> None:
        values = await self._link.read([(node, ua.AttributeIds.DataType) for node in nodes])
        wanted = {value.Value.Value for value in values if value.Value is not None and value.Value.Value is not None}
        while unknown := [each for each in wanted if each not in self._types]:
            definitions = await self._link.read([(each, ua.AttributeIds.DataTypeDefinition) for each in unknown])
            plain = []
            for data_type, value in zip(unknown, definitions, strict=True):
                found = value.Value.Value if value.Value is not None else None
                if isinstance(found, ua.StructureDefinition):
                    shape = self._types[data_type] = _shape(data_type, found)
                    self._encodings[found.DefaultEncodingId] = shape
                    wanted |= {member[1] for member in shape.members}
                else:
                    plain.append(data_type)
            await self._learn_plain(plain)

    async def _learn_plain(self, data_types: Sequence[Any]) -> None:
        """Enumerations, option sets and named numbers travel as the built-in type that they descend from."""
        self._types.update(dict.fromkeys(data_types, 0))
        pending = {data_type: data_type for data_type in data_types}
        for _ in range(_DEEPEST):
            for data_type, ancestor in list(pending.items()):
                number = _number(ancestor)
                if number:
                    self._types[data_type] = number
                    del pending[data_type]
            if not pending:
                return
            parents = await self._link.supertypes(list(pending.values()))
            pending = {each: parent for each, parent in zip(pending, parents, strict=True) if parent is not None}

    def field(self, place: Place, name: str, value: Any) -> Reading:
        """What a field of this place holds, in a DataValue."""
        names = place.names.get(name)
        return self.reading(value, place.members.get(name, ())) if names is None else name_of(value, names)

    def reading(self, value: Any, member: Member) -> Reading:
        """A DataValue as a reading, of one field of its structure where `member` names one."""
        found = reading(value)
        if not member or value.Value is None or value.Value.Value is None:
            return found
        status = value.StatusCode.value if value.StatusCode is not None else 0
        if found.quality is Quality.BAD and status & 0x80000000:
            return found
        try:
            picked = self._pick(value.Value, member)
        except (ValueError, LookupError, TypeError, AttributeError, MemoryError, RecursionError, ua.UaError) as error:
            return Reading(value=None, quality=Quality.BAD, source_ns=found.source_ns, detail=printable(error))
        name = status_name(status) if status else ""
        number, content = (0, None) if picked is None else picked
        return decode(number, content, status, name, value.SourceTimestamp)

    def _pick(self, variant: Any, member: Member) -> Typed | None:
        number = int(variant.VariantType.value)
        found: Any = self._opened(Typed(number, variant.Value))
        for depth, name in enumerate(member):
            if found is None:
                return None
            found = _step(found, name, ".".join(member[:depth]))
        if found is None or isinstance(found, Typed):
            return found
        path = ".".join(member)
        if isinstance(found, dict):
            text = f"{path} is a structure; name one of its fields: {', '.join(found)}"
        else:
            text = f"{path} is a list of structures; name one by its place, such as {path}.0"
        raise ValueError(text)

    def _opened(self, typed: Typed) -> Any:
        """Structures as dicts, lists of them as lists; anything else as it is."""
        if typed.number != _EXTENSION_OBJECT:
            return typed
        if isinstance(typed.value, list | tuple):
            return [self._object(each) for each in typed.value]
        return self._object(typed.value)

    def _object(self, value: Any) -> Any:
        if isinstance(value, ua.ExtensionObject):
            if value.Body is None:
                return None
            shape = self._encodings.get(value.TypeId)
            if shape is None:
                raise ValueError(f"the server gives no definition of the structure {value.TypeId.to_string()}")
            return self._structure(shape, Buffer(value.Body), 0)
        return _native(value)  # of namespace 0: the library has taken it apart

    def _structure(self, shape: Shape, buffer: Any, depth: int) -> dict[str, Any]:
        if depth > _DEEPEST:
            raise ValueError(f"the structure {shape.name} is nested too deeply")
        found: dict[str, Any] = dict.fromkeys((name for name, *_ in shape.members))
        if shape.kind == _UNION:
            chosen = unpack(7, buffer)
            if chosen > len(shape.members):
                raise ValueError(f"the union {shape.name} chooses a field that it does not have")
            members = shape.members[chosen - 1 : chosen] if chosen else ()
        elif shape.kind == _OPTIONAL:
            mask, bit, given = unpack(7, buffer), 1, []
            for member in shape.members:
                if not member[3]:
                    given.append(member)
                    continue
                if mask & bit:
                    given.append(member)
                bit <<= 1
            members = tuple(given)
        elif shape.kind == _PLAIN:
            members = shape.members
        else:
            raise ValueError(f"the structure {shape.name} holds subtypes, which cannot be read")
        for name, data_type, rank, _ in members:
            found[name] = self._member(data_type, rank, buffer, depth)
        return found

    def _member(self, data_type: Any, rank: int, buffer: Any, depth: int) -> Any:
        kind = self._types.get(data_type, 0)
        if kind == 0 or rank not in {-1, 1}:
            raise ValueError("a field of the structure has a type or a number of dimensions that cannot be read")
        if rank == -1:
            return self._one(kind, buffer, depth)
        length = unpack(6, buffer)
        if length > len(buffer):
            raise ValueError("a list in the structure is longer than the structure")
        items = [self._one(kind, buffer, depth) for _ in range(max(0, length))]
        return items if isinstance(kind, Shape) else Typed(kind, [each.value for each in items])

    def _one(self, kind: Shape | int, buffer: Any, depth: int) -> Any:
        if isinstance(kind, Shape):
            return self._structure(kind, buffer, depth + 1)
        return self._opened(Typed(kind, unpack(kind, buffer)))


def _shape(data_type: Any, definition: Any) -> Shape:
    members = tuple(
        (str(each.Name), each.DataType, int(each.ValueRank), bool(each.IsOptional)) for each in definition.Fields or ()
    )
    return Shape(name=data_type.to_string(), kind=int(definition.StructureType), members=members)


def _number(data_type: Any) -> int:
    if data_type.NamespaceIndex != 0 or not isinstance(data_type.Identifier, int):
        return 0
    return _VARIANT if data_type.Identifier in _ABSTRACT else builtin_type(data_type.Identifier)


def _step(found: Any, name: str, before: str) -> Any:
    """One part of a member's path further down."""
    if isinstance(found, dict):
        if name not in found:
            raise ValueError(f"{before or 'the structure'} has no field {name}; it has {', '.join(found)}")
        return found[name]
    several = found.value if isinstance(found, Typed) else found
    if not isinstance(several, list | tuple) or not name.isdigit():
        raise ValueError(
            f"{before or 'the value'} is {'a list' if isinstance(several, list | tuple) else 'no structure'}, and has no field {name}"
        )
    if int(name) >= len(several):
        return None
    item = several[int(name)]
    return Typed(found.number, item) if isinstance(found, Typed) else item


def _native(value: Any) -> Any:
    """What the library has taken apart: its data classes as dicts, the rest by what it is."""
    if value is None:
        return None
    number = next((each for kind, each in _NUMBERS.items() if isinstance(value, kind)), 0)
    if number:
        return Typed(number, value)
    if isinstance(value, list | tuple):
        items = [_native(each) for each in value]
        kinds = {each.number for each in items if isinstance(each, Typed)}
        return Typed(kinds.pop(), list(value)) if len(kinds) == 1 else items
    if is_dataclass(value):
        return {each.name: _native(getattr(value, each.name)) for each in fields(value)}
    raise ValueError(f"a value of type {type(value).__name__} cannot be used")
