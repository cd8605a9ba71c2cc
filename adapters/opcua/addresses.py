"""Addresses of a flow as a site writes them: browse paths below `each`, node ids with a `{place}` in them, and methods. Pure."""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from adapters.opcua.paths import ROOT, BrowsePath, absolute, relative

PLACE: Final = "{place}"
PLACE_ARGUMENT: Final = "$place"
_NODE_ID: Final = re.compile(r"(?:ns=([^;]*);)?([isgb])=(.+)", re.DOTALL)
_CALL: Final = re.compile(rf"({ROOT}/.+)\(([^()]*)\)")
_FORM: Final = "must be a node id such as ns=ems;s=Assets/{place}/Name, where ems is a name of `namespaces:`"


def _number(text: str) -> int:
    if (number := int(text)) < 2**32:
        return number
    raise ValueError(text)


# By the letter of the kind: what must stand there, its form, and the identifier that it becomes.
_IDENTIFIERS: Final[Mapping[str, tuple[str, re.Pattern[str], Callable[[str], int | str | UUID | bytes]]]] = {
    "i": ("a number below 2^32", re.compile(r"[0-9]{1,10}"), _number),
    "s": ("a text", re.compile(r".+", re.DOTALL), str),
    "g": ("a GUID", re.compile(r"[0-9A-Fa-f-]{36}"), UUID),
    "b": ("base64", re.compile(r"[A-Za-z0-9+/=]+"), b64decode),
}


@dataclass(frozen=True, slots=True)
class NodeIdText:
    """A node id whose namespace is a name of the adapter's `namespaces`, '' for namespace 0; `{place}` stands for each of a flow's places."""

    prefix: str
    kind: str
    identifier: str

    @property
    def prefixes(self) -> frozenset[str]:
        """The namespace's name, if it has one."""
        return frozenset({self.prefix} if self.prefix else ())

    @property
    def has_place(self) -> bool:
        """Whether it differs from place to place."""
        return PLACE in self.identifier

    def at(self, place: str) -> "NodeIdText":
        """The node of this place."""
        return replace(self, identifier=self.identifier.replace(PLACE, place))

    def covers(self, other: object) -> bool:
        """Whether `other` is this node, or one that a glob in a text identifier matches."""
        if not isinstance(other, NodeIdText) or (self.prefix, self.kind) != (other.prefix, other.kind):
            return False
        if self.identifier == other.identifier:
            return True
        return self.kind == "s" and fnmatchcase(other.identifier, self.identifier)

    def value(self) -> int | str | UUID | bytes:
        """The identifier itself. Raises `ValueError` in words for an operator."""
        wanted, form, convert = _IDENTIFIERS[self.kind]
        try:
            if form.fullmatch(self.identifier):
                return convert(self.identifier)
        except ValueError:
            pass
        raise ValueError(f"behind {self.kind}= must stand {wanted}, not {self.identifier}")

    def __str__(self) -> str:
        return f"{f'ns={self.prefix};' if self.prefix else ''}{self.kind}={self.identifier}"


Address: TypeAlias = BrowsePath | NodeIdText


def is_node_id(text: str) -> bool:
    """Whether a text has the form of a node id."""
    return _NODE_ID.fullmatch(text) is not None


def node_id(text: str) -> NodeIdText:
    """A node id as a site writes it. Raises `ValueError` in words for an operator."""
    match = _NODE_ID.fullmatch(text)
    if match is None or match[1] == "":
        raise ValueError(_FORM)
    if match[1] and match[1].isdigit():
        raise ValueError(
            "names its namespace by a number, which a server may give anew at each start; name it in `namespaces:` and write ns=NAME;…"
        )
    found = NodeIdText(match[1] or "", match[2], match[3])
    if not found.has_place:
        found.value()
    return found


def pattern(text: str) -> Address:
    """An entry of `writable:`: a path from Objects, or a node id. Raises `ValueError` in words for an operator."""
    return node_id(text) if is_node_id(text) else absolute(text)


class Tree(NamedTuple):
    """A flow whose records are found by browsing: addresses are paths below `each`."""

    each: BrowsePath

    def address(self, text: str) -> BrowsePath:
        """Raises `ValueError` in words for an operator."""
        return self.each.below(relative(text, self.each))

    def spread(self, address: Any) -> tuple[Any, ...]:
        """Every address that this one stands for; globs stand for themselves."""
        return (address,)


class Listed(NamedTuple):
    """A flow whose places are named in the site file: addresses are node ids with a `{place}` in them."""

    places: tuple[str, ...]

    def address(self, text: str) -> NodeIdText:
        """Raises `ValueError` in words for an operator."""
        found = node_id(text)
        for place in self.places:
            found.at(place).value()
        return found

    def spread(self, address: Any) -> tuple[Any, ...]:
        """Every address that this one stands for."""
        return tuple(address.at(place) for place in self.places)


Layout: TypeAlias = Tree | Listed


def layout_of(records: Any) -> Layout:
    """How the records of a flow are found."""
    return Listed(records.places) if records.each is None else Tree(absolute(records.each))


class Call(NamedTuple):
    """A method that numbers a request: `Objects/ems:EMS/ems:Register($place)`. An argument is `$place` or the name of a field."""

    path: BrowsePath
    arguments: tuple[str, ...]


def call(text: str) -> Call | None:
    """None where this is no call but an address. Raises `ValueError` in words for an operator."""
    match = _CALL.fullmatch(text)
    if match is None:
        return None
    path = absolute(match[1])
    if path.has_glob:
        raise ValueError("must name one method; * is only allowed in `each`, `writable` and `methods`")
    return Call(path, tuple(part.strip() for part in match[2].split(",") if part.strip()))
