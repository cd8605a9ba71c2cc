"""Whether an item may be sent: the profile's JSON Schema, the identifier rules, and the rules across fields. Pure; compiled once per flow."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import jsonschema_rs

from bridge.identifiers import RULES, Rule, Severity, group_of_mpan
from bridge.model import HostReason, Kind, Refusal
from bridge.profile import Profile
from bridge.vocabulary import FieldSpec, Vocabulary

Item: TypeAlias = Mapping[str, Any]
Get: TypeAlias = Callable[[Item], Any]
Found: TypeAlias = Sequence[tuple[str, str]]
Run: TypeAlias = Callable[[Item], Found]
"""One rule on one item: each field that is wrong, and what would be right."""

_MOST_FINDINGS: Final = 50
_LONGEST_LIST: Final = 25
_MOST_SHAPES: Final = 64  # sets of names whose rules are remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing wrong with an item. `reason` says what would be right and never holds the value, which may be a person's."""

    field: str
    reason: str
    severity: Severity
    code: HostReason

    @property
    def refusal(self) -> Refusal:
        """As the EMS is told."""
        return Refusal(reason=self.code, text=f"{self.field} {self.reason}")


class _Test(NamedTuple):
    """One rule. Of an item that lacks one of `needs` (by the first part of the name) it has nothing to say."""

    needs: tuple[str, ...]
    run: Run


class _Check(NamedTuple):
    """One rule with its severity."""

    severity: Severity
    code: HostReason
    test: _Test


class Validator:
    """All checks of one kind of item under one flow's severities."""

    def __init__(self, schema: Mapping[str, Any], checks: Sequence[_Check], members: "_Members | None") -> None:
        self._schema = jsonschema_rs.validator_for(dict(schema), validate_formats=True)
        self._checks = tuple(checks)
        self._members = members
        self._chosen: dict[tuple[str, ...], tuple[tuple[Run, _Check], ...]] = {}

    def check(self, item: Item) -> list[Finding]:
        """Everything wrong with an item, errors and warnings; rules are looked at only when its shape is right, for they trust it."""
        if not self._schema.is_valid(item):
            return list(_schema_findings(self._schema, item))
        return [
            Finding(field=field, reason=reason, severity=check.severity, code=check.code)
            for run, check in self._for(item)
            for field, reason in run(item)
        ]

    def _for(self, item: Item) -> tuple[tuple[Run, _Check], ...]:
        """The rules that have something to say of an item with these names: the records of a flow are much alike."""
        names = tuple(item)
        found = self._chosen.get(names)
        if found is None:
            found = tuple(
                (check.test.run, check) for check in self._checks if all(name in names for name in check.test.needs)
            )
            if len(self._chosen) < _MOST_SHAPES:
                self._chosen[names] = found
        return found

    def check_members(self, unit: Item, assets: Mapping[str, Item]) -> list[Finding]:
        """A unit beside the assets it names, as far as these are known (by reference); the item itself is not checked again."""
        return [] if self._members is None else list(self._members.check(unit, assets))


def compile_validator(profile: Profile, kind: Kind, severities: Mapping[str, str | Severity]) -> Validator:
    """The validator of one kind of item; `severities` sets rules by name (see `Vocabulary.severities`) over their defaults."""
    vocabulary = profile.vocabulary
    chosen = {name: Severity(value) for name, value in severities.items()}
    rules = _Rules(vocabulary, kind, chosen)
    checks = [*rules.identifiers(), *rules.across()]
    members = _Members(vocabulary, rules.severity) if kind is Kind.UNIT else None
    return Validator(profile.schemas[kind], [check for check in checks if check.severity is not Severity.OFF], members)


# schema ------------------------------------------------------------------------------------------------------------------


def _schema_findings(schema: jsonschema_rs.Validator, item: Item) -> Iterator[Finding]:
    for count, error in enumerate(schema.iter_errors(item)):
        if count == _MOST_FINDINGS:
            return
        path = ".".join(str(part) for part in error.instance_path)
        kind, facts = error.kind.name, error.kind.as_dict()
        if kind == "required":
            name = ".".join(part for part in (path, facts["property"]) if part)
            yield _finding(name, "is missing", HostReason.MISSING_VALUE)
        elif kind == "additionalProperties":
            for name in facts["unexpected"]:
                yield _finding(".".join(part for part in (path, name) if part), "is not known", HostReason.SCHEMA)
        else:
            yield _finding(path or "the item", _wanted(kind, facts), HostReason.SCHEMA)


