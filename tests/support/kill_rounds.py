"""Rounds in which the bridge is killed and started again on the same journal, and what has to be true of every record at their end."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from random import Random

from fault_table import Row
from kill_points import POINTS, Point
from kill_world import POLL_S, SITES, Bridge, Ledger, World

RANDOM = Point(name="", between="at a random instant")
ROUNDS = 20  # of one world; every named moment and some random ones
MOMENT_S = 45.0  # how long a moment may take to come
TRIES = 20
SETTLED_S = 90.0
HANGS_S = 300.0  # an answer that does not come while the round lasts
RANDOM_S = 0.6
PROFILE: Mapping[str, object] = {"transport": {"answer_s": 600}}
SURE = {"retry_delay_s": 0.2, "retries": 1000}  # SMP tries long enough to find each successor's end point
PROMPT = {"answer_delay_s": 0.0, "return_delay_s": 0.02, "returns": "push", "return_early": False, "return_twice": False}  # fmt: skip
LATE = {**PROMPT, "answer_delay_s": 0.15, "return_delay_s": 0.6}
TWICE = {**PROMPT, "return_twice": True}
EARLY = {**PROMPT, "return_early": True}
NEVER = {**PROMPT, "returns": "never", "return_delay_s": 0.0}
PUSHED = (PROMPT, LATE, TWICE, EARLY)


@dataclass
class Round:
    """One kill: which records were requested, whether the moment came, and what the journal held as SENDING when the process was dead."""

    point: Point
    references: list[str] = field(default_factory=list)
    came: bool = False
    on_its_way: Mapping[str, frozenset[str]] = field(default_factory=dict)
    recovery_s: float = 0.0


def plan(random: Random, names: Sequence[str], rounds: int) -> list[Point]:
    """The moments of one world: each named one, the rest at random instants; or only those of `names`, again and again."""
    if names:
        found = {point.name: point for point in (*POINTS, RANDOM)}
        return list(islice(cycle([found[name] for name in names]), rounds))
    points = [*POINTS, *[RANDOM] * (ROUNDS - len(POINTS))]
    random.shuffle(points)
    return points


async def until(world: World, ask: Callable[[Ledger], bool], within_s: float = MOMENT_S) -> None:
    """Wait until SMP's book says so."""
    async with asyncio.timeout(within_s):
        while not ask(await world.smp.ledger()):
            world.bridges[-1].assert_alive()
            await asyncio.sleep(POLL_S)


