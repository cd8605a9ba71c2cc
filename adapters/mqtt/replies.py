"""Where MQTT 5 requests want their answers: response topic and correlation data, kept while the process runs. Pure."""

from collections import OrderedDict
from typing import Final, NamedTuple

MOST: Final = 10_000
MOST_BYTES: Final = 16 * 1024 * 1024


class Reply(NamedTuple):
    """What a request carries for its answer (MQTT 5, 4.10). `topic` is '' where it names none that may be used."""

    topic: str
    correlation: bytes | None


class Replies:
    """Of one adapter, by flow, place and request. Beyond the bounds the oldest are forgotten: their outcomes go to the flow's own topic alone."""

    def __init__(self, *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, str, str], Reply] = OrderedDict()
        self._bytes = 0

    def keep(self, flow: str, place: str, request: str, reply: Reply) -> None:
        """Remember this; the same request again tells anew where its answer goes."""
        self._forget(self._kept.pop((flow, place, request), None))
        self._kept[flow, place, request] = reply
        self._bytes += _size(reply)
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self._forget(self._kept.popitem(last=False)[1])

    def find(self, flow: str, place: str, request: str | None) -> Reply | None:
        """What this request carried; None where that was nothing, or is not known any more."""
        return self._kept.get((flow, place, request)) if request is not None else None

    def _forget(self, reply: Reply | None) -> None:
        self._bytes -= _size(reply) if reply is not None else 0


def _size(reply: Reply) -> int:
    return len(reply.topic) + len(reply.correlation or b"")


_KEPT: Final[dict[tuple[str, str], Replies]] = {}


def replies_of(site: str, adapter: str) -> Replies:
    """One for each adapter of a process: a session is used once, and an outcome is often written by a later one."""
    return _KEPT.setdefault((site, adapter), Replies())