def _finding(field: str, reason: str, code: HostReason) -> Finding:
    return Finding(field=field, reason=reason, severity=Severity.ERROR, code=code)


def _wanted(kind: str, facts: Mapping[str, Any]) -> str:
    """What a JSON Schema keyword asks for, without the value that broke it."""
    if kind == "enum":
        options = [str(option) for option in facts["options"]]
        more = " …" if len(options) > _LONGEST_LIST else ""
        return f"must be one of {', '.join(options[:_LONGEST_LIST])}{more}"
    if kind == "type":
        return f"must be of type {' or '.join(sorted(facts['types']))}"
    if kind == "format":
        return f"must be a {facts['format']}"
    if kind == "pattern":
        return f"must match {facts['pattern']}"
    if "limit" in facts and kind in _BOUNDS:
        return _BOUNDS[kind].format(facts["limit"])
    return f"does not satisfy the schema's {kind}"


_BOUNDS: Final[Mapping[str, str]] = {
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "minItems": "must have at least {} entries",
    "maxItems": "must have at most {} entries",
}


# rules -------------------------------------------------------------------------------------------------------------------


class _Rules:
    """Makes the checks of one kind of item. Rules bind to roles; what has no field with the role has no check."""

    def __init__(self, vocabulary: Vocabulary, kind: Kind, chosen: Mapping[str, Severity]) -> None:
        self._vocabulary = vocabulary
        self._kind = kind
        self._fields = vocabulary.fields(kind)
        self._chosen = chosen

    def severity(self, name: str) -> Severity:
        """The severity of a check across fields."""
        return self._chosen.get(name, self._vocabulary.severities[name])

    def identifiers(self) -> Iterator[_Check]:
        """One check per field that has an identifier rule."""
        for name, spec in self._fields.items():
            if spec.rule is not None:
                severity = self._chosen.get(spec.rule, spec.severity)
                yield _Check(severity, HostReason.IDENTIFIER, _identifier(name, RULES[spec.rule]))
            for member, inner in spec.item.items():
                if inner.rule is not None:
                    severity = self._chosen.get(inner.rule, inner.severity)
                    yield _Check(severity, HostReason.IDENTIFIER, _inner_identifier(name, member, RULES[inner.rule]))

    def across(self) -> Iterator[_Check]:
        """The checks across fields."""
        makers: Mapping[str, Callable[[], Iterator[_Test]]] = {
            "any_of": self._any_of,
            "required_when": self._required_when,
            "some_power": self._some_power,
            "usual_value": self._usual,
            "mpan_group": self._mpan_group,
            "dates": self._dates,
            "member_twice": self._member_twice,
            "member_capacity": self._member_capacity,
        }
        for name, make in makers.items():
            for test in make():
                yield _Check(self.severity(name), HostReason.RULE, test)

    def _names(self, *roles: str) -> tuple[str, ...] | None:
        """The names of these roles; None where one of them has no field."""
        found = [self._vocabulary.find(self._kind, role) for role in roles]
        names = tuple(name for name in found if name is not None)
        return names if len(names) == len(roles) else None

    def _any_of(self) -> Iterator[_Test]:
        groups: dict[str, list[str]] = {}
        for name, spec in self._fields.items():
            if spec.any_of is not None:
                groups.setdefault(spec.any_of, []).append(name)
        for names in groups.values():
            yield _one_given(tuple(names))

    def _required_when(self) -> Iterator[_Test]:
        for name, spec in self._fields.items():
            if spec.required_when is not None:
                other = self._vocabulary.field(self._kind, spec.required_when.role)
                yield _given_when(name, other, frozenset(spec.required_when.words))

    def _some_power(self) -> Iterator[_Test]:
        names = self._names("export_capacity", "import_capacity")
        if names is not None:
            yield _not_both_zero(*names)

    def _usual(self) -> Iterator[_Test]:
        for name, spec in self._fields.items():
            if spec.usual:
                yield _usual_value(name, spec)

    def _mpan_group(self) -> Iterator[_Test]:
        group = self._names("gsp_group")
        for role in ("mpan_import", "mpan_export"):
            mpan = self._names(role)
            if group is not None and mpan is not None:
                yield _distributor(mpan[0], group[0])

    def _dates(self) -> Iterator[_Test]:
        names = self._names("effective_from", "effective_to")
        if names is not None:
            yield _in_order(*names)
        inner = self._names("aligned", "aligned_from", "aligned_to")
        if inner is not None:
            yield _inner_in_order(*inner)

    def _member_twice(self) -> Iterator[_Test]:
        names = self._names("aligned", "aligned_reference")
        if names is not None:
            yield _no_member_twice(*names)

    def _member_capacity(self) -> Iterator[_Test]:
        names = self._names("capacity", "aligned", "aligned_capacity")
        if names is not None:
            yield _capacity_covered(*names)


