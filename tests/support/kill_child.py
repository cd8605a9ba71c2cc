"""Starts the real service with one of its seams watched: at a named moment the process kills itself, as a power cut would.

    python -m kill_child run --config DIR      the service, with the moment that the environment names (kill_points.py)
    python -m kill_child --seams               only look for every seam; a missing one is an error

The product has no hooks for this: its functions are wrapped from outside. A seam that is gone fails here, loudly, before anything starts.
"""

import asyncio
import functools
import inspect
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

import apsw
import kill_plants
from aiohttp import web
from kill_points import ARMED, CREATE_PATHS, MARK, NTH, POINT, POINTS, VITALS
from sick_child import fall_sick

from bridge.clock import SystemClock
from bridge.journal import engine
from bridge.journal.sqlite import SqliteJournal
from bridge.market.client import SmpClient
from bridge.market.connection import Connection
from bridge.market.outbound import Outbound
from bridge.submission import Admission, SubmissionState

PAGES = 8  # a checkpoint after so many, so that there is one soon
creating = ContextVar("creating", default=False)


class Trap:
    """Counts how often the moment came while the test had it armed, and ends the process with the n-th."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._armed = Path(os.environ.get(ARMED, ""))
        self._mark = os.environ.get(MARK, "")
        self._nth = int(os.environ.get(NTH, "1"))
        self._came = 0

    def here(self) -> None:
        if not self._armed.exists():
            return
        self._came += 1
        if self._came == self._nth:
            Path(self._mark).write_text(self._name)
            os.kill(os.getpid(), signal.SIGKILL)


def watched(owner: object, name: str, before: Callable | None = None, after: Callable | None = None) -> None:
    """Wrap a coroutine function: `before` sees the call's arguments by name, `after` the result too."""
    original = getattr(owner, name)
    if not inspect.iscoroutinefunction(original):
        raise TypeError(f"{owner}.{name} is no coroutine function any more")
    signature = inspect.signature(original)

    @functools.wraps(original)
    async def wrapped(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        if before is not None:
            before(**given)
        result = await original(*args, **kwargs)
        if after is not None:
            after(result, **given)
        return result

    setattr(owner, name, wrapped)


# one function for each moment ----------------------------------------------------------------------------------------


def received(trap):
    watched(SqliteJournal, "accept", before=lambda **_: trap.here())


def journalled(trap):
    def after(intake, **_):
        if not intake.fast and any(accepted.admission is Admission.NEW for accepted in intake.accepted):
            trap.here()

    watched(SqliteJournal, "accept", after=after)


def signed(trap):
    original = Outbound.send
    assert list(inspect.signature(original).parameters) == ["self", "fast", "journalled", "site", "flow"]

    def send(self, fast, journalled, site, flow):
        trap.here()
        return original(self, fast, journalled, site, flow)

    Outbound.send = send


def waiting(trap):
    watched(SqliteJournal, "sending", before=lambda **_: trap.here())


def committed(trap):
    watched(SqliteJournal, "sending", after=lambda *_, **__: trap.here())


def _tell_creates():
    """Let what runs inside a POST, or inside the beginning of one, know whether it creates something."""
    paths = set(os.environ.get(CREATE_PATHS, "").split(","))
    post, begin = SmpClient.post, SmpClient.begin
    assert "path" in inspect.signature(post).parameters
    assert "path" in inspect.signature(begin).parameters

    @functools.wraps(post)
    async def told_post(self, path, **given):
        token = creating.set(path in paths)
        try:
            return await post(self, path, **given)
        finally:
            creating.reset(token)

    @functools.wraps(begin)
    def told_begin(self, path, **given):
        token = creating.set(path in paths)
        try:
            return begin(self, path, **given)
        finally:
            creating.reset(token)

    SmpClient.post, SmpClient.begin = told_post, told_begin


def half_sent(trap):
    _tell_creates()
    original = Connection._put

    def put(self, transport, head, body):
        if not creating.get():
            original(self, transport, head, body)
            return
        half = len(body) // 2
        original(self, transport, head, body[:half])
        trap.here()
        transport.write(body[half:])

    Connection._put = put


def sent(trap):
    _tell_creates()
    original = Connection._put

    def put(self, transport, head, body):
        original(self, transport, head, body)
        if creating.get():
            trap.here()

    Connection._put = put


def answered(trap):
    def after(found, **_):
        exchange, _ = found
        if exchange.status // 100 == 2:
            trap.here()

    watched(Outbound, "_exchange", after=after)


def answer_journalled(trap):
    def after(_, state, **__):
        if state is SubmissionState.AWAITING_RETURN:
            trap.here()

    watched(SqliteJournal, "answered", after=after)


def return_received(trap):
    watched(SqliteJournal, "park_return", before=lambda **_: trap.here())


def return_parked(trap):
    watched(SqliteJournal, "park_return", after=lambda *_, **__: trap.here())


def return_answered(trap):
    """The only answers with 202 that the bridge gives are the receipts of returns."""

    def after(_, **given):
        if given["self"].status == 202:
            trap.here()

    watched(web.Response, "write_eof", after=after)


def settled(trap):
    def after(_, state, **__):
        if state.terminal:
            trap.here()

    watched(SqliteJournal, "settle", after=after)


def _final(due, trap):
    """Know the write-backs of outcomes that were settled in this life: words of progress and repeats are told again, an outcome only once."""
    born_ns = SystemClock.here().wall_ns()

    def fresh(row):
        return row.outcome.state.final and row.settled is not None and row.settled.wall_ns >= born_ns

    def handed_out(answer, **_):
        rows, _ = answer
        due.update((row.id, row.generation) for row in rows if fresh(row))

    watched(SqliteJournal, "due_writebacks", after=handed_out)

    def here(results):
        if any((result.id, result.generation) in due for result in results):
            trap.here()

    return here


def written(trap):
    here = _final(set(), trap)
    watched(SqliteJournal, "wrote_back", before=lambda results, **_: here(results))


def write_journalled(trap):
    here = _final(set(), trap)
    watched(SqliteJournal, "wrote_back", after=lambda _, results, **__: here(results))


class _File(apsw.VFSFile):
    """Writes of the database file itself: with a write-ahead log there are none but a checkpoint's."""

    trap: Trap

    def xWrite(self, data, offset):
        super().xWrite(data, offset)
        self.trap.here()


class _Files(apsw.VFS):
    def __init__(self, trap):
        self._base = apsw.vfs_names()[0]
        super().__init__("kill", self._base, makedefault=True)
        self._trap = trap

    def xOpen(self, name, flags):
        if not flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return super().xOpen(name, flags)
        file = _File(self._base, name, flags)
        file.trap = self._trap
        return file


def checkpoint(trap):
    assert isinstance(engine._CHECKPOINT_PAGES, int)
    engine._CHECKPOINT_PAGES = PAGES
    checkpoint.kept = _Files(trap)  # a VFS lives as long as its object


def recovering(trap):
    watched(SqliteJournal, "recover", before=lambda **_: trap.here())


def recovered(trap):
    watched(SqliteJournal, "recover", after=lambda *_, **__: trap.here())


def tell_vitals(path: Path) -> None:
    """At SIGUSR1 write down what a leak would show in."""

    def told(*_):
        with Path("/proc/self/status").open() as file:
            status = dict(line.split(":", 1) for line in file)
        running = [getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks()]
        signs = {
            "resident_kib": int(status["VmRSS"].split()[0]),
            "files": len(os.listdir("/proc/self/fd")) - 1,  # without the one that lists them
            "threads": int(status["Threads"]),
            "tasks": len(running),
            "names": Counter(running),
        }
        whole = path.with_suffix(".new")
        whole.write_text(json.dumps(signs))
        whole.rename(path)

    signal.signal(signal.SIGUSR1, told)


WATCH = {point.name: globals()[point.name.replace("-", "_")] for point in POINTS}


def main() -> None:
    if sys.argv[1:] == ["--seams"]:
        for name, watch in WATCH.items():
            watch(Trap(name))
        for plant in kill_plants.PLANTS.values():
            plant()
        print(" ".join(WATCH))
        return
    if os.environ.get(VITALS):
        tell_vitals(Path(os.environ[VITALS]))
    fall_sick()
    kill_plants.plant(os.environ.get(kill_plants.VARIABLE, ""))
    point = os.environ.get(POINT, "")
    if point:
        WATCH[point](Trap(point))
    from bridge.cli import main as run

    run()


if __name__ == "__main__":
    main()
