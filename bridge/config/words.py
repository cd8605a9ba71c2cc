"""The vocabulary of one kind of item as the payload needs it: the type of each field, the lists, the key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.model import Kind
from bridge.vocabulary import FieldSpec, Vocabulary

_REFERENCE: Final = "reference"
_ALIGNED: Final = "aligned"
_MEMBER: Final = "aligned_reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """`kinds` are the types by field name; `lists` the fields that hold objects, with the words of these; `reference` is the name of the key."""

    reference: str
    kinds: Mapping[str, str]
    lists: Mapping[str, "Words"] = field(default_factory=dict)
    required: tuple[str, ...] = ()


def words_of(vocabulary: Vocabulary, kind: Kind) -> Words:
    """The words of one kind of item."""
    specs = vocabulary.fields(kind)
    lists = {
        name: Words(reference=_name(spec.item, _MEMBER), kinds=_kinds(spec.item))
        for name, spec in specs.items()
        if spec.item
    }
    return Words(reference=_name(specs, _REFERENCE), kinds=_kinds(specs), lists=lists)


def _kinds(specs: Mapping[str, FieldSpec]) -> dict[str, str]:
    return {name: spec.type.value for name, spec in specs.items()}


def _name(specs: Mapping[str, FieldSpec], role: str) -> str:
    return next(name for name, spec in specs.items() if spec.role == role)
