"""Messages under a profile, both ways. Pure: bytes and parsed JSON in, values out."""

from bridge.lane import RenderedItem
from bridge.wire.codec import Wire
from bridge.wire.values import (
    Acknowledgement,
    BatchReturn,
    CreateAnswer,
    ItemError,
    MessageMeta,
    Rendered,
    StatusAnswer,
    Token,
    Unreadable,
)

__all__ = [
    "Acknowledgement",
    "BatchReturn",
    "CreateAnswer",
    "ItemError",
    "MessageMeta",
    "Rendered",
    "RenderedItem",
    "StatusAnswer",
    "Token",
    "Unreadable",
    "Wire",
]
