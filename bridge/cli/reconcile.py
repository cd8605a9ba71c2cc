"""`smp-bridge journal reconcile`: let a host go on whose journal may be older than what was sent."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli import EXIT_FAILED
from bridge.cli.check import load_whole
from bridge.cli.journals import ByOption, ConfigOption, ReasonOption, change, decided, known_site
from bridge.clock import SystemClock
from bridge.reconcile import Reconciliation


def reconcile(
    by: ByOption,
    reason: ReasonOption,
    config: ConfigOption = Path("config"),
    skip: Annotated[
        list[str] | None,
        typer.Option(
            help="A site that cannot be read and is left out (may be given more than once); what waits of it is set aside."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Let a host go on whose journal is older than what was sent: after a restore, a copied machine, or a lost journal.

    Reads the transaction ids that every EMS shows, asks the platform for the status of those that the journal never heard of, makes what was
    registered known, and withdraws waiting requests for it. While an EMS or the platform cannot be asked, nothing is released. What waits and may have been sent where no EMS shows it (MQTT) is set aside for you.
    Works beside the running service; stop it first where a device takes one connection only.
    """
    decision = decided(by, reason)
    found = load_whole(config)
    for site in skip or []:
        known_site(found, site)
    report = change(
        found,
        lambda journal: Reconciliation(
            found, journal, decision, clock=SystemClock.here(), skip=skip or [], dry=dry_run, say=print
        ).run(),
        make=True,
    )
    for problem in report.problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    if report.problems:
        print("nothing was released; mend this and run it again, or leave a site out with --skip", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED)
