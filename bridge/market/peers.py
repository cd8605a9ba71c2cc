"""Which certificate the other side of a TLS connection showed, as evidence: its digest and its subject."""

import asyncio
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

NO_PEER: Final[Mapping[str, str]] = MappingProxyType({})
_SUBJECT_CHARS: Final = 300


def peer_of(transport: asyncio.BaseTransport | None) -> Mapping[str, str]:
    """`sha256` (hex, over the DER) and `subject` (RFC 4514) of the certificate that was shown on this connection; nothing where none was."""
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    shown = tls.getpeercert(binary_form=True) if tls is not None else None
    return _told(shown) if shown else NO_PEER


@lru_cache(maxsize=256)
def _told(der: bytes) -> Mapping[str, str]:
    """Read once for each certificate."""
    from cryptography import x509  # noqa: PLC0415 - not before there is a connection

    try:
        subject = x509.load_der_x509_certificate(der).subject.rfc4514_string()
    except ValueError:  # one that TLS took, and this library does not read
        subject = ""
    line = "".join(letter if letter.isprintable() else "?" for letter in subject)
    return {"sha256": hashlib.sha256(der).hexdigest(), "subject": line[:_SUBJECT_CHARS]}
