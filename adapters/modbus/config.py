"""What a site file says about Modbus. Pure: nothing here opens a connection."""

import enum
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, field_validator, model_validator

from adapters.modbus.codec import (
    BITS,
    FLOATS,
    INTEGERS,
    LOCAL,
    PADS,
    SUNSPEC_MISSING,
    UNSIGNED,
    WIDTHS,
    Kind,
    Shape,
    orders_of,
)
from bridge.api import Options, Outcome, OutcomeField, RecordsOptions

LAST_REGISTER: Final = 65535
SECURE_PORT: Final = 802  # "mbap/s", MODBUS/TCP Security (MB-TCP-Security-v36)
READ_LIMIT: Final = 125  # FC03 answers at most 125 registers
WRITE_LIMIT: Final = 123  # FC16 writes at most 123
SCALE_FACTOR: Final = Shape(kind=Kind.INT16, registers=1, missing=SUNSPEC_MISSING[Kind.INT16])

_UNITS_S: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1.0, "min": 60.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min)")
_RANGE: Final = re.compile(r"(\d+)(?:\s*\.\.\s*(\d+))?")


def _seconds(value: object) -> object:
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration with its unit, such as 10ms, 250ms or 1s")
    return float(match[1]) * _UNITS_S[match[2]]


Register = Annotated[int, Field(ge=0, le=LAST_REGISTER)]
Word = Annotated[int, Field(ge=0, le=0xFFFF)]
PollSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0.01, le=3600)]
WaitSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0.01, le=60)]
PauseSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=60)]
StaleSeconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0.1, le=3600)]


