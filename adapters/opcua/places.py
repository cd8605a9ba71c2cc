"""Where the configured paths lead on this server, found anew at every open: places, nodes and the types of targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.opcua.addresses import Address, Layout, NodeIdText, Tree, call, layout_of
from adapters.opcua.calls import Method, find_method
from adapters.opcua.codec import Target, builtin_type
from adapters.opcua.library import ua
from adapters.opcua.link import Link, log
from adapters.opcua.paths import BrowsePath, Segment, relative, split_member
from adapters.opcua.words import printable
from bridge.api import LinkError, OutcomeField, Selection, Trigger

_NAMESPACE_ARRAY: Final = ua.NodeId(2255)
_OBJECTS: Final = ua.NodeId(ua.ObjectIds.ObjectsFolder)
_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(slots=True, kw_only=True)
class Place:
    """One record's node and what hangs below it; nodes that this place does not have are missing.

    `nodes` are those of the fields, each once, and `at` says where in them a field stands: the fields of one structure share a node.
    `root` is the record's own node, None where the site file lists the places; `lacks` are the addresses that do not exist here.
    """

    flow: str
    name: str
    root: Any = None
    lacks: frozenset[str] = frozenset()
    fields: Mapping[str, Any]
    targets: Mapping[OutcomeField, Any]
    nodes: Sequence[Any] = ()
    at: Mapping[str, int] = field(default_factory=dict)
    types: dict[OutcomeField, Target] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: dict[str, Mapping[int, str]] = field(default_factory=dict)  # of enumerations whose names are asked for
    request: Any = None
    sequence: Any = None
    method: Method | None = None


class _Columns:
    """Which addresses a flow's places have, and where in a row of nodes each of them stands: worked out once for all places, of which there may be thousands."""

    def __init__(self, selection: Selection, addresses: Mapping[tuple[str, str], Address]) -> None:
        self.distinct = list(dict.fromkeys(addresses.values()))
        number = {address: column for column, address in enumerate(self.distinct)}
        self.of = {name: number[address] for name, address in addresses.items()}
        self._flow = selection.flow
        self._fields = {name: column for (part, name), column in self.of.items() if part == "fields"}
        self._targets = {OutcomeField(name): column for (part, name), column in self.of.items() if part == "outcome"}
        self._read = tuple(dict.fromkeys(self._fields.values()))
        self._at = self._standing(self._read)
        texts = selection.records.fields
        self._members = {name: member for name, text in texts.items() if (member := split_member(text)[1])}

    def place(self, name: str, root: Any, row: Sequence[Any]) -> Place:
        """One place, of the nodes that were found for `distinct`; None where there is none."""
        read = tuple(column for column in self._read if row[column] is not None)
        return Place(
            flow=self._flow,
            name=name,
            root=root,
            lacks=frozenset(str(address) for address, node in zip(self.distinct, row, strict=True) if node is None)
            if None in row
            else _NOTHING,
            fields={field: node for field, column in self._fields.items() if (node := row[column]) is not None},
            targets={target: node for target, column in self._targets.items() if (node := row[column]) is not None},
            nodes=[row[column] for column in read],
            at=self._at if len(read) == len(self._read) else self._standing(read),
            members=self._members,
            request=self._submit(row, "request"),
            sequence=self._submit(row, "sequence"),
        )

    def _standing(self, read: Sequence[int]) -> Mapping[str, int]:
        position = {column: at for at, column in enumerate(read)}
        return {field: position[column] for field, column in self._fields.items() if column in position}

    def _submit(self, row: Sequence[Any], name: str) -> Any:
        column = self.of.get(("submit", name))
        return None if column is None else row[column]


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
    roots = await find_roots(link, indexes, selection, some=True)
    return await places_at(link, indexes, selection, roots, whole=whole)


async def find_roots(
    link: Link, indexes: Mapping[str, int], selection: Selection, *, some: bool = False
) -> Mapping[str, Any]:
    """The node of each of a flow's records by its place, as the server has them now; None for each where the site file lists them.

    Raises `LinkError` where there are none and there must be `some`, and where two have one name.
    """
    layout = layout_of(selection.records)
    if isinstance(layout, Tree):
        return await _find_each(link, indexes, layout.each, some=some)
    return dict.fromkeys(layout.places)


async def places_at(
    link: Link, indexes: Mapping[str, int], selection: Selection, roots: Mapping[str, Any], *, whole: bool = False
) -> list[Place]:
    """These of a flow's places with their nodes; raises `LinkError` when they shall be `whole` and an address exists at none of them."""
    layout = layout_of(selection.records)
    columns = _Columns(selection, _addresses(selection, layout))
    rows = await _rows(link, indexes, layout, roots, columns.distinct)
    if whole:
        _require(selection, columns, rows)
    places = [columns.place(name, root, row) for (name, root), row in zip(roots.items(), rows, strict=True)]
    await _learn_types(link, places)
    await _learn_method(link, indexes, selection, places)
    return places


