"""Adapters by protocol word, found by entry point and imported only when named."""

from importlib.metadata import EntryPoint, entry_points

from bridge.api import ENTRY_POINT_GROUP, Adapter
from bridge.config.adapters import AdapterMissing
from bridge.config.document import unknown


def known() -> tuple[str, ...]:
    """The protocol words of every installed adapter; imports none of them."""
    return tuple(sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)}))


def find(protocol: str) -> Adapter:
    """Import the adapter of this protocol.

    Raises `AdapterMissing` when none is installed under this word, two are, its own library is missing, or it was written for another contract.
    """
    points = {point.value: point for point in entry_points(group=ENTRY_POINT_GROUP, name=protocol)}
    if not points:
        raise AdapterMissing(unknown(protocol, known(), "protocol"))
    if len(points) > 1:
        raise AdapterMissing(f"two packages offer {protocol}: {' and '.join(sorted(points))}; remove one")
    point = next(iter(points.values()))
    adapter = _import(point)
    if not isinstance(adapter, Adapter):
        raise AdapterMissing(f"{point.value} is not an adapter; it must be a bridge.api.Adapter")
    if adapter.api_version != Adapter.api_version:
        raise AdapterMissing(
            f"{point.value} was written for contract {adapter.api_version}, this is {Adapter.api_version}"
        )
    return adapter


def _import(point: EntryPoint) -> object:
    try:
        return point.load()
    except ModuleNotFoundError as error:
        package = error.name or "a module"
        remedy = (
            f"pip install 'smp-bridge[{point.extras[0]}]'"
            if point.extras
            else f"install the package that holds {package}"
        )
        raise AdapterMissing(
            f"the adapter for {point.name} needs {package}, which is not installed; {remedy}"
        ) from error
    except (ImportError, AttributeError) as error:
        raise AdapterMissing(f"the adapter for {point.name} cannot be imported from {point.value}: {error}") from error
