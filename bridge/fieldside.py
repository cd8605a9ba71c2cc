"""Builds the field side: for each site a desk for its records, and for each of its adapters a supervisor of its sessions."""

from collections.abc import Mapping, Sequence

from bridge.assembly import flow_plan
from bridge.config import SiteConfig
from bridge.field.alarmword import AlarmWords
from bridge.field.intake import IntakeDesk
from bridge.field.links import LinkAlarms
from bridge.field.supervisor import Supervisor
from bridge.field.writeback import WriteBacks
from bridge.flow import FlowPlan
from bridge.journal.port import Fence, Journal
from bridge.lane import FastLane
from bridge.shared import Shared


async def build_field(
    shared: Shared, sites: Sequence[SiteConfig], journal: Journal, lanes: FastLane | None
) -> list[Supervisor]:
    """The supervisors of these sites, whose leases are taken. Raises `LeaseHeld`."""
    supervisors = []
    for site in sites:
        fence = await journal.acquire(f"field:{site.name}")
        shared.fences.append(fence)
        supervisors += _Site(shared, site, journal, fence, lanes).supervisors()
    return supervisors


class _Site:
    """One site's parts."""

    def __init__(
        self, shared: Shared, site: SiteConfig, journal: Journal, fence: Fence, lanes: FastLane | None
    ) -> None:
        self._shared = shared
        self._site = site
        self._journal = journal
        self._fence = fence
        self._plans = {name: flow_plan(shared.config, site, name) for name in site.flows}
        words = self._words = self._alarm_words()
        self._desk = IntakeDesk(
            site=site.name,
            plans=self._plans,
            journal=journal,
            fence=fence,
            clock=shared.clock,
            metrics=shared.field_report,
            lane=lanes,
            on_full=words.look if words is not None else lambda: None,
        )

    def supervisors(self) -> list[Supervisor]:
        """One for each adapter that a flow reads."""
        used = {plan.adapter for plan in self._plans.values()}
        return [self._supervisor(name) for name in self._site.adapters if name in used]

    def _alarm_words(self) -> AlarmWords | None:
        """The writer of the site's alarm word, where the site wants one."""
        site = self._site
        if site.alarms.word is None:
            return None
        participants = sorted({flow.participant for flow in site.flows.values()})
        return AlarmWords(
            site=site.name,
            adapter=site.alarms.adapter,
            participants=participants,
            journal=self._journal,
            clock=self._shared.clock,
        )

    def _supervisor(self, name: str) -> Supervisor:
        shared, site = self._shared, self._site
        mine = {flow: plan for flow, plan in self._plans.items() if plan.adapter == name}
        carries = name == site.alarms.adapter
        return Supervisor(
            site=site.name,
            name=name,
            adapter=site.adapters[name].adapter,
            options=site.adapters[name].options,
            plans=mine,
            journal=self._journal,
            desk=self._desk,
            writebacks=WriteBacks(
                site=site.name,
                plans=mine,
                journal=self._journal,
                fence=self._fence,
                clock=shared.clock,
                metrics=shared.field_report,
                traces=shared.field_traces,
            ),
            clock=shared.clock,
            metrics=shared.field_report,
            links=self._links(name, mine),
            words=self._words if carries else None,
            word=site.alarms.word if carries else None,
            client_id=f"smp-bridge-{site.name}-{name}",
            certified=shared.look_at_ends,
            jitter=shared.jitter,
        )

    def _links(self, name: str, mine: Mapping[str, FlowPlan]) -> LinkAlarms:
        participants = {plan.participant for plan in mine.values()}
        return LinkAlarms(
            site=self._site.name,
            adapter=name,
            participant=participants.pop() if len(participants) == 1 else "",
            journal=self._journal,
            clock=self._shared.clock,
            after_s=self._site.alarms.link_down_after_s,
        )
