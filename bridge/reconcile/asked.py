"""What the platform says of transaction ids that the journal never heard of: one status call each, at the profile's pace."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias

from bridge.assembly import call_maker, client_settings, login
from bridge.clock import Clock
from bridge.config import Config, Participant
from bridge.errors import RetryLater
from bridge.journal.keys import KeyReader
from bridge.keyring import keys_in_use
from bridge.market.calls import CallMaker, StatusReport
from bridge.market.client import SmpClient
from bridge.market.token import AccountStopped, TokenKeeper
from bridge.model import ErrorNote, ItemState
from bridge.platform import AnswerClass, Report

TRIES: Final = 3
AT_WORK: Final = "the platform is still at work on it"
UNREADABLE: Final = "the platform's answer cannot be read, or is signed with a key that this journal does not know: `keys list` names those that it knows, `keys import` takes another"
_SILENT: Final = (AnswerClass.RETRY, AnswerClass.UNAUTHORISED, AnswerClass.IN_DOUBT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the platform says of one key of a transaction: REGISTERED, REFUSED or UNKNOWN, and in words for a person. Not `asked`: it said nothing, and may another time."""

    state: ItemState
    text: str
    asked: bool = True
    asset_id: str = ""
    errors: tuple[ErrorNote, ...] = ()


@dataclass(frozen=True, slots=True)
class _Silence:
    """Why the platform gave no answer."""

    text: str


_Answer: TypeAlias = StatusReport | _Silence | str  # as text: its answer holds no status


class Platform:
    """The participants' accounts, logged in when the first question comes."""

    def __init__(self, config: Config, journal: KeyReader, clock: Clock, jitter: Callable[[], float]) -> None:
        self._config = config
        self._journal = journal
        self._clock = clock
        self._jitter = jitter
        self._stack = AsyncExitStack()
        self._accounts: dict[str, _Account] = {}
        self._answers: dict[tuple[str, str], _Answer] = {}

    async def __aenter__(self) -> Self:
        """Ready to be asked."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._stack.aclose()

    async def say(self, participant: str, transaction_id: str, key: str) -> Said:
        """What became of this key of this transaction; UNKNOWN with the reason where nobody can say."""
        if transaction_id.startswith("#"):
            return Said(
                state=ItemState.UNKNOWN, text="the EMS holds only the short form of its id, so it cannot be asked"
            )
        answer = await self._answer(participant, transaction_id)
        if isinstance(answer, _Silence):
            return Said(state=ItemState.UNKNOWN, text=answer.text, asked=False)
        if isinstance(answer, str):
            return Said(state=ItemState.UNKNOWN, text=answer)
        if answer.report is None:
            return Said(state=ItemState.UNKNOWN, text=AT_WORK)
        return outcome_of(key, answer.report)

    async def stands(self, participant: str, transaction_id: str) -> str:
        """Where this transaction stands, in words for a person."""
        answer = await self._answer(participant, transaction_id)
        if isinstance(answer, _Silence):
            return answer.text
        if isinstance(answer, str):
            return answer
        return (
            AT_WORK if answer.report is None else "the platform has its outcome, which is taken when the host goes on"
        )

    async def _answer(self, participant: str, transaction_id: str) -> _Answer:
        where = (participant, transaction_id)
        if where not in self._answers:
            account = await self._account(participant)
            self._answers[where] = await account.ask(transaction_id)
        return self._answers[where]

    async def _account(self, participant: str) -> "_Account":
        if participant not in self._accounts:
            entry = self._config.participants[participant]
            client = await self._stack.enter_async_context(SmpClient(client_settings(entry), clock=self._clock))
            keys = await keys_in_use(self._journal, entry, self._clock)
            maker = call_maker(self._config, entry, clock=self._clock, jitter=self._jitter, keys=keys)
            self._accounts[participant] = _Account(entry, client, maker, self._clock)
        return self._accounts[participant]


class _Account:
    """One participant's questions."""

    def __init__(self, entry: Participant, client: SmpClient, maker: CallMaker, clock: Clock) -> None:
        self._client = client
        self._maker = maker
        rate = entry.profile.limits.rate_per_minute
        self._pause_s = 60 / rate if rate else 0.0

        async def stopped(text: str) -> None:
            """Nobody else is logged in here: the caller is told."""

        options = entry.options
        self._tokens = TokenKeeper(
            login(maker, client, options.username, options.password.reveal), clock=clock, stopped=stopped
        )

    async def ask(self, transaction_id: str) -> _Answer:
        """The status, or one line that says why there is none."""
        said: _Answer = ""
        for _ in range(TRIES):
            await asyncio.sleep(self._pause_s)
            try:
                token = await self._tokens.get()
            except (RetryLater, AccountStopped) as error:
                return _Silence(f"the platform could not be asked: {error}")
            call = self._maker.status(transaction_id)
            headers = {**call.headers, **self._maker.token_headers(token)}
            exchange = await self._client.post(
                call.path, method=call.method, headers=headers, body=call.body, secret=token
            )
            answer = self._maker.classify(exchange)
            if answer is AnswerClass.ACCEPTED:
                return self._maker.read_status(exchange, transaction_id) or _Silence(UNREADABLE)
            text = f"the platform answered {exchange.status}: {exchange.detail}".rstrip(": ")
            said = _Silence(text) if answer in _SILENT else text
        return said


def outcome_of(key: str, report: Report) -> Said:
    """One key of a whole batch's report; what the report does not name says nothing of it, unless all went well or all was refused."""
    errors = [error for error in report.errors if error.reference == key and not error.warning]
    if errors:
        notes = tuple(error.note for error in errors)
        return Said(state=ItemState.REFUSED, text=f"refused: {notes[0].code} {notes[0].text}", errors=notes)
    if report.rejected:
        return Said(state=ItemState.REFUSED, text="refused with its batch")
    if key in report.created:
        return Said(
            state=ItemState.REGISTERED, text=f"registered as {report.created[key]}", asset_id=report.created[key]
        )
    if report.success and not any(not error.warning for error in report.errors):
        return Said(state=ItemState.REGISTERED, text="registered")
    return Said(state=ItemState.UNKNOWN, text="the platform does not name it")
