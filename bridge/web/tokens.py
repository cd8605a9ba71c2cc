"""Tokens of the admin API: JWTs (RFC 7519) signed by the host's own key, and believed only while the journal says that they were given out and stand."""

import enum
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt

from bridge.clock import Clock
from bridge.envelope import PublicKey, SignatureForm, sign
from bridge.errors import BridgeError, NotPossible
from bridge.journal.access import AccessReader, TokenView
from bridge.keys import KeySigner, public_from_jwk
from bridge.secret import Secret
from bridge.web.roles import Person, Role

TYPE: Final = "smp-bridge-admin+jwt"  # so that nothing else that this key signs is taken for a token
AUDIENCE: Final = "smp-bridge-admin"
LONGEST: Final = 4096
MOST_MADE: Final = 4000  # so that it fits into a cookie, with its name: browsers keep none of more than 4096 bytes (RFC 6265 section 6.1)
_NS: Final = 1_000_000_000
_ID_BYTES: Final = 9


class Unwelcome(enum.Enum):
    """Why a request is not served. The caller hears only that it is not; the metric says why."""

    MISSING = "missing"
    MALFORMED = "malformed"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    ROLE = "role"
    ORIGIN = "origin"


class TokenRefused(BridgeError):
    """Answer 401: this is not a token that counts here."""

    def __init__(self, reason: Unwelcome) -> None:
        super().__init__(f"the token is not accepted ({reason.value})")
        self.reason = reason


def new_token_id() -> str:
    """Random, and short enough to be said on the telephone."""
    return f"t-{secrets.token_hex(_ID_BYTES)}"


def make_token(signer: KeySigner, view: TokenView) -> Secret:
    """The token that the journal knows as `view`. Raises `NotPossible` for one so long that it would count nowhere."""
    claims: dict[str, object] = {
        "iss": signer.kid,
        "aud": AUDIENCE,
        "sub": view.holder,
        "jti": view.id,
        "role": view.role,
        "participants": list(view.participants) or "*",
        "iat": view.issued_ns // _NS,
        "exp": view.expires_ns // _NS,
    }
    signed = sign(SignatureForm.JWS_COMPACT, json.dumps(claims).encode(), signer, {"typ": TYPE})
    if len(signed.body) > MOST_MADE:
        raise NotPossible(
            f"a token for {len(view.participants)} participants has {len(signed.body)} characters, {MOST_MADE} may be",
            hint="make several, each for some of them, or one with --all",
        )
    return Secret(signed.body.decode("ascii"))


@dataclass(frozen=True, slots=True)
class Believer:
    """Believes tokens of this host. Without a key it believes none."""

    key: PublicKey | None
    journal: AccessReader
    clock: Clock

    @classmethod
    def of(cls, signer: KeySigner | None, journal: AccessReader, clock: Clock) -> "Believer":
        """By the public half of the host's own key."""
        key = None if signer is None else public_from_jwk(Path("host_key"), signer.public_jwk())
        return cls(key, journal, clock)

    async def person(self, token: Secret) -> Person:
        """Whose token it is, as the journal has it at this moment. Raises `TokenRefused`."""
        claims = self._claims(token)
        found = await self.journal.token(str(claims["jti"]))
        if found is None:
            raise TokenRefused(Unwelcome.UNKNOWN)
        if found.revoked_ns:
            raise TokenRefused(Unwelcome.REVOKED)
        if found.expires_ns <= self.clock.wall_ns():
            raise TokenRefused(Unwelcome.EXPIRED)
        said = (claims["sub"], claims["role"], claims["participants"])
        if said != (found.holder, found.role, list(found.participants) or "*"):
            raise TokenRefused(Unwelcome.UNKNOWN)  # a row that was changed under the token is not what was given out
        return Person(
            name=found.holder,
            role=Role(found.role),
            participants=frozenset(found.participants) or None,
            token=found.id,
            expires_ns=found.expires_ns,
        )

    def _claims(self, token: Secret) -> dict[str, Any]:
        """What it says, once its signature is this host's. Its times are checked by the journal's row and our own clock."""
        text, key = token.reveal(), self.key
        if not text:
            raise TokenRefused(Unwelcome.MISSING)
        if key is None or len(text) > LONGEST:
            raise TokenRefused(Unwelcome.MALFORMED if key else Unwelcome.UNKNOWN)
        try:
            header = jwt.get_unverified_header(text)
            if header.get("typ") != TYPE or header.get("kid") != key.kid or "crit" in header:
                raise TokenRefused(Unwelcome.MALFORMED)
            options: Any = {
                "verify_exp": False, "verify_iat": False, "verify_nbf": False,
                "require": ["iss", "aud", "sub", "jti", "role", "participants", "exp"],
            }  # fmt: skip
            found: dict[str, Any] = jwt.decode(
                text, key.key, algorithms=[key.alg.value], audience=AUDIENCE, issuer=key.kid, options=options
            )
        except jwt.InvalidSignatureError:
            raise TokenRefused(Unwelcome.SIGNATURE) from None
        except (jwt.PyJWTError, ValueError):
            raise TokenRefused(Unwelcome.MALFORMED) from None  # the library's text may quote the token
        return found
