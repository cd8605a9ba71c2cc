"""The journal for commands: read beside a running service or without one, and changed by a person's word in the same way."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar

import typer

from bridge.cli.check import load_here
from bridge.clock import SystemClock, utc_ns
from bridge.config import Config
from bridge.ids import submission_ids
from bridge.journal import archive
from bridge.journal.approvals import same_person
from bridge.journal.configured import journal_exists, no_journal, open_configured_journal, open_configured_reader
from bridge.journal.keeper import KeptJournal
from bridge.journal.people import Decision
from bridge.journal.port import JournalReader

T = TypeVar("T")
_MOST_NS: Final = 2**63 - 1  # what a column holds: the year 2262; nothing is later
ConfigOption: TypeAlias = Annotated[Path, typer.Option(help="Directory that holds bridge.yaml and sites/*.yaml.")]
ByOption: TypeAlias = Annotated[str, typer.Option(help="Your name; the journal keeps it.")]
ReasonOption: TypeAlias = Annotated[str, typer.Option(help="Why; the journal keeps it.")]
ApprovedByOption: TypeAlias = Annotated[
    str, typer.Option(help="The second person's name, where the participant has `four_eyes: true`.")
]
ApprovedBecauseOption: TypeAlias = Annotated[str, typer.Option(help="The second person's reason.")]


def read(config: Config, ask: Callable[[JournalReader], Awaitable[T]]) -> T:
    """The result of `ask` on the configured journal, opened for reading only. Raises `JournalUnusable` where there is none."""

    async def inside() -> T:
        journal = await open_configured_reader(config.host.journal)
        try:
            return await ask(journal)
        finally:
            await journal.close()

    return asyncio.run(inside())


def change(config: Config, ask: Callable[[KeptJournal], Awaitable[T]], *, make: bool = False) -> T:
    """The result of `ask` on the configured journal. With `make` a journal that is not there yet is made; otherwise `JournalUnusable` is raised."""

    async def inside() -> T:
        clock, options = SystemClock.here(), config.host.journal
        if not make and not await journal_exists(options):
            raise no_journal(options)
        journal = await open_configured_journal(
            options, clock=clock, role="cli", new_id=submission_ids(clock), checkpoint=False
        )
        try:
            return await ask(journal)
        finally:
            await journal.close()

    return asyncio.run(inside())


def known_participant(config: Config, name: str) -> str:
    """This participant entry, which must exist when it is named; '' stays ''."""
    known = config.participants
    if name and name not in known:
        raise typer.BadParameter(f"{name} is not a participant; known are {', '.join(known)}")
    return name


async def remembered_participant(config: Config, journal: KeptJournal, name: str) -> None:
    """Raises `typer.BadParameter` unless this is a participant entry, or was one once: the journal keeps its evidence after it left the configuration."""
    if name not in config.participants and name not in await journal.evidence().read(archive.participants):
        known_participant(config, name)


def known_site(config: Config, name: str) -> str:
    """This site, which must exist when it is named; '' stays ''."""
    if name and name not in config.sites and name not in config.left_out:
        raise typer.BadParameter(f"{name} is not a site; known are {', '.join(config.sites)}")
    return name


def moment_option(option: str, text: str, *, last: bool) -> int:
    """UTC ns of a day (its begin, or its `last` moment) or a time that this option names."""
    try:
        at_ns = utc_ns(text, last=last)
    except ValueError:
        raise typer.BadParameter(
            f"{option} {text} is not a day or a time such as 2026-11-01 or 2026-11-01T08:00"
        ) from None
    return max(-_MOST_NS, min(_MOST_NS, at_ns))


def whose(by: str) -> str:
    """A person's name, which must not be empty."""
    if not by.strip():
        raise typer.BadParameter("--by must name somebody")
    return by.strip()


def decided(by: str, reason: str) -> Decision:
    """A person's decision, with a name and a reason that are not empty."""
    if not reason.strip():
        raise typer.BadParameter("--reason must say why")
    return Decision(by=whose(by), reason=reason.strip())


def second_person(first: Decision, by: str, because: str, *, four_eyes: bool) -> Decision:
    """Who decided, and who agreed where that is wanted: both names stand in the events. On this machine they are statements, as ever (decision 13).

    Raises `typer.BadParameter` where the second person is wanted and not named, gives no reason, or is the first one.
    """
    if not by and not because and not four_eyes:
        return first
    if not by.strip() or not because.strip():
        why = "this participant wants four eyes" if four_eyes else "a second person has a name and a reason"
        raise typer.BadParameter(f"{why}: give --approved-by and --approved-because too")
    if same_person(first.by, by):
        raise typer.BadParameter(f"{first.by} cannot approve it: a second person has to")
    more = {"approved_by": by.strip(), "approved_because": because.strip()}
    return Decision(by=first.by, reason=first.reason, more=more)


def loaded(config: Path) -> Config:
    """The configuration of this directory, for what works on the journal: neither a mistake in a site's file nor a secret that only the service has is a reason not to hold, look or prove.

    Raises `ConfigError`.
    """
    return load_here(config, tolerant=True, withheld=True)
