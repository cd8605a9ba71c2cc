"""The library's errors in our words, and cancellations that it kept to itself."""

import asyncio
import socket

import pytest

from adapters.opcua.errors import translated
from adapters.opcua.library import ua
from bridge.api import LinkError, LinkRefused


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ua.UaStatusCodeError(ua.StatusCodes.BadNodeIdUnknown), LinkError, "reading: the server answered BadNodeIdUnknown"),
        (ua.UaStatusCodeError(ua.StatusCodes.BadUserAccessDenied), LinkRefused, "reading: the server answered BadUserAccessDenied"),
        (TimeoutError(), LinkError, "reading: no answer in time"),
        (ConnectionRefusedError(), LinkError, "reading: nobody listens there"),
        (socket.gaierror(-2, "Name not known"), LinkError, "reading: the name is not known (Name not known)"),
        (ConnectionResetError("gone"), LinkError, "reading: ConnectionResetError: gone"),
        (ua.UaError("broken"), LinkError, "reading: UaError: broken"),
        (KeyError("x"), LinkError, "reading: KeyError: 'x'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)  # fmt: skip
async def test_what_the_library_raises_is_ours(raised, kind, text):
    """With where it came from behind it."""
    with pytest.raises(LinkError) as found, translated("reading"):
        raise raised
    assert type(found.value) is kind
    assert str(found.value) == text
    assert found.value.__cause__ is raised


@pytest.mark.parametrize(
    "raised", [LinkRefused("no"), RuntimeError("our own defect"), asyncio.CancelledError()], ids=repr
)
async def test_what_is_not_the_librarys_stays_as_it_is(raised):
    """Our own errors, our own defects, and the word of whoever ends the session."""
    with pytest.raises(type(raised)) as found, translated("reading"):
        raise raised
    assert found.value is raised


@pytest.mark.parametrize("then", [None, ConnectionResetError("gone"), LinkError("gone")], ids=repr)
async def test_a_cancellation_that_the_library_kept_counts(then):
    """Whatever came of the call: an answer in the same turn, or an error."""

    async def session():
        with translated("reading"):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if then is not None:
                    raise then from None
        return "went on"

    task = asyncio.create_task(session())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_older_cancellation_is_no_new_one():
    """One that was asked for before, and is being dealt with, ends nothing here."""

    async def session():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with translated("saying good-bye"):
                return "said"

    task = asyncio.create_task(session())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "said"
