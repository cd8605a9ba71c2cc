"""The fast lane as the market side implements it: send slots of all participants of this process, lent to the field side."""

from collections.abc import Mapping, Sequence

from bridge.clock import Stamp
from bridge.lane import FastCall, RenderedItem, Slot
from bridge.market.outbound import Outbound
from bridge.model import Operation


class LentSlot:
    """A send slot in the field side's hands."""

    __slots__ = ("_fast", "_outbound")

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._fast: FastCall | None = None

    async def sign(
        self, keys: Sequence[str], items: Sequence[RenderedItem], stamps: Mapping[str, Stamp]
    ) -> FastCall | None:
        """See `bridge.lane.Slot`."""
        self._fast = await self._outbound.sign(keys, items, stamps)
        return self._fast

    def send(self, journalled: Stamp, site: str, flow: str) -> None:
        """See `bridge.lane.Slot`."""
        if self._fast is None:
            raise RuntimeError("nothing was signed in this slot")
        self._outbound.send(self._fast, journalled, site, flow)

    def release(self) -> None:
        """See `bridge.lane.Slot`."""
        self._outbound.release()


class Lanes:
    """The fast lane of all participants of this process."""

    def __init__(self) -> None:
        self._outbound: dict[str, Outbound] = {}

    def add(self, participant: str, outbound: Outbound) -> None:
        """Let `claim` find this participant's calls."""
        self._outbound[participant] = outbound

    def claim(self, participant: str, operation: Operation) -> Slot | None:
        """See `bridge.lane.FastLane`."""
        outbound = self._outbound.get(participant)
        return LentSlot(outbound) if outbound is not None and outbound.claim(operation) else None
