"""One error tree, named by what the caller does next."""

from collections.abc import Iterable
from dataclasses import dataclass


class BridgeError(Exception):
    """Base of all errors of ours. `hint` tells an operator what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in a file: where, what, and what would be right (inside `text`)."""

    text: str
    path: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return ": ".join(part for part in (place, self.path, self.text) if part)


class ConfigError(BridgeError):
    """Fix the configuration: nothing was started. Carries every problem found, not only the first."""

    def __init__(self, problems: Iterable[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class LinkError(BridgeError):
    """Close the session and open a new one: the link or its protocol state is lost."""


class LinkRefused(LinkError):
    """The peer refused us (credentials, trust, policy): open again only after the longest wait, and raise an alarm."""


class RetryLater(BridgeError):
    """Try the same again after `delay_s` seconds (the peer asked for it, or a device was busy)."""

    def __init__(self, message: str, *, delay_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.delay_s = delay_s


class IllegalMove(BridgeError):
    """A submission was asked to move against the table of legal transitions: a defect of ours."""


class TransactionKnown(BridgeError):
    """The platform gave two calls of a participant one transaction id: what it says of that id cannot be told apart."""


class Replaced(BridgeError):
    """Take the next call again: newer content replaced an item while its call was being signed."""


class NotPossible(BridgeError):
    """A person asked for what cannot be done as things stand; nothing was changed. The hint says what can."""


class Fenced(BridgeError):
    """Stop this work: another owner holds the lease now, or ours has a newer epoch."""


class LeaseHeld(BridgeError):
    """Refuse to start: another live process owns this site or this participant's market side."""


class JournalUnusable(BridgeError):
    """Refuse to start, or stop: the journal is unreadable, of a newer version, or its disk fails."""


class JournalFull(BridgeError):
    """Stop acknowledging until there is room again: the disk or the configured cap is full."""
