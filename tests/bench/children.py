"""The bench's child processes: orders in as JSON lines, answers out as JSON lines; and what the kernel says of a process."""

import asyncio
import inspect
import json
import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).parent
ANSWER_S = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """One process of the bench that takes orders."""

    def __init__(self, script, **options):
        self._script = script
        self._options = options
        self._turn = asyncio.Lock()

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / self._script), json.dumps(self._options), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )  # fmt: skip
        self.port = (await self._answer())["port"]
        return self

    async def __aexit__(self, *_):
        self.process.stdin.close()
        await ended(self.process)

    async def ask(self, op, **details):
        """Give one order and wait for its answer."""
        async with self._turn:
            self.process.stdin.write(json.dumps({"op": op, **details}).encode() + b"\n")
            return await self._answer()

    async def _answer(self):
        async with asyncio.timeout(ANSWER_S):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._script} has ended")
        return json.loads(line)


async def serve(orders, *, port):
    """The child's side: say the port, then obey the methods of `orders` until standard input ends."""
    print(json.dumps({"port": port}), flush=True)
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        order = json.loads(line)
        answer = getattr(orders, order.pop("op"))(**order)
        if inspect.isawaitable(answer):
            answer = await answer
        print(json.dumps(answer), flush=True)


async def ended(process, within_s=15.0):
    """Wait for a process that was told to end; one that does not is killed."""
    try:
        async with asyncio.timeout(within_s):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


async def stop(process):
    """End a process in good order."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    return await ended(process, 30.0)


def cpu_s(pid):
    """Seconds of processor time that all threads of a process have had, those that ended included; to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def threads_cpu_s(pid):
    """The same to the microsecond, but only of threads that live."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:  # it ended meanwhile
            continue
    return total / 1e9


def resident_mb(pid):
    """Resident memory in MB (10^6 bytes), shared pages included."""
    return _status_mb(pid, "VmRSS:")


def peak_mb(pid):
    """The most that was ever resident since the process began, in MB (10^6 bytes)."""
    return _status_mb(pid, "VmHWM:")


def _status_mb(pid, name):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the kernel says nothing of this process's memory")


def kinds_mb(pid):
    """What a process's memory is, in MB (10^6 bytes): its own, and what it shares with files (code of libraries)."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount, *_ = line.split()
        found[name.rstrip(":")] = int(amount) * 1024 / 1e6
    files = found["Rss"] - found["Anonymous"]
    return {"resident": found["Rss"], "anonymous": found["Anonymous"], "of files": files, "private": found["Private_Clean"] + found["Private_Dirty"]}  # fmt: skip
