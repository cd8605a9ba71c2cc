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
WIDE: Final = 110
TALL: Final = 44
MIDDLING: Final = 27
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


def draw(picture: Picture, directory: Path, *, pages: str, width: int, height: int) -> RenderableType:
    """The whole view, or as much of it as this many columns and lines hold. `pages` is their address, '' as long as nobody knows it."""
    head = Text(f"smp-bridge demo: {picture.phase}", style="bold").append("    Ctrl-C ends it", style="dim")
    parts: list[RenderableType] = [head, _flows(picture.seen, bar=30 if width >= WIDE else 8)]
    if picture.recorded is not None:
        if height >= TALL and width >= WIDE:
            parts.append(_submissions(picture.recorded))
        if height >= MIDDLING:
            parts.append(stages_table(picture.recorded, meanings=width >= WIDE))
    if pages:
        parts.append(Text(f"pages: {pages}", style="dim"))
    parts.append(Text(f"log, journal and settings of this run: {directory}", style="dim"))
    return Group(*parts)


def _flows(seen: Sequence[Seen], *, bar: int) -> Table:
    table = Table(expand=False)
    table.add_column("site")
    if bar == 30:
        table.add_column("protocol")
    table.add_column("flow")
    table.add_column("written back into the EMS" if bar == 30 else "told EMS", width=bar)
    for heading in ("items", "registered", "refused", "waiting"):
        table.add_column(heading, justify="right")
    for one in seen:
        table.add_row(
            one.site,
            *([one.protocol] if bar == 30 else []),
            one.flow,
            ProgressBar(total=max(1, one.items), completed=one.written_back, width=bar),
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


def stages_table(recorded: Recorded, *, meanings: bool = True) -> Table:
    """Latency by stage, with the host's own share last."""
    table = Table(title="Latency per stage (ms), one figure per submission", title_justify="left")
    table.add_column("stage")
    if meanings:
        table.add_column("until")
    for heading in ("count", "p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    rows = [(hop, HOP_MEANING.get(hop, ""), figures) for hop, figures in recorded.stages.items()]
    for hop, meaning, figures in rows:
        values = (figures.p50_ms, figures.p95_ms, figures.p99_ms, figures.max_ms)
        until = [meaning] if meanings else []
        table.add_row(hop, *until, str(figures.count), *(f"{value:.1f}" for value in values))
    host = recorded.host
    shown = (
        [f"{value:.1f}" for value in (host.p50_ms, host.p95_ms, host.p99_ms, host.max_ms)] if host.count else ["-"] * 4
    )
    until = ["the bridge's own share: received to first byte out"] if meanings else []
    table.add_row("host", *until, str(host.count), *shown, style="bold")
    return table
