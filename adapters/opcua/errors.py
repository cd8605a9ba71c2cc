"""The one place where the library's errors become ours."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from adapters.opcua.library import ua
from adapters.opcua.words import hint_for, is_refusal, printable
from bridge.api import LinkError, LinkRefused

# What the library raises when it takes a broken reply apart, or works with what came out of it.
_OF_BROKEN_REPLIES: Final = (
    OSError, ua.UaError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, EOFError,
    struct.error, RecursionError, MemoryError,
)  # fmt: skip


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises `LinkError` or `LinkRefused` for whatever the library raises within; `doing` says what was going on.

    A cancellation counts although the library kept it to itself: it waits in `asyncio.wait_for`, which on Python 3.11 returns a result that comes in
    the same turn, and for tasks of its own whose cancellation it expects. A session that is told to end would go on for ever.
    """
    before = _cancellations()
    try:
        with _in_our_words(doing):
            yield
    except LinkError as error:
        if _cancellations() > before:
            raise asyncio.CancelledError from error
        raise
    if _cancellations() > before:
        raise asyncio.CancelledError


def _cancellations() -> int:
    """How often the running task was asked to end; `asyncio.timeout` takes back what it asks, a `TaskGroup` not always before Python 3.13."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@contextmanager
def _in_our_words(doing: str) -> Iterator[None]:
    try:
        yield
    except (LinkError, asyncio.CancelledError):
        raise
    except ua.UaStatusCodeError as error:
        name = status_name(error.code)
        kind = LinkRefused if is_refusal(name) else LinkError
        raise kind(f"{doing}: the server answered {name}", hint=hint_for(name)) from error
    except TimeoutError as error:
        raise LinkError(f"{doing}: no answer in time") from error
    except ConnectionRefusedError as error:
        hint = "is the server switched on, and are host and port right?"
        raise LinkError(f"{doing}: nobody listens there", hint=hint) from error
    except socket.gaierror as error:
        hint = "is the host's name right, and known on this machine?"
        raise LinkError(f"{doing}: the name is not known ({printable(error.strerror)})", hint=hint) from error
    except _OF_BROKEN_REPLIES as error:
        raise LinkError(f"{doing}: {type(error).__name__}: {printable(error)}") from error


def status_name(code: int) -> str:
    """The name of a status code, without the flags in its lower half."""
    name = ua.StatusCode(code & 0xFFFF0000).name
    return str(name) if name else f"0x{code:08X}"
