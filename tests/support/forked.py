"""Processes of Python that need not import everything anew: a server that has done so forks one for each.

What is forked is a process like any other, with its own memory, environment, files, signals and exit status; it has only not spent a second and a half of
processor time on imports. What a start from nothing does is seen by the tests that start a real interpreter (the demo, the sandbox, systemd's, the version before).
"""

import asyncio
import atexit
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

# What commands and the service import when they run.
IMPORTED = (
    "bridge.app", "bridge.assembly", "bridge.config", "bridge.journal.configured", "bridge.journal.postgres", "bridge.journal.sqlite", "bridge.reconcile",
    "bridge.registry", "bridge.sandbox",
    *(f"adapters.{name}{part}" for name in ("modbus", "mqtt", "opcua") for part in ("", ".browse", ".probe", ".session")),
)  # fmt: skip
LINE = 2**20  # bytes of an order, and of a line that a process prints
MAIN = "from bridge.cli import main; main()"


class Forked:
    """A process that was forked: what `asyncio.subprocess.Process` is for one that was executed."""

    def __init__(
        self,
        told: "_Told",
        stdin: asyncio.StreamWriter | None,
        stdout: asyncio.StreamReader | None,
        stderr: asyncio.StreamReader | None,
    ) -> None:
        self._told = told
        self.pid = told.pid
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr

    @property
    def returncode(self) -> int | None:
        """Exit status, or the signal that ended it as a negative number; None while it runs."""
        return self._told.status

    async def wait(self) -> int:
        """Its exit status, when it has ended."""
        await self._told.ended.wait()
        assert self.returncode is not None, "the server that forks has ended"
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """All that it prints, when it has ended."""
        out, err = await asyncio.gather(*(pipe.read() if pipe else _nothing() for pipe in (self.stdout, self.stderr)))
        await self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        """To it alone; to nobody once it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


async def _nothing() -> bytes:
    return b""


class _Told(asyncio.Protocol):
    """What the server tells of one process: its id, then its exit status."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.pid = 0
        self.status: int | None = None
        self._heard = b""

    def data_received(self, data: bytes) -> None:
        self._heard += data
        numbers = [int(line) for line in self._heard.split(b"\n")[:-1]]
        self.pid, self.status = (*numbers, None)[:2] if numbers else (0, None)
        if self.pid:
            self.began.set()
        if self.status is not None:
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.began.set()
        self.ended.set()


class Server:
    """The server of this test process, started when the first process is wanted."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def order(self, order: Mapping[str, object], files: tuple[int, ...]) -> None:
        """Fork one with these files as standard input, output, error and the way to tell of it."""
        if self._process is None:
            self._start()
        socket.send_fds(self._here, [json.dumps(order).encode()], files)

    def _start(self) -> None:
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            command = [sys.executable, __file__, str(there.fileno())]
            quiet = {"stdin": DEVNULL, "stdout": DEVNULL}
            self._process = subprocess.Popen(command, pass_fds=[there.fileno()], **quiet)
        atexit.register(self._end)

    def _end(self) -> None:
        self._here.close()
        self._process.wait()


_SERVER = Server()


async def forked(
    *arguments: object,
    environment: Mapping[str, str],
    code: str = MAIN,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    stderr: int = PIPE,
) -> Forked:
    """A process that runs `code` as `python -c` would, with these arguments and exactly these variables, in the directory of the tests."""
    order = {
        "arguments": [*map(str, arguments)],
        "environment": dict(environment),
        "code": code,
        "cwd": str(Path.cwd()),
    }
    told, (ours, theirs) = _Told(), os.pipe()
    (in_, from_in), (out, to_out), (err, to_err) = await _way_in(stdin), await _pipe(stdout), await _pipe(stderr)
    try:
        await asyncio.get_running_loop().connect_read_pipe(lambda: told, os.fdopen(ours, "rb", buffering=0))
        _SERVER.order(order, (from_in, to_out, to_err, theirs))
    finally:
        for file in (from_in, to_out, to_err, theirs):
            os.close(file)
    await told.began.wait()
    assert told.pid, "the server that forks has ended"
    return Forked(told, in_, out, err)


async def _way_in(kind: int) -> tuple[asyncio.StreamWriter | None, int]:
    if kind == DEVNULL:
        return None, os.open(os.devnull, os.O_RDONLY)
    theirs, ours = os.pipe()
    loop = asyncio.get_running_loop()
    made = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(ours, "wb", buffering=0))
    return asyncio.StreamWriter(*made, None, loop), theirs


async def _pipe(kind: int) -> tuple[asyncio.StreamReader | None, int]:
    if kind == DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    ours, theirs = os.pipe()
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0))
    return reader, theirs


# the server -----------------------------------------------------------------------------------------------------------


def _serve(wire: socket.socket) -> str:
    """Fork until the test process has gone; what a child has to run, or nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what interrupts the tests ends it by the end of the wire
    ways: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(wire, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is not wire:
                    ready.unregister(key.fd)
                    _tell_end(key.fd, *ways.pop(key.fd))
                    continue
                said, files, _, _ = socket.recv_fds(wire, LINE, 4)
                if not said:
                    return ""
                if not (pid := os.fork()):
                    ready.close()
                    wire.close()
                    return _become(json.loads(said), files)
                *streams, way = files
                for file in streams:
                    os.close(file)
                _tell(way, pid)
                ended = os.pidfd_open(pid)
                ready.register(ended, selectors.EVENT_READ)
                ways[ended] = pid, way


def _tell(way: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(way, b"%d\n" % number)


def _tell_end(ended: int, pid: int, way: int) -> None:
    _, status = os.waitpid(pid, 0)
    _tell(way, os.waitstatus_to_exitcode(status))
    os.close(way)
    os.close(ended)


def _become(order: dict, files: list[int]) -> str:
    """The child becomes the process that was ordered; what it has to run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(order["cwd"])
    sys.argv = ["-c", *order["arguments"]]
    return order["code"]


def _import() -> None:
    from bridge.cli.lazy import COMMANDS, imported
    from bridge.vocabulary import load_vocabulary

    for name in COMMANDS:
        imported(name)
    load_vocabulary()  # kept for all that follow
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a thread would not be there after the fork"


if __name__ == "__main__":
    _import()
    code = _serve(socket.socket(fileno=int(sys.argv[1])))
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