async def still_lacking(
    link: Link, indexes: Mapping[str, int], selection: Selection, places: Sequence[Place]
) -> Mapping[str, frozenset[str]]:
    """What each of these places of a flow, by name, lacks of what it lacked when it was found; nothing else of it is asked for."""
    layout = layout_of(selection.records)
    addresses = {str(address): address for address in _addresses(selection, layout).values()}
    alike: dict[frozenset[str], dict[str, Any]] = {}
    for place in places:
        alike.setdefault(place.lacks, {})[place.name] = place.root
    found: dict[str, frozenset[str]] = {}
    for lacks, roots in alike.items():
        texts = sorted(lacks)
        rows = await _rows(link, indexes, layout, roots, [addresses[text] for text in texts])
        for name, row in zip(roots, rows, strict=True):
            found[name] = frozenset(text for text, node in zip(texts, row, strict=True) if node is None)
    return found


def _addresses(selection: Selection, layout: Layout) -> Mapping[tuple[str, str], Address]:
    """Every address of a flow that each of its places has: paths below the record, or node ids."""
    texts = _texts(selection)
    if isinstance(layout, Tree):
        return {name: relative(text, layout.each) for name, text in texts.items()}
    return {name: layout.address(text) for name, text in texts.items()}


async def _rows(
    link: Link, indexes: Mapping[str, int], layout: Layout, roots: Mapping[str, Any], addresses: Sequence[Any]
) -> list[list[Any]]:
    """For each of these places the node at each of these addresses, None where there is none."""
    if isinstance(layout, Tree):
        names = [_names(path, indexes) for path in addresses]
        nodes = await link.translate([(node, each) for node in roots.values() for each in names])
    else:
        wanted = [_node_id(address.at(place), indexes) for place in roots for address in addresses]
        nodes = await _existing(link, wanted)
    width = len(addresses)
    return [nodes[start : start + width] for start in range(0, len(nodes), width)]


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


def _texts(selection: Selection) -> Mapping[tuple[str, str], str]:
    """Every address of a flow that each of its places has."""
    texts = {("fields", name): split_member(text)[0] for name, text in selection.records.fields.items()}
    texts |= {("outcome", target.value): path for target, path in selection.outcome.targets().items()}
    if selection.trigger is Trigger.REQUEST:
        texts["submit", "request"] = selection.submit.request
        if call(selection.submit.sequence) is None:
            texts["submit", "sequence"] = selection.submit.sequence
    return texts


def _require(selection: Selection, columns: _Columns, rows: Sequence[Sequence[Any]]) -> None:
    """An address that no place has is a mistake in the site's file; one that some places lack is told in a log line."""
    lacking = {address: sum(row[column] is None for row in rows) for column, address in enumerate(columns.distinct)}
    nowhere = [str(address) for address, count in lacking.items() if count == len(rows)]
    if nowhere:
        raise LinkError(
            f"flow {selection.flow}: no record has {', '.join(nowhere)}", hint="compare these paths with the server's"
        )
    for address, count in lacking.items():
        if count:
            fields = {"flow": selection.flow, "path": str(address), "missing": count, "places": len(rows)}
            log.warning("opcua_nodes_missing", extra=fields)


async def _find_each(link: Link, indexes: Mapping[str, int], each: BrowsePath, *, some: bool) -> Mapping[str, Any]:
    """Nodes by place; a place is what the globs matched, or the last browse name where there is no glob."""
    candidates: list[tuple[tuple[str, ...], Any]] = [((), _OBJECTS)]
    for segment in each.segments[1:]:
        step = _glob if segment.is_glob else _literal
        candidates = await step(link, indexes, candidates, segment)
        if some and not candidates:
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


def _names(path: BrowsePath, indexes: Mapping[str, int]) -> tuple[tuple[int, str], ...]:
    return tuple((indexes[segment.prefix], segment.name) for segment in path.segments)


async def _learn_types(link: Link, places: Sequence[Place]) -> None:
    """The type of every target, read once: a write must carry exactly it. Only an array has dimensions, and few targets are arrays."""
    targets = [(place, name, node) for place in places for name, node in place.targets.items()]
    wanted = (ua.AttributeIds.DataType, ua.AttributeIds.ValueRank)
    read = [
        _content(each) for each in await link.read([(node, attribute) for *_, node in targets for attribute in wanted])
    ]
    stated = list(zip(targets, read[::2], read[1::2], strict=True))
    arrays = [node for (_, _, node), _, rank in stated if _is_array(rank)]
    sizes = iter(await link.read([(node, ua.AttributeIds.ArrayDimensions) for node in arrays]))
    unknown: list[tuple[Place, OutcomeField, Any, Target]] = []
    for (place, name, node), data_type, rank in stated:
        target = _target(data_type, rank, _content(next(sizes)) if _is_array(rank) else None)
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
    is_array = _is_array(rank)
    length = int(dimensions[0]) if is_array and dimensions and dimensions[0] else None
    return Target(type_number=number, is_array=is_array, length=length)


def _is_array(rank: Any) -> bool:
    return isinstance(rank, int) and rank >= 0


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
