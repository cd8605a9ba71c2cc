"""Between the library's values and the codec's: DataValues to readings, outcomes to Variants."""

from typing import Any, Final

from adapters.opcua.codec import LOCALIZED_TEXT, Target, decode
from adapters.opcua.errors import status_name
from adapters.opcua.library import ua
from bridge.api import Reading

_GONE: Final = frozenset({ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid})
OVERFLOW: Final = 0x0480  # "this is about a value", and "its queue overflowed"


def reading(value: Any) -> Reading:
    """A DataValue as a reading."""
    status = value.StatusCode.value if value.StatusCode is not None else 0
    variant = value.Value
    number = int(variant.VariantType.value) if variant is not None else 0
    content = variant.Value if variant is not None else None
    name = status_name(status) if status else ""
    return decode(number, content, status, name, value.SourceTimestamp)


def content(value: Any) -> tuple[int, Any]:
    """Status code, without what it says of a queue, and value of a DataValue: what makes one differ from another."""
    status = value.StatusCode.value & ~OVERFLOW if value.StatusCode is not None else 0
    return status, value.Value.Value if value.Value is not None else None


def overflowed(value: Any) -> bool:
    """Whether changes before this one were lost at the server (OPC 10000-4, 7.39.1)."""
    return value.StatusCode is not None and value.StatusCode.value & OVERFLOW == OVERFLOW


def is_gone(value: Any) -> bool:
    """Whether the server says that there is no such node (any more); node-opcua says it is no valid one."""
    return value.StatusCode is not None and value.StatusCode.value in _GONE


def variant_of(value: object, target: Target) -> Any:
    """A Variant of exactly the target's type."""
    kind = ua.VariantType(target.type_number)
    if isinstance(value, tuple):
        return ua.Variant([_boxed(item, target) for item in value], kind, is_array=True)
    return ua.Variant(_boxed(value, target), kind)


def _boxed(value: object, target: Target) -> object:
    return ua.LocalizedText(value) if target.type_number == LOCALIZED_TEXT else value
