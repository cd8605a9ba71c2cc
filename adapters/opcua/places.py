"""Where the configured paths lead on this server, found anew at every open: places, nodes and the types of targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.opcua.addresses import NodeIdText, Tree, call, layout_of
from adapters.opcua.calls import Method, find_method
from adapters.opcua.codec import Target, builtin_type
from adapters.opcua.library import ua
from adapters.opcua.link import Link, log
from adapters.opcua.paths import BrowsePath, Segment, relative, split_member
from adapters.opcua.words import printable
from bridge.api import LinkError, OutcomeField, Selection, Trigger

_NAMESPACE_ARRAY: Final = ua.NodeId(2255)
_OBJECTS: Final = ua.NodeId(ua.ObjectIds.ObjectsFolder)


@dataclass(slots=True, kw_only=True)
class Place:
    """One record's node and what hangs below it; nodes that this place does not have are missing."""

    flow: str
    name: str
    fields: Mapping[str, Any]
    targets: Mapping[OutcomeField, Any]
    types: dict[OutcomeField, Target] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: dict[str, Mapping[int, str]] = field(default_factory=dict)  # of enumerations whose names are asked for
    request: Any = None
    sequence: Any = None
    method: Method | None = None


async def namespaces(link: Link, wanted: Mapping[str, str]) -> Mapping[str, int]:
    """The index of each prefix on this server; an index is never fixed (DOMAIN 6)."""
    (value,) = await link.read_values([_NAMESPACE_ARRAY])
    uris = list(value.Value.Value or ()) if value.Value is not None else []
    missing = [uri for uri in wanted.values() if uri not in uris]
    if missing:
        raise LinkError(
            f"the server has no namespace {', '.join(missing)}; it has {printable(', '.join(map(str, uris)))}",
            hint="set `namespaces:` to the URIs that the server shows",
        )
    return {"": 0, **{prefix: uris.index(uri) for prefix, uri in wanted.items()}}


async def find_places(
    link: Link, indexes: Mapping[str, int], selection: Selection, *, whole: bool = True
) -> list[Place]:
    """Every place of a flow with its nodes; raises `LinkError` when an address exists nowhere, unless the flow need not be `whole`."""
    layout, texts = layout_of(selection.records), _texts(selection)
    addresses: Mapping[tuple[str, str], BrowsePath | NodeIdText]
    if isinstance(layout, Tree):
        found = await _find_each(link, indexes, layout.each)
        below = {name: relative(text, layout.each) for name, text in texts.items()}
        wanted_names = [_names(path, indexes) for path in below.values()]
        asked = [(node, each) for node in found.values() for each in wanted_names]
        names, addresses, nodes = list(found), below, await link.translate(asked)
    else:
        listed = {name: layout.address(text) for name, text in texts.items()}
        wanted = [_node_id(address.at(place), indexes) for place in layout.places for address in listed.values()]
        names, addresses, nodes = list(layout.places), listed, await _existing(link, wanted)
    width = len(addresses)
    rows = [dict(zip(addresses, nodes[start : start + width], strict=True)) for start in range(0, len(nodes), width)]
    if whole:
        _require(selection, addresses, rows)
    places = [_place(selection, name, row) for name, row in zip(names, rows, strict=True)]
    await _learn_types(link, places)
    await _learn_method(link, indexes, selection, places)
    return places


async def _existing(link: Link, nodes: Sequence[Any]) -> list[Any | None]:
    """Each node that is a variable on this server, None for the others."""
    values = await link.read([(node, ua.AttributeIds.NodeClass) for node in nodes])
    return [
        node if value.StatusCode.is_good() and _content(value) == ua.NodeClass.Variable else None
        for node, value in zip(nodes, values, strict=True)
    ]


def _node_id(text: NodeIdText, indexes: Mapping[str, int]) -> Any:
    return ua.NodeId(text.value(), indexes[text.prefix])


async def _learn_method(link: Link, indexes: Mapping[str, int], selection: Selection, places: Sequence[Place]) -> None:
    """The method that numbers the requests of a flow, where it is no variable that does."""
    wanted = call(selection.submit.sequence) if selection.trigger is Trigger.REQUEST else None
    if wanted is None:
        return
    method = await find_method(link, indexes, wanted)
    for place in places:
        place.method = method


async def find_word(link: Link, indexes: Mapping[str, int], path: BrowsePath) -> Place | None:
    """The node of the alarm word as a place with this one target (ALARM), None where the server has no such node."""
    (node,) = await link.translate([(_OBJECTS, _names(BrowsePath(path.segments[1:]), indexes))])
    if node is None:
        return None
    place = Place(flow="", name=str(path), fields={}, targets={OutcomeField.ALARM: node})
    await _learn_types(link, [place])
    return place


def _place(selection: Selection, name: str, row: Mapping[tuple[str, str], Any]) -> Place:
    present = {address: node for address, node in row.items() if node is not None}
    return Place(
        flow=selection.flow,
        name=name,
        fields={address[1]: node for address, node in present.items() if address[0] == "fields"},
        targets={OutcomeField(address[1]): node for address, node in present.items() if address[0] == "outcome"},
        members={name: member for name, text in selection.records.fields.items() if (member := split_member(text)[1])},
        request=row.get(("submit", "request")),
        sequence=row.get(("submit", "sequence")),
    )


