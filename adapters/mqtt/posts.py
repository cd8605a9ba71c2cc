"""What one connection publishes and the broker has not acknowledged yet, within the limits that it gave. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from adapters.mqtt.outbox import Message

WINDOW: Final = 20  # messages published and not yet acknowledged; the broker may ask for fewer


class Posts:
    """`refused` holds, by their positions, those of the last `begin` that the broker does not take, and why."""

    def __init__(self) -> None:
        self.outstanding: dict[int, int] = {}
        """Positions by packet identifier."""
        self.refused: dict[int, str] = {}
        self.status_said = True
        """Our status is not on its way; it counts among what is."""
        self._status = 0  # no packet's
        self._window = WINDOW
        self._largest: int | None = None

    def bound(self, window: int | None, largest: int | None) -> None:
        """What the broker says in its greeting (MQTT 5, 3.2.2.3.3 and 3.2.2.3.6): how many may be under way, how many bytes a packet may have; None where it does not say."""
        self._window = WINDOW if window is None else min(WINDOW, window)
        self._largest = largest

    def begin(self, messages: Sequence[Message]) -> Iterator[Sequence[tuple[int, Message]]]:
        """These with their positions, so many at once as may be under way; without those that are too large, which would end the connection."""
        self.refused = {} if self._largest is None else dict(_too_large(messages, self._largest))
        fitting = [(at, message) for at, message in enumerate(messages) if at not in self.refused]
        return (fitting[start : start + self._window] for start in range(0, len(fitting), self._window))

    def status(self, mid: int) -> None:
        """Our status is on its way."""
        self._status, self.status_said = mid, False

    def is_status(self, mid: int) -> bool:
        """Whether this is the packet of our last status."""
        return mid == self._status

    def answered(self, mid: int, refusal: str) -> None:
        """The broker has acknowledged one, or refuses it."""
        if self.is_status(mid):
            self._status, self.status_said = 0, True  # the number may be another message's from now on
        position = self.outstanding.pop(mid, None)
        if position is not None and refusal:
            self.refused[position] = refusal


def _too_large(messages: Sequence[Message], largest: int) -> Iterator[tuple[int, str]]:
    for position, message in enumerate(messages):
        size = packet_bytes(message)
        if size > largest:
            yield (
                position,
                f"the message takes {size} bytes, the broker allows {largest}; raise its limit, or name fewer members in `payload`",
            )


def packet_bytes(message: Message) -> int:
    """How long the PUBLISH of MQTT 5 is (3.3) that carries this message at QoS 1, its fixed header with it."""
    properties = 0 if message.correlation is None else 3 + len(message.correlation)
    rest = 4 + len(message.topic.encode()) + _length_bytes(properties) + properties + len(message.payload)
    return 1 + _length_bytes(rest) + rest


def _length_bytes(value: int) -> int:
    """How many bytes a variable byte integer takes (1.5.5)."""
    return max(1, -(-value.bit_length() // 7))
