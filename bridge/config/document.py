"""One configuration file being read: parts of it become models, and everything wrong is collected with its place."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bridge.config.references import SECRET_WANTED, Outside, Resolver, Wanted, stood_in
from bridge.config.tree import Loc, Tree, path_text, read_tree
from bridge.config.values import duration_text, is_duration
from bridge.errors import Problem

Model = TypeVar("Model", bound=BaseModel)

_MANY: Final = 100  # more than any model, rule or vocabulary has; participants and adapters may be thousands
_MOST_TRIES: Final = 4
_PLAIN_WORDS: Final = {
    "Input should be": "must be",
    "a valid dictionary": "a mapping",
    "a valid mapping": "a mapping",
    "a valid string": "text",
    "a valid list": "a list",
    "a valid tuple": "a list",
    ", unable to parse string as an integer": "",
    ", unable to parse string as a number": "",
    "tuple should": "must",
    "Tuple should": "must",
    "List should": "must",
    "Dictionary should": "must",
    "Path does not point to a file": "names no file that is there",
    "Path does not point to a directory": "names no directory that is there",
    " after validation": "",
}
# By the library's kind of error: the words, and where it keeps the bound.
_BOUNDS: Final = {
    "greater_than_equal": ("greater than or equal to", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("less than or equal to", "le"),
    "less_than": ("less than", "lt"),
}
_MAPPINGS: Final = frozenset({"model_type", "dataclass_type", "model_attributes_type", "dict_type", "mapping_type"})
_SCALARS: Final = frozenset({"int_type", "int_parsing", "float_type", "float_parsing", "string_type", "bool_type"})
_READINGS: Final = frozenset({*_SCALARS, *_BOUNDS, "enum", "literal_error", "value_error", "bool_parsing"})
_TOO_FEW: Final = frozenset({"too_short", "too_long"})


@dataclass(slots=True)
class Document:
    """A parsed file and the problems found in it so far."""

    tree: Tree
    outside: Outside
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, shown: str, outside: Outside) -> "Document":
        """Parse a file; syntax problems are already among `problems`."""
        tree = read_tree(path, shown)
        return cls(tree, outside, list(tree.problems))

    def wrong(self, loc: Loc, text: str, *, at_key: bool = False) -> None:
        """Add a problem at a location."""
        self.problems.append(self.tree.problem(loc, text, at_key=at_key))

    def mapping(self, loc: Loc) -> dict[str, object]:
        """The mapping at a location with text keys; anything else is a problem and reads as empty."""
        value = self.tree.at(loc)
        if isinstance(value, dict):
            return {str(key): item for key, item in value.items()}
        if loc in self.tree.values:
            self.wrong(loc, "must be a mapping of names to settings")
        return {}

    def flaw(self, loc: Loc) -> bool:
        """Whether something was found wrong at this very location."""
        path = path_text(loc)
        return any(problem.path == path for problem in self.problems)

    def flaw_below(self, loc: Loc) -> bool:
        """Whether something was found wrong at this location or inside it."""
        path = path_text(loc)
        return any(
            problem.path == path or problem.path.startswith((f"{path}.", f"{path}[")) for problem in self.problems
        )

    def read(self, model: type[Model], loc: Loc, *, without: Sequence[str] = ()) -> Model | None:
        """The part at `loc` as this model, or None with its problems noted. `without` names keys that are read elsewhere."""
        return self.read_far(model, loc, without=without)[0]

    def read_far(
        self, model: type[Model], loc: Loc, *, without: Sequence[str] = ()
    ) -> tuple[Model | None, Model | None]:
        """Like `read`, and beside it as much of the part as can be made sense of: for looking on, so that one problem hides no other."""
        value = self.tree.at(loc)
        if isinstance(value, dict):
            value = {key: item for key, item in value.items() if key not in without}
        wanted = Wanted.of(model)
        resolver = Resolver(self.tree, self.outside, [])
        resolved = resolver.resolve({} if value is None else value, loc, wanted)
        found = list(resolver.problems)
        unresolved = {problem.path for problem in (*found, *self.tree.problems) if problem.path}
        instance: Model | None = None
        try:
            instance = model.model_validate(resolved)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            found.extend(self._translated(details, loc, wanted, resolved, unresolved))
        self.problems.extend(_distinct(found))
        return (None, _salvaged(model, stood_in(resolved))) if found else (instance, instance)

    def _translated(
        self, details: Iterable[ErrorDetails], base: Loc, wanted: Wanted, resolved: object, unresolved: set[str]
    ) -> Iterable[Problem]:
        flaws = [self._flaw(detail, base, wanted, resolved) for detail in details]
        for flaw in flaws:
            if any(other.explains(flaw) for other in flaws):
                continue
            problem = self.tree.problem(flaw.loc, flaw.text, at_key=flaw.at_key)
            if not any(path == problem.path or path.startswith(f"{problem.path}.") for path in unresolved):
                yield problem

    def _flaw(self, detail: ErrorDetails, base: Loc, wanted: Wanted, resolved: object) -> "_Flaw":
        loc, missing = self._locate(base, detail["loc"], detail["type"])
        text, meant = self._text(detail, loc, base, wanted, missing), ""
        if detail["type"] == "extra_forbidden":
            meant = nearest(str(loc[-1]), _wanted_at(wanted, loc[len(base) : -1]).names())
        elif detail["type"] in _BOUNDS:
            text = _bound(detail, _given(resolved, detail["loc"]))
        if detail["type"] in _READINGS:
            text += self._from_environment(loc)
        return _Flaw(loc, detail["type"], text, missing, meant, isinstance(self.tree.at(loc), Mapping))

    def _from_environment(self, loc: Loc) -> str:
        """Which variable gave the value at this place, if one did: its own value is not what stands in the file."""
        value = self.tree.at(loc)
        name = value.get("env") if isinstance(value, Mapping) else None
        if isinstance(name, str) and self.outside.environ.get(name):
            return f"; the environment variable {name} gives it"
        return ""

    def _locate(self, base: Loc, parts: tuple[int | str, ...], kind: str) -> tuple[Loc, str]:
        """The location in the file of an error's own location (union members and discriminators are not in the file), and a missing key's name."""
        loc = base
        missing = str(parts[-1]) if kind == "missing" and parts else ""
        for part in parts[:-1] if missing else parts:
            if (*loc, part) in self.tree.values:
                loc = (*loc, part)
        return loc, missing

    def _text(self, detail: ErrorDetails, loc: Loc, base: Loc, wanted: Wanted, missing: str) -> str:
        if missing:
            return f"`{missing}` is missing; add it"
        if detail["type"] == "extra_forbidden":
            return unknown(str(loc[-1]), _wanted_at(wanted, loc[len(base) : -1]).names())
        if detail["type"] == "invalid_key":
            return f"a key must be a word; behind a comma in braces a new key begins, so decimals have a point ({loc[-1]!s:.20} is none)"
        if detail["type"] == "is_instance_of" and "Secret" in detail["msg"]:
            return SECRET_WANTED
        if detail["type"] == "path_type":
            return "must be the path of a file"
        if detail["type"] in _MAPPINGS - {"dict_type", "mapping_type"}:  # the library names a class of ours
            return "must be a mapping of names to settings"
        return plain_text(detail, self.tree.at(loc))


def plain_text(detail: ErrorDetails, given: object) -> str:
    """An error of a model in words for a person, where `given` is what was written there; our own words stand as they are."""
    if detail["type"] in {"enum", "literal_error"}:
        return _one_of(detail, given)
    text = detail["msg"]
    for ours in ("Value error, ", "Assertion failed, "):
        if text.startswith(ours):
            return text.removeprefix(ours)
    for theirs, plain in _PLAIN_WORDS.items():
        text = text.replace(theirs, plain, 1)
    return text[:1].lower() + text[1:]


class _Flaw(NamedTuple):
    """One error of a model at its place: `kind` is the library's word, `missing` the key that is not there, `meant` the one that an unknown key resembles."""

    loc: Loc
    kind: str
    text: str
    missing: str
    meant: str
    of_mapping: bool

    @property
    def at_key(self) -> bool:
        """Whether it is of the key rather than of the value."""
        return self.missing != "" or self.kind == "extra_forbidden"

    def explains(self, other: "_Flaw") -> bool:
        """Whether the other only follows from this one: a key that is misspelt is not missing too, a list whose items are wrong is not too short, and of a union's members only one was meant."""
        if other.missing:
            return self.kind == "extra_forbidden" and (self.loc[:-1], self.meant) == (other.loc, other.missing)
        if other.kind in _TOO_FEW:
            return len(self.loc) > len(other.loc) and self.loc[: len(other.loc)] == other.loc
        if other.of_mapping:
            return other.kind in _SCALARS and self.kind not in _SCALARS and self.loc[: len(other.loc)] == other.loc
        return other.kind in _MAPPINGS and self.kind not in _MAPPINGS and self.loc == other.loc


