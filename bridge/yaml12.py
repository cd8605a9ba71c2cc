"""YAML 1.2 text as nodes and plain values. libyaml reads what is ordinary, in a thirtieth of the time; ruamel's parser in Python reads the rest.

libyaml knows the YAML 1.1 grammar. Where the two versions differ (directives, line breaks of Unicode, tags), where it sees an error,
and where a value is not a plain one, ruamel has the word, so that what a file means and how an error reads never depends on which of them came first.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Protocol

_TAG: Final = "tag:yaml.org,2002:"
MERGE: Final = f"{_TAG}merge"
_PLAIN: Final = frozenset({"null", "bool", "int", "float", "str"})

# Tabs, control characters, Unicode's line breaks and byte order marks; directives; and where something may begin, tags, `?` keys, texts in blocks,
# anchors and aliases of more than word characters.
_ODD: Final = re.compile(
    r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|^%"
    r"|(?:^|[\s\[\]{},:?-])(?:!|\?(?:\s|$)|[|>][-+0-9]*[ ]*(?:\#|$)|[&*](?!\s|$|[A-Za-z0-9_-]+(?:[\s,\]}]|$)))",
    re.MULTILINE,
)
_FIRST_OF_WORDS: Final = frozenset("-+.0123456789~nNtTfF<=")
_WORDS: Final = dict.fromkeys(("~", "null", "Null", "NULL")) | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
_INT: Final = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)\Z")
_FLOAT: Final = re.compile(
    r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_DATE: Final = re.compile(r"[0-9]{4}-(?:[0-9]{2}-[0-9]{2}\Z|[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9])")
_BASES: Final = {"0b": 2, "0o": 8, "0x": 16}


class Mark(Protocol):
    """A place in the text, from 0."""

    line: int
    column: int


class Node(Protocol):
    """What both parsers make of a piece of the text. `id` is `mapping`, `sequence` or `scalar`; `value` holds pairs of nodes, nodes, or text."""

    id: str
    tag: Any
    value: Any
    start_mark: Mark


class NotPlain(ValueError):
    """A scalar whose tag is not one of a plain value: null, bool, int, float, str."""

    def __init__(self, tag: str) -> None:
        super().__init__(f"the tag {tag} is not one of a plain value")
        self.tag = tag


class NotYaml(ValueError):
    """The text is not YAML: what is wrong, with line and column from 1, or 0 where nobody knows."""

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.line = line
        self.column = column


def quick_nodes(text: str) -> Node | None:
    """The nodes as libyaml sees them, None where ruamel has to read this text. A scalar without a tag of its own has as `tag` the function that makes a value of it."""
    composer = _composer()
    if composer is None or _ODD.search(text):
        return None
    return composer(text)


def quick_value(node: Node) -> Any:
    """The plain value of a scalar of `quick_nodes`. Raises `NotPlain`, and `ValueError` for a number that cannot be one."""
    if isinstance(node.tag, str):
        raise NotPlain(node.tag)
    return node.tag(node.value)


def careful_nodes(text: str) -> tuple[Node | None, Callable[[Node], Any]]:
    """The nodes as ruamel sees them, and what `quick_value` is to others. Raises ruamel's `YAMLError`, and `RecursionError`."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - a fortieth of a second; a file in order never needs it
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    yaml = YAML(typ="safe", pure=True)

    def value_of(node: Node) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        if kind == "timestamp":
            return str(node.value)
        if kind not in _PLAIN:
            raise NotPlain(str(node.tag))
        try:
            return yaml.constructor.construct_object(node)
        except YAMLError as error:
            raise ValueError(str(error)) from None

    return yaml.compose(text), value_of


def load(text: str) -> Any:
    """Plain values alone, for files whose places nobody asks for. Raises `NotYaml`."""
    root = quick_nodes(text)
    if root is not None:
        try:
            return _plain(root)
        except (ValueError, RecursionError):
            pass  # ruamel may see it otherwise, or says it better
    from ruamel.yaml import YAML  # noqa: PLC0415 - see above
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = (0, 0) if mark is None else (mark.line + 1, mark.column + 1)
        raise NotYaml(getattr(error, "problem", None) or "is not YAML", *place) from None


def _plain(node: Node) -> Any:
    if node.id == "scalar":
        return quick_value(node)
    if node.tag is not None:
        raise NotPlain(node.tag)
    if node.id == "sequence":
        return [_plain(child) for child in node.value]
    found = {_key(key): _plain(value) for key, value in node.value}
    if len(found) != len(node.value):
        raise ValueError("a key stands twice")
    return found


def _key(node: Node) -> Any:
    if node.id != "scalar":
        raise ValueError("a key is not a word")
    return quick_value(node)


def _text(value: str) -> str:
    return value


def _merge(_: str) -> Any:
    raise NotPlain(MERGE)


def _other(value: str) -> Any:
    raise NotPlain("timestamp" if value[:1].isdigit() else value)


def _integer(value: str) -> int:
    digits = value.replace("_", "").lstrip("+-")
    sign = -1 if value.startswith("-") else 1
    base = _BASES.get(digits[:2])
    return sign * (int(digits, 10) if base is None else int(digits[2:], base))


def _number(value: str) -> float:
    return float(value.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _kind(value: str) -> Callable[[str], Any]:
    """What a plain scalar is by the core schema as ruamel reads it: `no` is text, `012` is twelve, `1e3` a number."""
    if not value:
        return _other  # nothing at all: the two parsers see it in different places
    if value[0] not in _FIRST_OF_WORDS:
        return _text
    if value in _WORDS:
        return _WORDS.__getitem__
    if _INT.match(value):
        return _integer
    if _FLOAT.match(value):
        return _number
    if value == "<<":
        return _merge
    return _other if value == "=" or _DATE.match(value) else _text


@cache
def _composer() -> Callable[[str], Node | None] | None:
    """The composer of libyaml with our resolver; None where PyYAML was built without libyaml."""
    try:
        from yaml import ScalarNode, YAMLError  # noqa: PLC0415 - a fortieth of a second; many commands read no file
        from yaml._yaml import CParser  # noqa: PLC0415
    except ImportError:
        return None

    class Composer(CParser):  # type: ignore[misc]
        def resolve(self, kind: type, value: str, implicit: tuple[bool, bool]) -> Any:
            if kind is not ScalarNode:
                return None
            return _kind(value) if implicit[0] else _text

        def descend_resolver(self, *_: Any) -> None: ...

        def ascend_resolver(self) -> None: ...

    def compose(text: str) -> Node | None:
        try:
            return Composer(text).get_single_node()  # type: ignore[no-any-return]
        except YAMLError:
            return None

    return compose
