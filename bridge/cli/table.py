"""CSV files that people write: comma or semicolon, with or without a byte order mark; every problem at once, with its line and column."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.errors import ConfigError, Problem

MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: its number in the file, and its cells by column name, without surrounding blanks."""

    number: int
    cells: Mapping[str, str]


def read_table(path: Path, *, required: Sequence[str], optional: Sequence[str] = ()) -> list[Line]:
    """The lines of a table whose first line names the columns, in any order.

    Raises `ConfigError` when the file cannot be read, a column is missing, unknown or named twice, or a line has more cells than columns.
    """
    text = _text(path)
    first = text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",", strict=True
    )
    problems: list[Problem] = []
    lines: list[Line] = []
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        problems += _header(path, header, required, optional)
        if problems:
            raise ConfigError(problems)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                text_ = f"holds {len(cells)} cells for {len(header)} columns; put text that holds the separator into double quotes"
                problems.append(_problem(path, reader.line_num, text_))
                continue
            padded = [*cells, *[""] * (len(header) - len(cells))]
            lines.append(Line(reader.line_num, {name: cell.strip() for name, cell in zip(header, padded, strict=True)}))
    except csv.Error as error:
        problems.append(_problem(path, reader.line_num, f"is not CSV: {error}"))
    if problems:
        raise ConfigError(problems)
    return lines


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError([_problem(path, 0, f"is larger than {MOST_BYTES // 1024 // 1024} MB")])
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([_problem(path, 0, f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        text = f"is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise ConfigError([_problem(path, 0, text)]) from error


def _header(path: Path, header: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> list[Problem]:
    known = [*required, *optional]
    problems = [
        _problem(path, 1, f"the column {name} is missing; the first line names the columns: {', '.join(known)}")
        for name in required
        if name not in header
    ]
    problems += [
        _problem(path, 1, f"there is no column {name}; known are {', '.join(known)}")
        for name in dict.fromkeys(header)
        if name not in known
    ]
    problems += [_problem(path, 1, f"the column {name} is named twice") for name in known if header.count(name) > 1]
    return problems


def _problem(path: Path, line: int, text: str) -> Problem:
    return Problem(text=text, file=str(path), line=line)
