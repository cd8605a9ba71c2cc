"""What is wrong with the certificates of a link, in plain words. Reads files, and asks nobody."""

import enum
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

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
from cryptography.x509.oid import ExtendedKeyUsageOID

from bridge.api import CertificateRole, CertificateUse

# An EMS's administrator needs weeks to let a new certificate in (DOMAIN 7: warn 60, 30 and 7 days before).
SOON_DAYS: Final = 60
_SUFFIXES: Final = frozenset({".der", ".pem", ".crt", ".cer"})
_PEM: Final = b"-----BEGIN"
_RSA_BITS: Final = (2048, 4096)  # OPC 10000-7, the same for all policies that are still safe
_OTHERS: Final = 0o007
_SHA1_FAMILY: Final = (hashes.SHA1, hashes.MD5)
_PEER_ROLES: Final = frozenset({CertificateRole.TLS_CLIENT, CertificateRole.TLS_SERVER})


class Verdict(enum.Enum):
    """`wrong` must be put right for the link to work or be safe; `watch` will have to be one day, or depends on the other side."""

    OK = "ok"
    WATCH = "watch"
    WRONG = "wrong"


class Finding(NamedTuple):
    """One thing about one file; `hint` says what would be right."""

    verdict: Verdict
    file: str
    text: str
    hint: str = ""


def examine(use: CertificateUse, now: datetime) -> list[Finding]:
    """Everything that can be said of these files without asking the other side; at least one finding. Blocking."""
    found = list(_own(use, now)) if use.certificate is not None else []
    if use.trusted or use.trust is not None:
        found += _trusted(use, now)
    elif use.role is CertificateRole.OPC_UA and not use.warning:
        found.append(Finding(Verdict.WRONG, "", "no server is trusted", "name the EMS's certificate"))
    if use.warning:
        found.append(Finding(Verdict.WATCH, "", use.warning))
    return found


# ours -------------------------------------------------------------------------------------------------


def _own(use: CertificateUse, now: datetime) -> Iterator[Finding]:
    file = use.certificate
    if file is None:
        return
    chain = _read(file)
    if isinstance(chain, Finding):
        yield chain
    if use.private_key is not None:
        yield from _key(use.private_key, None if isinstance(chain, Finding) else (chain[0], file))
    if isinstance(chain, Finding):
        return
    flaws = [*_dates(chain[0], str(file), now, "renew it"), *_strength(chain[0], str(file), use.role)]
    flaws += [
        *_uri(chain[0], use, str(file)),
        *_usages(chain[0], use.role, str(file)),
        *_chain(chain, use.role, file, now),
    ]
    yield from flaws
    if not any(flaw.verdict is Verdict.WRONG for flaw in flaws):
        yield Finding(Verdict.OK, str(file), _description(chain[0]))


def _key(file: Path, certificate: tuple[x509.Certificate, Path] | None) -> Iterator[Finding]:
    try:
        data = file.read_bytes()
        mode = file.stat().st_mode
    except OSError as error:
        yield Finding(Verdict.WRONG, str(file), f"cannot be read: {error.strerror}", "let this host's user read it")
        return
    if mode & _OTHERS:
        yield Finding(
            Verdict.WRONG, str(file), "every user of this machine may read this private key", f"chmod 600 {file}"
        )
    load = load_pem_private_key if data.lstrip().startswith(_PEM) else load_der_private_key
    try:
        public = load(data, password=None).public_key()
    except TypeError:
        yield Finding(
            Verdict.WRONG,
            str(file),
            "this private key is locked by a password",
            "write it without, readable by its owner alone",
        )
        return
    except (ValueError, UnsupportedAlgorithm):
        text = (
            "is a certificate, no private key"
            if b"BEGIN CERTIFICATE" in data
            else "is no private key in PEM or DER form"
        )
        yield Finding(Verdict.WRONG, str(file), text, "name the key that was made with the certificate")
        return
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate is not None and public.public_bytes(*form) != certificate[0].public_key().public_bytes(*form):
        yield Finding(
            Verdict.WRONG,
            str(file),
            f"is not the key of {certificate[1]}",
            "name the key that was made with it, or make a new pair",
        )


