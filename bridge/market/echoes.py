"""Secrets of ours that a platform sends back: kept out of whatever is read from its messages, and so out of logs, alarms, pages, the API and the EMS.

The bytes stay as they came, for they are evidence (docs: SECURITY.md). No I/O.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

LEAST: Final = 12  # a shorter text could stand in a reference or a signature by chance
MOST: Final = 8  # tokens and passwords of late; a return may come after the token of its call was renewed
SHOWN: Final = "[secret]"


class Echoes:
    """The secrets that left for the platform, the newest `MOST` of them. Its `repr` shows none."""

    __slots__ = ("_raw", "_texts")

    def __init__(self) -> None:
        self._texts: deque[str] = deque(maxlen=MOST)
        self._raw: tuple[bytes, ...] = ()

    def note(self, secret: str) -> None:
        """One is about to leave."""
        if len(secret) < LEAST or secret in self._texts:
            return
        self._texts.append(secret)
        self._raw = tuple(text.encode() for text in self._texts)

    def without(self, content: Any, raw: bytes) -> Any:
        """Parsed JSON with each secret in its texts and names replaced; `raw` are the bytes that it was read from.

        A body without an escape that holds none of the bytes is given back as it is.
        """
        if b"\\" not in raw and not any(secret in raw for secret in self._raw):
            return content
        return self._walk(content)

    def among(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Headers, which are few, in the same way."""
        return {name: self._walk(value) for name, value in named.items()}

    def _walk(self, node: Any) -> Any:
        if isinstance(node, str):
            return self._text(node)
        if isinstance(node, dict):
            return {self._text(name): self._walk(value) for name, value in node.items()}
        if isinstance(node, list):
            return [self._walk(value) for value in node]
        return node

    def _text(self, text: str) -> str:
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, SHOWN)
        return text
