"""`smp-bridge evidence erase` and `smp-bridge journal wipe`: remove a person's data from what was recorded, and what deleted rows left in the file."""

import asyncio
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.cli.journals import (
    ApprovedBecauseOption,
    ApprovedByOption,
    ByOption,
    ConfigOption,
    ReasonOption,
    decided,
    loaded,
    remembered_participant,
    second_person,
)
from bridge.clock import SystemClock
from bridge.config import Config
from bridge.config.host import JournalOptions
from bridge.errors import BridgeError, LeaseHeld
from bridge.ids import submission_ids
from bridge.journal import sealing
from bridge.journal.configured import journal_exists, no_journal, open_configured_journal, wipe_configured
from bridge.journal.eraser import Eraser, Erasure
from bridge.journal.erasing import UNWIPED
from bridge.journal.keeper import KeptJournal
from bridge.journal.people import Decision
from bridge.journal.sealing import SEALER
from bridge.journal.terms import Terms

_NAMED: Final = 20
_MPAN: Final = re.compile(r"\d[\d\s-]{12,}")
_MARK: Final = "\ufeff"  # which Windows' editors put before UTF-8
_LATER: Final = (
    "a service works on the journal, and what deleted rows left in free parts of its file is still there:\n"
    "stop the service, then run `smp-bridge journal wipe`"
)


@dataclass(frozen=True, slots=True)
class _Ended:
    found: Erasure
    wiped: bool | None
    """Whether nothing is left in the file; None where nothing was deleted since it was last written anew."""


def erase(
    participant: Annotated[str, typer.Option(help="Whose evidence.")],
    by: ByOption = "",
    reason: ReasonOption = "",
    mpan: Annotated[list[str] | None, typer.Option(help="The 13 digits of an MPAN core; may be repeated.")] = None,
    contact: Annotated[
        list[str] | None, typer.Option(help="A name, telephone number or e-mail address; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Read them from this file (- is the standard input), one a line: what is typed stays in a shell's history.",
        ),
    ] = None,
    approved_by: ApprovedByOption = "",
    approved_because: ApprovedBecauseOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go; nothing is changed.")] = False,
    config: ConfigOption = Path("config"),
) -> None:
    """Remove a person's data from the journal and its archive: the bytes of every call, answer, return and reading that hold them, with their nonces.

    Digests stand, so evidence stays whole: `verify` says "erased". Refused while a submission that holds them has not ended. It cannot be undone.
    Beside the service or without it; backups, exports and what an EMS or SMP holds are yours to look after (docs/data-protection.md).
    """
    read = loaded(config)
    mpans, contacts = list(mpan or ()), list(contact or ())
    for line in _lines(file) if file is not None else ():
        (mpans if _MPAN.fullmatch(line) else contacts).append(line)
    terms = Terms(mpans=mpans, contacts=contacts)
    entry = read.participants.get(participant)  # one that left the configuration is held as the strictest that is there
    four_eyes = any(one.options.four_eyes for one in ([entry] if entry else read.participants.values()))
    decision = (
        None if dry_run else second_person(decided(by, reason), approved_by, approved_because, four_eyes=four_eyes)
    )
    ended = asyncio.run(_erase(read, participant, terms, decision))
    _print(ended.found, dry_run=dry_run)
    if ended.wiped is not None:
        print(_LATER if not ended.wiped else "the journal's file holds nothing of it any more")


def wipe(config: ConfigOption = Path("config")) -> None:
    """Write the journal's file anew without anything that was deleted, and empty its log. Small ones beside the service, others while it is stopped."""
    options = loaded(config).host.journal
    if not asyncio.run(_wipe_alone(options)):
        raise BridgeError("a service works on this journal, which is large: it would wait", hint="stop it first")
    print("what was deleted is gone from the journal's file")


def _lines(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BridgeError(f"{file} cannot be read as UTF-8 text: {error}") from error
    return [line.strip() for line in text.removeprefix(_MARK).splitlines() if line.strip()]


async def _erase(config: Config, participant: str, terms: Terms, decision: Decision | None) -> _Ended:
    clock, options = SystemClock.here(), config.host.journal
    if not await journal_exists(options):
        raise no_journal(options)
    journal = await open_configured_journal(
        options, clock=clock, role="cli", new_id=submission_ids(clock), checkpoint=False
    )
    try:
        await remembered_participant(config, journal, participant)
        eraser = Eraser(options.archive_directory, evidence=journal.evidence(), journal=journal, clock=clock)
        if decision is None:
            return _Ended(await eraser.find(participant, terms), wiped=None)
        found = await eraser.erase(participant, terms, decision)
        owed = await journal.evidence().read(lambda rows: sealing.meta(rows, UNWIPED))  # of a run that was cut off, too
        return _Ended(found, wiped=None if found.nothing and owed is None else await _wipe(options, journal))
    finally:
        await journal.close()


async def _wipe_alone(options: JournalOptions) -> bool:
    clock = SystemClock.here()
    if not await journal_exists(options):
        raise no_journal(options)
    journal = await open_configured_journal(
        options, clock=clock, role="cli", new_id=submission_ids(clock), checkpoint=False
    )
    try:
        return await _wipe(options, journal)
    finally:
        await journal.close()


async def _wipe(options: JournalOptions, journal: KeptJournal) -> bool:
    """Whether nothing is left; the sealer's lease says whether a service works on it."""
    held = []
    with suppress(LeaseHeld):
        held.append(await journal.acquire(SEALER))
    try:
        done = await asyncio.to_thread(wipe_configured, options, alone=bool(held))
    finally:
        await journal.release(held)
    if done:
        await journal.evidence().write_beyond(partial(sealing.set_meta, name=UNWIPED, value=None))
    return done


def _print(found: Erasure, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if found.nothing:
        print("nothing holds it that could be erased")
    else:
        print(
            f"{would}erased: {found.pieces:,} pieces of bytes"
            f" ({found.pieces - len(found.blobs):,} of them in {len(found.segments):,} segments of the archive),"
            f" the content of {len(found.items.ids):,} items, {sum(map(len, found.texts.values())):,} texts"
        )
        subjects = found.subjects
        more = f" and {len(subjects) - _NAMED:,} more" if len(subjects) > _NAMED else ""
        print(f"of {', '.join(subjects[:_NAMED])}{more}")
    for name in found.left_over:
        print(f"{name}: {would or 'was '}deleted, a segment that was replaced")
    for what, count in sorted(found.stays.items()):
        print(f'stays: {count:,} of {what} (docs/data-protection.md, "What stays")')
