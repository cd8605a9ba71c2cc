"""The one place where the library's errors become ours."""

import asyncio
import socket
import struct
from types import TracebackType
from typing import Final

from adapters.opcua.library import ua
from adapters.opcua.words import hint_for, is_refusal, printable
from bridge.api import LinkError, LinkRefused

# What the library raises when it takes a broken reply apart, or works with what came out of it.
_OF_BROKEN_REPLIES: Final = (
    OSError, ua.UaError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, EOFError,
    struct.error, RecursionError, MemoryError,
)  # fmt: skip


class Translated:
    """See `translated`. No generator, for it stands around each read."""

    __slots__ = ("_before", "_doing")

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._before = 0

    def __enter__(self) -> None:
        self._before = _cancellations()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, trace
        ours = None if error is None else _in_our_words(self._doing, error)
        if (error is None or ours is not None) and _cancellations() > self._before:
            raise asyncio.CancelledError from ours
        if ours is not None and ours is not error:
            raise ours from error


def translated(doing: str) -> Translated:
    """Raises `LinkError` or `LinkRefused` for whatever the library raises within; `doing` says what was going on.

    A cancellation counts although the library kept it to itself: it waits in `asyncio.wait_for`, which on Python 3.11 returns a result that comes in
    the same turn, and for tasks of its own whose cancellation it expects. A session that is told to end would go on for ever.
    """
    return Translated(doing)


def _cancellations() -> int:
    """How often the running task was asked to end; `asyncio.timeout` takes back what it asks, a `TaskGroup` not always before Python 3.13."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _in_our_words(doing: str, error: BaseException) -> LinkError | None:
    """The error as ours, itself where it is ours already; None for what is not the library's."""
    match error:
        case LinkError():
            return error
        case ua.UaStatusCodeError():
            name = status_name(error.code)
            kind = LinkRefused if is_refusal(name) else LinkError
            return kind(f"{doing}: the server answered {name}", hint=hint_for(name))
        case TimeoutError():
            return LinkError(f"{doing}: no answer in time")
        case ConnectionRefusedError():
            hint = "is the server switched on, and are host and port right?"
            return LinkError(f"{doing}: nobody listens there", hint=hint)
        case socket.gaierror():
            hint = "is the host's name right, and known on this machine?"
            return LinkError(f"{doing}: the name is not known ({printable(error.strerror)})", hint=hint)
    if isinstance(error, _OF_BROKEN_REPLIES):
        return LinkError(f"{doing}: {type(error).__name__}: {printable(error)}")
    return None


def status_name(code: int) -> str:
    """The name of a status code, without the flags in its lower half."""
    name = ua.StatusCode(code & 0xFFFF0000).name
    return str(name) if name else f"0x{code:08X}"
