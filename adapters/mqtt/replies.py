"""Where MQTT 5 requests want their answers: response topic and correlation data, as they come and as the text that the journal keeps with the request. Pure."""

import json
from base64 import b64decode, b64encode
from typing import Final, NamedTuple

from bridge.api import MOST_REPLY

# The properties of a PUBLISH (MQTT 5, 3.3.2.3) by what follows their number.
_FIXED: Final = {0x01: 1, 0x02: 4, 0x23: 2}  # so many bytes: payload format, expiry, topic alias
_COUNTED: Final = {
    0x03: 1,
    0x08: 1,
    0x09: 1,
    0x26: 2,
}  # so many times a length of two bytes and what it counts: content type, response topic, correlation data, user property
_SUBSCRIPTION: Final = 0x0B
_RESPONSE_TOPIC: Final = 0x08
_CORRELATION_DATA: Final = 0x09
_REPEATED: Final = frozenset({_SUBSCRIPTION, 0x26})
_LAST_SHIFT: Final = 21

_TOPIC: Final = "topic"
_CORRELATION: Final = "correlation"


class Reply(NamedTuple):
    """What a request carries for its answer (MQTT 5, 4.10). `topic` is '' where it names none that may be used."""

    topic: str
    correlation: bytes | None


def variable(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer (MQTT 5, 1.5.5) and where it ends. Raises `ValueError`."""
    value, shift = 0, 0
    while at < len(data) and shift <= _LAST_SHIFT:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a length without an end")


def carried(properties: bytes) -> Reply | None:
    """What the properties of a PUBLISH say about its answer; None for nothing. Raises `ValueError` when they are not what MQTT 5 allows."""
    found: dict[int, bytes] = {}
    at, end = 0, len(properties)
    while at < end:
        kind, at = properties[at], at + 1
        start = at
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _COUNTED:
            for _ in range(_COUNTED[kind]):
                start = at + 2
                at = start + int.from_bytes(properties[at:start], "big")
        elif kind == _SUBSCRIPTION:
            _, at = variable(properties, at)
        else:
            raise ValueError("a property that no PUBLISH has")
        if kind in found and kind not in _REPEATED:
            raise ValueError("a property stands twice")
        found[kind] = properties[start:at]
    if at > end:
        raise ValueError("a property ends behind the others")
    topic, correlation = found.get(_RESPONSE_TOPIC, b"").decode(), found.get(_CORRELATION_DATA)
    return Reply(topic, correlation) if topic or correlation is not None else None


def packed(reply: Reply) -> str:
    """As text for the journal, '' for nothing. Raises `ValueError` when it is longer than the journal keeps."""
    held = {_TOPIC: reply.topic} if reply.topic else {}
    if reply.correlation is not None:
        held[_CORRELATION] = b64encode(reply.correlation).decode()
    text = json.dumps(held, separators=(",", ":"), ensure_ascii=False) if held else ""
    if len(text) > MOST_REPLY:
        size = len(reply.correlation or b"")
        raise ValueError(
            f"response topic ({len(reply.topic)} characters) and correlation data ({size} bytes) take {len(text)} characters "
            f"in the journal; at most {MOST_REPLY} are kept, which correlation data of up to 5,000 bytes never exceed beside a topic of 1,000"
        )
    return text


def unpacked(text: str) -> Reply | None:
    """What `packed` made a text of; None for nothing. Raises `ValueError` for a text that it did not make."""
    if not text:
        return None
    try:
        held = json.loads(text)
        topic, correlation = held.get(_TOPIC, ""), held.get(_CORRELATION)
        return Reply(str(topic), None if correlation is None else b64decode(correlation, validate=True))
    except (ValueError, TypeError, AttributeError):
        raise ValueError("what the journal holds of the request's reply is not this adapter's") from None
