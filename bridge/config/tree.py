"""A YAML file as plain values with the place of every key and value. YAML 1.2; nothing is repaired, everything odd is a problem."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from bridge.errors import Problem
from bridge.yaml12 import MERGE, Node, NotPlain, careful_nodes, quick_nodes, quick_value

Loc: TypeAlias = tuple[str | int, ...]

MAX_NODES: Final = 200_000  # aliases inside aliases may grow without bound; the largest real site stays far below
MAX_DEPTH: Final = 100  # no setting of ours stands deeper than some ten
_TOO_DEEP: Final = f"is nested more than {MAX_DEPTH} levels deep; nothing that the bridge reads is"


# What the parser says, and what it most often means in a file written by hand; the first that fits.
_HINTS: Final = (
    (r"'\t'", "; YAML is indented by spaces, never by tabs"),
    ("<block end>, but found '}'", "; there is no brace to be closed"),
    ("<block end>, but found ']'", "; there is no bracket to be closed"),
    ("expected <block end>", "; the keys of one mapping begin in the same column, so look at how this line and those above are indented"),
    ("mapping values are not allowed", "; behind a key stand a colon and a blank, and a colon inside text needs quotes: look at the line above too"),
    ("could not find expected ':'", "; behind a key stand a colon and a blank: look at the line above"),
    ("expected ',' or", "; what was opened on line {opened} is not closed"),
    ("quoted scalar found unexpected end", "; the quote of line {opened} is not closed"),
    ("unknown escape character", "; in double quotes a backslash is written twice, in single quotes once"),
    ("cannot start any token", "; text that begins with this sign stands in quotes"),
    ("alias", "; text that begins with * stands in quotes"),
)  # fmt: skip


class Place(NamedTuple):
    """Line and column, from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Tree:
    """One parsed file. `value` is plain (dict, list, str, int, float, bool, None); `values` and `keys` give the place of each location."""

    file: str
    directory: Path
    value: object = None
    values: dict[Loc, Place] = field(default_factory=dict)
    keys: dict[Loc, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, loc: Loc, text: str, *, at_key: bool = False) -> Problem:
        """A problem at the nearest known place of this location."""
        place = self.keys.get(loc) if at_key else None
        known = loc
        while place is None:
            place = self.values.get(known)
            if not known:
                break
            known = known[:-1]
        place = place or Place(1, 1)
        return Problem(text=text, path=path_text(loc), file=self.file, line=place.line, column=place.column)

    def at(self, loc: Loc) -> object:
        """The plain value at a location, None when there is none."""
        value: object = self.value
        for part in loc:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value


def path_text(loc: Loc) -> str:
    """A location as people write it: `flows.batteries.payload.services[0]`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_tree(path: Path, shown: str) -> Tree:
    """Parse one file; what is wrong with it stands in `problems`, and `value` holds whatever could still be read."""
    tree = Tree(file=shown, directory=path.parent)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        tree.problems.append(Problem(text=f"cannot be read: {error.strerror}", file=shown))
        return tree
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        text = "cannot be read: not UTF-8; save it as UTF-8"
        tree.problems.append(Problem(text=text, file=shown, line=line, column=column))
        return tree
    if not _read_quickly(tree, text):
        _read_carefully(tree, text)
    return tree


def _read_quickly(tree: Tree, text: str) -> bool:
    """What libyaml makes of the text; False, and nothing in the tree, when anything about it is odd."""
    root = quick_nodes(text)
    if root is None:
        return False
    whole = Tree(file=tree.file, directory=tree.directory)
    whole.value = _Builder(quick_value, whole).build(root, (), ())
    if whole.problems:
        return False
    tree.value, tree.values, tree.keys = whole.value, whole.values, whole.keys
    return True


def _read_carefully(tree: Tree, text: str) -> None:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415 - a file in order never needs it

    try:
        root, value_of = careful_nodes(text)
        if root is None:
            tree.problems.append(Problem(text="is empty", file=tree.file, line=1, column=1))
        else:
            tree.value = _Builder(value_of, tree).build(root, (), ())
    except MarkedYAMLError as error:
        tree.problems.append(_syntax(tree, error))
    except YAMLError:
        tree.problems.append(Problem(text="is not YAML: it holds a character that YAML does not allow", file=tree.file))
    except RecursionError:
        tree.problems.append(Problem(text=_TOO_DEEP, file=tree.file))


def _syntax(tree: Tree, error: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    text = " ".join(str(part).split("\n")[0].strip() for part in (error.context, error.problem) if part)
    hint = next((hint for said, hint in _HINTS if said in text), "")
    opened = error.context_mark.line + 1 if error.context_mark else 1
    text += hint.format(opened=opened)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Problem(text=f"not YAML: {text}", file=tree.file, line=line, column=column)


@dataclass(slots=True)
class _Builder:
    """Turns composed nodes into plain values and notes their places. `value_of` makes a value of a scalar."""

    value_of: Callable[[Node], Any]
    tree: Tree
    count: int = 0

    def build(self, node: Node, loc: Loc, above: tuple[int, ...]) -> object:
        self.tree.values.setdefault(loc, _place(node))
        self.count += 1
        if self.count > MAX_NODES or id(node) in above:
            self._wrong(loc, "an alias leads back to itself, or aliases grow too large; write the values out")
            return None
        if node.id == "scalar":
            return self._scalar(node, loc)
        if len(above) >= MAX_DEPTH:
            self._wrong(loc, _TOO_DEEP)
            return None
        within = (*above, id(node))
        if node.id == "mapping":
            return dict(self._pairs(node, loc, within))
        return [self.build(child, (*loc, index), within) for index, child in enumerate(node.value)]

    def _pairs(self, node: Node, loc: Loc, above: tuple[int, ...]) -> Iterator[tuple[object, object]]:
        seen: set[object] = set()
        for key_node, value_node in node.value:
            place = _place(key_node)
            if key_node.id != "scalar" or key_node.tag == MERGE:
                self._wrong(loc, "a key must be a plain word or number (merge keys `<<` are not read)", place)
                continue
            key = self._scalar(key_node, loc)
            here = (*loc, key) if isinstance(key, int) and not isinstance(key, bool) else (*loc, str(key))
            if key in seen:
                first = self.tree.keys[here]
                self._wrong(here, f"the key stands here a second time (first on line {first.line}); keep one", place)
                continue
            seen.add(key)
            self.tree.keys[here] = place
            yield key, self.build(value_node, here, above)

    def _scalar(self, node: Node, loc: Loc) -> object:
        try:
            return self.value_of(node)
        except NotPlain as odd:
            self._wrong(loc, f"the tag {odd.tag} is not read; write a plain value", _place(node))
        except ValueError:
            self._wrong(loc, "this value cannot be read as YAML; put it in quotes if it is text", _place(node))
        return None

    def _wrong(self, loc: Loc, text: str, place: Place | None = None) -> None:
        where = place or self.tree.values.get(loc, Place(1, 1))
        path = path_text(loc)
        self.tree.problems.append(
            Problem(text=text, path=path, file=self.tree.file, line=where.line, column=where.column)
        )


def _place(node: Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)
