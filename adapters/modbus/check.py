"""What no single model can see: addresses outside `writable:`, types that cannot hold their value, flows in each other's way. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from adapters.modbus.codec import INTEGERS, MOMENTS, Kind
from adapters.modbus.config import (
    LAST_REGISTER,
    CountFrom,
    ModbusOptions,
    ModbusOutcome,
    ModbusRecords,
    ModbusWord,
    RequestSubmit,
)
from adapters.modbus.layout import Span, block_of
from bridge.api import OutcomeField, Problem, Selection

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
    found: list[Problem] = []
    for selection in selections:
        found += _records(selection, selections)
        found += _outcome(options, selection)
        found += _answers(options, selection)
    found += _commands(selections)
    return found


def check_word(options: Any, selections: Sequence[Selection], word: Any) -> Sequence[Problem]:
    """The register of the alarm word is writable, and nobody else's."""
    assert isinstance(options, ModbusOptions)
    assert isinstance(word, ModbusWord)
    register, path = word.register_, "alarms.word.register"
    found = []
    if not options.may_write(register, 1):
        text = f"{Span(register, 1)} is outside `writable:` of its adapter; add it there, or name another"
        found.append(Problem(path=path, text=text))
    found += [
        Problem(path=path, text=f"{Span(register, 1)} is {owner}; give the word one of its own")
        for owner in _owners(options, selections, register)
    ]
    return found


def _owners(options: ModbusOptions, selections: Sequence[Selection], register: int) -> Iterator[str]:
    """What this register is already."""
    watched = {"magic": options.magic, "version": options.version, "heartbeat": options.heartbeat}
    yield from (f"the device's {name}" for name, held in watched.items() if held is not None and held.at == register)
    for selection in selections:
        submit, each = selection.submit, selection.records.each
        if isinstance(submit, RequestSubmit) and register in header(submit):
            yield f"part of the handshake of the flow {selection.flow}"
        if isinstance(each.count, CountFrom) and each.count.source == register:
            yield f"the count of the flow {selection.flow}"
        spans = [block_of(selection.records)]
        spans += [Span(target.at, target.width) for target in selection.outcome.targets().values()]
        offsets = [register - each.base - each.stride * number for number in range(each.most)]
        if any(span.start <= offset < span.end for offset in offsets for span in spans):
            yield f"inside a record of the flow {selection.flow}"


def _records(selection: Selection, selections: Sequence[Selection]) -> Iterator[Problem]:
    records, path = selection.records, f"flows.{selection.flow}.records"
    assert isinstance(records, ModbusRecords)
    each, block = records.each, block_of(records)
    if records.key not in records.fields:
        yield Problem(path=f"{path}.key", text=f"is not a field; known are {', '.join(sorted(records.fields))}")
    elif records.fields[records.key].type in {Kind.BIT, Kind.BITSET}:
        yield Problem(path=f"{path}.key", text="must be a field of text or a number")
    if each.most > 1 and block.end > each.stride:
        yield Problem(
            path=f"{path}.each.stride",
            text=f"is {each.stride}, but a record reaches to offset {block.end - 1}; the records would overlap",
        )
    if each.base + each.stride * (each.most - 1) + block.end - 1 > LAST_REGISTER:
        yield Problem(path=f"{path}.each", text=f"runs past register {LAST_REGISTER}")
    for name, field in records.fields.items():
        if field.members is not None:
            text = _stands_for(field.members, selections)
            if text:
                yield Problem(path=f"{path}.fields.{name}.of", text=text)


def _stands_for(members: tuple[str, str], selections: Sequence[Selection]) -> str:
    flow, field = members
    known = {selection.flow: selection.records for selection in selections}
    if flow not in known:
        return f"there is no flow {flow} on this adapter; known are {', '.join(sorted(known))}"
    if field not in known[flow].fields:
        return f"{flow} has no field {field}; known are {', '.join(sorted(known[flow].fields))}"
    if known[flow].fields[field].members is not None:
        return f"{flow}.{field} is itself a list of record numbers; name a field of text"
    if known[flow].fields[field].scale_at is not None:
        return f"{flow}.{field} has a scale factor, so it names no record; name a field of text"
    return ""


def _outcome(options: ModbusOptions, selection: Selection) -> Iterator[Problem]:
    outcome, each = selection.outcome, selection.records.each
    assert isinstance(outcome, ModbusOutcome)
    used: dict[int, tuple[OutcomeField, bool]] = {}
    for name, target in outcome.targets().items():
        path = f"flows.{selection.flow}.outcome.{name.value}"
        if target.type not in _TAKES[name]:
            kinds = ", ".join(sorted(kind.value for kind in _TAKES[name]))
            yield Problem(path=f"{path}.type", text=f"a {target.type.value} cannot hold it; known are {kinds}")
        if target.width > options.max_registers_per_write:
            text = f"takes {target.width} registers, more than one request writes ({options.max_registers_per_write})"
            yield Problem(path=path, text=text)
        outside = _outside(options, each.base + target.at, target.width, each.stride, each.most)
        if outside:
            yield Problem(path=path, text=outside)
        whole = target.shape.part is None  # bits and bytes may share a register with each other
        places = range(target.at, target.at + target.width)
        other = next((used[at][0] for at in places if at in used and (whole or used[at][1])), None)
        if other is not None:
            yield Problem(path=path, text=f"shares registers with {other.value}")
        used |= dict.fromkeys(places, (name, whole))


def _outside(options: ModbusOptions, first: int, width: int, stride: int, most: int) -> str:
    """The first record whose registers are not all writable, as a text; '' when all are."""
    for number in range(most):
        span = Span(first + stride * number, width)
        if span.end - 1 > LAST_REGISTER:
            return f"runs past register {LAST_REGISTER}"
        if not options.may_write(*span):
            return f"{span} (record {number}) is outside `writable:`; add the range there, or correct the address"
    return ""


def _answers(options: ModbusOptions, selection: Selection) -> Iterator[Problem]:
    submit = selection.submit
    if not isinstance(submit, RequestSubmit):
        return
    for name, register in submit.answers:
        if not options.may_write(register, 1):
            text = f"{Span(register, 1)} is outside `writable:`; the host answers there, so add it"
            yield Problem(path=f"flows.{selection.flow}.submit.{name}", text=text)


def _commands(selections: Sequence[Selection]) -> Iterator[Problem]:
    """Flows that share a command register agree on the other registers and differ in the command."""
    seen: dict[int, list[Selection]] = {}
    for selection in selections:
        submit = selection.submit
        if not isinstance(submit, RequestSubmit):
            continue
        path = f"flows.{selection.flow}.submit"
        for other in seen.setdefault(submit.request, []):
            if other.submit.equals == submit.equals:
                yield Problem(
                    path=f"{path}.equals", text=f"is the command of {other.flow} too; each flow needs its own"
                )
            if header(other.submit) != header(submit):
                yield Problem(
                    path=path,
                    text=f"shares `request` with {other.flow}, so sequence, status and error must be the same",
                )
        seen[submit.request].append(selection)


def header(submit: RequestSubmit) -> tuple[int, int, int | None, int | None]:
    """The registers of one handshake."""
    return submit.request, submit.sequence, submit.status, submit.error
