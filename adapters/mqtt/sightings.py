"""What was heard on a broker, topic by topic, and what its payloads seem to be. Pure, and bounded in all that it keeps."""

import csv
import enum
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.mqtt.codec import Unreadable, parse, text_of

MOST_FIELDS: Final = 100  # of one topic
_LEVELS: Final = 4  # of members inside members
_EXAMINED: Final = 3  # payloads of one topic; the rest is counted only
_LONGEST_VALUE: Final = 200
_DELIMITERS: Final = ";,\t|"
_LEAST_CELLS: Final = 2
_LEAST_BARE_CELLS: Final = 3  # of a row that comes without the columns' names: text with one comma is a sentence
_SPECIAL: Final = frozenset("[]*|(){}&@`'\"?=<>!,.$ ")


class Kind(enum.Enum):
    """What a payload seems to be."""

    EMPTY = "empty"
    JSON = "JSON"
    JSON_OTHER = "JSON, no object"
    CSV = "CSV"
    CSV_BARE = "CSV without names"
    CSV_LONG = "CSV of several rows"
    PLAIN = "plain"
    BINARY = "binary"
    TOO_LONG = "beyond max_payload"


@dataclass(frozen=True, slots=True)
class Guess:
    """A payload's kind, the values in it by where they are (as a site file spells it), and what separates the cells of CSV."""

    kind: Kind
    values: Mapping[str, object] = field(default_factory=dict)
    delimiter: str = ""


@dataclass(slots=True)
class Sighting:
    """One topic. `size` is the last payload's, in bytes."""

    topic: str
    count: int = 0
    retained: bool = False
    size: int = 0
    kind: Kind = Kind.EMPTY
    values: dict[str, object] = field(default_factory=dict)
    delimiter: str = ""
    examined: int = 0

    def take(self, payload: bytes, limit: int) -> None:
        """One more message. The first few that are not empty are looked into."""
        if not payload or self.examined >= _EXAMINED:
            return
        self.examined += 1
        guess = guessed(payload, limit)
        self.kind, self.delimiter = guess.kind, guess.delimiter
        for name, value in guess.values.items():
            if name in self.values or len(self.values) < MOST_FIELDS:
                self.values[name] = value


class Sightings:
    """All topics, at most `most` of them. `most_bytes` bounds what is taken in as a whole; `full` says that it was."""

    def __init__(self, most: int, most_bytes: int, limit: int) -> None:
        self._most, self._most_bytes, self._limit = most, most_bytes, limit
        self.topics: dict[str, Sighting] = {}
        self.messages = 0
        self.size = 0
        self.beyond = 0
        """Messages on topics of which there was no room to keep anything."""
        self.unnamed = 0
        """Messages whose topic cannot be read."""

    @property
    def full(self) -> bool:
        """Whether enough was taken in."""
        return self.size >= self._most_bytes

    def take(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """One message."""
        if self.full:
            return
        self.messages += 1
        self.size += len(payload)
        if not topic:
            self.unnamed += 1
            return
        found = self.topics.get(topic)
        if found is None:
            if len(self.topics) >= self._most:
                self.beyond += 1
                return
            found = self.topics[topic] = Sighting(topic)
        found.count += 1
        found.retained = found.retained or retained
        found.size = len(payload)
        found.take(payload, self._limit)


def guessed(payload: bytes, limit: int) -> Guess:
    """What a payload seems to be: what the adapter can read as such comes first."""
    if len(payload) > limit:
        return Guess(Kind.TOO_LONG)
    try:
        return Guess(Kind.JSON, dict(_members(parse(payload, limit))))
    except Unreadable:
        pass
    try:
        text = text_of(payload, limit)
    except Unreadable:
        return Guess(Kind.BINARY)
    if any(not letter.isprintable() and letter not in "\t\r\n" for letter in text):
        return Guess(Kind.BINARY)
    if text.lstrip()[:1] in {"[", "{"} and _is_json(text):
        return Guess(Kind.JSON_OTHER)
    return _table(text) or Guess(Kind.PLAIN, {"": text.strip()[:_LONGEST_VALUE]})


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _members(body: Mapping[str, Any], before: str = "", levels: int = _LEVELS) -> Iterator[tuple[str, object]]:
    """Every member that holds a value or a list, by its path; members inside members one by one."""
    for name, value in body.items():
        path = f"{before}.{_spelled(name)}" if before else _spelled(name)
        if isinstance(value, dict) and levels > 1 and value:
            yield from _members(value, path, levels - 1)
        elif isinstance(value, list):
            yield path, tuple(item for item in value[:20] if not isinstance(item, list | dict))
        elif not isinstance(value, dict):
            yield path, value[:_LONGEST_VALUE] if isinstance(value, str) else value


def _spelled(name: str) -> str:
    """A member's name as a site file writes it; one with letters of JMESPath's own stands in quotes."""
    return name if name and _SPECIAL.isdisjoint(name) and name.isprintable() else json.dumps(name)


def _table(text: str) -> Guess | None:
    """CSV, when every line has as many cells as the first."""
    for delimiter in _DELIMITERS:
        if delimiter not in text:
            continue
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width < _LEAST_CELLS or any(len(row) != width for row in rows):
            continue
        names = [cell.strip() for cell in rows[0]]
        if len(rows) == 1:
            if width < _LEAST_BARE_CELLS:
                continue
            cells = {f"column_{number}": cell for number, cell in enumerate(rows[0][:MOST_FIELDS], 1)}
            return Guess(Kind.CSV_BARE, cells, delimiter)
        if len(set(names)) < width or not all(names):
            continue
        kind = Kind.CSV if len(rows) == 2 else Kind.CSV_LONG
        return Guess(kind, dict(zip(names[:MOST_FIELDS], rows[1], strict=False)), delimiter)
    return None
