"""The composition root: builds every part of one process and runs them under one TaskGroup."""

import asyncio
import logging
import math
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.anchoring import Couriers
from bridge.assembly import anchor_couriers, discipline_source
from bridge.clock import Clock, SystemClock
from bridge.config import Config, SiteConfig
from bridge.discipline import ClockWatch, DisciplineSource, Limits
from bridge.doors import listen_to_operators, listen_to_smp
from bridge.errors import ConfigError, JournalFull, JournalUnusable, Problem
from bridge.expiry import Ending, ExpiryWatch, host_endings, site_endings
from bridge.field.recollection import HOST
from bridge.field.supervisor import Supervisor
from bridge.fieldside import build_field
from bridge.ids import submission_ids
from bridge.journal.configured import open_configured_journal
from bridge.journal.held import RENEW_S
from bridge.journal.keeper import Keeper, KeeperSettings, KeptJournal, start_keeper
from bridge.journal.people import Decision, Scope
from bridge.journal.port import Journal
from bridge.journal.sealer import untold
from bridge.lane import FastLane
from bridge.market.endpoint import ReturnsEndpoint
from bridge.market.lanes import Lanes
from bridge.marketside import Market, build_market
from bridge.material import host_signer
from bridge.measured import Measured
from bridge.metrics import Metrics
from bridge.reports import ClockReport, FieldReport, MarketReport
from bridge.shared import Shared
from bridge.web.admin import Health
from bridge.web.connections import Contact, EmsLink, SmpLink

if TYPE_CHECKING:
    from bridge.traced import Traced

log = logging.getLogger(__name__)

DRAIN_S: Final = 15.0


class Role(Enum):
    """Which half of the host this process is."""

    ALL = "all"
    FIELD = "field"
    MARKET = "market"


