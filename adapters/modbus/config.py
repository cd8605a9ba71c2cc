"""What a site file says about Modbus. Pure: nothing here opens a connection."""

import enum
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, FilePath, Tag, field_validator, model_validator

from adapters.modbus.places import LAST_REGISTER, AddressBase, Table
from adapters.modbus.targets import LAST_REFERENCE, READ_LIMIT, Address, Column, FieldTarget, OutcomeTarget, Register
from bridge.api import HostName, OnExpired, Options, Outcome, OutcomeField, PrivateFile, RecordsOptions

SECURE_PORT: Final = 802  # "mbap/s", MODBUS/TCP Security (MB-TCP-Security-v36)
BIT_LIMIT: Final = 2000  # FC01 and FC02 answer at most 2000 bits
WRITE_LIMIT: Final = 123  # FC16 writes at most 123

_UNITS_S: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1.0, "min": 60.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min)")
_RANGE: Final = re.compile(r"(\d+)(?:\s*\.\.\s*(\d+))?")


def _seconds(value: object) -> object:
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration with its unit, such as 10ms, 250ms or 1s")
    return float(match[1]) * _UNITS_S[match[2]]


Word = Annotated[int, Field(ge=0, le=0xFFFF)]
PollSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0.01, le=3600)]
WaitSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0.01, le=60)]
PauseSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=60)]
StaleSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0.1, le=3600)]


