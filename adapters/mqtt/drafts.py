"""Which topics of a broker look like records, requests and results, and a flow for each kind of record. Pure."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from adapters.mqtt.shapes import ANY, Shape, alone, placeholder_names, shapes
from adapters.mqtt.sightings import Kind, Sighting
from adapters.mqtt.topics import template
from bridge.api import FlowDraft

MOST_FLOWS: Final = 20
_REQUESTS: Final = frozenset({"request", "submit", "command", "cmd"})
_RESULTS: Final = frozenset({"result", "response", "reply", "outcome"})
_KEYS: Final = frozenset({"reference", "ref"})
_IDS: Final = ("requestid", "reqid", "correlationid", "messageid", "msgid", "id")
_ACTION: Final = "action"
_LEAST_FIELDS: Final = 2
_SHORTEST: Final = 20  # of a value in a comment
_FORMATS: Final = {Kind.JSON: "json", Kind.CSV: "csv", Kind.CSV_BARE: "csv", Kind.PLAIN: "plain"}
_PLACES: Final = ("result", "smp/result", "smp/registration/result")
_OUTCOME: Final = {"state": "state", "transactionId": "transactionId", "errors": "errorText"}


def drafts(sightings: Sequence[Sighting]) -> tuple[list[FlowDraft], list[str]]:
    """A flow for each kind of topic that looks like a record, at most `MOST_FLOWS`; and what `writable:` needs."""
    found = shapes([each for each in sightings if each.kind is not Kind.EMPTY])
    asked = [shape for shape in found if _speaks_of(shape, _REQUESTS)]
    told = [shape for shape in found if _speaks_of(shape, _RESULTS)]
    rest = [shape for shape in found if shape not in asked and shape not in told]
    made = [*_tables(rest), *_plains(rest)]
    heard = [draft.records["each"] for draft in made] + [shape.text for shape in asked]
    flows: list[FlowDraft] = []
    writable: list[str] = []
    for draft in made[:MOST_FLOWS]:
        whole = _answered(_asked(draft, asked), told, heard)
        flows.append(replace(whole, name=_unused(whole.name, [flow.name for flow in flows])))
        writable.append(template(whole.outcome["topic"]).filter)
    return flows, list(dict.fromkeys(writable))


def _speaks_of(shape: Shape, words: frozenset[str]) -> bool:
    return any(level.lower() in words for level in shape.levels)


# records ------------------------------------------------------------------------------------------------------


def _tables(found: Sequence[Shape]) -> Iterator[FlowDraft]:
    """Messages that hold a whole record: those with likes first, the most first."""
    taken: list[str] = []
    for shape in sorted(found, key=lambda each: (not each.varying, -len(each.sightings))):
        whole = alone(shape)
        if whole is None or whole.kind is Kind.PLAIN or len(whole.values) < _LEAST_FIELDS:
            continue
        if any(template(whole.text).overlaps(template(other)) for other in taken):
            continue  # one topic in two flows would be submitted twice
        if len(taken) == MOST_FLOWS:
            return
        taken.append(whole.text)
        yield _record(whole, whole.text, dict(whole.values), guess=not shape.varying)


def _plains(found: Sequence[Shape]) -> Iterator[FlowDraft]:
    """Values that have a topic each: those that lie below the same level that varies are one record."""
    below: dict[tuple[str, ...], dict[str, object]] = {}
    first: dict[tuple[str, ...], Shape] = {}
    for shape in found:
        if shape.kind is Kind.PLAIN and len(shape.varying) == 1:
            at = shape.varying[0] + 1
            head = shape.levels[:at]
            first.setdefault(head, shape)
            below.setdefault(head, {})["/".join(shape.levels[at:])] = shape.values.get("")
    for head, values in below.items():
        if len(values) >= _LEAST_FIELDS:
            shape = Shape(head, Kind.PLAIN, first[head].sightings)
            yield _record(shape, shape.text, values, guess=False)


def _record(shape: Shape, each: str, values: Mapping[str, object], *, guess: bool) -> FlowDraft:
    names = placeholder_names(shape.levels)
    fields: dict[str, str] = {}
    for source in values:
        fields[_field(source, fields)] = source
    notes = {f"records.fields.{name}": _noted(values[source]) for name, source in fields.items()}
    examples = {name: values[source] for name, source in fields.items()}
    topics = [sighting.topic for sighting in shape.sightings]
    last = shape.varying[-1]
    seen = list(dict.fromkeys(topic.split("/")[last] for topic in topics))
    key = next((name for name in fields if _words(name) & _KEYS), "")
    if not key:
        key = _free("reference", fields)
        fields = {key: f"${names[last]}", **fields}
        examples[key] = seen[0]
    twice = [topic for topic, count in Counter(topic.split("/")[last] for topic in topics).items() if count > 1]
    opened = {"records.key": "the field that identifies the asset; is it this one?"}
    if fields[key].startswith("$") and twice and shape.kind is not Kind.PLAIN:
        opened["records.key"] = f"{twice[0]} is the name of several; a key stands once for each participant"
    text = f"{{{names[last]}}} is {', '.join(seen[:4])}{' …' if len(seen) > 4 else ''}"
    if guess:
        opened["records.each"] = f"{text}, the only topic of its kind; is that the level that names the asset?"
    else:
        notes["records.each"] = text
    if not any(sighting.retained for sighting in shape.sightings):
        opened["records.format"] = (
            "no message was retained; only what is published retained is still there after a restart"
        )
    records: dict[str, Any] = {"each": each, "key": key, "format": _FORMATS[shape.kind]}
    records |= _table(shape)
    return FlowDraft(
        name=_flow_name(shape.levels, last),
        records={**records, "fields": fields},
        submit={"when": "change"},
        outcome={},
        examples=examples,
        notes=notes,
        open=opened,
    )


def _table(shape: Shape) -> dict[str, Any]:
    """How the cells of CSV are told apart."""
    if shape.kind not in {Kind.CSV, Kind.CSV_BARE}:
        return {}
    described: dict[str, Any] = {"delimiter": shape.sightings[0].delimiter}
    if shape.kind is Kind.CSV_BARE:
        described["columns"] = list(shape.values)
    return {"csv": described}


# requests and results -------------------------------------------------------------------------------------------


def _asked(draft: FlowDraft, found: Sequence[Shape]) -> FlowDraft:
    """With the request that was seen for these records; otherwise each change is submitted."""
    for shape in found:
        source = next((path for want in _IDS for path in shape.values if _flat(path) == want), "")
        topic = _with_placeholders(str(draft.records["each"]), shape)
        if not topic or not source or shape.kind is not Kind.JSON:
            continue
        submit: dict[str, Any] = {"when": "message", "topic": topic, "id": source}
        action = next((path for path in shape.values if _flat(path) == _ACTION), "")
        if action and isinstance(shape.values[action], str):
            submit["where"] = {action: shape.values[action]}
        opened = {**draft.open, "submit.topic": "is this the request, and does `id` name what tells one from the next?"}
        return replace(draft, submit=submit, open=opened)
    text = "no request was seen; `change` submits every record once, and again when a field changes"
    return replace(draft, open={**draft.open, "submit": text})


def _answered(draft: FlowDraft, told: Sequence[Shape], heard: Sequence[str]) -> FlowDraft:
    """With the topic of results that was seen for these records, or one that nobody uses."""
    each = str(draft.records["each"])
    seen = next((topic for shape in told if (topic := _with_placeholders(each, shape))), "")
    topic = seen or next(
        f"{each}/{place}"
        for place in (*_PLACES, "/".join(["smp"] * 8))
        if not any(template(f"{each}/{place}").overlaps(template(other)) for other in heard)
    )
    payload = {"reqId": "requestId", **_OUTCOME} if draft.submit["when"] == "message" else dict(_OUTCOME)
    text = (
        "results were seen here; are these the members?"
        if seen
        else "a topic of our choice; name the one that the EMS listens on, here and in `writable:`"
    )
    opened = {**draft.open, "outcome.topic": text}
    return replace(draft, outcome={"topic": topic, "payload": payload}, open=opened)


def _with_placeholders(each: str, shape: Shape) -> str:
    """This shape's topic with the placeholders of `each`, when it begins as `each` does up to the last of them; '' otherwise."""
    levels = template(each).levels
    last = max(at for at, (_, name) in enumerate(levels) if name)
    if len(shape.levels) <= last + 1:
        return ""
    for (text, name), own in zip(levels[: last + 1], shape.levels, strict=False):
        if not name and own != text:
            return ""
    rest = shape.levels[last + 1 :]
    if ANY in rest:
        return ""
    head = each.split("/")[: last + 1]
    topic = "/".join([*head, *rest])
    return "" if topic == each else topic


