"""The members that every signed message carries, both ways."""

import copy

from bridge.profile import MessageKind, ProfileSpec
from bridge.wire.parts import Draft, Parts, follow, reader, writer
from bridge.wire.scalars import TIME_READERS, TIME_WRITERS, fold, read_text
from bridge.wire.values import MessageMeta


class MessageCodec:
    """Reads and writes the members; knows the profile's word for each kind of message."""

    def __init__(self, spec: ProfileSpec) -> None:
        message = spec.message
        self._timestamp = message.timestamp
        self._typed = message.type.present
        self._versioned = message.schema_version.present
        self._version = message.version
        self._words = dict(message.types)
        self._kinds = {fold(word): kind for kind, word in message.types.items()}
        self._time_in, self._time_out = TIME_READERS[message.time], TIME_WRITERS[message.time]
        self._readers = {
            name: reader(getattr(message, name)) for name in ("id", "type", "schema_version", "timestamp", *_TEXTS)
        }
        self._writers = {
            name: writer(getattr(message, name)) for name in ("id", "type", "schema_version", "timestamp", *_TEXTS)
        }

    def write(self, draft: Draft, kind: MessageKind, meta: MessageMeta) -> None:
        """Put the members into a message of this kind."""
        write = self._writers
        write["id"](draft, meta.message_id)
        if self._typed:
            write["type"](draft, self._words[kind])
        if self._versioned:
            write["schema_version"](draft, meta.schema_version or self._version)
        if meta.timestamp_ns is not None:
            write["timestamp"](draft, self._time_out(meta.timestamp_ns))
        for name in _TEXTS:
            write[name](draft, getattr(meta, name) or None)

    def read(self, parts: Parts, expected: MessageKind) -> MessageMeta:
        """The members of a message; `expected` is its kind where messages carry no type."""
        read = self._readers
        return MessageMeta(
            message_id=read_text(read["id"](parts)),
            operation=self._operation(read_text(read["type"](parts)), expected),
            timestamp_ns=self._time_in(read["timestamp"](parts)),
            schema_version=read_text(read["schema_version"](parts)),
            **{name: read_text(read[name](parts)) for name in _TEXTS},
        )

    def _operation(self, word: str, expected: MessageKind) -> str:
        if not self._typed:
            return expected.value
        kind = self._kinds.get(fold(word))
        return word if kind is None else kind.value

    def read_kind(self, word: object) -> str:
        """The host's word for a kind of message named inside another one; the peer's own where it is unknown."""
        text = read_text(word)
        kind = self._kinds.get(fold(text))
        return text if kind is None else kind.value

    def kind_word(self, operation: str) -> str | int | None:
        """The profile's word for a kind of message; None where there is none."""
        try:
            return self._words.get(MessageKind(operation))
        except ValueError:
            return None

    def without_timestamp(self, content: object) -> object:
        """The body without its own timestamp, so that a message signed again compares equal; the given body stays as it is."""
        path = self._timestamp.path
        if not path or not isinstance(follow(content, path[:-1]), dict):
            return content
        bare = copy.deepcopy(content)
        follow(bare, path[:-1]).pop(path[-1], None)
        return bare


_TEXTS = ("environment", "sender", "recipient", "correlation_id")
