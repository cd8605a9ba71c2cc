"""A request that is numbered by a method of the EMS, `Register(assetName)`, and not by a variable."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from adapters.opcua.addresses import PLACE_ARGUMENT, Call
from adapters.opcua.batch import ReadBatch
from adapters.opcua.codec import BOOLEAN, LOCALIZED_TEXT, STRING, TYPE_NAMES, builtin_type
from adapters.opcua.errors import status_name
from adapters.opcua.library import ua
from adapters.opcua.link import Link
from adapters.opcua.words import printable
from bridge.api import LinkError, Quality, Reading

_OBJECTS: Final = ua.NodeId(ua.ObjectIds.ObjectsFolder)
_BAD: Final = 0x80000000
_WHOLE: Final = range(2, 10)
_REAL: Final = range(10, 12)


class Method(NamedTuple):
    """A method on this server: the object that it belongs to, and the built-in type of each argument that it takes."""

    name: str
    owner: Any
    node: Any
    arguments: tuple[str, ...]
    types: tuple[int, ...]


async def find_method(link: Link, indexes: Mapping[str, int], wanted: Call) -> Method:
    """The method on this server. Raises `LinkError` when it is not there, or takes other arguments than the site file gives."""
    names = [(indexes[segment.prefix], segment.name) for segment in wanted.path.segments[1:]]
    owners = [(_OBJECTS, names[:-1])] if len(names) > 1 else []
    node, inputs, *owner = await link.translate(
        [(_OBJECTS, names), (_OBJECTS, [*names, (0, "InputArguments")]), *owners]
    )
    if node is None:
        raise LinkError(f"the server has no method {wanted.path}", hint="compare the path with the server's tree")
    stated = await _inputs(link, inputs)
    if len(stated) != len(wanted.arguments):
        takes = ", ".join(name for name, _ in stated) or "none"
        raise LinkError(
            f"the method {wanted.path} takes {len(stated)} arguments ({printable(takes)}), and {len(wanted.arguments)} are given",
            hint="give one for each in `sequence:`, as $place or the name of a field",
        )
    types = tuple(number for _, number in stated)
    return Method(str(wanted.path), owner[0] if owner else _OBJECTS, node, wanted.arguments, types)


async def _inputs(link: Link, node: Any) -> list[tuple[str, int]]:
    """Name and built-in type of each argument; a method without any has no such node (OPC 10000-3, 5.7)."""
    if node is None:
        return []
    (value,) = await link.read_values([node])
    arguments = value.Value.Value if value.Value is not None else None
    return [(str(each.Name), _type_of(each.DataType)) for each in arguments or ()]


def _type_of(data_type: Any) -> int:
    if data_type.NamespaceIndex != 0 or not isinstance(data_type.Identifier, int):
        return 0
    return builtin_type(data_type.Identifier)


async def number_of(calls: ReadBatch, method: Method, place: str, fields: Mapping[str, Reading]) -> tuple[int, str]:
    """Call it; the number that it gave, and '' or why it gave none. Raises `LinkError` where the link fails."""
    request = ua.CallMethodRequest()
    request.ObjectId, request.MethodId = method.owner, method.node
    try:
        request.InputArguments = [
            _argument(name, number, place, fields) for name, number in zip(method.arguments, method.types, strict=True)
        ]
    except ValueError as error:
        return 0, f"{method.name}: {error}"
    (result,) = await calls.read([request])
    if result.StatusCode.value & _BAD:
        return 0, f"{method.name}: the server answered {status_name(result.StatusCode.value)}"
    outputs = [variant.Value for variant in result.OutputArguments or ()]
    if not outputs or not isinstance(outputs[0], int) or isinstance(outputs[0], bool):
        return 0, f"{method.name} gave no whole number"
    return outputs[0], ""


def _argument(name: str, number: int, place: str, fields: Mapping[str, Reading]) -> Any:
    """The place or a field as the type that the method takes. Raises `ValueError`."""
    found = Reading(value=place) if name == PLACE_ARGUMENT else fields[name]
    value = found.value
    if found.quality is not Quality.GOOD or value is None:
        raise ValueError(f"the argument {name} has no good value")
    if number in {STRING, LOCALIZED_TEXT} and isinstance(value, str):
        boxed: object = ua.LocalizedText(value) if number == LOCALIZED_TEXT else value
    elif (number == BOOLEAN and isinstance(value, bool)) or (
        number in _WHOLE and isinstance(value, int) and not isinstance(value, bool)
    ):
        boxed = value
    elif number in _REAL and isinstance(value, int | float) and not isinstance(value, bool):
        boxed = float(value)
    else:
        raise ValueError(
            f"the argument {name} does not fit the type {TYPE_NAMES.get(number, 'of its own')} that the method takes"
        )
    return ua.Variant(boxed, ua.VariantType(number))
