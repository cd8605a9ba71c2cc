"""A site file made of what an adapter saw: a draft that `check` accepts, in which every guess and every gap is marked."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bridge.api import FlowDraft, Seen
from bridge.cli.placeholders import MARK
from bridge.cli.shown import value_text
from bridge.config.always import asking, groups
from bridge.config.words import Words, words_of
from bridge.model import Kind, Operation
from bridge.profile import Profile
from bridge.vocabulary import Vocabulary

_PLAIN: Final = re.compile(r"[A-Za-z_$][\w./$-]*")
_RESERVED: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_ENOUGH: Final = 0.5
_WIDTH: Final = 46  # where comments begin, if the line is not longer
_EPOCH: Final = range(946_684_800, 4_102_444_800)  # 2000 to 2100
_TEXT_NUMBER: Final = re.compile(r"-?\d+([.,]\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a draft belongs: the site's and the adapter's names, whose assets they are, and the adapter's options as a site file spells them."""

    site: str
    adapter: str
    participant: str
    protocol: str
    options: Mapping[str, Any]
    known: bool = False
    """The participant is one of a configuration, not a placeholder."""


def site_yaml(place: Place, seen: Seen, profile: Profile, vocabulary: Vocabulary) -> str:
    """The whole file. `seen.flows` must not be empty."""
    comments: dict[str, str] = {}
    if not place.known:
        comments["participant"] = f"{MARK}: an entry of bridge.yaml"
    options = {"protocol": place.protocol, **place.options}
    options |= {key: value for key, value in seen.adds.items() if key not in options}
    options |= {key: _joined(place.options[key], value) for key, value in seen.adds.items() if key in place.options}
    flows: dict[str, Any] = {}
    for draft in seen.flows:
        flows[draft.name] = _flow(place, draft, profile, vocabulary, comments)
    content = {
        "site": place.site,
        "participant": place.participant,
        "adapters": {place.adapter: options},
        "flows": flows,
    }
    head = [
        f"# Drafted by `smp-bridge browse` from what was seen at {_harmless(seen.said)}.",
        f"# Every line with {MARK} holds a guess or a gap: `smp-bridge run` refuses this file until each is settled and the word is gone; `smp-bridge check` lists them.",
        *(f"# {_harmless(note)}" for note in seen.notes),
        "",
    ]
    return "\n".join([*head, *_lines(content, (), comments, 0)]) + "\n"


def _joined(given: Any, added: Any) -> Any:
    """Options that were there already, and what the flows need besides; of a single value, what was seen."""
    if isinstance(given, Mapping) and isinstance(added, Mapping):
        return {**added, **given}
    if isinstance(given, Sequence) and isinstance(added, Sequence) and not isinstance(given, str):
        return [*given, *(each for each in added if each not in given)]
    return added


# flows --------------------------------------------------------------------------------------------------


def _flow(
    place: Place, draft: FlowDraft, profile: Profile, vocabulary: Vocabulary, comments: dict[str, str]
) -> dict[str, Any]:
    base = f"flows.{draft.name}"
    comments |= {f"{base}.{path}": text for path, text in draft.notes.items()}
    for path, text in draft.open.items():
        comments[f"{base}.{path}"] = f"{MARK}: {text}"
    operation = _operation(draft)
    comments.setdefault(f"{base}.operation", f"{MARK}: asset.create or unit.create?")
    words = words_of(vocabulary, operation.kind, profile.schemas[operation.kind])
    payload = _Payload(draft, words, vocabulary, operation.kind)
    payload.make()
    comments |= {f"{base}.payload.{name}": text for name, text in payload.comments.items()}
    return {
        "adapter": place.adapter,
        "operation": operation.value,
        "records": draft.records,
        "submit": draft.submit,
        "payload": payload.rules,
        "outcome": draft.outcome,
    }


def _operation(draft: FlowDraft) -> Operation:
    """Units have that in their name, and name their assets in a list."""
    named = any(word.startswith("unit") for word in draft.name.split("_"))
    lists = any(isinstance(value, list | tuple) for value in draft.examples.values())
    return Operation.UNIT_CREATE if named and lists else Operation.ASSET_CREATE


