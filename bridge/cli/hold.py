"""`smp-bridge hold` and `release`: stop what is sent, for a participant, an environment, a site or the whole host, and let it go on."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from bridge.cli.journals import (
    ByOption,
    ConfigOption,
    ReasonOption,
    change,
    decided,
    known_participant,
    known_site,
    loaded,
    read,
    second_person,
)
from bridge.config import Config
from bridge.config.host import Environment
from bridge.journal.people import Decision, HoldView, Scope
from bridge.journal.port import Journal

ParticipantOption: TypeAlias = Annotated[str, typer.Option(help="This participant entry.")]
EnvironmentOption: TypeAlias = Annotated[str, typer.Option(help="Every participant entry of this environment.")]
SiteOption: TypeAlias = Annotated[str, typer.Option(help="This site.")]
HostOption: TypeAlias = Annotated[bool, typer.Option("--host", help="Everything.")]


def hold(
    participant: ParticipantOption = "",
    environment: EnvironmentOption = "",
    site: SiteOption = "",
    host: HostOption = False,
    by: ByOption = "",
    reason: ReasonOption = "",
    list_: Annotated[bool, typer.Option("--list", help="Only show what is held.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: print JSON.")] = False,
    config: ConfigOption = Path("config"),
) -> None:
    """Send nothing more of a participant, an environment, a site or the whole host until `release`; reading and returns go on.

    Calls that are under way are finished. What waits keeps its place, and its deadline; the EMS is told that it is held.
    """
    found = loaded(config)
    if list_:
        _list(found, as_json=as_json)
        return
    scope, name = _scope(found, participant, environment, site, host=host)
    decision = decided(by, reason)
    new = change(found, lambda journal: _hold(journal, found, scope, name, decision), make=True)
    print(f"{_where(scope, name)}: {'held' if new else 'was held already'}")


def release(
    participant: ParticipantOption = "",
    environment: EnvironmentOption = "",
    site: SiteOption = "",
    host: HostOption = False,
    account: Annotated[
        str, typer.Option(help="The account of this participant entry, which three refused logins stopped.")
    ] = "",
    profile: Annotated[
        str, typer.Option(help="This participant entry, which is held because its profile changed: accept the new one.")
    ] = "",
    by: ByOption = "",
    reason: ReasonOption = "",
    approved_by: Annotated[str, typer.Option(help="With --profile: the second person's name.")] = "",
    approved_because: Annotated[str, typer.Option(help="With --profile: the second person's reason.")] = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Let what `hold` stopped go on, at once, at the pace that the profile allows; or (--account) log in again where three refusals stopped it.

    Where `four_eyes` is on, a participant whose profile changed waits for two people (--profile, with --approved-by and --approved-because).
    A host that holds because its journal is older than what was sent is released by `journal reconcile`.
    """
    found = loaded(config)
    decision = decided(by, reason)
    if profile:
        if participant or environment or site or host or account:
            raise typer.BadParameter("--profile stands alone")
        known_participant(found, profile)
        both = second_person(decision, approved_by, approved_because, four_eyes=True)
        accepted = change(found, lambda journal: journal.accept_profile(profile, both))
        print(f"profile of {profile}: accepted ({accepted})")
        return
    if account:
        if participant or environment or site or host:
            raise typer.BadParameter("--account stands alone")
        known_participant(found, account)
        change(found, lambda journal: journal.release_account(account, decision))
        print(f"account {account}: released")
        return
    scope, name = _scope(found, participant, environment, site, host=host)
    change(found, lambda journal: journal.release_hold(scope, name, decision))
    print(f"{_where(scope, name)}: released")


async def _hold(journal: Journal, config: Config, scope: Scope, name: str, decision: Decision) -> bool:
    await journal.introduce({entry.name: entry.options.environment.value for entry in config.participants.values()})
    return await journal.hold(scope, name, decision)


def _list(config: Config, *, as_json: bool) -> None:
    views = read(config, lambda journal: journal.holds())
    if as_json:
        print(json.dumps([{**asdict(view), "scope": view.scope.value} for view in views], indent=2))
        return
    if not views:
        print("nothing is held")
    for view in views:
        print(_shown(view))


def _shown(view: HoldView) -> str:
    since = datetime.fromtimestamp(view.held_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"{_where(view.scope, view.name):<32} since {since}  by {view.by}: {view.reason}"


def _where(scope: Scope, name: str) -> str:
    return f"{scope.value} {name}".rstrip()


def _scope(found: Config, participant: str, environment: str, site: str, *, host: bool) -> tuple[Scope, str]:
    given = [
        (Scope.PARTICIPANT, participant),
        (Scope.ENVIRONMENT, environment),
        (Scope.SITE, site),
        *([(Scope.HOST, "")] if host else []),
    ]
    chosen = [(scope, name) for scope, name in given if name or scope is Scope.HOST]
    if len(chosen) != 1:
        raise typer.BadParameter("give exactly one of --participant, --environment, --site and --host")
    known_participant(found, participant)
    known_site(found, site)
    known = [item.value for item in Environment]
    if environment and environment not in known:
        raise typer.BadParameter(f"{environment} is not an environment; known are {', '.join(known)}")
    return chosen[0]
