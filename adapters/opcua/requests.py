"""Parts of requests as the library wants them."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from adapters.opcua.library import ua


def browse_description(node: Any) -> Any:
    """Ask for the objects and variables below a node, by their browse names."""
    description = ua.BrowseDescription()
    description.NodeId = node
    description.BrowseDirection = ua.BrowseDirection.Forward
    description.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
    description.IncludeSubtypes = True
    description.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
    description.ResultMask = ua.BrowseResultMask.BrowseName
    return description


def supertype_description(node: Any) -> Any:
    """Ask for the data type that a data type was derived from."""
    description = ua.BrowseDescription()
    description.NodeId = node
    description.BrowseDirection = ua.BrowseDirection.Inverse
    description.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HasSubtype)
    description.IncludeSubtypes = False
    description.NodeClassMask = ua.NodeClass.DataType
    description.ResultMask = 0
    return description


def browse_paths(paths: Sequence[tuple[Any, Sequence[tuple[int, str]]]]) -> list[Any]:
    """Ask for the node at the end of these browse names, from each start; equal names share their elements, for there are thousands of them."""
    known: dict[tuple[tuple[int, str], ...], Any] = {}
    found = []
    for start, names in paths:
        relative = known.get(key := tuple(names))
        if relative is None:
            relative = known[key] = ua.RelativePath(Elements=[_element(*each) for each in names])
        found.append(ua.BrowsePath(StartingNode=start, RelativePath=relative))
    return found


def _element(index: int, name: str) -> Any:
    return ua.RelativePathElement(
        ReferenceTypeId=ua.NodeId(ua.ObjectIds.HierarchicalReferences),
        IsInverse=False,
        IncludeSubtypes=True,
        TargetName=ua.QualifiedName(name, index),
    )


class Asked(NamedTuple):
    """A node whose value is watched: the handle that its notifications carry, how often (s) the server samples it, how many changes it keeps, and a deadband (0: none)."""

    handle: int
    node: Any
    sampling_s: float
    queue_size: int
    deadband: float = 0.0


# Handles of what a session watches for itself, beyond all variables of records; node-opcua takes 2^32 - 1 for none at all.
LEVEL: Final = 2**31 - 1
TREE: Final = 2**31 - 2
OWN: Final = TREE

_SERVER: Final = ua.NodeId(ua.ObjectIds.Server)


def tree_changes() -> Asked:
    """The events by which a server may tell that its tree has changed (OPC 10000-5, 6.4.31)."""
    return Asked(TREE, _SERVER, 0.0, 1)


def monitored_item(watch: Asked) -> Any:
    """The newest of a full queue is kept; a deadband is absolute."""
    item = _item(watch)
    if watch.handle == TREE:
        item.ItemToMonitor.AttributeId = ua.AttributeIds.EventNotifier
        item.RequestedParameters.Filter = _tree_filter()
    elif watch.deadband:
        item.RequestedParameters.Filter = ua.DataChangeFilter(
            Trigger=ua.DataChangeTrigger.StatusValue,
            DeadbandType=int(ua.DeadbandType.Absolute),
            DeadbandValue=watch.deadband,
        )
    return item


def _tree_filter() -> Any:
    """That a change was made, and nothing about it, for the tree is looked at whole."""
    kind = ua.LiteralOperand(Value=ua.Variant(ua.NodeId(ua.ObjectIds.BaseModelChangeEventType)))
    clause = ua.SimpleAttributeOperand(
        TypeDefinitionId=ua.NodeId(ua.ObjectIds.BaseEventType),
        BrowsePath=[ua.QualifiedName("EventType", 0)],
        AttributeId=ua.AttributeIds.Value,
    )
    of_type = ua.ContentFilterElement(FilterOperator=ua.FilterOperator.OfType, FilterOperands=[kind])
    return ua.EventFilter(SelectClauses=[clause], WhereClause=ua.ContentFilter(Elements=[of_type]))


def _item(watch: Asked) -> Any:
    item = ua.MonitoredItemCreateRequest()
    item.ItemToMonitor = ua.ReadValueId(NodeId=watch.node, AttributeId=ua.AttributeIds.Value)
    item.MonitoringMode = ua.MonitoringMode.Reporting
    item.RequestedParameters = ua.MonitoringParameters(
        ClientHandle=watch.handle,
        SamplingInterval=watch.sampling_s * 1000,
        QueueSize=watch.queue_size,
        DiscardOldest=True,
    )
    return item
