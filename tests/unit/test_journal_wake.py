"""Waking other processes: sockets that die, queues that are full, paths that are too long."""

import asyncio
import errno
import os
import socket
import time
from pathlib import Path

import pytest

from bridge.clock import SystemClock
from bridge.journal.sqlite import open_journal
from bridge.journal.wake import Wake

LIMIT_S = 5


async def woken(event: asyncio.Event) -> None:
    async with asyncio.timeout(LIMIT_S):
        await event.wait()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "j.db"


@pytest.fixture
async def pair(journal):
    one, two = Wake(journal, "one"), Wake(journal, "two")
    yield one, two
    one.close()
    two.close()


async def test_topics_reach_both_sides(pair):
    """The waiters here and in the other process are woken, others are not."""
    one, two = pair
    here, there, other = one.event("a"), two.event("b"), two.event("c")
    one.here({"a", "b"})
    one.others({"a", "b"})
    await woken(here)
    await woken(there)
    assert not other.is_set()


async def test_dead_socket_is_removed(pair, journal):
    """A process that was killed leaves its socket behind; the next commit takes it away."""
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(Path(f"{journal}.wake") / "dead.sock"))
    dead.close()
    one, two = pair
    there = two.event("a")
    one.others({"a"})
    await woken(there)
    assert "dead.sock" not in os.listdir(f"{journal}.wake")


@pytest.mark.parametrize("age_s", [0, 60])
async def test_a_process_that_comes_later_is_woken(journal, age_s):
    """Whether the directory was changed a moment ago, or so long ago that it is not read again until it changes."""
    one = Wake(journal, "one")
    then = time.time() - age_s
    os.utime(f"{journal}.wake", (then, then))
    for _ in range(3):
        one.others({"a"})
    two = Wake(journal, "two")
    there = two.event("a")
    if not age_s:  # the same tick of a coarse clock
        os.utime(f"{journal}.wake", (then, then))
    one.others({"a"})
    await woken(there)
    one.close()
    two.close()


async def test_a_directory_that_stands_is_not_read_again(journal, monkeypatch):
    """After each commit of one record it would take longer than all else."""
    one = Wake(journal, "one")
    os.utime(f"{journal}.wake", (1e9, 1e9))
    listed = []
    monkeypatch.setattr(os, "listdir", lambda handle: listed.append(handle) or [])
    for _ in range(3):
        one.others({"a"})
    assert len(listed) == 1
    one.close()


async def test_full_queue_loses_nothing(pair):
    """A peer that was busy for long wakes every waiter when its queue ran over."""
    one, two = pair
    late = two.event("the last one")
    for number in range(5000):
        one.others({f"topic-{number}"})
    one.others({"the last one"})
    await woken(late)


async def test_very_many_topics_wake_everyone(pair):
    """More topics than a datagram holds."""
    one, two = pair
    there = two.event("site-7")
    one.others({f"site-{number}" for number in range(20_000)})
    await woken(there)


async def test_long_path(tmp_path):
    """A journal deep in the file system, beyond what a socket address holds."""
    deep = tmp_path.joinpath(*(["a-rather-long-directory-name"] * 6))
    deep.mkdir(parents=True)
    one, two = Wake(deep / "journal.db", "one"), Wake(deep / "journal.db", "two")
    there = two.event("a")
    one.others({"a"})
    await woken(there)
    one.close()
    two.close()


async def test_closing_leaves_no_socket(journal):
    """And may be done twice."""
    wake = Wake(journal, "one")
    assert os.listdir(f"{journal}.wake") != []
    wake.close()
    wake.close()
    assert os.listdir(f"{journal}.wake") == []


async def test_waiter_that_is_gone_is_forgotten(pair):
    """Each reconnect of an adapter asks for an event; they do not pile up."""
    one, _ = pair
    for _ in range(100):
        one.event("a")
    kept = one.event("a")
    assert len(one._topics._waiters["a"]) == 1
    one.here({"a"})
    await woken(kept)


async def test_no_file_handle_left_loses_no_commit(journal, monkeypatch):
    """A flood of connections used up the process's handles: a commit stands and its waiters here are woken, and the writing thread goes on."""
    kept = await open_journal(journal, clock=SystemClock.here(), role="all", new_id=lambda: "one")

    def none_left(_):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("bridge.journal.wake.os.listdir", none_left)
    for _ in range(2):
        event = kept.woken("alarms")
        await kept.alarm("CONFLICT", participant="acme", subject=str(id(event)), text="two outcomes")
        await woken(event)
    monkeypatch.undo()
    await kept.close()
