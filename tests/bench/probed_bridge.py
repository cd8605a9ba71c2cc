"""`smp-bridge` with one of the bench's probes beside it, where a measurement needs to see inside. Never the process whose latency is compared.

`BENCH_SYNCS=FILE`: SQLite's way to the disk notes when each sync of the write-ahead log began and ended (CLOCK_MONOTONIC), written to FILE at the end.
`BENCH_STEPS=FILE`: each step of the event loop is timed by the loop thread's own processor time, so that what other threads and processes do does not
count. Written to FILE at the end: when each began (CLOCK_MONOTONIC), its own time, and what it was where it took more than 2 ms.
`BENCH_HEAP=FILE`, `BENCH_IMPORTS=FILE`, `BENCH_PARTS=FILE`: see probes.py; written at each SIGUSR1.
"""

import asyncio
import atexit
import json
import os
import time
from array import array

import apsw
from probes import watch_heap, watch_imports, watch_parts

LONG_NS = 2_000_000


class _CountedFile(apsw.VFSFile):
    def __init__(self, name, flags, noted):
        super().__init__("unix", name, flags)
        self._noted = noted if flags[0] & apsw.SQLITE_OPEN_WAL else []

    def xSync(self, flags):
        began = time.monotonic_ns()
        super().xSync(flags)
        self._noted.append((began, time.monotonic_ns()))


class _CountingVfs(apsw.VFS):
    def __init__(self, noted):
        self._noted = noted
        super().__init__("bench", "unix", makedefault=True)

    def xOpen(self, name, flags):
        return _CountedFile(name, flags, self._noted)


def count_syncs(file):
    """Note every sync of a write-ahead log from now on. Returns what must live as long as SQLite is used."""
    noted = []
    atexit.register(lambda: _write(file, noted))
    return _CountingVfs(noted)


def time_steps(file):
    """Time every step of the event loop from now on."""
    began, own, named, plain = array("q"), array("q"), [], asyncio.Handle._run

    def timed(handle):
        at, before = time.monotonic_ns(), time.thread_time_ns()
        plain(handle)
        taken = time.thread_time_ns() - before
        began.append(at)
        own.append(taken)
        if taken > LONG_NS:
            named.append((at, taken, _name(handle)))

    asyncio.Handle._run = timed
    atexit.register(lambda: _write(file, {"began_ns": began.tolist(), "own_ns": own.tolist(), "long": named}))


def _name(handle):
    callback = handle._callback
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return getattr(task.get_coro(), "__qualname__", "?")
    return getattr(callback, "__qualname__", type(callback).__name__)


def _write(file, content):
    with open(file, "w") as out:
        json.dump(content, out)


if __name__ == "__main__":
    vfs = count_syncs(os.environ["BENCH_SYNCS"]) if "BENCH_SYNCS" in os.environ else None
    if "BENCH_STEPS" in os.environ:
        time_steps(os.environ["BENCH_STEPS"])
    for name, watch in (("BENCH_HEAP", watch_heap), ("BENCH_IMPORTS", watch_imports), ("BENCH_PARTS", watch_parts)):
        if name in os.environ:
            watch(os.environ[name])
    from bridge.cli import main

    main()
