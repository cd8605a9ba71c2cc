"""CSV files that people hand to commands: read whole, with every problem of every line and the place of each."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.config.document import unknown
from bridge.config.kinds import WrongValue, to_text
from bridge.errors import ConfigError, Problem

_SEPARATORS: Final = (";", ",")
_MOST_BYTES: Final = 64 * 1024 * 1024
# What spreadsheets take for a formula at the beginning of a cell, in ASCII and full width, behind blanks and behind the mark that says "text".
_FORMULA: Final = re.compile(r"[\s']*[=+\-@\uff0b\uff0d\uff1d\uff20]")
_TEXT_MARK: Final = "'"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: its number in the file and its cells by the header's names; a column that the file lacks is ''."""

    number: int
    cells: dict[str, str]


@dataclass(slots=True)
class Table:
    """What a file says, and what is wrong with it so far."""

    file: str
    lines: list[Line] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, line: int, column: str, text: str) -> None:
        """Add a problem of one cell, or of a line as a whole (`column` '')."""
        self.problems.append(Problem(text=text, path=column, file=self.file, line=line))

    def check(self, hint: str) -> None:
        """Raise `ConfigError` with all problems, in the order of the lines, if there are any."""
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda problem: problem.line), hint=hint)


def read_table(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Read a CSV file: UTF-8 with or without a byte order mark, comma or semicolon, the first line names the columns in any order.

    Cells that a line lacks at its end are empty. A quote in front of what a spreadsheet would take for a formula says that it is text, as `write_table` has it, and is left out. Names may be written with blanks, hyphens or capitals (`Asset ID` is `asset_id`). Cells are stripped and must be printable text.
    Raises `ConfigError` when there is no table to look at line by line.
    """
    table = Table(str(path))
    text = _text(path, table)
    separator = next((mark for mark in _SEPARATORS if mark in text.split("\n", 1)[0]), ",")
    rows = _rows(text, separator, table)
    _, header = next(rows, (1, []))
    names = [_name(cell) for cell in header]
    _check_header(table, names, required, optional)
    for number, cells in rows:
        if len(cells) > len(names):
            text = f"has {len(cells)} cells, the header names {len(names)}; text that holds the separator needs double quotes"
            table.wrong(number, "", text)
            continue
        found = {name: _cell(table, number, name, cell) for name, cell in zip(names, cells, strict=False)}
        table.lines.append(Line(number, {name: found.get(name, "") for name in (*required, *optional)}))
    return table


def write_table(path: Path, header: Sequence[str], rows: Iterator[Sequence[str]]) -> int:
    """Write a CSV file that `read_table` reads; other readers see it whole or not at all. Returns the number of rows. Raises `OSError`.

    A cell that a spreadsheet would work out as a formula (`=`, `+`, `-` or `@` in front) gets a quote before it, for other people wrote these texts.
    """
    temporary = path.with_name(f"{path.name}.part")
    made = 0
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow([_TEXT_MARK + cell if _FORMULA.match(cell) else cell for cell in row])
            made += 1
    temporary.replace(path)
    return made


def _text(path: Path, table: Table) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        table.wrong(0, "", f"cannot be read: {error.strerror}")
        table.check("Name a CSV file")
        raise
    if len(data) > _MOST_BYTES:
        table.wrong(0, "", f"has {len(data)} bytes, {_MOST_BYTES} may be; take it in parts")
        table.check("Nothing was done")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        table.wrong(data.count(b"\n", 0, error.start) + 1, "", "is not UTF-8; save the file as CSV UTF-8")
        table.check("Nothing was done")
        raise


def _rows(text: str, separator: str, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Lines with something in them, by the number of their first line in the file; a quote that never ends is the last problem."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    before = 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield before + 1, cells
            before = reader.line_num
    except csv.Error as error:
        table.wrong(before + 1, "", f"is not CSV ({error}); a quote inside a quoted cell is doubled")


def _check_header(table: Table, names: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> None:
    known = (*required, *optional)
    for name in dict.fromkeys(names):
        if name not in known:
            table.wrong(1, name, unknown(name, known, "column"))
        elif names.count(name) > 1:
            table.wrong(1, name, "stands twice in the header")
    for name in required:
        if name not in names:
            table.wrong(1, name, f"is missing in the header; the columns are {', '.join(known)}")
    table.check("Nothing was done: the first line names the columns")


def _name(cell: str) -> str:
    return "_".join(cell.strip().lower().replace("-", " ").replace("_", " ").split())


def _cell(table: Table, number: int, name: str, cell: str) -> str:
    try:
        text = to_text(cell)
        return text[1:] if text.startswith(_TEXT_MARK) and _FORMULA.match(text) else text
    except WrongValue as error:
        table.wrong(number, name, error.text)
        return ""