def _getter(name: str) -> Get:
    """Reads a dotted name out of an item."""
    first, _, rest = name.partition(".")
    if not rest:
        return lambda item: item.get(first)
    inner = _getter(rest)

    def read(item: Item) -> Any:
        found = item.get(first)
        return inner(found) if isinstance(found, Mapping) else None

    return read


def _present(name: str) -> Get:
    """Reads a name that the test needs, so that the item has its first part."""
    return itemgetter(name) if "." not in name else _getter(name)


def _first(*names: str) -> tuple[str, ...]:
    """The first parts of dotted names."""
    return tuple(name.partition(".")[0] for name in names)


def _identifier(name: str, rule: Rule) -> _Test:
    get = _present(name)

    def run(item: Item) -> Found:
        value = get(item)
        if isinstance(value, str):
            reason = rule(value)
            return ((name, reason),) if reason is not None else ()
        if not isinstance(value, list):
            return ()
        reasons = (rule(text) for text in value if isinstance(text, str))
        return [(name, reason) for reason in reasons if reason is not None]

    return _Test(_first(name), run)


def _inner_identifier(name: str, member: str, rule: Rule) -> _Test:
    get = _getter(name)

    def run(item: Item) -> Found:
        found = []
        for index, entry in enumerate(get(item) or ()):
            value = entry.get(member)
            reason = rule(value) if isinstance(value, str) else None
            if reason is not None:
                found.append((f"{name}[{index}].{member}", reason))
        return found

    return _Test(_first(name), run)


def _one_given(names: tuple[str, ...]) -> _Test:
    gets = tuple(_getter(name) for name in names)

    def run(item: Item) -> Found:
        for get in gets:
            if get(item) is not None:
                return ()
        return ((" or ".join(names), "must be given"),)

    return _Test((), run)


def _given_when(name: str, other: str, words: frozenset[str]) -> _Test:
    get, get_other = _getter(name), _present(other)

    def run(item: Item) -> Found:
        if get_other(item) in words and get(item) is None:
            return ((name, f"is missing; it is needed when {other} is {' or '.join(sorted(words))}"),)
        return ()

    return _Test(_first(other), run)


def _not_both_zero(one: str, other: str) -> _Test:
    get_one, get_other = _present(one), _present(other)

    def run(item: Item) -> Found:
        if get_one(item) == 0 and get_other(item) == 0:
            return ((f"{one} and {other}", "must not both be 0"),)
        return ()

    return _Test(_first(one, other), run)


def _usual_value(name: str, spec: FieldSpec) -> _Test:
    get, usual = _present(name), frozenset(spec.usual)
    listed = ", ".join(f"{value:g}" for value in spec.usual)

    def run(item: Item) -> Found:
        value = get(item)
        if value is not None and value not in usual:
            return ((name, f"is seldom right unless it is one of {listed}"),)
        return ()

    return _Test(_first(name), run)


def _distributor(mpan: str, group: str) -> _Test:
    get_mpan, get_group = _present(mpan), _present(group)

    def run(item: Item) -> Found:
        value = get_mpan(item)
        known = group_of_mpan(value) if isinstance(value, str) else None
        if known is not None and get_group(item) not in {None, known}:
            return ((mpan, f"belongs to a distributor of GSP group {known}, which is not the {group} given"),)
        return ()

    return _Test(_first(mpan, group), run)


