"""What a flow's payload says of every item, whatever the records hold: rules that no record could keep are a mistake of the site's file."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from bridge.config.document import Document
from bridge.config.kinds import CONVERTERS, WrongValue
from bridge.config.payload import Rule
from bridge.config.tree import Loc
from bridge.identifiers import RULES, Severity
from bridge.model import Kind
from bridge.vocabulary import FieldSpec, Vocabulary

STAND_IN: Final = "PLACEHOLDER"
"""A text that nobody has given yet, in a drafted file: it may stand in `check`, not in a run."""
_ANY_OF: Final = "any_of"
_REQUIRED_WHEN: Final = "required_when"


def check_always(
    document: Document,
    loc: Loc,
    payload: Mapping[str, Rule | None],
    vocabulary: Vocabulary,
    kind: Kind,
    severities: Mapping[str, object],
) -> None:
    """One field of each group is given, what a constant word asks for is given, and constants keep the rules of their identifiers.

    As far as these rules are errors, by default or by the flow's `severities`. A rule of the payload that could not be read is None, and counts as given.
    """
    fields = vocabulary.fields(kind)
    constants = {
        name: value
        for name, rule in payload.items()
        if name in fields and rule is not None and (value := _constant(rule, fields[name])) is not None
    }

    def is_error(name: str, default: Severity) -> bool:
        return str(severities.get(name, default.value)) == Severity.ERROR.value

    if is_error(_ANY_OF, vocabulary.severities[_ANY_OF]):
        for group in groups(fields):
            if payload and not any(name in payload for name in group):
                document.wrong(
                    loc, f"{_either(group)} must be given: every item without one of them would be refused", at_key=True
                )
    if is_error(_REQUIRED_WHEN, vocabulary.severities[_REQUIRED_WHEN]):
        for name, other, word in _asked_for(fields, vocabulary, kind, constants):
            if name not in payload:
                document.wrong(
                    loc,
                    f"`{name}` is missing; it is needed where {other} is {word}, which every item says",
                    at_key=True,
                )
    for name, value in constants.items():
        rule = fields[name].rule
        given = isinstance(value, str) and value != STAND_IN
        if rule is not None and given and is_error(rule, fields[name].severity):
            wrong = RULES[rule](str(value))
            if wrong is not None:
                inner = (*loc, name, "const")
                document.wrong(
                    inner if inner in document.tree.values else (*loc, name), f"{wrong}; every item would be refused"
                )


def _constant(rule: Rule, spec: FieldSpec) -> object:
    """What the rule makes of every record, None where that depends on the record or is wrong already."""
    if not rule.has_const or spec.item:
        return None
    try:
        return CONVERTERS[spec.type.value](rule.const)
    except WrongValue:
        return None


def groups(fields: Mapping[str, FieldSpec]) -> Collection[list[str]]:
    """The fields of which one has to be given, group by group."""
    found: dict[str, list[str]] = {}
    for name, spec in fields.items():
        if spec.any_of is not None:
            found.setdefault(spec.any_of, []).append(name)
    return found.values()


def asking(vocabulary: Vocabulary, kind: Kind, name: str) -> frozenset[str]:
    """The words of this field that ask for another field."""
    conditions = [spec.required_when for spec in vocabulary.fields(kind).values() if spec.required_when is not None]
    return frozenset(word for each in conditions if vocabulary.field(kind, each.role) == name for word in each.words)


def _asked_for(
    fields: Mapping[str, FieldSpec], vocabulary: Vocabulary, kind: Kind, constants: Mapping[str, object]
) -> Iterator[tuple[str, str, object]]:
    """Fields that a constant asks for: their names, that of the constant, and its word."""
    for name, spec in fields.items():
        if spec.required_when is not None:
            other = vocabulary.field(kind, spec.required_when.role)
            if constants.get(other) in spec.required_when.words:
                yield name, other, constants[other]


def _either(names: list[str]) -> str:
    *others, last = [f"`{name}`" for name in names]
    return f"{', '.join(others)} or {last}" if others else last
