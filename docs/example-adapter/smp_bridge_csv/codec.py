"""Rows to readings, and outcomes to cells. Pure."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from bridge.api import Code, Quality, Reading


def rows(text: str, delimiter: str) -> list[dict[str, str]]:
    """The rows by column name; a byte order mark is dropped."""
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), delimiter=delimiter))


def reading(row: Mapping[str, str | None], column: str) -> Reading:
    """One cell. A cell that is not there, or is empty, is a BAD reading: the core refuses the record, not the file."""
    value = row.get(column)
    if value is None or not value.strip():
        detail = "the column is missing" if column not in row else "the cell is empty"
        return Reading(value=None, quality=Quality.BAD, detail=f"{column}: {detail}")
    return Reading(value=value.strip())


def cell(value: object) -> str:
    """What a value of `bridge.api.OutcomeField` looks like in a file."""
    if isinstance(value, Code):
        return value.text
    if isinstance(value, tuple | list):
        return "; ".join(str(line) for line in value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**15:
        return datetime.fromtimestamp(value / 1e9, UTC).isoformat(timespec="milliseconds")
    return str(value)


def table(columns: Sequence[str], content: Mapping[str, Mapping[str, str]], delimiter: str) -> str:
    """The whole outcome file; the first column is the place."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=["place", *columns], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    for place in sorted(content):
        writer.writerow({"place": place, **content[place]})
    return text.getvalue()
