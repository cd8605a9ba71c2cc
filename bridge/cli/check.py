"""`smp-bridge check`: read a configuration and say everything that is wrong with it, without any network."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.cli.placeholders import DONE, left
from bridge.config import AdapterFinder, Config, load
from bridge.errors import ConfigError, Problem
from bridge.material import problems_of
from bridge.registry import find

DISTRIBUTION: Final = "smp-bridge"
PACKAGES: Final = ("bridge", "adapters")
EXIT_PROBLEMS: Final = 2
_MODULE: Final = re.compile(rf'^"?({"|".join(PACKAGES)})/[^\n]*?\.py(?=[",])', re.MULTILINE)


def owners() -> dict[str, list[str]]:
    """Which installed distributions hold our import packages. `importlib.metadata.packages_distributions` tells it of all packages, in ten times the time."""
    found: dict[str, list[str]] = {}
    for distribution in distributions():
        declared = set((distribution.read_text("top_level.txt") or "").split())
        held = (declared or _installed(distribution)).intersection(PACKAGES)
        for package in held:
            found.setdefault(package, []).append(distribution.metadata["Name"])
    return found


def _installed(distribution: Distribution) -> set[str]:
    """The packages of ours that it holds modules of. Its list of files is looked through as text: as paths they cost a twentieth of a second at each start."""
    listed = distribution.read_text("RECORD")
    if listed is None:
        return {file.parts[0] for file in distribution.files or () if file.suffix == ".py"}
    return set(_MODULE.findall(listed))


def foreign_owners(distributions: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Another distribution that owns one of our two import packages overwrites our files when it is installed beside ours."""
    return [
        Problem(
            text=f"the package `{owner}` also installs a top-level `{package}` and may have overwritten ours; "
            f"install {DISTRIBUTION} into a virtual environment of its own"
        )
        for package in PACKAGES
        for owner in sorted(set(distributions.get(package, ())))
        if owner.lower().replace("_", "-") != DISTRIBUTION
    ]


def load_here(
    config: Path,
    *,
    find_adapter: AdapterFinder = find,
    environ: Mapping[str, str] | None = None,
    only: str = "",
    tolerant: bool = False,
    withheld: bool = False,
) -> Config:
    """The configuration of this machine and process: its environment, its systemd credentials, its installed adapters. Raises `ConfigError`.

    `only` names the one site that is of interest; `tolerant` goes on without the sites whose files are wrong, and says so on standard error;
    `withheld` without the secrets and files of `bridge.yaml` that cannot be had here, until one is used.
    """
    strangers = foreign_owners(owners())
    if strangers:
        raise ConfigError(strangers)
    variables = os.environ if environ is None else environ
    credentials = variables.get("CREDENTIALS_DIRECTORY")
    found = load(
        config,
        find_adapter,
        environ=variables,
        credentials_directory=Path(credentials) if credentials else None,
        only=only,
        tolerant=tolerant,
        withheld=withheld,
    )
    for name, problems in found.left_out.items():
        text = f"warning: site {name} is left out, {len(problems)} problem{'' if len(problems) == 1 else 's'}: `smp-bridge check` says what is wrong"
        print(text, file=sys.stderr)
    return found


def load_whole(config: Path, *, find_adapter: AdapterFinder = find, environ: Mapping[str, str] | None = None) -> Config:
    """Like `load_here`, with the keys and certificates that it names read too: what a host needs to start. Raises `ConfigError`."""
    found = load_here(config, find_adapter=find_adapter, environ=environ)
    problems = [*found.exposed, *problems_of(found)]
    if problems:
        raise ConfigError(problems, hint="Nothing was started.")
    return found


def summary(config: Config) -> str:
    """What a good configuration holds, a line each."""
    lines = [f"OK  {config.directory}"]
    for participant in config.participants.values():
        options, profile = participant.options, participant.profile
        lines.append(
            f"participant {participant.name}: {options.sender} in {options.environment.value} at {options.base_url}, "
            f"profile {profile.name} {profile.version}"
        )
    for site in config.sites.values():
        lines.append(f"site {site.name} ({site.file.name})")
        lines.extend(f"  adapter {item.name}: {item.adapter.protocol}" for item in site.adapters.values())
        lines.extend(
            f"  flow {flow.name}: {flow.operation.value} by {flow.trigger.value} through {flow.adapter} for {flow.participant}, "
            f"{len(flow.payload)} fields"
            for flow in site.flows.values()
        )
    return "\n".join(lines)


def report(error: ConfigError) -> str:
    """Every problem, a line each, and what to do next."""
    count = len(error.problems)
    lines = [str(problem) for problem in error.problems]
    lines.append(f"{count} problem{'' if count == 1 else 's'}. {error.hint}".rstrip())
    return "\n".join(lines)


def examine(config: Path, *, find_adapter: AdapterFinder = find, environ: Mapping[str, str] | None = None) -> int:
    """Check a configuration directory, print the result, and return the exit code: 0, or 2 with every problem on standard error."""
    try:
        found = load_whole(config, find_adapter=find_adapter, environ=environ)
    except ConfigError as error:
        print(report(error), file=sys.stderr)
        return EXIT_PROBLEMS
    print(summary(found))
    drafts = left(found)
    if drafts:
        lines = [str(problem) for problem in drafts]
        lines.append(
            f"warning: {len(drafts)} placeholders of a draft are left, and `smp-bridge run` refuses it. {DONE}"
        )
        print("\n".join(lines), file=sys.stderr)
    return 0


def check(
    config: Annotated[
        Path, typer.Option("--config", help="The directory that holds bridge.yaml and sites/.", show_default=True)
    ] = Path("config"),
) -> None:
    """Read the configuration and report everything that is wrong with it, each with file, line and column.

    Nothing is started and nobody is called. A draft of `smp-bridge browse` is accepted, with a warning for each PLACEHOLDER that is left in it.
    Exits 0 when all is well and 2 when something has to be corrected.
    """
    raise typer.Exit(examine(config))
