"""Read a configuration directory: `bridge.yaml` and `sites/*.yaml`. Everything wrong is reported at once; nothing is repaired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bridge.api import InUse, Selection
from bridge.config.adapters import AdapterFinder
from bridge.config.document import Document
from bridge.config.host import HostOptions, Participant, ParticipantOptions, ProfileOptions
from bridge.config.references import Outside
from bridge.config.seals import check_seals
from bridge.config.site import AdapterConfig, SiteConfig
from bridge.config.sites import SiteReader, located
from bridge.config.tracing import NEEDS, installed
from bridge.config.tree import Loc, Tree
from bridge.config.values import check_name
from bridge.errors import ConfigError, Problem
from bridge.profile import Profile, load_profile
from bridge.vocabulary import Vocabulary, load_vocabulary

HOST_FILE: Final = "bridge.yaml"
SITES: Final = "sites"
PROFILE: Final = "profile"
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - an address is compared, nothing is bound
HINT: Final = "Nothing was started; correct the places above and run `smp-bridge check` again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration, checked. `exposed` names the files of keys and secrets that are not their owner's alone; with any, nothing may start.

    `host_tree` is `bridge.yaml` with the place of every key, for what is found wrong later.
    `left_out` are the sites whose files are wrong, each with what is: none, unless whoever loads wants to go on without them.
    """

    directory: Path
    host_tree: Tree
    host: HostOptions
    participants: Mapping[str, Participant]
    sites: Mapping[str, SiteConfig]
    vocabulary: Vocabulary
    exposed: tuple[Problem, ...] = ()
    left_out: Mapping[str, Sequence[Problem]] = field(default_factory=dict)


def load(
    directory: Path,
    adapters: AdapterFinder,
    *,
    environ: Mapping[str, str],
    credentials_directory: Path | None = None,
    only: str = "",
    tolerant: bool = False,
    withheld: bool = False,
) -> Config:
    """Read and check a configuration. Raises `ConfigError` with every problem found, each with its file, line and column.

    `only` names the one site that is of interest: what is wrong with the files of others is then no hindrance. `tolerant`: nor is it with any site's.
    `withheld`: nor is a secret or a file of `bridge.yaml` that cannot be had here; whoever uses such a secret then gets a `ConfigError`.
    """
    outside = Outside(environ=environ, credentials=credentials_directory)
    adapters = cache(adapters)  # looking one up reads what every installed package says of itself
    vocabulary = load_vocabulary()
    problems: list[Problem] = []
    tree, host, participants = _host(directory, replace(outside, withheld=withheld), problems)
    left_out: dict[str, Sequence[Problem]] = {}
    sites = _sites(directory, outside, adapters, _Known(vocabulary, participants, only), problems, left_out)
    if not tolerant:
        problems.extend(problem for found in left_out.values() for problem in found)
    if problems or host is None:
        raise ConfigError(_in_order(problems), hint=HINT)
    return Config(
        directory=directory,
        host_tree=tree,
        host=host,
        participants={name: found for name, found in participants.items() if found is not None},
        sites=sites,
        vocabulary=vocabulary,
        exposed=tuple(_in_order(outside.exposed)),
        left_out=left_out,
    )


def _in_order(problems: list[Problem]) -> list[Problem]:
    """By file in the order of reading, then as the file runs; each once."""
    files = list(dict.fromkeys(problem.file for problem in problems))
    return sorted(
        dict.fromkeys(problems), key=lambda problem: (files.index(problem.file), problem.line, problem.column)
    )


@dataclass(frozen=True, slots=True)
class _Known:
    vocabulary: Vocabulary
    participants: Mapping[str, Participant | None]
    only: str = ""


def _host(
    directory: Path, outside: Outside, problems: list[Problem]
) -> tuple[Tree, HostOptions | None, dict[str, Participant | None]]:
    path = directory / HOST_FILE
    if not path.is_file():
        problems.append(Problem(text=f"there is no {HOST_FILE}; name the directory that holds it", file=str(directory)))
        return Tree(file=str(path), directory=directory), None, {}
    document = Document.open(path, str(path), outside)
    if document.tree.value is None:
        problems.extend(document.problems)
        return document.tree, None, {}
    host = document.read(HostOptions, ())
    participants = {name: _participant(document, name) for name in document.mapping(("participants",))}
    if host is not None and not participants:
        document.wrong(("participants",), "names nobody; add a participant")
    if host is not None:
        _check_returns(document, host, participants)
        _check_ports(document, host)
        _check_journal(document, host)
        if host.tracing is not None and not installed():
            document.wrong(("tracing",), NEEDS, at_key=True)
    problems.extend(document.problems)
    return document.tree, host, participants