def _wanted_at(wanted: Wanted, parts: Loc) -> Wanted:
    """What is wanted at a place below."""
    for part in parts:
        member = wanted.member(part)
        wanted = wanted.item() if isinstance(part, int) and not member.kinds else member
    return wanted


def _given(resolved: object, parts: Iterable[int | str]) -> object:
    """The value that the model was given at an error's own location, as far as that leads."""
    for part in parts:
        if isinstance(resolved, Mapping):
            resolved = resolved.get(part, resolved)
        elif isinstance(resolved, list):
            resolved = resolved[part] if isinstance(part, int) and part < len(resolved) else resolved
    return resolved


def _bound(detail: ErrorDetails, given: object) -> str:
    """The text for a number beyond its bound; of a duration the bound is one too."""
    word, key = _BOUNDS[detail["type"]]
    limit: Any = detail.get("ctx", {}).get(key)
    return f"must be {word} {duration_text(limit) if is_duration(given) else limit}"


def _one_of(detail: ErrorDetails, given: object) -> str:
    """The words that may stand there; one that only differs in its capitals is meant."""
    listed = str(detail.get("ctx", {}).get("expected", ""))
    words = re.findall(r"'([^']*)'", listed)
    same = [word for word in words if isinstance(given, str) and word.lower() == given.lower()]
    return f"must be {listed}" + "".join(f"; did you mean {word}?" for word in same[:1])


