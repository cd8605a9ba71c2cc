"""The certificate that an EMS showed on a link: at its end the link is closed or goes on, as its site says, and a person is told."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bridge.clock import Clock
from bridge.errors import LinkRefused
from bridge.peers import OnExpired, PeerCertificate, told

LONGEST_S: Final = 30.0  # between two looks: the machine's clock may be set meanwhile

_RENEW: Final = "renew the EMS's certificate (or its authority's)"
_STOPS: Final = "the link is closed until it shows another one (on_expired_certificate: stop)"
_GOES_ON: Final = "the link goes on all the same (on_expired_certificate: keep)"


class PeerWatch:
    """Of one adapter's links, one after the other. `tell(text)` raises the alarm, or clears it with ''; `known` is called when a certificate was shown that was not known yet."""

    def __init__(self, clock: Clock, tell: Callable[[str], None], known: Callable[[], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._known = known
        self._certificate: PeerCertificate | None = None
        self._changed = asyncio.Event()

    @property
    def ends_ns(self) -> int:
        """When the certificate that was shown last ends (UTC ns); 0 where none was."""
        return 0 if self._certificate is None else self._certificate.ends_ns

    def show(self, certificate: PeerCertificate) -> None:
        """See `bridge.api.SessionContext.certified`."""
        before, self._certificate = self._certificate, certificate
        if certificate.ends_ns > self._clock.wall_ns():
            self._tell("")
        if before != certificate:
            self._changed.set()
            self._known()

    async def run(self) -> None:
        """While a session is open: wait for the end of what it showed. Raises `LinkRefused` at that moment where the link is to stop."""
        while True:
            self._changed.clear()
            left_s = self._left_s()
            if left_s is not None and left_s <= 0:
                self._ended()
                left_s = None
            with suppress(TimeoutError):
                async with asyncio.timeout(None if left_s is None else min(left_s, LONGEST_S)):
                    await self._changed.wait()

    def _left_s(self) -> float | None:
        found = self._certificate
        return None if found is None else (found.ends_ns - self._clock.wall_ns()) / 1e9

    def _ended(self) -> None:
        found = self._certificate
        assert found is not None
        stops = found.on_expired is OnExpired.STOP
        text = f"the EMS's certificate ended on {told(found.ends_ns)}; {_STOPS if stops else _GOES_ON}"
        self._tell(text)
        if stops:
            raise LinkRefused(text, hint=_RENEW)