def _participant(document: Document, name: str) -> Participant | None:
    """One entry with its profile: a shipped one by its name, or a file beside `bridge.yaml`."""
    loc = ("participants", name)
    wrong = check_name(name)
    if wrong:
        document.wrong(loc, wrong, at_key=True)
    options = document.read(ParticipantOptions, loc)
    given = document.mapping(loc)
    others = tuple(key for key in given if key != PROFILE)
    word = document.read(ProfileOptions, loc, without=others) if options is None else options
    profile = None if word is None else _profile(document, (*loc, PROFILE), word.profile)
    named = {key for key, value in given.items() if value is not None}
    if profile is not None:
        check_seals(document, loc, profile, named)
    if not named & {"signing_key", "hsm"}:
        text = "`signing_key` is missing; add it (the file of a private key), or `hsm` (a key in a hardware module)"
        document.wrong(loc, text, at_key=True)
    if options is None or profile is None:
        return None
    return Participant(name=name, options=options, profile=profile)


def _profile(document: Document, loc: Loc, word: str) -> Profile | None:
    is_file = "/" in word or word.endswith((".yaml", ".yml"))
    try:
        return load_profile(document.tree.directory / word if is_file else word)
    except ConfigError as error:
        for problem in error.problems:
            document.wrong(loc, f"the profile {word} is not usable: {problem}")
    return None


def _check_returns(document: Document, host: HostOptions, participants: Mapping[str, Participant | None]) -> None:
    pushed = [name for name, found in participants.items() if found is not None and found.profile.pushes_returns]
    if pushed and host.listeners.returns is None:
        document.wrong(
            ("listeners",),
            f"`returns` is missing: the profile of {', '.join(pushed)} has SMP push returns to us; add it, or use a profile with `returns: poll`",
        )


def _check_ports(document: Document, host: HostOptions) -> None:
    returns, admin = host.listeners.returns, host.listeners.admin
    if returns is None or not returns.port or returns.port != admin.port:
        return
    if returns.host == admin.host or not _EVERYWHERE.isdisjoint({returns.host, admin.host}):
        text = f"{admin.port} is the port of `returns` too; give each listener a port of its own"
        document.wrong(("listeners", "admin", "port"), text)


def _check_journal(document: Document, host: HostOptions) -> None:
    if host.journal.postgres is not None and find_spec("psycopg") is None:
        text = "needs the package psycopg: pip install 'smp-bridge[postgres]', or from the source: pip install '.[postgres]'"
        document.wrong(("journal", "postgres"), text, at_key=True)


def _site_files(directory: Path, problems: list[Problem]) -> list[Path]:
    """The files of sites, by name; a problem where there are none, or where this user may not look."""
    text = "holds no site; put one YAML file per site there"
    found: list[Path] = []
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix in {".yaml", ".yml"})
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        text = f"cannot be looked into: {error.strerror}"
    if not found:
        problems.append(Problem(text=text, file=str(directory)))
    return found


def _sites(
    directory: Path,
    outside: Outside,
    adapters: AdapterFinder,
    known: _Known,
    problems: list[Problem],
    left_out: dict[str, Sequence[Problem]],
) -> dict[str, SiteConfig]:
    sites: dict[str, SiteConfig] = {}
    named: dict[str, Path] = {}
    documents: list[tuple[Path, Document]] = []
    read: list[tuple[Document, SiteConfig]] = []
    paths = _site_files(directory / SITES, problems)
    for path in paths:
        document = Document.open(path, str(path), outside)
        if known.only and document.tree.at(("site",)) != known.only and path.stem != known.only:
            named.setdefault(str(document.tree.at(("site",)) or path.stem), path)
            continue
        if document.tree.value is not None:
            site = SiteReader(document, adapters, known.vocabulary, known.participants).read(path)
            name = document.tree.at(("site",))
            first = named.setdefault(name, path) if isinstance(name, str) else path
            if first != path:
                document.wrong(("site",), f"the site {name} stands in {first} already; give it another name")
            elif site is not None:
                sites[site.name] = site
                read.append((document, site))
        documents.append((path, document))
    _check_beside(read)
    for path, document in documents:
        if document.problems:
            name = str(document.tree.at(("site",)) or path.stem)
            left_out[name] = [*left_out.get(name, ()), *document.problems]
            sites.pop(name, None)
    if known.only and known.only not in named and not (problems or left_out):
        text = f"there is no site {known.only}; the sites are {', '.join(sorted(named))}"
        problems.append(Problem(text=text, file=str(directory / SITES)))
    return sites


def _check_beside(read: Sequence[tuple[Document, SiteConfig]]) -> None:
    """What only shows when the adapters of one protocol are laid side by side, whichever site they belong to."""
    groups: dict[str, list[tuple[Document, SiteConfig, AdapterConfig]]] = {}
    for document, site in read:
        for item in site.adapters.values():
            groups.setdefault(item.adapter.protocol, []).append((document, site, item))
    for members in groups.values():
        look = members[0][2].adapter.check_beside
        given = [InUse(item.options, _selections(site, item.name)) for _, site, item in members]
        for clash in look(given) if look is not None else ():
            document, _, item = members[clash.second]
            _, site, other = members[clash.first]
            text = f"{clash.text} (the other is adapters.{other.name} of {site.file.name})"
            document.wrong(located(document, clash.path, item.name), text)


def _selections(site: SiteConfig, adapter: str) -> list[Selection]:
    """The flows of a site that use this adapter."""
    return [flow.selection() for flow in site.flows.values() if flow.adapter == adapter]
