"""One configuration file being read: parts of it become models, and everything wrong is collected with its place."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bridge.config.references import SECRET_WANTED, Outside, Resolver, Wanted, stood_in
from bridge.config.tree import Loc, Tree, path_text, read_tree
from bridge.errors import Problem

Model = TypeVar("Model", bound=BaseModel)

_MANY: Final = 14
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
}


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
            details = error.errors(include_url=False, include_context=False, include_input=False)
            found.extend(self._translated(details, loc, wanted, unresolved))
        self.problems.extend(_distinct(found))
        return (None, _salvaged(model, stood_in(resolved))) if found else (instance, instance)

    def _translated(
        self, details: Iterable[ErrorDetails], base: Loc, wanted: Wanted, unresolved: set[str]
    ) -> Iterable[Problem]:
        for detail in details:
            loc, missing = self._locate(base, detail["loc"], detail["type"])
            problem = self.tree.problem(
                loc,
                self._text(detail, loc, base, wanted, missing),
                at_key=missing != "" or detail["type"] == "extra_forbidden",
            )
            if not any(path == problem.path or path.startswith(f"{problem.path}.") for path in unresolved):
                yield problem

    def _locate(self, base: Loc, parts: tuple[int | str, ...], kind: str) -> tuple[Loc, str]:
        """The location in the file of an error's own location (union members and discriminators are not in the file), and a missing key's name."""
        loc = base
        missing = str(parts[-1]) if kind == "missing" and parts else ""
        for part in parts[:-1] if missing else parts:
            if (*loc, part) in self.tree.values:
                loc = (*loc, part)
        return loc, missing

    @staticmethod
    def _text(detail: ErrorDetails, loc: Loc, base: Loc, wanted: Wanted, missing: str) -> str:
        if missing:
            return f"`{missing}` is missing; add it"
        if detail["type"] == "extra_forbidden":
            for part in loc[len(base) : -1]:
                wanted = (
                    wanted.item() if isinstance(part, int) and not wanted.member(part).kinds else wanted.member(part)
                )
            return unknown(str(loc[-1]), wanted.names())
        if detail["type"] == "is_instance_of" and "Secret" in detail["msg"]:
            return SECRET_WANTED
        if detail["type"] == "path_type":
            return "must be the path of a file"
        if detail["type"] in {
            "model_type",
            "dataclass_type",
            "model_attributes_type",
        }:  # the library names a class of ours
            return "must be a mapping of names to settings"
        text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        for theirs, ours in _PLAIN_WORDS.items():
            text = text.replace(theirs, ours, 1)
        return text[:1].lower() + text[1:]


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


def unknown(name: str, known: Iterable[str], what: str = "key") -> str:
    """The text for a word that is not known, with the nearest one that is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6) or [
        item for item in names if item.lower() == name.lower()
    ]
    if near:
        return f"unknown {what}; did you mean `{near[0]}`?"
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
