"""Where a value stands in a message, one small language for both ways: `body:/a/pointer`, `header:Name`, `protected:name`, `const:value`, `absent`."""

import enum
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, GetCoreSchemaHandler, PlainSerializer
from pydantic_core import CoreSchema, core_schema

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_FORMS: Final = "must be body:/POINTER, header:NAME, protected:NAME, const:VALUE or absent"


class PlaceKind(enum.Enum):
    """The part of a message: the signed body, an HTTP header, the signature's protected header, a constant, or nowhere."""

    BODY = "body"
    HEADER = "header"
    PROTECTED = "protected"
    CONST = "const"
    ABSENT = "absent"


def split_pointer(text: str) -> tuple[str, ...]:
    """The segments of an RFC 6901 JSON pointer; raises `ValueError` for what is none."""
    if text == "":
        return ()
    if not text.startswith("/"):
        raise ValueError(f"the pointer {text!r} must be empty or begin with /")
    if re.search(r"~(?![01])", text):
        raise ValueError(f"the pointer {text!r} holds a ~ that is neither ~0 nor ~1")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))


def join_pointer(path: tuple[str, ...]) -> str:
    """The JSON pointer of these segments."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


@dataclass(frozen=True, slots=True)
class Place:
    """A parsed place. `path` are the segments of a `body` pointer; `name` a header, a protected member or a constant's value."""

    kind: PlaceKind
    path: tuple[str, ...] = ()
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read a place; raises `ValueError` with what would be right."""
        if text == PlaceKind.ABSENT.value:
            return cls(PlaceKind.ABSENT)
        word, colon, rest = text.partition(":")
        if not colon:
            raise ValueError(_FORMS)
        if word == PlaceKind.BODY.value:
            return cls(PlaceKind.BODY, path=split_pointer(rest))
        if word == PlaceKind.HEADER.value and _HEADER.fullmatch(rest):
            return cls(PlaceKind.HEADER, name=rest)
        if word == PlaceKind.PROTECTED.value and rest:
            return cls(PlaceKind.PROTECTED, name=rest)
        if word == PlaceKind.CONST.value:
            return cls(PlaceKind.CONST, name=rest)
        raise ValueError(_FORMS)

    @property
    def present(self) -> bool:
        """Whether a message carries the value at all."""
        return self.kind not in {PlaceKind.CONST, PlaceKind.ABSENT}

    @property
    def signed(self) -> bool:
        """Whether a signature over the message covers it; an HTTP header is never covered."""
        return self.kind is not PlaceKind.HEADER

    def __str__(self) -> str:
        if self.kind is PlaceKind.ABSENT:
            return str(self.kind.value)
        rest = join_pointer(self.path) if self.kind is PlaceKind.BODY else self.name
        return f"{self.kind.value}:{rest}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _to_place, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def _to_place(value: object) -> Place:
    if isinstance(value, Place):
        return value
    if not isinstance(value, str):
        raise ValueError(_FORMS)  # noqa: TRY004 - pydantic gathers ValueError
    return Place.parse(value)


def _to_path(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return tuple(str(part) for part in value)
    if not isinstance(value, str) or not value:
        raise ValueError("must be a JSON pointer such as /data/id")
    return split_pointer(value)


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


def _listed_paths(value: object) -> object:
    return tuple(_to_path(item) for item in (value if isinstance(value, list) else (value,)))


ABSENT: Final = Place(PlaceKind.ABSENT)

# A pointer inside a record, an error or a list entry, as its segments.
Pointer = Annotated[tuple[str, ...], BeforeValidator(_to_path), PlainSerializer(join_pointer, return_type=str)]

# Several spellings of one pointer: all are read in turn, the first is written.
Pointers = Annotated[
    tuple[tuple[str, ...], ...],
    BeforeValidator(_listed_paths),
    PlainSerializer(lambda paths: [join_pointer(path) for path in paths]),
]

# Several spellings of one place: all are read in turn, the first is written.
Places = Annotated[tuple[Place, ...], BeforeValidator(_listed)]
