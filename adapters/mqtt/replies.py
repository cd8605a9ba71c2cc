"""Where MQTT 5 requests want their answers: response topic and correlation data, as the text that the journal keeps with the request. Pure."""

import json
from base64 import b64decode, b64encode
from typing import Final, NamedTuple

from bridge.api import MOST_REPLY

_TOPIC: Final = "topic"
_CORRELATION: Final = "correlation"


class Reply(NamedTuple):
    """What a request carries for its answer (MQTT 5, 4.10). `topic` is '' where it names none that may be used."""

    topic: str
    correlation: bytes | None


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