class Registers(Options):
    """A range of registers, both ends included, repeated `count` times at a distance of `every`. `"8..9"` and `8` are short for one without repeats."""

    first: Annotated[Address, Field(alias="from")]
    last: Annotated[Address, Field(alias="to")]
    table: Table | None = None
    every: Annotated[int, Field(ge=0, le=LAST_REGISTER)] = 0
    count: Annotated[int, Field(ge=1, le=LAST_REGISTER)] = 1

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        if isinstance(value, Mapping | Registers):
            return value
        match = _RANGE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
        if match is None:
            raise ValueError('must be "FIRST..LAST", one register, or {from: FIRST, to: LAST, every: STRIDE, count: N}')
        return {"from": int(match[1]), "to": int(match[2] or match[1])}

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"ends at {self.last}, before its begin {self.first}")
        if self.count > 1 and self.every <= self.last - self.first:
            raise ValueError("repeats need `every`, longer than the range itself")
        bound = LAST_REGISTER + 1 if self.last <= LAST_REGISTER + 1 else LAST_REFERENCE
        if self.last + self.every * (self.count - 1) > bound:
            raise ValueError(f"runs past register {LAST_REGISTER}")
        return self

    def covers(self, start: int, count: int) -> bool:
        """Whether these registers lie wholly inside one repeat."""
        turn = min((start - self.first) // self.every, self.count - 1) if self.every and start >= self.first else 0
        moved = turn * self.every
        return self.first + moved <= start and start + count - 1 <= self.last + moved


class Place(Options):
    """One address of the device. A number alone is short for `{at: NUMBER}`."""

    at: Address
    table: Table | None = None

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """Of text too: a variable of the environment is nothing else."""
        plain = isinstance(value, int) and not isinstance(value, bool)
        if plain or (isinstance(value, str) and value.strip().isdecimal()):
            return {"at": value}
        if isinstance(value, Mapping | Place):
            return value
        raise ValueError("must be an address such as 6, or {at: 6, table: coils}")


class Fixed(Place):
    """A register that must hold this value; anything else is another device, or another version of its map."""

    value: Annotated[Word, Field(alias="is")]


class Heartbeat(Place):
    """A register that the EMS keeps changing; unchanged for `stale`, its values are not used."""

    stale: StaleSeconds = 10.0


class WriteFunction(enum.Enum):
    """Which function writes registers: one at a time (06), several (16), or 06 for one and 16 for several."""

    SINGLE = 6
    MULTIPLE = 16
    AUTO = "auto"


class Framing(enum.Enum):
    """How requests are framed over TCP: with Modbus TCP's own header, or as RTU frames with their CRC, as serial gateways hand them through."""

    TCP = "tcp"
    RTU = "rtu"


class Tls(Options):
    """How the device is known, and how we are. Without `ca` the authorities of this machine are trusted; a device is never trusted unseen.

    `on_expired_certificate`: what follows when the device's certificate ends.
    """

    ca: FilePath | None = None
    certificate: FilePath | None = None
    private_key: PrivateFile | None = None
    on_expired_certificate: OnExpired = OnExpired.STOP

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("`certificate` and `private_key` belong together; give both, or neither")
        return self


class Parity(enum.Enum):
    """The parity bit of a serial line."""

    NONE = "N"
    EVEN = "E"
    ODD = "O"


class Serial(Options):
    """A serial line with RTU frames. Modbus over serial line V1.02 (2.5) asks for even parity and 1 stop bit, or for 2 stop bits without parity."""

    device: Path
    baudrate: Annotated[int, Field(ge=300, le=4_000_000)] = 19200
    parity: Parity = Parity.EVEN
    stop_bits: Literal[1, 2] = 1
    data_bits: Literal[7, 8] = 8


class ModbusOptions(Options):
    """One Modbus device: over TCP, TLS or RTU over TCP (`host`), or on a serial line (`serial`)."""

    host: HostName = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    framing: Framing = Framing.TCP
    tls: Tls | None = None
    serial: Serial | None = None
    shared: bool = False
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    timeout: WaitSeconds = 1.0
    poll: PollSeconds = 0.25
    address_base: AddressBase = AddressBase.ZERO
    max_registers_per_read: Annotated[int, Field(ge=1, le=READ_LIMIT)] = READ_LIMIT
    max_bits_per_read: Annotated[int, Field(ge=1, le=BIT_LIMIT)] = BIT_LIMIT
    max_registers_per_write: Annotated[int, Field(ge=1, le=WRITE_LIMIT)] = WRITE_LIMIT
    max_gap: Annotated[int, Field(ge=0, le=READ_LIMIT)] = 16
    one_field_per_request: bool = False
    write_function: WriteFunction = WriteFunction.MULTIPLE
    pause_after_connect: PauseSeconds = 0.0
    pause_between_requests: PauseSeconds = 0.0
    close_after_poll: bool = False
    busy_retries: Annotated[int, Field(ge=0, le=20)] = 5
    busy_pause: WaitSeconds = 0.05
    magic: Fixed | None = None
    version: Fixed | None = None
    heartbeat: Heartbeat | None = None
    writable: tuple[Registers, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _secure_port(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("tls") is not None and "port" not in value:
            return {**value, "port": SECURE_PORT}
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.host) == (self.serial is not None):
            raise ValueError("needs either `host` (Modbus TCP, or a gateway) or `serial` (RTU on a serial line)")
        if self.serial is not None and (self.tls is not None or self.framing is not Framing.TCP):
            raise ValueError("a serial line has RTU frames and no TLS; leave `framing` and `tls` out")
        if self.tls is not None and self.framing is Framing.RTU:
            raise ValueError("`framing: rtu` has no TLS; a gateway with TLS speaks Modbus TCP inside")
        return self

    @property
    def where(self) -> str:
        """The device for a person's eyes."""
        return f"{self.host}:{self.port}" if self.serial is None else str(self.serial.device)

    @property
    def shares(self) -> bool:
        """Whether all adapters with this address use one connection; nobody else can hold a serial line open."""
        return self.shared or self.serial is not None

    @property
    def shared_place(self) -> tuple[str, int]:
        """What those that share a connection have in common: a line under whatever name, or host and port."""
        if self.serial is None:
            return self.host, self.port
        return str(self.serial.device.resolve()), 0

    @property
    def gap(self) -> int:
        """How many unused registers are fetched along rather than asking twice; -1 where not even neighbours are fetched together."""
        return -1 if self.one_field_per_request else self.max_gap

    def may_write(self, start: int, count: int, table: Table = Table.HOLDING) -> bool:
        """Whether all these addresses, counted from 0, lie inside `writable:`; for options as they are on the wire."""
        return any(
            registers.covers(start, count) for registers in self.writable if (registers.table or Table.HOLDING) is table
        )


class CountFrom(Options):
    """The number of records stands in a register of the device; `max` bounds what is believed."""

    source: Annotated[Address, Field(alias="from")]
    table: Table | None = None
    max: Annotated[int, Field(ge=1, le=LAST_REGISTER)]


class Each(Options):
    """Where the records are: the first at `base`, the next `stride` registers on."""

    base: Address
    table: Table | None = None
    stride: Annotated[int, Field(ge=0, le=LAST_REGISTER)] = 0
    count: Annotated[int, Field(ge=1, le=LAST_REGISTER)] | CountFrom = 1

    @property
    def most(self) -> int:
        """The most records there can be."""
        return self.count.max if isinstance(self.count, CountFrom) else self.count

    @model_validator(mode="after")
    def _strides(self) -> Self:
        if self.most > 1 and not self.stride:
            raise ValueError("several records need `stride`, the distance from one to the next")
        return self


class Crc(Options):
    """CRC-16/MODBUS over the big-endian bytes of these ranges of a record (both ends included), held in one register of it."""

    over: Annotated[tuple[tuple[int, int], ...], Field(min_length=1)]
    at: Register

    @field_validator("over")
    @classmethod
    def _ranges(cls, over: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if any(not 0 <= first <= last <= LAST_REGISTER for first, last in over):
            raise ValueError("must be a list of [FIRST, LAST] offsets in the record, both included")
        return over


class Sidecar(Options):
    """The CSV file beside the map. `on` is the field of the record that it is joined on, `column` what that is called in the file (the same by default)."""

    file: FilePath
    on: str
    column: str = ""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ";"
    decimal: Literal[".", ","] = "."

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.delimiter == self.decimal:
            raise ValueError(
                "`delimiter` and `decimal` must differ; a file with decimal commas has semicolons, as a rule"
            )
        return self

    @property
    def joined(self) -> str:
        """The column that is joined on."""
        return self.column or self.on


def _where_it_stands(value: object) -> str:
    return "csv" if isinstance(value, Column) or (isinstance(value, Mapping) and "csv" in value) else "register"


RecordField = Annotated[
    Annotated[FieldTarget, Tag("register")] | Annotated[Column, Tag("csv")], Discriminator(_where_it_stands)
]


class ModbusRecords(RecordsOptions):
    """A flow's records: blocks of registers that repeat."""

    each: Each
    fields: Annotated[Mapping[str, RecordField], Field(min_length=1)]
    crc: Crc | None = None
    csv: Sidecar | None = None

    @property
    def registers(self) -> Mapping[str, FieldTarget]:
        """The fields that stand in the device."""
        return {name: field for name, field in self.fields.items() if isinstance(field, FieldTarget)}

    @property
    def columns(self) -> Mapping[str, Column]:
        """The fields that stand in the file."""
        return {name: field for name, field in self.fields.items() if isinstance(field, Column)}


class RequestSubmit(Options):
    """`when: request`: the EMS raises `sequence` and sets `request` to `equals`; the host answers in `status` and `error`. All are addresses of the device.

    Without `sequence` each rise of `request` is one more request. `request` and `status` may be coils.
    """

    request: Place
    equals: Annotated[int, Field(ge=1, le=0xFFFF)] = 1
    sequence: Place | None = None
    status: Place | None = None
    error: Place | None = None

    @property
    def places(self) -> Iterator[tuple[str, Place]]:
        """Every address, by name."""
        named = {"request": self.request, "sequence": self.sequence, "status": self.status, "error": self.error}
        return ((name, place) for name, place in named.items() if place is not None)

    @property
    def answers(self) -> Iterator[tuple[str, Place]]:
        """The addresses that the host writes, by name."""
        return ((name, place) for name, place in self.places if name in {"status", "error"})


class ChangeSubmit(Options):
    """`when: change`: every record once, then whenever one of its fields changes."""


class ModbusWord(Options):
    """`alarms.word` of a site: the register of the device that takes the alarm word (16 bits, unsigned)."""

    register_: Annotated[Address, Field(alias="register")]


class OutcomeEach(Options):
    """Where outcomes are, when not beside the records: the first record's at `base`, the next `stride` on."""

    base: Address
    table: Table | None = None
    stride: Annotated[int, Field(ge=0, le=LAST_REGISTER)] = 0


class ModbusOutcome(Outcome):
    """Where an outcome is written: relative to the record, or to `each`."""

    each: OutcomeEach | None = None
    state: OutcomeTarget | None = None
    transaction_id: Annotated[OutcomeTarget | None, Field(alias="transactionId")] = None
    error_code: Annotated[OutcomeTarget | None, Field(alias="errorCode")] = None
    error_text: Annotated[OutcomeTarget | None, Field(alias="errorText")] = None
    error_count: Annotated[OutcomeTarget | None, Field(alias="errorCount")] = None
    asset_id: Annotated[OutcomeTarget | None, Field(alias="assetId")] = None
    updated_at: Annotated[OutcomeTarget | None, Field(alias="updatedAt")] = None
    request_id: Annotated[OutcomeTarget | None, Field(alias="requestId")] = None
    alarm: OutcomeTarget | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.targets():
            raise ValueError("names nothing to write; give at least `state`, or an `alarm`")
        return self

    def targets(self) -> Mapping[OutcomeField, OutcomeTarget]:
        """The outcome fields that the site wants written."""
        given: Mapping[OutcomeField, Any] = {
            OutcomeField.STATE: self.state,
            OutcomeField.TRANSACTION_ID: self.transaction_id,
            OutcomeField.ERROR_CODE: self.error_code,
            OutcomeField.ERROR_TEXT: self.error_text,
            OutcomeField.ERROR_COUNT: self.error_count,
            OutcomeField.ASSET_ID: self.asset_id,
            OutcomeField.UPDATED_AT: self.updated_at,
            OutcomeField.REQUEST: self.request_id,
            OutcomeField.ALARM: self.alarm,
        }
        return {name: target for name, target in given.items() if target is not None}
