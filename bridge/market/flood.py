"""How many messages of one source may fail the costly check: a flood of bad signatures must not take the processor from good ones (DOMAIN 9 row 36)."""

import ipaddress
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from bridge.errors import BridgeError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
BURST: Final = 50
PER_S: Final = 1.0
MOST_SOURCES: Final = 4096  # the source that was quiet longest is forgotten first
TELL_EVERY_S: Final = 60.0  # an alarm is a commit, and a flood must not make many


class Flooded(BridgeError):
    """This source failed too often; `retry_after_s` is when one more message of it will be looked at."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too many bad signatures")
        self.retry_after_s = retry_after_s


class Flood:
    """A bucket for each source. A message takes one token before its signature is verified and gets it back when that is good.

    So a sender whose signatures are good never meets the bound. Messages are read on the loop and on a thread beside it: calls may come from both.
    """

    def __init__(self, mono_ns: Callable[[], int], *, burst: int = BURST, per_s: float = PER_S) -> None:
        self._mono_ns = mono_ns
        self.burst = burst
        self._per_s = per_s
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._told: dict[str, int] = {}

    def charge(self, source: str) -> None:
        """Take a token; raises `Flooded` where there is none."""
        with self._lock:
            left, now = self._left(source)
            if left < 1:
                raise Flooded(max(1, math.ceil((1 - left) / self._per_s)))
            self._keep(source, left - 1, now)

    def refund(self, source: str) -> None:
        """The signature was good."""
        with self._lock:
            left, now = self._left(source)
            self._keep(source, left + 1, now)

    def worth_telling(self, subject: str) -> bool:
        """Whether nobody was told of this in the last minute; it is told now."""
        now, last = self._mono_ns(), self._told.get(subject)
        if last is not None and now - last < TELL_EVERY_S * 1e9:
            return False
        self._told[subject] = now
        return True

    def _left(self, source: str) -> tuple[float, int]:
        now = self._mono_ns()
        left, since = self._tokens.get(source, (float(self.burst), now))
        return min(float(self.burst), left + (now - since) / 1e9 * self._per_s), now

    def _keep(self, source: str, left: float, now: int) -> None:
        if left >= self.burst:
            self._tokens.pop(source, None)
            return
        self._tokens[source] = (left, now)
        self._tokens.move_to_end(source)
        if len(self._tokens) > MOST_SOURCES:
            self._tokens.popitem(last=False)


def address_of(text: str | None) -> Address | None:
    """A peer's address; an IPv4 one is one however it is written. None where there is none."""
    try:
        found = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def source_of(text: str | None) -> str:
    """Whom a connection is counted for: an IPv4 address, or the 64 bits of an IPv6 one that a subscriber gets; '' without an address."""
    found = address_of(text)
    if found is None:
        return ""
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
