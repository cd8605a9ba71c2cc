"""What the bridge's own journal says of the demo: outcomes by flow, submissions by state, latency by stage."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.journal.port import JournalReader, SubmissionView
from bridge.latency import host_share, stages
from bridge.model import HOPS, ItemState

MOST: Final = 10_000
READ_BACK: Final = "read_back_ok"
WRITTEN: Final = frozenset({"written", READ_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A distribution in milliseconds."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, values_ns: Sequence[int]) -> "Figures":
        """Nearest-rank percentiles; all zero when there are no values."""
        ordered = sorted(values_ns)

        def rank(share: float) -> float:
            return round(ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)] / 1e6, 3) if ordered else 0.0

        return cls(count=len(ordered), p50_ms=rank(0.5), p95_ms=rank(0.95), p99_ms=rank(0.99), max_ms=rank(1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRecord:
    """One flow as the journal holds it."""

    items: int = 0
    registered: int = 0
    refused: int = 0
    unknown: int = 0
    written_back: int = 0
    read_back_ok: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The whole journal, counted."""

    flows: Mapping[tuple[str, str], FlowRecord]
    by_state: Mapping[str, int]
    stages: Mapping[str, Figures]
    host: Figures
    latest: Sequence[SubmissionView] = field(default_factory=tuple)

    @property
    def total(self) -> int:
        """All submissions."""
        return sum(self.by_state.values())


async def read(journal: JournalReader) -> Recorded:
    """Count a journal."""
    views = await journal.submissions(limit=MOST)
    counted: dict[tuple[str, str], Counter[str]] = {}
    for view in views:
        for item in await journal.submission_items(view.id):
            count = counted.setdefault((item.site, item.flow), Counter())
            count["items"] += 1
            count[item.state.value] += 1
            count["written_back"] += item.written_back in WRITTEN
            count["read_back_ok"] += item.written_back == READ_BACK
    return Recorded(
        flows={key: _flow(count) for key, count in counted.items()},
        by_state=dict(Counter(view.state.value for view in views)),
        stages=_stages(views),
        host=Figures.of([share.ns for view in views if (share := host_share(view.stamps)) is not None]),
        latest=tuple(views),
    )


def _flow(count: Counter[str]) -> FlowRecord:
    return FlowRecord(
        items=count["items"],
        registered=count[ItemState.REGISTERED.value],
        refused=count[ItemState.REFUSED.value],
        unknown=count["items"] - count[ItemState.REGISTERED.value] - count[ItemState.REFUSED.value],
        written_back=count["written_back"],
        read_back_ok=count["read_back_ok"],
    )


def _stages(views: Sequence[SubmissionView]) -> dict[str, Figures]:
    found: dict[str, list[int]] = {}
    for view in views:
        for stage in stages(view.stamps):
            found.setdefault(stage.hop, []).append(stage.ns)
    return {hop: Figures.of(found[hop]) for hop in HOPS if hop in found}
