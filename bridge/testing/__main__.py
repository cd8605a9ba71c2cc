"""`python -m bridge.testing HOST:PORT [PORT-TO-LISTEN-ON]`: a fault proxy by hand. Its prompt knows the words that `help` lists."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from bridge.testing.proxy import FaultProxy, Way, loopback

HELP: Final = """cut                reset every open connection
refuse             stop listening; listen: take connections again
blackhole          pass nothing and say nothing; clear ends it
half-close WAY     end one direction (up: towards the server, down: towards the client) of every open connection
delay SECONDS      [WAY]  pass every byte this late
rate BYTES         [WAY]  pass at most so many bytes a second
garble SHARE       [WAY]  change this share of the bytes, such as 0.001
trap BYTES         WAY    reset the next connection that passes so many more bytes
clear              no faults of what passes, no traps
show               what passed so far
quit               end
"""


class Prompt:
    """What the words do. A word that cannot be obeyed raises `ValueError` or `KeyError`."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._words: Mapping[str, Callable[..., Awaitable[str]]] = {
            "help": self._help, "cut": self._cut, "refuse": self._refuse, "listen": self._listen, "blackhole": self._blackhole,
            "half-close": self._half_close, "delay": self._delay, "rate": self._rate, "garble": self._garble, "trap": self._trap,
            "clear": self._clear, "show": self._show,
        }  # fmt: skip

    async def obey(self, line: str) -> str:
        """Do what one line says; returns what to show."""
        word, *values = line.split()
        try:
            return await self._words[word](*values)
        except (ValueError, KeyError, TypeError):
            return f"cannot do that: {line.strip()}\n{HELP}"

    async def _help(self) -> str:
        return HELP

    async def _cut(self) -> str:
        return f"{await self._proxy.cut()} connections reset"

    async def _refuse(self) -> str:
        await self._proxy.refuse()
        return "refusing"

    async def _listen(self) -> str:
        await self._proxy.listen()
        return "listening"

    async def _blackhole(self) -> str:
        self._proxy.set(blackhole=True)
        return "silent until clear"

    async def _half_close(self, way: str) -> str:
        self._proxy.half_close(Way(way))
        return "done"

    async def _delay(self, seconds: str, way: str = "") -> str:
        self._proxy.set(_way(way), delay_s=float(seconds))
        return "done"

    async def _rate(self, bytes_per_s: str, way: str = "") -> str:
        self._proxy.set(_way(way), rate_bytes_per_s=float(bytes_per_s))
        return "done"

    async def _garble(self, share: str, way: str = "") -> str:
        self._proxy.set(_way(way), garble=float(share))
        return "done"

    async def _trap(self, after: str, way: str) -> str:
        self._proxy.trap(Way(way), after=int(after))
        return "set"

    async def _clear(self) -> str:
        self._proxy.clear()
        return "all well"

    async def _show(self) -> str:
        proxy = self._proxy
        passed = ", ".join(f"{way.value} {proxy.passed(way)} bytes" for way in Way)
        return f"accepted {proxy.accepted}, open {proxy.open}, cut {proxy.cuts}; passed {passed}"


def _way(text: str) -> Way | None:
    return Way(text) if text else None


async def _main(target: str, port: int) -> None:
    host, _, upstream = target.rpartition(":")
    async with FaultProxy(host.strip("[]"), int(upstream), listener=lambda again: loopback(again or port)) as proxy:
        sys.stdout.write(f"{proxy.host}:{proxy.port} leads to {target}; help lists the words\n")
        sys.stdout.flush()
        prompt = Prompt(proxy)
        while (line := await asyncio.to_thread(sys.stdin.readline)) and line.strip() != "quit":
            if line.strip():
                sys.stdout.write(await prompt.obey(line) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3} or ":" not in sys.argv[1] or not sys.argv[-1].rpartition(":")[2].isdigit():
        sys.exit(f"{__doc__}")
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 0))
