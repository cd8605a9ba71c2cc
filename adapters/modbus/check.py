"""What no single model can see: addresses outside `writable:`, types that cannot hold their value, flows in each other's way. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, Final

from adapters.modbus.codec import INTEGERS, MOMENTS, Kind, holds
from adapters.modbus.config import (
    CountFrom,
    ModbusOptions,
    ModbusOutcome,
    ModbusRecords,
    ModbusWord,
    RequestSubmit,
)
from adapters.modbus.fields import shared
from adapters.modbus.layout import block_of, blocks_of, outcome_blocks, outcome_spans, over_each_other
from adapters.modbus.overlaps import Device, between, overlaps
from adapters.modbus.places import LAST_REGISTER, AddressBase, Span, Table
from adapters.modbus.sidecar import read_sheet
from adapters.modbus.targets import FieldTarget, OutcomeTarget, Target
from adapters.modbus.wire import Wire, count_place, header, span_of
from bridge.api import Clash, InUse, OutcomeField, Problem, Selection

_FEW: Final = 3  # numbers that are told of those that do not fit; the rest is alike
_TEXT: Final = frozenset({Kind.STRING})
_TAKES: Final[Mapping[OutcomeField, frozenset[Kind]]] = {
    OutcomeField.STATE: INTEGERS | _TEXT,
    OutcomeField.TRANSACTION_ID: _TEXT,
    OutcomeField.ERROR_CODE: INTEGERS | _TEXT,
    OutcomeField.ERROR_TEXT: _TEXT,
    OutcomeField.ERROR_COUNT: INTEGERS,
    OutcomeField.ASSET_ID: _TEXT,
    OutcomeField.UPDATED_AT: MOMENTS,
    OutcomeField.REQUEST: INTEGERS | _TEXT,
    OutcomeField.ALARM: INTEGERS | {Kind.BIT},
}


def check(options: Any, selections: Sequence[Selection]) -> Sequence[Problem]:
    """Every problem of one device's flows, laid side by side."""
    assert isinstance(options, ModbusOptions)
    wire = Wire(options)
    device, flows = wire.options(), [wire.selection(selection) for selection in selections]
    found = wire.problems
    if found:  # places that are nowhere would only seem to be in each other's way
        return found
    for selection in flows:
        found += _records(selection, flows)
        found += _outcome(device, selection)
        found += _answers(device, selection)
    found += _commands(flows)
    over = list(overlaps(device, flows))
    told = {problem.path for problem in over}  # a wrong address may lie outside `writable:` too, and is told once
    return _counted(options, [problem for problem in found if problem.path not in told] + over)


def check_word(options: Any, selections: Sequence[Selection], word: Any) -> Sequence[Problem]:
    """The register of the alarm word is writable, and nobody else's."""
    assert isinstance(options, ModbusOptions)
    assert isinstance(word, ModbusWord)
    wire, path = Wire(options), "alarms.word.register"
    device, flows, place = wire.options(), [wire.selection(selection) for selection in selections], wire.word(word)
    found = [problem for problem in wire.problems if problem.path == path]
    if found or wire.problems:
        return found  # `check` tells the rest
    if not device.may_write(*place):
        text = f"{place} is outside `writable:` of its adapter; add it there, or name another"
        found.append(Problem(path=path, text=text))
    found += [
        Problem(path=path, text=f"{place} is {owner}; give the word one of its own")
        for owner in _owners(device, flows, place)
    ]
    return _counted(options, found)


def check_beside(given: Sequence[InUse]) -> Sequence[Clash]:
    """Adapters that share a line or a connection open it with the same settings; those of one device keep out of each other's registers."""
    first: dict[tuple[str, int], int] = {}
    devices: dict[tuple[object, ...], list[int]] = {}
    found: list[Clash] = []
    for number, (options, _) in enumerate(given):
        assert isinstance(options, ModbusOptions)
        devices.setdefault((*options.shared_place, options.unit), []).append(number)
        if options.shares:
            before = first.setdefault(options.shared_place, number)
            found += [
                Clash(before, number, f"adapter.{path}", text) for path, text in _unlike(given[before].options, options)
            ]
    for numbers in devices.values():
        found += _one_device(given, numbers)
    return found


def _one_device(given: Sequence[InUse], numbers: Sequence[int]) -> Iterator[Clash]:
    """Each adapter of a device that writes what another one writes or reads: once, for it may well be the same site file with another name."""
    laid = [(number, _on_the_wire(given[number])) for number in numbers if len(numbers) > 1]
    for later, (number, device) in enumerate(laid):
        for before, other in laid[:later]:
            clash = next(between(other, device), None)
            if clash is None:
                continue
            options = given[number].options
            both = f"both adapters are of {options.where} unit {options.unit}"
            text = f"{clash.text}; {both}, so correct the address of one, or give each registers of its own"
            pair = (number, before) if clash.of_first else (before, number)
            yield Clash(*pair, clash.path, text)
            break


