"""Key files: the participant's private signing key, SMP's public keys. Parsed once, held as key objects, written whole or not at all."""

import base64
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from bridge.envelope import Algorithm, PublicKey
from bridge.envelope.authority import DAMAGED, is_authority, may_sign, window_s
from bridge.envelope.base64url import encode
from bridge.envelope.keys import Signer
from bridge.errors import ConfigError, Problem
from bridge.secret import Secret

LEAST_RSA_BITS: Final = 2048
NEW_RSA_BITS: Final = 3072
_LATEST_S: Final = 253_402_300_800  # the year 10000
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_THUMBPRINT: Final[Mapping[str, tuple[str, ...]]] = {
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}

CHAIN: Final = "x5c"  # RFC 7517 section 4.7

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class Shown(Protocol):
    """A key whose public half can be shown."""

    def public_jwk(self) -> dict[str, Any]:
        """The public half as a JWK (RFC 7517) with kid, alg and use."""


@dataclass(frozen=True, slots=True)
class KeySigner:
    """A private key in memory with its one algorithm; never shows the key."""

    kid: str
    alg: Algorithm
    _key: Any

    def sign(self, signing_input: bytes) -> bytes:
        """The raw signature of these bytes."""
        return self.alg.jose.sign(signing_input, self._key)

    def public_jwk(self) -> dict[str, Any]:
        """The public half as a JWK (RFC 7517) with kid, alg and use."""
        return public_jwk(self._key, kid=self.kid, alg=self.alg)

    def __repr__(self) -> str:
        return f"KeySigner(kid={self.kid!r}, alg={self.alg.value})"


class ShownSigner(Signer, Shown, Protocol):
    """A key that signs, and whose public half can be shown."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A private key with the certificate (DER) that its messages show."""

    signer: ShownSigner
    certificate: bytes

    @property
    def kid(self) -> str:
        """The key's id."""
        return self.signer.kid

    @property
    def alg(self) -> Algorithm:
        """The key's one algorithm."""
        return self.signer.alg

    @property
    def blocking(self) -> bool:
        """Whether signing may take milliseconds."""
        return bool(getattr(self.signer, "blocking", False))

    def sign(self, signing_input: bytes) -> bytes:
        """The raw signature of these bytes."""
        return self.signer.sign(signing_input)

    def public_jwk(self) -> dict[str, Any]:
        """The public half as a JWK (RFC 7517), its certificate in `x5c`."""
        return {**self.signer.public_jwk(), CHAIN: [base64.b64encode(self.certificate).decode("ascii")]}


def certify(signer: ShownSigner, path: Path) -> Certified:
    """A key of ours with its certificate, the first of this file. Raises `ConfigError` where that belongs to another key or may not sign."""
    certificate = load_certificates(path)[0]
    try:
        public = certificate.public_key()
        algorithm_of(path, public, signer.alg)
        own = public_jwk(public, kid=signer.kid, alg=signer.alg)
    except DAMAGED:
        own = {}
    if own != signer.public_jwk():
        raise _wrong(path, f"belongs to another key than {signer.kid}; name the certificate that was made for this one")
    if not may_sign(certificate):
        raise _wrong(
            path,
            "is not for signing: it is an authority's, its key usage lacks digitalSignature, or something critical in it is unknown",
        )
    return Certified(signer, certificate.public_bytes(serialization.Encoding.DER))


def certified_as(signer: ShownSigner, jwk: Mapping[str, Any]) -> ShownSigner:
    """A key of ours with the certificate that a JWK of it holds, if there is one."""
    chain = jwk.get(CHAIN)
    return Certified(signer, base64.b64decode(chain[0])) if chain else signer


def load_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, one at least. Raises `ConfigError`."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except DAMAGED as error:
        raise _wrong(path, "holds no certificate in PEM form") from error


def load_authorities(path: Path) -> list[x509.Certificate]:
    """Certificates that may issue others. Raises `ConfigError` where one of the file may not."""
    found = load_certificates(path)
    for one in found:
        if not is_authority(one):
            name = one.subject.rfc4514_string()
            raise _wrong(
                path, f"holds a certificate ({name}) of no authority; name the authority that issues SMP's certificates"
            )
    return found


