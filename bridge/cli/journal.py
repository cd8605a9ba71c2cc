"""`smp-bridge journal`: the journal's own care. Nothing here is needed from day to day."""

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli import EXIT_FAILED
from bridge.cli.erase import wipe
from bridge.cli.journals import ConfigOption, loaded
from bridge.cli.reconcile import reconcile
from bridge.clock import SystemClock
from bridge.config.host import JournalOptions
from bridge.config.values import duration_s
from bridge.errors import LeaseHeld
from bridge.ids import submission_ids
from bridge.journal.archiver import Archiver, ArchiveReport, ArchiverSettings
from bridge.journal.backup import BackupFacts, back_up, restore
from bridge.journal.cases import ReaderCases
from bridge.journal.configured import (
    journal_exists,
    journal_file,
    no_journal,
    open_configured_journal,
    open_configured_reader,
)
from bridge.journal.sealing import SEALER
from bridge.journal.verify import ChainReport, VerifyReport, verify

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Care for the journal: prove that its evidence is whole, back it up, restore it, move old evidence to the archive.",
)


@app.command("verify")
def verify_(
    config: ConfigOption = Path("config"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Compute all sealed evidence again, in the journal and in its archive, beside the running service or without it.

    Exit status 1: something is not as it was sealed.
    """
    report = asyncio.run(_verify(loaded(config).host.journal))
    if as_json:
        print(json.dumps(asdict(report), indent=2, default=lambda value: value.value))
    else:
        _print_report(report)
    if report.faults:
        raise typer.Exit(EXIT_FAILED)


@app.command("archive")
def archive_(
    config: ConfigOption = Path("config"),
    older_than: Annotated[
        str,
        typer.Option(
            help="Move settled evidence older than this, such as 30d or 12h; default `journal.archive_after`."
        ),
    ] = "",
) -> None:
    """Move old settled evidence to compressed segments, beside the running service or without it. What is not settled stays.

    The journal's file does not become smaller: its free pages are used again before it grows.
    """
    options = loaded(config).host.journal
    report, used = asyncio.run(_archive(options, _age(older_than, options.archive_after)))
    if not report.segments:
        print(f"nothing to move; {used / 1e6:,.1f} MB are used")
        return
    print(
        f"{report.events:,} events in {report.blocks:,} blocks moved to {report.segments} segments in {options.archive_directory}:"
        f" {report.raw_bytes / 1e6:,.1f} MB became {report.bytes / 1e6:,.1f} MB; {used / 1e6:,.1f} MB are used in the journal"
    )


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="The new file to write; an existing one is never replaced.")],
    config: ConfigOption = Path("config"),
) -> None:
    """Write one consistent copy of the journal, beside the running service or without it, and check it.

    The archive's directory is copied by your own means, after this. Never back up the anchor: it has to stay where it is.
    """
    facts = back_up(journal_file(loaded(config).host.journal), file)
    print(f"{file}: {_held(facts)}; checked")


@app.command("restore")
def restore_(
    file: Annotated[Path, typer.Argument(help="A file that `journal backup` wrote.")],
    config: ConfigOption = Path("config"),
) -> None:
    """Put a backup in the journal's place; the service must be stopped. The present journal is moved aside, never deleted.

    Afterwards the host reads and takes returns, but sends nothing until `journal reconcile`: what was sent after the backup is not in it.
    """
    done = restore(file, journal_file(loaded(config).host.journal), SystemClock.here())
    print(f"restored: {_held(done.facts)}")
    print(f"the journal that was there: {done.aside or 'none'}")
    print("next: start the service (it holds everything), then `smp-bridge journal reconcile`")


async def _verify(options: JournalOptions) -> VerifyReport:
    reader = await open_configured_reader(options)
    try:
        assert isinstance(reader, ReaderCases)
        return await verify(
            reader.snapshot, archive_directory=options.archive_directory, anchor_file=options.anchor_file
        )
    finally:
        await reader.close()


async def _archive(options: JournalOptions, age_s: float) -> tuple[ArchiveReport, int]:
    if not await journal_exists(options):
        raise no_journal(options)
    clock = SystemClock.here()
    journal = await open_configured_journal(options, clock=clock, role="cli", new_id=submission_ids(clock))
    try:
        evidence = journal.evidence()
        with suppress(LeaseHeld):  # the service seals
            sealer = await journal.acquire(SEALER)
            while (await evidence.seal(sealer)).events:
                pass
            await journal.release([sealer])
        settings = ArchiverSettings(directory=options.archive_directory, after_s=age_s)
        report = await Archiver(settings, evidence=evidence, journal=journal, clock=clock).archive(age_s)
        return report, await evidence.used_bytes()
    finally:
        await journal.close()


def _age(text: str, otherwise: float) -> float:
    if not text:
        return otherwise
    try:
        return duration_s(text)
    except ValueError as error:
        raise typer.BadParameter(f"--older-than {error}") from None


app.command("reconcile")(reconcile)
app.command("wipe")(wipe)


def _print_report(report: VerifyReport) -> None:
    for chain in report.chains:
        archived = f", {chain.archived:,} of them in the archive" if chain.archived else ""
        print(
            f"{chain.participant or '(host)'}: {chain.blocks:,} blocks{archived}; {chain.events:,} events, {_span(chain)}"
        )
        if chain.retired:
            print(f"  {chain.retired:,} blocks before them are retired: older than `journal.retention`")
        if chain.erased:
            print(f"  the bytes of {chain.erased:,} are erased; their digests stand")
        if chain.unsealed:
            print(f"  {chain.unsealed:,} events wait for their block")
    for name in report.unlisted:
        print(f"{name}: not in the journal's list (a run was cut off, or a backup replaced the journal); left alone")
    if report.anchor is not None:
        print(f"anchor: {report.anchor.verdict.value}: {report.anchor.text}")
    for fault in report.faults:
        print(f"FAULT {' '.join(part for part in (fault.participant, fault.place) if part)}: {fault.text}")
    print(f"{len(report.faults)} faults" if report.faults else "everything is as it was sealed")


def _span(chain: ChainReport) -> str:
    return f"{_day(chain.first_ns)} to {_day(chain.last_ns)}" if chain.blocks else "-"


def _day(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _held(facts: BackupFacts) -> str:
    until = datetime.fromtimestamp(facts.last_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if facts.last_ns else "-"
    size = f"{facts.bytes / 1e6:,.1f} MB"
    return f"{size}, {facts.submissions:,} submissions, {facts.events:,} events, the last one of {until}"
