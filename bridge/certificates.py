"""Application certificates of this host: made with the URI, names and key usages that OPC UA asks for (OPC 10000-6, 6.2.2); they serve TLS as well."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.keys import write_private, write_whole

# Basic256Sha256 and its successors take 2048 to 4096 bits (OPC 10000-7); most servers take 3072.
KEY_BITS: Final = (2048, 3072, 4096)
_BACKDATED: Final = timedelta(hours=1)  # so that an EMS whose clock is a little behind takes it at once
_NAME_LIMIT: Final = 64  # of a common name (RFC 5280, appendix A)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Whose certificate it is to be. `application_uri` names this host as a client; `hosts` are its DNS names and addresses."""

    name: str
    application_uri: str
    hosts: Sequence[str] = ()
    bits: int = 3072

    def flaws(self) -> list[str]:
        """What is wrong with the wish, in words for an operator."""
        found = []
        if not 0 < len(self.name) <= _NAME_LIMIT:
            found.append(f"the name must have 1 to {_NAME_LIMIT} characters; {self.name!r} has {len(self.name)}")
        if not is_uri(self.application_uri):
            found.append(
                f"{self.application_uri!r} is no application URI; it has a scheme and no blanks, such as urn:acme:smp-bridge:ipswich"
            )
        if self.bits not in KEY_BITS:
            found.append(f"a key of {self.bits} bits is not possible; choose one of {', '.join(map(str, KEY_BITS))}")
        found += [f"{host!r} is neither a DNS name nor an address" for host in self.hosts if not _is_host(host)]
        return found


def is_uri(text: str) -> bool:
    """Whether a text can be an application URI: ASCII, a scheme, and no blanks (RFC 3986)."""
    scheme, colon, rest = text.partition(":")
    letters = scheme.replace("+", "").replace("-", "").replace(".", "")
    return bool(colon and rest and letters.isalnum() and scheme[0].isalpha() and text.isascii() and " " not in text)


def new_key(bits: int) -> rsa.RSAPrivateKey:
    """A new RSA key, the only kind that these policies know. Blocking: up to a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def self_signed(wish: Wish, key: rsa.RSAPrivateKey, *, now: datetime, days: int) -> x509.Certificate:
    """A certificate that vouches for itself, as on most plants; the EMS must be told to trust it."""
    subject = _subject(wish)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension, critical in _extensions(wish):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


def request(wish: Wish, key: rsa.RSAPrivateKey) -> x509.CertificateSigningRequest:
    """What an authority is asked to sign (PKCS #10): the same names and usages."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(wish))
    for extension, critical in _extensions(wish):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


def write_pair(
    certificate_file: Path,
    key_file: Path,
    certificate: x509.Certificate | x509.CertificateSigningRequest,
    key: rsa.RSAPrivateKey,
) -> None:
    """Both as PEM, the key readable by its owner alone."""
    write_private(key_file, key)
    write_whole(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def wall_time(wall_ns: int) -> datetime:
    """UTC nanoseconds as the moment that certificates are compared with."""
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC)


def _subject(wish: Wish) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wish.name)])


def _extensions(wish: Wish) -> list[tuple[x509.ExtensionType, bool]]:
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(wish.application_uri), *map(_host, wish.hosts)]
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage, True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName(names), False),
    ]


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_host(host: str) -> bool:
    try:
        _host(host)
    except ValueError:
        return False
    return bool(host) and " " not in host
