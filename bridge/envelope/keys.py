"""Keys as the envelope knows them: one algorithm each (DESIGN, "JOSE library"), PyJWT's Algorithm objects for the mathematics."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

from jwt.algorithms import Algorithm as JoseAlgorithm
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

from bridge.envelope.reasons import Refusal


class Algorithm(enum.Enum):
    """The allow-list of DOMAIN 3; nothing else is ever used with SMP."""

    PS256 = "PS256"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"

    @property
    def jose(self) -> JoseAlgorithm:
        """PyJWT's object that signs and verifies the exact signing input."""
        return _JOSE[self]


_JOSE: Final[Mapping[Algorithm, JoseAlgorithm]] = {
    Algorithm.PS256: RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    Algorithm.RS256: RSAAlgorithm(RSAAlgorithm.SHA256),
    Algorithm.ES256: ECAlgorithm(ECAlgorithm.SHA256),
    Algorithm.EDDSA: OKPAlgorithm(),
}
FIXED_LENGTHS: Final[Mapping[Algorithm, int]] = {Algorithm.ES256: 64, Algorithm.EDDSA: 64}


class Signer(Protocol):
    """Whatever can sign: a key in memory, later one in a hardware module."""

    @property
    def kid(self) -> str:
        """The key's id, as the peer's key set names it."""

    @property
    def alg(self) -> Algorithm:
        """The key's one algorithm."""

    def sign(self, signing_input: bytes) -> bytes:
        """The raw signature (RFC 7518 section 3) of these bytes."""


class Rotating:
    """A signer whose key changes while the host runs. Whoever signs takes `current` once and uses that, for another thread may change it."""

    __slots__ = ("current", "withdrawn")

    def __init__(self, current: Signer) -> None:
        self.current = current
        self.withdrawn: frozenset[str] = frozenset()

    @property
    def kid(self) -> str:
        """The id of the key that signs now."""
        return self.current.kid

    @property
    def alg(self) -> Algorithm:
        """Its one algorithm."""
        return self.current.alg

    def sign(self, signing_input: bytes) -> bytes:
        """Sign with the key of this moment."""
        return self.current.sign(signing_input)


def current(signer: Signer) -> Signer:
    """The key that signs at this moment; it does not change."""
    return signer.current if isinstance(signer, Rotating) else signer


def blocks(signer: Signer) -> bool:
    """Whether signing may take milliseconds, so that it belongs on a thread (a hardware module)."""
    return bool(getattr(current(signer), "blocking", False))


def withdrawn(signer: Signer, kid: str) -> bool:
    """Whether this key of ours was revoked, so that nothing signed with it may leave."""
    return isinstance(signer, Rotating) and kid in signer.withdrawn


@dataclass(frozen=True)
class PublicKey:
    """A verification key. `key` is a parsed key object of `cryptography`; `use` and `key_ops` as its JWK states them.

    `expires_ns` (UTC, 0 = never) is its JWK's `exp`. `barred` says why nothing of it is taken any more although the key is known.
    """

    kid: str
    alg: Algorithm
    key: Any
    use: str | None = None
    key_ops: tuple[str, ...] | None = None
    expires_ns: int = 0
    barred: Refusal | None = None

    @property
    def may_verify(self) -> bool:
        """Whether RFC 7517 sections 4.2 and 4.3 allow this key to verify."""
        return self.use in (None, "sig") and (self.key_ops is None or "verify" in self.key_ops)

    @cached_property
    def signature_length(self) -> int:
        """The only length a signature of this key can have, in bytes."""
        fixed = FIXED_LENGTHS.get(self.alg)
        return fixed if fixed is not None else (int(self.key.key_size) + 7) // 8

    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's over exactly these bytes."""
        return bool(self.alg.jose.verify(signing_input, self.key, signature))
