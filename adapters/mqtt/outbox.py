"""Which message each outcome becomes, and why some become none. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.mqtt.book import FlowBook
from adapters.mqtt.codec import encode, instant, member, printable
from adapters.mqtt.config import MqttOptions, MqttOutcome
from adapters.mqtt.replies import Reply
from adapters.mqtt.topics import MOST_BYTES, template
from bridge.api import AlarmWord, OutcomeField, Selection, Write, Written


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message to publish."""

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes | None = None


@dataclass(slots=True)
class Outgoing:
    """One outcome on its way: the positions of its writes, and its values."""

    selection: Selection
    place: str
    positions: list[int] = field(default_factory=list)
    values: dict[OutcomeField, object] = field(default_factory=dict)
    topic: str = ""
    error: str = ""
    reply: Reply | None = None

    def messages(self) -> list[Message]:
        """What is published: on the flow's own topic always, and on the request's response topic where it named another one."""
        outcome: MqttOutcome = self.selection.outcome
        payload = encode(outcome.payload, self.values)
        correlation = self.reply.correlation if self.reply is not None else None
        made = [Message(topic=self.topic, payload=payload, retain=outcome.retain, correlation=correlation)]
        if self.reply is not None and self.reply.topic not in {"", self.topic}:
            made.append(Message(topic=self.reply.topic, payload=payload, correlation=correlation))
        return made

    def written(self, writes: Sequence[Write]) -> list[tuple[int, Written]]:
        """What became of each of its writes."""
        words = {word.partition(".")[0]: word for word in self.selection.outcome.payload.values()}
        made = []
        for position in self.positions:
            address = writes[position].address
            word = words.get(address.name.value) if isinstance(address.name, OutcomeField) else None
            value = member(word, self.values) if word and not self.error else None
            made.append((position, Written(address=address, value=value, error=self.error)))
        return made


def word_message(topic: str, word: AlarmWord, *, retain: bool) -> Message:
    """The alarm word as a message: the bit set, its words, and when it was made."""
    body = {"alarms": word.bits, "words": list(word.words), "updatedAt": instant(word.at_ns)}
    return Message(topic=topic, payload=json.dumps(body, separators=(",", ":")).encode(), retain=retain)


def outgoing(
    writes: Sequence[Write],
    selections: Mapping[str, Selection],
    flows: Mapping[str, FlowBook],
    options: MqttOptions,
    answer: Callable[[str], Reply | None],
) -> list[Outgoing]:
    """One entry for each (flow, place, request), in order; what must not be published has its `error` set.

    `answer` makes of a write's `reply` where the request wanted its answer, as far as that may be.
    """
    made: list[Outgoing] = []
    open_now: dict[tuple[Any, ...], Outgoing] = {}
    for position, write in enumerate(writes):
        flow, place, name = write.address
        key = (flow, place, write.request)
        entry = open_now.get(key)
        if entry is None or name in entry.values:  # the same target again is a later outcome
            entry = open_now[key] = Outgoing(selections[flow], place, reply=answer(write.reply))
            made.append(entry)
        entry.positions.append(position)
        if isinstance(name, OutcomeField):
            entry.values[name] = write.value
    for entry in made:
        _address(entry, flows[entry.selection.flow], options)
    return made


def _address(entry: Outgoing, flow: FlowBook, options: MqttOptions) -> None:
    placeholders = flow.placeholders(entry.place)
    if placeholders is None:
        entry.error = f"{printable(entry.place)} is no place of this flow; its name has {len(flow.each.names)} level(s)"
        return
    entry.topic = template(entry.selection.outcome.topic).fill(placeholders)
    size = len(entry.topic.encode())
    if size > MOST_BYTES:
        entry.error = f"the outcome's topic would have {size} bytes, MQTT allows {MOST_BYTES}; nothing was published"
    elif not options.may_write(entry.topic):
        entry.error = f"{printable(entry.topic)} is outside `writable:`; nothing was published"
