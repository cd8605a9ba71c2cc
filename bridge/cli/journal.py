"""`smp-bridge journal`: the journal's own care. Nothing here is needed from day to day."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.journals import ConfigOption, loaded
from bridge.clock import SystemClock
from bridge.journal.backup import BackupFacts, back_up, restore

app = typer.Typer(
    no_args_is_help=True,
    help="Care for the journal: prove that its evidence is whole, back it up, restore it, move old evidence to the archive.",
)


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="The new file to write; an existing one is never replaced.")],
    config: ConfigOption = Path("config"),
) -> None:
    """Write one consistent copy of the journal, beside the running service or without it, and check it.

    The archive's directory is copied by your own means, after this. Never back up the anchor: it has to stay where it is.
    """
    facts = back_up(loaded(config).host.journal.path, file)
    print(f"{file}: {_held(facts)}; checked")


@app.command("restore")
def restore_(
    file: Annotated[Path, typer.Argument(help="A file that `journal backup` wrote.")],
    config: ConfigOption = Path("config"),
) -> None:
    """Put a backup in the journal's place; the service must be stopped. The present journal is moved aside, never deleted.

    Afterwards the host reads and takes returns, but sends nothing until `journal reconcile`: what was sent after the backup is not in it.
    """
    done = restore(file, loaded(config).host.journal.path, SystemClock.here())
    print(f"restored: {_held(done.facts)}")
    print(f"the journal that was there: {done.aside or 'none'}")
    print("next: start the service (it holds everything), then `smp-bridge journal reconcile`")


def _held(facts: BackupFacts) -> str:
    until = datetime.fromtimestamp(facts.last_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if facts.last_ns else "-"
    size = f"{facts.bytes / 1e6:,.1f} MB"
    return f"{size}, {facts.submissions:,} submissions, {facts.events:,} events, the last one of {until}"
