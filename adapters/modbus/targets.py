"""One value of a record or an outcome: where it lies, and how. Pure."""

import enum
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

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
from adapters.modbus.places import LAST_REGISTER, Table
from bridge.api import Options

LAST_REFERENCE: Final = 465536
READ_LIMIT: Final = 125  # FC03 answers at most 125 registers
SCALE_FACTOR: Final = Shape(kind=Kind.INT16, registers=1, missing=SUNSPEC_MISSING[Kind.INT16])

_RANGE: Final = re.compile(r"(\d+)(?:\s*\.\.\s*(\d+))?")


def _address(value: int) -> int:
    if value > LAST_REGISTER + 1 and not (value // 100_000 in {1, 3, 4} and 1 <= value % 100_000 <= LAST_REGISTER + 1):
        raise ValueError(f"must be 0 to {LAST_REGISTER + 1}, or a reference number such as 400001")
    return value


Register = Annotated[int, Field(ge=0, le=LAST_REGISTER)]
"""A register within a record."""
Address = Annotated[int, Field(ge=0, le=LAST_REFERENCE), AfterValidator(_address)]
"""An address of the device, in the counting of `address_base`."""


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


class Column(Options):
    """A field of a record that stands in the CSV file beside the map, not in the device: a column's name, and whether it holds numbers."""

    csv: Annotated[str, Field(min_length=1)]
    number: bool = False


class OutcomeTarget(Target):
    """One value of an outcome. `fixed` makes of `at` an address of the device that all records share."""

    at: Address
    fixed: bool = False
    table: Table | None = None

    @model_validator(mode="after")
    def _belongs_to_the_device(self) -> Self:
        if not self.fixed and self.table is not None:
            raise ValueError("`table` belongs to an address of the device (`fixed: true`); others lie where `each` is")
        if not self.fixed and self.at > LAST_REGISTER:
            raise ValueError(f"`at` counts from the record's first register; {self.at} is an address (`fixed: true`)")
        return self
