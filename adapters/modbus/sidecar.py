"""The CSV file beside a register map: names and numbers that registers hold badly, joined on a number of the record (layout 3)."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adapters.modbus.config import Sidecar
from adapters.modbus.targets import Column
from bridge.api import Quality, Reading

_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True)
class Sheet:
    """What the file says, by what it is joined on; `problems` name the file and the line."""

    name: str
    on: str
    columns: Mapping[str, Column]
    rows: dict[str, dict[str, object]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def readings(self, joined: Reading) -> dict[str, Reading]:
        """The fields of the row that belongs to this value of `on`; BAD ones, with the reason, where there is none."""
        return {name: self.reading(name, joined) for name in self.columns}

    def reading(self, name: str, joined: Reading) -> Reading:
        """One of them."""
        if joined.quality is not Quality.GOOD or joined.value is None:
            return Reading(value=None, quality=Quality.BAD, detail=joined.detail or f"{self.on} is not there")
        row = self.rows.get(_join(joined.value))
        if row is None:
            text = f"{self.name} has no row for {self.on} {_join(joined.value)[:20]}"
            return Reading(value=None, quality=Quality.BAD, detail=text)
        value = row[name]
        return (
            Reading(value=value)
            if value is not None
            else Reading(value=None, detail=f"empty in {self.name}", absent=True)
        )


def read_sheet(sidecar: Sidecar, columns: Mapping[str, Column]) -> Sheet:
    """Read the whole file: UTF-8 with or without a byte order mark, the first line names the columns in any order. What is wrong is in `problems`; nothing is raised."""
    sheet = Sheet(sidecar.file.name, sidecar.on, columns)
    text = _text(sidecar.file, sheet)
    if sheet.problems:
        return sheet
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=sidecar.delimiter, strict=True)
    try:
        names = [cell.strip() for cell in next(lines, [])]
        if not _header(sidecar, names, sheet):
            return sheet
        seen: dict[str, int] = {}
        for cells in lines:
            if any(cell.strip() for cell in cells) and len(sheet.problems) < _MOST_PROBLEMS:
                _row(
                    sidecar, sheet, seen, lines.line_num, dict(zip(names, cells, strict=False)), len(cells) - len(names)
                )
    except csv.Error as error:
        sheet.problems.append(f"{sheet.name}:{lines.line_num}: is no CSV: {error}")
    return sheet


def _text(file: Path, sheet: Sheet) -> str:
    try:
        with file.open("rb") as source:
            raw = source.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            sheet.problems.append(f"{sheet.name} is larger than {_MOST_BYTES >> 20} MB")
            return ""
        return raw.decode("utf-8-sig")
    except OSError as error:
        sheet.problems.append(f"{sheet.name} cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        sheet.problems.append(f"{sheet.name}:{line}: is not UTF-8; save the file as CSV UTF-8")
    return ""


def _header(sidecar: Sidecar, names: list[str], sheet: Sheet) -> bool:
    wanted = [sidecar.joined, *(column.csv for column in sheet.columns.values())]
    lacking = [name for name in dict.fromkeys(wanted) if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if lacking:
        hint = "" if len(names) > 1 else f"; is {sidecar.delimiter!r} the delimiter?"
        there = ", ".join(names) or "nothing"
        sheet.problems.append(f"{sheet.name}:1: lacks the column {', '.join(lacking)}; it names {there}{hint}")
    if twice:
        sheet.problems.append(f"{sheet.name}:1: names {', '.join(twice)} twice")
    return not sheet.problems


def _row(
    sidecar: Sidecar, sheet: Sheet, seen: dict[str, int], line: int, cells: Mapping[str, str], surplus: int
) -> None:
    where = f"{sheet.name}:{line}"
    if surplus:
        much = f"{abs(surplus)} cell{'' if abs(surplus) == 1 else 's'} too {'many' if surplus > 0 else 'few'}"
        sheet.problems.append(f"{where}: has {much}; text that holds {sidecar.delimiter!r} needs double quotes")
        return
    key = _join(cells[sidecar.joined])
    if not key:
        sheet.problems.append(f"{where}: {sidecar.joined} is empty; every row needs it")
    elif key in seen:
        sheet.problems.append(f"{where}: {sidecar.joined} {key[:20]} stands in line {seen[key]} already")
    else:
        seen[key] = line
        sheet.rows[key] = {
            name: _cell(sidecar, sheet, f"{where}: {column.csv}", column, cells[column.csv].strip())
            for name, column in sheet.columns.items()
        }


def _cell(sidecar: Sidecar, sheet: Sheet, where: str, column: Column, text: str) -> object:
    if not text:
        return None
    if not column.number:
        return text
    mark = re.escape(sidecar.decimal)
    if not re.fullmatch(rf"[+-]?\d+({mark}\d+)?", text, re.ASCII):
        sheet.problems.append(f"{where} is {text[:20]!r}; it must be a number such as 49{sidecar.decimal}5")
        return None
    plain = text.replace(sidecar.decimal, ".")
    return float(plain) if "." in plain else int(plain)


def _join(value: object) -> str:
    """What a number or text is joined by: 7, 7.0, `7` and `007` are one asset."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return str(int(text)) if text.isascii() and text.isdecimal() else text
