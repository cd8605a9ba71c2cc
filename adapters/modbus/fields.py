"""The fields of a record, laid over each other: what shares registers is a view of a part, or a mistake. Pure."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Final, NamedTuple

from adapters.modbus.codec import Kind
from adapters.modbus.config import Crc, ModbusRecords
from adapters.modbus.layout import blocks_of
from adapters.modbus.overlaps import masks_of
from adapters.modbus.targets import FieldTarget
from bridge.api import Problem

_ADVICE: Final = "correct `at`, `type` or `registers` of one of them"


class _Laid(NamedTuple):
    """One field, and which bits of each register of the record it is."""

    name: str
    field: FieldTarget
    masks: Mapping[int, int]

    @property
    def place(self) -> str:
        """Its offsets for a person's eyes."""
        last = self.field.at + self.field.width - 1
        return f"offset {self.field.at}" if last == self.field.at else f"offsets {self.field.at}..{last}"

    def within(self, other: "_Laid") -> bool:
        """Whether it is a bit, a byte or some bits of what the other is the whole of."""
        if self.field.shape.part is None or self.masks == other.masks:
            return False
        return all(not mask & ~other.masks.get(at, 0) for at, mask in self.masks.items())


def shared(records: ModbusRecords, path: str) -> Iterator[Problem]:
    """Fields, scale factors and the CRC that lie over each other; one problem for each line of the site file, at the later one."""
    table = blocks_of(records).table
    laid = [
        _Laid(name, field, dict(enumerate(masks_of(field.shape, table), field.at)))
        for name, field in records.registers.items()
    ]
    told: dict[str, str] = {}
    for first, second in combinations(laid, 2):
        text = _over(first, second)
        if text:
            told.setdefault(f"{path}.fields.{second.name}", text)
    for each in laid:
        text = _factor(each, laid)
        if text:
            told.setdefault(f"{path}.fields.{each.name}.scale_at", text)
    if records.crc is not None:
        text = _checksum(records.crc, laid)
        if text:
            told[f"{path}.crc.at"] = text
    yield from (Problem(path=at, text=text) for at, text in told.items())


def _over(first: _Laid, second: _Laid) -> str:
    common = [at for at, mask in second.masks.items() if mask & first.masks.get(at, 0)]
    if not common or first.within(second) or second.within(first):
        return ""
    same = first.masks == second.masks
    if same and {first.field.type, second.field.type} == {Kind.BITSET} and first.field.of != second.field.of:
        return ""  # the same records, once as one of their fields and once as another
    if same:
        return f"is in the same place as `{first.name}` ({first.place}); correct `at`, or name that field twice in the payload"
    return f"lies at {second.place}, over `{first.name}` ({first.place}, {first.field.type.value}); {_ADVICE}"


def _factor(each: _Laid, laid: list[_Laid]) -> str:
    """A scale factor is a register of its own; a field may show that register as well."""
    at = each.field.scale_at
    for other in laid if at is not None else ():
        if at in other.masks and (other.field.width > 1 or other is each):
            return f"is {at}, a part of `{other.name}` ({other.place}); correct the one or the other"
    return ""


def _checksum(crc: Crc, laid: list[_Laid]) -> str:
    if any(first <= crc.at <= last for first, last in crc.over):
        return f"is {crc.at}, which `over` covers: a CRC cannot be part of what it is made of, so leave it out there"
    for other in laid:
        if crc.at in other.masks and other.field.width > 1:
            return f"is {crc.at}, a part of `{other.name}` ({other.place}); correct the one or the other"
    return ""
