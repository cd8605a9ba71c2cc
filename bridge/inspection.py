"""What an adapter shows to the person who sets a site up: one look at everything that is configured, and what there is at all. Words only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bridge.clock import Clock
from bridge.model import Reading, Record
from bridge.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that a look found. `grave`: the bridge cannot work so; otherwise it is only good to know.

    `flow`, `place` and `name` (a field, or `submit.request`, `outcome.state` …) say where; what is '' means the whole.
    """

    text: str
    hint: str = ""
    flow: str = ""
    place: str = ""
    name: str = ""
    grave: bool = True


class Beside(NamedTuple):
    """A configured value that is no field of a record: a trigger (`submit.request`), a target (`outcome.state`), a word of the device itself (`adapter.magic`)."""

    flow: str
    place: str
    name: str
    reading: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look showed. `said`: with whom and how, in a few words.

    `records` are made as a session makes them, whether anybody asked for them or not; places where nobody lives are left out. `marks` say of a record,
    by flow and place, how it came (`retained`), where that is not the same for all.
    """

    said: str
    records: Sequence[Record] = ()
    beside: Sequence[Beside] = ()
    troubles: Sequence[Trouble] = ()
    marks: Mapping[tuple[str, str], str] = field(default_factory=dict)


class Probe(Protocol):
    """A connection that only reads, entered and left as an async context manager. It takes nothing away from a session that is open beside it."""

    async def look(self, wait_s: float) -> Look:
        """Read everything configured once, and never write. Where values only come by themselves, listen for `wait_s` seconds first.

        What is wrong with a part is a trouble, and the rest is read all the same. May be called again. Raises `LinkError` once the link is lost.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a person gives at the command line to be let in. `password_from` is how a site file would name the password: `{file: …}` or `{env: …}`."""

    user: str = ""
    password: Secret | None = None
    password_from: Mapping[str, str] = field(default_factory=dict)
    certificate: Path | None = None
    private_key: Path | None = None
    trusted: Sequence[Path] = ()
    policy: str = ""
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for. `start` is where to begin, in the adapter's own words (a node, a topic filter); `most` bounds what is shown.

    `wait_s` is how long to listen where things only come by themselves. `ranges` says what to scan, and `units` of whom, where nothing can be
    found without asking address by address: without `ranges` nothing is scanned there.
    """

    wait_s: float = 5.0
    start: str = ""
    ranges: Sequence[str] = ()
    units: Sequence[int] = ()
    most: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowDraft:
    """A flow as an adapter would write it for what it saw, without the payload. `examples` holds a value of each field as it was seen.

    `notes` are comments by path below the flow (`records.fields.kw`); a path in `open` is a guess or a placeholder that a person must look at.
    """

    name: str
    records: Mapping[str, Any]
    submit: Mapping[str, Any]
    outcome: Mapping[str, Any]
    examples: Mapping[str, object] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    open: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is. `columns` name the cells of `rows`. `adds` are options that the flows need beside those the connection was made with."""

    said: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    flows: Sequence[FlowDraft] = ()
    adds: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Browser(Protocol):
    """How an adapter shows what there is behind an address. It writes nothing, and reads no more than was asked for."""

    @property
    def schemes(self) -> Sequence[str]:
        """The URL schemes that are this adapter's, such as `opc.tcp`."""
        ...

    def options(self, url: str, credentials: Credentials) -> Mapping[str, Any]:
        """The options of `adapters.<name>` for a URL, as a site file would spell them; a secret as itself. Raises `ValueError` for an operator."""
        ...

    async def browse(self, options: Any, search: Search, clock: Clock) -> Seen:
        """Connect with these options (an instance of the adapter's model), look, and close. Raises `ValueError`, `LinkRefused` or `LinkError`."""
        ...
