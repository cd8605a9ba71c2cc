"""What the certificate of an EMS says of time: until when it holds, and what follows its end. Of a certificate nothing is waived but its end. And how our own is loaded."""

import enum
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from bridge.errors import LinkRefused

# X509_V_ERR_CERT_HAS_EXPIRED and X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, for which Python's ssl has no names. Under the flag
# everything else is verified as ever: chain, signatures, usages, the host's name.
_HAS_EXPIRED: Final = 10
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)


class OnExpired(enum.Enum):
    """What follows the end of an EMS's certificate.

    STOP: the link is closed at that moment and stays closed until another one is shown. KEEP: the link goes on, a new one is opened too, and an alarm stands.
    """

    KEEP = "keep"
    STOP = "stop"


class PeerCertificate(NamedTuple):
    """What a session tells of the certificate that its EMS showed: when it ends (UTC ns; the earliest end of its chain, as far as that is known), and what follows then."""

    ends_ns: int
    on_expired: OnExpired


Certified = Callable[[PeerCertificate], None]


def unseen(_certificate: PeerCertificate) -> None:
    """Where nobody looks after certificates."""


def has_expired(error: BaseException | None) -> bool:
    """Whether a TLS connection failed over the end of a certificate, and over nothing before that."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == _HAS_EXPIRED


def load_own(context: ssl.SSLContext, certificate: str | Path, private_key: str | Path | None) -> None:
    """Our own certificate and its key, from PEM files. Raises `ssl.SSLError` or `OSError`.

    A key with a passphrase is such an error: the library would ask for it at the terminal, and wait there for a person while the host stands still.
    """

    def asked() -> str:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the private key has a passphrase; give one without")

    context.load_cert_chain(certificate, private_key, password=asked)


@contextmanager
def without_dates(context: ssl.SSLContext) -> Iterator[None]:
    """Connections that are made meanwhile waive the dates of certificates, and nothing else. Look at the peer with `shown` before anything is said to it."""
    before = context.verify_flags
    context.verify_flags = before | _NO_CHECK_TIME
    try:
        yield
    finally:
        context.verify_flags = before


def shown(peer: Mapping[str, Any], on_expired: OnExpired, now_ns: int, *, waived: bool) -> PeerCertificate:
    """The certificate of a TLS peer, as `getpeercert()` gives it. Raises `LinkRefused` where dates were waived and it is not valid yet.

    With `waived`, something of its chain has ended: its own end is then not later than now.
    """
    begins_ns, ends_ns = (int(ssl.cert_time_to_seconds(peer[key])) * 10**9 for key in ("notBefore", "notAfter"))
    if waived and begins_ns > now_ns:
        raise LinkRefused(
            f"the EMS's certificate is not valid before {told(begins_ns)}", hint="set the clock right, here or there"
        )
    return PeerCertificate(min(ends_ns, now_ns) if waived else ends_ns, on_expired)


def told(wall_ns: int) -> str:
    """A moment for people."""
    return datetime.fromtimestamp(wall_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%MZ")
