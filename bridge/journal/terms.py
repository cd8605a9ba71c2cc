"""A person's data as it may lie in recorded bytes: a metering point's number or a contact, in any of the forms that protocols and signatures give it. Pure."""

import base64
import binascii
import re
import struct
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from bridge.errors import NotPossible

SHORTEST: Final = 5  # characters of a contact: fewer stand in too much that is nobody's
_MPAN_DIGITS: Final = 13
_PHONE: Final = re.compile(r"\+?[\d\s().\-/]+")
_PHONE_DIGITS: Final = 7
_COUNTRY: Final = re.compile(r"^(?:\+44|0044|0)")
_GAP: Final = rb"[\s().\-/]{0,3}"
_ESCAPE: Final = re.compile(rb"\\u([0-9a-fA-F]{4})")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{20,}")
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2}){6,}")
_DEPTH: Final = 2  # a JWS within JSON: base64url within text
_ALT: Final = b"-_"


class Terms:
    """What is looked for. Raises `NotPossible` for what is no MPAN core of 13 digits, or too short to be one person's."""

    def __init__(self, *, mpans: Sequence[str] = (), contacts: Sequence[str] = ()) -> None:
        if not mpans and not contacts:
            raise NotPossible("nothing is named", hint="give --mpan or --contact")
        patterns: list[bytes] = []
        needles: set[bytes] = set()
        for mpan in mpans:
            digits = _mpan(mpan)
            patterns.append(_spaced(digits))
            needles |= {*_encoded(digits), *_numbers(int(digits))}
        for contact in contacts:
            text = _contact(contact)
            patterns += _patterns(text)
            needles.update(_encoded(text))
        self._pattern = re.compile(b"|".join(patterns), re.IGNORECASE)
        self._needles = re.compile(b"|".join(map(re.escape, sorted(needles))), re.DOTALL)

    def within(self, data: bytes) -> bool:
        """Whether it stands in these bytes: as text (in any case, with blanks within), escaped, in base64, in hex, or as registers hold it."""
        return self._within(data, _DEPTH)

    def within_text(self, text: str) -> bool:
        """The same for text."""
        return self.within(text.encode("utf-8", "surrogatepass"))

    def _within(self, data: bytes, depth: int) -> bool:
        if not data:
            return False
        if b"\\u" in data:
            data = _ESCAPE.sub(lambda found: chr(int(found[1], 16)).encode("utf-8", "surrogatepass"), data)
        if self._pattern.search(data) or self._needles.search(data):
            return True
        return depth > 0 and any(self._within(inner, depth - 1) for inner in _inside(data))


def _mpan(text: str) -> str:
    digits = re.sub(r"[\s-]", "", text)
    if len(digits) != _MPAN_DIGITS or not digits.isascii() or not digits.isdigit():
        raise NotPossible("--mpan must be the core of an MPAN: 13 digits", hint="blanks between them do not count")
    return digits


def _contact(text: str) -> str:
    clean = unicodedata.normalize("NFC", " ".join(text.split()))
    if len(clean) < SHORTEST:
        raise NotPossible(
            f"--contact must have at least {SHORTEST} characters: less stands in the data of others too",
            hint="give the whole name, number or address",
        )
    return clean


def _patterns(text: str) -> list[bytes]:
    """A number in any of its spellings, at home and abroad; other text in any case, its words apart by any blanks."""
    if _PHONE.fullmatch(text):
        digits = re.sub(r"[^\d]", "", _COUNTRY.sub("", re.sub(r"[\s().\-/]", "", text)))
        if len(digits) >= _PHONE_DIGITS:
            return [_spaced(digits)]
    spellings = {text, text.lower(), text.upper(), text.title(), text.casefold(), unicodedata.normalize("NFD", text)}
    return [rb"\s+".join(re.escape(word.encode()) for word in spelling.split()) for spelling in sorted(spellings)]


def _spaced(digits: str) -> bytes:
    return _GAP.join(digit.encode() for digit in digits)


def _encoded(text: str) -> Iterator[bytes]:
    """Text as UTF-16, and as registers hold it whose two bytes stand the other way round."""
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")
    raw = text.encode()
    for part in (raw, raw[1:]):
        even = part[: len(part) // 2 * 2]
        if len(even) >= SHORTEST:
            yield b"".join(even[at : at + 2][::-1] for at in range(0, len(even), 2))


def _numbers(number: int) -> Iterator[bytes]:
    """A number in 64 bits: integer or floating point, in every order of bytes and words."""
    for form in (">q", ">d"):
        raw = struct.pack(form, number)
        words = [raw[at : at + 2] for at in range(0, 8, 2)]
        for order in (words, words[::-1], [words[1], words[0], words[3], words[2]], [*words[2:], *words[:2]]):
            yield b"".join(order)
            yield b"".join(word[::-1] for word in order)


def _inside(data: bytes) -> Iterable[bytes]:
    """What base64 and hex in these bytes stand for."""
    for found in _BASE64.finditer(data):
        word = found[0].replace(b"+", b"-").replace(b"/", b"_")
        try:
            yield base64.b64decode(word + b"=" * (-len(word) % 4), altchars=_ALT)
        except binascii.Error:
            continue
    for found in _HEX.finditer(data):
        yield bytes.fromhex(found[0].decode())
