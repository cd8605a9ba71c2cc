"""From the addresses of a site file to those on the wire, once for all: behind it addresses count from 0 and every table is named. Pure."""

from dataclasses import replace
from typing import TypeVar

from adapters.modbus.config import (
    CountFrom,
    ModbusOptions,
    ModbusOutcome,
    ModbusRecords,
    ModbusWord,
    Place,
    Registers,
    RequestSubmit,
)
from adapters.modbus.places import LAST_REGISTER, Span, Table, located
from adapters.modbus.targets import OutcomeTarget
from bridge.api import Options, Problem, Selection

Located = TypeVar("Located", bound=Place)


class Wire:
    """One device's addresses. What is wrong with them is collected in `problems`, each with its place in the site file."""

    def __init__(self, options: ModbusOptions) -> None:
        self._base = options.address_base
        self._given = options
        self.problems: list[Problem] = []

    def options(self) -> ModbusOptions:
        """The device's own addresses."""
        given = self._given
        moved: dict[str, object] = {
            name: self._place(f"adapter.{name}.at", place)
            for name, place in (("magic", given.magic), ("version", given.version), ("heartbeat", given.heartbeat))
            if place is not None
        }
        writable = tuple(self._range(f"adapter.writable.{index}", part) for index, part in enumerate(given.writable))
        return given.model_copy(update={**moved, "writable": writable})

    def selection(self, given: Selection) -> Selection:
        """A flow's addresses."""
        path = f"flows.{given.flow}"
        assert isinstance(given.records, ModbusRecords)
        submit = given.submit
        if isinstance(submit, RequestSubmit):
            moved = {name: self._place(f"{path}.submit.{name}", place) for name, place in submit.places}
            submit = submit.model_copy(update=moved)
        return replace(
            given,
            records=self._records(f"{path}.records.each", given.records),
            submit=submit,
            outcome=self._outcome(f"{path}.outcome", given.outcome),
        )

    def word(self, given: ModbusWord) -> Span:
        """The register of the alarm word."""
        at, table = self._at("alarms.word.register", given.register_, None)
        if table is not Table.HOLDING:
            self._wrong("alarms.word.register", f"is {Span(at, 1, table)}; the word needs a holding register")
        return Span(at, 1)

    def _records(self, path: str, records: ModbusRecords) -> ModbusRecords:
        each = records.each
        base, table = self._at(f"{path}.base", each.base, each.table)
        count = each.count
        if isinstance(count, CountFrom):
            source, held = self._at(f"{path}.count.from", count.source, count.table)
            count = count.model_copy(update={"source": source, "table": held})
        return records.model_copy(
            update={"each": each.model_copy(update={"base": base, "table": table, "count": count})}
        )

    def _outcome(self, path: str, outcome: Options) -> ModbusOutcome:
        assert isinstance(outcome, ModbusOutcome)
        moved: dict[str, object] = {}
        if outcome.each is not None:
            base, table = self._at(f"{path}.each.base", outcome.each.base, outcome.each.table)
            moved["each"] = outcome.each.model_copy(update={"base": base, "table": table})
        for name, field in ModbusOutcome.model_fields.items():
            target = getattr(outcome, name)
            if isinstance(target, OutcomeTarget) and target.fixed:
                at, table = self._at(f"{path}.{field.alias or name}.at", target.at, target.table)
                moved[name] = target.model_copy(update={"at": at, "table": table})
        return outcome.model_copy(update=moved)

    def _range(self, path: str, given: Registers) -> Registers:
        first, table = self._at(path, given.first, given.table)
        last = first + given.last - given.first
        if last + given.every * (given.count - 1) > LAST_REGISTER:
            self._wrong(path, f"runs past address {LAST_REGISTER} of the table")
        if not table.writable:
            self._wrong(path, f"is {Span(first, last - first + 1, table)}, which Modbus cannot write")
        return given.model_copy(update={"first": first, "last": last, "table": table})

    def _place(self, path: str, given: Located) -> Located:
        at, table = self._at(path, given.at, given.table)
        return given.model_copy(update={"at": at, "table": table})

    def _at(self, path: str, at: int, table: Table | None) -> tuple[int, Table]:
        try:
            return located(self._base, at, table)
        except ValueError as error:
            self._wrong(path, str(error))
            return 0, table or Table.HOLDING

    def _wrong(self, path: str, text: str) -> None:
        self.problems.append(Problem(path=path, text=text))


def span_of(place: Place) -> Span:
    """The one address of a place that is on the wire already."""
    return Span(place.at, 1, place.table or Table.HOLDING)


def header(submit: RequestSubmit) -> tuple[Span | None, ...]:
    """The addresses of one handshake."""
    places = (submit.request, submit.sequence, submit.status, submit.error)
    return tuple(None if place is None else span_of(place) for place in places)


def count_place(count: CountFrom) -> Span:
    """The register that says how many records there are."""
    return Span(count.source, 1, count.table or Table.HOLDING)
