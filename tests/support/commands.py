"""Commands of `smp-bridge` as processes of their own that need not import everything anew: a server that has done so forks one for each.

The command itself, its exit status, environment, output and files are those of any process.
"""

import asyncio
import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

# What commands import when they run.
IMPORTED = (
    "bridge.app", "bridge.assembly", "bridge.config", "bridge.journal.configured", "bridge.journal.sqlite", "bridge.reconcile",
    "bridge.registry", "adapters.modbus", "adapters.mqtt", "adapters.opcua",
)  # fmt: skip


class Commands:
    """The server of this test process, started when the first command comes."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()

    def run(self, arguments: list[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Run one to its end: exit status, what it printed, what it complained of."""
        with self._turn, tempfile.TemporaryDirectory() as name:
            out, err = Path(name) / "out", Path(name) / "err"
            order = {"arguments": arguments, "environment": dict(environment), "out": str(out), "err": str(err)}
            server = self._server = self._server or self._start()
            server.stdin.write(json.dumps(order) + "\n")
            server.stdin.flush()
            answer = server.stdout.readline()
            assert answer, "the server of commands has ended"
            return int(answer), out.read_text(), err.read_text()

    def _start(self) -> "subprocess.Popen[str]":
        server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self._end)
        return server

    def _end(self) -> None:
        with self._server as server:
            server.stdin.close()


_COMMANDS = Commands()


async def command(*arguments: object, environment: Mapping[str, str], within_s: float = 60) -> tuple[int, str, str]:
    """Run `smp-bridge` with these arguments and these variables more; see `Commands.run`."""
    async with asyncio.timeout(within_s):
        return await asyncio.to_thread(_COMMANDS.run, [*map(str, arguments)], {**os.environ, **environment})


def _child(order: dict) -> None:
    """The forked process becomes the command."""
    os.environ.clear()
    os.environ.update(order["environment"])
    for number, way, mode in ((0, os.devnull, os.O_RDONLY), (1, order["out"], None), (2, order["err"], None)):
        file = os.open(way, os.O_WRONLY | os.O_CREAT if mode is None else mode, 0o600)
        os.dup2(file, number)
    sys.argv = ["smp-bridge", *order["arguments"]]
    from bridge.cli import main

    main()


def _serve() -> None:
    from bridge.cli import _commands
    from bridge.vocabulary import load_vocabulary

    _commands()
    load_vocabulary()  # kept for all that follow
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            return _child(order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
