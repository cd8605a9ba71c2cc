"""The demo's live view in the terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bridge.demo.observer import Seen
from bridge.demo.play import Picture
from bridge.demo.record import Recorded
from bridge.journal.port import SubmissionView

NEWEST: Final = 8
_STATE_STYLES: Final = {"CONFIRMED": "green", "PARTIAL": "yellow", "AWAITING_RETURN": "cyan", "WAITING": "dim"}
HOP_MEANING: Final = {
    "received": "how long ago the EMS last changed a value",
    "mapped": "selected, mapped, validated",
    "journalled": "on disk",
    "signed": "rendered and signed",
    "sent": "first byte out to SMP",
    "answered": "SMP answered with a transaction id",
    "returned": "SMP pushed the batch return",
    "settled": "matched item by item, on disk",
    "written_back": "in the EMS, read back",
}


def draw(picture: Picture, directory: Path) -> RenderableType:
    """The whole view."""
    parts: list[RenderableType] = [Text(f"smp-bridge demo: {picture.phase}", style="bold"), _flows(picture.seen)]
    if picture.recorded is not None:
        parts += [_submissions(picture.recorded), stages_table(picture.recorded)]
    parts.append(Text(f"log, journal and settings of this run: {directory}    Ctrl-C ends the demo", style="dim"))
    return Group(*parts)


def _flows(seen: Sequence[Seen]) -> Table:
    table = Table(expand=False)
    table.add_column("site")
    table.add_column("protocol")
    table.add_column("flow")
    table.add_column("written back into the EMS", width=30)
    for heading in ("items", "registered", "refused", "waiting"):
        table.add_column(heading, justify="right")
    for one in seen:
        table.add_row(
            one.site,
            one.protocol,
            one.flow,
            ProgressBar(total=max(1, one.items), completed=one.written_back, width=30),
            str(one.items),
            Text(str(one.registered), style="green"),
            Text(str(one.refused), style="yellow" if one.refused else ""),
            str(one.unknown),
        )
    return table


def _submissions(recorded: Recorded) -> Table:
    states = ", ".join(f"{count} {state}" for state, count in sorted(recorded.by_state.items()))
    table = Table(title=f"Submissions: {states or 'none yet'}", title_justify="left")
    for heading in ("id", "state", "flow", "transaction"):
        table.add_column(heading)
    table.add_column("items", justify="right")
    table.add_column("sent", justify="right")
    for view in recorded.latest[:NEWEST]:
        table.add_row(*_submission(view), style=_STATE_STYLES.get(view.state.value, ""))
    return table


def _submission(view: SubmissionView) -> tuple[str, ...]:
    sent = view.stamps.get("sent")
    at = datetime.fromtimestamp(sent.wall_ns / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3] if sent else "-"
    return (view.id, view.state.value, f"{view.site}/{view.flow}", view.transaction_id or "-", str(view.items), at)


def stages_table(recorded: Recorded) -> Table:
    """Latency by stage, with the host's own share last."""
    table = Table(title="Latency per stage (ms), one figure per submission", title_justify="left")
    table.add_column("stage")
    table.add_column("until")
    for heading in ("count", "p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    rows = [(hop, HOP_MEANING.get(hop, ""), figures) for hop, figures in recorded.stages.items()]
    for hop, meaning, figures in rows:
        values = (figures.p50_ms, figures.p95_ms, figures.p99_ms, figures.max_ms)
        table.add_row(hop, meaning, str(figures.count), *(f"{value:.1f}" for value in values))
    host = recorded.host
    table.add_row(
        "host", "the bridge's own share: received to first byte out", str(host.count),
        *(f"{value:.1f}" for value in (host.p50_ms, host.p95_ms, host.p99_ms, host.max_ms)), style="bold",
    )  # fmt: skip
    return table
