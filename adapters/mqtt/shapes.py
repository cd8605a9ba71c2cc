"""Topics that are alike as one template: `acme/leeds/ems/asset/EV1/registration` and its like become `acme/leeds/ems/asset/{asset}/registration`. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.mqtt.sightings import Kind, Sighting
from adapters.mqtt.topics import template

ANY: Final = ""  # a level that varies; no level of a topic that is taken is empty
_MOST_VARYING: Final = 3
_ALIKE: Final = 0.5
_MOST_KINDS: Final = 20  # of messages at one place, to which the next is compared
_LEAST_ALONE: Final = 4  # fields of a topic that has no like
_THINGS: Final = frozenset(
    {"asset", "battery", "bess", "charger", "device", "evse", "inverter", "meter", "pv", "site", "unit"}
)
_TABLES: Final = frozenset({Kind.JSON, Kind.CSV, Kind.CSV_BARE})


@dataclass(slots=True)
class Shape:
    """Some topics that differ only where `levels` is `ANY`."""

    levels: tuple[str, ...]
    kind: Kind
    sightings: list[Sighting]

    @property
    def varying(self) -> tuple[int, ...]:
        """Where topics differ."""
        return tuple(at for at, level in enumerate(self.levels) if level == ANY)

    @property
    def values(self) -> Mapping[str, object]:
        """A value of each field of any of them."""
        found: dict[str, object] = {}
        for sighting in self.sightings:
            for name, value in sighting.values.items():
                if found.get(name) is None:
                    found[name] = value
        return found

    @property
    def text(self) -> str:
        """The template."""
        names = placeholder_names(self.levels)
        return "/".join(level or f"{{{names[at]}}}" for at, level in enumerate(self.levels))


def shapes(sightings: Sequence[Sighting]) -> list[Shape]:
    """Topics that were looked into, put together where they are alike; those that no template can name are left out."""
    found: dict[tuple[int, Kind], list[Shape]] = {}
    for sighting in sightings:
        levels = tuple(sighting.topic.split("/"))
        if nameable(sighting.topic) and sighting.kind in _TABLES | {Kind.PLAIN}:
            found.setdefault((len(levels), sighting.kind), []).append(Shape(levels, sighting.kind, [sighting]))
    made: list[Shape] = []
    for (_, kind), group in found.items():
        made += _merged(group) if kind in _TABLES else _merged_plain(group)
    return made


def nameable(topic: str) -> bool:
    """Whether a template can name this topic."""
    try:
        return not template(topic).names and all(topic.split("/"))
    except ValueError:
        return False


def alone(shape: Shape) -> Shape | None:
    """A topic that has no like, with a level for the asset all the same: the one after a word for such a thing, or the last but one. None where it is too small for a record."""
    if shape.varying:
        return shape
    if len(shape.levels) < 2 or shape.kind not in _TABLES or len(shape.values) < _LEAST_ALONE:
        return None
    things = [at for at, level in enumerate(shape.levels[:-1], 1) if _singular(level) in _THINGS]
    at = things[-1] if things else max(1, len(shape.levels) - 2)
    return Shape((*shape.levels[:at], ANY, *shape.levels[at + 1 :]), shape.kind, shape.sightings)


def placeholder_names(levels: Sequence[str]) -> dict[int, str]:
    """A name for each level that varies: the last one is the asset (or unit), those before it are the site, and whatever lies between."""
    varying = [at for at, level in enumerate(levels) if level == ANY]
    names: dict[int, str] = {}
    for number, at in enumerate(varying):
        if at == varying[-1]:
            names[at] = "unit" if at and _singular(levels[at - 1]) == "unit" else "asset"
        else:
            names[at] = "site" if number == 0 else f"level_{at + 1}"
    return names


def _merged(group: list[Shape]) -> list[Shape]:
    """Shapes of one length, merged level by level; the level with the most values of its own goes first."""
    for _ in range(_MOST_VARYING):
        best = max(_positions(group), key=lambda at: (_gain(group, at), at), default=None)
        if best is None or not _gain(group, best):
            break
        group = [shape for bucket in _buckets(group, best).values() for shape in _alike(bucket, best)]
    return group


def _merged_plain(group: list[Shape]) -> list[Shape]:
    """A value for itself lies below the level that varies, so the last level is none; one level varies, the first of several that could."""
    positions = [at for at in _positions(group) if at + 1 < len(group[0].levels)]
    best = max(positions, key=lambda at: (_gain(group, at), -at), default=None)
    if best is None or not _gain(group, best):
        return group
    return [shape for bucket in _buckets(group, best).values() for shape in _alike(bucket, best)]


def _positions(group: Sequence[Shape]) -> Sequence[int]:
    """A first level that varies tells apart whole systems, not assets."""
    return range(1, len(group[0].levels)) if group else ()


def _buckets(group: Sequence[Shape], at: int) -> dict[tuple[str, ...], list[Shape]]:
    found: dict[tuple[str, ...], list[Shape]] = {}
    for shape in group:
        found.setdefault((*shape.levels[:at], ANY, *shape.levels[at + 1 :]), []).append(shape)
    return found


def _gain(group: Sequence[Shape], at: int) -> int:
    """How many shapes fewer there would be."""
    return sum(len(bucket) - len(list(_alike(bucket, at))) for bucket in _buckets(group, at).values())


def _alike(bucket: Sequence[Shape], at: int) -> Iterator[Shape]:
    """Shapes that differ in this level alone, as one where their fields are nearly the same too."""
    groups: list[list[Shape]] = []
    for shape in bucket:
        for group in groups[:_MOST_KINDS]:
            if _overlap(group[0], shape) >= _ALIKE:
                group.append(shape)
                break
        else:
            groups.append([shape])
    for group in groups:
        if len(group) == 1:
            yield group[0]
        else:
            levels = (*group[0].levels[:at], ANY, *group[0].levels[at + 1 :])
            yield Shape(levels, group[0].kind, [sighting for shape in group for sighting in shape.sightings])


def _overlap(one: Shape, other: Shape) -> float:
    mine, theirs = set(one.values), set(other.values)
    return len(mine & theirs) / len(mine | theirs) if mine | theirs else 1.0


def _singular(level: str) -> str:
    text = re.sub(r"[^a-z]+", "", level.lower())
    return f"{text[:-3]}y" if text.endswith("ies") else text.removesuffix("s") if text != "bess" else text
