"""`smp-bridge decode`: what bytes off the wire mean, by an adapter's own codec."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import typer

from bridge.api import Codec, Guess
from bridge.config.document import unknown
from bridge.errors import BridgeError
from bridge.registry import find

_SEPARATORS: Final = str.maketrans("", "", " \t\n\r,;:_-")
_HEADER: Final = ("TYPE", "ORDER", "VALUE")
_MOST_BYTES: Final = 250  # as many as one Modbus answer carries (125 registers)


def decode(
    raw: Annotated[
        list[str],
        typer.Argument(
            metavar="HEX...", help="The bytes as they lie on the wire: 42460000, 4246 0000 or 0x4246,0x0000."
        ),
    ],
    type_: Annotated[
        str | None, typer.Option("--type", help="What the bytes hold, as in a site file: float32, string, bit …")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Where the bytes stand on the wire: AB, BA, ABCD, CDAB … The default is big-endian."),
    ] = None,
    scale: Annotated[str | None, typer.Option(help="Multiply the number by this, exactly: 0.1, 1000.")] = None,
    bit: Annotated[
        int | None, typer.Option(help="For the type bit: which one; 0 is the least significant.", min=0)
    ] = None,
    protocol: Annotated[str, typer.Option(help="Whose codec.")] = "modbus",
) -> None:
    """Print the one value that these bytes hold, and nothing else; without --type a table of what they could mean, most plausible first.

    Integers, floats and text are printed as they are, a bit as 0 or 1, a date-time in UTC, a bit set as the numbers of its bits.
    Exits 1 when these bytes cannot be read so, 2 when type, scale or bytes are misspelt.

    smp-bridge decode --type float32 --order CDAB 0000 4246     49.5
    """
    codec = find(protocol).codec
    if codec is None:
        raise typer.BadParameter(f"the adapter for {protocol} has no codec for bytes; modbus has one")
    wire = _bytes(raw)
    order = None if order is None else order.upper()
    factor = None if scale is None else _factor(scale)
    if type_ is None:
        if bit is not None:
            raise typer.BadParameter("--bit needs --type bit")
        print(_table(_guesses(codec, wire, order), factor))
    else:
        print(text_of(_scaled(_value(codec, wire, type_.lower(), order or "", bit), factor)))


def _bytes(raw: Sequence[str]) -> bytes:
    """The bytes that a person typed. Raises `typer.BadParameter`."""
    words = " ".join(raw).replace(",", " ").split()
    digits = "".join(word.removeprefix("0x").removeprefix("0X") for word in words).translate(_SEPARATORS)
    stranger = next((letter for letter in digits if letter not in "0123456789abcdefABCDEF"), "")
    if stranger:
        raise typer.BadParameter(f"HEX holds {stranger!r}; it must be hexadecimal digits, two for each byte")
    if len(digits) % 2:
        raise typer.BadParameter(f"HEX has {len(digits)} digits; it must be two for each byte")
    if not 0 < len(digits) <= 2 * _MOST_BYTES:
        raise typer.BadParameter(f"HEX has {len(digits) // 2} bytes; it must be 1 to {_MOST_BYTES}")
    return bytes.fromhex(digits)


def _factor(scale: str) -> Decimal:
    try:
        factor = Decimal(scale)
    except InvalidOperation:
        factor = Decimal("NaN")
    if not factor.is_finite():
        raise typer.BadParameter(f"--scale is {scale!r}; it must be a number such as 0.1 or 1000")
    return factor


def _value(codec: Codec, wire: bytes, type_: str, order: str, bit: int | None) -> object:
    if type_ not in codec.types:
        raise typer.BadParameter(unknown(type_, codec.types, "type"))
    try:
        return codec.decode(wire, type_=type_, order=order, bit=bit)
    except ValueError as error:
        raise BridgeError(str(error)) from None


def _guesses(codec: Codec, wire: bytes, order: str | None) -> Sequence[Guess]:
    try:
        found = codec.guesses(wire)
    except ValueError as error:
        raise BridgeError(str(error)) from None
    fitting = [guess for guess in found if order is None or guess.order == order]
    if not fitting:
        orders = ", ".join(dict.fromkeys(guess.order for guess in found))
        raise BridgeError(f"nothing that these bytes could mean has the order {order}; there are {orders}")
    return fitting


def _scaled(value: object, factor: Decimal | None) -> object:
    """A number times the factor, exactly. Raises `BridgeError` for what is no number."""
    if factor is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BridgeError("--scale belongs to numbers; this type holds none")
    return (Decimal(value) if isinstance(value, int) else Decimal(repr(value))) * factor


def _table(guesses: Sequence[Guess], factor: Decimal | None) -> str:
    rows = [_HEADER]
    for guess in guesses:
        number = isinstance(guess.value, int | float) and not isinstance(guess.value, bool)
        value = _scaled(guess.value, factor) if number else guess.value
        rows.append((guess.type, guess.order, text_of(value)))
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{row[0]:{first}}  {row[1]:{second}}  {row[2]}".rstrip() for row in rows)


def text_of(value: object) -> str:
    """A decoded value for a person and for a script: numbers without exponent where they were scaled, moments in UTC."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Decimal):
        return _plain(value)
    if isinstance(value, datetime):
        text = value.astimezone(UTC).replace(tzinfo=None).isoformat()
        return f"{text.rstrip('0') if value.microsecond else text}Z"
    if isinstance(value, tuple):
        return " ".join(str(item) for item in value)
    return str(value)


def _plain(value: Decimal) -> str:
    if not value.is_finite():
        return str(float(value))
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
