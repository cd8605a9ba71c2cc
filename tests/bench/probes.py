"""Probes that see into a starting or waiting bridge; each costs time or memory itself, so none stands in a process whose figures are compared."""

import functools
import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
PARTS = (
    ("bridge.cli.run", "load_whole", "configuration read and checked"),
    ("bridge.app", "open_configured_journal", "journal opened"),
    ("bridge.app:Host", "_hold_unless_safe", "anchor compared"),
    ("bridge.app:Host", "_watch_the_clock", "clock asked"),
    ("bridge.app:Host", "_build_market", "market side built"),
    ("bridge.app:Host", "_build_field", "sites built"),
    ("bridge.app:Host", "_build_keeper", "keeper of the evidence built"),
    ("bridge.app:Host", "_listen", "listeners opened"),
    ("bridge.cli.run", "calm", "garbage collected and frozen"),
)


# ----------------------------------------------------------------------------------------------------------------- heap


def watch_heap(file):
    """At each SIGUSR1 write to FILE what Python's allocator holds, in MB by part of the program, largest first."""
    import tracemalloc

    tracemalloc.start()

    def told(_number, _frame):
        held = defaultdict(int)
        for found in tracemalloc.take_snapshot().statistics("filename"):
            held[part_of(found.traceback[0].filename)] += found.size
        _write(file, [(name, size / 1e6) for name, size in sorted(held.items(), key=lambda each: -each[1])])

    signal.signal(signal.SIGUSR1, told)


def part_of(filename):
    """The part of the program that a source file belongs to: a package of ours two deep, a library, or Python itself."""
    if "importlib" in filename:
        return "code of modules, as it was loaded"
    path = Path(filename)
    if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
        return ".".join(path.relative_to(ROOT).with_suffix("").parts[:3])
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1].removesuffix(".py")
    return f"Python's {path.parent.name if path.parent.name not in {'python3.11', 'lib'} else path.stem}"


# -------------------------------------------------------------------------------------------------------------- imports


def watch_imports(file):
    """At SIGUSR1 write to FILE what each top-level package cost to import, without what it imported itself: processor seconds and resident MB."""
    bootstrap = sys.modules["_frozen_importlib"]
    plain, here, cost = bootstrap._find_and_load, threading.local(), defaultdict(lambda: [0.0, 0.0])

    def weighed(name, import_):
        inner, stack = [0.0, 0.0], here.__dict__.setdefault("stack", [])
        stack.append(inner)
        began, before = time.thread_time(), _resident_mb()
        try:
            return plain(name, import_)
        finally:
            taken = (time.thread_time() - began, _resident_mb() - before)
            stack.pop()
            own = cost[name.partition(".")[0]]
            for index, amount in enumerate(taken):
                own[index] += amount - inner[index]
                if stack:
                    stack[-1][index] += amount

    bootstrap._find_and_load = weighed
    signal.signal(signal.SIGUSR1, lambda *_: _write(file, {name: tuple(own) for name, own in cost.items()}))


def _resident_mb():
    with open("/proc/self/statm", "rb") as status:
        return int(status.read().split()[1]) * _PAGE_MB


# ------------------------------------------------------------------------------------------------------- parts of a start


def watch_parts(file):
    """At SIGUSR1 write to FILE when each part of the start began and ended (CLOCK_MONOTONIC)."""
    noted = [("interpreter started", 0, time.monotonic_ns())]
    began = time.monotonic_ns()
    import bridge.app
    import bridge.cli.run  # noqa: F401 - so that its names are there to be timed

    noted.append(("modules of the service imported", began, time.monotonic_ns()))
    for place, name, told in PARTS:
        module, _, inner = place.partition(":")
        owner = sys.modules[module]
        owner = getattr(owner, inner) if inner else owner
        setattr(owner, name, _timed(getattr(owner, name), told, noted))
    signal.signal(signal.SIGUSR1, lambda *_: _write(file, noted))


def _timed(function, told, noted):
    import inspect

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def timed(*args, **kwargs):
            began = time.monotonic_ns()
            try:
                return await function(*args, **kwargs)
            finally:
                noted.append((told, began, time.monotonic_ns()))
    else:

        @functools.wraps(function)
        def timed(*args, **kwargs):
            began = time.monotonic_ns()
            try:
                return function(*args, **kwargs)
            finally:
                noted.append((told, began, time.monotonic_ns()))

    return timed


def _write(file, content):
    """Whole or not at all: somebody waits for it."""
    made = Path(f"{file}.new")
    made.write_text(json.dumps(content))
    made.replace(file)
