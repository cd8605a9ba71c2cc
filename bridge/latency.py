"""Stages from stamps: how long each hop took, and whether that figure may be used. Pure."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bridge.clock import Stamp
from bridge.model import HOPS

HOST_SHARE: Final = "host"


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
    """The stages of one record or submission in the order of their hops in time; hops that did not happen are left out.

    On the quiet path `signed` comes before `journalled`, under load after it, so neighbours are found by time, not by the list of names.
    """
    known = [(hop, stamps[hop]) for hop in HOPS if hop in stamps]
    if len({stamp.boot for _, stamp in known if stamp.boot}) <= 1:
        first = [entry for entry in known if not entry[1].boot]
        known = first + sorted((entry for entry in known if entry[1].boot), key=lambda entry: entry[1].mono_ns)
    return [between(known[index - 1][1], stamp, hop) for index, (hop, stamp) in enumerate(known) if index]


def host_share(stamps: Mapping[str, Stamp]) -> Stage | None:
    """The host's own share, received to first byte out; None before it is sent."""
    if "received" not in stamps or "sent" not in stamps:
        return None
    return between(stamps["received"], stamps["sent"], HOST_SHARE)
