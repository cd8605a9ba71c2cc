"""Signatures in HTTP headers with the signer's certificate beside them (`dip-headers`; DOMAIN 1.3 and 3). Pure.

What is signed is one line: `METHOD;address in lower case;date;base64 of the body's SHA-256`. A certificate proves nothing by being shown: it counts
only if a pinned authority issued it **and** its subject or thumbprint is one that was agreed. Cheap checks come before costly ones, one reason for a refusal.
"""

import base64
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from bridge.clock import iso_ms
from bridge.envelope.authority import DAMAGED, KeyKind, describe_key, issued_by, may_sign, window_s
from bridge.envelope.gate import Verified
from bridge.envelope.keys import Algorithm, PublicKey, Signer, current
from bridge.envelope.reasons import Refusal, SignatureRefused
from bridge.errors import BridgeError
from bridge.profile.words import CertificateForm

MAX_SIGNATURE: Final = 2 * 1024
MAX_CERTIFICATE: Final = 16 * 1024
MAX_DATE: Final = 64
MAX_DIGEST: Final = 64
RSA_BITS: Final = (2048, 4096)
MAX_EXPONENT: Final = 2**32  # a larger one makes each verification as costly as the sender likes
MOST_REMEMBERED: Final = 64
_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z", re.ASCII)
_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----[\r\n]*", re.ASCII
)
_DEFAULT_PORT: Final = ":443"


class Target(NamedTuple):
    """What a signature covers beside date and body: the request's method and whole address."""

    method: str
    url: str


class Fields(NamedTuple):
    """All values of each of the form's headers, in the profile's order."""

    signatures: Sequence[str]
    dates: Sequence[str]
    certificates: Sequence[str]
    digests: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A message taken apart, nothing of it verified. `thumbprint` is the SHA-256 of the certificate in lower-case hexadecimal."""

    body: bytes
    certificate: x509.Certificate
    thumbprint: str
    subject: x509.Name
    public_key: Any
    signed_ns: int
    signing_input: bytes
    signature: bytes


class Remembered(NamedTuple):
    """A certificate whose signature was good: until when it can be used (UTC seconds)."""

    thumbprint: str
    until_s: int


class Agreed:
    """What was agreed with the other side: the pinned authorities, and which of their certificates are meant, by subject or thumbprint.

    Remembers which certificates the authorities issued, so that this is worked out once for each.
    """

    def __init__(
        self,
        *,
        authorities: Sequence[x509.Certificate],
        subjects: Collection[x509.Name] = (),
        thumbprints: Collection[str] = (),
        algorithms: Collection[Algorithm],
        encoding: CertificateForm = CertificateForm.PEM,
    ) -> None:
        """`thumbprints` are SHA-256 in lower-case hexadecimal; of `algorithms`, each kind of key has one at most."""
        self._authorities = tuple(authorities)
        self._subjects = frozenset(subjects)
        self._thumbprints = frozenset(thumbprints)
        self._algorithms = {describe_key(alg): alg for alg in algorithms}
        self.encoding = encoding
        self._windows: dict[str, tuple[int, int]] = {}
        self._taken: dict[x509.Name, Remembered] = {}

    def names(self, thumbprint: str, subject: x509.Name) -> bool:
        """Whether this certificate is one of those that were agreed."""
        return thumbprint in self._thumbprints or subject in self._subjects

    def algorithm(self, kind: KeyKind | None) -> Algorithm | None:
        """The one algorithm for this kind of key; None where none is allowed."""
        return None if kind is None else self._algorithms.get(kind)

    def window(self, certificate: x509.Certificate, thumbprint: str) -> tuple[int, int] | None:
        """From when to when (UTC seconds, both included) the certificate and a pinned authority that issued it are valid; None where none of them issued it."""
        known = self._windows.get(thumbprint)
        if known is None:
            issuers = [one for one in self._authorities if issued_by(certificate, one)]
            if not issuers:
                return None
            since, until = window_s(certificate)
            spans = [window_s(one) for one in issuers]
            known = max(since, min(span[0] for span in spans)), min(until, max(span[1] for span in spans))
            if len(self._windows) >= MOST_REMEMBERED:
                self._windows.clear()
            self._windows[thumbprint] = known
        return known

    def took(self, thumbprint: str, subject: x509.Name, until_s: int) -> None:
        """A message with this certificate was good."""
        former = self._taken.get(subject)
        if (former is None and len(self._taken) < MOST_REMEMBERED) or (former is not None and former.until_s < until_s):
            self._taken[subject] = Remembered(thumbprint, until_s)

    def taken(self) -> list[Remembered]:
        """The certificates of good messages since the start, of each subject the last to end."""
        return list(self._taken.values())


@dataclass(frozen=True)
class Judged:
    """A message before its judge. `record` is what our own records say of the certificate, by its thumbprint."""

    shown: Shown
    agreed: Agreed
    record: PublicKey | None
    now_ns: int

    @cached_property
    def key(self) -> PublicKey:
        """The certificate's key with its one algorithm. Raises `SignatureRefused` where that kind of key is not allowed."""
        alg = self.agreed.algorithm(KeyKind.of(self.shown.public_key))
        if alg is None:
            raise SignatureRefused(Refusal.ALG_NOT_ALLOWED)
        return PublicKey(kid=self.shown.thumbprint, alg=alg, key=self.shown.public_key)


