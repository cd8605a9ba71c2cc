"""The participant's token: kept warm, renewed at 80 % of its life off the path, one renewal in flight, three refusals and it stops.

What was stopped goes on when a person releases the account, or when the password is another one than the one that was refused.
"""

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
    """SMP refused the login three times: nothing is sent until the password was changed or a person released the account, for an account may lock."""


Login = Callable[[], Awaitable[tuple[Exchange, Token | None]]]
"""One Authenticate call: the exchange, and the token read from it (None when it holds none)."""


class TokenKeeper:
    """Hands out a valid token."""

    def __init__(
        self,
        login: Login,
        *,
        clock: Clock,
        stopped: Callable[[str], Awaitable[None]],
        works: Callable[[bool], Awaitable[None]] | None = None,
        changed: Callable[[], bool] = lambda: False,
        released: asyncio.Event | None = None,
        renew_at: float = RENEW_AT,
    ) -> None:
        """`stopped` is told that three logins were refused, `works` that one was good: after that (true), or the first of this process.

        `changed` says whether the password is another one than at the last login; `released` is set when a person lets a stopped account go on.
        """
        self._login = login
        self._clock = clock
        self._stopped = stopped
        self._works = works
        self._changed = changed
        self._released = released or asyncio.Event()
        self._unproven = True
        self._was_stopped = False
        self._renew_at = renew_at
        self._token: Token | None = None
        self._got_ns = 0
        self._refusals = 0
        self._failures = 0
        self._failed = ""
        self._again_ns = 0  # when the next login may be tried
        self._untold = ""
        self._lock = asyncio.Lock()
        self._look = asyncio.Event()

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
        """A valid token, logging in first if need be. Raises `RetryLater` (no login, or none before its time) or `AccountStopped`."""
        if not self.ready:
            async with self._lock:
                if not self.ready:
                    await self._renew()
        return self.take()

    async def renew(self, stale: str) -> str:
        """A token other than the one that a 401 was given for; callers that come together share one login, and its failure. Raises as `get` does."""
        async with self._lock:
            if self._token is not None and self._token.value == stale:
                self._token = None  # it is good for nothing more
            if self._token is None:
                await self._renew()
        return self.take()

    async def run(self) -> None:
        """Renew at 80 % of the token's life, so that no call waits for it, and go on with a stopped account once it may; ends only by cancellation."""
        while True:
            self._look.clear()
            if self.blocked:
                if not await self._may_go_on():
                    continue
            elif not await self._due():
                continue
            try:
                async with self._lock:
                    await self._renew()
            except (RetryLater, AccountStopped) as error:
                log.warning("token_not_renewed", extra={"error": str(error)})

    async def _due(self) -> bool:
        """Wait until the token is to be renewed; False when it is another one before, or the account was stopped."""
        wait_s: float | None = None
        if self._token is not None:
            wait_s = max(0.5, self._token.lifetime_s * self._renew_at - self._age_s(), self._pause_s())
        try:
            async with asyncio.timeout(wait_s):
                await self._look.wait()
        except TimeoutError:
            return True
        return False

    async def _may_go_on(self) -> bool:
        """Wait for a person's word, a moment at most, and say whether there is one or the password was changed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DELAYS_S[-1]):
                await self._released.wait()
        return self._released.is_set() or self._changed()

    async def _renew(self) -> None:
        if self.blocked and not self._let_go():
            await self._tell()
            raise AccountStopped(
                "SMP refused the login three times",
                hint="put the right password into its file, or `smp-bridge release --account` once SMP has unlocked it",
            )
        if (pause_s := self._pause_s()) > 0:
            raise RetryLater(self._failed, delay_s=pause_s)
        exchange, token = await self._login()
        if token is not None:
            self._token, self._got_ns = token, self._clock.mono_ns()
            self._refusals = self._failures = 0
            self._look.set()
            await self._prove()
            return
        self._failures += 1
        if exchange.failure is None and exchange.status in (400, 401, 403):
            self._refusals += 1
            if self.blocked:
                self._unproven = self._was_stopped = True
                self._released.clear()  # a word from before says nothing of this
                self._look.set()
                self._untold = f"login refused three times, last with {exchange.status}"
                await self._tell()
        delay_s = exchange.retry_after_s or DELAYS_S[min(self._failures, len(DELAYS_S)) - 1]
        delay_s = min(delay_s, LONGEST_PAUSE_S)
        self._failed = f"no token: {exchange.detail or f'status {exchange.status}'}"
        self._again_ns = self._clock.mono_ns() + int(delay_s * 1e9)
        raise RetryLater(self._failed, delay_s=delay_s)

    def _pause_s(self) -> float:
        """Seconds until the next login may be tried: whoever waits for one that failed does not try it again at once."""
        return max(0, self._again_ns - self._clock.mono_ns()) / 1e9

    def _let_go(self) -> bool:
        """Whether a stopped account may be tried again: as often as at first."""
        if not self._released.is_set() and not self._changed():
            return False
        self._released.clear()
        self._refusals = self._failures = self._again_ns = 0
        self._untold = ""
        log.info("account_tried_again")
        return True

    async def _prove(self) -> None:
        """Say once that the account works; while the journal is full, at a later login."""
        if self._unproven:
            with suppress(JournalFull):
                if self._works is not None:
                    await self._works(self._was_stopped)
                self._unproven = self._was_stopped = False

    async def _tell(self) -> None:
        """Raise the alarm once; while the journal is full, at a later try."""
        if self._untold:
            with suppress(JournalFull):
                await self._stopped(self._untold)
                self._untold = ""