def _dates(certificate: x509.Certificate, file: str, now: datetime, remedy: str) -> Iterator[Finding]:
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < since:
        yield Finding(
            Verdict.WRONG, file, f"is not valid before {since:%Y-%m-%d %H:%M} UTC, and now is {now:%Y-%m-%d %H:%M}",
            "set this machine's clock right, or wait",
        )  # fmt: skip
    elif now > until:
        yield Finding(Verdict.WRONG, file, f"ended on {until:%Y-%m-%d}", remedy)
    elif until - now < timedelta(days=SOON_DAYS):
        yield Finding(Verdict.WATCH, file, f"ends on {until:%Y-%m-%d}, in {(until - now).days} days", remedy)


def _strength(certificate: x509.Certificate, file: str, role: CertificateRole) -> Iterator[Finding]:
    key = certificate.public_key()
    low, high = _RSA_BITS
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < low or (key.key_size > high and role not in _PEER_ROLES):
            text = f"its RSA key has {key.key_size} bits; {low} to {high} are taken"
            yield Finding(Verdict.WRONG, file, text, "make a new pair: smp-bridge certificates new")
    elif role not in _PEER_ROLES:
        yield Finding(
            Verdict.WRONG,
            file,
            "its key is not RSA, the only kind that these policies know",
            "make a new pair: smp-bridge certificates new",
        )
    if isinstance(_hash(certificate), _SHA1_FAMILY):
        yield Finding(Verdict.WRONG, file, "is signed with a broken hash (SHA-1 or MD5)", "have it signed with SHA-256")


def _uri(certificate: x509.Certificate, use: CertificateUse, file: str) -> Iterator[Finding]:
    if use.role is not CertificateRole.OPC_UA:
        return
    uris = application_uris(certificate)
    if not uris:
        yield Finding(
            Verdict.WRONG, file, "carries no application URI (subject alternative name, URI)",
            "make one that does: smp-bridge certificates new --uri …; every OPC UA server asks for it",
        )  # fmt: skip
    elif use.application_uri is not None and use.application_uri not in uris:
        yield Finding(
            Verdict.WRONG, file, f"carries the application URI {', '.join(uris)}, and `application_uri:` says {use.application_uri}",
            "leave `application_uri:` out, or make a certificate that carries it",
        )  # fmt: skip
    elif use.application_uri is None and len(uris) > 1:
        yield Finding(
            Verdict.WATCH,
            file,
            f"carries several application URIs, of which {uris[0]} is used",
            "set `application_uri:`",
        )


