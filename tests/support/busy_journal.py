"""A journal at work, and the book of what its callers were told: for each word, the moment (a number of recorded disk operations) of its commit.

The book is what a person could hold against the host: the EMS was acknowledged, a call left, SMP got its 202, an outcome stood.
"""

import asyncio
import hashlib
import itertools
from contextvars import ContextVar
from dataclasses import dataclass, field

from bridge.clock import Stamp
from bridge.errors import Replaced
from bridge.journal.port import (
    AnswerNote,
    Candidate,
    DueCall,
    FastCall,
    ItemOutcome,
    ReturnMessage,
    SignedCall,
    WriteBackResult,
)
from bridge.model import ErrorNote, ItemState, Operation, Trigger
from bridge.submission import Admission, SubmissionState, settled_state

PARTICIPANT = "acme"
SITES = ("north", "south")
S = SubmissionState
_START_NS = 1_795_000_000_000_000_000
_COMMITTED: ContextVar[int] = ContextVar("committed", default=0)


class CountingClock:
    """A clock whose monotonic time is the number of operations the disk has seen, so that a commit's stamp says after which one it was told."""

    def __init__(self, count):
        self._count = count
        self._looks = itertools.count()

    def now(self):
        return Stamp(self.wall_ns(), self._count(), "boot")

    def wall_ns(self):
        return _START_NS + next(self._looks) * 1000

    def mono_ns(self):
        return self._count()


@dataclass(frozen=True, slots=True)
class Step:
    """A submission's move: when it was asked for, when its caller knew it was on disk, and where to."""

    asked: int
    told: int
    state: SubmissionState


@dataclass(slots=True)
class Book:
    """Everything that was told, each with its moment."""

    accepted: list[tuple[int, Candidate]] = field(default_factory=list)
    offered: list[tuple[int, Candidate]] = field(default_factory=list)
    steps: dict[str, list[Step]] = field(default_factory=dict)
    bodies: list[tuple[int, str, bytes]] = field(default_factory=list)
    transactions: list[tuple[int, str, str]] = field(default_factory=list)
    returns: list[tuple[int, ReturnMessage]] = field(default_factory=list)
    outcomes: list[tuple[int, int, ItemState, str]] = field(default_factory=list)
    written: list[tuple[int, int, int]] = field(default_factory=list)
    drifted: dict[str, int] = field(default_factory=dict)
    """Keys asked for with other content after they were sent, and the earliest moment at which their places may say so."""

    def moments(self) -> set[int]:
        """When anything was told."""
        words = (self.accepted, self.bodies, self.transactions, self.returns, self.outcomes, self.written)
        return {word[0] for kind in words for word in kind} | {s.told for steps in self.steps.values() for s in steps}


