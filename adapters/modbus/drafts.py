"""A flow for registers of which nothing but their content is known: where records seem to repeat, and a field for each value. Pure."""

import re
from collections.abc import Sequence
from itertools import combinations, count
from typing import Any, Final, NamedTuple

from adapters.modbus.codec import Kind
from adapters.modbus.places import LAST_REGISTER, AddressBase, Table
from adapters.modbus.segments import Segment
from bridge.api import FlowDraft

MOST_FIELDS: Final = 80
_LEAST_IN_BLOCK: Final = 3
_ALIKE: Final = 0.6
_LONGEST_TEXT: Final = 32
_DIGITS: Final = {Table.COILS: 0, Table.DISCRETE: 1, Table.INPUT: 3, Table.HOLDING: 4}
_MPAN: Final = re.compile(r"\d{13}")
_POSTCODE: Final = re.compile(r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}")
_GSP_GROUP: Final = re.compile(r"_[A-P]")
_REFERENCE: Final = re.compile(r"(?=.*\d)(?=.*[A-Za-z])\S+")
_NAMED: Final = ((_MPAN, "mpan"), (_POSTCODE, "postcode"), (_GSP_GROUP, "gsp_group"))


class _Block(NamedTuple):
    """Records of one table: the first one's address, the distance to the next, how many."""

    base: int
    stride: int
    repeats: int


def drafts(found: Sequence[Segment], base: AddressBase) -> tuple[list[FlowDraft], list[int]]:
    """A flow for each table of registers in which something stands; and what `writable:` needs so that `check` accepts the stand-in for the outcome."""
    nobody = _nobodys(found)
    flows = []
    for table in (Table.HOLDING, Table.INPUT):
        values = [segment for segment in found if segment.span.table is table and segment.type]
        if values:
            flows.append(_flow(table, values, base, spelled(base, nobody, Table.HOLDING)))
    return flows, [spelled(base, nobody, Table.HOLDING)] if flows else []


def spelled(base: AddressBase, start: int, table: Table) -> int:
    """An address on the wire as a site file with this base writes it."""
    if base is AddressBase.REFERENCE:
        step = 10_000 if start < 9_999 else 100_000
        return int(_DIGITS[table] * step + start + 1)
    return start + int(base.value)


def _nobodys(found: Sequence[Segment]) -> int:
    """The last holding register of which nothing was read: a stand-in must not be a register that means something."""
    taken = {
        at
        for segment in found
        if segment.span.table is Table.HOLDING
        for at in range(segment.span.start, segment.span.end)
    }
    return next((at for at in range(LAST_REGISTER, 0, -1) if at not in taken), LAST_REGISTER)


def _flow(table: Table, values: Sequence[Segment], base: AddressBase, nobody: int) -> FlowDraft:
    block = _repeated(values) or _Block(values[0].span.start, 0, 1)
    end = block.base + block.stride if block.repeats > 1 else LAST_REGISTER + 1
    inside = [segment for segment in values if block.base <= segment.span.start and segment.span.end <= end]
    fields: dict[str, Any] = {}
    notes: dict[str, str] = {}
    examples: dict[str, object] = {}
    for number, segment in enumerate(inside[:MOST_FIELDS]):
        name = _name(segment, block.base, fields)
        after = inside[number + 1].span.start if number + 1 < len(inside) else segment.span.end
        fields[name] = _target(segment, block.base, after)
        examples[name] = segment.value
        other = f"; or {segment.other}" if segment.other else ""
        shown = segment.hex if segment.span.size <= 4 else f"{segment.span.size} registers"
        notes[f"records.fields.{name}"] = f"{shown}: {segment.value}{other}"
    each: dict[str, Any] = {"base": spelled(base, block.base, table)}
    if base is not AddressBase.REFERENCE and table is not Table.HOLDING:
        each["table"] = table.value
    opened = {
        "records.key": "the field that identifies the asset; is it this one?",
        "records.fields": "types and lengths are guesses from one look; take them from the manual, and rename the fields",
        "submit": "no handshake can be told from registers; `change` submits every record once, and again when a field changes",
        "outcome.state": f"{nobody} stands in for the register that takes the state; name it, here and in `writable:`",
    }
    if block.repeats > 1:
        each |= {"stride": block.stride, "count": block.repeats}
        opened["records.each"] = f"texts repeat every {block.stride} registers, {block.repeats} times"
    else:
        opened["records.each"] = "taken for one record; where there are several, add stride and count"
    if len(inside) > MOST_FIELDS:
        opened["records.fields"] += f"; only the first {MOST_FIELDS} are here"
    return FlowDraft(
        name=table.value,
        records={"each": each, "key": _key(examples), "fields": fields},
        submit={"when": "change"},
        outcome={"state": {"at": nobody, "fixed": True, "type": Kind.UINT16.value}},
        examples=examples,
        notes=notes,
        open=opened,
    )


def _repeated(values: Sequence[Segment]) -> _Block | None:
    """Where texts come again at one distance, and most of the values between them too."""
    texts = sorted(segment.span.start for segment in values if segment.type == Kind.STRING.value)
    starts, known = {segment.span.start for segment in values}, set(texts)
    best: _Block | None = None
    for first, second in combinations(texts, 2):
        if best is not None and first >= best.base + best.stride:
            break
        stride = second - first
        inside = [start for start in starts if first <= start < second]
        alike = sum(start + stride in starts for start in inside)
        if len(inside) < _LEAST_IN_BLOCK or alike < _ALIKE * len(inside):
            continue
        repeats = next(number for number in count(1) if first + number * stride not in known)
        if best is None or repeats > best.repeats:
            best = _Block(first, stride, repeats)
    return best


def _target(segment: Segment, base: int, after: int) -> dict[str, Any]:
    """A text may take the empty registers before the next value: the next record's may be longer."""
    target: dict[str, Any] = {"at": segment.span.start - base, "type": segment.type}
    if segment.type == Kind.STRING.value:
        room = after - segment.span.start
        target["registers"] = room if room <= _LONGEST_TEXT else segment.span.size
    if segment.order:
        target["order"] = segment.order
    return target


def _name(segment: Segment, base: int, taken: dict[str, Any]) -> str:
    at, value = segment.span.start - base, segment.value
    if isinstance(value, str):
        name = next((word for form, word in _NAMED if form.fullmatch(value.strip())), "")
        return name if name and name not in taken else f"text_{at}"
    return f"value_{at}"


def _key(examples: dict[str, object]) -> str:
    texts = {name: value for name, value in examples.items() if isinstance(value, str) and name.startswith("text_")}
    sure = (name for name, value in texts.items() if _REFERENCE.fullmatch(value))
    return next(sure, next(iter(texts), next(iter(examples))))
