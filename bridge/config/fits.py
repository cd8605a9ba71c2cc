"""What the EMS's fields are, laid beside what the payload makes of them: types that never fit are a mistake of the site's file, not of a record."""

from collections.abc import Mapping
from typing import Any, Final

from bridge.config.crosscheck import article
from bridge.config.document import Document
from bridge.config.payload import EPOCH_FORMATS, ITEM, Rule
from bridge.config.tree import Loc
from bridge.config.words import Words
from bridge.model import ValueKind

_NUMERIC: Final = frozenset({ValueKind.WHOLE, ValueKind.NUMBER, ValueKind.FLOAT})
_LISTS: Final = frozenset({ValueKind.LIST, ValueKind.NUMBERS})
# By the word of `type` in the vocabulary; as `bridge.config.kinds` converts.
_TAKES: Final[Mapping[str, frozenset[ValueKind]]] = {
    "text": frozenset({ValueKind.TEXT}),
    "enum": frozenset({ValueKind.TEXT}),
    "integer": _NUMERIC - {ValueKind.FLOAT},
    "number": _NUMERIC,
    "boolean": frozenset({ValueKind.BOOLEAN}),
    "instant": frozenset({ValueKind.TEXT, ValueKind.MOMENT}),
    "list": frozenset({ValueKind.LIST}),
}
_AS_NUMBER: Final = 'add `number: {decimal: "."}`'
_KEYS: Final[Mapping[ValueKind, str]] = {
    ValueKind.BOOLEAN: "write true and false",
    ValueKind.TEXT: "write them in quotes",
    **dict.fromkeys(_NUMERIC, "write numbers, without quotes"),
}


def check_fits(
    document: Document, loc: Loc, payload: Mapping[str, Rule | None], kinds: Mapping[str, ValueKind], words: Words
) -> None:
    """Each rule can work on what its field is, and makes what its target takes. Fields that `kinds` does not name may be anything.

    What is wrong with a rule already is not told again.
    """
    for name, rule in payload.items():
        here = (*loc, name)
        if rule is None or name not in words.kinds or document.flaw_below(here):
            continue
        found = _misfit(rule, kinds, words.kinds[name])
        if found is not None:
            inner = (*here, found[0])
            document.wrong(inner if inner in document.tree.values else here, found[1])
        elif rule.item is not None and name in words.lists:
            of_item = {ITEM: ValueKind.WHOLE} if kinds.get(rule.each or "") is ValueKind.NUMBERS else {}
            check_fits(document, (*here, "item"), rule.item, {**kinds, **of_item}, words.lists[name])


def _misfit(rule: Rule, kinds: Mapping[str, ValueKind], target: str) -> tuple[str, str] | None:
    """The verb that cannot work, and what would be right; the verbs in the order in which they work."""
    source = rule.each or rule.source or ""
    kind = kinds.get(source)
    if kind is None:
        return None
    what = f"`{source}` is {kind.value}"
    if rule.each is not None:
        return None if kind in _LISTS else ("each", f"{what}, and `each` takes a list apart; name a list")
    if rule.number is not None and kind is ValueKind.TEXT:
        kind = ValueKind.NUMBER
    if rule.map is not None:
        text = _never_found(rule.map, kind, what)
        return ("map", text) if text else None
    verb = next((name for name in ("scale", "offset", "round") if getattr(rule, name) is not None), None)
    if verb is not None and kind not in _NUMERIC:
        also = f"; {_AS_NUMBER}" if kind is ValueKind.TEXT else ""
        return verb, f"works on numbers, and {what}{also}"
    if rule.format is not None:
        return _misfit_of_format(rule, kind, target, what)
    if verb is not None and (kind is not ValueKind.FLOAT or rule.round == 0):
        kind = ValueKind.NUMBER
    if kind in _TAKES[target]:
        return None
    return "from", f"{what}, and this field is {article(target)}: {_remedy(kind, target)}"


def _misfit_of_format(rule: Rule, kind: ValueKind, target: str, what: str) -> tuple[str, str] | None:
    if rule.is_template:
        return None
    if rule.format in EPOCH_FORMATS:
        return None if kind in _NUMERIC else ("format", f"counts from 1970, and {what}; leave it out, or name a number")
    if target == "instant":
        text = f"reads a date-time from text, and {what}; write epoch_s or epoch_ms, or name a field of text"
        return None if kind in _TAKES[target] else ("format", text)
    text = f"writes a date-time as text, and {what}; name a field that is a date-time"
    return None if kind is ValueKind.MOMENT else ("format", text)


def _never_found(words: Mapping[Any, Any], kind: ValueKind, what: str) -> str:
    """What is wrong with keys that no value of this kind equals, unless a key beside them says the same rightly."""
    right = {str(key).lower() for key in words if _may_equal(key, kind)}
    dead = [key for key in words if not _may_equal(key, kind) and str(key).lower() not in right]
    if not dead:
        return ""
    listed = ", ".join(repr(key) if isinstance(key, str) else str(key) for key in dead)
    return f"{what}, so {listed} would never be found; {_KEYS.get(kind, 'name a field of text or a number')}"


def _may_equal(key: object, kind: ValueKind) -> bool:
    if isinstance(key, bool):
        return kind is ValueKind.BOOLEAN
    return kind in _NUMERIC if isinstance(key, int | float) else kind is ValueKind.TEXT and isinstance(key, str)


def _remedy(kind: ValueKind, target: str) -> str:
    """What makes the one of the other."""
    if kind is ValueKind.FLOAT and target == "integer":
        return "add `round: 0`, for one that is not whole would be refused"
    if kind in _LISTS:
        return "every item would be refused; name another field"
    if target in {"integer", "number"} and kind is ValueKind.TEXT:
        return f"every item would be refused; {_AS_NUMBER} if it holds digits, or name another field"
    if target == "instant" and kind in _NUMERIC:
        return "every item would be refused; add `format: epoch_s` or `epoch_ms`"
    if target == "text" and kind is ValueKind.MOMENT:
        return "every item would be refused; add a `format` such as %Y-%m-%d"
    if target == "text" and kind in _NUMERIC:
        return 'every item would be refused; add `format: "{}"` or a `map`, or name another field'
    return "every item would be refused; add a `map`, or name another field"
