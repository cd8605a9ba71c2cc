"""Signing and verifying with joserfc, another library than the bridge's own, so that one library's mistake cannot hide on both sides."""

import base64
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, KeySet

from bridge.profile import SignatureForm

ALGORITHMS: Final = ("PS256", "RS256", "ES256", "EdDSA")


class NotAuthentic(Exception):
    """The message's signature is missing, malformed or wrong."""


class SigningKey:
    """A key of the sandbox's own, with its id."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"})

    def public(self) -> dict[str, Any]:
        """The public JWK."""
        return dict(self._key.as_dict(private=False))

    def sign(self, form: SignatureForm, payload: bytes, protected: Mapping[str, object]) -> tuple[bytes, str | None]:
        """The body to send, and the token for the signature header where the form is detached."""
        header = {**protected, "alg": "ES256", "kid": self.kid}
        if form is SignatureForm.JWS_FLATTENED:
            made = jws.serialize_json({"protected": header}, payload, self._key, registry=_registry())
            return json.dumps(made).encode(), None
        token = jws.serialize_compact(header, payload, self._key, registry=_registry())
        if form is SignatureForm.JWS_COMPACT:
            return token.encode(), None
        head, _, signature = token.split(".")
        return payload, f"{head}..{signature}"


def key_set(jwks: Mapping[str, Any]) -> KeySet:
    """A participant's public keys."""
    return KeySet.import_key_set({"keys": list(jwks["keys"])})


def check_keys(jwks: Mapping[str, Any]) -> None:
    """Raises ValueError when a participant's set holds no key, or one that cannot be used."""
    try:
        with _quiet():
            key_set(jwks)
    except (JoseError, ValueError, TypeError) as error:
        raise ValueError(f"holds no key that can be used: {getattr(error, 'description', '') or error}") from error


def verify(
    form: SignatureForm, body: bytes, tokens: Sequence[str], keys: KeySet
) -> tuple[bytes, Mapping[str, Any], str]:
    """Payload, protected header and key id of an authentic message; raises `NotAuthentic`."""
    try:
        with _quiet():
            return _verify(form, body, tokens, keys)
    except (JoseError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise NotAuthentic(f"{type(error).__name__}: {error}"[:200]) from error


def _verify(
    form: SignatureForm, body: bytes, tokens: Sequence[str], keys: KeySet
) -> tuple[bytes, Mapping[str, Any], str]:
    if form is SignatureForm.JWS_FLATTENED:
        message = json.loads(body)
        head = _head(message["protected"])
        found = jws.deserialize_json(message, _key(keys, head), registry=_registry())
        return found.payload, head, str(head["kid"])
    if form is SignatureForm.JWS_COMPACT:
        token = body.decode("ascii")
    else:
        if len(tokens) != 1:
            raise NotAuthentic("exactly one signature header is needed")
        first, middle, last = tokens[0].split(".")
        if middle:
            raise NotAuthentic("a detached signature carries no payload")
        token = f"{first}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}.{last}"
    head = _head(token.split(".")[0])
    compact = jws.deserialize_compact(token, _key(keys, head), registry=_registry())
    return compact.payload, head, str(head["kid"])


def _head(text: str) -> dict[str, Any]:
    head = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    if not isinstance(head, dict):
        raise NotAuthentic("the protected header is not an object")
    return head


def _key(keys: KeySet, head: Mapping[str, Any]) -> Key:
    """The one key that the message names, only with its own algorithm."""
    key = keys.get_by_kid(str(head["kid"]))
    if key.get("alg") not in {None, head.get("alg")}:
        raise NotAuthentic("the key is for another algorithm")
    return key


class _Registry(jws.JWSRegistry):
    """Any header members, and messages as large as the server takes them: its own limit is checked before."""

    max_header_length = 16 * 1024
    max_payload_length = 64 * 1024 * 1024


def _registry() -> jws.JWSRegistry:
    return _Registry(algorithms=list(ALGORITHMS), strict_check_header=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """EdDSA is deprecated as a name only (RFC 9864); participants still use it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        yield
