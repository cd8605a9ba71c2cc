"""The words of the bridge as values: readings, records, states, outcomes. Standard library only, no I/O."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bridge.clock import Stamp


class Quality(enum.Enum):
    """What the EMS says of a value. Only GOOD is ever used in a submission."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


class Reading(NamedTuple):
    """One value with quality, source time (UTC ns, None where the protocol has none) and a short detail for a bad one.

    `absent` marks a value that the EMS does not have at all (no such JSON member, null); a flow's `default:` may stand in for it, never for a bad value.
    """

    value: object
    quality: Quality = Quality.GOOD
    source_ns: int | None = None
    detail: str = ""
    absent: bool = False


class Trigger(enum.Enum):
    """When a flow submits a record (`submit: {when: …}`)."""

    REQUEST = "request"
    CHANGE = "change"
    MESSAGE = "message"


class Record(NamedTuple):
    """The readings of one asset or unit, read together at one place of the EMS.

    `place` names where in the EMS (a browse path, a slot number as text, a topic's own part); it is never the key.
    `request` is the sequence or request id that asked for it, as text; None under `change`.
    `complete` is False only for a `message` request whose retained registration has not arrived yet: `fields` is empty then.
    `problem` says why the record as a whole cannot be used (torn read, bad UTF-8, unreadable block); its readings may be missing then.
    `raw` holds the bytes as they came (registers big-endian, MQTT payload), for evidence; empty where values are the raw form.
    `reply` is what the request says about its own answer, in the adapter's own words (at most `bridge.api.MOST_REPLY` characters): the journal
    keeps it with the request, and each `Write` that answers the request brings it back.
    """

    flow: str
    place: str
    fields: Mapping[str, Reading]
    received: Stamp
    request: str | None = None
    complete: bool = True
    problem: str = ""
    raw: bytes = b""
    reply: str = ""


class Kind(enum.Enum):
    """What an item is; each kind has its own Create call."""

    ASSET = "asset"
    UNIT = "unit"

    __hash__ = object.__hash__  # the enum's own is Python, and each record is looked up by its kind several times


class Operation(enum.Enum):
    """What a flow asks of SMP."""

    ASSET_CREATE = "asset.create"
    UNIT_CREATE = "unit.create"

    __hash__ = object.__hash__  # the enum's own is Python, and each call is looked up by it several times

    kind: Kind
    """The kind of item this operation creates; set below, for a property would cost a call at each look."""


for _operation in Operation:
    _operation.kind = Kind(_operation.value.partition(".")[0])


class EmsState(enum.IntEnum):
    """The state word written into the EMS (DESIGN, "The adapter contract"); a site may map the numbers."""

    IDLE = 0
    RECEIVED = 1
    SENT = 2
    REGISTERED = 3
    REFUSED = 4
    IN_DOUBT = 5
    UNKNOWN = 6
    REFUSED_BY_HOST = 7
    EXPIRED = 8
    CANCELLED = 9
    DRIFT = 10
    HELD = 11

    @property
    def word(self) -> str:
        """The state as text, for protocols that carry words."""
        return self.name.lower()

    @property
    def final(self) -> bool:
        """Whether the EMS need not expect another word by itself."""
        return self not in (EmsState.IDLE, EmsState.RECEIVED, EmsState.SENT, EmsState.IN_DOUBT, EmsState.HELD)


class HostReason(enum.IntEnum):
    """The host's own refusal codes, fixed for ever; SMP's own codes are text and are mapped by the site (default 9999)."""

    BAD_QUALITY = 9001
    WRONG_TYPE = 9002
    NOT_A_NUMBER = 9003
    TEXT_NOT_ALLOWED = 9004
    TORN_RECORD = 9005
    MISSING_VALUE = 9006
    UNMAPPED_VALUE = 9007
    SCHEMA = 9008
    IDENTIFIER = 9009
    RULE = 9010
    NO_KEY = 9011
    DUPLICATE_KEY = 9012
    NO_REGISTRATION = 9013
    UNREADABLE = 9014
    TOO_LARGE = 9015
    MEMBER_REFUSED = 9016
    MEMBER_UNKNOWN = 9017
    BATCH_REFUSED = 9018
    DRIFT = 9019
    EXPIRED = 9020
    MOVED = 9021
    CANCELLED = 9022
    DUPLICATE_IN_REQUEST = 9023
    UNRESOLVED = 9024
    OTHER = 9099


UNMAPPED: Final = "unmapped"
"""In a site's `error_codes`, all codes of SMP's that have no number there."""
UNMAPPED_ERROR_CODE: Final = 9999


class ValueKind(enum.Enum):
    """What a field of a record is once it was read, as far as a site file tells; the values are words for a person."""

    TEXT = "text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    """Whole or not, as it comes."""
    FLOAT = "a floating-point number"
    BOOLEAN = "true or false"
    MOMENT = "a date-time"
    LIST = "a list"
    NUMBERS = "a list of numbers"


class ItemState(enum.Enum):
    """Where one item stands; REGISTERED, REFUSED and UNKNOWN are outcomes."""

    AWAITING_RECORD = "awaiting_record"
    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    IN_DOUBT = "in_doubt"
    REGISTERED = "registered"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    INVALID = "invalid"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SET_ASIDE = "set_aside"

    __hash__ = object.__hash__  # the enum's own is Python

    @property
    def live(self) -> bool:
        """Whether another Create of the same key would risk a second registration (DESIGN, at most one live Create)."""
        return self in _LIVE

    @property
    def ems(self) -> EmsState:
        """The state word that tells the EMS of it."""
        return _EMS[self]


_LIVE: Final = frozenset(
    {
        ItemState.WAITING,
        ItemState.SENDING,
        ItemState.SENT,
        ItemState.IN_DOUBT,
        ItemState.REGISTERED,
        ItemState.UNKNOWN,
        ItemState.SET_ASIDE,
    }
)
_EMS: Final[Mapping[ItemState, EmsState]] = {
    ItemState.AWAITING_RECORD: EmsState.RECEIVED,
    ItemState.WAITING: EmsState.RECEIVED,
    ItemState.SENDING: EmsState.SENT,
    ItemState.SENT: EmsState.SENT,
    ItemState.IN_DOUBT: EmsState.IN_DOUBT,
    ItemState.REGISTERED: EmsState.REGISTERED,
    ItemState.REFUSED: EmsState.REFUSED,
    ItemState.UNKNOWN: EmsState.UNKNOWN,
    ItemState.INVALID: EmsState.REFUSED_BY_HOST,
    ItemState.EXPIRED: EmsState.EXPIRED,
    ItemState.CANCELLED: EmsState.CANCELLED,
    ItemState.SET_ASIDE: EmsState.HELD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the host itself refused a record: a fixed code, and one line for a person that names the field and what would be right."""

    reason: HostReason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorNote:
    """One error of an item as it goes back to the EMS: SMP's own code (text) or the host's, and its text."""

    code: str
    text: str
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmsOutcome:
    """What is to be written into the EMS for one place."""

    state: EmsState
    transaction_id: str = ""
    asset_id: str = ""
    errors: tuple[ErrorNote, ...] = ()
    request: str | None = None
    updated_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hops:
    """The stamps of one submission or record by hop name; a hop that has not happened is absent."""

    stamps: Mapping[str, Stamp] = field(default_factory=dict)


# The order of the hops of DESIGN "The way of one record"; a stage carries the name of the hop that ends it.
HOPS: Final = (
    "source",
    "received",
    "mapped",
    "journalled",
    "signed",
    "sent",
    "answered",
    "returned",
    "settled",
    "written_back",
)
