"""What only shows when the payload, the record's fields and the vocabulary are laid side by side."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.api import RecordsOptions
from bridge.config.document import Document, nearest, unknown
from bridge.config.kinds import CONVERTERS, NUMERIC, WrongValue
from bridge.config.payload import EPOCH_FORMATS, ITEM, Rule
from bridge.config.tree import Loc
from bridge.config.words import Words

_ZONE: Final = "%z"


def check_severities(document: Document, loc: Loc, rules: Collection[str]) -> None:
    """Every rule named under `severities:` exists."""
    for name in document.mapping((*loc, "severities")):
        if name not in rules:
            document.wrong((*loc, "severities", name), unknown(name, rules, "rule"), at_key=True)


def check_payload(
    document: Document, loc: Loc, payload: Mapping[str, Rule | None], records: RecordsOptions | None, words: Words
) -> None:
    """Every payload key is a word of the vocabulary, every source a field of the record, every constant of the right type, and the key is there.

    A rule that could not be read is None: its key counts as given. `records` is None where it could not be read.
    """
    _Check(document, None if records is None else tuple(records.fields)).payload(loc, payload, words)
    reference = payload.get(words.reference)
    if reference is not None and records is not None and records.key not in reference.fields():
        text = f"must come from the record's key, `{records.key}`: the writer reads it again before each write-back"
        document.wrong((*loc, words.reference), text)
    meant = {nearest(name, words.kinds) for name in payload if name not in words.kinds}
    missing = [f"`{name}`" for name in words.required if name not in payload and name not in meant]
    if missing:
        verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        document.wrong(loc, f"{', '.join(missing)} {verb} missing; every item needs {them}", at_key=True)


@dataclass(frozen=True, slots=True)
class _Check:
    document: Document
    fields: tuple[str, ...] | None

    def payload(self, loc: Loc, payload: Mapping[str, Rule | None], words: Words) -> None:
        for name, rule in payload.items():
            here = (*loc, name)
            if name not in words.kinds:
                self.document.wrong(here, unknown(name, words.kinds, "field"), at_key=True)
                continue
            if rule is None:
                continue
            self._sources(here, rule)
            if name in words.lists:
                self._list(here, rule, words.lists[name])
            else:
                self._rule(here, rule, words.kinds[name], words.choices.get(name, ()))

    def _sources(self, loc: Loc, rule: Rule) -> None:
        if self.fields is None:
            return
        for name in rule.fields():
            if name not in self.fields:
                step = "each" if name == rule.each else "from"
                self.document.wrong(self._inner(loc, step), unknown(name, self.fields, "field of `records.fields`"))

    def _list(self, loc: Loc, rule: Rule, words: Words) -> None:
        if rule.each is None or rule.item is None:
            self.document.wrong(loc, "is a list of objects; write {each: FIELD, item: {…}}")
            return
        self.payload((*loc, "item"), rule.item, words)
        if words.reference not in rule.item:
            self.document.wrong((*loc, "item"), f"`{words.reference}` is missing; write `{words.reference}: {ITEM}`")

    def _rule(self, loc: Loc, rule: Rule, kind: str, choices: Collection[object]) -> None:
        if rule.each is not None:
            self.document.wrong(self._inner(loc, "each"), f"belongs to lists of objects; this field is {article(kind)}")
            return
        if rule.has_const:
            self._constant(self._inner(loc, "const"), rule.const, kind, choices)
        if rule.has_default and rule.default is not None:
            self._constant(self._inner(loc, "default"), rule.default, kind, choices)
        if rule.map is not None and not self._worked_on(rule):
            for key, word in rule.map.items():
                self._constant((*loc, "map", key), word, kind, choices)
        problem = _misfit(rule, kind)
        if problem:
            self.document.wrong(self._inner(loc, problem[0]), problem[1])

    @staticmethod
    def _worked_on(rule: Rule) -> bool:
        return any(verb is not None for verb in (rule.scale, rule.offset, rule.round, rule.format))

    def _constant(self, loc: Loc, value: object, kind: str, choices: Collection[object]) -> None:
        try:
            made = CONVERTERS[kind](value)
        except WrongValue as wrong:
            self.document.wrong(loc, wrong.text)
            return
        if choices and made not in choices:
            self.document.wrong(loc, unknown(str(made), map(str, choices), "word"))

    def _inner(self, loc: Loc, step: str) -> Loc:
        inner = (*loc, step)
        return inner if inner in self.document.tree.values else loc


def _misfit(rule: Rule, kind: str) -> tuple[str, str] | None:
    """A verb that cannot work for a field of this type: its name and what would be right."""
    text = rule.format
    arithmetic = next((verb for verb in ("scale", "offset", "round") if getattr(rule, verb) is not None), None)
    if arithmetic and kind not in NUMERIC and text is None:
        return arithmetic, f"makes a number, but this field is {article(kind)}"
    if rule.number is not None and kind not in NUMERIC and rule.map is None and text is None:
        return "number", f"makes a number, but this field is {article(kind)}"
    if text is None:
        return None
    if kind == "instant":
        if rule.is_template:
            return "format", "must be a date-time pattern such as %d.%m.%Y %H:%M, epoch_s or epoch_ms"
        if text not in EPOCH_FORMATS and rule.zone is None and _ZONE not in text:
            return "format", "reads a time without a zone; add %z to the pattern, or `zone: Europe/London`"
        return None
    if text in EPOCH_FORMATS or kind not in {"text", "enum"}:
        return (
            "format",
            f"makes {'a date-time' if text in EPOCH_FORMATS else 'text'}, but this field is {article(kind)}",
        )
    return None


def article(kind: str) -> str:
    """A type of the vocabulary for a person."""
    return {"integer": "an integer", "text": "text", "enum": "one of fixed words", "instant": "a date-time"}.get(
        kind, f"a {kind}"
    )
