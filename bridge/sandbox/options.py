"""How a sandbox is set up."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.profile import Profile
from bridge.sandbox.jose import check_keys
from bridge.sandbox.knobs import Knobs


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxParticipant:
    """A participant's account: its login, its public keys, and where its returns go (may be set later)."""

    name: str
    user: str
    password: str = field(repr=False)
    jwks: Mapping[str, Any]
    sender: str = ""
    return_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """How a sandbox is set up; all ids are drawn from `seed`.

    `client_ca` (PEM) asks every caller for a certificate of that authority. `return_ca` (PEM) signed the participants' end points; the sandbox's own
    authority is always trusted. `name` is how the sandbox calls itself in its messages.
    """

    profile: Profile
    participants: Sequence[SandboxParticipant]
    seed: int = 0
    name: str = "SMP"
    environment: str = "TEST"
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int | None = None
    client_ca: bytes | None = None
    return_ca: bytes | None = None
    knobs: Knobs = field(default_factory=Knobs)


def jwks_of(text: str | bytes) -> Mapping[str, Any]:
    """A JWK Set out of its JSON; raises ValueError when it is none, or holds no key or one that cannot be used."""
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        raise ValueError('not a JWK Set: an object with a list "keys" is needed (RFC 7517 section 5)')  # noqa: TRY004 - bad data, not a bad argument
    check_keys(found)
    return found
