"""Certificates of a simulated OPC UA EMS and of the bridge that may talk to it: self-signed, as they are on most plants."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE_DAYS: Final = 30
_RSA_BITS: Final = 2048  # the most that Basic256Sha256 asks of everybody


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """Where a certificate and its private key stand, both PEM, the key readable by its owner alone."""

    certificate: Path
    private_key: Path


def make_pair(directory: Path, name: str, application_uri: str, *, hosts: tuple[str, ...] = ()) -> KeyFiles:
    """A self-signed application certificate (OPC 10000-6, 6.2.2) with its key in `directory`. Blocking: a key takes some 0.1 s."""
    files = KeyFiles(certificate=directory / f"{name}.crt.pem", private_key=directory / f"{name}.key.pem")
    key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    certificate = _certificate(key, name, application_uri, hosts)
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.private_key.touch(mode=0o600)
    files.private_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def _certificate(key: rsa.RSAPrivateKey, name: str, application_uri: str, hosts: tuple[str, ...]) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(application_uri), *map(_host, hosts)]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=LIFE_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
