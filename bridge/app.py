"""The composition root: builds every part of one process and runs them under one TaskGroup."""

import asyncio
import logging
import math
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.anchoring import Couriers
from bridge.assembly import (
    Password,
    anchor_couriers,
    call_maker,
    client_settings,
    discipline_source,
    flow_plan,
    identity,
    login,
)
from bridge.attested import facts_of
from bridge.clock import Clock, SystemClock
from bridge.config import AdminListener as AdminOptions
from bridge.config import Config, Participant, SiteConfig
from bridge.discipline import ClockWatch, DisciplineSource, Limits, SigningGate
from bridge.errors import ConfigError, JournalFull, JournalUnusable, Problem
from bridge.expiry import Ending, ExpiryWatch, host_endings, site_endings
from bridge.field.alarmword import AlarmWords
from bridge.field.intake import IntakeDesk
from bridge.field.links import LinkAlarms
from bridge.field.recollection import HOST
from bridge.field.supervisor import Supervisor
from bridge.field.traces import FieldTraces
from bridge.field.writeback import WriteBacks
from bridge.flow import FlowPlan
from bridge.ids import submission_ids
from bridge.journal.accounts import STOPPED
from bridge.journal.configured import open_configured_journal
from bridge.journal.keeper import Keeper, KeeperSettings, KeptJournal, start_keeper
from bridge.journal.keys import KeyRecord
from bridge.journal.people import Decision, Scope
from bridge.journal.port import Fence, Journal
from bridge.journal.sealer import untold
from bridge.keyring import GRACE_S, KeyRing, open_signer
from bridge.lane import FastLane
from bridge.listening import both, is_loopback, renew_certificate, serve, server_context
from bridge.market.client import SmpClient
from bridge.market.endpoint import Inbox, ReturnsEndpoint
from bridge.market.keywatch import KeyWatch
from bridge.market.lanes import Lanes
from bridge.market.outbound import Outbound
from bridge.market.pace import Pace
from bridge.market.returns import ReturnReader
from bridge.market.token import TokenKeeper
from bridge.market.traces import MarketTraces
from bridge.market.tracker import Tracker
from bridge.material import host_signer
from bridge.measured import Measured
from bridge.metrics import Metrics
from bridge.reports import ClockReport, FieldReport, MarketReport
from bridge.web.admin import Access, AdminListener, Health
from bridge.web.public import Bounds, PublicListener
from bridge.web.roles import Territory

if TYPE_CHECKING:
    from bridge.traced import Traced

log = logging.getLogger(__name__)

RENEW_S: Final = 10.0
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


