"""`smp-bridge decode` for every type in every byte order, beside values that were made without the codec."""

import sys

import pytest

from adapters.modbus.codec import MOMENTS, Kind
from bridge.cli import main

ORDERS = {2: ["AB", "BA"], 4: ["ABCD", "DCBA", "BADC", "CDAB"], 8: ["ABCDEFGH", "HGFEDCBA", "BADCFEHG", "GHEFCDAB"]}
# Each type's value as its bytes from the most to the least significant, and as it is printed: public examples (vectors/), or plain two's complement.
VALUES = {
    "bit": ("0004", "1", ["--bit", "2"]),
    "int8l": ("12FE", "-2", []),
    "int8h": ("FE12", "-2", []),
    "uint8l": ("12FE", "254", []),
    "uint8h": ("FE12", "254", []),
    "int16": ("CF2C", "-12500", []),
    "uint16": ("022B", "555", []),
    "int32": ("FFFFCF2C", "-12500", []),
    "uint32": ("01020304", "16909060", []),
    "int64": ("FFFFFFFFFFFFCF2C", "-12500", []),
    "uint64": ("0102030405060708", "72623859790382856", []),
    "float16": ("3E00", "1.5", []),
    "float32": ("42460000", "49.5", []),
    "float64": ("400921FB54442D18", "3.141592653589793", []),
    "string": ("5F41", "_A", []),
    "bcd16": ("1234", "1234", []),
    "bcd32": ("12345678", "12345678", []),
    "epoch32": ("6B038200", "2026-11-23T00:00:00Z", []),
}
CASES = [
    pytest.param(kind, order, id=f"{kind}-{order}")
    for kind, (data, *_) in VALUES.items()
    for order in ORDERS[len(data) // 2]
]


def on_the_wire(data: str, order: str) -> str:
    """The bytes where the letters of the order stand."""
    pairs = dict(zip("ABCDEFGH", (data[at : at + 2] for at in range(0, len(data), 2)), strict=False))
    return "".join(pairs[letter] for letter in order)


@pytest.mark.parametrize(("kind", "order"), CASES)
def test_every_type_in_every_order(kind, order, monkeypatch, capsys):
    """The one value and nothing else."""
    data, printed, more = VALUES[kind]
    arguments = ["decode", "--type", kind, "--order", order, *more, on_the_wire(data, order)]
    monkeypatch.setattr(sys, "argv", ["smp-bridge", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert (ended.value.code or 0, captured.out, captured.err) == (0, f"{printed}\n", "")


def test_no_type_is_left_out():
    """Beside what needs more than a type and an order: bit sets and date-times of several registers."""
    assert VALUES.keys() == {kind.value for kind in Kind} - {"bitset"} - {
        kind.value for kind in MOMENTS if kind is not Kind.EPOCH32
    }
