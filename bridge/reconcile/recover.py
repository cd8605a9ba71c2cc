"""`journal reconcile`: look at every EMS, ask the platform of what the journal never heard of, make it known, and only then let the host go on."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.clock import Clock
from bridge.config import Config
from bridge.journal.brownfield import Import, KnownAsset
from bridge.journal.keeper import KeptJournal
from bridge.journal.people import Decision, HoldView, Scope
from bridge.journal.port import ItemOutcome, SubmissionView
from bridge.model import ItemState
from bridge.reconcile.asked import Platform, Said
from bridge.reconcile.shown import Shown, SiteLook, look_at
from bridge.submission import SubmissionState

_S = SubmissionState
WAITING: Final = (_S.WAITING, _S.RETRY_WAIT)
OUT: Final = (_S.IN_DOUBT, _S.AWAITING_RETURN, _S.OVERDUE)
MOST: Final = 1_000_000
NO_ANSWER: Final = "cannot be asked whether it was sent: its EMS shows no transaction ids"


@dataclass(slots=True)
class Report:
    """What was found and done, a line each; with `problems` nothing was released."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Found:
    shown: Shown
    said: Said

    @property
    def where(self) -> str:
        plan = self.shown.plan
        return f"{plan.site}/{plan.name}/{self.shown.place} {self.shown.key or '(no key)'} {self.shown.transaction_id}"