def _in_order(begin: str, end: str) -> _Test:
    get_begin, get_end = _getter(begin), _getter(end)

    def run(item: Item) -> Found:
        if _ends_early(get_begin(item), get_end(item)):
            return ((end, f"must be after {begin}"),)
        return ()

    return _Test(_first(begin, end), run)


def _inner_in_order(name: str, begin: str, end: str) -> _Test:
    get = _getter(name)

    def run(item: Item) -> Found:
        return [
            (f"{name}[{index}].{end}", f"must be after {begin}")
            for index, entry in enumerate(get(item) or ())
            if _ends_early(entry.get(begin), entry.get(end))
        ]

    return _Test(_first(name), run)


def _ends_early(begin: Any, end: Any) -> bool:
    """Instants are UTC text of one form (`bridge.config.kinds`), so that text order is time order."""
    return isinstance(begin, str) and isinstance(end, str) and end <= begin


def _no_member_twice(name: str, reference: str) -> _Test:
    get = _getter(name)

    def run(item: Item) -> Found:
        seen: set[Any] = set()
        found = []
        for index, entry in enumerate(get(item) or ()):
            value = entry.get(reference)
            if value in seen:
                found.append((f"{name}[{index}].{reference}", "names an asset that stands in the unit already"))
            seen.add(value)
        return found

    return _Test(_first(name), run)


def _capacity_covered(capacity: str, name: str, part: str) -> _Test:
    """Looked at only when every aligned capacity is known; before a unit is sent, the missing ones are filled from its assets."""
    get, get_capacity = _getter(name), _getter(capacity)

    def run(item: Item) -> Found:
        parts = [entry.get(part) for entry in get(item) or ()]
        wanted = get_capacity(item)
        if wanted is not None and parts and None not in parts and wanted > sum(parts):
            return ((capacity, f"must be at most {sum(parts)}, the sum of {name}.{part}"),)
        return ()

    return _Test(_first(capacity, name), run)


class _Members:
    """A unit beside its assets: one GSP group, and a time inside theirs."""

    def __init__(self, vocabulary: Vocabulary, severity: Callable[[str], Severity]) -> None:
        unit, asset = Kind.UNIT, Kind.ASSET
        self._aligned = _getter(vocabulary.field(unit, "aligned"))
        self._reference = vocabulary.field(unit, "aligned_reference")
        self._name = vocabulary.field(unit, "aligned")
        self._groups = _getter(vocabulary.field(unit, "gsp_group")), _getter(vocabulary.field(asset, "gsp_group"))
        self._begins = (
            _getter(vocabulary.field(unit, "effective_from")),
            _getter(vocabulary.field(asset, "effective_from")),
        )
        self._ends = _getter(vocabulary.field(unit, "effective_to")), _getter(vocabulary.field(asset, "effective_to"))
        self._group_severity = severity("member_group")
        self._dates_severity = severity("member_dates")

    def check(self, unit: Item, assets: Mapping[str, Item]) -> Iterator[Finding]:
        """See `Validator.check_members`."""
        for index, entry in enumerate(self._aligned(unit) or ()):
            asset = assets.get(entry.get(self._reference))
            if asset is None:
                continue
            place = f"{self._name}[{index}]"
            if self._group_severity is not Severity.OFF and self._other_group(unit, asset):
                yield self._found(place, "is in another GSP group than its unit", self._group_severity)
            if self._dates_severity is not Severity.OFF and self._outside(unit, asset):
                yield self._found(place, "does not cover the whole time of its unit", self._dates_severity)

    def _other_group(self, unit: Item, asset: Item) -> bool:
        mine, theirs = (get(item) for get, item in zip(self._groups, (unit, asset), strict=True))
        return mine is not None and theirs is not None and mine != theirs

    def _outside(self, unit: Item, asset: Item) -> bool:
        begin, asset_begin = (get(item) for get, item in zip(self._begins, (unit, asset), strict=True))
        end, asset_end = (get(item) for get, item in zip(self._ends, (unit, asset), strict=True))
        if begin is not None and asset_begin is not None and begin < asset_begin:
            return True
        return asset_end is not None and (end is None or bool(end > asset_end))

    @staticmethod
    def _found(place: str, reason: str, severity: Severity) -> Finding:
        return Finding(field=place, reason=reason, severity=severity, code=HostReason.RULE)
