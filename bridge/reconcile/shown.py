"""What the EMSs show: the transaction id and the key of every place of every flow that can be read."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from bridge.api import Address, ListsPlaces, OutcomeField, Quality, Reading, Session, SessionContext
from bridge.assembly import flow_plan
from bridge.clock import Clock
from bridge.config import Config, SiteConfig
from bridge.errors import BridgeError, LinkError
from bridge.field.recollection import shown_id
from bridge.field.writeback import targets
from bridge.flow import FlowPlan

OPEN_S: Final = 30.0
READ_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A place that shows a transaction id, and the key of the record that stands there now."""

    plan: FlowPlan
    place: str
    key: str
    transaction_id: str


@dataclass(slots=True)
class SiteLook:
    """What one site's EMSs show. `silent` are flows whose EMS cannot show anything; `problems` say why something could not be read."""

    site: str
    places: int = 0
    shown: list[Shown] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def look_at(config: Config, site: SiteConfig, clock: Clock) -> SiteLook:
    """Read every place of a site, one session per adapter, and write nothing."""
    look = SiteLook(site.name)
    plans = {name: flow_plan(config, site, name) for name in site.flows}
    look.silent = [name for name, plan in plans.items() if not _shows(site, plan)]
    for name in site.adapters:
        mine = {flow: plan for flow, plan in plans.items() if plan.adapter == name and flow not in look.silent}
        if not mine:
            continue
        try:
            await _look_through(look, site, name, mine, clock)
        except (BridgeError, TimeoutError) as error:
            look.problems.append(f"{site.name}/{name}: {error or 'no answer in time'}")
    return look


def _shows(site: SiteConfig, plan: FlowPlan) -> bool:
    return site.adapters[plan.adapter].adapter.readable and OutcomeField.TRANSACTION_ID in targets(plan.outcome)


async def _look_through(
    look: SiteLook, site: SiteConfig, adapter: str, plans: dict[str, FlowPlan], clock: Clock
) -> None:
    entry = site.adapters[adapter]
    context = SessionContext(
        site=site.name,
        adapter=adapter,
        options=entry.options,
        selections=[plan.selection() for plan in plans.values()],
        clock=clock,
        heard=lambda: None,
        client_id=f"smp-bridge-{site.name}-{adapter}-reconcile",
    )
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(OPEN_S):
            session = await stack.enter_async_context(entry.adapter.open(context))
        if not isinstance(session, ListsPlaces):
            look.silent += list(plans)
            return
        async with asyncio.timeout(READ_S):
            for plan in plans.values():
                await _read(look, session, plan, session.places(plan.name))


async def _read(look: SiteLook, session: Session, plan: FlowPlan, places: Sequence[str]) -> None:
    ids = await session.read([Address(plan.name, place, OutcomeField.TRANSACTION_ID) for place in places])
    look.places += len(places)
    bad = [place for place, reading in zip(places, ids, strict=True) if reading.quality is not Quality.GOOD]
    if bad:
        raise LinkError(f"{plan.name}: the transaction id of {len(bad)} places cannot be read, such as {bad[0]}")
    found = [(place, shown_id(reading)) for place, reading in zip(places, ids, strict=True) if shown_id(reading)]
    keys = await session.read([Address(plan.name, place, plan.key_field) for place, _ in found]) if found else []
    look.shown += [
        Shown(plan=plan, place=place, key=_key(plan, reading), transaction_id=id_)
        for (place, id_), reading in zip(found, keys, strict=True)
    ]


def _key(plan: FlowPlan, reading: Reading) -> str:
    if reading.quality is not Quality.GOOD:
        return ""
    return plan.mapper.key_of({plan.key_field: reading}) or ""
