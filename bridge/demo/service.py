"""The bridge as the demo runs it: a process of its own, as it is run on a real host."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from bridge.errors import BridgeError

STOP_S: Final = 20.0
KEPT_LINES: Final = 12


class ServiceFailed(BridgeError):
    """The bridge ended although it should run."""


class Service:
    """`smp-bridge run` in a process. Entered as an async context manager; left, it is stopped as an operator would stop it."""

    def __init__(
        self,
        config: Path,
        environment: Mapping[str, str],
        *,
        log_file: Path,
        listening: Callable[[str, int], None],
    ) -> None:
        self._config = config
        self._environment = environment
        self._log_file = log_file
        self._listening = listening
        self._process: Process | None = None
        self._last: deque[str] = deque(maxlen=KEPT_LINES)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from bridge.cli import main; main()", "run", "--config", str(self._config),
            env={**os.environ, **self._environment}, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
            start_new_session=True,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.communicate()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def follow(self) -> None:
        """Keep its log, tell of its ports, and raise `ServiceFailed` when it ends."""
        process = self._process
        assert process is not None
        assert process.stderr is not None
        with self._log_file.open("ab") as kept:
            async for line in process.stderr:
                kept.write(line)
                kept.flush()
                self._take(line)
        code = await process.wait()
        said = "\n".join(self._last)
        raise ServiceFailed(f"the bridge ended with exit status {code}; it said last:\n{said}")

    def _take(self, line: bytes) -> None:
        self._last.append(line.decode("utf-8", "replace").rstrip())
        try:
            entry: Any = json.loads(line)
        except ValueError:
            return
        if isinstance(entry, dict) and entry.get("event") == "listening":
            self._listening(str(entry["listener"]), int(entry["port"]))
