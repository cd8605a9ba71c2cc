"""A libmodbus or jsmodbus device in a process of its own, and a malformed one, for tests."""

import asyncio
import json
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

PEERS = Path(__file__).parents[1] / "peers" / "modbus"
LIBMODBUS = (sys.executable, str(PEERS / "server.py"))
JSMODBUS = ("node", str(PEERS / "device.cjs"))
ANSWER_S = 10.0


class Device:
    """The orders of `tests/peers/modbus/server.py` (jsmodbus knows the first few), and the bytes of registers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.host = "127.0.0.1"
        self.port = 0

    async def order(self, op: str, **details: object) -> dict:
        """Send one order and wait for its answer; several tasks may do so."""
        async with self._turn, asyncio.timeout(ANSWER_S):
            self._process.stdin.write(json.dumps({"op": op, **details}).encode() + b"\n")
            line = await self._process.stdout.readline()
        assert line, "the device has ended; is Debian's libmodbus5 installed, or jsmodbus beside it?"
        answer = json.loads(line)
        assert "error" not in answer, answer
        return answer

    async def listen(self) -> None:
        """Take connections, again on the same port after `away`."""
        self.port = (await self.order("listen"))["port"]

    async def put(self, at: int, *words: int, table: str = "holding") -> None:
        """Set registers or bits."""
        await self.order("set", at=at, words=list(words), table=table)

    async def put_bytes(self, at: int, data: bytes) -> None:
        """Set registers from their big-endian bytes."""
        await self.put(at, *struct.unpack(f">{len(data) // 2}H", data))

    async def words(self, at: int, count: int = 1, table: str = "holding") -> list[int]:
        """Registers or bits as they are."""
        return (await self.order("get", at=at, count=count, table=table))["words"]

    async def bytes(self, at: int, count: int) -> bytes:
        """Registers as their big-endian bytes."""
        return struct.pack(f">{count}H", *await self.words(at, count))

    async def until(self, at: int, *words: int, table: str = "holding") -> None:
        """Wait until registers or bits hold these words, bounded."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while await self.words(at, len(words), table) != list(words):  # noqa: ASYNC110 - a device has no events
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"{table} from {at}: {await self.words(at, len(words), table)}, not {words}") from None


@asynccontextmanager
async def modbus_device(command: tuple[str, ...] = LIBMODBUS) -> AsyncIterator[Device]:
    """A device that listens, all registers zero."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        device = Device(process)
        await device.listen()
        yield device
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(ANSWER_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def crc(data: bytes) -> bytes:
    """The checksum at the end of an RTU frame (Modbus over serial line V1.02, 6.2.2)."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


@asynccontextmanager
async def malformed_device(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """A server whose every answer is made by `answer` from the whole request frame; None stays silent, empty bytes close. Yields its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while True:
                head = await reader.readexactly(6)
                frame = head + await reader.readexactly(int.from_bytes(head[4:6], "big"))
                reply = answer(frame)
                if reply == b"":
                    break
                if reply is not None:
                    writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()
