"""Which objects of a tree look like records, and a flow for each kind of them. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.api import FlowDraft, OutcomeField

_LEAST_FIELDS: Final = 2  # of an object that repeats; one that stands alone needs more
_LEAST_ALONE: Final = 4
_DEPTH: Final = 3
_KEYS: Final = ("reference", "ref", "serial", "id", "mpan", "name")
# Words in the names of variables, by the part of an outcome that they take; the first that fits is taken.
_OUTCOMES: Final[Mapping[OutcomeField, tuple[frozenset[str], ...]]] = {
    OutcomeField.STATE: (frozenset({"state"}), frozenset({"status"})),
    OutcomeField.TRANSACTION_ID: (frozenset({"transaction"}),),
    OutcomeField.ERROR_CODE: (frozenset({"error", "code"}), frozenset({"code"})),
    OutcomeField.ERROR_TEXT: (frozenset({"error", "text"}), frozenset({"message"}), frozenset({"text"})),
    OutcomeField.ERROR_COUNT: (frozenset({"error", "count"}),),
    OutcomeField.ASSET_ID: (frozenset({"asset", "id"}),),
    OutcomeField.UPDATED_AT: (frozenset({"update"}), frozenset({"updated"})),
}


@dataclass(slots=True, kw_only=True)
class Node:
    """One node: its path from Objects, each segment with its prefix, and of a variable what it holds. `access` is made of `r` and `w`."""

    path: tuple[str, ...]
    kind: str
    node_id: str = ""
    type: str = ""
    value: object = None
    quality: str = ""
    access: str = ""

    @property
    def prefixes(self) -> frozenset[str]:
        """The namespaces of its path and node id."""
        found = {part.partition(":")[0] for part in self.path if ":" in part}
        return frozenset(found)

    def __str__(self) -> str:
        return "/".join(self.path)


def drafts(nodes: Sequence[Node]) -> tuple[list[FlowDraft], list[str]]:
    """A flow for each kind of object that repeats below one parent, or stands there alone with many variables; and what `writable:` needs."""
    made = [_draft(*group) for group in _groups(nodes)]
    names: dict[str, int] = {}
    flows = []
    for draft in made:
        names[draft.name] = names.get(draft.name, 0) + 1
        flows.append(draft if names[draft.name] == 1 else _renamed(draft, f"{draft.name}_{names[draft.name]}"))
    writable = list(dict.fromkeys(f"{each}/{path}" for draft in flows for each, path in _targets(draft)))
    return flows, writable


def _groups(nodes: Sequence[Node]) -> Iterator[tuple[tuple[str, ...], list[str], list[str], dict[str, Node]]]:
    """Parent, names of its objects that are alike, names of its others, and the variables of the first by path below it."""
    objects = {node.path for node in nodes if node.kind == "Object"}
    below: dict[tuple[str, ...], dict[str, Node]] = {path: {} for path in objects}
    for node in nodes:
        if node.kind == "Variable":
            for depth in range(1, _DEPTH + 1):
                if node.path[:-depth] in below:
                    below[node.path[:-depth]]["/".join(node.path[-depth:])] = node
    taken: list[tuple[str, ...]] = []
    for parent in sorted({path[:-1] for path in objects}, key=lambda path: (len(path), path)):
        if any(parent[: len(done)] == done for done in taken):
            continue
        children = sorted(path for path in objects if path[:-1] == parent)
        for alike in _alike(children, below):
            taken += alike
            others = [path[-1] for path in children if path not in alike]
            yield parent, [path[-1] for path in alike], others, below[alike[0]]


def _alike(
    children: Sequence[tuple[str, ...]], below: Mapping[tuple[str, ...], Mapping[str, Node]]
) -> Iterator[list[tuple[str, ...]]]:
    """Children that have the same variables; each of them at least some of its own."""
    kinds: dict[tuple[str, frozenset[str]], list[tuple[str, ...]]] = {}
    for path in children:
        direct = [name for name in below[path] if "/" not in name]
        if len(direct) >= _LEAST_FIELDS:
            prefix = path[-1].rpartition(":")[0]
            kinds.setdefault((prefix, frozenset(below[path])), []).append(path)
    for (_, names), paths in kinds.items():
        if len(paths) > 1 or sum("/" not in name for name in names) >= _LEAST_ALONE:
            yield paths


def _draft(parent: tuple[str, ...], names: list[str], others: list[str], variables: Mapping[str, Node]) -> FlowDraft:
    prefix = names[0].rpartition(":")[0]
    each = "/".join((*parent, _glob(names, others)))
    short = {_short(path, prefix): node for path, node in variables.items()}
    trigger = _trigger(short)
    outcome, opened = _outcome(short)
    used = {*trigger.values(), *outcome.values()}
    beside = {path.rpartition("/")[0] for path in outcome.values()} - {""}  # the folder of outcomes holds no field
    fields: dict[str, str] = {}
    for path in short:
        if path not in used and path.rpartition("/")[0] not in beside:
            fields.setdefault(_field(path, fields), path)
    key = _key(fields)
    notes = {"records.each": f"matches {', '.join(_bare(name) for name in names[:4])}{' …' if len(names) > 4 else ''}"}
    notes |= {f"records.fields.{name}": _noted(short[path]) for name, path in fields.items()}
    opened["records.key"] = "the field that identifies the asset; is it this one?"
    if not trigger:
        opened["submit"] = (
            "no request and sequence were recognised; `change` submits every record once, and again when a field changes"
        )
    return FlowDraft(
        name=_flow_name(parent[-1]),
        records={"each": each, "key": key, "fields": fields},
        submit={"when": "request", **trigger} if trigger else {"when": "change"},
        outcome=outcome,
        examples={name: short[path].value for name, path in fields.items()},
        notes=notes,
        open=opened,
    )


def _renamed(draft: FlowDraft, name: str) -> FlowDraft:
    return FlowDraft(
        name=name, records=draft.records, submit=draft.submit, outcome=draft.outcome,
        examples=draft.examples, notes=draft.notes, open=draft.open,
    )  # fmt: skip


def _targets(draft: FlowDraft) -> Iterator[tuple[str, str]]:
    """What each outcome's node needs in `writable:`, a folder as a whole."""
    for path in draft.outcome.values():
        folder, _, _ = str(path).rpartition("/")
        yield str(draft.records["each"]), f"{folder}/*" if folder else str(path)


