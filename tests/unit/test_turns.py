"""Long work on the loop lets others in, and large pieces are worked beside it."""

import asyncio
import gc
import sys
import threading
import time

import pytest

from bridge.process import SWITCH_S, calm, keep_loaded
from bridge.turns import LARGE_BYTES, STEP_S, Turns, aside, signing


async def others(work):
    """How often somebody else had the loop while `work` ran."""
    count = 0

    async def other():
        nonlocal count
        while True:
            await asyncio.sleep(0)
            count += 1

    async with asyncio.TaskGroup() as group:
        beside = group.create_task(other())
        await asyncio.sleep(0)
        before = count
        await work()
        after = count
        beside.cancel()
    return after - before


async def test_long_work_lets_others_in():
    """Ten steps' worth of work gives others about ten turns."""

    async def work():
        turns = Turns()
        for _ in range(40):
            await turns.give()
            time.sleep(STEP_S / 4)  # work, not a wait

    assert 5 <= await others(work) <= 40


async def test_short_work_keeps_the_loop():
    """What is over within a step is not interrupted."""

    async def work():
        turns = Turns()
        for _ in range(10):
            await turns.give()

    assert await others(work) <= 1


async def test_large_pieces_are_worked_beside_the_loop():
    """A small piece is worked at once, a large one on another thread; an error comes back to the caller."""
    here = threading.get_ident()
    assert await aside(LARGE_BYTES, threading.get_ident) == here
    assert await aside(LARGE_BYTES + 1, threading.get_ident) != here
    try:
        await aside(LARGE_BYTES + 1, int, "no number")
    except ValueError:
        return
    raise AssertionError("the error was lost")


def test_a_process_is_calm():
    """Threads change places soon, and what was loaded is no longer searched for garbage."""
    before = sys.getswitchinterval()
    try:
        calm()
        assert abs(sys.getswitchinterval() - SWITCH_S) < 1e-6
        assert gc.get_freeze_count() > 10_000
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()


def test_what_is_loaded_later_is_kept_from_the_search_too():
    """Libraries that come after the start are no longer searched for garbage either."""
    try:
        gc.freeze()
        before, later = gc.get_freeze_count(), [[number] for number in range(5000)]
        keep_loaded()
        assert gc.get_freeze_count() - before >= len(later)
    finally:
        gc.unfreeze()


async def test_a_module_that_hangs_delays_its_own_participant_alone():
    """Signing of another one and large work of anybody go on; who stops waiting is taken out of the line."""
    release, done = threading.Event(), []
    hanging = asyncio.get_running_loop().create_task(signing("slow", release.wait, 20))
    await asyncio.sleep(0)  # it has begun
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await signing("slow", done.append, "given up")
        async with asyncio.timeout(10):
            name = await signing("other", lambda: threading.current_thread().name)
            assert name.startswith("sign-other")
            assert await aside(LARGE_BYTES + 1, lambda: 7) == 7
        assert not hanging.done()
    finally:
        release.set()
    assert await hanging
    assert await signing("slow", lambda: 8) == 8
    assert done == []