class Reconciliation:
    """One run of the command. `say` is told each line as it comes."""

    def __init__(
        self,
        config: Config,
        journal: KeptJournal,
        decision: Decision,
        *,
        clock: Clock,
        skip: Iterable[str] = (),
        dry: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._journal = journal
        self._decision = decision
        self._clock = clock
        self._skip = frozenset(skip)
        self._dry = dry
        self._say = say
        self._report = Report()

    async def run(self) -> Report:
        """Do it all. Raises `JournalUnusable`, `JournalFull`."""
        anchor = self._config.host.journal.anchor_file
        finding = await self._journal.evidence().compare(anchor)
        self._line(f"anchor: {finding.text}")
        looks = [
            await look_at(self._config, site, self._clock)
            for site in self._config.sites.values()
            if site.name not in self._skip
        ]
        if not self._dry:
            await self._journal.introduce(
                {entry.name: entry.options.environment.value for entry in self._config.participants.values()}
            )
        found = await self._ask(looks)
        await self._take(found)
        held = await self._held(finding_safe=finding.verdict.safe)
        if any(hold.scope is Scope.JOURNAL for hold in held) or not finding.verdict.safe:
            await self._put_aside(looks)
        for look in looks:
            self._report.problems += look.problems
        if not self._report.problems and not self._dry:
            await self._journal.evidence().rebase(anchor)
            await self._release(held)
        return self._report

    def _line(self, text: str) -> None:
        self._report.lines.append(text)
        self._say(text)

    # what is not known -----------------------------------------------------------------------------------------------

    async def _ask(self, looks: Sequence[SiteLook]) -> list[_Found]:
        found: list[_Found] = []
        async with Platform(self._config, self._journal, self._clock, random.random) as platform:
            for look in looks:
                ids = [shown.transaction_id for shown in look.shown]
                unknown = set(await self._journal.unknown_transactions(look.site, ids))
                self._line(
                    f"site {look.site}: {look.places} places read, {len(ids)} show a transaction id,"
                    f" {len(unknown)} ids are unknown to the journal"
                )
                for shown in look.shown:
                    if shown.transaction_id in unknown:
                        said = await platform.say(shown.plan.participant, shown.transaction_id, shown.key)
                        found.append(_Found(shown, said))
            await self._ask_of_what_is_out(platform, self._silent(looks))
        return found

    async def _ask_of_what_is_out(self, platform: Platform, silent: frozenset[tuple[str, str]]) -> None:
        """Where no EMS shows an id (MQTT), the platform alone can say what became of the transactions that the journal knows."""
        for state in OUT:
            for view in await self._journal.submissions(state=state, limit=MOST):
                if (view.site, view.flow) in silent and view.transaction_id:
                    said = await platform.stands(view.participant, view.transaction_id)
                    self._line(f"{view.id} ({view.site}/{view.flow}) {state.value} {view.transaction_id}: {said}")

    async def _take(self, found: Sequence[_Found]) -> None:
        """Waiting requests for what was sent are withdrawn; what the journal does not hold becomes known."""
        withdrawn: dict[str, list[tuple[_Found, ItemOutcome]]] = {}
        known: dict[str, list[_Found]] = {}
        for one in found:
            plan, said = one.shown.plan, one.said
            if not one.shown.key:
                self._report.problems.append(f"{one.where}: the place shows no key, so nobody can say whose id this is")
                continue
            standing = await self._journal.member(plan.participant, plan.operation.kind, one.shown.key)
            if standing.state in (ItemState.SENDING, ItemState.SENT, ItemState.IN_DOUBT, ItemState.REGISTERED):
                told = standing.state.value
                self._line(f"{one.where}: {said.text}; the journal says {told}: left as it is, resolve it by hand")
            elif (
                not said.asked
            ):  # what it says tomorrow would come too late: an unknown outcome is a person's to settle
                self._report.problems.append(f"{one.where}: {said.text}")
            elif standing.state in (ItemState.WAITING, ItemState.SET_ASIDE):
                found_item = await self._journal.standing_item(plan.participant, plan.operation.kind, one.shown.key)
                assert found_item is not None
                submission, item = found_item
                outcome = ItemOutcome(item=item, state=said.state, asset_id=said.asset_id, errors=said.errors)
                withdrawn.setdefault(submission, []).append((one, outcome))
            elif said.state is ItemState.REFUSED:
                self._line(f"{one.where}: {said.text}; nothing to know, it may be requested again")
            else:
                known.setdefault(plan.participant, []).append(one)
        for submission, items in withdrawn.items():
            await self._withdraw(submission, items)
        for participant, ones in known.items():
            await self._import(participant, ones)

    async def _withdraw(self, submission: str, items: Sequence[tuple[_Found, ItemOutcome]]) -> None:
        for one, outcome in items:
            self._line(f"{one.where}: {one.said.text}; its waiting request is withdrawn as {outcome.state.value}")
        if not self._dry:
            await self._journal.withdraw(submission, [outcome for _, outcome in items], self._decision)

    async def _import(self, participant: str, ones: Sequence[_Found]) -> None:
        rows = {
            (one.shown.plan.operation.kind, one.shown.key): KnownAsset(
                kind=one.shown.plan.operation.kind,
                key=one.shown.key,
                state=one.said.state,
                asset_id=one.said.asset_id,
                source=f"shown by {one.shown.plan.site}/{one.shown.plan.name}/{one.shown.place}",
                transaction_id=one.shown.transaction_id,
            )
            for one in ones
        }
        for one in ones:
            self._line(f"{one.where}: {one.said.text}; made known as {one.said.state.value}")
        wanted = Import(participant, list(rows.values()), self._decision.by, "journal reconcile", over_refused=True)
        report = await (self._journal.examine_import if self._dry else self._journal.import_assets)(wanted)
        self._report.problems += [
            f"{participant} {wanted.rows[problem.row].key}: {problem.field}: {problem.text}"
            for problem in report.problems
        ]

    # what nobody can tell --------------------------------------------------------------------------------------------

    async def _put_aside(self, looks: Sequence[SiteLook]) -> None:
        """Calls that wait in an old journal may have been sent after it was copied; where no EMS shows it, a person has to say so."""
        silent = self._silent(looks)
        for view in await self._waiting():
            if (view.site, view.flow) in silent:
                self._line(f"{view.id} ({view.site}/{view.flow}, {view.items} items): {NO_ANSWER}; set aside")
                if not self._dry:
                    await self._journal.put_aside(view.id, NO_ANSWER, self._decision)

    def _silent(self, looks: Sequence[SiteLook]) -> frozenset[tuple[str, str]]:
        """The flows (site, name) whose EMS shows nothing, or was left out by name."""
        skipped = (site for site in self._config.sites.values() if site.name in self._skip)
        left_out = frozenset((site.name, flow) for site in skipped for flow in site.flows)
        return left_out | {(look.site, flow) for look in looks for flow in look.silent}

    async def _waiting(self) -> list[SubmissionView]:
        return [view for state in WAITING for view in await self._journal.submissions(state=state, limit=MOST)]

    # going on --------------------------------------------------------------------------------------------------------

    async def _held(self, *, finding_safe: bool) -> list[HoldView]:
        held = [hold for hold in await self._journal.holds() if hold.scope.by_itself]
        if not held and finding_safe:
            self._line("nothing is held by the host itself")
        return held

    async def _release(self, held: Sequence[HoldView]) -> None:
        for hold in held:
            await self._journal.release_hold(hold.scope, hold.name, self._decision)
            name = f"site {hold.name}" if hold.scope is Scope.EMS else "the host"
            self._report.released.append(name)
            self._line(f"{name}: released by {self._decision.by}")