class Registers(Options):
    """A range of registers, both ends included, repeated `count` times at a distance of `every`. `"8..9"` and `8` are short for one without repeats."""

    first: Annotated[Register, Field(alias="from")]
    last: Annotated[Register, Field(alias="to")]
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
        if self.last + self.every * (self.count - 1) > LAST_REGISTER:
            raise ValueError(f"runs past register {LAST_REGISTER}")
        return self

    def covers(self, start: int, count: int) -> bool:
        """Whether these registers lie wholly inside one repeat."""
        turn = min((start - self.first) // self.every, self.count - 1) if self.every and start >= self.first else 0
        moved = turn * self.every
        return self.first + moved <= start and start + count - 1 <= self.last + moved


class Fixed(Options):
    """A register that must hold this value; anything else is another device, or another version of its map."""

    at: Register
    value: Annotated[Word, Field(alias="is")]


class Heartbeat(Options):
    """A register that the EMS keeps changing; unchanged for `stale`, its values are not used."""

    at: Register
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
    """How the device is known, and how we are. Without `ca` the authorities of this machine are trusted; a device is never trusted unseen."""

    ca: FilePath | None = None
    certificate: FilePath | None = None
    private_key: FilePath | None = None

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

    host: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    framing: Framing = Framing.TCP
    tls: Tls | None = None
    serial: Serial | None = None
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    timeout: WaitSeconds = 1.0
    poll: PollSeconds = 0.25
    address_base: Literal[0] = 0
    max_registers_per_read: Annotated[int, Field(ge=1, le=READ_LIMIT)] = READ_LIMIT
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
    def gap(self) -> int:
        """How many unused registers are fetched along rather than asking twice; -1 where not even neighbours are fetched together."""
        return -1 if self.one_field_per_request else self.max_gap

    def may_write(self, start: int, count: int) -> bool:
        """Whether all these registers lie inside `writable:`."""
        return any(registers.covers(start, count) for registers in self.writable)


class BitRange(NamedTuple):
    """Some bits of a register or number, both ends included, counted from the least significant."""

    first: int
    last: int


def _bit_range(value: object) -> object:
    if isinstance(value, BitRange):
        return value
    match = _RANGE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ValueError('must be "FIRST..LAST" or one bit, counted from the least significant, which is 0')
    return BitRange(int(match[1]), int(match[2] or match[1]))


def _zone_name(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"{value!r} is no time zone; it must be a name such as UTC or Europe/London") from None
    return value


class Pad(enum.Enum):
    """What fills up the registers of a text. `both` is written as NUL."""

    BOTH = "both"
    NUL = "nul"
    SPACE = "space"


_PADS: Final[Mapping[Pad, str]] = {Pad.BOTH: PADS, Pad.NUL: "\0", Pad.SPACE: " "}


class Target(Options):
    """One value: where it begins in its record, and how it lies there."""

    at: Register
    type: Kind
    registers: Annotated[int | None, Field(ge=1, le=READ_LIMIT)] = None
    order: str = ""
    bit: Annotated[int | None, Field(ge=0, lt=BITS)] = None
    bits: Annotated[BitRange, BeforeValidator(_bit_range)] | None = None
    pad: Pad = Pad.BOTH
    zone: Annotated[str, AfterValidator(_zone_name)] = "UTC"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width = WIDTHS.get(self.type)
        if width is None and self.registers is None:
            raise ValueError(f"a {self.type.value} needs `registers`, how many it takes")
        if width is not None and self.registers not in {None, width}:
            raise ValueError(f"a {self.type.value} takes {width} registers; leave `registers` out")
        if (self.type is Kind.BIT) != (self.bit is not None):
            raise ValueError("`bit` (0 is the least significant) belongs to the type bit, and only there")
        known = orders_of(self.type)
        if self.order and self.order not in known:
            raise ValueError(f"the type {self.type.value} has the orders {', '.join(known)}")
        self._belongs()
        return self

    def _belongs(self) -> None:
        if self.bits is not None and self.type not in UNSIGNED:
            raise ValueError("`bits` belongs to uint16, uint32 and uint64")
        if self.bits is not None and self.bits.last >= BITS * self.width:
            raise ValueError(f"`bits` names bit {self.bits.last}; a {self.type.value} has 0 to {BITS * self.width - 1}")
        if self.pad is not Pad.BOTH and self.type is not Kind.STRING:
            raise ValueError("`pad` belongs to the type string")
        if self.zone != "UTC" and self.type not in LOCAL:
            raise ValueError("`zone` belongs to the types datetime48 and datetime64")

    @property
    def width(self) -> int:
        """How many registers it takes."""
        return WIDTHS.get(self.type) or self.registers or 1

    @property
    def shape(self) -> Shape:
        """How the value lies in its registers."""
        return Shape(
            kind=self.type,
            registers=self.width,
            order=self.order,
            bit=self.bit or 0,
            bits=None if self.bits is None else (self.bits.first, self.bits.last - self.bits.first + 1),
            pad=_PADS[self.pad],
            missing=self._missing_bytes(),
            zone=self.zone,
        )

    def _missing_bytes(self) -> bytes | None:
        return None


class FieldTarget(Target):
    """A field of a record.

    `of: FLOW.FIELD` turns a bit set's record numbers into that field's values, within the same guarded read.
    `scale_at` is the register of the record that holds the power of ten of a whole number, signed. `missing` is what means "not implemented".
    """

    of: Annotated[str | None, Field(pattern=r"^[^.]+\.[^.]+$")] = None
    scale_at: Register | None = None
    missing: Literal["sunspec"] | int | None = None

    @model_validator(mode="after")
    def _of_bits(self) -> Self:
        if self.of is not None and self.type is not Kind.BITSET:
            raise ValueError("`of` belongs to the type bitset")
        if self.scale_at is not None and self.type not in INTEGERS:
            raise ValueError(f"`scale_at` belongs to whole numbers; a {self.type.value} is none")
        self._missing_fits()
        return self

    def _missing_fits(self) -> None:
        if self.missing is None:
            return
        if self.missing == "sunspec":
            if self.type not in SUNSPEC_MISSING:
                known = ", ".join(kind.value for kind in SUNSPEC_MISSING)
                raise ValueError(f"SunSpec has no value for a missing {self.type.value}; it has for {known}")
            return
        size = BITS * self.width
        if self.type not in INTEGERS | FLOATS | {Kind.EPOCH32}:
            raise ValueError("`missing` belongs to numbers and epoch32; empty text is missing anyway")
        if not -(1 << size - 1) <= self.missing < 1 << size:
            raise ValueError(f"`missing` is {self.missing}, which does not fit {self.width} registers")

    def _missing_bytes(self) -> bytes | None:
        if self.missing is None:
            return None
        if self.missing == "sunspec":
            return SUNSPEC_MISSING[self.type]
        size = 2 * self.width
        return (self.missing % (1 << 8 * size)).to_bytes(size, "big")

    @property
    def factor(self) -> Shape | None:
        """How the scale factor lies in its register, if there is one."""
        return None if self.scale_at is None else SCALE_FACTOR

    @property
    def members(self) -> tuple[str, str] | None:
        """The flow and field that the record numbers stand for."""
        if self.of is None:
            return None
        flow, _, field = self.of.partition(".")
        return flow, field


class CountFrom(Options):
    """The number of records stands in a register of the device; `max` bounds what is believed."""

    source: Annotated[Register, Field(alias="from")]
    max: Annotated[int, Field(ge=1, le=LAST_REGISTER)]


class Each(Options):
    """Where the records are: the first at `base`, the next `stride` registers on."""

    base: Register
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


class ModbusRecords(RecordsOptions):
    """A flow's records: blocks of registers that repeat."""

    each: Each
    fields: Annotated[Mapping[str, FieldTarget], Field(min_length=1)]
    crc: Crc | None = None


class RequestSubmit(Options):
    """`when: request`: the EMS raises `sequence` and sets `request` to `equals`; the host answers in `status` and `error`. All are registers of the device."""

    request: Register
    equals: Annotated[int, Field(ge=1, le=0xFFFF)] = 1
    sequence: Register
    status: Register | None = None
    error: Register | None = None

    @property
    def answers(self) -> Iterator[tuple[str, int]]:
        """The registers that the host writes, by name."""
        for name, register in (("status", self.status), ("error", self.error)):
            if register is not None:
                yield name, register


class ChangeSubmit(Options):
    """`when: change`: every record once, then whenever one of its fields changes."""


class ModbusWord(Options):
    """`alarms.word` of a site: the register of the device that takes the alarm word (16 bits, unsigned)."""

    register_: Annotated[Register, Field(alias="register")]


class ModbusOutcome(Outcome):
    """Where an outcome is written, relative to the record."""

    state: Target
    transaction_id: Annotated[Target | None, Field(alias="transactionId")] = None
    error_code: Annotated[Target | None, Field(alias="errorCode")] = None
    error_text: Annotated[Target | None, Field(alias="errorText")] = None
    error_count: Annotated[Target | None, Field(alias="errorCount")] = None
    asset_id: Annotated[Target | None, Field(alias="assetId")] = None
    updated_at: Annotated[Target | None, Field(alias="updatedAt")] = None
    request_id: Annotated[Target | None, Field(alias="requestId")] = None
    alarm: Target | None = None

    def targets(self) -> Mapping[OutcomeField, Target]:
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
