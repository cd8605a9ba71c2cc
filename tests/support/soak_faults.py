"""What happens to a bridge in the soak: links that break, an SMP that is slow or fails, and death, all at random from one seed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from urllib.parse import urlsplit

from kill_points import POINTS
from kill_rounds import EARLY, LATE, PROMPT, TWICE
from kill_world import World

from bridge.testing.proxy import FaultProxy, Way

RETRY = {"headers": {"Retry-After": "1"}}
# What SMP does to the next call: nothing done and said so, or done and not said.
CALLS = (
    {"operation": "asset.create", "status": 503, **RETRY},
    {"operation": "asset.create", "status": 429, **RETRY},
    {"operation": "asset.create", "process": True, "drop": True},
    {"operation": "asset.create", "process": True, "status": 500, "body": "<html>"},
    {"operation": "asset.create", "process": True, "status": 202, "body": "not JSON"},
    {"operation": "asset.create", "status": 500},
    {"operation": "transaction.status", "status": 500},
    {"operation": "transaction.status", "drop": True},
    {"operation": "authenticate", "status": 503, **RETRY},
)
SLOW = {**PROMPT, "answer_delay_s": 2.0, "return_delay_s": 3.0}
STYLES = (PROMPT, LATE, TWICE, EARLY, SLOW)
LIFE_S = (2.0, 12.0)  # how long a bridge lives before it is killed


@asynccontextmanager
async def links(world: World, seed: int) -> AsyncIterator[dict[str, FaultProxy]]:
    """A proxy in each link: to the three EMSs, to SMP, and from SMP back."""
    env = world.environment
    places = {
        "ipswich": urlsplit(env["SMP_BRIDGE_IPSWICH_URL"]).port, "rugby": int(env["SMP_BRIDGE_RUGBY_PORT"]),
        "crawley": int(env["SMP_BRIDGE_CRAWLEY_PORT"]), "smp": urlsplit(env["SMP_BRIDGE_SMP_URL"]).port, "returns": 1,
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        made = {
            name: await stack.enter_async_context(FaultProxy("127.0.0.1", port, seed=seed))
            for name, port in places.items()
        }
        env |= {
            "SMP_BRIDGE_IPSWICH_URL": f"opc.tcp://127.0.0.1:{made['ipswich'].port}", "SMP_BRIDGE_RUGBY_PORT": str(made["rugby"].port),
            "SMP_BRIDGE_CRAWLEY_PORT": str(made["crawley"].port), "SMP_BRIDGE_SMP_URL": f"https://127.0.0.1:{made['smp'].port}",
        }  # fmt: skip
        world.returns_proxy = made["returns"]
        yield made


class Bell:
    """Tells everything that goes on at random when to end. It ends by itself and is not cancelled: an order to a helper is never cut in two."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    @property
    def rung(self) -> bool:
        return self._rung.is_set()

    def ring(self) -> None:
        self._rung.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, or less when it is time to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()


class Troubles:
    """One trouble after the other; `done` counts them by name."""

    def __init__(self, world: World, proxies: dict[str, FaultProxy], random: Random) -> None:
        self._bell = Bell()
        self._world = world
        self._proxies = proxies
        self._random = random
        self.done: Counter[str] = Counter()

    async def run(self, bell: Bell) -> None:
        self._bell = bell
        kinds: tuple[Callable[[], Awaitable[str]], ...] = (
            self._cut, self._refuse, self._blackhole, self._crawl, self._delay, self._trap, self._turn_smp, self._fail_calls,
            self._expire,
        )  # fmt: skip
        while not bell.rung:
            await bell.pause(self._random.uniform(0.2, 3.0))
            self.done[await self._random.choice(kinds)()] += 1

    async def clear(self) -> None:
        """Everything well again."""
        for proxy in self._proxies.values():
            proxy.clear()
            await proxy.listen()
        await self._world.smp.turn(**PROMPT, faults=[])

    def _one(self) -> tuple[str, FaultProxy]:
        return self._random.choice(list(self._proxies.items()))

    async def _for_a_while(self, proxy: FaultProxy, most_s: float) -> None:
        await self._bell.pause(self._random.uniform(0.1, most_s))
        proxy.clear()
        await proxy.listen()

    async def _cut(self) -> str:
        name, proxy = self._one()
        await proxy.cut()
        return f"{name} cut"

    async def _refuse(self) -> str:
        name, proxy = self._one()
        await proxy.refuse()
        await proxy.cut()
        await self._for_a_while(proxy, 4)
        return f"{name} refused"

    async def _blackhole(self) -> str:
        name, proxy = self._one()
        proxy.set(blackhole=True)
        await self._for_a_while(proxy, 8)
        return f"{name} silent"

    async def _crawl(self) -> str:
        name, proxy = self._one()
        proxy.set(rate_bytes_per_s=2000)
        await self._for_a_while(proxy, 4)
        return f"{name} slow"

    async def _delay(self) -> str:
        name, proxy = self._one()
        proxy.set(delay_s=0.3)
        await self._for_a_while(proxy, 4)
        return f"{name} late"

    async def _trap(self) -> str:
        name, proxy = self._one()
        proxy.trap(self._random.choice(list(Way)), after=self._random.randrange(2000))
        return f"{name} cut in the middle"

    async def _turn_smp(self) -> str:
        await self._world.smp.turn(**self._random.choice(STYLES))
        return "smp in another mood"

    async def _fail_calls(self) -> str:
        await self._world.smp.turn(faults=self._random.choices(CALLS, k=2))
        return "smp fails calls"

    async def _expire(self) -> str:
        await self._world.smp.expire_tokens()
        return "tokens expired"


class Deaths:
    """The bridge lives a while, is killed at a random instant or at a named moment, and is started again."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self.count = 0

    async def run(self, bell: Bell) -> None:
        while not bell.rung:
            point = self._random.choice(POINTS) if self._random.random() < 0.5 else None
            starting = point is not None and point.starting
            bridge = await self._world.run(point.name if point else "", armed=starting)
            if not starting:
                await bell.pause(self._random.uniform(*LIFE_S))
            if point is not None:
                bridge.arm()
                await bridge.died_at_its_moment(LIFE_S[1])  # a moment that does not come ends in a plain kill
            else:
                await bridge.kill()
            self.count += 1