def _free() -> None:
    """Nothing is charged for the costly calls."""


def verify(
    target: Target,
    body: bytes,
    fields: Fields,
    *,
    agreed: Agreed,
    keys: Mapping[str, PublicKey],
    now_ns: int,
    charge: Callable[[], None] = _free,
) -> Verified:
    """Authenticate a request over its raw body; raises `SignatureRefused` with the one reason.

    `keys` holds certificates of our own records by thumbprint; one of them counts as agreed, unless it is barred. `charge` is called after every cheap
    check and before the costly ones; what it raises passes through. How old the signature may be is not judged here.
    """
    shown = take_apart(target, body, fields, agreed.encoding)
    judged = Judged(shown, agreed, keys.get(shown.thumbprint), now_ns)
    for check in CERTIFICATE_CHECKS:
        check(judged)
    charge()
    for check in PROOF_CHECKS:
        check(judged)
    agreed.took(shown.thumbprint, shown.subject, window_s(shown.certificate)[1])
    return Verified(
        payload=body, protected={}, kid=shown.thumbprint, alg=judged.key.alg, signed_ns=shown.signed_ns
    )  # fmt: skip


def sign(
    target: Target, body: bytes, signer: Signer, *, at_ns: int, encoding: CertificateForm = CertificateForm.PEM
) -> tuple[str, str, str, str]:
    """The values of the four headers, in the order of `Fields`. `signer` has its certificate (DER) as `certificate`."""
    signer = current(signer)
    certificate: bytes = getattr(signer, "certificate", b"")
    if not certificate:
        raise BridgeError(f"the key {signer.kid} has no certificate, and this form of signature shows one")
    date, digest = iso_ms(at_ns), _encoded(sha256(body).digest())
    signature = signer.sign(signing_input(target, date, digest))
    shown = certificate if encoding is CertificateForm.DER else pem(certificate)
    return _encoded(signature), date, _encoded(shown), digest


def signing_input(target: Target, date: str, digest: str) -> bytes:
    """The line that is signed (DOMAIN 1.3)."""
    return f"{target.method.upper()};{address(target.url).lower()};{date};{digest}".encode()


def address(url: str) -> str:
    """An address as the other side sees it: without the port that https has anyway."""
    host = urlsplit(url).netloc
    return url.replace(host, host.removesuffix(_DEFAULT_PORT), 1) if host.endswith(_DEFAULT_PORT) else url


def pem(der: bytes) -> bytes:
    """The text of a PEM file (RFC 7468)."""
    text = _encoded(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]).encode()


def take_apart(target: Target, body: bytes, fields: Fields, encoding: CertificateForm) -> Shown:
    """Split a message; raises `SignatureRefused` for whatever is not exactly this form, or whose body is not the one that was hashed."""
    signature = _one(fields.signatures, MAX_SIGNATURE, Refusal.NO_SIGNATURE, Refusal.TWO_SIGNATURES)
    date, certificate, digest = (
        _one(values, most, Refusal.HEADER_MISSING, Refusal.HEADER_TWICE)
        for values, most in (
            (fields.dates, MAX_DATE),
            (fields.certificates, MAX_CERTIFICATE),
            (fields.digests, MAX_DIGEST),
        )
    )
    raw, shown = _decoded(signature), _decoded(certificate)
    signed_ns = _moment_ns(date)
    if _decoded(digest) != sha256(body).digest():
        raise SignatureRefused(Refusal.CONTENT_HASH)
    der = _der(shown) if encoding is CertificateForm.PEM else shown
    try:
        found = x509.load_der_x509_certificate(der)
        subject, public_key = found.subject, found.public_key()
    except (*DAMAGED, UnsupportedAlgorithm) as error:
        raise SignatureRefused(Refusal.CERTIFICATE_MALFORMED) from error
    return Shown(
        body=body,
        certificate=found,
        thumbprint=sha256(der).hexdigest(),
        subject=subject,
        public_key=public_key,
        signed_ns=signed_ns,
        signing_input=signing_input(target, date, digest),
        signature=raw,
    )


