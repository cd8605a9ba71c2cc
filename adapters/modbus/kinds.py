"""What registers hold is what fields are: their kinds of value, as far as a site file tells. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from adapters.modbus.codec import FLOATS, INTEGERS, MOMENTS, Kind
from adapters.modbus.config import ModbusRecords
from adapters.modbus.targets import FieldTarget
from bridge.api import ValueKind

_KINDS: Final[Mapping[Kind, ValueKind]] = {
    **dict.fromkeys(INTEGERS, ValueKind.WHOLE),
    **dict.fromkeys(FLOATS, ValueKind.FLOAT),
    **dict.fromkeys(MOMENTS, ValueKind.MOMENT),
    Kind.BIT: ValueKind.BOOLEAN,
    Kind.STRING: ValueKind.TEXT,
    Kind.BITSET: ValueKind.NUMBERS,
}


def kinds(records: Any) -> Mapping[str, ValueKind]:
    """See `bridge.api.Adapter`. Whether a scaled number or one of a CSV file is whole only shows in the device or the file."""
    assert isinstance(records, ModbusRecords)
    found = {name: _kind(field) for name, field in records.registers.items()}
    for name, column in records.columns.items():
        found[name] = ValueKind.NUMBER if column.number else ValueKind.TEXT
    return found


def _kind(field: FieldTarget) -> ValueKind:
    if field.members is not None:
        return ValueKind.LIST
    return ValueKind.NUMBER if field.scale_at is not None else _KINDS[field.type]