def certificate_key(certificate: x509.Certificate, alg: Algorithm) -> tuple[PublicKey, dict[str, Any]]:
    """A certificate of SMP's as a key, named by its SHA-256 thumbprint, and its JWK with the certificate in `x5c`."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    kid = sha256(der).hexdigest()
    key = PublicKey(kid=kid, alg=alg, key=certificate.public_key(), expires_ns=window_s(certificate)[1] * 1_000_000_000)
    return key, {**public_jwk(key.key, kid=kid, alg=alg), CHAIN: [base64.b64encode(der).decode("ascii")]}


def load_signer(
    path: Path, *, kid: str | None = None, alg: Algorithm | None = None, password: Secret | None = None
) -> KeySigner:
    """Read a private signing key: PEM (PKCS#8, may be encrypted) or a private JWK.

    `kid` defaults to the JWK's own, else the RFC 7638 thumbprint; `alg` to the JWK's own, else ES256, EdDSA or PS256 by the key's type.
    Raises `ConfigError` that names the file, never its content.
    """
    data = _read(path)
    if data.lstrip().startswith(b"{"):
        members = _json(path, data)
        key = _private_from_jwk(path, members)
        kid = kid or members.get("kid")
        named = members.get("alg")
        alg = alg or (_algorithm(path, named) if named else None)
    else:
        key = _private_from_pem(path, data, password)
    found = algorithm_of(path, key, alg)
    return KeySigner(kid or thumbprint(key), found, key)


def load_jwks(path: Path) -> dict[str, PublicKey]:
    """Read a JWK Set of public keys by kid; every key needs `kid` and one of our algorithms as `alg`. Raises `ConfigError` with every problem."""
    entries = _json(path, _read(path)).get("keys")
    if not isinstance(entries, list) or not entries:
        raise _wrong(
            path, 'is not a JWK Set; it must be {"keys": [ … ]} with at least one public key (RFC 7517 section 5)'
        )
    found: dict[str, PublicKey] = {}
    problems: list[Problem] = []
    for number, entry in enumerate(entries):
        try:
            key = public_from_jwk(path, entry)
        except ConfigError as error:
            problems += [
                Problem(file=str(path), path=f"keys[{number}]", text=problem.text) for problem in error.problems
            ]
            continue
        if key.kid in found:
            problems.append(Problem(file=str(path), path=f"keys[{number}]", text=f"kid {key.kid} stands twice"))
        found[key.kid] = key
    if problems:
        raise ConfigError(problems)
    return found


def public_from_jwk(path: Path, entry: object, *, need_kid: bool = True, alg: Algorithm | None = None) -> PublicKey:
    """One public key of a JWK; with `alg` given, the JWK may leave its own out."""
    if not isinstance(entry, dict):
        raise _wrong(path, "is not a JWK")
    if entry.get("kty") == "oct":
        raise _wrong(path, "is a shared secret (kty oct); SMP's messages are verified with public keys only")
    if need_kid and _PRIVATE_MEMBERS & set(entry):
        raise _wrong(path, "holds private members; take the public half only")
    kid = entry.get("kid")
    if not isinstance(kid, str) or not kid:
        if need_kid:
            raise _wrong(path, "has no `kid`; every key needs the id that messages name it by")
        kid = ""
    named = entry.get("alg")
    if named is None and alg is None:
        known = ", ".join(known.value for known in Algorithm)
        raise _wrong(path, f"has no `alg`; a key has exactly one algorithm of {known}")
    if named is not None and alg is not None and named != alg.value:
        raise _wrong(path, f"is for {named}, not {alg.value}")
    chosen = alg or _algorithm(path, named)
    public = _load_jwk(path, {name: value for name, value in entry.items() if name not in _PRIVATE_MEMBERS})
    algorithm_of(path, public, chosen)
    operations, expires = entry.get("key_ops"), entry.get("exp", 0)
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 <= expires < _LATEST_S:
        raise _wrong(path, "has an `exp` that is no time; it is a number of seconds since 1970 (RFC 7519 section 2)")
    return PublicKey(
        kid=kid,
        alg=chosen,
        key=public,
        use=entry.get("use"),
        key_ops=tuple(operations) if isinstance(operations, list) else None,
        expires_ns=int(expires * 1_000_000_000),
    )


def new_key(alg: Algorithm) -> PrivateKey:
    """A new private key for this algorithm."""
    if alg is Algorithm.ES256:
        return ec.generate_private_key(ec.SECP256R1())
    if alg is Algorithm.EDDSA:
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=NEW_RSA_BITS)


def write_private(path: Path, key: PrivateKey, *, password: Secret | None = None) -> None:
    """Write PKCS#8 PEM that only the owner can read; a reader sees the old file or the new one, never half of it."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.reveal().encode())
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    write_whole(path, data, mode=0o600)


def write_whole(path: Path, data: bytes, *, mode: int) -> None:
    """Temporary file, flush to disk, rename, flush the directory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def public_jwk(key: Any, *, kid: str, alg: Algorithm) -> dict[str, Any]:
    """The public half of any key object as a JWK with kid, alg and use."""
    public = key.public_key() if hasattr(key, "public_key") else key
    members = dict(alg.jose.to_jwk(public, as_dict=True))
    members.pop("key_ops", None)
    return {**members, "kid": kid, "alg": alg.value, "use": "sig"}


def public_jwks(signers: Iterable[Shown]) -> dict[str, Any]:
    """A JWK Set of the public halves."""
    return {"keys": [signer.public_jwk() for signer in signers]}


def thumbprint(key: Any) -> str:
    """RFC 7638: SHA-256 over the required members in order."""
    members = public_jwk(key, kid="", alg=_natural(key) or Algorithm.ES256)
    required = {name: members[name] for name in _THUMBPRINT[members["kty"]]}
    return encode(sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest())


def algorithm_of(path: Path, key: Any, alg: Algorithm | None) -> Algorithm:
    """The key's one algorithm; a key that does not fit it, or is too weak, is refused."""
    natural = _natural(key)
    if natural is None:
        raise _wrong(path, "is neither EC P-256, Ed25519 nor RSA")
    if natural is Algorithm.PS256 and key.key_size < LEAST_RSA_BITS:
        raise _wrong(
            path, f"is an RSA key of {key.key_size} bits; at least {LEAST_RSA_BITS} are needed, 3072 are better"
        )
    fits = {natural} | ({Algorithm.RS256} if natural is Algorithm.PS256 else set())
    if alg is not None and alg not in fits:
        raise _wrong(
            path,
            f"does not fit {alg.value}; this key can be used with {' or '.join(sorted(one.value for one in fits))}",
        )
    return alg or natural


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from error


def _json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _wrong(path, "is not JSON") from error
    if not isinstance(value, dict):
        raise _wrong(path, "is not a JSON object")
    return value


def _private_from_pem(path: Path, data: bytes, password: Secret | None) -> Any:
    try:
        return serialization.load_pem_private_key(data, password.reveal().encode() if password else None)
    except TypeError:
        text = "is encrypted; give its password" if password is None else "is not encrypted; leave its password out"
        raise _wrong(path, text) from None
    except ValueError:
        raise _wrong(path, "is not a private key in PEM, or its password is wrong") from None


def _private_from_jwk(path: Path, members: dict[str, Any]) -> Any:
    key = _load_jwk(path, members)
    if not hasattr(key, "public_key"):
        raise _wrong(path, "is a public key; the private one is needed to sign")
    return key


def _load_jwk(path: Path, members: Mapping[str, Any]) -> Any:
    by_type = {"EC": Algorithm.ES256, "OKP": Algorithm.EDDSA, "RSA": Algorithm.PS256}
    kind = by_type.get(str(members.get("kty")))
    if kind is None:
        raise _wrong(path, "has a `kty` other than EC, OKP or RSA")
    try:
        return kind.jose.from_jwk(dict(members))
    except Exception:  # noqa: BLE001 - the library raises what it likes for a malformed key; its text may quote the key
        raise _wrong(path, f"is not a well-formed {members['kty']} key") from None


def _algorithm(path: Path, named: object) -> Algorithm:
    try:
        return Algorithm(named)
    except ValueError:
        known = ", ".join(known.value for known in Algorithm)
        raise _wrong(path, f"is for algorithm {named}, which is not one of {known}") from None


def _natural(key: Any) -> Algorithm | None:
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return Algorithm.ES256 if key.curve.name == "secp256r1" else None
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return Algorithm.EDDSA
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return Algorithm.PS256
    return None


def _wrong(path: Path, text: str) -> ConfigError:
    return ConfigError([Problem(file=str(path), text=text)])