@dataclass(slots=True)
class Running:
    """What a running host tells those who started it: the ports it really has, and when it is ready (`on_ready` is called in that moment)."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    admin_port: int = 0
    returns_port: int = 0
    on_ready: Callable[[], None] = lambda: None
    reload: Callable[[], None] = lambda: (
        None
    )  # reads the returns listener's certificate and key anew; raises `BridgeError`


class Host:
    """One process of the bridge."""

    def __init__(
        self,
        config: Config,
        *,
        role: Role = Role.ALL,
        sites: Iterable[str] = (),
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        discipline: DisciplineSource | None = None,
        sockets: Mapping[str, socket.socket] | None = None,
    ) -> None:
        """`discipline` is asked about the machine's clock instead of the source that the configuration names. `sockets` listen already, by listener's name."""
        self._config = config
        self._role = role
        self._sites = _chosen(config, sites)
        self._clock = clock or SystemClock.here()
        self._metrics = metrics or Metrics()
        measured = Measured(config, self._metrics, self._clock)
        self._shared = Shared(
            config=config,
            clock=self._clock,
            metrics=self._metrics,
            measured=measured,
            field_report=FieldReport(self._metrics, self._clock, measured.book, measured.intervals),
            market_report=MarketReport(self._metrics, measured.book),
            look_at_ends=self._look_at_ends,
            clock_state=self._clock_state,
        )
        self._market: dict[str, Market] = {}
        self._endpoint: ReturnsEndpoint | None = None
        self._keeper: Keeper | None = None
        self._couriers: Couriers | None = None
        self._discipline = discipline
        self._sockets = sockets or {}
        self._watch: ClockWatch | None = None
        self._expiry: ExpiryWatch | None = None
        self._traced: Traced | None = None

    async def run(self, running: Running) -> None:
        """Start, say so in `running.ready`, and work until `running.stop` is set; then drain and close.

        Raises `LeaseHeld`, `JournalUnusable` or `ConfigError` when it must not start, and an `ExceptionGroup` when the journal fails underneath.
        """
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(self._look_ups, thread_name_prefix="look-up")
        )
        async with AsyncExitStack() as stack:
            self._traced = await self._trace(stack)
            journal = await open_configured_journal(
                self._config.host.journal,
                clock=self._clock,
                role=self._role.value,
                new_id=submission_ids(self._clock),
                checkpoint=self._role is not Role.FIELD,
                stand_by=True,
            )
            stack.push_async_callback(journal.close)
            stack.push_async_callback(self._give_back, journal)
            if self._role is not Role.FIELD:
                await self._hold_unless_safe(journal)
                self._couriers = anchor_couriers(self._config, journal, clock=self._clock, hold=partial(_hold, journal))
                await self._couriers.look()
            self._watch = await self._watch_the_clock(journal)
            lanes = await self._build_market(journal, stack) if self._role is not Role.FIELD else None
            supervisors = await self._build_field(journal, lanes) if self._role is not Role.MARKET else []
            if self._role is not Role.FIELD:
                self._keeper = await self._build_keeper(journal)
            await self._listen(journal, stack, running)
            await self._work(journal, supervisors, running)

    @property
    def _look_ups(self) -> int:
        """Threads for those who ask for an address: a name service that is silent for some must not keep the others waiting."""
        return 8 + 2 * (len(self._config.participants) + sum(len(site.adapters) for site in self._sites))

    async def _work(self, journal: Journal, supervisors: list[Supervisor], running: Running) -> None:
        """Sinks first, then sources; at the stop sources end first, calls under way are finished, then the rest ends."""
        async with asyncio.TaskGroup() as group:
            sinks = [group.create_task(self._renew(journal))]
            if self._watch is not None:
                sinks.append(group.create_task(self._watch.run()))
            if self._traced is not None:
                sinks.append(group.create_task(self._traced.run()))
            self._expiry = self._watch_ends(journal, supervisors)
            sinks.append(group.create_task(self._expiry.run()))
            for market in self._market.values():
                sinks += [group.create_task(task) for task in market.tasks()]
            if self._keeper is not None:
                sinks.append(group.create_task(self._keeper.run()))
            if self._couriers is not None:
                sinks.append(group.create_task(self._couriers.run()))
            sources = [group.create_task(supervisor.run()) for supervisor in supervisors]
            running.on_ready()
            running.ready.set()
            log.info("ready", extra={"role": self._role.value, "sites": [site.name for site in self._sites]})
            await running.stop.wait()
            log.info("stopping")
            for task in sources:
                task.cancel()
            await asyncio.gather(*sources, return_exceptions=True)
            await asyncio.gather(*(market.outbound.drain(DRAIN_S) for market in self._market.values()))
            for task in sinks:
                task.cancel()
        if self._keeper is not None:
            await self._keeper.finish()
        if self._couriers is not None:
            await self._couriers.finish()

    async def _trace(self, stack: AsyncExitStack) -> "Traced | None":
        """Traces, where the configuration wants them. They are left last, so that nobody waits for their last try."""
        options = self._config.host.tracing
        if options is None:
            return None
        from bridge.traced import Traced  # noqa: PLC0415 - nothing of it is loaded where it is off

        traced = Traced(options, role=self._role.value, metrics=self._metrics, clock=self._clock)
        self._shared.field_traces = self._shared.market_traces = traced
        return await stack.enter_async_context(traced)

    async def _watch_the_clock(self, journal: Journal) -> ClockWatch:
        """Look once, so that nothing is signed by a clock that is known to be wrong. The alarms are those of the process that signs."""
        options = self._config.host.clock
        watch = ClockWatch(
            self._discipline or discipline_source(options),
            limits=Limits(alarm_s=options.alarm_at, hold_s=options.hold_at),
            every_s=options.every,
            gate=self._shared.gate,
            seen=ClockReport(self._metrics),
            journal=None if self._role is Role.FIELD else journal,
        )
        await watch.look()
        return watch

    def _clock_state(self) -> Mapping[str, object]:
        return self._watch.signed_by() if self._watch is not None else {}

    async def _build_keeper(self, journal: KeptJournal) -> Keeper:
        options = self._config.host.journal
        settings = KeeperSettings(
            anchor=options.anchor_file,
            archive=options.archive_directory,
            max_bytes=options.max_size or 0,
            archive_after_s=options.archive_after,
            retention_s=options.retention or 0.0,
            seal_every_s=options.seal_every,
            signer=host_signer(self._config),
            told=self._couriers.news if self._couriers is not None else untold,
            wrong_clock=lambda: self._shared.gate.held,
        )
        keeper = await start_keeper(settings, journal, clock=self._clock)
        self._shared.fences.append(keeper.fence)
        return keeper

    async def _hold_unless_safe(self, journal: KeptJournal) -> None:
        """A journal that is not the one its anchor speaks of may not know what was sent: nothing leaves until a person reconciled it."""
        finding = await journal.evidence().compare(self._config.host.journal.anchor_file)
        if finding.verdict.safe:
            return
        await _hold(journal, finding.text)

    async def _renew(self, journal: Journal) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(JournalFull):  # it goes on by itself once there is room
                await journal.renew(self._shared.fences)

    async def _give_back(self, journal: Journal) -> None:
        if self._shared.fences:
            with suppress(JournalFull, JournalUnusable):  # what ended the host is told, not that it cannot be written
                await journal.release(self._shared.fences)

    # field -----------------------------------------------------------------------------------------------------------

    # the two sides --------------------------------------------------------------------------------------------------

    async def _build_field(self, journal: Journal, lanes: FastLane | None) -> list[Supervisor]:
        return await build_field(self._shared, self._sites, journal, lanes)

    async def _build_market(self, journal: KeptJournal, stack: AsyncExitStack) -> Lanes:
        lanes = Lanes()
        for entry in self._config.participants.values():
            market = await build_market(self._shared, entry, journal, stack, keys_changed=self._keys_changed)
            self._market[entry.name] = market
            lanes.add(entry.name, market.outbound)
        return lanes

    async def _keys_changed(self, participant: str) -> None:
        if self._endpoint is not None:
            await self._endpoint.look_again(participant)

    def _look_at_ends(self) -> None:
        if self._expiry is not None:
            self._expiry.again.set()

    def _watch_ends(self, journal: Journal, supervisors: Sequence[Supervisor]) -> ExpiryWatch:
        """What looks after the ends of certificates and keys that this process works with."""
        rings = {name: market.ring for name, market in self._market.items()}
        market, field = self._role is not Role.FIELD, self._role is not Role.MARKET

        def endings() -> list[Ending]:
            mine = [one for site in self._sites for one in site_endings(site)] if field else []
            mine += [
                Ending("", site, f"adapters.{name}", "shown by the EMS", supervisor.certificate_ends_ns)
                for supervisor in supervisors
                for site, name in [supervisor.link]
                if supervisor.certificate_ends_ns
            ]
            return [*mine, *(host_endings(self._config, rings) if market else ())]

        return ExpiryWatch(
            endings, journal=journal, metrics=self._metrics, clock=self._clock, market=market, field=field
        )

    # listeners -------------------------------------------------------------------------------------------------------

    async def _listen(self, journal: Journal, stack: AsyncExitStack, running: Running) -> None:
        listeners = self._config.host.listeners
        if "returns" in self._sockets and (listeners.returns is None or not self._market):
            raise ConfigError(
                [Problem(text="a socket was passed for returns, but this process has no returns listener")]
            )
        if listeners.returns is not None and self._market:
            endpoint = self._endpoint = ReturnsEndpoint(
                [market.inbox for market in self._market.values()],
                journal=journal,
                clock=self._clock,
                metrics=self._shared.market_report,
                client_names=frozenset(listeners.returns.client_names),
            )
            passed = self._sockets.get("returns")
            running.returns_port, running.reload = await listen_to_smp(
                self._shared, endpoint, listeners.returns, stack, passed
            )
        if listeners.admin is not None:
            running.admin_port, running.reload = await listen_to_operators(
                self._shared,
                listeners.admin,
                journal,
                stack,
                self._sockets.get("admin"),
                health=lambda: self._health(journal, running),
                gauges=lambda: self._gauges(journal),
                reload=running.reload,
            )

    def _health(self, journal: Journal, running: Running) -> Health:
        working = running.ready.is_set() and not running.stop.is_set()
        reasons = {"starting or stopping": not working, "the journal is full": journal.full}
        told = tuple(reason for reason, holds in reasons.items() if holds)
        clock = self._watch.told() if self._watch is not None else {}
        report = self._shared.field_report
        ages_s = report.ages_s()
        ems = [
            EmsLink(site=site, adapter=name, contact=Contact.of(reach), age_s=ages_s.get(f"{site}/{name}"))
            for (site, name), reach in sorted(report.reaches.items())
        ]
        smp = [
            SmpLink(participant=name, contact=Contact.of(market.reach), paused=market.paused())
            for name, market in sorted(self._market.items())
        ]
        return Health(ready=not told, links=ages_s, reasons=told, clock=clock, ems=ems, smp=smp)

    async def _gauges(self, journal: Journal) -> None:
        for what, count in (await journal.counts()).items():
            self._metrics.journal.labels(what).set(count)
        self._metrics.journal.labels("full").set(journal.full)
        standing = await journal.alarm_counts()
        self._metrics.alarms.clear()
        for alarm in standing:
            state = "acked" if alarm.acked else "open"
            self._metrics.alarms.labels(alarm.code, alarm.participant, alarm.site, alarm.environment, state).set(
                alarm.number
            )
        for courier in self._couriers or ():
            age_s = courier.age_s
            self._metrics.anchor_age.labels(courier.name).set(math.nan if age_s is None else age_s)
            self._metrics.anchor_waiting.labels(courier.name).set(courier.waiting_s)
        for participant, market in self._market.items():
            self._metrics.in_flight.labels(participant).set(market.outbound.in_flight)
        await self._shared.measured.show()


async def _hold(journal: KeptJournal, text: str) -> None:
    """Send nothing until a person reconciled this journal."""
    reason = f"{text}; run `smp-bridge journal reconcile`"
    await journal.hold(Scope.JOURNAL, "", Decision(by=HOST, reason=reason))
    log.error("host_held", extra={"reason": reason})


def _chosen(config: Config, names: Iterable[str]) -> list[SiteConfig]:
    wanted = list(names)
    missing = [name for name in wanted if name not in config.sites]
    if missing:
        raise ConfigError(
            [Problem(text=f"there is no site {name}; known are {', '.join(config.sites)}") for name in missing]
        )
    return [site for name, site in config.sites.items() if not wanted or name in wanted]
