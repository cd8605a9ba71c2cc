"""What a certificate says of itself, and whether an authority issued it (RFC 5280). Pure; the cryptography is the library's."""

import enum
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID

from bridge.envelope.keys import Algorithm

E = TypeVar("E", bound=x509.ExtensionType)

# What the library raises while it reads a certificate that is none, or a strange one.
DAMAGED: Final = (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension)
_SAFE: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# Critical extensions whose meaning is looked at here, or that ask nothing of who verifies a signature (RFC 5280 section 4.2: any other must be refused).
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


class KeyKind(enum.Enum):
    """The kinds of key that have an algorithm."""

    RSA = "RSA"
    P256 = "P-256"
    ED25519 = "Ed25519"

    @classmethod
    def of(cls, key: Any) -> "KeyKind | None":
        """The kind of a public key; None for any other."""
        if isinstance(key, rsa.RSAPublicKey):
            return cls.RSA
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
            return cls.P256
        return cls.ED25519 if isinstance(key, ed25519.Ed25519PublicKey) else None


def describe_key(alg: Algorithm) -> KeyKind:
    """The kind of key that an algorithm takes."""
    return {Algorithm.ES256: KeyKind.P256, Algorithm.EDDSA: KeyKind.ED25519}.get(alg, KeyKind.RSA)


def window_s(certificate: x509.Certificate) -> tuple[int, int]:
    """From when to when it is valid, both included (UTC seconds)."""
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this authority's key signed it, over a hash that is still safe."""
    try:
        used = certificate.signature_hash_algorithm
        certificate.verify_directly_issued_by(authority)
    except (*DAMAGED, InvalidSignature, UnsupportedAlgorithm):
        return False
    return used is None or isinstance(used, _SAFE)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may issue others: a certificate authority by its basic constraints, and by its key usage where it has one."""
    try:
        extensions = certificate.extensions
    except DAMAGED:
        return False
    usage = _extension(extensions, x509.KeyUsage)
    return _issues(extensions) and (usage is None or usage.key_cert_sign)


def may_sign(certificate: x509.Certificate) -> bool:
    """Whether messages may be signed with it: no authority, its key usage (where it has one) has digitalSignature, nothing critical in it is unknown."""
    try:
        extensions = certificate.extensions
    except DAMAGED:
        return False
    if any(one.critical and one.oid not in _UNDERSTOOD for one in extensions) or _issues(extensions):
        return False
    usage = _extension(extensions, x509.KeyUsage)
    return usage is None or usage.digital_signature


def _issues(extensions: x509.Extensions) -> bool:
    constraints = _extension(extensions, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _extension(extensions: x509.Extensions, kind: type[E]) -> E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