class Rounds:
    """The rounds of one world."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._down: list[Round] = []  # killed, and no life has gone to work since
        self.rounds: list[Round] = []

    async def one(self, point: Point) -> None:
        """Start, let work go on, leave a send open, ask for more, and die at the moment."""
        made = Round(point)
        self.rounds.append(made)
        if point.starting:
            await self._die_at_start(made)
        else:
            await self._die_at_work(made)
        made.on_its_way = await self._world.on_its_way()
        self._down.append(made)

    async def _work_goes_on(self, bridge: Bridge, site: str) -> str:
        """A record that is asked for as soon as the bridge is there: with its Create at SMP the work goes on, and the kills before are recovered from."""
        await bridge.ready()
        [first] = await self._world.request(site)
        await until(self._world, lambda ledger: ledger.has(first))
        for before in self._down:
            before.recovery_s = (self._world.now_ns() - bridge.born_ns) / 1e9
        self._down = []
        return first

    async def _none_waits(self) -> None:
        """Until every record of the rounds before has reached SMP, or is in doubt without it."""
        before = [reference for one in self.rounds[:-1] for reference in one.references]
        async with asyncio.timeout(MOMENT_S):
            while True:
                ledger, shown = await self._world.smp.ledger(), await self._world.shown()
                if all(ledger.has(one) or shown.get(one, ("", ""))[0] == "in_doubt" for one in before):
                    return
                self._world.bridges[-1].assert_alive()
                await asyncio.sleep(POLL_S)

    async def _die_at_start(self, made: Round) -> None:
        made.references += await self._world.request("ipswich")
        bridge = await self._world.run(made.point.name, armed=True)
        made.came = await bridge.died_at_its_moment(MOMENT_S)

    async def _die_at_work(self, made: Round) -> None:
        world, point = self._world, made.point
        # The first life begins with MQTT, whose requests are kept for the bridge from its first visit on.
        site = SITES[-1 - len(self.rounds) % len(SITES)] if len(self.rounds) > 1 else SITES[-1]
        await world.smp.turn(**PROMPT)
        bridge = await world.run(point.name, nth=self._random.randint(1, point.most))
        made.references.append(await self._work_goes_on(bridge, site))
        opens = self._open_sends(point)
        if opens > 1:  # else what waits since the lives before would take the slots
            await self._none_waits()
        for number in range(opens):
            made.references.append(await self._leave_open(SITES[(number - 1 - len(self.rounds)) % len(SITES)]))
        await world.smp.turn(**self._random.choice(PUSHED if point.pushes else (*PUSHED, NEVER)))
        if point is not RANDOM:
            bridge.arm()
        for where, count in self._random.sample([("ipswich", 2), ("rugby", 1), ("crawley", 2)], 3):
            made.references += await world.request(where, count)
        if point is RANDOM:
            await asyncio.sleep(self._random.uniform(0, RANDOM_S))
            await bridge.kill()
            made.came = True
        else:
            made.came = await self._died(made, bridge)

    async def _died(self, made: Round, bridge: Bridge) -> bool:
        """Wait for the moment; where it depends on how records meet, more of them are asked for."""
        for _ in range(TRIES):
            if bridge.process.returncode is not None or await bridge.over(MOMENT_S / TRIES):
                break
            made.references += await self._world.request("ipswich")
        return await bridge.died_at_its_moment(MOMENT_S / TRIES)

    def _open_sends(self, point: Point) -> int:
        """How many sends hang when the process dies: where no moment has to come, as many as SMP allows every second time; else one, or all but one."""
        most = self._world.concurrency
        if point is not RANDOM:
            return self._random.choice((1, 1, 1, most - 1))
        return most if sum(one.point is RANDOM for one in self.rounds) % 2 else 1

    async def _leave_open(self, site: str) -> str:
        """A send whose answer does not come; its return comes late, twice, early or never."""
        style = self._random.choice((*PUSHED, NEVER))
        await self._world.smp.turn(**{**style, "answer_delay_s": HANGS_S})
        [reference] = await self._world.request(site)
        await until(self._world, lambda ledger: ledger.in_the_air(reference))
        return reference

    async def settle(self) -> "Fates":
        """A last life, until every record has its end or the time is over."""
        world = self._world
        await world.smp.turn(**PROMPT)
        bridge = await world.run()
        self.rounds[-1].references.append(await self._work_goes_on(bridge, "ipswich"))
        fates = Fates(self.rounds)
        try:
            async with asyncio.timeout(SETTLED_S):
                while not fates.judge(await world.smp.ledger(), await world.shown()):
                    bridge.assert_alive()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pass  # what has no end is lost, and the table says so
        await bridge.stop()
        return fates


class Fates:
    """What became of every record, by SMP's own book and what the EMSs show."""

    ACCEPTED, REFUSED, IN_DOUBT, TWICE, LOST = "accepted once", "refused", "in doubt", "twice", "lost"

    def __init__(self, rounds: Iterable[Round], doubtful: Mapping[str, frozenset[str]] | None = None) -> None:
        """`doubtful` are the submissions that may be in doubt, with their keys: those that were SENDING when a process died, unless told otherwise."""
        self._rounds = list(rounds)
        self.doubtful = {id_: keys for one in self._rounds for id_, keys in one.on_its_way.items()}
        if doubtful is not None:
            self.doubtful = dict(doubtful)
        self.of: dict[str, str] = {}
        self.told: dict[str, str] = {}

    def judge(self, ledger: Ledger, shown: Mapping[str, tuple[str, str]]) -> bool:
        """Judge all; True when none is lost."""
        transactions, pushed = ledger.transactions(), ledger.pushed()
        # A call whose return was pushed settles alone; only the others may stay in doubt. (What SMP refused may be asked for and sent again.)
        doubtful = {key for id_, keys in self.doubtful.items() if id_ not in pushed for key in keys}
        for reference in (reference for one in self._rounds for reference in one.references):
            word, transaction = shown.get(reference, ("", ""))
            creates = ledger.creates.get(reference, 0)
            mine = transactions.get(reference, "")
            fate = self.LOST
            if creates > 1:
                fate = self.TWICE
            elif (word, creates, transaction) == ("registered", 1, mine):
                fate = self.ACCEPTED
            elif (word, creates) == ("refused", 0) and ledger.outcomes.get(reference) == "refused":
                fate = self.REFUSED
            elif word == "in_doubt" and reference in doubtful:
                fate = self.IN_DOUBT
            self.of[reference] = fate
            self.told[reference] = f"{reference}: EMS {word or 'nothing'} {transaction}, SMP {creates} {mine}"
        return self.LOST not in self.of.values()

    def row(self, point: Point, concurrency: int) -> Row:
        """The rounds of one moment, counted."""
        rounds = [one for one in self._rounds if one.point is point]
        fates = [self.of.get(reference, self.LOST) for one in rounds for reference in one.references]
        missed = sum(not one.came for one in rounds)
        many = max(len(one.on_its_way) for one in rounds)
        broken = [f"its moment did not come in {missed} rounds"] if missed else []
        broken += [f"{many} submissions SENDING, {concurrency} allowed"] if many > concurrency else []
        return Row(
            fault=f"kill -9, {point.between}",
            rounds=len(rounds),
            requested=len(fates),
            accepted_once=fates.count(self.ACCEPTED),
            refused=fates.count(self.REFUSED),
            in_doubt=fates.count(self.IN_DOUBT),
            sending_at_kill=sum(len(one.on_its_way) for one in rounds),
            lost=fates.count(self.LOST),
            twice=fates.count(self.TWICE),
            recovery_s=max(one.recovery_s for one in rounds),
            broken="; ".join(broken),
        )
