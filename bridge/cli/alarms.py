"""`smp-bridge alarms`: what needs a person, with what to do about it; and who knows of it."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.cli.journals import ByOption, ConfigOption, change, known_participant, known_site, loaded, read, whose
from bridge.config.kinds import clean
from bridge.journal.port import AlarmView

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What needs a person: list the alarms, each with what to do, or acknowledge one.",
)

_TEXT_CHARS: Final = 500


@app.command("list")
def list_(
    config: ConfigOption = Path("config"),
    all_: Annotated[bool, typer.Option("--all", help="Those that were cleared too.")] = False,
    participant: Annotated[str, typer.Option(help="Only those of this participant entry.")] = "",
    site: Annotated[str, typer.Option(help="Only those of this site.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List the alarms that stand, newest first: where, since when, how often, who knows, and what to do."""
    found = loaded(config)
    known_participant(found, participant)
    known_site(found, site)
    views = read(
        found,
        lambda journal: journal.alarms(open_only=not all_, participant=participant, site=site, limit=limit),
    )
    if as_json:
        print(json.dumps([asdict(view) for view in views], indent=2))
        return
    if not views:
        print("no alarm stands" if not all_ else "no alarm was ever raised")
    for view in views:
        print(_shown(view))


@app.command("ack")
def ack(
    alarm: Annotated[int, typer.Argument(help="The alarm's number, as `list` prints it.")],
    by: ByOption,
    config: ConfigOption = Path("config"),
    note: Annotated[str, typer.Option(help="What you know of it, for the next one on duty.")] = "",
) -> None:
    """Say that you know of an alarm. It stands until its cause is gone; raised again after that, it is a new one."""
    name = whose(by)
    print(_shown(change(loaded(config), lambda journal: journal.ack_alarm(alarm, name, note))))


def _shown(view: AlarmView) -> str:
    where = " ".join(part for part in (view.participant, view.site, view.subject) if part) or "the host"
    often = f", {view.count} times, last {_time(view.last_ns)}" if view.count > 1 else ""
    lines = [f"{view.id}  {view.code}  {clean(where, _TEXT_CHARS)}  since {_time(view.raised_ns)}{often}"]
    if view.cleared_ns:
        lines.append(f"cleared {_time(view.cleared_ns)}")
    if view.acked_ns:
        note = f": {clean(view.note, _TEXT_CHARS)}" if view.note else ""
        lines.append(f"acknowledged {_time(view.acked_ns)} by {clean(view.acked_by, _TEXT_CHARS)}{note}")
    if view.text:
        lines.append(clean(view.text, _TEXT_CHARS))
    if view.runbook:
        lines.append(f"do: {view.runbook}")
    return "\n    ".join(lines)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
