"""OPC UA values to readings, and outcomes to the type of the node that takes them. Pure: built-in types are known by their number (OPC 10000-6, table 1)."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bridge.api import Code, OutcomeField, Quality, Reading

BOOLEAN: Final = 1
STRING: Final = 12
DATE_TIME: Final = 13
LOCALIZED_TEXT: Final = 21
STRUCTURE: Final = 22
_INTEGERS: Final[Mapping[int, tuple[int, int]]] = {
    2: (-(2**7), 2**7 - 1),
    3: (0, 2**8 - 1),
    4: (-(2**15), 2**15 - 1),
    5: (0, 2**16 - 1),
    6: (-(2**31), 2**31 - 1),
    7: (0, 2**32 - 1),
    8: (-(2**63), 2**63 - 1),
    9: (0, 2**64 - 1),
}
_FLOATS: Final = frozenset({10, 11})
TYPE_NAMES: Final[Mapping[int, str]] = {
    1: "Boolean",
    2: "SByte",
    3: "Byte",
    4: "Int16",
    5: "UInt16",
    6: "Int32",
    7: "UInt32",
    8: "Int64",
    9: "UInt64",
    10: "Float",
    11: "Double",
    12: "String",
    13: "DateTime",
    14: "Guid",
    15: "ByteString",
    16: "XmlElement",
    17: "NodeId",
    18: "ExpandedNodeId",
    19: "StatusCode",
    20: "QualifiedName",
    21: "LocalizedText",
    22: "ExtensionObject",
    23: "DataValue",
    24: "Variant",
    25: "DiagnosticInfo",
}
# Data types that are no built-in types by themselves but travel as one (namespace 0).
DERIVED_TYPES: Final[Mapping[int, int]] = {
    29: 6,  # Enumeration
    288: 7,  # IntegerId
    289: 7,  # Counter
    290: 11,  # Duration
    291: 12,  # NumericRange
    294: 13,  # UtcTime
    295: 12,  # LocaleId
}
# What fills an array of fixed length behind the last line.
_EMPTY: Final[Mapping[int, object]] = {
    STRING: "",
    LOCALIZED_TEXT: "",
    BOOLEAN: False,
    DATE_TIME: datetime(1970, 1, 1, tzinfo=UTC),
    **dict.fromkeys(_INTEGERS, 0),
    **dict.fromkeys(_FLOATS, 0.0),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SEVERITY: Final = 0xC0000000
_UNCERTAIN: Final = 0x40000000
# The lower half holds flags (overflow, limits, changed semantics) that do not touch the quality (OPC 10000-4, 7.39).
_CODE: Final = 0xFFFF0000


def builtin_type(data_type: int) -> int:
    """The built-in type number behind a data type of namespace 0; 0 when unknown."""
    return data_type if data_type in TYPE_NAMES else DERIVED_TYPES.get(data_type, 0)


def quality(status: int) -> Quality:
    """Only Good itself is good: GoodLocalOverride and its like say that the value is not the process's own."""
    if status & _CODE == 0:
        return Quality.GOOD
    return Quality.UNCERTAIN if status & _SEVERITY in {0, _UNCERTAIN} else Quality.BAD


def decode(type_number: int, value: object, status: int, status_name: str, source: datetime | None) -> Reading:
    """A reading of one DataValue. A null value is absent; what has no form in the bridge is BAD, with its type named."""
    found = quality(status)
    source_ns = _source_ns(source)
    if found is Quality.BAD:
        return Reading(value=None, quality=found, source_ns=source_ns, detail=status_name)
    detail = status_name if found is not Quality.GOOD else ""
    if value is None or type_number == 0:
        return Reading(value=None, quality=found, source_ns=source_ns, detail=detail, absent=not detail)
    try:
        return Reading(value=_plain(type_number, value), quality=found, source_ns=source_ns, detail=detail)
    except ValueError as error:
        return Reading(value=None, quality=Quality.BAD, source_ns=source_ns, detail=str(error)[:200])
    except (TypeError, OverflowError, AttributeError):
        text = f"this is no {TYPE_NAMES.get(type_number, type_number)}, although the server says so"
        return Reading(value=None, quality=Quality.BAD, source_ns=source_ns, detail=text)


def _plain(type_number: int, value: Any) -> object:
    if isinstance(value, list | tuple):
        return tuple(_plain(type_number, item) for item in value)
    convert = _DECODERS.get(type_number)
    if type_number == STRUCTURE:
        raise ValueError("this is a structure; name one of its fields behind #, such as Nameplate#MPAN")
    if convert is None:
        raise ValueError(f"a value of type {TYPE_NAMES.get(type_number, type_number)} cannot be used")
    return convert(value)


