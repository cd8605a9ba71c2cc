"""Parts of requests as the library wants them."""

from collections.abc import Sequence
from typing import Any

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


def browse_path(start: Any, names: Sequence[tuple[int, str]]) -> Any:
    """Ask for the node at the end of these browse names."""
    path = ua.BrowsePath()
    path.StartingNode = start
    path.RelativePath.Elements = [
        ua.RelativePathElement(
            ReferenceTypeId=ua.NodeId(ua.ObjectIds.HierarchicalReferences),
            IsInverse=False,
            IncludeSubtypes=True,
            TargetName=ua.QualifiedName(name, index),
        )
        for index, name in names
    ]
    return path


def monitored_item(handle: int, node: Any, sampling_s: float, queue_size: int, deadband: float) -> Any:
    """Watch a node's value: the newest of a full queue is kept; a deadband (0: none) is absolute."""
    item = ua.MonitoredItemCreateRequest()
    item.ItemToMonitor = ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value)
    item.MonitoringMode = ua.MonitoringMode.Reporting
    item.RequestedParameters = ua.MonitoringParameters(
        ClientHandle=handle, SamplingInterval=sampling_s * 1000, QueueSize=queue_size, DiscardOldest=True
    )
    if deadband:
        item.RequestedParameters.Filter = ua.DataChangeFilter(
            Trigger=ua.DataChangeTrigger.StatusValue,
            DeadbandType=int(ua.DeadbandType.Absolute),
            DeadbandValue=deadband,
        )
    return item
