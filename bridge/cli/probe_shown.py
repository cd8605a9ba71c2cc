"""What `smp-bridge probe` prints: values, problems and a summary as tables or JSON, and changes as lines."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bridge.api import Quality, Reading, Trouble
from bridge.cli.shown import age_text, moment_text, plain, table, value_text
from bridge.clock import iso_ms
from bridge.config.kinds import clean
from bridge.probing import Probed

_HEADER: Final = ("SITE/ADAPTER", "FLOW", "PLACE", "FIELD", "VALUE", "QUALITY", "SOURCE TIME (UTC)", "AGE")
_SHOWN_PLACES: Final = 4
_DEVICE: Final = "adapter."  # words of the device itself, a heartbeat above all, change all the time


class Spot(NamedTuple):
    """Where one value stands."""

    flow: str
    place: str
    name: str


def values_of(probed: Probed) -> Iterator[tuple[Spot, Reading]]:
    """Every value of a look: what is the device's or a whole flow's own, then place by place each record's fields and what stands beside them."""
    beside: dict[tuple[str, str], list[tuple[str, Reading]]] = {}
    for item in sorted(probed.beside, key=lambda item: bool(item.place)):
        beside.setdefault((item.flow, item.place), []).append((item.name, item.reading))
    fields = {(record.flow, record.place): record.fields for record in probed.records}
    flows = list(dict.fromkeys(flow for flow, _ in (*beside, *fields)))
    places = [key for key in beside if not key[1]] + list(fields) + [key for key in beside if key[1]]
    for flow, place in sorted(dict.fromkeys(places), key=lambda key: flows.index(key[0])):
        for name, reading in (*fields.get((flow, place), {}).items(), *beside.get((flow, place), ())):
            yield Spot(flow, place, name), reading


def value_lines(probed: Sequence[Probed], *, only_wrong: bool = False) -> Iterator[str]:
    """The table of values; `only_wrong` leaves out the places of which nothing is wrong."""
    rows = [row for each in probed for row in _rows(each, only_wrong=only_wrong)]
    if rows:
        yield from table(_HEADER, rows)


def _rows(probed: Probed, *, only_wrong: bool) -> Iterator[tuple[str, ...]]:
    wrong = {(trouble.flow, trouble.place) for trouble in probed.troubles if trouble.grave}
    for spot, reading in values_of(probed):
        if only_wrong and (spot.flow, spot.place) not in wrong:
            continue
        if reading.source_ns is not None:
            when, age = moment_text(reading.source_ns), age_text((probed.at_ns - reading.source_ns) / 1e9)
        else:
            when, age = probed.marks.get((spot.flow, spot.place), "-"), "-"
        yield (_where(probed), spot.flow or "-", clean(spot.place) or "-", spot.name, value_text(reading.value), _quality(reading), when, age)  # fmt: skip


def _where(probed: Probed) -> str:
    return f"{probed.target.site}/{probed.target.name}"


def _quality(reading: Reading) -> str:
    return "absent" if reading.absent else reading.quality.value


def trouble_lines(probed: Sequence[Probed]) -> Iterator[str]:
    """Problems, then what is only good to know; what is the same for several places is said once."""
    for title, grave in (("Problems", True), ("Good to know", False)):
        lines = [line for each in probed for line in _told(each, grave=grave)]
        if lines:
            yield title
            yield from lines
            yield ""


def _told(probed: Probed, *, grave: bool) -> Iterator[str]:
    places: dict[Trouble, list[str]] = {}
    for trouble in probed.troubles:
        if trouble.grave is grave:
            alike = Trouble(text=trouble.text, hint=trouble.hint, flow=trouble.flow, name=trouble.name)
            places.setdefault(alike, []).append(trouble.place)
    for trouble, at in places.items():
        yield f"  {' '.join(part for part in (_where(probed), trouble.flow, _several(at), trouble.name) if part)}: {trouble.text}"
        if trouble.hint:
            yield f"      {trouble.hint}"


def _several(places: Sequence[str]) -> str:
    shown = ", ".join(clean(place) for place in places[:_SHOWN_PLACES])
    more = len(places) - _SHOWN_PLACES
    return f"{shown} and {more} more" if more > 0 else shown


def summary_lines(probed: Sequence[Probed]) -> Iterator[str]:
    """A line for each adapter, and the count of problems."""
    rows = []
    for each in probed:
        count = sum(1 for _ in values_of(each))
        amount = f"{_many(len(each.records), 'record')}, {_many(count, 'reading')}"
        verdict = _many(each.grave, "problem") if each.grave else "ok"
        rows.append((_where(each), each.target.adapter.protocol, verdict, amount, f"{each.took_s:.1f} s", each.said))
    yield from table(("SITE/ADAPTER", "PROTOCOL", "VERDICT", "READ", "TOOK", "WITH"), rows)
    yield _many(sum(each.grave for each in probed), "problem") + "; nothing was written"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def as_json(probed: Sequence[Probed]) -> str:
    """The same as JSON: times as ISO 8601, ages in seconds."""
    made = {"adapters": [_whole(each) for each in probed], "problems": sum(each.grave for each in probed)}
    return json.dumps(made, indent=2, ensure_ascii=False)