def _on_the_wire(used: InUse) -> Device:
    """Without its flows where one of its addresses is nowhere; that is told by `check`."""
    wire = Wire(used.options)
    options, flows = wire.options(), [wire.selection(selection) for selection in used.selections]
    return Device(options, [] if wire.problems else flows)


def _unlike(first: ModbusOptions, second: ModbusOptions) -> Iterator[tuple[str, str]]:
    """Each setting of the second that has to be as the first's."""
    same = f"all adapters that share {second.where} need the same"
    if first.framing is not second.framing:
        yield "framing", f"is {second.framing.value}, another adapter has {first.framing.value}; {same}"
    if first.tls != second.tls:
        yield "tls", f"is not that of another adapter; {same}"
    if first.serial is None or second.serial is None:
        return
    for name in ("baudrate", "parity", "stop_bits", "data_bits"):
        one, other = getattr(first.serial, name), getattr(second.serial, name)
        if one != other:
            yield f"serial.{name}", f"is {_word(other)}, another adapter has {_word(one)}; {same}"


def _word(setting: object) -> object:
    return setting.value if isinstance(setting, Enum) else setting


def _counted(options: ModbusOptions, found: Sequence[Problem]) -> Sequence[Problem]:
    """Problems name addresses as they are on the wire; where the site file counts otherwise, they say so."""
    if options.address_base is AddressBase.ZERO:
        return found
    return [replace(problem, text=f"{problem.text} (addresses here count from 0, as on the wire)") for problem in found]


def _owners(options: ModbusOptions, selections: Sequence[Selection], register: Span) -> Iterator[str]:
    """What this register is already."""
    watched = {"magic": options.magic, "version": options.version, "heartbeat": options.heartbeat}
    yield from (
        f"the device's {name}" for name, held in watched.items() if held is not None and span_of(held) == register
    )
    for selection in selections:
        submit, each = selection.submit, selection.records.each
        if isinstance(submit, RequestSubmit) and register in header(submit):
            yield f"part of the handshake of the flow {selection.flow}"
        if isinstance(each.count, CountFrom) and count_place(each.count) == register:
            yield f"the count of the flow {selection.flow}"
        block, targets = block_of(selection.records), selection.outcome.targets().values()
        spans = [blocks_of(selection.records).at(number, *block[:2]) for number in range(each.most)]
        spans += [span for target in targets for _, span in outcome_spans(selection, target)]
        if any(span.table is register.table and span.start <= register.start < span.end for span in spans):
            yield f"inside a record of the flow {selection.flow}"


def _records(selection: Selection, selections: Sequence[Selection]) -> Iterator[Problem]:
    records, path = selection.records, f"flows.{selection.flow}.records"
    assert isinstance(records, ModbusRecords)
    each, block = records.each, block_of(records)
    key = records.fields.get(records.key)
    if key is None:
        yield Problem(path=f"{path}.key", text=f"is not a field; known are {', '.join(sorted(records.fields))}")
    elif isinstance(key, FieldTarget) and key.type in {Kind.BIT, Kind.BITSET}:
        yield Problem(path=f"{path}.key", text="must be a field of text or a number")
    yield from _sidecar(records, f"{path}.csv")
    if over_each_other(records):
        yield Problem(
            path=f"{path}.each.stride",
            text=f"is {each.stride}, but a record reaches to offset {block.end - 1}; the records would overlap",
        )
    if each.base + each.stride * (each.most - 1) + block.end - 1 > LAST_REGISTER:
        yield Problem(path=f"{path}.each", text=f"runs past register {LAST_REGISTER}")
    yield from shared(records, path)
    for name, field in records.registers.items():
        if field.members is not None:
            text = _stands_for(field.members, selections)
            if text:
                yield Problem(path=f"{path}.fields.{name}.of", text=text)
        text = _one_bit(blocks_of(records).table, field)
        if text:
            yield Problem(path=f"{path}.fields.{name}.type", text=text)


def _sidecar(records: ModbusRecords, path: str) -> Iterator[Problem]:
    """The file beside the map: read as a whole, so that each line that is wrong is told before anything starts."""
    if records.csv is None:
        if records.columns:
            name = next(iter(records.columns))
            yield Problem(
                path=path,
                text=f"is missing: the field {name} is read from a CSV file; name it with `csv: {{file: …, on: …}}`",
            )
        return
    if records.csv.on not in records.registers:
        known = ", ".join(sorted(records.registers))
        yield Problem(path=f"{path}.on", text=f"must be a field that is read from registers; known are {known}")
    if not records.columns:
        yield Problem(path=path, text="is read for nothing: no field is `{csv: COLUMN}`")
        return
    for text in read_sheet(records.csv, records.columns).problems:
        yield Problem(path=f"{path}.file", text=text)


def _one_bit(table: Table, target: Target) -> str:
    """What is wrong with a value of a table of bits, '' for all that is well."""
    if table.holds_bits and (target.type is not Kind.BIT or target.bit):
        return f"{table.value} are single bits; write `type: bit, bit: 0`"
    return ""


