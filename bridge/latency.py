"""Stages from stamps: how long each hop took, and whether that figure may be used. Pure."""

import enum
from collections.abc import Mapping
from itertools import groupby
from typing import Final, NamedTuple

from bridge.clock import Stamp
from bridge.model import HOPS

HOST_SHARE: Final = "host"
SOURCE: Final = "source"
_HOST_HOPS: Final = tuple(hop for hop in HOPS if hop != SOURCE)


class Wait(enum.Enum):
    """What kept a submission from leaving that is not the host's own doing; such a wait is counted by its cause and is no part of the host's share."""

    RETRY = "retry"  # a further attempt
    RESEND = (
        "resend"  # sent again by a person, as a copy of refused company, or because the platform recognises repeats
    )
    CIRCUIT = "circuit"  # sending was paused
    CLOCK = "clock"  # signing was held
    HOLD = "hold"  # a person held it
    MEMBERS = "members"  # a unit waited for its assets
    SET_ASIDE = "set_aside"  # it waited for a person
    BOOT = "boot"  # received before a start of the machine, or on another one: only wall time spans that


class Stage(NamedTuple):
    """One stage, named by the hop that ends it. `exact` is False when it spans processes or boots: then wall time was used, and histograms leave it out."""

    hop: str
    ns: int
    exact: bool


def between(before: Stamp, after: Stamp, hop: str) -> Stage:
    """The stage from one stamp to a later one: monotonic time within one boot, else wall time, flagged."""
    if before.boot and before.boot == after.boot:
        return Stage(hop, max(0, after.mono_ns - before.mono_ns), exact=True)
    return Stage(hop, after.wall_ns - before.wall_ns, exact=False)


def stages(stamps: Mapping[str, Stamp]) -> list[Stage]:
    """The stages of one record or submission by the host's own clock, in the order of their hops in time; hops that did not happen are left out.

    The source's own time is another clock and begins no stage (see `source_difference_ns`).
    On the quiet path `signed` comes before `journalled`, under load after it, so neighbours are found by time, not by the list of names.
    """
    seen = [(hop, stamps[hop]) for hop in _HOST_HOPS if hop in stamps]
    known: list[tuple[str, Stamp]] = []
    if len({stamp.boot for _, stamp in seen}) == 1:
        known = sorted(seen, key=lambda entry: entry[1].mono_ns)
    else:
        for _, run in groupby(seen, key=lambda entry: entry[1].boot):
            known += sorted(run, key=lambda entry: entry[1].mono_ns)
    return [between(known[index - 1][1], stamp, hop) for index, (hop, stamp) in enumerate(known) if index]


def host_share(stamps: Mapping[str, Stamp]) -> Stage | None:
    """The host's own share, received to first byte out; None before it is sent."""
    if "received" not in stamps or "sent" not in stamps:
        return None
    return between(stamps["received"], stamps["sent"], HOST_SHARE)


class Bar(NamedTuple):
    """One stage of a waterfall: when it began after the first hop, how long it took, its part of the whole (0 to 1), and whether it is the slowest."""

    hop: str
    start_ns: int
    ns: int
    share: float
    exact: bool
    slowest: bool


def waterfall(stamps: Mapping[str, Stamp]) -> list[Bar]:
    """The stages one after the other."""
    found = stages(stamps)
    total_ns = sum(max(0, stage.ns) for stage in found)
    longest = max(found, key=lambda stage: stage.ns, default=None)
    bars, start_ns = [], 0
    for stage in found:
        share = max(0, stage.ns) / total_ns if total_ns else 0.0
        bars.append(Bar(stage.hop, start_ns, stage.ns, share, stage.exact, stage is longest))
        start_ns += max(0, stage.ns)
    return bars


def source_difference_ns(stamps: Mapping[str, Stamp]) -> int | None:
    """The host's clock at `received` less the source's own time: delay and difference of the two clocks together; None without a source time."""
    if SOURCE not in stamps or "received" not in stamps:
        return None
    return stamps["received"].wall_ns - stamps[SOURCE].wall_ns
