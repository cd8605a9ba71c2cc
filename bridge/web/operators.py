"""What people do through the admin listener, whichever way they ask (API or page): only with what is theirs, each with a name and a reason."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bridge.clock import Clock
from bridge.errors import ConfigError, NotPossible
from bridge.journal.access import Action, ApprovalView, TokenView, Wanted
from bridge.journal.approvals import same_person
from bridge.journal.keys import KeyRecord, KeySide, KeyState
from bridge.journal.people import Decision, HoldView, Scope
from bridge.journal.port import AlarmView, EventView, ItemOutcome, ItemView, Journal, SubmissionView
from bridge.keyring import GRACE_S
from bridge.model import ErrorNote, ItemState
from bridge.web.guard import BadRequest, NotHere
from bridge.web.listed import Listed
from bridge.web.roles import HELD, THE_HOSTS, Person, Role, Territory

APPROVAL_S: Final = 24 * 3600
LONGEST_REASON: Final = 500
MOST: Final = 1000
_ALL: Final = 10**9
EVERYTHING: Final = Listed()
_EVERYBODYS: Final = (Scope.HOST, Scope.JOURNAL)
_WHOLE: Final = frozenset(scope.value for scope in _EVERYBODYS)
# Alarms of the host whose words come from its clock alone, or say when the journal had no room. The words of others may name a file, a place, a person or another participant.
_PLAIN: Final = frozenset({"CLOCK_OFFSET", "CLOCK_UNSYNCHRONISED", "JOURNAL_FULL"})
_OUTCOMES: Final = {state.value: state for state in (ItemState.REGISTERED, ItemState.REFUSED, ItemState.UNKNOWN)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a wish: done at once (`goes_on` is the submission that does, or the key), or `approval` waits for a second person."""

    goes_on: str
    approval: int = 0


