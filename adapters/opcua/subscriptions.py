"""What the server tells by itself: subscriptions of a bounded size, and their publish responses as signs of life and proof that none was lost.

Several of them, for many servers keep no more than a thousand variables in one, and some grow slow with every variable that one holds.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from adapters.opcua.errors import status_name
from adapters.opcua.library import ua
from adapters.opcua.link import Link, Monitored, Subscribed, log
from adapters.opcua.requests import Asked
from adapters.opcua.watch import Pulse
from bridge.api import LinkError, SessionContext

KEEP_ALIVE_S: Final = 2.0
ITEMS: Final = 1000
MOST: Final = 10
_TOO_MANY: Final = ua.StatusCodes.BadTooManyMonitoredItems


@dataclass(slots=True)
class _Held:
    """One subscription, how many variables it holds, and whether it takes no more."""

    made: Subscribed
    count: int = 0
    full: bool = False


class Subscriptions:
    """The subscriptions of one session. `take` gets the items of each publish response, none for a keep-alive; `lost` the reason when one has failed."""

    def __init__(
        self,
        link: Link,
        context: SessionContext,
        take: Callable[[Sequence[Any]], None],
        lost: Callable[[str], None],
    ) -> None:
        self._link = link
        self._context = context
        self._take = take
        self._lost = lost
        self._held: list[_Held] = []
        self._pulses: dict[int, Pulse] = {}
        self._more = True
        self._slowest_s = 0.0

    async def open(self) -> Subscribed:
        """Make the first one. Raises `LinkError`."""
        made = await self._link.subscribe(KEEP_ALIVE_S, self._published)
        if made is None:
            raise LinkError("subscribing: the server allows no subscription")
        self._hold(made)
        return made

    async def watch(self, asked: Sequence[Asked]) -> list[Monitored]:
        """What became of each; a subscription that takes no more is followed by another. Raises `LinkError`."""
        found = [Monitored(_TOO_MANY, 0.0, 0)] * len(asked)
        left = list(range(len(asked)))
        while left:
            held = await self._roomy()
            if held is None:
                break
            made = await self._link.monitor(held.made.id, [asked[index] for index in left])
            for index, each in zip(left, made, strict=True):
                found[index] = each
            refused = [index for index in left if found[index].code == _TOO_MANY]
            held.count += len(left) - len(refused)
            held.full = bool(refused)
            if held.full and not held.count and len(self._held) > 1:
                await self._give_back(held)  # the server's own limit is reached, not that of a subscription
            left = refused
        return found

    def left_s(self) -> float:
        """Seconds until one of them has been silent for too long; endless without any."""
        return min((self._pulses[held.made.id].left_s() for held in self._held), default=inf)

    async def _roomy(self) -> _Held | None:
        """The emptiest that takes more, or a new one; None where neither can be had."""
        best = min((held for held in self._held if not held.full), key=lambda held: held.count, default=None)
        if (best is None or best.count >= ITEMS) and self._more and len(self._held) < MOST:
            made = await self._link.subscribe(KEEP_ALIVE_S, self._published, more=True)
            if made is not None:
                return self._hold(made)
            self._more = False
        return best

    def _hold(self, made: Subscribed) -> _Held:
        self._pulse(made.id).start(2 * made.quiet_s + self._context.options.timeout)
        held = _Held(made)
        self._held.append(held)
        self._agree(made)
        return held

    def _agree(self, made: Subscribed) -> None:
        """Tell what the server made of the intervals: of several subscriptions the slowest, for it is what an operator has to reckon with."""
        if made.interval_s <= self._slowest_s:
            return
        intervals, asked_s = self._context.intervals, self._context.options.publishing_interval
        intervals.agreed("publishing", configured_s=asked_s, revised_s=made.interval_s)
        intervals.agreed("keep_alive", configured_s=KEEP_ALIVE_S, revised_s=made.quiet_s)
        if made.interval_s > max(asked_s * 1.01, self._slowest_s):
            names = {"site": self._context.site, "adapter": self._context.adapter, "url": self._link.url}
            times = {"asked_ms": round(asked_s * 1000, 3), "given_ms": round(made.interval_s * 1000, 3)}
            log.warning("opcua_interval_revised", extra={**names, **times})
        self._slowest_s = made.interval_s

    async def _give_back(self, held: _Held) -> None:
        self._more = False
        self._held.remove(held)
        await self._link.unsubscribe(held.made.id)

    def _pulse(self, subscription: int) -> Pulse:
        return self._pulses.setdefault(subscription, Pulse(self._context.clock))

    # what they tell -------------------------------------------------------------------------------

    async def _published(self, result: Any) -> None:
        """Called by the library for each publish response, awaited before the next is asked for; must never raise."""
        try:
            self._note(result)
        except LinkError as error:
            self._lost(str(error))
        await asyncio.sleep(0)  # whoever reads what has changed goes first; the next publish request has time

    def _note(self, result: Any) -> None:
        message, pulse = result.NotificationMessage, self._pulse(int(result.SubscriptionId))
        notifications = message.NotificationData or ()
        self._measure(int(result.SubscriptionId), pulse.beat(), keep_alive=not notifications)
        for notification in notifications:
            if isinstance(notification, ua.StatusChangeNotification):
                raise LinkError(f"the subscription ended: {status_name(notification.Status.value)}")
        if notifications:
            pulse.number(int(message.SequenceNumber))
        self._take([item for each in notifications for item in _items(each)])

    def _measure(self, subscription: int, spacing_s: float | None, *, keep_alive: bool) -> None:
        """A keep-alive comes after a known number of publishing intervals without a change (OPC 10000-4, 5.14.1.2), so it measures them too."""
        held = next((each for each in self._held if each.made.id == subscription), None)
        if spacing_s is None or held is None:
            return
        if keep_alive:
            self._context.intervals.achieved("keep_alive", spacing_s)
            spacing_s /= held.made.keep_alive_count
        self._context.intervals.achieved("publishing", spacing_s)


def _items(notification: Any) -> Sequence[Any]:
    """What a notification tells: values, or that there was an event; each has its handle."""
    return getattr(notification, "MonitoredItems", None) or getattr(notification, "Events", None) or ()
