"""What a server has: its tree below Objects with types, values and rights, and a guess at which objects are records. Reads, and nothing else."""

import re
from collections.abc import Sequence
from typing import Any, Final

from adapters.opcua.addresses import is_node_id
from adapters.opcua.codec import TYPE_NAMES, builtin_type
from adapters.opcua.config import OpcUaOptions
from adapters.opcua.drafts import Node, drafts
from adapters.opcua.errors import translated
from adapters.opcua.library import ua
from adapters.opcua.link import Link
from adapters.opcua.paths import ROOT, absolute
from adapters.opcua.servers import connect
from adapters.opcua.values import reading
from bridge.api import Clock, LinkError, Quality, Search, Seen

COLUMNS: Final = ("PATH", "CLASS", "TYPE", "VALUE", "QUALITY", "ACCESS", "NODE ID")
_DEEPEST: Final = 16
_OBJECTS: Final = ua.NodeId(ua.ObjectIds.ObjectsFolder)
_SERVER: Final = ua.NodeId(ua.ObjectIds.Server)
_NAMESPACE_ARRAY: Final = ua.NodeId(2255)
_UNSPOKEN: Final = frozenset("/:*?[#")  # letters that a path cannot hold


async def browse(options: Any, search: Search, clock: Clock) -> Seen:
    """See `bridge.api.Browser`. `start` is a path from Objects, in the prefixes that are shown."""
    assert isinstance(options, OpcUaOptions)
    if search.ranges or search.units:
        raise ValueError("--range and --unit belong to Modbus; of OPC UA say where to begin with --start")
    if search.start:
        absolute(search.start)
    reached = await connect(options, clock)
    try:
        with translated("browsing"):
            walk = _Walk(reached.link, options, search)
            await walk.run()
    finally:
        await reached.link.close()
    nodes = walk.nodes
    notes = (
        [f"only the first {len(nodes)} nodes are shown; --start names a node to begin at, --most allows more"]
        if walk.cut
        else []
    )
    if walk.unspoken:
        notes.append(f"{walk.unspoken} nodes have names that no path can hold; name them by node ids")
    flows, writable = drafts(nodes)
    used = {prefix for node in nodes for prefix in node.prefixes}
    adds: dict[str, Any] = {"namespaces": {name: uri for name, uri in walk.prefixes.items() if name in used}}
    if writable:
        adds["writable"] = writable
    return Seen(
        said=f"{reached.link.url}: {len(nodes)} nodes",
        columns=COLUMNS,
        rows=[(str(node), node.kind, node.type, node.value, node.quality, node.access, node.node_id) for node in nodes],
        flows=flows,
        adds=adds,
        notes=notes,
    )