def _glob(names: Sequence[str], others: Sequence[str]) -> str:
    """A glob that matches these and none of the others, where there is one."""
    prefix = names[0].rpartition(":")[0]
    start, bare = f"{prefix}:" if prefix else "", [_bare(name) for name in names]
    strangers = [_bare(name) for name in others if name.rpartition(":")[0] == prefix]
    if not strangers:
        return f"{start}*"
    shared = _shared(bare[0], bare[-1])  # of sorted names, what the outermost share all do
    if len(bare) == 1 or (shared and not any(name.startswith(shared) for name in strangers)):
        return f"{start}{shared}" + ("*" if len(bare) > 1 else "")
    return f"{start}*"


def _shared(one: str, other: str) -> str:
    size = next(
        (at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs),
        min(len(one), len(other)),
    )
    return one[:size]


def _short(path: str, prefix: str) -> str:
    """A path below the record's node; a segment whose namespace is its parent's is bare."""
    parts = []
    for part in path.split("/"):
        own, _, name = part.rpartition(":")
        parts.append(name if own == prefix else part)
        prefix = own
    return "/".join(parts)


def _trigger(variables: Mapping[str, Node]) -> dict[str, str]:
    """A request and the sequence beside it, both whole numbers."""
    whole = {path: _words(path) for path, node in variables.items() if "Int" in node.type}
    sequence = next((path for path, words in whole.items() if words & {"seq", "sequence"}), "")
    asks = (path for path, words in whole.items() if path != sequence and words & {"request", "submit"})
    request = next((path for path in asks if path.rpartition("/")[0] == sequence.rpartition("/")[0]), "")
    return {"request": request, "sequence": sequence} if request and sequence else {}


def _outcome(variables: Mapping[str, Node]) -> tuple[dict[str, str], dict[str, str]]:
    """Writable variables by the part of an outcome that their names speak of; a placeholder for the state where nothing does."""
    free = {path: _words(path) for path, node in variables.items() if "w" in node.access}
    found: dict[str, str] = {}
    for target, wanted in _OUTCOMES.items():
        path = next((path for words in wanted for path, held in free.items() if words <= held), "")
        if path:
            found[target.value] = path
            del free[path]
    if OutcomeField.STATE.value not in found:
        text = "no variable for the state was recognised, or none that this user may write; name the one that takes it"
        return {OutcomeField.STATE.value: "Registration/State", **found}, {"outcome.state": text}
    return found, {}


def _words(path: str) -> frozenset[str]:
    """The words of a variable's own name, in small letters."""
    name = path.rpartition("/")[2].rpartition(":")[2]
    return frozenset(word.lower() for word in re.findall(r"kWh|kVA|k[WV]|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name))


def _field(path: str, taken: Mapping[str, Any]) -> str:
    """A short name of our own for a variable."""
    words = re.findall(r"kWh|kVA|k[WV]|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", path.rpartition("/")[2].rpartition(":")[2])
    name = "_".join(word.lower() for word in words).lstrip("0123456789_") or "field"
    while name in taken:
        name = f"{name}_"
    return name


def _key(fields: Mapping[str, str]) -> str:
    for wanted in _KEYS:
        for name in fields:
            if wanted in name.split("_"):
                return name
    return next(iter(fields), "reference")


def _flow_name(segment: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", _bare(segment).lower()).strip("_")
    return name if name[:1].isalpha() else "records"


def _noted(node: Node) -> str:
    text = str(node.value)
    return f"{node.type}, {text[:40] + ('…' if len(text) > 40 else '')}" + (
        "" if node.quality in {"", "good"} else f" ({node.quality})"
    )


def _bare(name: str) -> str:
    return name.rpartition(":")[2]
