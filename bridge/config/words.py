"""The vocabulary of one kind of item as the payload needs it: the type of each field, the lists, the key."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.model import Kind
from bridge.vocabulary import FieldSpec, Vocabulary

_REFERENCE: Final = "reference"
_MEMBER: Final = "aligned_reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """`kinds` are the types by field name; `lists` the fields that hold objects, with the words of these; `reference` is the name of the key."""

    reference: str
    kinds: Mapping[str, str]
    lists: Mapping[str, "Words"] = field(default_factory=dict)
    required: tuple[str, ...] = ()


def words_of(vocabulary: Vocabulary, kind: Kind, required: Collection[str] = ()) -> Words:
    """The words of one kind of item; `required` are the names that its schema asks for."""
    specs = vocabulary.fields(kind)
    reference = vocabulary.field(kind, _REFERENCE)
    lists = {
        name: Words(reference=vocabulary.field(kind, _MEMBER), kinds=_kinds(spec.item))
        for name, spec in specs.items()
        if spec.item
    }
    needed = (reference, *(name for name in required if name in specs and name != reference))
    return Words(reference=reference, kinds=_kinds(specs), lists=lists, required=needed)


def _kinds(specs: Mapping[str, FieldSpec]) -> dict[str, str]:
    return {name: spec.type.value for name, spec in specs.items()}