def _aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _node_id(value: Any) -> str:
    """As OPC UA writes it (OPC 10000-6, 5.3.1.10): `ns=2;s=North`, `nsu=urn:acme:ems;i=7`."""
    identifier, uri = value.Identifier, getattr(value, "NamespaceUri", None)
    namespace = f"nsu={uri};" if uri else f"ns={value.NamespaceIndex};" if value.NamespaceIndex else ""
    if isinstance(identifier, bytes):
        return f"{namespace}b={b64encode(identifier).decode()}"
    letter = "i" if isinstance(identifier, int) else "s" if isinstance(identifier, str) else "g"
    return f"{namespace}{letter}={identifier}"


_DECODERS: Final[Mapping[int, Callable[[Any], object]]] = {
    BOOLEAN: bool,
    **dict.fromkeys(_INTEGERS, int),
    **dict.fromkeys(_FLOATS, float),
    STRING: lambda value: "" if value is None else str(value),
    DATE_TIME: _aware,
    14: str,
    15: lambda value: b64encode(value).decode(),
    16: lambda value: str(getattr(value, "Value", value) or ""),
    17: _node_id,
    18: _node_id,
    19: lambda value: str(value.name),
    20: lambda value: str(value.Name or ""),
    23: lambda value: _plain(int(value.Value.VariantType.value), value.Value.Value),
    24: lambda value: _plain(int(value.VariantType.value), value.Value),
    LOCALIZED_TEXT: lambda value: str(value.Text or ""),
}


def _source_ns(source: datetime | None) -> int | None:
    """The source's time; a server without a clock sends the protocol's own zero, which lies in 1601."""
    found = epoch_ns(source) if source is not None else 0
    return found if found > 0 else None


def epoch_ns(moment: datetime) -> int:
    """UTC nanoseconds since 1970; exact, where `timestamp()` rounds."""
    since = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The type of a node that takes a part of an outcome. `length` is the fixed length of an array, None where it is free."""

    type_number: int
    is_array: bool = False
    length: int | None = None


def encode(field: OutcomeField, value: object, target: Target) -> object:
    """The value as the target's own type holds it; raises `ValueError` in words for an operator.

    A later read of the same node decodes to exactly this value.
    """
    several = isinstance(value, tuple) and not isinstance(value, Code)  # a Code is a tuple too, and one value
    if target.is_array:
        lines = value if isinstance(value, tuple) and several else (value,)
        return _fixed(field, tuple(_scalar(field, line, target.type_number) for line in lines), target)
    if isinstance(value, tuple) and several:
        value = "; ".join(str(line) for line in value)
    return _scalar(field, value, target.type_number)


def read_back(value: object, target: Target) -> object:
    """A null that a server gives for an empty text or array."""
    if value is None and target.is_array:
        return ()
    if value is None and target.type_number in {STRING, LOCALIZED_TEXT}:
        return ""
    return value


def _fixed(field: OutcomeField, items: tuple[object, ...], target: Target) -> tuple[object, ...]:
    if target.type_number not in _EMPTY:
        raise _unfit(field, target.type_number)
    if target.length is None:
        return items
    return (items + (_EMPTY[target.type_number],) * target.length)[: target.length]


def _scalar(field: OutcomeField, value: object, type_number: int) -> object:
    if field is OutcomeField.UPDATED_AT and isinstance(value, int):
        return _moment(value, type_number)
    if type_number in {STRING, LOCALIZED_TEXT}:
        return _text(value)
    if type_number == BOOLEAN and isinstance(value, bool):
        return value
    if type_number in _INTEGERS:
        return _in_range(_number(field, value), type_number)
    if type_number in _FLOATS:
        return float(_number(field, value))
    raise _unfit(field, type_number)


def _unfit(field: OutcomeField, type_number: int) -> ValueError:
    return ValueError(f"{field.value} cannot be written into a node of type {TYPE_NAMES.get(type_number, 'unknown')}")


def _text(value: object) -> str:
    if isinstance(value, Code):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _number(field: OutcomeField, value: object) -> int:
    if isinstance(value, Code):
        return value.number
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if value == "":  # nothing to tell yet
        return 0
    raise ValueError(f"{field.value} is text here, and its node holds a number; name a String node")


def _in_range(number: int, type_number: int) -> int:
    low, high = _INTEGERS[type_number]
    if not low <= number <= high:
        raise ValueError(f"{number} does not fit a node of type {TYPE_NAMES[type_number]}")
    return number


def _moment(wall_ns: int, type_number: int) -> object:
    """Milliseconds are what every server keeps of a date-time; numbers are whole seconds since 1970."""
    moment = _EPOCH + timedelta(milliseconds=wall_ns // 1_000_000)
    if type_number == DATE_TIME:
        return moment
    if type_number == STRING:
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if type_number in _INTEGERS:
        return _in_range(wall_ns // 1_000_000_000, type_number)
    if type_number in _FLOATS:
        return float(wall_ns // 1_000_000_000)
    raise ValueError(f"a time cannot be written into a node of type {TYPE_NAMES.get(type_number, 'unknown')}")