def _texts(selection: Selection) -> Mapping[tuple[str, str], str]:
    """Every address of a flow that each of its places has."""
    texts = {("fields", name): split_member(text)[0] for name, text in selection.records.fields.items()}
    texts |= {("outcome", target.value): path for target, path in selection.outcome.targets().items()}
    if selection.trigger is Trigger.REQUEST:
        texts["submit", "request"] = selection.submit.request
        if call(selection.submit.sequence) is None:
            texts["submit", "sequence"] = selection.submit.sequence
    return texts


def _require(
    selection: Selection, paths: Mapping[tuple[str, str], object], rows: Sequence[Mapping[tuple[str, str], Any]]
) -> None:
    """An address that no place has is a mistake in the site's file; one that some places lack is told in a log line."""
    lacking = {address: sum(row[address] is None for row in rows) for address in paths}
    nowhere = [str(paths[address]) for address, count in lacking.items() if count == len(rows)]
    if nowhere:
        raise LinkError(
            f"flow {selection.flow}: no record has {', '.join(nowhere)}", hint="compare these paths with the server's"
        )
    for address, count in lacking.items():
        if count:
            fields = {"flow": selection.flow, "path": str(paths[address]), "missing": count, "places": len(rows)}
            log.warning("opcua_nodes_missing", extra=fields)


async def _find_each(link: Link, indexes: Mapping[str, int], each: BrowsePath) -> Mapping[str, Any]:
    """Nodes by place; a place is what the globs matched, or the last browse name where there is no glob."""
    candidates: list[tuple[tuple[str, ...], Any]] = [((), _OBJECTS)]
    for segment in each.segments[1:]:
        step = _glob if segment.is_glob else _literal
        candidates = await step(link, indexes, candidates, segment)
        if not candidates:
            raise LinkError(
                f"nothing on the server matches {segment} in {each}", hint="compare `each:` with the server's tree"
            )
    places: dict[str, Any] = {}
    for matched, node in candidates:
        name = "/".join(matched) or each.segments[-1].name
        if places.get(name) == node:  # one node, reached over two kinds of reference
            continue
        if name in places:
            raise LinkError(f"{each} matches two nodes called {printable(name)}", hint="make `each:` narrower")
        places[name] = node
    return places


async def _literal(
    link: Link, indexes: Mapping[str, int], candidates: Sequence[tuple[tuple[str, ...], Any]], segment: Segment
) -> list[tuple[tuple[str, ...], Any]]:
    names = [(indexes[segment.prefix], segment.name)]
    nodes = await link.translate([(node, names) for _, node in candidates])
    return [(matched, node) for (matched, _), node in zip(candidates, nodes, strict=True) if node is not None]


async def _glob(
    link: Link, indexes: Mapping[str, int], candidates: Sequence[tuple[tuple[str, ...], Any]], segment: Segment
) -> list[tuple[tuple[str, ...], Any]]:
    index = indexes[segment.prefix]
    children = await link.browse([node for _, node in candidates])
    return [
        ((*matched, child.BrowseName.Name), child.NodeId)
        for (matched, _), below in zip(candidates, children, strict=True)
        for child in below
        if child.BrowseName.NamespaceIndex == index and segment.matches(child.BrowseName.Name)
    ]


def _names(path: BrowsePath, indexes: Mapping[str, int]) -> list[tuple[int, str]]:
    return [(indexes[segment.prefix], segment.name) for segment in path.segments]


async def _learn_types(link: Link, places: Sequence[Place]) -> None:
    """The type of every target, read once: a write must carry exactly it."""
    targets = [(place, name, node) for place in places for name, node in place.targets.items()]
    wanted = (ua.AttributeIds.DataType, ua.AttributeIds.ValueRank, ua.AttributeIds.ArrayDimensions)
    values = await link.read([(node, attribute) for _, _, node in targets for attribute in wanted])
    unknown: list[tuple[Place, OutcomeField, Any, Target]] = []
    for position, (place, name, node) in enumerate(targets):
        data_type, rank, dimensions = (_content(value) for value in values[3 * position : 3 * position + 3])
        target = _target(data_type, rank, dimensions)
        place.types[name] = target
        if not target.type_number:
            unknown.append((place, name, node, target))
    await _learn_from_values(link, unknown)


def _target(data_type: Any, rank: Any, dimensions: Any) -> Target:
    number = (
        builtin_type(int(data_type.Identifier))
        if data_type is not None and data_type.NamespaceIndex == 0 and isinstance(data_type.Identifier, int)
        else 0
    )
    is_array = isinstance(rank, int) and rank >= 0
    length = int(dimensions[0]) if is_array and dimensions and dimensions[0] else None
    return Target(type_number=number, is_array=is_array, length=length)


async def _learn_from_values(link: Link, unknown: Sequence[tuple[Place, OutcomeField, Any, Target]]) -> None:
    """A data type of the server's own (an enumeration, mostly): the value that stands there shows what it travels as."""
    if not unknown:
        return
    values = await link.read_values([node for _, _, node, _ in unknown])
    for (place, name, _, target), value in zip(unknown, values, strict=True):
        number = int(value.Value.VariantType.value) if value.Value is not None else 0
        place.types[name] = Target(type_number=number, is_array=target.is_array, length=target.length)


def _content(value: Any) -> Any:
    return value.Value.Value if value.Value is not None else None
