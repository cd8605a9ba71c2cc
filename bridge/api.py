"""The adapter contract: all that an adapter's author imports.

An adapter is a package with `config.py` (options, pure), `codec.py` (bytes or nodes to values, pure), `session.py` (the only file that
touches the protocol library) and an `ADAPTER` of type `Adapter`, named by an entry point in the group `smp_bridge.adapters`.
The core owns timing, reconnect with backoff and jitter, health and metrics; an adapter only opens, receives, reads and writes.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, NamedTuple, Protocol, TypeVar, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, FilePath

from bridge.clock import Clock, Stamp
from bridge.errors import ConfigError, LinkError, LinkRefused, Problem, RetryLater
from bridge.inspection import Beside, Browser, Credentials, FlowDraft, Look, Probe, Search, Seen, Trouble
from bridge.model import UNMAPPED_ERROR_CODE, EmsState, HostReason, Quality, Reading, Record, Trigger, ValueKind
from bridge.peers import Certified, OnExpired, PeerCertificate, has_expired, load_own, shown, unseen, without_dates
from bridge.secret import Secret

__all__ = [
    "ENTRY_POINT_GROUP",
    "MOST_REPLY",
    "OUTCOME_FIELDS",
    "UNMAPPED_ERROR_CODE",
    "Adapter",
    "Address",
    "AlarmWord",
    "Arrival",
    "Beside",
    "Browser",
    "CatchingUp",
    "Certified",
    "Clash",
    "Clock",
    "Code",
    "ConfigError",
    "Credentials",
    "EmsState",
    "FlowDraft",
    "Guess",
    "HostName",
    "HostReason",
    "InUse",
    "Intervals",
    "LinkError",
    "LinkRefused",
    "Look",
    "OnExpired",
    "Options",
    "Outcome",
    "OutcomeField",
    "PeerCertificate",
    "Private",
    "PrivateFile",
    "Probe",
    "Problem",
    "Quality",
    "Reading",
    "Record",
    "RecordsOptions",
    "RetryLater",
    "Search",
    "Secret",
    "Seen",
    "Selection",
    "Session",
    "SessionContext",
    "Stamp",
    "Torn",
    "Trigger",
    "Trouble",
    "ValueKind",
    "WordSession",
    "Write",
    "Written",
    "fit_transaction_id",
    "has_expired",
    "load_own",
    "read_guarded",
    "shown",
    "tls_certificates",
    "unseen",
    "without_dates",
]

ENTRY_POINT_GROUP: Final = "smp_bridge.adapters"
MOST_REPLY: Final = 8192
"""Characters of a record's `reply`; an adapter leaves out what is longer and says so."""


class Options(BaseModel):
    """Base of every options model: unknown keys are errors, values are frozen, secrets are `Secret`."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Private:
    """Marks a file that belongs to its owner alone: the host does not start while group or others can read or change it."""


PrivateFile = Annotated[FilePath, Private]
"""An existing file with a private key."""


def _host_alone(text: str) -> str:
    try:
        alone = ":" not in text or bool(ip_address(text))
    except ValueError:
        alone = False
    if not alone or not text.isprintable() or any(sign in text for sign in " /[]@"):
        raise ValueError(
            "must be a name or an address alone, such as ems.acme.example, 10.0.0.5 or fd00::5; `port` is a key of its own, and what a scheme would say has keys of its own too"
        )
    return text


HostName = Annotated[str, AfterValidator(_host_alone)]
"""A host without scheme, user, port or path."""


class RecordsOptions(Options):
    """Base of a flow's `records:`. `key` names the field whose value is the record's key; `fields` maps field names to the adapter's own addresses."""

    key: str
    fields: Mapping[str, Any]


class OutcomeField(enum.Enum):
    """What an adapter may be asked to write back, spelled as in a site's `outcome:`.

    The value handed to `Session.write` is: STATE a `Code` (number and word), TRANSACTION_ID text, ERROR_CODE a `Code` (number mapped by the
    site, text as SMP or the host spells it), ERROR_TEXT a tuple of lines, ERROR_COUNT an int, ASSET_ID text, UPDATED_AT UTC nanoseconds,
    REQUEST text ('' where none), ALARM a bool.
    """

    STATE = "state"
    TRANSACTION_ID = "transactionId"
    ERROR_CODE = "errorCode"
    ERROR_TEXT = "errorText"
    ERROR_COUNT = "errorCount"
    ASSET_ID = "assetId"
    UPDATED_AT = "updatedAt"
    REQUEST = "requestId"
    ALARM = "alarm"