@dataclass(slots=True)
class _Payload:
    """Which field of the record each word of the vocabulary could come from; what nobody offers is a placeholder of the right type."""

    draft: FlowDraft
    words: Words
    vocabulary: Vocabulary
    kind: Kind
    rules: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)

    def make(self) -> None:
        key = str(self.draft.records["key"])
        matches = self._matches(key)
        for name, kind in self.words.kinds.items():
            if name == self.words.reference:
                self.rules[name] = key
            elif name in self.words.lists:
                self._list(name)
            elif name in matches:
                source, score = matches[name]
                self.rules[name] = self._rule(name, kind, source)
                if score < 1 or not isinstance(self.rules[name], str):
                    self.comments[name] = f"{MARK}: {source} is a guess" if score < 1 else f"{MARK}: is this right?"
            elif name in self.words.required:
                self._gap(name, kind)
        for group in groups(self.vocabulary.fields(self.kind)):
            if not any(name in self.rules for name in group):
                self._gap(group[0], self.words.kinds[group[0]])
                self.comments[group[0]] = f"{MARK}: the EMS seems to have none of {', '.join(group)}, and one is needed"

    def _matches(self, key: str) -> dict[str, tuple[str, float]]:
        """The best word for each field and the best field for each word, the surest pair first."""
        scores = sorted(
            (
                (_likeness(name, source), name, source)
                for name in self.words.kinds
                for source in self.draft.records["fields"]
            ),
            key=lambda each: (-each[0], each[1] not in self.words.required),
        )
        found: dict[str, tuple[str, float]] = {}
        used: set[str] = {key}
        for score, name, source in scores:
            fits = score >= _ENOUGH and name != self.words.reference and name not in self.words.lists
            if fits and name not in found and source not in used:
                found[name] = source, score
                used.add(source)
        return found

    def _rule(self, name: str, kind: str, source: str) -> Any:
        """How the field's value, as it was seen, becomes the word's type."""
        value, choices = self.draft.examples.get(source), self.words.choices.get(name, ())
        if choices:
            return source if value in choices else {"from": source, "map": {self._key(value): choices[0]}}
        rule: dict[str, Any] = {"from": source}
        if kind in {"integer", "number"}:
            if isinstance(value, str) and _TEXT_NUMBER.fullmatch(value.strip()):
                rule["number"] = {"decimal": "," if "," in value else "."}
            if kind == "integer" and (isinstance(value, float) or "number" in rule):
                rule["round"] = 0
        if kind == "instant" and isinstance(value, int) and value in _EPOCH:
            rule["format"] = "epoch_s"
        return rule if len(rule) > 1 else source

    @staticmethod
    def _key(value: object) -> object:
        return value if isinstance(value, str | int) and value != "" else 0

    def _list(self, name: str) -> None:
        source = next((each for each, value in self.draft.examples.items() if isinstance(value, list | tuple)), "")
        if source:
            inner = self.words.lists[name]
            self.rules[name] = {"each": source, "item": {inner.reference: "$item"}}
            self.comments[name] = f"{MARK}: {source} is a guess"

    def _gap(self, name: str, kind: str) -> None:
        choices = self.words.choices.get(name, ())
        asks = asking(self.vocabulary, self.kind, name)
        plain = [choice for choice in choices if choice not in asks]  # one that asks for no further field
        made: object = (plain or choices)[0] if choices else _stand_in(kind)
        self.rules[name] = {"const": made}
        others = f"; one of {', '.join(map(str, choices[:6]))}{' …' if len(choices) > 6 else ''}" if choices else ""
        self.comments[name] = f"{MARK}: the EMS seems not to have it{others}"


def _stand_in(kind: str) -> object:
    if kind == "instant":
        return f"{datetime.fromtimestamp(0, UTC):%Y-%m-%d}T00:00:00Z"
    return {"integer": 0, "number": 0, "boolean": False}.get(kind, MARK)


def _likeness(word: str, source: str) -> float:
    """From 0 to 1: how many words of both names are the same, a beginning of three letters counting as the whole."""
    mine, theirs = _parts(word), _parts(source)
    specific = [part for part in mine if part not in {"asset", "unit"}] or mine
    mine, theirs = specific, [part for part in theirs if part not in {"asset", "unit"}] or theirs
    hits = sum(any(_same(one, other) for other in theirs) for one in mine)
    return hits / max(len(mine), len(theirs)) if mine and theirs else 0.0


def _parts(name: str) -> list[str]:
    return [part.lower() for part in re.findall(r"kWh|kVA|k[WV]|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def _same(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return one == other or (len(short) >= 3 and long.startswith(short))


# YAML -----------------------------------------------------------------------------------------------------


def _lines(content: Mapping[str, Any], path: tuple[str, ...], comments: Mapping[str, str], depth: int) -> Iterator[str]:
    for key, value in content.items():
        here = (*path, str(key))
        comment, indent = comments.get(".".join(here), ""), "  " * depth
        if depth == 0 and isinstance(value, Mapping):
            yield ""
        if isinstance(value, Mapping) and value and not _inline(value, depth):
            yield _commented(f"{indent}{_scalar(key)}:", comment)
            yield from _lines(value, here, comments, depth + 1)
        elif isinstance(value, list | tuple) and any(
            isinstance(each, Mapping) or len(str(each)) > 20 for each in value
        ):
            yield _commented(f"{indent}{_scalar(key)}:", comment)
            yield from (f"{indent}  - {_flowed(each)}" for each in value)
        else:
            yield _commented(f"{indent}{_scalar(key)}: {_flowed(value)}", comment)


def _inline(value: Mapping[str, Any], depth: int) -> bool:
    """Small mappings of plain values stand in one line, below the parts of a flow."""
    return depth >= 3 and len(str(value)) < 90 and not any(isinstance(each, list | tuple) for each in value.values())


def _commented(line: str, comment: str) -> str:
    return f"{line:<{_WIDTH}}  # {_harmless(comment)}" if comment else line


def _harmless(comment: str) -> str:
    """A comment on one line; a peer's own letters of control reach neither a terminal nor YAML, which forbids them."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(comment.split()))


def _flowed(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flowed(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flowed(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, Path):
        value = str(value)
    text = value if isinstance(value, str) else value_text(value)
    plain = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())
