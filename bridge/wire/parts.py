"""Places compiled into closures: reading a value out of a message, and writing it into one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

from bridge.profile import Place, PlaceKind
from bridge.wire.values import Rendered


@dataclass(frozen=True, slots=True)
class Parts:
    """A message as it is read: HTTP headers with lower-case names, the parsed body, the verified protected header."""

    headers: Mapping[str, str]
    body: object
    protected: Mapping[str, object]


@dataclass(slots=True)
class Draft:
    """A message as it is written."""

    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    protected: dict[str, object] = field(default_factory=dict)


def finished(draft: Draft) -> Rendered:
    """The draft as bytes; a message that has nothing to say in its body is an empty object."""
    body = {} if draft.body is None else draft.body
    return Rendered(body=orjson.dumps(body), headers=draft.headers, protected=draft.protected)


Read: TypeAlias = Callable[[Parts], Any]
Write: TypeAlias = Callable[[Draft, Any], None]
Path: TypeAlias = tuple[str, ...]

_LAST_INDEX: Final = 1000


def follow(node: Any, path: Path) -> Any:
    """The value that a pointer leads to; None when it leads nowhere."""
    for part in path:
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and part.isascii() and part.isdigit() and int(part[:9]) < len(node):
            node = node[int(part)]
        else:
            return None
    return node


def plant(node: Any, path: Path, value: Any) -> Any:
    """Put a value where the pointer leads, making objects on the way (lists where a segment is a number); returns the new root."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if head.isascii() and head.isdigit() and not isinstance(node, dict):
        entries = node if isinstance(node, list) else []
        index = min(int(head[:9]), _LAST_INDEX)
        entries.extend([None] * (index + 1 - len(entries)))
        entries[index] = plant(entries[index], rest, value)
        return entries
    members = node if isinstance(node, dict) else {}
    members[head] = plant(members.get(head), rest, value)
    return members


def reader(places: Place | Sequence[Place]) -> Read:
    """Reads the first of these places that holds something; None when none does."""
    reads = [_read(place) for place in ([places] if isinstance(places, Place) else places)]
    if len(reads) == 1:
        return reads[0]

    def read(parts: Parts) -> Any:
        for one in reads:
            value = one(parts)
            if value is not None:
                return value
        return None

    return read


def _read(place: Place) -> Read:
    path, name = place.path, place.name
    if place.kind is PlaceKind.BODY:
        if len(path) == 1:
            only = path[0]
            return lambda parts: parts.body.get(only) if isinstance(parts.body, dict) else follow(parts.body, path)
        return lambda parts: follow(parts.body, path)
    if place.kind is PlaceKind.HEADER:
        lower = name.lower()
        return lambda parts: parts.headers.get(lower)
    if place.kind is PlaceKind.PROTECTED:
        return lambda parts: parts.protected.get(name)
    if place.kind is PlaceKind.CONST:
        return lambda _: name
    return lambda _: None


def writer(places: Place | Sequence[Place]) -> Write:
    """Writes into the first of these places that a message carries; does nothing where there is none. A value of None is not written."""
    listed = [places] if isinstance(places, Place) else places
    place = next((one for one in listed if one.present), None)
    return _nowhere if place is None else _write(place)


def _nowhere(_draft: Draft, _value: Any) -> None:
    return


def _write(place: Place) -> Write:
    path, name = place.path, place.name

    def into_body(draft: Draft, value: Any) -> None:
        if value is not None:
            draft.body = plant(draft.body, path, value)

    def into_member(draft: Draft, value: Any) -> None:
        """What nearly every place is: a member of the message itself."""
        if value is not None:
            if isinstance(draft.body, dict):
                draft.body[path[0]] = value
            else:
                draft.body = plant(draft.body, path, value)

    def into_header(draft: Draft, value: Any) -> None:
        if value is not None:
            draft.headers[name] = str(value)

    def into_protected(draft: Draft, value: Any) -> None:
        if value is not None:
            draft.protected[name] = value

    return {
        PlaceKind.BODY: into_member if len(path) == 1 else into_body,
        PlaceKind.HEADER: into_header,
        PlaceKind.PROTECTED: into_protected,
    }[place.kind]