OUTCOME_FIELDS: Final = tuple(item.value for item in OutcomeField)


class Outcome(Options):
    """Base of a flow's `outcome:`. `progress` also writes the words before the final one (received, sent)."""

    progress: bool = True


class Code(NamedTuple):
    """A word of a table in both its forms; the adapter writes the one that its target's type takes."""

    number: int
    text: str


class Address(NamedTuple):
    """One value of one place, in the flow's own words: a name of `records.fields`, or an `OutcomeField` for a target of `outcome:`."""

    flow: str
    place: str
    name: str | OutcomeField


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One value to write. All writes of one (flow, place) in one call belong to one outcome; `request` is the request it answers, `reply` the `Record.reply` of that request."""

    address: Address
    value: object
    request: str | None = None
    reply: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one write: the value as the EMS's own type holds it (cut, converted), or the error of that one address."""

    address: Address
    value: object = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Records that came together and are acknowledged together.

    The core calls `ack(True)` once they are on disk, in the order in which `receive` returned the arrivals, and `ack(False)` when they cannot
    be read as a request at all. `ack` only starts the protocol's own acknowledgement: it does not block, wait or raise; it does nothing after the session is closed.
    """

    records: Sequence[Record]
    ack: Callable[[bool], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """One flow as an adapter sees it. `records`, `submit` and `outcome` are instances of the adapter's own models.

    `numbers` are those that the host may write as a state or an error code, by what each stands for; `check` is given them.
    `awaiting` (trigger `message` only) maps a place to the request ids that the journal still holds without their registration: when the
    place's registration arrives, the session returns one complete record for each of them.
    """

    flow: str
    trigger: Trigger
    records: Any
    submit: Any
    outcome: Any
    awaiting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: Mapping[OutcomeField, Mapping[str, int]] = field(default_factory=dict)


class Intervals:
    """Where a session may tell of its rhythm; optional, for what is not told is not shown. Names are the adapter's own, a few words such as `poll`.

    Neither call waits or raises, and both are cheap enough for each poll. This base keeps nothing.
    """

    def agreed(self, name: str, *, configured_s: float, revised_s: float | None = None) -> None:
        """At opening: an interval in seconds as the site file has it, and as the server revised it (None where no server does)."""

    def achieved(self, name: str, seconds: float) -> None:
        """It came round once more, so long after the time before: the start of a poll after that of the last one, say."""


def _uncounted(_count: int) -> None:
    """Where nobody counts what was lost."""


def _unheard(_text: str) -> None:
    """Where nobody hears what is left out."""


def _unprepared(_record: Record) -> None:
    """Where nobody looks at a record before it arrives."""


class SessionContext(NamedTuple):
    """What a session is opened with. `heard()` is called whenever a good value arrived (health is the age of the last one); see `Intervals`.

    `lost(count)` is called when the EMS says that it could not keep so many changes until they were fetched.
    `certified(certificate)` is called at each connect of a link that is secured, with the end of the certificate that the EMS showed: the core closes the session then, or tells.
    `ahead(record)` may be called for a record that is read while others of its arrival are not: the core maps it while the adapter waits for the EMS.
    It never raises. The record that arrives holds the very same `fields` and `problem`; one that never arrives is forgotten.
    `beyond(text)` is called when the EMS offers more than the adapter keeps, with what is left out; it is an alarm for as long as the session lasts.
    """

    site: str
    adapter: str
    options: Any
    selections: Sequence[Selection]
    clock: Clock
    heard: Callable[[], None]
    client_id: str = ""
    word: Any = None
    intervals: Intervals = Intervals()
    lost: Callable[[int], None] = _uncounted
    beyond: Callable[[str], None] = _unheard
    certified: Certified = unseen
    ahead: Callable[[Record], None] = _unprepared


class AlarmWord(NamedTuple):
    """The alarms of a site as one value: a bit set of 16 bits (docs/alarms.md), the same as words, and when it was made (UTC ns)."""

    bits: int
    words: tuple[str, ...]
    at_ns: int


class Session(Protocol):
    """One connection of an adapter, entered and left as an async context manager, used once.

    Opening: the context manager's `__aenter__` connects, checks that every configured address exists, and subscribes; it raises `LinkRefused` (credentials,
    trust, policy) or `LinkError` (everything else). The core puts an outer deadline around it and opens a new session with backoff and jitter.
    Every call below may raise `LinkError`; the core then leaves this session and opens a new one. Cancellation of any call also ends the session.
    `read` and `write` may be called while `receive` waits, by one other task at a time.
    """

    can_read: bool

    async def receive(self) -> Sequence[Arrival]:
        """Wait for the next records and return them in the order of arrival, at least one and as many as are there (bounded by the adapter).

        After opening, a state protocol (OPC UA, Modbus) first returns every place whose trigger asks for a submission; whether a request is new is the
        core's decision, so nothing is lost when a notification was. `request`: a record is returned when its trigger or sequence moved and the
        trigger is not zero, read under `read_guarded`. `change`: every record once after opening, then whenever one of its fields changes.
        `message`: each request at once, complete when its registration is known.
        """
        ...

    async def read(self, addresses: Sequence[Address]) -> Sequence[Reading]:
        """Read these now, one reading each in the same order; an address that cannot be read is a BAD reading. Not called when `can_read` is False."""
        ...

    async def write(self, writes: Sequence[Write]) -> Sequence[Written]:
        """Write these, one result each in the same order; one bad address never stops the others.

        Refuses (as an error of that address) whatever is not inside the adapter's `writable:`.
        """
        ...


@runtime_checkable
class WordSession(Protocol):
    """What a session of an adapter with `Adapter.word` can do besides, when it was opened with a `word`."""

    async def write_word(self, word: AlarmWord) -> str:
        """Write the site's alarm word to the `word` address, read it back where the protocol can, and return '' or why it does not stand there.

        An address that is missing, not writable or of the wrong type is such a text, never a reason to refuse the session: outcomes go on without it.
        May be called while `receive` waits, never beside `read` or `write`. May raise `LinkError`.
        """
        ...


@runtime_checkable
class CatchingUp(Protocol):
    """What a session can do besides where messages may stand in line between EMS and host."""

    async def caught_up(self) -> None:
        """Return once everything that the EMS had said before this call has come, or after a minute; asked before a request is refused for what is missing.

        May be called while `receive` waits, also beside `read` or `write`. May raise `LinkError`.
        """
        ...


AnyOptions = TypeVar("AnyOptions", bound=Options)


@runtime_checkable
class ListsPlaces(Protocol):
    """A session that can name every place of a flow, whether anything was requested there or not; optional."""

    def places(self, flow: str) -> Sequence[str]:
        """The places, in the EMS's own order, as `Record.place` names them."""
        ...


