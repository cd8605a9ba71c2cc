"""The alarm word: one variable of the server, written as its own type and read back."""

from typing import Final

from adapters.opcua.codec import encode
from adapters.opcua.errors import status_name
from adapters.opcua.link import Link
from adapters.opcua.places import Place
from adapters.opcua.values import reading, variant_of
from bridge.api import OutcomeField, Quality

_INT16: Final = 4
_BAD: Final = 0xC0000000


async def write_word(link: Link, place: Place, bits: int) -> str:
    """Write the bits and read them back; '' or why they do not stand there. Raises `LinkError`."""
    node, target = place.targets[OutcomeField.ALARM], place.types[OutcomeField.ALARM]
    held = bits - 0x10000 if target.type_number == _INT16 and bits > 0x7FFF else bits  # a bit set, whatever its sign
    try:
        value = encode(OutcomeField.ERROR_COUNT, held, target)
    except ValueError as error:
        return str(error)
    (code,) = await link.write([(node, variant_of(value, target))])
    if code & _BAD:
        return f"the server answered {status_name(code)}"
    found = reading((await link.read_values([node]))[0])
    if found.quality is not Quality.GOOD or found.value != value:
        return f"read back {found.value!r} ({found.quality.value}), wrote {value!r}"
    return ""
