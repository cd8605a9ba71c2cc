"""What happens to a bridge in the soak, all at random from one seed: links that break, an SMP that is slow or fails, peers that are restarted, a disk, a clock
and a resolver that fail it, freezing, and death."""

import asyncio
import signal
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from urllib.parse import urlsplit

from kill_points import POINTS
from kill_rounds import EARLY, LATE, PROMPT, TWICE
from kill_world import Bridge, World
from modbus_answers import a_byte_missing, another_unit, one_register_less
from sick_child import NAME, SICK

from bridge.clock import SystemClock, iso_ms
from bridge.sandbox.pki import Authority
from bridge.sandbox.server import load_pair
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
GARBLED = 0.002  # the share of bytes that are changed
CLOCK_S = 600.0
FREEZE_S = 60.0
DISKS = ("wal-sync", "wal-write", "journal-read")
DISK_EVERY = 4  # each fourth death is by the disk
BUSY = 60  # requests that find the Modbus device busy
LATE_S = 1.3  # later than the bridge waits for a Modbus answer
WITH_TLS = ("crawley", "smp", "returns")


class Sick:
    """What is wrong inside the bridge's process (sick_child.py), told to whichever life there is; `bad_disk_ns` is when its disk was not well last."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._path = world.directory / "sick"
        self._words: dict[str, str] = {}
        self.bad_disk_ns = 0
        world.environment[SICK] = str(self._path)
        self._tell()

    def set(self, word: str, value: str = "") -> None:
        self._words[word] = value
        self._tell()

    def heal(self, word: str) -> None:
        if word.startswith("disk") or word in DISKS:
            self.bad_disk_ns = self._world.now_ns()
        self._words.pop(word, None)
        self._tell()

    def may_have_ended(self, born_ns: int) -> bool:
        """Whether a life that began then has met a disk that was not well."""
        return self.bad_disk_ns > born_ns or any(word == "disk-full" or word in DISKS for word in self._words)

    def _tell(self) -> None:
        whole = self._path.with_suffix(".new")
        whole.write_text(" ".join(f"{word}:{value}" for word, value in self._words.items()))
        whole.rename(self._path)


@asynccontextmanager
async def stranger() -> AsyncIterator[int]:
    """A TLS server whose certificate is of an authority that nobody trusts; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, Authority("stranger", clock=SystemClock.here()).server("stranger", [NAME, "127.0.0.1"]))

    async def taken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(taken, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def links(world: World, seed: int) -> AsyncIterator[dict[str, FaultProxy]]:
    """A proxy in each link: to the three EMSs, to SMP, and from SMP back. All but the OPC UA server are found by a name."""
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
            "SMP_BRIDGE_IPSWICH_URL": f"opc.tcp://127.0.0.1:{made['ipswich'].port}",
            "SMP_BRIDGE_RUGBY_HOST": NAME, "SMP_BRIDGE_RUGBY_PORT": str(made["rugby"].port),
            "SMP_BRIDGE_CRAWLEY_HOST": NAME, "SMP_BRIDGE_CRAWLEY_PORT": str(made["crawley"].port),
            "SMP_BRIDGE_SMP_URL": f"https://{NAME}:{made['smp'].port}",
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

    def __init__(
        self, world: World, proxies: dict[str, FaultProxy], random: Random, sick: Sick, stranger_port: int
    ) -> None:
        self._bell = Bell()
        self._world = world
        self._proxies = proxies
        self._random = random
        self._sick = sick
        self._stranger = ("127.0.0.1", stranger_port)
        self._left: list[Callable[[], Awaitable[str]]] = []
        self.done: Counter[str] = Counter()
        self.told: deque[str] = deque(maxlen=60)  # the last ones, for whoever looks for a fault

    @property
    def _kinds(self) -> tuple[Callable[[], Awaitable[str]], ...]:
        return (
            self._cut, self._refuse, self._blackhole, self._crawl, self._delay, self._trap, self._half_close, self._garble, self._distrust,
            self._lose_names, self._turn_smp, self._fail_calls, self._expire, self._fill_disk, self._set_clock, self._freeze,
            self._renumber, self._restart_broker, self._forgetful_broker, self._busy_device, self._late_device, self._wrong_device,
        )  # fmt: skip

    async def run(self, bell: Bell) -> None:
        """Every kind once in a random order, then all of them again: none is missing in a short soak."""
        self._bell = bell
        while not bell.rung:
            await bell.pause(self._random.uniform(0.2, 3.0))
            if bell.rung:
                return
            if not self._left:
                self._left = self._random.sample(self._kinds, len(self._kinds))
            began = SystemClock.here().now()
            name = await self._left.pop()()
            self.done[name] += 1
            took_s = (SystemClock.here().mono_ns() - began.mono_ns) / 1e9
            self.told.append(f"{iso_ms(began.wall_ns)} {name} ({took_s:.1f} s)")

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

    async def _half_close(self) -> str:
        name, proxy = self._one()
        proxy.half_close(self._random.choice(list(Way)))
        return f"{name} half-closed"

    async def _garble(self) -> str:
        """Bytes change. Not towards Modbus: nothing in it protects what is read and written, so any other record might stand there afterwards."""
        name = self._random.choice([name for name in self._proxies if name != "rugby"])
        self._proxies[name].set(garble=GARBLED)
        await self._for_a_while(self._proxies[name], 4)
        return f"{name} garbled"

    async def _distrust(self) -> str:
        """Another certificate."""
        name = self._random.choice(WITH_TLS)
        proxy = self._proxies[name]
        right, proxy.upstream = proxy.upstream, self._stranger
        await proxy.cut()
        await self._bell.pause(self._random.uniform(0.5, 5))
        if proxy.upstream == self._stranger:  # a life that began meanwhile listens elsewhere
            proxy.upstream = right
        await proxy.cut()
        return f"{name} with another certificate"

    async def _lose_names(self) -> str:
        """No name is found; what is connected is cut, so that it has to look."""
        self._sick.set("no-names")
        for name in ("rugby", "crawley", "smp"):
            await self._proxies[name].cut()
        await self._bell.pause(self._random.uniform(0.5, 6))
        self._sick.heal("no-names")
        return "names not found"

    async def _fill_disk(self) -> str:
        self._sick.set("disk-full")
        await self._bell.pause(self._random.uniform(0.5, 5))
        self._sick.heal("disk-full")
        return "disk full"

    async def _set_clock(self) -> str:
        """Ten minutes at most, either way, and right again."""
        self._sick.set("clock-ahead", f"{self._random.uniform(-CLOCK_S, CLOCK_S):.3f}")
        await self._bell.pause(self._random.uniform(0.5, 8))
        self._sick.heal("clock-ahead")
        return "clock set"

    async def _freeze(self) -> str:
        """Seconds, now and then a minute."""
        process = self._world.bridges[-1].process
        process.send_signal(signal.SIGSTOP)
        await self._bell.pause(min(FREEZE_S, 1.0 + self._random.expovariate(0.1)))
        process.send_signal(signal.SIGCONT)
        return "bridge frozen"

    async def _renumber(self) -> str:
        await self._world.ems.order("renumber")
        return "ipswich restarted, nodes numbered anew"

    async def _restart_broker(self) -> str:
        await self._world.ems.order("broker", forgets=False)
        return "crawley restarted"

    async def _forgetful_broker(self) -> str:
        await self._world.ems.order("broker", forgets=True)
        return "crawley restarted, all forgotten"

    async def _busy_device(self) -> str:
        await self._world.ems.order("busy", times=BUSY)
        await self._bell.pause(self._random.uniform(0.5, 4))
        await self._world.ems.order("busy", times=0)
        return "rugby busy (exception 6)"

    async def _late_device(self) -> str:
        self._proxies["rugby"].set(Way.DOWN, delay_s=LATE_S)
        await self._for_a_while(self._proxies["rugby"], 6)
        return "rugby answers too late"

    async def _wrong_device(self) -> str:
        rewrite = self._random.choice([one_register_less, a_byte_missing, another_unit])
        self._proxies["rugby"].set(Way.DOWN, rewrite=rewrite)
        await self._for_a_while(self._proxies["rugby"], 4)
        return f"rugby answers with {rewrite.__name__.replace('_', ' ')}"

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
    """The bridge lives a while, is killed at a random instant or at a named moment, or ends because its disk failed, and is started again."""

    def __init__(self, world: World, random: Random, sick: Sick) -> None:
        self._world = world
        self._random = random
        self._sick = sick
        self.count = 0
        self.by_disk = 0

    async def run(self, bell: Bell) -> None:
        while not bell.rung:
            if self.count % DISK_EVERY == DISK_EVERY - 1:
                await self._by_disk(bell)
            else:
                await self._by_signal(bell)
            self.count += 1

    async def _by_signal(self, bell: Bell) -> None:
        point = self._random.choice(POINTS) if self._random.random() < 0.5 else None
        starting = point is not None and point.starting
        bridge = await self._world.run(point.name if point else "", armed=starting)
        if not starting:
            await bell.pause(self._random.uniform(*LIFE_S))
        if point is None:
            await self._end(bridge, 0.0)
        else:
            bridge.arm()
            await self._end(bridge, LIFE_S[1])  # a moment that does not come ends in a plain kill

    async def _by_disk(self, bell: Bell) -> None:
        """One way of failing, until the bridge has ended by itself; a disk that it does not use meanwhile ends in a plain kill."""
        bridge = await self._world.run()
        await bell.pause(self._random.uniform(*LIFE_S))
        fault = self._random.choice(DISKS)
        self._sick.set(fault)
        if await self._end(bridge, LIFE_S[1]) == 1:
            self.by_disk += 1
        self._sick.heal(fault)

    async def _end(self, bridge: Bridge, within_s: float) -> int:
        """Wait so long for its end, or kill it. It ends by itself only where its disk was not well, and says so."""
        if not within_s or not await bridge.over(within_s):
            await bridge.kill()
        code = bridge.process.returncode
        well = code == -signal.SIGKILL or (code == 1 and self._sick.may_have_ended(bridge.born_ns))
        assert well, f"the bridge ended with {code}: {bridge.events}"
        return code