def _usages(certificate: x509.Certificate, role: CertificateRole, file: str) -> Iterator[Finding]:
    """A usage that is stated must hold what the role needs; one that is not stated allows all (RFC 5280, 4.2.1.3 and 4.2.1.12)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        usage = None
    if usage is not None and not usage.digital_signature:
        yield Finding(
            Verdict.WRONG, file, "may not sign (its key usage lacks digitalSignature)", "make a new one with it"
        )
    if (
        usage is not None
        and role is CertificateRole.OPC_UA
        and not (usage.key_encipherment and usage.data_encipherment)
    ):
        text = "may not encrypt (its key usage lacks keyEncipherment or dataEncipherment)"
        yield Finding(Verdict.WRONG, file, text, "make a new one with both: smp-bridge certificates new")
    try:
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if role is CertificateRole.TLS_SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    if role is not CertificateRole.USER and not {wanted, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(extended):
        name = "serverAuth" if role is CertificateRole.TLS_SERVER else "clientAuth"
        yield Finding(
            Verdict.WRONG, file, f"is not made for this (its extended key usage lacks {name})", "make a new one with it"
        )


def _chain(chain: Sequence[x509.Certificate], role: CertificateRole, file: Path, now: datetime) -> Iterator[Finding]:
    """Each certificate of the file must have been issued by the next; what issued the last one is for the other side to hold."""
    for number, (lower, upper) in enumerate(pairwise(chain), 2):
        yield from _dates(upper, f"{file} (certificate {number} of {len(chain)})", now, "renew it at its authority")
        if not _issued(lower, upper):
            yield Finding(
                Verdict.WRONG, str(file), f"its certificate {number} ({_name(upper)}) did not issue the one before it ({_name(lower)})",
                "first our own, then its authority, then that one's",
            )  # fmt: skip
    last = chain[-1]
    if last.issuer != last.subject:
        text = f"was issued by {last.issuer.rfc4514_string()}: the other side must know that authority"
        remedy = (
            "let the EMS trust it, or its authority"
            if role not in _PEER_ROLES
            else "append the authority's certificate"
        )
        yield Finding(Verdict.WATCH, str(file), text, remedy)
    elif len(chain) == 1 and not _signed_by(last, last):
        yield Finding(
            Verdict.WRONG,
            str(file),
            "its own signature is broken",
            "it was changed or cut; copy it again, or make a new pair",
        )


# theirs -----------------------------------------------------------------------------------------------


def _trusted(use: CertificateUse, now: datetime) -> Iterator[Finding]:
    files = list(use.trusted)
    if use.trust is not None:
        try:
            files += sorted(file for file in use.trust.iterdir() if file.suffix.lower() in _SUFFIXES)
        except OSError as error:
            yield Finding(Verdict.WRONG, str(use.trust), f"cannot be read: {error.strerror}")
        if not files:
            yield Finding(
                Verdict.WRONG, str(use.trust), "holds no certificate, so no server is trusted",
                f"put the EMS's certificate there ({' '.join(sorted(_SUFFIXES))})",
            )  # fmt: skip
    own = _read(use.certificate) if use.certificate is not None else []
    for file in files:
        certificates = _read(file)
        if isinstance(certificates, Finding):
            yield certificates
            continue
        for certificate in certificates:
            yield from _believed(certificate, use, file, now, own if isinstance(own, list) else [])


def _believed(
    certificate: x509.Certificate, use: CertificateUse, file: Path, now: datetime, own: Sequence[x509.Certificate]
) -> Iterator[Finding]:
    if own and certificate == own[0]:
        yield Finding(
            Verdict.WRONG, str(file), "is this host's own certificate, and stands where the other side's belongs",
            "take the EMS's certificate from its administrator",
        )  # fmt: skip
        return
    flaws = list(_dates(certificate, str(file), now, "get the new one from its owner"))
    authority = _is_authority(certificate)
    if use.role in _PEER_ROLES and not authority:
        flaws.append(
            Finding(
                Verdict.WATCH,
                str(file),
                f"{_name(certificate)} is no authority: it vouches for itself alone",
                "name the authority's",
            )
        )
    if use.role is CertificateRole.OPC_UA and not authority and not application_uris(certificate):
        flaws.append(
            Finding(
                Verdict.WRONG, str(file), "carries no application URI, so that its server cannot be known by it",
                "make a new one at the EMS, after its application URI is set there",
            )
        )  # fmt: skip
    yield from flaws
    if not any(flaw.verdict is Verdict.WRONG for flaw in flaws):
        yield Finding(
            Verdict.OK, str(file), f"trusted: {'the authority ' if authority else ''}{_description(certificate)}"
        )


# certificates -----------------------------------------------------------------------------------------


def application_uris(certificate: x509.Certificate) -> tuple[str, ...]:
    """The application URIs that a certificate vouches for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def _read(file: Path) -> list[x509.Certificate] | Finding:
    """The certificates of a file, at least one, or why there are none."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return Finding(Verdict.WRONG, str(file), f"cannot be read: {error.strerror}", "let this host's user read it")
    if b"PRIVATE KEY-----" in content and b"BEGIN CERTIFICATE" not in content:
        return Finding(
            Verdict.WRONG, str(file), "is a private key, no certificate", "name the certificate that belongs to it"
        )
    try:
        if content.lstrip().startswith(_PEM):
            return x509.load_pem_x509_certificates(content)
        return [x509.load_der_x509_certificate(content)]
    except ValueError:
        return Finding(Verdict.WRONG, str(file), "is no certificate in PEM or DER form", "copy it again, in binary")


def _issued(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    return lower.issuer == upper.subject and _signed_by(lower, upper)


def _signed_by(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _hash(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _description(certificate: x509.Certificate) -> str:
    uris = application_uris(certificate)
    thumbprint = certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - what OPC UA tools show
    words = [
        _name(certificate),
        *uris,
        f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}",
        f"SHA-1 thumbprint {thumbprint}",
    ]
    return ", ".join(words)


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "(no name)"
