"""One session: watch the export, return what changed, keep the results file. The only file that touches the disk."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.api import (
    Address,
    Arrival,
    LinkError,
    OutcomeField,
    Quality,
    Reading,
    Record,
    Selection,
    SessionContext,
    Write,
    Written,
)
from smp_bridge_csv.codec import cell, reading, rows, table

Row = Mapping[str, str]


@asynccontextmanager
async def open_session(context: SessionContext) -> AsyncIterator["CsvSession"]:
    """Open: the export must be there, or this is a `LinkError` and the core tries again."""
    session = CsvSession(context)
    await session.look()
    yield session
    session.closed = True


class CsvSession:
    """See `bridge.api.Session`."""

    can_read = True

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._options = context.options
        self._flows: dict[str, Selection] = {selection.flow: selection for selection in context.selections}
        self._rows: list[dict[str, str]] = []
        self._seen: dict[tuple[str, str], Row] = {}
        self._due = context.clock.mono_ns()
        self._looked = 0
        context.intervals.agreed("poll", configured_s=self._options.poll)
        self.closed = False

    async def receive(self) -> Sequence[Arrival]:
        """Every row once after opening, then each that changed; looks on a schedule of the monotonic clock."""
        while True:
            arrivals = [Arrival(records=[record], ack=lambda _: None) for record in self._changed()]
            if arrivals:
                return arrivals
            self._due += int(self._options.poll * 1e9)
            await asyncio.sleep(max(0.0, (self._due - self._context.clock.mono_ns()) / 1e9))
            self._tell_spacing()
            await self.look()

    async def read(self, addresses: Sequence[Address]) -> Sequence[Reading]:
        """A field of the export, or a cell of the results."""
        await self.look()
        results = {flow: await self._results(selection) for flow, selection in self._flows.items()}
        return [self._read_one(address, results[address.flow]) for address in addresses]

    async def write(self, writes: Sequence[Write]) -> Sequence[Written]:
        """Rewrite the results file of each flow: temporary file, flush to disk, rename."""
        written = []
        for flow in {write.address.flow for write in writes}:
            selection = self._flows[flow]
            content = await self._results(selection)
            mine = [write for write in writes if write.address.flow == flow]
            known = {row.get(selection.records.each, "") for row in self._rows}
            for write in mine:
                column = _column(selection, write.address.name)
                if write.address.place not in known:
                    written.append(Written(address=write.address, error=f"there is no row {write.address.place}"))
                elif selection.outcome.file not in self._options.writable:
                    written.append(Written(address=write.address, error=f"{selection.outcome.file} is not writable"))
                else:
                    text = cell(write.value)
                    if column:
                        content.setdefault(write.address.place, {})[column] = text
                    written.append(Written(address=write.address, value=text))
            text = table(_columns(selection), content, self._options.delimiter)
            await _in_thread(_replace, selection.outcome.file, text)
        order = {write.address: number for number, write in enumerate(writes)}
        return sorted(written, key=lambda entry: order[entry.address])

    async def look(self) -> None:
        """Read the export once."""
        text = await _in_thread(Path.read_text, self._options.file, "utf-8")
        self._rows = rows(text, self._options.delimiter)
        self._context.heard()

    def _tell_spacing(self) -> None:
        now = self._context.clock.mono_ns()
        if self._looked:
            self._context.intervals.achieved("poll", (now - self._looked) / 1e9)
        self._looked = now

    def _changed(self) -> list[Record]:
        records = []
        for flow, selection in self._flows.items():
            for row in self._rows:
                place = (row.get(selection.records.each) or "").strip()
                if place and self._seen.get((flow, place)) != row:
                    self._seen[flow, place] = row
                    records.append(self._record(selection, place, row))
        return records

    def _record(self, selection: Selection, place: str, row: Row) -> Record:
        return Record(
            flow=selection.flow,
            place=place,
            fields={name: reading(row, column) for name, column in selection.records.fields.items()},
            received=self._context.clock.now(),
        )

    def _read_one(self, address: Address, results: Mapping[str, Row]) -> Reading:
        selection = self._flows[address.flow]
        if isinstance(address.name, OutcomeField):
            column = _column(selection, address.name)
            return Reading(value=results.get(address.place, {}).get(column or "", ""))
        for row in self._rows:
            if row.get(selection.records.each) == address.place:
                return reading(row, selection.records.fields[address.name])
        return Reading(value=None, quality=Quality.BAD, detail=f"there is no row {address.place}")

    async def _results(self, selection: Selection) -> dict[str, dict[str, str]]:
        file = selection.outcome.file
        text = await _in_thread(lambda: file.read_text("utf-8") if file.exists() else "")
        return {row.pop("place"): row for row in rows(text, self._options.delimiter)}


def _columns(selection: Selection) -> list[str]:
    outcome = selection.outcome
    return [column for column in (outcome.state, outcome.transaction_id, outcome.error_text) if column]


def _column(selection: Selection, name: object) -> str | None:
    outcome = selection.outcome
    return {
        OutcomeField.STATE: outcome.state,
        OutcomeField.TRANSACTION_ID: outcome.transaction_id,
        OutcomeField.ERROR_TEXT: outcome.error_text,
    }.get(name)


def _replace(file: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of it, whatever happens to the power."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(file)


async def _in_thread(call, *arguments):  # noqa: ANN001, ANN002, ANN202 - passes through whatever `call` takes and gives
    """Disk work off the event loop; an `OSError` is a lost link."""
    try:
        return await asyncio.to_thread(call, *arguments)
    except OSError as error:
        raise LinkError(f"{error.filename or 'the file'}: {error.strerror}") from error