class _Walk:
    """Breadth first, each node once, without the server's own object."""

    def __init__(self, link: Link, options: OpcUaOptions, search: Search) -> None:
        self._link = link
        self._search = search
        self._named = dict(options.namespaces)
        self._uris: list[str] = []
        self._prefix: dict[int, str] = {0: ""}
        self.prefixes: dict[str, str] = {}
        self.nodes: list[Node] = []
        self.cut = False
        self.unspoken = 0

    async def run(self) -> None:
        await self._namespaces()
        start: tuple[str, ...] = (ROOT,)
        at = _OBJECTS
        if self._search.start:
            start, at = await self._started(self._search.start)
        seen = {at}
        level: list[tuple[tuple[str, ...], Any]] = [(start, at)]
        for _ in range(_DEEPEST):
            if not level or self.cut:
                break
            level = await self._level(level, seen)

    async def _level(
        self, level: Sequence[tuple[tuple[str, ...], Any]], seen: set[Any]
    ) -> list[tuple[tuple[str, ...], Any]]:
        below: list[tuple[tuple[str, ...], Any]] = []
        fresh: list[tuple[Node, Any]] = []
        for (path, _), children in zip(level, await self._link.browse([node for _, node in level]), strict=True):
            for child in children:
                node_id = child.NodeId
                if node_id in seen or node_id == _SERVER:
                    continue
                if len(self.nodes) + len(fresh) >= self._search.most:
                    self.cut = True
                    break
                seen.add(node_id)
                name = child.BrowseName
                if not name.Name or not _UNSPOKEN.isdisjoint(name.Name):
                    self.unspoken += 1
                    continue
                prefix = self._prefix.get(name.NamespaceIndex, "")
                own = (*path, f"{prefix}:{name.Name}" if prefix else name.Name)
                fresh.append((Node(path=own, kind="Object", node_id=self._shown(node_id)), node_id))
        classes = await self._link.read([(at, ua.AttributeIds.NodeClass) for _, at in fresh])
        for (node, at), value in zip(fresh, classes, strict=True):
            if _content(value) == ua.NodeClass.Variable:
                node.kind = "Variable"
            else:
                below.append((node.path, at))
        await self._values([(node, at) for node, at in fresh if node.kind == "Variable"])
        self.nodes += [node for node, _ in fresh]
        return below

    async def _values(self, variables: Sequence[tuple[Node, Any]]) -> None:
        wanted = (ua.AttributeIds.Value, ua.AttributeIds.DataType, ua.AttributeIds.UserAccessLevel)
        found = await self._link.read([(at, attribute) for _, at in variables for attribute in wanted])
        for number, (node, _) in enumerate(variables):
            value, data_type, level = found[3 * number : 3 * number + 3]
            held = reading(value)
            node.value, node.quality = held.value, held.quality.value
            number_of = (
                int(value.Value.VariantType.value) if value.Value is not None and held.quality is not Quality.BAD else 0
            )
            named = _content(data_type)
            if not number_of and named is not None and named.NamespaceIndex == 0 and isinstance(named.Identifier, int):
                number_of = builtin_type(named.Identifier)
            node.type = TYPE_NAMES.get(number_of, "") + ("[]" if isinstance(held.value, tuple) else "")
            bits = _content(level)
            node.access = _access(bits) if isinstance(bits, int) else ""

    async def _namespaces(self) -> None:
        """Prefixes as the site file has them, else made of the URIs; a number means nothing at the next start of the server."""
        (value,) = await self._link.read_values([_NAMESPACE_ARRAY])
        self._uris = [str(uri) for uri in _content(value) or ()]
        known = {uri: name for name, uri in self._named.items()}
        for index, uri in enumerate(self._uris):
            if index:
                self._prefix[index] = name = known.get(uri) or self._made(uri, index)
                self.prefixes[name] = uri

    def _made(self, uri: str, index: int) -> str:
        words = re.findall(r"[a-z][a-z0-9]*", uri.lower())
        name = words[-1] if words else f"ns{index}"
        return f"{name}{index}" if name in self.prefixes else name

    async def _started(self, text: str) -> tuple[tuple[str, ...], Any]:
        path = absolute(text)
        if path.has_glob or is_node_id(text):
            raise ValueError("--start names one node by its path, such as Objects/ems:EMS")
        indexes = {name: index for index, name in self._prefix.items()}
        strange = sorted(path.prefixes - indexes.keys())
        if strange:
            raise ValueError(f"the prefix {strange[0]} is none of this server's: {', '.join(self.prefixes)}")
        names = [(indexes[segment.prefix], segment.name) for segment in path.segments[1:]]
        (node,) = await self._link.translate([(_OBJECTS, names)])
        if node is None:
            raise LinkError(f"the server has no {text}")
        return tuple(str(segment) for segment in path.segments), node

    def _shown(self, node_id: Any) -> str:
        """As a site file names a node."""
        plain = ua.NodeId(node_id.Identifier, 0).to_string()
        prefix = self._prefix.get(node_id.NamespaceIndex, "")
        return f"ns={prefix};{plain}" if prefix else plain


def _access(bits: int) -> str:
    return ("r" if bits & 1 else "") + ("w" if bits & 2 else "")


def _content(value: Any) -> Any:
    good = value.StatusCode is None or value.StatusCode.is_good()
    return value.Value.Value if good and value.Value is not None else None
