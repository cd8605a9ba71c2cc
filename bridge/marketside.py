"""Builds the market side: for each participant its keys, its account, its calls and what its returns settle."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

from bridge.assembly import Password, call_maker, client_settings, identity, login
from bridge.attested import facts_of
from bridge.config import Participant
from bridge.errors import JournalFull
from bridge.journal.accounts import STOPPED
from bridge.journal.keeper import KeptJournal
from bridge.journal.port import Fence, Journal
from bridge.keyring import GRACE_S, KeyRing
from bridge.market.calls import CallMaker
from bridge.market.client import SmpClient
from bridge.market.endpoint import Inbox
from bridge.market.keywatch import KeyWatch
from bridge.market.outbound import Outbound
from bridge.market.pace import Pace
from bridge.market.returns import ReturnReader
from bridge.market.token import TokenKeeper
from bridge.market.tracker import Tracker
from bridge.measure.reach import Reach
from bridge.shared import Shared

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Market:
    """One participant's parts."""

    outbound: Outbound
    tracker: Tracker
    tokens: TokenKeeper
    inbox: Inbox
    keys: KeyWatch
    ring: KeyRing
    reach: Reach
    paused: Callable[[], str]
    """Why nothing is sent at the moment, though SMP may be reached; '' where it is."""

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What works until it is cancelled, in the order in which it starts."""
        return [self.tokens.run(), self.keys.run(), self.tracker.run(), self.outbound.run()]


async def build_market(
    shared: Shared,
    entry: Participant,
    journal: KeptJournal,
    stack: AsyncExitStack,
    *,
    keys_changed: Callable[[str], Awaitable[None]],
) -> Market:
    """One participant's side, whose lease is taken; `keys_changed` is told its name. Raises `LeaseHeld` or `ConfigError`."""
    fence = await journal.acquire(f"market:{entry.name}")
    shared.fences.append(fence)
    await _introduce(entry, journal, fence)
    keys = await _keys(shared, entry, journal)
    client = await stack.enter_async_context(SmpClient(client_settings(entry), clock=shared.clock))
    side = _Side(shared, entry, journal, fence, keys, client)
    with suppress(JournalFull):  # they are noted at the next start
        await side.attest()
    return side.made(keys_changed)


async def _introduce(entry: Participant, journal: KeptJournal, fence: Fence) -> None:
    """Say to the journal who this is, and what became of what an earlier owner was sending."""
    options, profile = entry.options, entry.profile
    await journal.introduce({entry.name: options.environment.value})
    await journal.recover(fence, repeats=profile.spec.recognises_repeats)
    named = f"{profile.name} {profile.version} {profile.hash}"
    if await journal.introduce_profile(entry.name, named, four_eyes=options.four_eyes):
        log.warning("profile_not_accepted", extra={"participant": entry.name, "profile": named})


async def _keys(shared: Shared, entry: Participant, journal: KeptJournal) -> KeyRing:
    """The participant's keys: what the configuration names, in the states that the journal holds. Raises `ConfigError`."""
    keys = await asyncio.to_thread(KeyRing, entry, shared.clock)
    with suppress(JournalFull):  # then all that is configured is active
        await journal.introduce_keys(keys.configured(), int(GRACE_S * 1e9))
    await asyncio.to_thread(keys.take, await journal.keys(entry.name))
    return keys


class _Side:
    """The parts of one participant, as they are made one for the other."""

    def __init__(
        self,
        shared: Shared,
        entry: Participant,
        journal: KeptJournal,
        fence: Fence,
        keys: KeyRing,
        client: SmpClient,
    ) -> None:
        self._shared = shared
        self._entry = entry
        self._journal = journal
        self._fence = fence
        self._keys = keys
        self._client = client
        self._outbound: Outbound | None = None

    async def attest(self) -> None:
        """Note in the evidence which keys, certificates and configuration work from now on."""
        self._shared.look_at_ends()
        facts = facts_of(self._shared.config, self._entry, self._keys)
        await self._journal.evidence().note_facts(self._fence, self._entry.name, facts)

    def made(self, keys_changed: Callable[[str], Awaitable[None]]) -> Market:
        """All of them."""
        shared, entry, keys = self._shared, self._entry, self._keys
        maker = call_maker(
            shared.config, entry, clock=shared.clock, jitter=shared.jitter, keys=keys, clock_state=shared.clock_state
        )
        tokens, pace = self._tokens(maker), self._pace()
        tracker = Tracker(
            participant=entry.name,
            journal=self._journal,
            fence=self._fence,
            maker=maker,
            client=self._client,
            tokens=tokens,
            pace=pace,
            clock=shared.clock,
            metrics=shared.market_report,
            traces=shared.market_traces,
        )
        outbound = self._outbound = Outbound(
            participant=entry.name,
            journal=self._journal,
            fence=self._fence,
            maker=maker,
            client=self._client,
            tokens=tokens,
            tracker=tracker,
            pace=pace,
            clock=shared.clock,
            metrics=shared.market_report,
            traces=shared.market_traces,
        )
        shared.gate.on_open(outbound.wake)
        shared.gate.on_open(tracker.resume)

        async def changed() -> None:
            await self.attest()
            await keys_changed(entry.name)

        inbox = Inbox(participant=entry.name, reader=self._reader(maker), tracker=tracker, fence=self._fence)
        watch = KeyWatch(keys, participant=entry.name, journal=self._journal, changed=changed)

        def paused() -> str:
            if tokens.blocked:
                return "logging in was refused (ACCOUNT_STOPPED)"
            return "this machine's clock is wrong (CLOCK_OFFSET)" if pace.held else pace.reason

        return Market(outbound, tracker, tokens, inbox, watch, keys, self._client.reach, paused)

    def _reader(self, maker: CallMaker) -> ReturnReader:
        entry, keys = self._entry, self._keys
        return ReturnReader(
            identity=identity(entry),
            profile=entry.profile,
            keys=keys,
            signer=keys.signer,
            agreed=keys.agreed,
            echoes=maker.echoes,
            return_url=entry.options.return_url or "",
        )

    def _pace(self) -> Pace:
        limits = self._entry.profile.limits
        return Pace(
            clock=self._shared.clock,
            rate_per_s=limits.rate_per_minute / 60,
            burst=limits.burst,
            concurrency=limits.concurrency,
            jitter=self._shared.jitter,
            held=lambda: self._shared.gate.held,
        )

    def _tokens(self, maker: CallMaker) -> TokenKeeper:
        name, options = self._entry.name, self._entry.options
        password = Password(options.password)
        return TokenKeeper(
            login(maker, self._client, options.username, password),
            clock=self._shared.clock,
            stopped=_account_alarm(self._journal, name),
            works=lambda stopped: self._account_works(stopped=stopped),
            changed=password.changed,
            released=self._journal.woken(f"account:{name}"),
            renew_at=self._entry.profile.token.renew_at,
        )

    async def _account_works(self, *, stopped: bool) -> None:
        """A login was good: what stopped it, in a former run too, is over, and what waits for it leaves."""
        name = self._entry.name
        standing = await self._journal.alarms(participant=name)
        if any(alarm.code == STOPPED for alarm in standing):
            await self._journal.alarm(STOPPED, participant=name, clear=True)
        if stopped and self._outbound is not None:
            self._outbound.resume()


def _account_alarm(journal: Journal, participant: str) -> Callable[[str], Awaitable[None]]:
    async def stopped(text: str) -> None:
        await journal.alarm(STOPPED, participant=participant, text=text)

    return stopped