def _stands_for(members: tuple[str, str], selections: Sequence[Selection]) -> str:
    flow, field = members
    known = {selection.flow: selection.records for selection in selections}
    if flow not in known:
        return f"there is no flow {flow} on this adapter; known are {', '.join(sorted(known))}"
    if field not in known[flow].registers:
        return f"{flow} has no field {field} in registers; known are {', '.join(sorted(known[flow].registers))}"
    if known[flow].registers[field].members is not None:
        return f"{flow}.{field} is itself a list of record numbers; name a field of text"
    if known[flow].registers[field].scale_at is not None:
        return f"{flow}.{field} has a scale factor, so it names no record; name a field of text"
    return ""


def _outcome(options: ModbusOptions, selection: Selection) -> Iterator[Problem]:
    outcome = selection.outcome
    assert isinstance(outcome, ModbusOutcome)
    blocks = outcome_blocks(selection.records, outcome)
    most = selection.records.each.most
    if outcome.each is not None and most > 1 and not blocks.stride:
        text = "several records need `stride`, the distance from one outcome to the next"
        yield Problem(path=f"flows.{selection.flow}.outcome.each", text=text)
    for name, target in outcome.targets().items():
        path = f"flows.{selection.flow}.outcome.{name.value}"
        if target.type not in _TAKES[name]:
            kinds = ", ".join(sorted(kind.value for kind in _TAKES[name]))
            yield Problem(path=f"{path}.type", text=f"a {target.type.value} cannot hold it; known are {kinds}")
        elif target.type is not Kind.STRING:
            text = _too_large(target, selection.numbers.get(name, {}))
            if text:
                yield Problem(path=path, text=text)
        if target.width > options.max_registers_per_write:
            text = f"takes {target.width} registers, more than one request writes ({options.max_registers_per_write})"
            yield Problem(path=path, text=text)
        follows = over_each_other(selection.records) and outcome.each is None and not target.fixed
        text = "" if follows else _outside(options, selection, target)
        if text:
            yield Problem(path=path, text=text)
        table = (target.table or Table.HOLDING) if target.fixed else blocks.table
        text = _one_bit(table, target)
        if text:
            yield Problem(path=f"{path}.type", text=text)


def _too_large(target: OutcomeTarget, numbers: Mapping[str, int]) -> str:
    """The numbers that the host may write there and that its type does not hold, as a text; '' when it holds all."""
    lost = {what: number for what, number in numbers.items() if not holds(target.shape, number)}
    if not lost:
        return ""
    named = [f"{number}" if what == f"{number}" else f"{number} ({what})" for what, number in lost.items()]
    few = ", ".join(named[:_FEW])
    more = f" and {len(lost) - _FEW} more" if len(lost) > _FEW else ""
    return f"a {target.type.value} here cannot hold {few}{more}; take a wider type, or give smaller numbers in `states` or `error_codes`"


def _outside(options: ModbusOptions, selection: Selection, target: OutcomeTarget) -> str:
    """The first record whose place is not writable, as a text; '' when all are."""
    for number, span in outcome_spans(selection, target):
        if not span.table.writable:
            return f"{span} cannot be written; say where outcomes are (`outcome.each`), or give an address with `fixed: true`"
        if span.end - 1 > LAST_REGISTER:
            return f"runs past register {LAST_REGISTER}"
        if not options.may_write(*span):
            whose = "" if target.fixed else f" (record {number})"
            return f"{span}{whose} is outside `writable:`; add the range there, or correct the address"
    return ""


def _answers(options: ModbusOptions, selection: Selection) -> Iterator[Problem]:
    submit = selection.submit
    if not isinstance(submit, RequestSubmit):
        return
    path = f"flows.{selection.flow}.submit"
    for name, place in submit.answers:
        if not options.may_write(*span_of(place)):
            text = f"{span_of(place)} is outside `writable:`; the host answers there, so add it"
            yield Problem(path=f"{path}.{name}", text=text)
    if span_of(submit.request).table.holds_bits and submit.equals != 1:
        yield Problem(path=f"{path}.equals", text=f"is {submit.equals}, but {span_of(submit.request)} can only be 1")
    for name, place in submit.places:
        if name in {"sequence", "error"} and span_of(place).table.holds_bits:
            yield Problem(path=f"{path}.{name}", text=f"is {span_of(place)}; it holds a number, so it needs a register")


def _commands(selections: Sequence[Selection]) -> Iterator[Problem]:
    """Flows that share a command register agree on the other registers and differ in the command."""
    seen: dict[Span, list[Selection]] = {}
    for selection in selections:
        submit = selection.submit
        if not isinstance(submit, RequestSubmit):
            continue
        path = f"flows.{selection.flow}.submit"
        for other in seen.setdefault(span_of(submit.request), []):
            if other.submit.equals == submit.equals:
                yield Problem(
                    path=f"{path}.equals", text=f"is the command of {other.flow} too; each flow needs its own"
                )
            if header(other.submit) != header(submit):
                yield Problem(
                    path=path,
                    text=f"shares `request` with {other.flow}, so sequence, status and error must be the same",
                )
        seen[span_of(submit.request)].append(selection)
