"""What messages say, in the host's own words. Times are UTC nanoseconds since 1970; a text that a message does not carry is empty."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import BridgeError
from bridge.profile import MessageKind, ReturnResult, StatusWord


class Unreadable(BridgeError):
    """A message has no sense under the profile; the text says why and holds nothing of the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageMeta:
    """The members every signed message carries. `operation` is the host's word (`MessageKind.value`), or the peer's own word where the profile has none for it.

    `timestamp_ns` is None when it is missing or cannot be read; a time without a zone cannot.
    """

    message_id: str
    operation: str
    timestamp_ns: int | None
    environment: str = ""
    sender: str = ""
    recipient: str = ""
    correlation_id: str = ""
    schema_version: str = ""

    @property
    def kind(self) -> MessageKind | None:
        """The kind of message, None for a word that the profile does not know."""
        try:
            return MessageKind(self.operation)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A message before it is signed: the exact bytes, the HTTP headers and the members for the signature's protected header."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    protected: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Token:
    """A token with its life in seconds from now."""

    value: str
    lifetime_s: float

    def __repr__(self) -> str:
        return f"Token([secret], lifetime_s={self.lifetime_s})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemError:
    """One entry of an error list. `index` counts from 0 in the order of the call; `reference` is '' when it names no item."""

    code: str = ""
    message: str = ""
    warning: bool = False
    index: int | None = None
    reference: str = ""
    field: str = ""
    value: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateAnswer:
    """The immediate answer to a Create call; without a usable transaction id, `problem` says why."""

    transaction_id: str = ""
    status: str = ""
    received_ns: int | None = None
    errors: tuple[ItemError, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAnswer:
    """The answer to a status call. `word` is the peer's own; `created` are pairs of reference and id."""

    status: StatusWord
    transaction_id: str = ""
    word: str = ""
    submitted_ns: int | None = None
    updated_ns: int | None = None
    total: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    created: tuple[tuple[str, str], ...] = ()
    errors: tuple[ItemError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReturn:
    """A return. `result` is None where it names none; `unknown_word` then holds a word that the profile does not map."""

    meta: MessageMeta
    transaction_id: str = ""
    operation: str = ""
    in_reply_to: str = ""
    result: ReturnResult | None = None
    unknown_word: str = ""
    completed_ns: int | None = None
    total: int | None = None
    succeeded: int | None = None
    created: tuple[tuple[str, str], ...] = ()
    errors: tuple[ItemError, ...] = ()

    @property
    def rejected(self) -> bool:
        """Whether nothing of the batch was registered."""
        return self.result is ReturnResult.REJECTED

    @property
    def success(self) -> bool | None:
        """Whether everything was registered; None where the return does not say."""
        return {ReturnResult.SUCCESS: True, ReturnResult.ERRORS: False}.get(self.result) if self.result else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What we answered to a return."""

    message_id: str = ""
    received_ns: int | None = None
    state: str = ""