def _whole(probed: Probed) -> dict[str, Any]:
    return {
        "site": probed.target.site,
        "adapter": probed.target.name,
        "protocol": probed.target.adapter.protocol,
        "with": probed.said,
        "took_s": round(probed.took_s, 3),
        "values": [{**spot._asdict(), **_value(probed, spot, reading)} for spot, reading in values_of(probed)],
        "problems": [_trouble(trouble) for trouble in probed.troubles if trouble.grave],
        "notes": [_trouble(trouble) for trouble in probed.troubles if not trouble.grave],
    }


class _Value(NamedTuple):
    """A value in JSON: the time as ISO 8601, the age in seconds."""

    value: object
    quality: str
    absent: bool
    detail: str
    source_time: str | None
    age_s: float | None
    how: str


def _value(probed: Probed, spot: Spot, reading: Reading) -> dict[str, Any]:
    source = reading.source_ns
    return _Value(
        value=plain(reading.value),
        quality=reading.quality.value,
        absent=reading.absent,
        detail=reading.detail,
        source_time=None if source is None else iso_ms(source),
        age_s=None if source is None else round((probed.at_ns - source) / 1e9, 3),
        how=probed.marks.get((spot.flow, spot.place), ""),
    )._asdict()


def _trouble(trouble: Trouble) -> dict[str, str]:
    return {"flow": trouble.flow, "place": trouble.place, "name": trouble.name, "text": trouble.text, "hint": trouble.hint}  # fmt: skip


class Changes:
    """What differs from one look at an adapter to the next, as lines. The first look is told whole."""

    def __init__(self, *, json_lines: bool) -> None:
        self._json = json_lines
        self._values: dict[str, dict[Spot, Reading]] = {}
        self._troubles: dict[str, tuple[Trouble, ...]] = {}

    def lines(self, probed: Probed) -> Iterator[str]:
        """The lines of one look."""
        where = _where(probed)
        held = dict(values_of(probed))
        before, troubles = self._values.get(where), self._troubles.get(where, ())
        if before is None and not self._json:
            yield from self._first(probed)
        else:
            yield from self._moved(probed, before or {}, held)
            yield from self._news(probed, troubles)
        lost = not held and bool(
            before
        )  # what stood there before the link was lost is compared with what stands there after
        self._values[where] = before if lost and before is not None else held
        self._troubles[where] = tuple(probed.troubles)

    def _first(self, probed: Probed) -> Iterator[str]:
        yield from value_lines([probed])
        yield from trouble_lines([probed])
        *lines, _ = summary_lines([probed])
        yield lines[-1]

    def _moved(self, probed: Probed, before: Mapping[Spot, Reading], held: Mapping[Spot, Reading]) -> Iterator[str]:
        for spot, now in held.items():
            was = before.get(spot)
            if not spot.name.startswith(_DEVICE) and (was is None or _differs(was, now)):
                yield self._change(probed, spot, was, now)
        for spot, was in before.items() if held else ():
            if spot not in held:
                yield self._change(probed, spot, was, None)

    def _change(self, probed: Probed, spot: Spot, was: Reading | None, now: Reading | None) -> str:
        if self._json:
            told = {name: None if each is None else _value(probed, spot, each) for name, each in (("before", was), ("now", now))}  # fmt: skip
            return json.dumps({**_when(probed), **spot._asdict(), **told}, ensure_ascii=False)
        where = " ".join(part for part in (_where(probed), spot.flow, clean(spot.place), spot.name) if part)
        return f"{moment_text(probed.at_ns)}  {where}: {_brief(was)} -> {_brief(now)}"

    def _news(self, probed: Probed, before: Sequence[Trouble]) -> Iterator[str]:
        for word, troubles, known in (("problem", probed.troubles, before), ("well again", before, probed.troubles)):
            for trouble in troubles:
                if trouble.grave and trouble not in known:
                    yield self._told(probed, word, trouble)

    def _told(self, probed: Probed, word: str, trouble: Trouble) -> str:
        if self._json:
            return json.dumps({**_when(probed), word.replace(" ", "_"): _trouble(trouble)}, ensure_ascii=False)
        parts = (_where(probed), trouble.flow, clean(trouble.place), trouble.name)
        return f"{moment_text(probed.at_ns)}  {word}: {' '.join(part for part in parts if part)}: {trouble.text}"


def _when(probed: Probed) -> dict[str, str]:
    return {"time": iso_ms(probed.at_ns), "site": probed.target.site, "adapter": probed.target.name}


def _differs(was: Reading, now: Reading) -> bool:
    return (was.value, was.quality, was.absent) != (now.value, now.quality, now.absent)


def _brief(reading: Reading | None) -> str:
    if reading is None:
        return "(gone)"
    if reading.quality is Quality.GOOD and not reading.absent:
        return value_text(reading.value)
    return f"({_quality(reading)}{': ' + clean(reading.detail) if reading.detail else ''})"
