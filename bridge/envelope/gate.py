"""The strict gate: cheap checks before costly ones, one reason for a refusal, one call of `verify` for a message that reaches it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from bridge.envelope import base64url
from bridge.envelope.keys import Algorithm, PublicKey
from bridge.envelope.reasons import Refusal, SignatureRefused
from bridge.profile.words import SignatureForm

MAX_HEADER: Final = 8 * 1024
MAX_TOKEN: Final = 16 * 1024
MAX_KID: Final = 128
_EMBEDDED: Final = ("jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256")
_FLATTENED: Final = frozenset({"payload", "protected", "signature"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """An authentic message: the exact payload bytes and what its protected header says. `signed_ns` (UTC) is when it was signed, where its form says so."""

    payload: bytes
    protected: Mapping[str, Any]
    kid: str
    alg: Algorithm
    signed_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A message taken apart, nothing of it verified. `signing_input` is RFC 7515 section 5.1 step 5."""

    header: Mapping[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def _free() -> None:
    """Nothing is charged for the costly call."""


def verify(
    form: SignatureForm,
    body: bytes,
    header_values: Sequence[str],
    keys: Mapping[str, PublicKey],
    charge: Callable[[], None] = _free,
) -> Verified:
    """Authenticate a message over its raw bytes; raises `SignatureRefused` with the one reason.

    `header_values` are all values of the profile's signature header; `keys` is looked up by `kid` and nothing else ever is.
    `charge` is called after every cheap check and before the costly one; what it raises passes through.
    """
    return verify_parts(take_apart(form, body, header_values), keys, charge)


def verify_parts(parts: Parts, keys: Mapping[str, PublicKey], charge: Callable[[], None] = _free) -> Verified:
    """The gate for a message already taken apart."""
    for check in HEADER_CHECKS:
        check(parts.header)
    key = keys.get(str(parts.header["kid"]))
    if key is None:
        raise SignatureRefused(Refusal.KID_UNKNOWN)
    return check_key(parts, key, charge)


def verify_with(parts: Parts, key: PublicKey) -> Verified:
    """The same gate for one given key; `kid` is not looked at."""
    for check in HEADER_CHECKS:
        if check is not _check_kid:
            check(parts.header)
    return check_key(parts, key)


def check_key(parts: Parts, key: PublicKey, charge: Callable[[], None] = _free) -> Verified:
    """The key's own rules, then the one costly call, then whether the key may still be used."""
    for check in KEY_CHECKS:
        check(parts, key)
    charge()
    for check in SIGNATURE_CHECKS:
        check(parts, key)
    return Verified(payload=parts.payload, protected=parts.header, kid=key.kid, alg=key.alg)


def unwrap(form: SignatureForm, body: bytes, header_values: Sequence[str]) -> tuple[bytes, Mapping[str, Any]]:
    """Payload and protected header of a message that was verified when it came; nothing is verified here."""
    parts = take_apart(form, body, header_values)
    return parts.payload, parts.header


def take_apart(form: SignatureForm, body: bytes, header_values: Sequence[str]) -> Parts:
    """Split a message by its form; raises `SignatureRefused` for whatever is not exactly that form."""
    if form.certified:
        raise ValueError(f"{form.value} is no JWS; `bridge.envelope.certified` reads it")
    if form is SignatureForm.JWS_DETACHED:
        if not header_values or not header_values[0]:
            raise SignatureRefused(Refusal.NO_SIGNATURE)
        if len(header_values) > 1:
            raise SignatureRefused(Refusal.TWO_SIGNATURES)
        return detached(header_values[0], body)
    if header_values:
        raise SignatureRefused(Refusal.TWO_SIGNATURES)
    if not body:
        raise SignatureRefused(Refusal.NO_SIGNATURE)
    return flattened(body) if form is SignatureForm.JWS_FLATTENED else compact(body)


def detached(token: str, payload: bytes) -> Parts:
    """RFC 7515 appendix F: the payload travels beside the token."""
    if len(token) > MAX_TOKEN:
        raise SignatureRefused(Refusal.TOO_LARGE)
    head, middle, tail = _three(token)
    if middle:
        raise SignatureRefused(Refusal.PAYLOAD_PRESENT)
    return _parts(head, base64url.encode(payload), tail, payload)


def compact(body: bytes) -> Parts:
    """RFC 7515 section 7.1."""
    head, middle, tail = _three(_ascii(body))
    return _parts(head, middle, tail, _decode(middle))


def flattened(body: bytes) -> Parts:
    """RFC 7515 section 7.2.2, with nothing but its three members."""
    message = _object(body, Refusal.MALFORMED)
    if set(message) - _FLATTENED:
        raise SignatureRefused(Refusal.EXTRA_MEMBER)
    missing = _FLATTENED - set(message)
    if missing:
        raise SignatureRefused(Refusal.NO_SIGNATURE if "signature" in missing else Refusal.MALFORMED)
    head, middle, tail = (message[name] for name in ("protected", "payload", "signature"))
    if not all(isinstance(part, str) for part in (head, middle, tail)):
        raise SignatureRefused(Refusal.MALFORMED)
    return _parts(head, middle, tail, _decode(middle))


def _three(token: str) -> tuple[str, str, str]:
    parts = token.split(".")
    if len(parts) != 3:  # RFC 7515 section 7.1: exactly header, payload, signature
        raise SignatureRefused(Refusal.MALFORMED)
    return parts[0], parts[1], parts[2]


def _parts(head: str, middle: str, tail: str, payload: bytes) -> Parts:
    if len(head) > MAX_HEADER:
        raise SignatureRefused(Refusal.TOO_LARGE)
    if not tail:
        raise SignatureRefused(Refusal.NO_SIGNATURE)
    header = _object(_decode(head), Refusal.HEADER_NOT_JSON)
    return Parts(
        header=header, payload=payload, signing_input=f"{head}.{middle}".encode("ascii"), signature=_decode(tail)
    )


def _ascii(body: bytes) -> str:
    try:
        return body.decode("ascii")
    except UnicodeDecodeError as error:
        raise SignatureRefused(Refusal.MALFORMED) from error


def _decode(text: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise SignatureRefused(Refusal.BASE64URL) from error


def _object(data: bytes, reason: Refusal) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate is no text
    except (ValueError, RecursionError) as error:
        raise SignatureRefused(reason) from error
    if not isinstance(value, dict):
        raise SignatureRefused(reason)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise SignatureRefused(Refusal.DUPLICATE_MEMBER)
    return members


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_alg(header: Mapping[str, Any]) -> None:
    alg = header.get("alg")
    if not isinstance(alg, str):
        raise SignatureRefused(Refusal.ALG_MISSING)
    if alg not in Algorithm._value2member_map_:
        raise SignatureRefused(Refusal.ALG_NOT_ALLOWED)


def _check_embedded(header: Mapping[str, Any]) -> None:
    if any(name in header for name in _EMBEDDED):
        raise SignatureRefused(Refusal.EMBEDDED_KEY)


def _check_crit(header: Mapping[str, Any]) -> None:
    if "crit" in header:
        raise SignatureRefused(Refusal.CRIT)


def _check_b64(header: Mapping[str, Any]) -> None:
    if "b64" in header:
        raise SignatureRefused(Refusal.B64)


def _check_kid(header: Mapping[str, Any]) -> None:
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise SignatureRefused(Refusal.KID_MISSING)
    if len(kid) > MAX_KID or not kid.isascii() or not kid.isprintable():
        raise SignatureRefused(Refusal.KID_MALFORMED)


# In order, cheap ones all; `KEY_CHECKS` and `SIGNATURE_CHECKS` follow. A self-test removes each of them and sees its rows fail.
HEADER_CHECKS: Final[Sequence[Callable[[Mapping[str, Any]], None]]] = (
    _check_alg,
    _check_embedded,
    _check_crit,
    _check_b64,
    _check_kid,
)


def _check_alg_of_key(parts: Parts, key: PublicKey) -> None:
    if parts.header["alg"] != key.alg.value:
        raise SignatureRefused(Refusal.ALG_MISMATCH)


def _check_use(parts: Parts, key: PublicKey) -> None:
    del parts
    if not key.may_verify:
        raise SignatureRefused(Refusal.KEY_USE)


def _check_length(parts: Parts, key: PublicKey) -> None:
    if len(parts.signature) != key.signature_length or not any(parts.signature):
        raise SignatureRefused(Refusal.SIGNATURE_LENGTH)


# Cheap ones all, in order, for a key that is known.
KEY_CHECKS: Final[Sequence[Callable[[Parts, PublicKey], None]]] = (_check_alg_of_key, _check_use, _check_length)


def _check_signature(parts: Parts, key: PublicKey) -> None:
    if not key.verify(parts.signing_input, parts.signature):
        raise SignatureRefused(Refusal.BAD_SIGNATURE)


def _check_barred(parts: Parts, key: PublicKey) -> None:
    del parts
    if key.barred is not None:
        raise SignatureRefused(key.barred, kid=key.kid)


# The costly call. What was withdrawn comes after it, so that nobody learns by time which keys were.
SIGNATURE_CHECKS: Final[Sequence[Callable[[Parts, PublicKey], None]]] = (_check_signature, _check_barred)