class BusyJournal:
    """Works an open journal as a host would and keeps the book."""

    def __init__(self, journal, count, random):
        self.journal = journal
        self.book = Book()
        self._count = count
        self._random = random
        self._numbers = itertools.count(1)
        self._kept = []
        commit = journal._writer.run

        async def noted(work, **how):
            done = await commit(work, **how)
            _COMMITTED.set(done.at.mono_ns)
            return done

        journal._writer.run = noted  # the one way to every commit; its stamp is the moment of the word

    async def start(self):
        self.fields = {site: await self.journal.acquire(f"field:{site}") for site in SITES}
        self.market = await self.journal.acquire(f"market:{PARTICIPANT}")

    async def work(self, rounds):
        """Both sides at once, some calls left open at the end."""
        for _ in range(rounds):
            await asyncio.gather(*(self._field(site) for site in SITES), self._market_round())

    # field side ------------------------------------------------------------------------------------------------------

    async def _field(self, site):
        bursts = [[self._asset(site) for _ in range(self._random.randint(1, 4))] for _ in range(3)]
        await asyncio.gather(*(self._accept(site, burst) for burst in bursts))
        await self._accept(site, [self._changed(bursts[0][0])])
        await self._fast(site, [self._asset(site) for _ in range(2)])
        due, _ = await self.journal.due_writebacks(site, ("assets",), self._now(), 8)
        results = [WriteBackResult(id=row.id, generation=row.generation, state="read_back_ok") for row in due]
        await self.journal.wrote_back(self.fields[site], results)
        self.book.written += [(_COMMITTED.get(), row.id, row.generation) for row in due]

    async def _accept(self, site, candidates, fast=None):
        asked = self._count()
        self.book.offered += [(asked, candidate) for candidate in candidates]
        intake = await self.journal.accept(self.fields[site], candidates, fast)
        told = _COMMITTED.get()
        for candidate, accepted in zip(candidates, intake.accepted, strict=True):
            if accepted.admission in {Admission.NEW, Admission.REPLACE}:
                self.book.accepted.append((told, candidate))
                self._step(accepted.submission, asked, told, S.SENDING if intake.fast else S.WAITING)
            elif accepted.admission is Admission.DRIFT:
                self.book.drifted.setdefault(candidate.key or "", asked)
        return intake

    async def _fast(self, site, candidates):
        call = self._call()
        fast = FastCall(
            submission=f"fast-{next(self._numbers)}", keys=tuple(c.key for c in candidates), rows=tuple(range(len(candidates))),
            call=call, market=self.market,
        )  # fmt: skip
        intake = await self._accept(site, candidates, fast)
        assert intake.fast
        self.book.bodies.append((_COMMITTED.get(), fast.submission, call.body))
        await self._answer(fast.submission)

    # market side -----------------------------------------------------------------------------------------------------

    async def _market_round(self):
        for _ in range(3):
            due = await self.journal.next_call(PARTICIPANT, self._now(), allow=(Operation.ASSET_CREATE,))
            if not isinstance(due, DueCall):
                return
            asked, call = self._count(), due.call or self._call()
            count = max(1, len(due.items) - self._random.randint(0, 1))
            try:
                await self.journal.sending(self.market, due.submission, call, count)
            except Replaced:  # newer content came meanwhile: look again
                continue
            self._step(due.submission, asked, _COMMITTED.get(), S.SENDING)
            self.book.bodies.append((_COMMITTED.get(), due.submission, call.body))
            await self._answer(due.submission)

    async def _answer(self, submission):
        """What SMP says to a call, if it says anything, and the return that follows."""
        fate = self._random.choice(("accepted", "accepted", "accepted", "later", "nothing", "open"))
        if fate == "open":
            return
        state = {"accepted": S.AWAITING_RETURN, "later": S.RETRY_WAIT, "nothing": S.IN_DOUBT}[fate]
        transaction = f"T-{submission}" if fate == "accepted" else ""
        note = AnswerNote(status=202, headers={}, body=self._bytes(200), detail=fate, transaction_id=transaction)
        asked = self._count()
        await self.journal.answered(self.market, submission, state, note, retry_ns=0, cause=fate)
        told = _COMMITTED.get()
        self._step(submission, asked, told, state)
        if transaction:
            self.book.transactions.append((told, submission, transaction))
            await self._return(submission, transaction)

    async def _return(self, submission, transaction):
        message = ReturnMessage(
            participant=PARTICIPANT, message_id=f"R-{submission}", transaction_id=transaction, correlation_id="",
            content=hashlib.sha256(submission.encode()).digest(), body=self._bytes(600), headers={}, kid="smp", late=False,
            received=Stamp(self._now(), self._count(), "boot"),
        )  # fmt: skip
        parked = await self.journal.park_return(self.market, message)
        self.book.returns.append((_COMMITTED.get(), message))
        if self._random.random() < 0.3:
            return  # on disk, not settled
        found = await self.journal.find_submission(PARTICIPANT, transaction_id=transaction)
        results = [self._outcome(item.id) for item in found.items]
        state, asked = settled_state([result.state for result in results]), self._count()
        await self.journal.settle(self.market, submission, state, results, cause="return", return_id=parked.return_id)
        told = _COMMITTED.get()
        self._step(submission, asked, told, state)
        self.book.outcomes += [(told, result.item, result.state, result.asset_id) for result in results]

    # values ----------------------------------------------------------------------------------------------------------

    def _step(self, submission, asked, told, state):
        self.book.steps.setdefault(submission, []).append(Step(asked, told, state))

    def _outcome(self, item):
        if self._random.random() < 0.2:
            return ItemOutcome(item=item, state=ItemState.REFUSED, errors=(ErrorNote(code="E1", text="no"),))
        return ItemOutcome(item=item, state=ItemState.REGISTERED, asset_id=f"A-{item}")

    def _asset(self, site):
        number = next(self._numbers)
        return self._candidate(site, f"{site}-{number}", str(number), b"first")

    def _changed(self, candidate):
        """The same record, asked for again with other values: it replaces what waits, or is told apart from what was sent."""
        return self._candidate(candidate.site, candidate.key, f"{candidate.request}+", b"second")

    def _candidate(self, site, key, request, content):
        content = content + b" content of " + key.encode()
        return Candidate(
            site=site, flow="assets", place=key, participant=PARTICIPANT, operation=Operation.ASSET_CREATE, trigger=Trigger.REQUEST,
            request=request, key=key, content=content, digest=hashlib.sha256(content).digest()[:16], readings=self._bytes(300),
            stamps={"received": Stamp(self._now(), self._count(), "boot")}, max_items=6,
        )  # fmt: skip

    def _call(self):
        number = next(self._numbers)
        return SignedCall(
            message_id=f"M-{number}", correlation_id=f"C-{number}", method="POST", path="/assets", headers={"signature": f"s-{number}"},
            body=self._bytes(1500), kid="key", profile="default",
        )  # fmt: skip

    def _bytes(self, count):
        return self._random.randbytes(count)

    def _now(self):
        return self.journal._clock.wall_ns()
