"""The vocabulary of one kind of item as the payload needs it: the type of each field, the lists, the key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.model import Kind
from bridge.vocabulary import FieldSpec, Vocabulary

_REFERENCE: Final = "reference"
_MEMBER: Final = "aligned_reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """`kinds` are the types by field name; `lists` the fields that hold objects, with the words of these; `reference` is the name of the key.

    `required` and `choices` (the fixed words of a field) come from the JSON Schema of the participant's profile.
    """

    reference: str
    kinds: Mapping[str, str]
    lists: Mapping[str, "Words"] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    choices: Mapping[str, tuple[object, ...]] = field(default_factory=dict)


def words_of(vocabulary: Vocabulary, kind: Kind, schema: Mapping[str, Any] | None = None) -> Words:
    """The words of one kind of item; without a schema nothing but the key is required."""
    specs = vocabulary.fields(kind)
    reference = vocabulary.field(kind, _REFERENCE)
    lists = {
        name: Words(reference=vocabulary.field(kind, _MEMBER), kinds=_kinds(spec.item))
        for name, spec in specs.items()
        if spec.item
    }
    schema = schema or {}
    required = (reference, *(name for name in schema.get("required", ()) if name in specs and name != reference))
    choices = {
        name: tuple(part["enum"])
        for name, part in schema.get("properties", {}).items()
        if isinstance(part, Mapping) and "enum" in part
    }
    return Words(reference=reference, kinds=_kinds(specs), lists=lists, required=required, choices=choices)


def _kinds(specs: Mapping[str, FieldSpec]) -> dict[str, str]:
    return {name: spec.type.value for name, spec in specs.items()}
