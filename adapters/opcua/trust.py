"""Whom the bridge believes to be the EMS, and who the bridge is: certificates from files, checked before any password leaves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from adapters.opcua.config import Security
from adapters.opcua.words import printable
from bridge.api import LinkRefused, OnExpired, PeerCertificate

_SUFFIXES: Final = frozenset({".der", ".pem", ".crt", ".cer"})
_PEM: Final = b"-----BEGIN"
_DEEPEST: Final = 5  # authorities above a server's certificate
_MOST_PATHS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """This host's own certificate and key, read from their files."""

    certificate: x509.Certificate
    private_key: rsa.RSAPrivateKey
    application_uri: str


def load_identity(security: Security, application_uri: str | None, now_ns: int) -> Identity:
    """Read this host's certificate and key. Raises `LinkRefused` where they cannot serve. Blocking."""
    if security.certificate is None or security.private_key is None:
        raise LinkRefused("no certificate is configured")
    certificate = _certificate(security.certificate)
    name = security.private_key.name
    key = _check_pair(certificate, _bytes(security.private_key), security.certificate.name, name)
    if not _valid_at(certificate, now_ns):
        raise LinkRefused(
            f"the certificate {security.certificate.name} is not valid now ({_span(certificate)})",
            hint="renew this host's certificate and let the EMS trust it, or set the clock right",
        )
    uris = application_uris(certificate)
    wanted = application_uri or next(iter(uris), "")
    if wanted not in uris or not wanted:
        raise LinkRefused(
            f"the certificate {security.certificate.name} does not carry the application URI {wanted or '(none)'}",
            hint="make a certificate whose subject alternative name holds `application_uri`",
        )
    return Identity(certificate=certificate, private_key=key, application_uri=wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIdentity:
    """A user who is known by a certificate: it travels, the key signs what the server asks."""

    certificate: x509.Certificate
    private_key: rsa.RSAPrivateKey


def load_user(security: Security, now_ns: int) -> UserIdentity | None:
    """Read the user's certificate and key, None where the user has none. Raises `LinkRefused` where they cannot serve. Blocking."""
    if security.user_certificate is None or security.user_private_key is None:
        return None
    certificate, name = _certificate(security.user_certificate), security.user_certificate.name
    key = _check_pair(certificate, _bytes(security.user_private_key), name, security.user_private_key.name)
    if not _valid_at(certificate, now_ns):
        raise LinkRefused(
            f"the user's certificate {name} is not valid now ({_span(certificate)})",
            hint="renew it and let the EMS trust it, or set the clock right",
        )
    return UserIdentity(certificate=certificate, private_key=key)


def load_trusted(security: Security) -> tuple[x509.Certificate, ...]:
    """Every certificate that is trusted: servers by name, and whatever lies in the trust directory. Blocking."""
    files = list(security.server_certificates)
    if security.trust is not None:
        files += sorted(file for file in security.trust.iterdir() if file.suffix.lower() in _SUFFIXES)
    trusted = tuple(certificate for file in files for certificate in _certificates(file))
    if not trusted:
        raise LinkRefused("no server certificate is trusted yet", hint="put the EMS's certificate into `trust:`")
    return trusted


def check_server(
    certificate: x509.Certificate,
    uri: str | None,
    trusted: Sequence[x509.Certificate],
    now_ns: int,
    sent: Sequence[x509.Certificate] = (),
    on_expired: OnExpired = OnExpired.STOP,
) -> PeerCertificate:
    """Refuse a server that is not in the trust list (itself, or by a chain of issuers), out of date, or not who it says. Raises `LinkRefused`.

    `sent` is what the server itself gave of that chain: it fills gaps, and is believed in nothing (RFC 5280, 6.1).
    Under KEEP a chain that has ended is taken all the same, and nothing else is waived. Returns when the chain ends that was taken.
    """
    thumbprint = certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - what OPC UA tools show
    paths = list(islice(_paths((certificate,), trusted, sent), _MOST_PATHS))
    if not paths:
        raise LinkRefused(
            f"the server's certificate is not trusted (SHA-1 thumbprint {thumbprint})",
            hint="compare the thumbprint with the EMS's own, then put its certificate into `server_certificates:` or `trust:` (of a URL: --trust)",
        )
    begun = [path for path in paths if all(_begun(each, now_ns) for each in path)]
    path = max(begun or paths[:1], key=_ends)
    for each in path:
        ended = _begun(each, now_ns) and not _valid_at(each, now_ns)
        if not _valid_at(each, now_ns) and not (ended and on_expired is OnExpired.KEEP):
            raise LinkRefused(
                f"a certificate of the server is not valid now ({_span(each)})",
                hint="renew the EMS's certificate or its authority's, or set the clock right",
            )
    if uri is not None and uri not in application_uris(certificate):
        raise LinkRefused(
            f"the server calls itself {printable(uri)}, which is not in its certificate",
            hint="the EMS's certificate must carry its application URI; make a new one there",
        )
    return PeerCertificate(int(_ends(path).timestamp()) * 10**9, on_expired)


def application_uris(certificate: x509.Certificate) -> tuple[str, ...]:
    """The application URIs that a certificate vouches for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def parse_der(data: bytes) -> tuple[x509.Certificate, ...]:
    """A server's certificate as it travels, and the chain that may follow it (OPC 10000-6, 6.2.6). Raises `LinkRefused`."""
    found: list[x509.Certificate] = []
    try:
        while data and len(found) <= _DEEPEST:
            length = int.from_bytes(data[2:4], "big") + 4
            found.append(x509.load_der_x509_certificate(data[:length]))
            data = data[length:]
    except ValueError as error:
        if not found:  # what follows may be filled up with anything
            raise LinkRefused("the server's certificate cannot be read") from error
    if not found:
        raise LinkRefused("the server's certificate cannot be read")
    return tuple(found)


def _paths(
    path: tuple[x509.Certificate, ...], trusted: Sequence[x509.Certificate], sent: Sequence[x509.Certificate]
) -> Iterator[tuple[x509.Certificate, ...]]:
    """Every chain from a certificate to one in the trust list, the shortest first at each step."""
    last = path[-1]
    if last in trusted:
        yield path
        return
    if len(path) > _DEEPEST:
        return
    for issuer in dict.fromkeys((*trusted, *sent)):
        if issuer not in path and _issued(last, issuer, between=len(path) - 1):
            yield from _paths((*path, issuer), trusted, sent)


def _ends(path: Sequence[x509.Certificate]) -> datetime:
    return min(each.not_valid_after_utc for each in path)


def _begun(certificate: x509.Certificate, now_ns: int) -> bool:
    return certificate.not_valid_before_utc <= datetime.fromtimestamp(now_ns // 1_000_000_000, UTC)


def _valid_at(certificate: x509.Certificate, now_ns: int) -> bool:
    now = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC)
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _span(certificate: x509.Certificate) -> str:
    return f"from {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"


def _check_pair(certificate: x509.Certificate, key: bytes, certificate_name: str, key_name: str) -> rsa.RSAPrivateKey:
    """The private key; it must be readable without a password, belong to the certificate, and be RSA's."""
    load = load_pem_private_key if key.lstrip().startswith(_PEM) else load_der_private_key
    try:
        # Proving an RSA key's numbers takes 50 to 350 ms, in which no thread of the process moves. A key that is damaged
        # does not fit its certificate or is refused by the EMS; `smp-bridge certificates doctor` proves it.
        private = load(key, password=None, unsafe_skip_rsa_key_validation=True)
        public = private.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise LinkRefused(
            f"{key_name} is not a private key that can be read", hint="give it unencrypted, in PEM or DER form"
        ) from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise LinkRefused(f"{key_name} is not the key of {certificate_name}")
    if not isinstance(private, rsa.RSAPrivateKey):
        raise LinkRefused(f"{certificate_name} is not for an RSA key, the only kind that these policies know")
    return private


def _issued(certificate: x509.Certificate, authority: x509.Certificate, *, between: int) -> bool:
    """Whether the authority may sign, with so many others between it and the server's own certificate, and did."""
    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca or (constraints.path_length is not None and constraints.path_length < between):
            return False
        if not _may_sign_certificates(authority):
            return False
        certificate.verify_directly_issued_by(authority)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return True


def _may_sign_certificates(authority: x509.Certificate) -> bool:
    """A usage that is not stated allows all (RFC 5280, 4.2.1.3)."""
    try:
        return authority.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _certificate(file: Path) -> x509.Certificate:
    return _certificates(file)[0]


def _certificates(file: Path) -> list[x509.Certificate]:
    """One or more in PEM form, or one in DER form."""
    data = _bytes(file)
    try:
        if data.lstrip().startswith(_PEM):
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except ValueError as error:
        raise LinkRefused(f"{file.name} is not a certificate in PEM or DER form") from error


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise LinkRefused(f"{file.name} cannot be read: {error.strerror}") from error