@dataclass(frozen=True, slots=True)
class Operators:
    """Every method takes the person who asks. `usable` raises `ConfigError` for a key of ours whose file cannot be used. Raises `NotHere` for what is not theirs, as for what does not exist."""

    journal: Journal
    territory: Territory
    clock: Clock
    usable: Callable[[KeyRecord], None] = lambda _: None

    # reading ---------------------------------------------------------------------------------------------------------

    async def submissions(
        self, person: Person, listed: Listed = EVERYTHING, *, limit: int = 100
    ) -> tuple[list[SubmissionView], bool]:
        """Newest first, at most `limit` over all participants that are theirs; and whether there are older ones."""
        if listed.participant and not person.sees(listed.participant):
            raise NotHere(f"there is no participant {listed.participant}")
        if listed.before:
            await self._theirs(person, listed.before)
        names = None if person.participants is None else sorted(person.participants)
        found = await self.journal.submissions(
            participant=listed.participant, participants=names, site=listed.site, state=listed.state,
            since_ns=listed.since_ns, until_ns=listed.until_ns, before=listed.before, limit=limit + 1,
        )  # fmt: skip
        return list(found[:limit]), len(found) > limit

    def places(self, person: Person) -> tuple[list[str], list[str]]:
        """The participants and the sites of the configuration that are theirs."""
        territory = self.territory
        sites = {site for (site, _), participant in territory.flows.items() if person.sees(participant)}
        return sorted(name for name in territory.environments if person.sees(name)), sorted(sites)

    async def submission(
        self, person: Person, submission: str
    ) -> tuple[SubmissionView, Sequence[ItemView], Sequence[EventView]]:
        """One, with its items and events."""
        view = await self._theirs(person, submission)
        return view, await self.journal.submission_items(view.id), await self.journal.events(view.id)

    async def alarms(self, person: Person, *, limit: int = MOST) -> list[AlarmView]:
        """Those that stand. One of a site without a participant may speak of any of its flows, so it takes them all to read it; the host's own, and holds of what they share, are theirs to know, in words that name nobody."""
        return (await self.standing(person, limit=limit))[0]

    async def standing(self, person: Person, *, limit: int = MOST) -> tuple[list[AlarmView], frozenset[int]]:
        """`alarms`, and the numbers of those that they may acknowledge."""
        theirs = await self._their_alarms(person, limit)
        mine = frozenset(view.id for view in theirs)
        if person.participants is None:
            return theirs, mine
        host = [
            _of_the_host(view)
            for view in await self.journal.alarms(of_host=True, limit=MOST)
            if self._stops_them(person, view)
        ]
        shared = [
            _of_the_host(view)
            for site in self.places(person)[1]
            if not person.sees_all(self.territory.at_site(site))
            for view in await self.journal.alarms(site=site, limit=MOST)
            if view.code == HELD and not view.participant
        ]
        return _newest([*theirs, *host, *shared], limit), mine

    def _stops_them(self, person: Person, view: AlarmView) -> bool:
        """Whether an alarm without participant and site is the whole host's, or of what they share: a hold of an environment has neither as well."""
        if view.code != HELD or view.subject in _WHOLE:
            return True
        scope, _, name = view.subject.partition(":")
        return scope == Scope.ENVIRONMENT.value and person.shares(self.territory.in_environment(name))

    async def _their_alarms(self, person: Person, limit: int) -> list[AlarmView]:
        """Those that they may read whole, and acknowledge."""
        if person.participants is None:
            return list(await self.journal.alarms(limit=limit))
        sites = {site for site, _ in self.territory.flows}
        asked = [(name, "") for name in sorted(person.participants)]
        asked += [("", site) for site in sorted(sites) if person.sees_all(self.territory.at_site(site))]
        found = {
            view.id: view
            for participant, site in asked
            for view in await self.journal.alarms(participant=participant, site=site, limit=limit)
        }
        return _newest([view for view in found.values() if self._sees_alarm(person, view)], limit)

    async def holds(self, person: Person) -> list[HoldView]:
        """What is held of theirs. That everything is, or something that they share, is their business; why and by whom is not."""
        found = await self.journal.holds()
        return [
            view if self._sees_hold(person, view) else replace(view, by="", reason=THE_HOSTS)
            for view in found
            if person.shares(self._held_by(view.scope, view.name)) or view.scope in _EVERYBODYS
        ]

    async def approvals(self, person: Person, *, open_only: bool = True) -> list[ApprovalView]:
        """What waits for a second person, or did."""
        names = None if person.participants is None else sorted(person.participants)
        return list(await self.journal.approvals(now_ns=self.clock.wall_ns(), open_only=open_only, participants=names))

    async def keys(self, person: Person, participant: str) -> list[KeyRecord]:
        """A participant's keys and SMP's: public halves and states."""
        self._participant(person, participant)
        return list(await self.journal.keys(participant))

    async def tokens(self, person: Person) -> list[TokenView]:
        """Tokens that are for nothing beyond what is theirs."""
        found = await self.journal.tokens()
        return [view for view in found if person.participants is None or person.sees_all(view.participants)]

    # deciding --------------------------------------------------------------------------------------------------------

    async def wish(self, person: Person, wanted: Wanted, reason: str) -> Done:
        """Do it, or note it for a second person where the participant wants four eyes."""
        if wanted.participant:
            participant = self._participant(person, wanted.participant)
            await self._check_next(wanted)
        else:
            participant = (await self._theirs(person, wanted.submission)).participant
        decision = self._decision(person, reason)
        if participant not in self.territory.four_eyes:
            return Done(goes_on=await self.journal.perform(wanted, decision))
        expires_ns = self.clock.wall_ns() + APPROVAL_S * 1_000_000_000
        asked = await self.journal.ask_approval(wanted, decision, expires_ns=expires_ns)
        return Done(goes_on=wanted.submission, approval=asked)

    def of_keys(self, action: Action, participant: str, side: KeySide, kid: str) -> Wanted:
        """A wish about keys. The keys that are replaced stay known for the usual grace time."""
        return Wanted(action=action, participant=participant, side=side, kid=kid, grace_ns=int(GRACE_S * 1e9))

    async def wanted(
        self,
        person: Person,
        action: Action,
        submission: str,
        *,
        references: Sequence[str] = (),
        outcomes: Sequence[Mapping[str, str]] = (),
    ) -> Wanted:
        """The wish in the journal's words. Raises `BadRequest` for references that are none of this submission's."""
        view = await self._theirs(person, submission)
        items = {item.key: item for item in await self.journal.submission_items(view.id)}
        named = [*references, *(line.get("reference", "") for line in outcomes)]
        missing = [key for key in named if key not in items]
        if missing:
            raise BadRequest(f"{view.id} has no item {', '.join(missing[:10]) or 'without a reference'}")
        if len(set(named)) != len(named):
            raise BadRequest("a reference stands twice")
        return Wanted(
            action=action,
            submission=view.id,
            items=[items[key].id for key in references],
            outcomes=[_outcome(items[line["reference"]].id, line) for line in outcomes],
        )

    async def approve(self, person: Person, approval: int, reason: str) -> str:
        """A second person agrees; the submission that goes on."""
        await self._approval(person, approval)
        return await self.journal.approve(approval, self._decision(person, reason))

    async def refuse(self, person: Person, approval: int, reason: str) -> None:
        """An approver says no, or the one who asked takes it back."""
        found = await self._approval(person, approval)
        if person.role is not Role.APPROVER and not same_person(found.asked_by, person.name):
            raise BadRequest(f"only {found.asked_by} can take this back; an approver can refuse it")
        await self.journal.refuse_approval(approval, self._decision(person, reason))

    async def acknowledge(self, person: Person, alarm: int, reason: str) -> AlarmView:
        """Say that they know of an alarm. The host's own are for who works for all participants, though others see that they stand."""
        if alarm not in [view.id for view in await self._their_alarms(person, _ALL)]:
            raise NotHere(f"there is no alarm {alarm}, or it is the host's own")
        said = self._decision(person, reason)
        return await self.journal.ack_alarm(alarm, said.by, said.reason, more=said.more)

    async def hold(self, person: Person, scope: Scope, name: str, reason: str) -> bool:
        """Stop what is sent; False when it was held already. It needs no second person: stopping must be quick."""
        self._whole_scope(person, scope, name)
        return await self.journal.hold(scope, name, self._decision(person, reason))

    async def release(self, person: Person, scope: Scope, name: str, reason: str) -> None:
        """Let it go on."""
        self._whole_scope(person, scope, name)
        await self.journal.release_hold(scope, name, self._decision(person, reason))

    # ------------------------------------------------------------------------------------------------------------------

    async def _theirs(self, person: Person, submission: str) -> SubmissionView:
        view = await self.journal.submission(submission)
        if view is None or not person.sees(view.participant):
            raise NotHere("there is no such submission")
        return view

    async def _check_next(self, wanted: Wanted) -> None:
        """Looked at first, so that the service is not told to sign with what cannot be read."""
        if wanted.action is not Action.ROTATE_KEYS or wanted.side is not KeySide.OURS:
            return
        for record in await self.journal.keys(wanted.participant):
            if record.side is wanted.side and record.state is KeyState.NEXT and wanted.kid in ("", record.kid):
                try:
                    await asyncio.to_thread(self.usable, record)
                except ConfigError as error:
                    raise NotPossible(f"the next key {record.kid} cannot be used: {error}") from error

    def _participant(self, person: Person, participant: str) -> str:
        if participant not in self.territory.environments or not person.sees(participant):
            raise NotHere("there is no such participant")
        return participant

    async def _approval(self, person: Person, approval: int) -> ApprovalView:
        found = await self.journal.approval(approval, now_ns=self.clock.wall_ns())
        if found is None or not person.sees(found.participant):
            raise NotHere(f"there is no request {approval}")
        return found

    def _decision(self, person: Person, reason: str) -> Decision:
        said = " ".join(reason.split())
        if not said or len(said) > LONGEST_REASON or not said.isprintable():
            raise BadRequest(f"`reason` must say why, in at most {LONGEST_REASON} characters; the journal keeps it")
        return Decision(by=person.name, reason=said, more={"token": person.token, "role": person.role.value})

    def _sees_alarm(self, person: Person, view: AlarmView) -> bool:
        if view.participant:
            return person.sees(view.participant)
        return bool(view.site) and person.sees_all(self.territory.at_site(view.site))

    def _sees_hold(self, person: Person, view: HoldView) -> bool:
        """Whether they may read all of it, which may speak of everybody who is held."""
        return person.sees_all(self._held_by(view.scope, view.name))

    def _held_by(self, scope: Scope, name: str) -> set[str]:
        """Whom a hold stops, but for those of the whole host, which stop everybody."""
        if scope in (Scope.PARTICIPANT, Scope.PROFILE):
            return {name}
        if scope in (Scope.SITE, Scope.EMS):
            return self.territory.at_site(name)
        return self.territory.in_environment(name) if scope is Scope.ENVIRONMENT else set()

    def _whole_scope(self, person: Person, scope: Scope, name: str) -> None:
        """Whoever stops or releases a thing answers for everybody who shares it."""
        covered = self._held_by(scope, name) & set(self.territory.environments)
        if scope.by_itself:
            raise BadRequest("what the host holds by itself is released by `smp-bridge journal reconcile`")
        if scope is Scope.PROFILE:
            raise BadRequest("a profile is accepted: POST /api/v1/participants/NAME/profile/accept")
        if scope is Scope.HOST:
            if person.participants is not None or name:
                raise NotHere("the whole host is held by somebody who works for all participants, and has no name")
        elif not covered or not person.sees_all(covered):
            raise NotHere(f"there is no {scope.value} {name}, or others share it")


def _newest(views: Sequence[AlarmView], limit: int) -> list[AlarmView]:
    return sorted(views, key=lambda view: view.id, reverse=True)[:limit]


def _of_the_host(view: AlarmView) -> AlarmView:
    """What every participant's people may know of it: that it stands, and since when; of a hold of what they share also what is held."""
    text = view.text if view.code in _PLAIN else THE_HOSTS
    subject = view.subject if view.code == HELD and view.subject not in _WHOLE else ""
    return replace(view, subject=subject, text=text, acked_by="", note="")


def _outcome(item: int, line: Mapping[str, str]) -> ItemOutcome:
    state = _OUTCOMES.get(line.get("outcome", ""))
    if state is None:
        raise BadRequest(f"{line['reference']}: `outcome` is registered, refused or unknown")
    asset_id, code, text = line.get("asset_id", ""), line.get("error_code", ""), line.get("error_text", "")
    if asset_id and state is not ItemState.REGISTERED:
        raise BadRequest(f"{line['reference']}: only a registered item has an `asset_id`")
    return ItemOutcome(
        item=item, state=state, asset_id=asset_id, errors=(ErrorNote(code=code, text=text),) if code or text else ()
    )
