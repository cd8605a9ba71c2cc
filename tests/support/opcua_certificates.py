"""Certificates with the flaws that tests of trust need."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 1_000_000_000


class Made(NamedTuple):
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    def write(
        self, directory: Path, name: str, *, form: str = "pem", password: bytes | None = None
    ) -> tuple[Path, Path]:
        """Both into files of one form."""
        encoding = serialization.Encoding.PEM if form == "pem" else serialization.Encoding.DER
        secrecy = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        certificate, key = directory / f"{name}.crt.{form}", directory / f"{name}.key.{form}"
        certificate.write_bytes(self.certificate.public_bytes(encoding))
        key.touch(mode=0o600)
        key.write_bytes(self.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, secrecy))
        return certificate, key


def make(
    name: str = "ems",
    *,
    uri: str | None = "urn:acme:ems",
    issuer: Made | None = None,
    ca: bool = False,
    since: datetime = NOW - timedelta(days=1),
    until: datetime = NOW + timedelta(days=1),
    path_length: int | None = None,
    may_sign: bool | None = None,
) -> Made:
    """A certificate, self-signed or issued by another."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    if may_sign is not None:
        names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
        usage = x509.KeyUsage(**dict.fromkeys(names, False), key_cert_sign=may_sign)
        builder = builder.add_extension(usage, critical=True)
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False)
    return Made(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)