class CertificateRole(enum.Enum):
    """What a certificate must be able to do. OPC_UA asks for an application URI and RSA (OPC 10000-6, 6.2.2), USER only for RSA, the others for what TLS asks."""

    OPC_UA = "OPC UA application"
    USER = "OPC UA user"
    TLS_CLIENT = "TLS client"
    TLS_SERVER = "TLS server"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateUse:
    """Files that one link is protected by, for `smp-bridge certificates doctor`; nothing is read before it asks.

    `path` is the key of the options that holds them. `certificate` and `private_key` are ours; `application_uri` is the one that ours must carry,
    None where any will do. `trusted` files and the files of `trust` say whom we believe: the peers themselves or their authorities
    (OPC_UA), authorities alone (TLS). `warning` says why a link is not protected although it works.
    """

    path: str
    role: CertificateRole
    certificate: Path | None = None
    private_key: Path | None = None
    application_uri: str | None = None
    trusted: tuple[Path, ...] = ()
    trust: Path | None = None
    warning: str = ""


def tls_certificates(tls: Any, warning: str) -> Sequence[CertificateUse]:
    """The files of options `tls:` with `ca`, `certificate` and `private_key`: who vouches for the peer and who we are. `warning` says what it means that there are none."""
    if tls is None:
        return [CertificateUse(path="tls", role=CertificateRole.TLS_CLIENT, warning=warning)]
    if tls.ca is None and tls.certificate is None:
        return []
    trusted = (tls.ca,) if tls.ca is not None else ()
    own = {"certificate": tls.certificate, "private_key": tls.private_key}
    return [CertificateUse(path="tls", role=CertificateRole.TLS_CLIENT, trusted=trusted, **own)]


class Guess(NamedTuple):
    """One meaning that bytes could have."""

    type: str
    order: str
    value: object


