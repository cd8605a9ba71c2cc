"""Error lists and lists of what was created, both ways, in whatever shape the profile says; reading takes what peers really send."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from bridge.profile import ErrorSeverity, Shape
from bridge.profile.model import Created, ErrorShape
from bridge.wire.parts import Path, follow, plant
from bridge.wire.scalars import read_integer, read_text, word_reader, word_writer
from bridge.wire.values import ItemError

Pairs: TypeAlias = tuple[tuple[str, str], ...]
Pick: TypeAlias = Callable[[Any], Any]


def pick(paths: Sequence[Path]) -> Pick:
    """Reads the first of these pointers that leads to something."""

    def read(node: Any) -> Any:
        for path in paths:
            value = follow(node, path)
            if value is not None:
                return value
        return None

    return read


def _put(node: dict[str, Any], paths: Sequence[Path], value: Any) -> None:
    if paths and value not in (None, ""):
        plant(node, paths[0], value)


class ErrorCodec:
    """Error entries of one profile."""

    def __init__(self, shape: ErrorShape, *, longest: int) -> None:
        self._shape = shape
        self._longest = longest
        self._severity = word_reader(shape.severities)
        self._severity_word = word_writer(shape.severities)
        self._code, self._message = pick(shape.code), pick(shape.message)
        self._level, self._index = pick(shape.severity), pick(shape.index)
        self._reference, self._field, self._value = pick(shape.reference), pick(shape.field), pick(shape.value)

    def read(self, found: Any) -> tuple[ItemError, ...]:
        """Entries of a list or a map; bare strings are messages, one entry alone is a list of one."""
        if found is None:
            return ()
        if isinstance(found, dict):
            if self._shape.shape is Shape.MAP:
                return tuple(self._of_map(found))
            return (self._entry(found),)
        entries = found if isinstance(found, list) else [found]
        return tuple(self._entry(entry) for entry in entries if entry is not None)

    def _of_map(self, found: dict[str, Any]) -> Iterable[ItemError]:
        for key, entries in found.items():
            reference = "" if key == self._shape.unnamed else key
            for entry in entries if isinstance(entries, list) else [entries]:
                yield self._entry(entry, reference=reference)

    def _entry(self, entry: Any, *, reference: str | None = None) -> ItemError:
        if not isinstance(entry, dict):
            return ItemError(message=read_text(entry)[: self._longest], reference=reference or "")
        index = read_integer(self._index(entry))
        return ItemError(
            code=read_text(self._code(entry))[: self._longest],
            message=read_text(self._message(entry))[: self._longest],
            warning=self._severity(self._level(entry)) is ErrorSeverity.WARNING,
            index=None if index is None else index - self._shape.first_index,
            reference=read_text(self._reference(entry)) if reference is None else reference,
            field=read_text(self._field(entry))[: self._longest],
            value=self._value(entry),
        )

    def write(self, errors: Sequence[ItemError]) -> Any:
        """Entries in the profile's shape."""
        if self._shape.shape is Shape.LIST:
            return [self._written(error) for error in errors]
        made: dict[str, list[dict[str, Any]]] = {}
        for error in errors:
            made.setdefault(error.reference or self._shape.unnamed, []).append(self._written(error))
        return made

    def _written(self, error: ItemError) -> dict[str, Any]:
        shape, entry = self._shape, dict[str, Any]()
        severity = ErrorSeverity.WARNING if error.warning else ErrorSeverity.ERROR
        _put(entry, shape.code, error.code)
        _put(entry, shape.message, error.message)
        _put(entry, shape.severity, self._severity_word(severity))
        _put(entry, shape.index, None if error.index is None else error.index + shape.first_index)
        _put(entry, shape.field, error.field)
        _put(entry, shape.value, error.value)
        if shape.shape is Shape.LIST:
            _put(entry, shape.reference, error.reference)
        return entry


class CreatedCodec:
    """Entries of what was created: pairs of our reference and the platform's id."""

    def __init__(self, shape: Created) -> None:
        self._shape = shape
        self._reference, self._id = pick(shape.reference), pick(shape.id)

    def read(self, found: Any) -> Pairs:
        """Entries of a list or a map; a bare string is a reference without an id."""
        if isinstance(found, dict):
            if self._shape.shape is Shape.MAP:
                return tuple((key, read_text(value)) for key, value in found.items())
            found = [found]
        if not isinstance(found, list):
            return ()
        pairs = (self._pair(entry) for entry in found)
        return tuple(pair for pair in pairs if pair[0])

    def _pair(self, entry: Any) -> tuple[str, str]:
        if isinstance(entry, dict):
            return read_text(self._reference(entry)), read_text(self._id(entry))
        return read_text(entry), ""

    def write(self, created: Pairs) -> Any:
        """Pairs in the profile's shape."""
        if self._shape.shape is Shape.MAP:
            return dict(created)
        entries = []
        for reference, identity in created:
            entry: dict[str, Any] = {}
            _put(entry, self._shape.reference, reference)
            _put(entry, self._shape.id, identity)
            entries.append(entry)
        return entries