def _salvaged(model: type[Model], content: Any) -> Model | None:
    """The model without whatever is wrong in it, where it can do without; None where it cannot."""
    for _ in range(_MOST_TRIES):
        try:
            return model.model_validate(content)
        except ValidationError as error:
            pruned = [_prune(content, detail["loc"]) for detail in error.errors(include_url=False, include_input=False)]
            if not any(pruned):
                return None
    return None


def _prune(content: Any, loc: Sequence[int | str]) -> bool:
    """Take the deepest key of a mapping that an error's location leads to out of it; False where there is none."""
    holder, last = None, None
    for part in loc:
        if isinstance(content, dict) and part in content:
            holder, last = content, part
            content = content[part]
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            content = content[part]
    if holder is None:
        return False
    del holder[last]
    return True


def nearest(name: str, known: Iterable[str]) -> str:
    """The known word that this one resembles most, '' where none does."""
    names = sorted(known)
    same = [item for item in names if item.lower() == name.lower()]
    near = same or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return near[0] if near else ""


def unknown(name: str, known: Iterable[str], what: str = "key") -> str:
    """The text for a word that is not known, with the nearest one that is."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return f"unknown {what}; did you mean `{near}`?"
    if not names:
        return f"unknown {what}; none is known here"
    rest = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return f"unknown {what}; known are {', '.join(names[:_MANY])}{rest}"


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    """One problem a place and text: the members of a union often say the same."""
    seen: dict[Any, Problem] = {}
    for problem in problems:
        seen.setdefault((problem.line, problem.column, problem.path, problem.text), problem)
    return list(seen.values())
