"""Records both ways: an item in the host's own names to its wire form, and back. Compiled once; nothing is interpreted per record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, TypeAlias

from bridge.clock import iso_ms
from bridge.profile import TimeForm, WireType
from bridge.profile.model import WireField
from bridge.vocabulary import FieldSpec, ValueType
from bridge.wire.parts import Path, follow, plant
from bridge.wire.scalars import fold, read_epoch_ms, read_integer, read_iso, write_epoch_ms

Convert: TypeAlias = Callable[[Any], Any]

_DEFAULT_TYPES: Final[Mapping[ValueType, WireType]] = {
    ValueType.TEXT: WireType.TEXT,
    ValueType.ENUM: WireType.TEXT,
    ValueType.INTEGER: WireType.INTEGER,
    ValueType.NUMBER: WireType.NUMBER,
    ValueType.BOOLEAN: WireType.BOOLEAN,
    ValueType.INSTANT: WireType.INSTANT,
    ValueType.LIST: WireType.LIST,
}
_LONGEST_NUMBER: Final = 40
_MOST_SHAPES: Final = 64  # sets of names whose fields are remembered


class _Step(NamedTuple):
    """One field both ways."""

    host: Path
    wire: Path
    write: Convert | None
    read: Convert | None


class _Put(NamedTuple):
    """How one field is written: from one name to another, or along paths where `step` is given."""

    host: str
    wire: str
    write: Convert | None
    step: _Step | None


@dataclass(frozen=True, slots=True)
class RecordCodec:
    """All fields of one kind of record."""

    _steps: tuple[_Step, ...]
    _chosen: dict[tuple[str, ...], tuple[_Put, ...]] = field(default_factory=dict)

    def write(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """An item in its wire form; fields that it does not have are left out."""
        record: dict[str, Any] = {}
        for host, wire, write, step in self._for(item):
            value = item[host] if step is None else follow(item, step.host)
            if value is None:
                continue
            if write is not None:
                value = write(value)
            if step is None:
                record[wire] = value
            else:
                plant(record, step.wire, value)
        return record

    def _for(self, item: Mapping[str, Any]) -> tuple[_Put, ...]:
        """The fields that an item with these names may have: the records of a flow are much alike."""
        names = tuple(item)
        found = self._chosen.get(names)
        if found is None:
            found = tuple(_put(step) for step in self._steps if step.host[0] in item)
            if len(self._chosen) < _MOST_SHAPES:
                self._chosen[names] = found
        return found

    def read(self, record: Any) -> dict[str, Any]:
        """A record in the host's own names; what cannot be converted is kept as it came, for whoever validates it."""
        item: dict[str, Any] = {}
        for step in self._steps:
            value = follow(record, step.wire)
            if value is not None:
                plant(item, step.host, value if step.read is None else step.read(value))
        return item


def _put(step: _Step) -> _Put:
    short = len(step.host) == len(step.wire) == 1
    return _Put(step.host[0], step.wire[0], step.write, None if short else step)


def compile_records(fields: Mapping[str, WireField], specs: Mapping[str, FieldSpec]) -> RecordCodec:
    """The codec of these fields."""
    return RecordCodec(tuple(_step(name, wire, specs[name]) for name, wire in fields.items()))


def _step(name: str, field: WireField, spec: FieldSpec) -> _Step:
    write, read = _converters(field, spec)
    return _Step(tuple(name.split(".")), field.at, write, read)


def _converters(field: WireField, spec: FieldSpec) -> tuple[Convert | None, Convert | None]:
    if spec.item:
        return _list_of(compile_records(field.item, spec.item))
    if field.enum:
        return _enum(field.enum)
    kind = field.type or _DEFAULT_TYPES[spec.type]
    if kind is WireType.DECIMAL_TEXT or field.scale is not None:
        return _scaled(field.scale or Decimal(1), whole=spec.type is ValueType.INTEGER, kind=kind)
    if kind is WireType.INSTANT and field.time is TimeForm.EPOCH_MS:
        return _to_epoch, _from_epoch
    readers: Mapping[WireType, Convert] = {WireType.INTEGER: _integer, WireType.INSTANT: _instant}
    return None, readers.get(kind)


def _list_of(codec: RecordCodec) -> tuple[Convert, Convert]:
    def write(entries: Any) -> list[dict[str, Any]]:
        return [codec.write(entry) for entry in entries]

    def read(entries: Any) -> Any:
        return [codec.read(entry) for entry in entries] if isinstance(entries, list) else entries

    return write, read


def _enum(words: Mapping[str, str | int]) -> tuple[Convert, Convert]:
    back = {fold(word): host for host, word in words.items()}
    forth = dict(words)

    def write(value: Any) -> Any:
        return forth.get(value, value)

    def read(value: Any) -> Any:
        return back.get(fold(value), value)

    return write, read


def _scaled(scale: Decimal, *, whole: bool, kind: WireType) -> tuple[Convert, Convert]:
    """Exact in both directions: `scale` is a power of ten."""

    def write(value: Any) -> Any:
        number = Decimal(str(value)) * scale
        if kind is WireType.DECIMAL_TEXT:
            return _plain(number)
        return int(number) if number == number.to_integral_value() else float(number)

    def read(value: Any) -> Any:
        if isinstance(value, bool) or len(str(value)) > _LONGEST_NUMBER:
            return value
        try:
            number = Decimal(str(value)) / scale
            if not number.is_finite():
                return value
            return int(number) if whole and number == number.to_integral_value() else float(number)
        except InvalidOperation:
            return value

    return write, read


def _plain(number: Decimal) -> str:
    """Decimal text without exponent and without trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _to_epoch(value: Any) -> Any:
    wall_ns = read_iso(value)
    return value if wall_ns is None else write_epoch_ms(wall_ns)


def _from_epoch(value: Any) -> Any:
    wall_ns = read_epoch_ms(value)
    return value if wall_ns is None else iso_ms(wall_ns)


def _integer(value: Any) -> Any:
    number = read_integer(value)
    return value if number is None else number


def _instant(value: Any) -> Any:
    wall_ns = read_iso(value)
    return value if wall_ns is None else iso_ms(wall_ns)