def _one(values: Sequence[str], most: int, missing: Refusal, twice: Refusal) -> str:
    if not values or not values[0]:
        raise SignatureRefused(missing)
    if len(values) > 1:
        raise SignatureRefused(twice)
    if len(values[0]) > most:
        raise SignatureRefused(Refusal.TOO_LARGE)
    return values[0]


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(text: str, reason: Refusal = Refusal.BASE64) -> bytes:
    """RFC 4648 section 4 with its padding, and nothing that another encoder would not have written."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise SignatureRefused(reason) from error
    if _encoded(data) != text:
        raise SignatureRefused(reason)
    return data


def _der(shown: bytes) -> bytes:
    """The bytes of the one certificate of a PEM text."""
    found = _PEM.fullmatch(shown)
    if found is None:
        raise SignatureRefused(Refusal.CERTIFICATE_MALFORMED)
    lines = found[1].replace(b"\r", b"").replace(b"\n", b"").decode("ascii")
    return _decoded(lines, Refusal.CERTIFICATE_MALFORMED)


def _moment_ns(date: str) -> int:
    """UTC nanoseconds of a time with milliseconds and Z; a date that no calendar has is none."""
    found = _DATE.fullmatch(date)
    if found is None:
        raise SignatureRefused(Refusal.DATE_MALFORMED)
    try:
        seconds = int(datetime.fromisoformat(found[1] + "+00:00").timestamp())
    except (ValueError, OverflowError) as error:
        raise SignatureRefused(Refusal.DATE_MALFORMED) from error
    return seconds * 1_000_000_000 + int(found[2]) * 1_000_000


def _check_agreed(judged: Judged) -> None:
    shown = judged.shown
    if judged.record is None and not judged.agreed.names(shown.thumbprint, shown.subject):
        raise SignatureRefused(Refusal.CERTIFICATE_UNKNOWN)


def _check_key(judged: Judged) -> None:
    key, (least, most) = judged.key.key, RSA_BITS
    if judged.key.alg not in (Algorithm.RS256, Algorithm.PS256):
        return
    if not least <= key.key_size <= most or not 2 < key.public_numbers().e <= MAX_EXPONENT:
        raise SignatureRefused(Refusal.CERTIFICATE_KEY)


def _check_use(judged: Judged) -> None:
    if not may_sign(judged.shown.certificate):
        raise SignatureRefused(Refusal.CERTIFICATE_USE)


def _check_length(judged: Judged) -> None:
    signature = judged.shown.signature
    if len(signature) != judged.key.signature_length or not any(signature):
        raise SignatureRefused(Refusal.SIGNATURE_LENGTH)


# In order, cheap ones all. A self-test removes each of them and sees its rows fail.
CERTIFICATE_CHECKS: Final[Sequence[Callable[[Judged], None]]] = (_check_agreed, _check_key, _check_use, _check_length)


def _check_chain(judged: Judged) -> None:
    shown = judged.shown
    if judged.agreed.window(shown.certificate, shown.thumbprint) is None:
        raise SignatureRefused(Refusal.CERTIFICATE_NOT_CHAINED, kid=shown.thumbprint)


def _check_signature(judged: Judged) -> None:
    if not judged.key.verify(judged.shown.signing_input, judged.shown.signature):
        raise SignatureRefused(Refusal.BAD_SIGNATURE)


def _check_dates(judged: Judged) -> None:
    shown, now_s = judged.shown, judged.now_ns // 1_000_000_000
    since, until = judged.agreed.window(shown.certificate, shown.thumbprint) or window_s(shown.certificate)
    if now_s < since:
        raise SignatureRefused(Refusal.CERTIFICATE_NOT_YET_VALID, kid=shown.thumbprint)
    if now_s > until:
        raise SignatureRefused(Refusal.CERTIFICATE_EXPIRED, kid=shown.thumbprint)


def _check_barred(judged: Judged) -> None:
    if judged.record is not None and judged.record.barred is not None:
        raise SignatureRefused(judged.record.barred, kid=judged.shown.thumbprint)


# The costly calls. What has ended or was withdrawn comes last, so that nobody without the key learns of it.
PROOF_CHECKS: Final[Sequence[Callable[[Judged], None]]] = (_check_chain, _check_signature, _check_dates, _check_barred)
