"""The four tables of a device, and how a manual may count their addresses (MODBUS Application Protocol Specification V1.1b3, 4.3 and 4.4). Pure."""

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

LAST_REGISTER: Final = 65535
_SHORT: Final = 10_000  # 40001 is the first holding register in the notation of five digits,
_LONG: Final = 100_000  # 400001 in that of six


class Table(enum.StrEnum):
    """One of the device's four tables, spelled as in `table:`."""

    COILS = "coils"
    DISCRETE = "discrete"
    INPUT = "input"
    HOLDING = "holding"

    @property
    def holds_bits(self) -> bool:
        """Whether an address is one bit, not a register of 16."""
        return self in {Table.COILS, Table.DISCRETE}

    @property
    def writable(self) -> bool:
        """Whether the protocol can write it at all."""
        return self in {Table.COILS, Table.HOLDING}


_NAMES: Final[Mapping[Table, tuple[str, str]]] = {
    Table.COILS: ("coil", "coils"),
    Table.DISCRETE: ("discrete input", "discrete inputs"),
    Table.INPUT: ("input register", "input registers"),
    Table.HOLDING: ("register", "registers"),
}
_DIGITS: Final[Mapping[int, Table]] = {0: Table.COILS, 1: Table.DISCRETE, 3: Table.INPUT, 4: Table.HOLDING}


class AddressBase(enum.Enum):
    """How a site file counts: from 0 as on the wire, from 1, or as reference numbers whose first digit is the table (30001, 400001)."""

    ZERO = 0
    ONE = 1
    REFERENCE = "reference"


class Span(NamedTuple):
    """Consecutive addresses of one table, counted from 0. A bit of a bit table is kept like a register that holds 0 or 1."""

    start: int
    size: int
    table: Table = Table.HOLDING

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.start + self.size

    def __str__(self) -> str:
        one, several = _NAMES[self.table]
        return f"{one} {self.start}" if self.size == 1 else f"{several} {self.start}..{self.end - 1}"


def located(base: AddressBase, at: int, table: Table | None) -> tuple[int, Table]:
    """An address of a site file as it is on the wire. Raises `ValueError` that says what would be right."""
    if base is AddressBase.REFERENCE:
        return _referred(at, table)
    start = at - base.value
    if not 0 <= start <= LAST_REGISTER:
        counts = f"addresses count from {base.value} (`address_base`), so they are {base.value} to {LAST_REGISTER + base.value}"
        raise ValueError(f"is {at}; {counts}. A reference number such as 40001 needs `address_base: reference`")
    return start, table or Table.HOLDING


def _referred(at: int, table: Table | None) -> tuple[int, Table]:
    step = _SHORT if at < 5 * _SHORT else _LONG
    known = at < 5 * _SHORT or at >= _LONG
    named, start = _DIGITS.get(at // step) if known else None, at % step - 1
    if named is None or not 0 <= start <= LAST_REGISTER:
        raise ValueError(
            f"is {at}, which is no reference number: coils are 1 to 9999, discrete inputs 10001 …, input registers 30001 …, "
            "holding registers 40001 …; with six digits 100001 …, 300001 …, 400001 …"
        )
    if table not in {None, named}:
        raise ValueError(f"is {at}, which is one of the {_NAMES[named][1]}, but `table` says {table}")
    return start, named