# words ------------------------------------------------------------------------------------------------------------


def _words(name: str) -> frozenset[str]:
    return frozenset(_parts(name))


def _parts(name: str) -> list[str]:
    return [part.lower() for part in re.findall(r"kWh|kVA|k[WV]|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def _flat(path: str) -> str:
    return re.sub(r"[^a-z]", "", path.lower())


def _field(source: str, taken: Mapping[str, Any]) -> str:
    """A short name of our own for a value: the last member's, with the one before it where that is taken."""
    parts = [part for part in re.split(r"[./]", source) if part.strip('"')] or ["field"]
    name = "_".join(_parts(parts[-1])).lstrip("0123456789_") or "field"
    if name in taken and len(parts) > 1:
        name = "_".join(_parts(f"{parts[-2]} {parts[-1]}")).lstrip("0123456789_") or name
    return _free(name, taken)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:
        name = f"{name}_"
    return name


def _unused(name: str, taken: Sequence[str]) -> str:
    number, made = 1, name
    while made in taken:
        number += 1
        made = f"{name}_{number}"
    return made


def _flow_name(levels: Sequence[str], last: int) -> str:
    """From the level before the asset's."""
    before = next((level for level in reversed(levels[:last]) if level != ANY), "records")
    name = re.sub(r"[^a-z0-9]+", "_", before.lower()).strip("_")
    return name if name[:1].isalpha() else "records"


def _noted(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    kind = {str: "text", bool: "true or false", int: "number", float: "number", tuple: "list"}.get(
        type(value), "nothing"
    )
    shown = f"{text[:_SHORTEST]}{'…' if len(text) > _SHORTEST else ''}"
    return f"{kind}, {shown}" if value is not None and text else kind
