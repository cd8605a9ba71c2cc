"""The participant's token: kept warm, renewed at 80 % of its life off the path, one renewal in flight, three refusals and it stops."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from bridge.clock import Clock
from bridge.errors import BridgeError, JournalFull, RetryLater
from bridge.market.pace import LONGEST_PAUSE_S
from bridge.platform import Exchange
from bridge.wire import Token

log = logging.getLogger(__name__)

RENEW_AT: Final = 0.8
MOST_REFUSALS: Final = 3
DELAYS_S: Final = (1.0, 2.0, 4.0, 5.0)  # without an answer; SMP is felt again soon after it is back


class AccountStopped(BridgeError):
    """SMP refused the login three times: nothing is sent until the password is right and the service is started again, for an account may lock."""


Login = Callable[[], Awaitable[tuple[Exchange, Token | None]]]
"""One Authenticate call: the exchange, and the token read from it (None when it holds none)."""


class TokenKeeper:
    """Hands out a valid token."""

    def __init__(
        self, login: Login, *, clock: Clock, stopped: Callable[[str], Awaitable[None]], renew_at: float = RENEW_AT
    ) -> None:
        self._login = login
        self._clock = clock
        self._stopped = stopped
        self._renew_at = renew_at
        self._token: Token | None = None
        self._got_ns = 0
        self._refusals = 0
        self._failures = 0
        self._untold = ""
        self._lock = asyncio.Lock()
        self._fresh = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether a valid token is at hand without I/O."""
        return self._token is not None and self._age_s() < self._token.lifetime_s

    @property
    def blocked(self) -> bool:
        """Whether three refusals stopped this account."""
        return self._refusals >= MOST_REFUSALS

    def _age_s(self) -> float:
        return (self._clock.mono_ns() - self._got_ns) / 1e9

    def take(self) -> str:
        """The token at hand; only when `ready`."""
        if self._token is None:
            raise RuntimeError("no token is at hand")
        return self._token.value

    async def get(self) -> str:
        """A valid token, logging in first if need be. Raises `RetryLater` (no answer) or `AccountStopped`."""
        if not self.ready:
            async with self._lock:
                if not self.ready:
                    await self._renew()
        return self.take()

    async def renew(self, stale: str) -> str:
        """A token other than the one that a 401 was given for; callers that come together share one login."""
        async with self._lock:
            if self._token is None or self._token.value == stale:
                await self._renew()
        return self.take()

    async def run(self) -> None:
        """Renew at 80 % of the token's life, so that no call waits for it; ends only by cancellation."""
        while True:
            self._fresh.clear()
            wait_s: float | None = None
            if self._token is not None:
                wait_s = max(0.5, self._token.lifetime_s * self._renew_at - self._age_s())
            try:
                async with asyncio.timeout(wait_s):
                    await self._fresh.wait()
                continue
            except TimeoutError:
                pass
            try:
                async with self._lock:
                    await self._renew()
            except (RetryLater, AccountStopped) as error:
                log.warning("token_not_renewed", extra={"error": str(error)})
                await asyncio.sleep(DELAYS_S[min(self._failures, len(DELAYS_S)) - 1])

    async def _renew(self) -> None:
        if self._refusals >= MOST_REFUSALS:
            await self._tell()
            raise AccountStopped(
                "SMP refused the login three times",
                hint="put the right password in place, then start the service again",
            )
        exchange, token = await self._login()
        if token is not None:
            self._token, self._got_ns = token, self._clock.mono_ns()
            self._refusals = self._failures = 0
            self._fresh.set()
            return
        self._failures += 1
        if exchange.failure is None and exchange.status in (400, 401, 403):
            self._refusals += 1
            if self._refusals >= MOST_REFUSALS:
                self._untold = f"login refused three times, last with {exchange.status}"
                await self._tell()
        delay_s = exchange.retry_after_s or DELAYS_S[min(self._failures, len(DELAYS_S)) - 1]
        what = exchange.detail or f"status {exchange.status}"
        raise RetryLater(f"no token: {what}", delay_s=min(delay_s, LONGEST_PAUSE_S))

    async def _tell(self) -> None:
        """Raise the alarm once; while the journal is full, at a later try."""
        if self._untold:
            with suppress(JournalFull):
                await self._stopped(self._untold)
                self._untold = ""
