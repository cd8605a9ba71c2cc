"""Strict base64url (RFC 7515 section 2): no padding, no other letters, no stray trailing bits."""

import base64
import binascii
import re
from typing import Final

_ALPHABET: Final = re.compile(rb"[A-Za-z0-9_-]*")
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def encode(data: bytes) -> str:
    """Without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes; raises `ValueError` for anything that another encoder would not have produced."""
    raw = text.encode("ascii")  # UnicodeEncodeError is a ValueError
    if len(raw) % 4 == 1 or _ALPHABET.fullmatch(raw) is None:
        raise ValueError("not base64url")
    data = base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    if len(raw) % 4 and encode(data[-(len(data) % 3) :]) != text[-(len(raw) % 4) :]:
        raise ValueError("stray bits at the end")
    return data
