"""aedes in a process of its own (another broker than mosquitto), and a WebSocket gateway before any broker, for tests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from mosquitto import ANSWER_S, HOST, Certificates

SCRIPT = Path(__file__).parents[1] / "peers" / "mqtt" / "broker.js"


class Aedes:
    """The orders of `tests/peers/mqtt/broker.js`. `user`/`password` are empty where anybody may connect; `ca` is None without TLS."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path, *, tls: bool = False) -> None:
        self._process = process
        self.host = HOST
        self.port = 0
        self.user = self.password = ""
        self.certificates = Certificates(directory) if tls else None
        self.ca: Path | None = self.certificates.ca if self.certificates else None

    async def start(self) -> None:
        """Listen; again on the same port after `stop`, with the sessions and retained messages as they were."""
        self.port = await self.listen(self.port)

    async def stop(self) -> None:
        """Break every connection and listen no more."""
        await self._order("stop")

    async def listen(self, port: int = 0, **settings: object) -> int:
        """One more listener; returns its port. `websocket` is the path for MQTT over WebSocket, `upstream` the port of the broker behind it."""
        if self.certificates:
            settings.setdefault("tls", {"key": str(self.certificates.key), "cert": str(self.certificates.chain)})
        return (await self._order("listen", port=port, **settings))["port"]

    async def ping(self, payload: str) -> list[str]:
        """Send a WebSocket ping on every WebSocket; what each answered."""
        return (await self._order("ping", payload=payload))["answers"]

    def options(self, **changes: object) -> dict:
        """The adapter's options for it, as a site file would spell them."""
        found: dict = {"host": self.host, "port": self.port}
        if self.ca:
            found["tls"] = {"ca": str(self.ca)}
        return {**found, **changes}

    async def _order(self, op: str, **details: object) -> dict:
        self._process.stdin.write(json.dumps({"op": op, **details}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_S):
            line = await self._process.stdout.readline()
        assert line, "aedes has ended; are its npm packages installed (make peers)?"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer


@asynccontextmanager
async def aedes(
    directory: Path, *, tls: bool = False, process: asyncio.subprocess.Process | None = None
) -> AsyncIterator[Aedes]:
    """A broker that runs and does not listen yet. One that knows nothing is made of `process` where a test module has it (`aedes_process`)."""
    directory.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        made = Aedes(process or await stack.enter_async_context(aedes_process()), directory, tls=tls)
        try:
            yield made
        finally:
            if process is not None:
                await made._order("reset")


@asynccontextmanager
async def aedes_process() -> AsyncIterator[asyncio.subprocess.Process]:
    """node takes half a second to start."""
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec("node", str(SCRIPT), **pipes)
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(ANSWER_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
