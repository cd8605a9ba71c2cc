"""The host's own field names as data (`vocabulary.yaml`). Code asks for a role and gets a name."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bridge import yaml12
from bridge.errors import ConfigError, Problem
from bridge.identifiers import RULES, Severity
from bridge.model import Kind

_FILE: Final = "vocabulary.yaml"


class ValueType(enum.Enum):
    """What a field holds, in the host's own words; an instant is UTC text such as `2026-11-23T10:00:00.000Z`."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    ENUM = "enum"
    LIST = "list"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_rule(name: str) -> str:
    if name not in RULES:
        raise ValueError(f"is no identifier rule; there are {', '.join(RULES)}")
    return name


class Condition(_Part):
    """Holds when the field of this role has one of these words."""

    role: str
    words: Annotated[tuple[str, ...], Field(alias="is", min_length=1)]


class FieldSpec(_Part):
    """One field: its role for code, its type, and the rules that bind to it. `item` describes the members of a list of objects, and is empty otherwise."""

    role: str
    type: ValueType
    rule: Annotated[str, AfterValidator(_known_rule)] | None = None
    severity: Severity = Severity.ERROR
    any_of: str | None = None
    required_when: Condition | None = None
    usual: tuple[float, ...] = ()
    personal: bool = False
    item: Annotated[Mapping[str, "FieldSpec"], Field(default_factory=dict)]


class _Document(_Part):
    version: str
    checks: Mapping[str, Severity]
    asset: Mapping[str, FieldSpec]
    unit: Mapping[str, FieldSpec]


@dataclass(frozen=True)
class Vocabulary:
    """All fields by kind. Names are dotted where an item nests (`controlContact.name`)."""

    document: _Document

    @property
    def version(self) -> str:
        """The version of the vocabulary."""
        return self.document.version

    def fields(self, kind: Kind) -> Mapping[str, FieldSpec]:
        """Every field of this kind by its dotted name, in the order of the file; the members of a list stand in its `item`."""
        return self.document.asset if kind is Kind.ASSET else self.document.unit

    def field(self, kind: Kind, role: str) -> str:
        """The dotted name of the field with this role; for the members of a unit's aligned list, the name inside one entry."""
        return self._roles[kind][role]

    def find(self, kind: Kind, role: str) -> str | None:
        """As `field`, or None where no field has this role."""
        return self._roles[kind].get(role)

    @cached_property
    def severities(self) -> Mapping[str, Severity]:
        """Every rule a flow may set under `severities:`, with its default: identifier rules (the mildest of their fields) and checks across fields."""
        found: dict[str, Severity] = dict.fromkeys(RULES, Severity.ERROR)
        for kind in Kind:
            for spec in _all_specs(self.fields(kind)):
                if spec.rule is not None and spec.severity is not Severity.ERROR:
                    found[spec.rule] = spec.severity
        return {**found, **self.document.checks}

    @cached_property
    def _roles(self) -> Mapping[Kind, Mapping[str, str]]:
        return {kind: _by_role(self.fields(kind)) for kind in Kind}


@cache
def load_vocabulary() -> Vocabulary:
    """Read the shipped vocabulary, once in a process. Raises `ConfigError` with every problem in it."""
    text = (files("bridge") / _FILE).read_text(encoding="utf-8")
    return parse_vocabulary(yaml12.load(text))


def parse_vocabulary(content: Any) -> Vocabulary:
    """A vocabulary from its parsed file."""
    try:
        document = _Document.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            Problem(text=found["msg"], path=".".join(str(part) for part in found["loc"]), file=_FILE)
            for found in error.errors(include_input=False, include_url=False)
        ) from None
    vocabulary = Vocabulary(document)
    problems = [problem for kind in Kind for problem in _check(kind, vocabulary.fields(kind))]
    if problems:
        raise ConfigError(problems)
    return vocabulary


def _check(kind: Kind, fields: Mapping[str, FieldSpec]) -> list[Problem]:
    """Roles are unique in a kind, and conditions name one of them."""
    roles = [spec.role for spec in _all_specs(fields)]
    texts = [f"the role {role} is given twice" for role in sorted({role for role in roles if roles.count(role) > 1})]
    texts += [
        f"{name}: required_when names the role {spec.required_when.role}, which no field has"
        for name, spec in fields.items()
        if spec.required_when is not None and spec.required_when.role not in roles
    ]
    return [Problem(text=text, path=kind.value, file=_FILE) for text in texts]


def _all_specs(fields: Mapping[str, FieldSpec]) -> list[FieldSpec]:
    specs = list(fields.values())
    return specs + [inner for spec in specs for inner in spec.item.values()]


def _by_role(fields: Mapping[str, FieldSpec]) -> dict[str, str]:
    roles = {spec.role: name for name, spec in fields.items()}
    for spec in fields.values():
        roles.update({inner.role: name for name, inner in spec.item.items()})
    return roles
