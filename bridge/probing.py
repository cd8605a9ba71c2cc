"""One look at every adapter of a configuration, all at the same time, and what each flow would make of what it sees. Writes nothing and knows no journal."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from bridge.api import Adapter, Beside, LinkError, LinkRefused, Look, Quality, Reading, Record, SessionContext, Trouble
from bridge.assembly import flow_plan
from bridge.clock import Clock
from bridge.config import Config, SiteConfig
from bridge.config.kinds import clean
from bridge.errors import BridgeError
from bridge.flow import TOO_LARGE, FlowPlan
from bridge.identifiers import Severity
from bridge.model import HostReason

AHEAD_S: Final = 5.0  # a source's time may lie so far before ours: clocks differ, and a reading takes time
GRACE_S: Final = 2.0  # for closing a link whose time is up
AGAIN_S: Final = 5.0  # before a link that was lost or never came is tried once more
_SILENCED: Final = ("adapters",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One adapter of one site, with the flows that use it."""

    site: str
    name: str
    adapter: Adapter
    context: SessionContext
    plans: Mapping[str, FlowPlan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What one look at one adapter showed. `took_s` includes connecting. `keys` are the mapped keys by flow and place, '' where there is none."""

    target: Target
    at_ns: int
    took_s: float
    said: str = ""
    records: Sequence[Record] = ()
    beside: Sequence[Beside] = ()
    troubles: Sequence[Trouble] = ()
    marks: Mapping[tuple[str, str], str] = field(default_factory=dict)
    keys: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def grave(self) -> int:
        """How many problems there are."""
        return sum(trouble.grave for trouble in self.troubles)


def targets_of(config: Config, clock: Clock, *, site: str = "", adapter: str = "", client_id: str) -> list[Target]:
    """Every adapter that is asked for, '' for all. Raises `BridgeError` for a name that nobody has."""
    if site and site not in config.sites:
        raise BridgeError(f"there is no site {site}", hint=f"the sites are {', '.join(sorted(config.sites))}")
    sites = [config.sites[site]] if site else list(config.sites.values())
    names = sorted({name for item in sites for name in item.adapters})
    if adapter and adapter not in names:
        raise BridgeError(f"there is no adapter {adapter}", hint=f"the adapters are {', '.join(names)}")
    return [
        _target(config, item, name, clock, client_id)
        for item in sites
        for name in item.adapters
        if adapter in {"", name}
    ]


def _target(config: Config, site: SiteConfig, name: str, clock: Clock, client_id: str) -> Target:
    item = site.adapters[name]
    plans = {flow.name: flow_plan(config, site, flow.name) for flow in site.flows.values() if flow.adapter == name}
    context = SessionContext(
        site=site.name,
        adapter=name,
        options=item.options,
        selections=[plan.selection() for plan in plans.values()],
        clock=clock,
        heard=lambda: None,
        client_id=client_id,
        word=site.alarms.word if site.alarms.adapter == name else None,
    )
    return Target(site=site.name, name=name, adapter=item.adapter, context=context, plans=plans)


async def probe(targets: Sequence[Target], *, wait_s: float, deadline_s: float) -> list[Probed]:
    """Look at all of them at the same time; none waits for another, and none takes longer than its deadline."""
    looking = [_Looking(target, wait_s, deadline_s) for target in targets]
    return list(await asyncio.gather(*(each.once() for each in looking)))


async def watch(targets: Sequence[Target], tell: Callable[[Probed], None], *, wait_s: float, deadline_s: float) -> None:
    """Look again and again until cancelled, at each adapter at its own pace, and tell of every look. A lost link is opened anew."""
    async with asyncio.TaskGroup() as group:
        for target in targets:
            group.create_task(_Looking(target, wait_s, deadline_s).for_ever(tell))


class _Looking:
    """Looks at one adapter, each within its deadline: a library that swallows a cancellation is left behind."""

    def __init__(self, target: Target, wait_s: float, deadline_s: float) -> None:
        self._target = target
        self._wait_s = wait_s
        self._deadline_s = deadline_s
        self._began_ns = 0

    async def once(self) -> Probed:
        """One look."""
        found: list[Probed] = []
        failure = await self._guarded(found.append, once=True)
        return found[0] if found else self._failed(failure)

    async def for_ever(self, tell: Callable[[Probed], None]) -> None:
        """Look until cancelled."""
        while True:
            tell(self._failed(await self._guarded(tell, once=False)))
            await asyncio.sleep(AGAIN_S)

    async def _guarded(self, tell: Callable[[Probed], None], *, once: bool) -> BridgeError:
        """Looks over one connection; returns why there is no further one."""
        clock = self._target.context.clock
        self._began_ns = clock.mono_ns()
        task = asyncio.get_running_loop().create_task(self._looks(tell, once=once))
        try:
            while not task.done():
                left_s = self._deadline_s - (clock.mono_ns() - self._began_ns) / 1e9
                if left_s <= 0:
                    break
                await asyncio.wait({task}, timeout=left_s)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=GRACE_S)
        if task.done() and not task.cancelled():
            return _reason(task.exception())
        return LinkError(f"no answer within {self._deadline_s:g} s", hint="is the EMS there, and the way to it open?")

    async def _looks(self, tell: Callable[[Probed], None], *, once: bool) -> None:
        clock, adapter = self._target.context.clock, self._target.adapter
        if adapter.probe is None:
            raise BridgeError(f"the adapter for {adapter.protocol} cannot be probed")
        async with adapter.probe(self._target.context) as opened:
            while True:
                look = await opened.look(self._wait_s)
                tell(_judged(self._target, look, self._began_ns))
                if once:
                    return
                if adapter.readable:  # the others wait for what comes while they look
                    await asyncio.sleep(self._wait_s)
                self._began_ns = clock.mono_ns()

    def _failed(self, error: BridgeError) -> Probed:
        clock = self._target.context.clock
        return Probed(
            target=self._target,
            at_ns=clock.wall_ns(),
            took_s=(clock.mono_ns() - self._began_ns) / 1e9,
            said="refused" if isinstance(error, LinkRefused) else "not reached",
            troubles=[Trouble(text=str(error), hint=error.hint)],
        )


def _reason(error: BaseException | None) -> BridgeError:
    """Why looking ended; a defect of one adapter must not hide what the others see."""
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    if error is None or isinstance(error, BridgeError):
        return error or BridgeError("it ended by itself")
    text = f"unexpected {type(error).__name__}: {error}"[:500]
    return BridgeError(text, hint="this is a defect of the adapter")


def _judged(target: Target, look: Look, started: int) -> Probed:
    clock = target.context.clock
    now_ns = clock.wall_ns()
    troubles = list(look.troubles)
    keys: dict[tuple[str, str], str] = {}
    for record in look.records:
        plan = target.plans[record.flow]
        troubles += _unfit(record)
        troubles += _refused(plan, record)
        troubles += _ahead(record, now_ns)
        keys[record.flow, record.place] = plan.mapper.key_of(record.fields) or ""
    troubles += [
        Trouble(text=_quality(item.reading), flow=item.flow, place=item.place, name=item.name)
        for item in look.beside
        if item.reading.quality is not Quality.GOOD and not item.reading.absent
    ]
    troubles += _twice(keys)
    troubles += _nothing(target, look)
    return Probed(
        target=target,
        at_ns=now_ns,
        took_s=(clock.mono_ns() - started) / 1e9,
        said=look.said,
        records=look.records,
        beside=look.beside,
        troubles=troubles,
        marks=look.marks,
        keys=keys,
    )


def _unfit(record: Record) -> Iterator[Trouble]:
    """Values whose quality forbids their use, whether the payload needs them or not."""
    for name, reading in record.fields.items():
        if reading.quality is not Quality.GOOD and not reading.absent:
            yield Trouble(text=_quality(reading), flow=record.flow, place=record.place, name=name)


def _quality(reading: Reading) -> str:
    return f"quality {reading.quality.value}" + (f": {clean(reading.detail, 200)}" if reading.detail else "")


def _refused(plan: FlowPlan, record: Record) -> Iterator[Trouble]:
    """What mapping and rules would say of this record."""
    flow, place = record.flow, record.place
    mapped = plan.mapper.map(record)
    for refusal in mapped.refusals:
        if refusal.reason is not HostReason.BAD_QUALITY:  # the reading itself was told of
            yield Trouble(text=f"would be refused: {refusal.text}", flow=flow, place=place)
    if mapped.refusals:
        return
    for finding in plan.validator.check(mapped.item):
        if finding.severity is Severity.ERROR:
            yield Trouble(text=f"would be refused: {finding.refusal.text}", flow=flow, place=place)
        else:
            yield Trouble(text=f"unusual: {finding.refusal.text}", flow=flow, place=place, grave=False)
    if plan.render(mapped.item) is None:
        yield Trouble(text=f"would be refused: {TOO_LARGE.text}", flow=flow, place=place)


def _ahead(record: Record, now_ns: int) -> Iterator[Trouble]:
    """The source's clock, told once for a record."""
    times = [reading.source_ns for reading in record.fields.values() if reading.source_ns is not None]
    ahead_s = (max(times) - now_ns) / 1e9 if times else 0.0
    if ahead_s > AHEAD_S:
        text = f"its source's time lies {ahead_s:.0f} s ahead of this machine's: one of the two clocks, or a time zone, is wrong"
        yield Trouble(text=text, flow=record.flow, place=record.place, grave=False)


def _twice(keys: Mapping[tuple[str, str], str]) -> Iterator[Trouble]:
    """One key in two places of a flow: the second would be refused."""
    first: dict[tuple[str, str], str] = {}
    for (flow, place), key in keys.items():
        other = first.setdefault((flow, key), place)
        if key and other != place:
            yield Trouble(text=f"has the key {clean(key)}, which {clean(other)} has too", flow=flow, place=place)


def _nothing(target: Target, look: Look) -> Iterator[Trouble]:
    """A flow that shows nothing, and of which nothing else is said: it is seldom meant so."""
    said = {record.flow for record in look.records} | {trouble.flow for trouble in look.troubles if trouble.grave}
    for flow in target.plans:
        if not {flow, ""} & said:
            text = "there is no record here" if target.adapter.readable else "no record was heard"
            yield Trouble(text=text, flow=flow)


@contextmanager
def quiet() -> Iterator[None]:
    """What adapters would log is told here as troubles."""
    loggers = [logging.getLogger(name) for name in _SILENCED]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
