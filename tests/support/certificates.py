"""Certificates made to order for the form `dip-headers`: of any authority, subject, key, time and usage; and messages signed with them, part by part."""

import base64
import dataclasses
import functools
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from bridge.envelope import Algorithm
from bridge.envelope.certified import Agreed, Target, sign
from bridge.keys import Certified, KeySigner, certificate_key

SUBJECT = "CN=smp.example,O=Single Markets,C=GB"
URL = "https://Bridge.Acme.Example/dip/acme-test/messages"
ROLES = ("signature", "date", "certificate", "digest")
NOW = datetime.now(UTC).replace(microsecond=0)
SIGNING = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
ENCRYPTING = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=True, data_encipherment=False,
    key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


@functools.cache
def rsa_key(name="smp", bits=2048):
    """A key by its name: making one takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def ec_key(name="smp"):
    return ec.generate_private_key(ec.SECP256R1())


@dataclasses.dataclass(frozen=True)
class Issuer:
    """An authority, or whoever takes its place."""

    certificate: x509.Certificate
    key: object


def certificate(
    subject=SUBJECT, *, key, issuer=None, since_days=-1, until_days=365, ca=False, usage=SIGNING, extensions=(), public=None,
    digest=None,
):  # fmt: skip
    """A certificate; without `issuer` it vouches for itself. Days count from the start of the tests."""
    named = x509.Name.from_rfc4514_string(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(issuer.certificate.subject if issuer else named)
        .public_key(public or key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=since_days))
        .not_valid_after(NOW + timedelta(days=until_days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage is not None and not ca:
        builder = builder.add_extension(usage, critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign((issuer.key if issuer else key), digest or hashes.SHA256())


@functools.cache
def authority(name="CN=pinned", until_days=3650):
    key = ec_key(name)
    return Issuer(certificate(name, key=key, ca=True, until_days=until_days), key)


def holder(made=None, key=None, alg=Algorithm.RS256):
    """Who signs: a key with its certificate (by default SMP's own one, of the pinned authority)."""
    key = key or rsa_key()
    made = made or own()
    return Certified(KeySigner("smp-1", alg, key), made.public_bytes(Encoding.DER))


@functools.cache
def own():
    return certificate(key=rsa_key(), issuer=authority())


def thumbprint(made):
    return sha256(made.public_bytes(Encoding.DER)).hexdigest()


def agreed(*, subjects=(SUBJECT,), thumbprints=(), authorities=None, algorithms=(Algorithm.RS256,), **more):
    return Agreed(
        authorities=authorities or [authority().certificate],
        subjects=[x509.Name.from_rfc4514_string(subject) for subject in subjects],
        thumbprints=thumbprints, algorithms=algorithms, **more,
    )  # fmt: skip


def record(made, **changes):
    """What our own records say of a certificate."""
    return dataclasses.replace(certificate_key(made, Algorithm.RS256)[0], **changes)


@dataclasses.dataclass(frozen=True)
class Headed:
    """A message as it travels: the body, and every value of each of the four headers."""

    names: tuple[str, ...]
    body: bytes
    values: tuple[tuple[str, ...], ...]

    @classmethod
    def made(cls, names, body, who=None, *, at_ns, method="POST", url=URL, encoding=None):
        more = {} if encoding is None else {"encoding": encoding}
        values = sign(Target(method, url), body, who or holder(), at_ns=at_ns, **more)
        return cls(tuple(names), body, tuple((value,) for value in values))

    def sent(self):
        """The body, and the headers as pairs."""
        return self.body, [
            (name, value) for name, values in zip(self.names, self.values, strict=True) for value in values
        ]

    def but(self, **changes):
        """With another body, or other values of a header: one, several, or none of it (None)."""
        values = list(self.values)
        for role in ROLES:
            if role in changes:
                given = changes.pop(role)
                values[ROLES.index(role)] = (
                    () if given is None else (given,) if isinstance(given, str) else tuple(given)
                )
        return dataclasses.replace(self, values=tuple(values), **changes)

    def value(self, role):
        return self.values[ROLES.index(role)][0]


def b64(data):
    return base64.b64encode(data).decode()


def shown(made):
    """A certificate as its header has it."""
    return b64(made.public_bytes(Encoding.PEM))


def digest(body):
    return b64(sha256(body).digest())


def pem_of(der):
    """A PEM text of any bytes."""
    text = b64(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]).encode()