class Codec(Protocol):
    """An adapter's own way from bytes off the wire to values, for a person at a command line; pure. Types and orders are spelled as in a site file."""

    @property
    def types(self) -> Sequence[str]:
        """Every type that there is."""
        ...

    def decode(self, raw: bytes, *, type_: str, order: str, bit: int | None) -> object:
        """The value of these bytes: int, float, text, bool, an aware date-time, or a tuple of numbers. `type_` is one of `types`, `order` '' is the default.

        Raises `ValueError` that says what is wrong and what would be right.
        """
        ...

    def guesses(self, raw: bytes) -> Sequence[Guess]:
        """What these bytes could mean, the most plausible first, each value once for each type. Raises `ValueError`."""
        ...


class InUse(NamedTuple):
    """One adapter of a site: its options, and the flows that use it."""

    options: Any
    selections: Sequence[Selection]


class Clash(NamedTuple):
    """Two adapters that cannot both be as they are: their positions in what was given, and of the second one what is wrong and would be right, and where.

    `path` is relative to the second adapter (`adapter.…`) or to a flow of it (`flows.<flow>.…`), as in `Adapter.check`.
    """

    first: int
    second: int
    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What an entry point in `smp_bridge.adapters` names.

    `options` validates `adapters.<name>` without `protocol`; `records`, `submit` (by trigger, without `when`) and `outcome` validate the parts of a flow.
    `check` is pure: it returns what no model can see alone (an outcome address outside `writable:`, an address that does not fit its type),
    each problem's `path` relative to the adapter (`adapter.…`) or to the flow (`flows.<flow>.…`).
    `kinds` is pure: what kind of value each field of these records becomes, as far as the site file tells; a field that it does not name may be anything.
    `check_beside` is pure: of all adapters of this protocol, in all sites, it returns those that cannot work beside each other.
    `open` imports the protocol library only when called. `readable` is what `can_read` of its sessions will be.
    `word` validates the address of a site's alarm word (`alarms.word`), for adapters whose sessions are `WordSession`s; `check_word` is pure and
    returns what is wrong with it beside the options and flows, each problem's `path` beginning with `alarms.word`.
    `certificates` is pure and names the files that protect a link of these options. `handshake` connects until both sides know each other, says in
    a few words with whom and how, and closes; it reads no record and writes nothing. It raises `LinkRefused` or `LinkError` as `open` does.
    `codec` is for protocols whose values are bytes that a person may have to make sense of.
    `probe` opens a connection of its own that only reads, beside the session of a running bridge and without taking anything from it; it raises as `open`
    does, but only where there is no connection at all. `browser` shows what there is behind an address.
    """

    protocol: str
    summary: str
    options: type[Options]
    records: type[RecordsOptions]
    submit: Mapping[Trigger, type[Options]]
    outcome: type[Outcome]
    check: Callable[[Any, Sequence[Selection]], Sequence[Problem]]
    open: Callable[[SessionContext], AbstractAsyncContextManager[Session]]
    word: type[Options] | None = None
    check_word: Callable[[Any, Sequence[Selection], Any], Sequence[Problem]] | None = None
    readable: bool = True
    certificates: Callable[[Any], Sequence[CertificateUse]] | None = None
    handshake: Callable[[SessionContext], Awaitable[str]] | None = None
    codec: Codec | None = None
    probe: Callable[[SessionContext], AbstractAsyncContextManager[Probe]] | None = None
    browser: Browser | None = None
    check_beside: Callable[[Sequence[InUse]], Sequence[Clash]] | None = None
    kinds: Callable[[Any], Mapping[str, ValueKind]] | None = None

    api_version: ClassVar[int] = 1


class Torn(Exception):
    """The sequence moved in each of the attempts: the record is torn and must be refused, not used."""


T = TypeVar("T")


async def read_guarded(
    sequence: Callable[[], Awaitable[int]], record: Callable[[], Awaitable[T]], *, attempts: int = 3
) -> tuple[int, T]:
    """Read sequence, record, sequence again until both sequences agree; the torn-read guard that all adapters share (DOMAIN 6).

    Raises `Torn` when they differ in every attempt.
    """
    before = await sequence()
    for _ in range(attempts):
        value = await record()
        after = await sequence()
        if after == before:
            return after, value
        before = after
    raise Torn


def fit_transaction_id(text: str, limit: int) -> str:
    """A transaction id that fits `limit` characters: itself, or `#` and 17 hex digits of its SHA-256 (DESIGN, "The adapter contract"), cut to the limit."""
    if len(text) <= limit:
        return text
    from hashlib import sha256  # noqa: PLC0415 - only on the rare long id

    return ("#" + sha256(text.encode()).hexdigest()[:17])[:limit]
