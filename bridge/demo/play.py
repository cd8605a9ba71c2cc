"""The demo's story: three EMSs ask for their assets, then each for one unit, until every outcome is back where it was asked for."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bridge.demo.memory import ItemView
from bridge.demo.observer import Ledger, Seen, observe
from bridge.demo.record import Figures, Recorded, read
from bridge.demo.report import Report, judge
from bridge.errors import JournalUnusable
from bridge.journal.sqlite import open_reader

LOOK_S: Final = 0.4
REFUSED_PER_SITE: Final = 2


class Ems(Protocol):
    """A simulated EMS."""

    unit_reference: str

    async def request_assets(self) -> None:
        """Ask for the registration of every asset."""

    async def request_unit(self, asset_keys: Sequence[str]) -> None:
        """Ask for the one unit, aligned to these assets."""

    def items(self) -> Mapping[str, ItemView]:
        """What was written back, by reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One simulated site: its EMS, and the flows of its YAML file that the demo uses."""

    name: str
    protocol: str
    assets_flow: str
    unit_flow: str
    ems: Ems
    references: Sequence[str]


@dataclass(slots=True, kw_only=True)
class Picture:
    """What there is to see at one moment."""

    phase: str = "starting"
    seen: Sequence[Seen] = ()
    recorded: Recorded | None = None


class Play:
    """Runs the story; `picture` is its newest view, and `changed` is called after each look."""

    def __init__(
        self, sites: Sequence[Site], ledger: Ledger, journal: Path, *, seed: int, changed: Callable[[Picture], None]
    ) -> None:
        self._sites = sites
        self._ledger = ledger
        self._journal = journal
        self._seed = seed
        self._changed = changed
        self._units: set[str] = set()
        self.picture = Picture()

    async def run(self) -> None:
        """Until every outcome of every site is written back. May be cancelled at any time; `report` then says what is missing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            for site in self._sites:
                group.create_task(self._site(site))
        self.picture.phase = "everything is written back"
        await self.look()

    async def report(self) -> Report:
        """The report as things stand now."""
        await self.look()
        expected = {}
        for site in self._sites:
            expected[site.name, site.assets_flow] = (len(site.references), REFUSED_PER_SITE)
            expected[site.name, site.unit_flow] = (1, 0)
        return judge(self._seed, self.picture.seen, await self._read(), expected=expected)

    async def look(self) -> None:
        """Take a new picture."""
        self.picture.seen = [seen for site in self._sites for seen in self._see(site)]
        self.picture.recorded = await self._read()
        self._changed(self.picture)

    async def _site(self, site: Site) -> None:
        self.picture.phase = "the EMSs ask for their assets"
        await site.ems.request_assets()
        await self._until_final(site, site.references)
        registered = [key for key, word in self._ledger.outcomes().items() if word == "registered"]
        members = [reference for reference in site.references if reference in set(registered)]
        self.picture.phase = "units are asked for where all assets are settled"
        self._units.add(site.name)
        await site.ems.request_unit(members)
        await self._until_final(site, [site.ems.unit_reference])

    async def _until_final(self, site: Site, references: Sequence[str]) -> None:
        while True:
            held = site.ems.items()
            if all(reference in held and held[reference].final for reference in references):
                return
            await asyncio.sleep(LOOK_S)

    def _settled(self) -> bool:
        """Whether the journal has noted every write-back too."""
        recorded = self.picture.recorded
        complete = len(self.picture.seen) == 2 * len(self._sites)
        return (
            complete
            and recorded is not None
            and all(
                (held := recorded.flows.get((seen.site, seen.flow))) is not None and held.written_back == seen.items
                for seen in self.picture.seen
            )
        )

    async def _watch(self) -> None:
        while not self._settled():
            await self.look()
            await asyncio.sleep(LOOK_S)

    def _see(self, site: Site) -> list[Seen]:
        common = {"site": site.name, "protocol": site.protocol}
        seen = [
            observe(site.ems, self._ledger, site.references, flow=site.assets_flow, operation="asset.create", **common)
        ]
        if site.name in self._units:
            unit = [site.ems.unit_reference]
            seen.append(observe(site.ems, self._ledger, unit, flow=site.unit_flow, operation="unit.create", **common))
        return seen

    async def _read(self) -> Recorded:
        try:
            journal = await open_reader(self._journal)
        except JournalUnusable:  # not made yet
            return Recorded(flows={}, by_state={}, stages={}, host=Figures.of([]))
        try:
            return await read(journal)
        finally:
            await journal.close()