@dataclass(slots=True)
class _Market:
    outbound: Outbound
    tracker: Tracker
    tokens: TokenKeeper
    inbox: Inbox
    keys: KeyWatch
    ring: KeyRing


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
        self._measured = Measured(config, self._metrics, self._clock)
        self._field_report = FieldReport(self._metrics, self._clock, self._measured.book, self._measured.intervals)
        self._market_report = MarketReport(self._metrics, self._measured.book)
        self._random = random.Random()  # noqa: S311 - jitter, not secrets
        self._fences: list[Fence] = []
        self._market: dict[str, _Market] = {}
        self._endpoint: ReturnsEndpoint | None = None
        self._keeper: Keeper | None = None
        self._couriers: Couriers | None = None
        self._gate = SigningGate()
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
                sinks.append(group.create_task(market.tokens.run()))
                sinks.append(group.create_task(market.keys.run()))
                sinks.append(group.create_task(market.tracker.run()))
                sinks.append(group.create_task(market.outbound.run()))
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
        return await stack.enter_async_context(traced)

    async def _watch_the_clock(self, journal: Journal) -> ClockWatch:
        """Look once, so that nothing is signed by a clock that is known to be wrong. The alarms are those of the process that signs."""
        options = self._config.host.clock
        watch = ClockWatch(
            self._discipline or discipline_source(options),
            limits=Limits(alarm_s=options.alarm_at, hold_s=options.hold_at),
            every_s=options.every,
            gate=self._gate,
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
        )
        keeper = await start_keeper(settings, journal, clock=self._clock)
        self._fences.append(keeper.fence)
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
                await journal.renew(self._fences)

    async def _give_back(self, journal: Journal) -> None:
        if self._fences:
            with suppress(JournalFull, JournalUnusable):  # what ended the host is told, not that it cannot be written
                await journal.release(self._fences)

    # field -----------------------------------------------------------------------------------------------------------

    async def _build_field(self, journal: Journal, lanes: FastLane | None) -> list[Supervisor]:
        supervisors = []
        for site in self._sites:
            fence = await journal.acquire(f"field:{site.name}")
            self._fences.append(fence)
            plans = {name: flow_plan(self._config, site, name) for name in site.flows}
            words = self._alarm_words(site, journal)
            desk = IntakeDesk(
                site=site.name,
                plans=plans,
                journal=journal,
                fence=fence,
                clock=self._clock,
                metrics=self._field_report,
                lane=lanes,
                on_full=words.look if words is not None else lambda: None,
            )
            supervisors += [
                self._supervisor(site, name, plans, journal, fence, desk, words)
                for name in site.adapters
                if any(plan.adapter == name for plan in plans.values())
            ]
        return supervisors

    def _supervisor(
        self,
        site: SiteConfig,
        name: str,
        plans: dict[str, FlowPlan],
        journal: Journal,
        fence: Fence,
        desk: IntakeDesk,
        words: AlarmWords | None,
    ) -> Supervisor:
        mine = {flow: plan for flow, plan in plans.items() if plan.adapter == name}
        participants = {plan.participant for plan in mine.values()}
        links = LinkAlarms(
            site=site.name,
            adapter=name,
            participant=participants.pop() if len(participants) == 1 else "",
            journal=journal,
            clock=self._clock,
            after_s=site.alarms.link_down_after_s,
        )
        carries = name == site.alarms.adapter
        writebacks = WriteBacks(
            site=site.name,
            plans=mine,
            journal=journal,
            fence=fence,
            clock=self._clock,
            metrics=self._field_report,
            traces=self._traced or FieldTraces(),
        )
        return Supervisor(
            site=site.name,
            name=name,
            adapter=site.adapters[name].adapter,
            options=site.adapters[name].options,
            plans=mine,
            journal=journal,
            desk=desk,
            writebacks=writebacks,
            clock=self._clock,
            metrics=self._field_report,
            links=links,
            words=words if carries else None,
            word=site.alarms.word if carries else None,
            client_id=f"smp-bridge-{site.name}-{name}",
            certified=self._look_at_ends,
            jitter=self._random.random,
        )

    def _look_at_ends(self) -> None:
        if self._expiry is not None:
            self._expiry.again.set()

    def _alarm_words(self, site: SiteConfig, journal: Journal) -> AlarmWords | None:
        """The writer of the site's alarm word, where the site wants one."""
        if site.alarms.word is None:
            return None
        participants = sorted({flow.participant for flow in site.flows.values()})
        return AlarmWords(
            site=site.name, adapter=site.alarms.adapter, participants=participants, journal=journal, clock=self._clock
        )

    # market ----------------------------------------------------------------------------------------------------------

    async def _build_market(self, journal: KeptJournal, stack: AsyncExitStack) -> Lanes:
        lanes = Lanes()
        for participant in self._config.participants.values():
            market = await self._participant(participant, journal, stack)
            self._market[participant.name] = market
            lanes.add(participant.name, market.outbound)
        return lanes

    async def _participant(self, entry: Participant, journal: KeptJournal, stack: AsyncExitStack) -> _Market:
        fence = await journal.acquire(f"market:{entry.name}")
        self._fences.append(fence)
        options, profile = entry.options, entry.profile
        await journal.introduce({entry.name: options.environment.value})
        await journal.recover(fence, repeats=profile.spec.recognises_repeats)
        named = f"{profile.name} {profile.version} {profile.hash}"
        if await journal.introduce_profile(entry.name, named, four_eyes=options.four_eyes):
            log.warning("profile_not_accepted", extra={"participant": entry.name, "profile": named})
        keys = await self._keys(entry, journal)

        async def attest() -> None:
            self._look_at_ends()
            await journal.evidence().note_facts(fence, entry.name, facts_of(self._config, entry, keys))

        with suppress(JournalFull):  # they are noted at the next start
            await attest()
        client = await stack.enter_async_context(SmpClient(client_settings(entry), clock=self._clock))
        maker = call_maker(
            self._config, entry, clock=self._clock, jitter=self._random.random, keys=keys, clock_state=self._clock_state
        )
        password = Password(options.password)
        tokens = TokenKeeper(
            login(maker, client, options.username, password),
            clock=self._clock,
            stopped=_account_alarm(journal, entry.name),
            works=lambda stopped: self._account_works(journal, entry.name, stopped=stopped),
            changed=password.changed,
            released=journal.woken(f"account:{entry.name}"),
            renew_at=profile.token.renew_at,
        )
        pace = Pace(
            clock=self._clock,
            rate_per_s=profile.limits.rate_per_minute / 60,
            burst=profile.limits.burst,
            concurrency=profile.limits.concurrency,
            jitter=self._random.random,
            held=lambda: self._gate.held,
        )
        tracker = Tracker(
            participant=entry.name,
            journal=journal,
            fence=fence,
            maker=maker,
            client=client,
            tokens=tokens,
            pace=pace,
            clock=self._clock,
            metrics=self._market_report,
            traces=self._traced or MarketTraces(),
        )
        outbound = Outbound(
            participant=entry.name,
            journal=journal,
            fence=fence,
            maker=maker,
            client=client,
            tokens=tokens,
            tracker=tracker,
            pace=pace,
            clock=self._clock,
            metrics=self._market_report,
            traces=self._traced or MarketTraces(),
        )
        self._gate.on_open(outbound.wake)
        self._gate.on_open(tracker.resume)
        reader = ReturnReader(
            identity=identity(entry), profile=profile, keys=keys, signer=keys.signer, agreed=keys.agreed,
            echoes=maker.echoes, return_url=entry.options.return_url or "",
        )  # fmt: skip
        inbox = Inbox(participant=entry.name, reader=reader, tracker=tracker, fence=fence)

        async def changed() -> None:
            await attest()
            if self._endpoint is not None:
                await self._endpoint.look_again(entry.name)

        watch = KeyWatch(keys, participant=entry.name, journal=journal, changed=changed)
        return _Market(outbound, tracker, tokens, inbox, watch, keys)

    async def _account_works(self, journal: KeptJournal, participant: str, *, stopped: bool) -> None:
        """A login was good: what stopped it, in a former run too, is over, and what waits for it leaves."""
        standing = await journal.alarms(participant=participant)
        if any(alarm.code == STOPPED for alarm in standing):
            await journal.alarm(STOPPED, participant=participant, clear=True)
        market = self._market.get(participant)
        if stopped and market is not None:
            market.outbound.resume()

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

    async def _keys(self, entry: Participant, journal: KeptJournal) -> KeyRing:
        """The participant's keys: what the configuration names, in the states that the journal holds. Raises `ConfigError`."""
        keys = await asyncio.to_thread(KeyRing, entry, self._clock)
        with suppress(JournalFull):  # then all that is configured is active
            await journal.introduce_keys(keys.configured(), int(GRACE_S * 1e9))
        await asyncio.to_thread(keys.take, await journal.keys(entry.name))
        return keys

    # listeners -------------------------------------------------------------------------------------------------------

    async def _listen(self, journal: Journal, stack: AsyncExitStack, running: Running) -> None:
        listeners = self._config.host.listeners
        if "returns" in self._sockets and (listeners.returns is None or not self._market):
            raise ConfigError(
                [Problem(text="a socket was passed for returns, but this process has no returns listener")]
            )
        if listeners.returns is not None and self._market:
            options = listeners.returns
            endpoint = self._endpoint = ReturnsEndpoint(
                [market.inbox for market in self._market.values()],
                journal=journal,
                clock=self._clock,
                metrics=self._market_report,
                client_names=frozenset(options.client_names),
            )
            context = server_context(options.certificate, options.private_key, options.client_ca)
            running.reload = lambda: renew_certificate(context, options.certificate, options.private_key)
            listener = PublicListener(
                endpoint.application(),
                bounds=Bounds(per_source=options.connections_per_source, in_all=options.connections),
                context=context,
                refused=self._market_report.refused,
                malformed=endpoint.malformed,
                allowed=options.allow,
            )
            running.returns_port = await listener.start(stack, options.host, options.port, self._sockets.get("returns"))
            log.info("listening", extra={"listener": "returns", "address": options.host, "port": running.returns_port})
        if listeners.admin is not None:
            await self._listen_to_operators(listeners.admin, journal, stack, running)

    async def _listen_to_operators(
        self, options: AdminOptions, journal: Journal, stack: AsyncExitStack, running: Running
    ) -> None:
        passed, context = self._sockets.get("admin"), None
        if options.certificate is not None and options.private_key is not None:
            context = server_context(options.certificate, options.private_key, None)
            running.reload = both(running.reload, context, options.certificate, options.private_key)
        without_token = options.without_token == "reading"  # noqa: S105 - a word of the configuration
        if passed is not None and not is_loopback(passed) and (without_token or context is None):
            text = "the socket that was passed for the admin listener is not of a loopback address: give it `certificate` and `private_key`, and no `without_token`"
            raise ConfigError([Problem(text=text, path="listeners.admin")])
        access = Access(
            signer=host_signer(self._config),
            journal=journal,
            territory=Territory.of(self._config),
            clock=self._clock,
            without_token=without_token,
            secure=context is not None,
            usable=self._usable,
        )
        admin = AdminListener(
            self._metrics,
            lambda: self._health(journal, running),
            lambda: self._gauges(journal),
            self._measured.told,
            access,
        )
        running.admin_port = await serve(stack, admin.application(), options.host, options.port, context, passed)
        log.info("listening", extra={"listener": "admin", "address": options.host, "port": running.admin_port})

    def _usable(self, record: KeyRecord) -> None:
        """Raises `ConfigError` when this key of ours cannot be read."""
        open_signer(self._config.participants[record.participant], record)

    def _health(self, journal: Journal, running: Running) -> Health:
        working = running.ready.is_set() and not running.stop.is_set()
        reasons = {"starting or stopping": not working, "the journal is full": journal.full}
        told = tuple(reason for reason, holds in reasons.items() if holds)
        clock = self._watch.told() if self._watch is not None else {}
        return Health(ready=not told, links=self._field_report.ages_s(), reasons=told, clock=clock)

    async def _gauges(self, journal: Journal) -> None:
        for what, count in (await journal.counts()).items():
            self._metrics.journal.labels(what).set(count)
        self._metrics.journal.labels("full").set(journal.full)
        standing = await journal.alarm_counts()
        self._metrics.alarms.clear()
        for alarm in standing:
            state = "acked" if alarm.acked else "open"
            self._metrics.alarms.labels(alarm.code, alarm.participant, alarm.site, state).set(alarm.number)
        for courier in self._couriers or ():
            age_s = courier.age_s
            self._metrics.anchor_age.labels(courier.name).set(math.nan if age_s is None else age_s)
            self._metrics.anchor_waiting.labels(courier.name).set(courier.waiting_s)
        for participant, market in self._market.items():
            self._metrics.in_flight.labels(participant).set(market.outbound.in_flight)
        await self._measured.show()


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


def _account_alarm(journal: Journal, participant: str) -> Callable[[str], Awaitable[None]]:
    async def stopped(text: str) -> None:
        await journal.alarm(STOPPED, participant=participant, text=text)

    return stopped
