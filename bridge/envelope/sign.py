"""Sign once; the bytes that were signed are the bytes that travel."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from bridge.envelope import base64url
from bridge.envelope.keys import Signer, current
from bridge.profile.words import SignatureForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The body to send, and the token for the profile's header (None where the body holds the signature)."""

    body: bytes
    token: str | None = None


def sign(form: SignatureForm, payload: bytes, signer: Signer, protected: Mapping[str, object]) -> Signed:
    """Sign these exact bytes. The protected header holds `alg`, `kid` and the caller's own members (which cannot replace those two)."""
    if form.certified:
        raise ValueError(f"{form.value} is no JWS; `bridge.envelope.certified` makes it")
    signer = current(signer)
    header = orjson.dumps({**protected, "alg": signer.alg.value, "kid": signer.kid})
    head, content = base64url.encode(header), base64url.encode(payload)
    signature = base64url.encode(signer.sign(f"{head}.{content}".encode("ascii")))
    if form is SignatureForm.JWS_DETACHED:
        return Signed(body=payload, token=f"{head}..{signature}")
    if form is SignatureForm.JWS_FLATTENED:
        return Signed(body=orjson.dumps({"payload": content, "protected": head, "signature": signature}))
    return Signed(body=f"{head}.{content}.{signature}".encode("ascii"))
