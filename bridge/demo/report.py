"""The demo's report: what the witness saw beside what the journal says, and everything in which they differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from bridge.demo.observer import Seen
from bridge.demo.record import Figures, FlowRecord, Recorded

# FAILED only says that SMP refused every item of that call, as when a refused asset travels alone.
ENDED: Final = frozenset({"CONFIRMED", "PARTIAL", "FAILED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of one demo. `missing` names everything that is not as it should be; none means that all went well."""

    seed: int
    seen: Sequence[Seen]
    recorded: Recorded
    missing: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    def as_dict(self) -> dict[str, object]:
        """The report as it is written to a file."""
        return {
            "ok": self.ok,
            "seed": self.seed,
            "flows": [_flow(seen, self._record(seen)) for seen in self.seen],
            "submissions": {"total": self.recorded.total, "by_state": dict(self.recorded.by_state)},
            "stages": {hop: asdict(figures) for hop, figures in self.recorded.stages.items()},
            "host_latency": _percentiles(self.recorded.host),
            "missing": list(self.missing),
        }

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """The summary for a person."""
        table = Table(title="What became of every record", title_justify="left")
        for heading in ("site", "protocol", "flow"):
            table.add_column(heading)
        for heading in ("items", "registered", "refused", "unknown", "written back", "read back"):
            table.add_column(heading, justify="right")
        for seen in self.seen:
            read_back = "-" if not _reads_back(seen) else str(self._record(seen).read_back_ok)
            counts = (seen.items, seen.registered, seen.refused, seen.unknown, seen.written_back)
            table.add_row(seen.site, seen.protocol, seen.flow, *map(str, counts), read_back)
        return table

    def _record(self, seen: Seen) -> FlowRecord:
        return self.recorded.flows.get((seen.site, seen.flow), FlowRecord())


def judge(
    seed: int, seen: Sequence[Seen], recorded: Recorded, *, expected: Mapping[tuple[str, str], tuple[int, int]]
) -> Report:
    """Compare. `expected` gives (items, refused) by site and flow."""
    missing = [text for one in seen for text in _differences(one, recorded, expected)]
    if len(seen) < len(expected):
        missing.append(f"{len(seen)} of {len(expected)} flows were seen")
    open_states = set(recorded.by_state) - ENDED
    missing += [f"{recorded.by_state[state]} submissions are {state}" for state in sorted(open_states)]
    return Report(seed=seed, seen=seen, recorded=recorded, missing=missing)


def _differences(seen: Seen, recorded: Recorded, expected: Mapping[tuple[str, str], tuple[int, int]]) -> list[str]:
    where = f"{seen.site}/{seen.flow}"
    held = recorded.flows.get((seen.site, seen.flow), FlowRecord())
    items, refused = expected[seen.site, seen.flow]
    found = [
        f"{where}: {count} {what}, expected {wanted}"
        for what, count, wanted in (
            ("items", seen.items, items),
            ("registered", seen.registered, items - refused),
            ("refused", seen.refused, refused),
            ("unknown", seen.unknown, 0),
            ("written back", seen.written_back, items),
            ("created twice", seen.created_twice, 0),
        )
        if count != wanted
    ]
    found += [
        f"{where}: {what} {getattr(seen, what)}, but the journal says {getattr(held, what)}"
        for what in ("items", "registered", "refused", "unknown", "written_back")
        if getattr(seen, what) != getattr(held, what)
    ]
    if _reads_back(seen) and held.read_back_ok != seen.items:
        found.append(f"{where}: {held.read_back_ok} of {seen.items} outcomes were read back from the EMS")
    return found


def _reads_back(seen: Seen) -> bool:
    """MQTT has nothing to read back: the message was delivered."""
    return seen.protocol != "mqtt"


def _flow(seen: Seen, held: FlowRecord) -> dict[str, object]:
    counts = {name: getattr(seen, name) for name in ("items", "registered", "refused", "unknown", "written_back")}
    names = {name: getattr(seen, name) for name in ("site", "protocol", "flow", "operation")}
    return {**names, **counts, "read_back_ok": held.read_back_ok if _reads_back(seen) else None}


def _percentiles(figures: Figures) -> dict[str, float]:
    return {"p50_ms": figures.p50_ms, "p95_ms": figures.p95_ms, "p99_ms": figures.p99_ms}
