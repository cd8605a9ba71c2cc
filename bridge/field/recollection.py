"""What an EMS remembers that the journal does not: a transaction id that it was told, and that this journal never heard of.

That is what a restored backup or a copied machine looks like from the EMS's side: the request looks new to the journal although it was sent. So
a place is read when a session brings a record of it for the first time and that looks new, and a site that shows such an id is held before the
record is admitted (DESIGN, "Journal"). An EMS that cannot be read (MQTT) cannot tell.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from bridge.api import Address, OutcomeField, Quality, Reading, Session
from bridge.field.writeback import in_time, targets
from bridge.flow import FlowPlan
from bridge.journal.people import Decision, Scope
from bridge.journal.port import Candidate, Journal
from bridge.submission import Admission

log = logging.getLogger(__name__)

HOST: Final = "smp-bridge"
_NEW: Final = frozenset({Admission.NEW, Admission.REPLACE, Admission.REQUESTED})
_NAMED: Final = 5


class Recollection:
    """The look at one site's EMS on one session."""

    def __init__(self, *, site: str, plans: Mapping[str, FlowPlan], journal: Journal) -> None:
        self._site = site
        self._journal = journal
        self._flows = {name for name, plan in plans.items() if OutcomeField.TRANSACTION_ID in targets(plan.outcome)}
        self._looked: set[tuple[str, str]] = set()

    def unseen(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those whose places were not looked at yet."""
        return [
            candidate
            for candidate in candidates
            if candidate.flow in self._flows and (candidate.flow, candidate.place) not in self._looked
        ]

    async def look(self, session: Session, candidates: Sequence[Candidate]) -> None:
        """Hold the site when a place whose record looks new shows a transaction id that the journal never heard of; not again on this session. Raises `LinkError`."""
        admissions = await self._journal.preview(candidates)
        new = [candidate for candidate, admission in zip(candidates, admissions, strict=True) if admission in _NEW]
        await self._read(session, [Address(flow, place, OutcomeField.TRANSACTION_ID) for flow, place in _places(new)])
        self._looked.update(_places(candidates))

    async def _read(self, session: Session, addresses: Sequence[Address]) -> None:
        if not addresses:
            return
        readings = await in_time(session.read(addresses))
        shown = {shown_id(reading): address for address, reading in zip(addresses, readings, strict=True)}
        shown.pop("", None)
        unknown = await self._journal.unknown_transactions(self._site, list(shown))
        if unknown:
            await self._hold([(shown[id_], id_) for id_ in unknown])

    async def _hold(self, found: Sequence[tuple[Address, str]]) -> None:
        named = ", ".join(f"{id_} at {address.flow}/{address.place}" for address, id_ in found[:_NAMED])
        reason = (
            f"the EMS shows transaction ids that this journal never heard of: {named}"
            f"{' and others' if len(found) > _NAMED else ''}; run `smp-bridge journal reconcile`"
        )
        if await self._journal.hold(Scope.EMS, self._site, Decision(by=HOST, reason=reason)):
            log.error("site_held", extra={"site": self._site, "reason": reason})


def shown_id(reading: Reading) -> str:
    """The transaction id that a place shows, '' for none: an empty, blank or zeroed field."""
    if reading.quality is not Quality.GOOD or not isinstance(reading.value, str):
        return ""
    return reading.value.strip(" \0")


def _places(candidates: Sequence[Candidate]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((candidate.flow, candidate.place) for candidate in candidates))
