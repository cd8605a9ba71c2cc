"""Who may call: logins, tokens and public keys."""

import hmac
from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from joserfc.jwk import KeySet

from bridge.clock import Clock
from bridge.sandbox.jose import key_set
from bridge.sandbox.options import SandboxParticipant
from bridge.wire import Token

MINUTE_NS: Final = 60 * 1_000_000_000


class Accounts:
    """The participants' accounts. Tokens are opaque text; a participant may hold several."""

    def __init__(self, participants: Sequence[SandboxParticipant], *, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._by_user = {entry.user: entry for entry in participants}
        self.by_name = {entry.name: entry for entry in participants}
        self._keys = {entry.name: key_set(entry.jwks) for entry in participants}
        self._tokens: dict[str, tuple[str, int]] = {}
        self._calls: dict[str, deque[int]] = {entry.name: deque() for entry in participants}
        self.logins = 0

    def login(self, user: str, password: str, life_s: float) -> Token | None:
        """A new token, None when user or password is wrong."""
        entry = self._by_user.get(user)
        if entry is None or not hmac.compare_digest(entry.password.encode(), password.encode()):
            return None
        self.logins += 1
        token = f"{self._random.getrandbits(192):048x}"
        self._tokens[token] = (entry.name, self._clock.mono_ns() + int(life_s * 1e9))
        return Token(token, life_s)

    def participant_of(self, token: str) -> str | None:
        """Whose live token this is."""
        name, until_ns = self._tokens.get(token, ("", 0))
        return name if until_ns > self._clock.mono_ns() else None

    def wait_s(self, participant: str, most_per_minute: int) -> int:
        """Count a call; when it is one too many in the last minute it is not counted, and the seconds to wait are returned (else 0)."""
        calls, now = self._calls[participant], self._clock.mono_ns()
        while calls and calls[0] <= now - MINUTE_NS:
            calls.popleft()
        if most_per_minute and len(calls) >= most_per_minute:
            return max(1, -(-(calls[0] + MINUTE_NS - now) // 1_000_000_000))
        calls.append(now)
        return 0

    def expire(self) -> None:
        """All tokens end now."""
        self._tokens.clear()

    def know(self, participant: str, jwks: Mapping[str, Any]) -> None:
        """Take these public keys of a participant instead of the former ones. Raises `ValueError` or `JoseError` when they are none."""
        self._keys[participant] = key_set(jwks)

    def keys(self, participant: str) -> KeySet:
        """The participant's public keys."""
        return self._keys[participant]
