"""The journal's port: use cases, never rows. Two engines stand behind it and one contract test-suite holds them to it.

Every call that changes something is one durable commit (grouped with others by the engine, each under its own savepoint so that a bad one
fails alone) and returns only when it is on disk. Every such call names the `Fence` of the lease it works under and raises `Fenced` when a
newer epoch exists. Any call raises `JournalFull` (disk or cap full: stop acknowledging, try again later) or `JournalUnusable`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from bridge.clock import Stamp
from bridge.errors import BridgeError
from bridge.journal.access import Access, AccessReader
from bridge.journal.brownfield import AssetImporter, AssetReader
from bridge.journal.keys import KeyKeeper, KeyReader
from bridge.journal.people import HoldReader, People
from bridge.lane import FastCall, Fence, SignedCall
from bridge.latency import Wait
from bridge.model import EmsOutcome, ErrorNote, ItemState, Kind, Operation, Refusal, Trigger
from bridge.submission import Admission, SubmissionState

__all__ = ["FastCall", "Fence", "SignedCall"]  # re-exported from bridge.lane; the rest of the module is public too

Stamps = Mapping[str, Stamp]


# ------------------------------------------------------------------------------------------------ field side: commit 1


@dataclass(slots=True, kw_only=True)  # not frozen: one is made for each record, and that would take three times as long
class Candidate:
    """One record of an EMS on its way in: mapped to an item (`content`), refused by the host (`refusal`), or a request whose registration is awaited (neither).

    `content` is the item in the host's vocabulary as canonical JSON, `digest` its SHA-256 cut to 16 bytes, `depends` the references of a unit's
    members. `readings` is the legacy leg for evidence (JSON or raw bytes). `max_items` bounds the submission that it may join (1 for units),
    `linger_ns` is how long an open submission waits for more, `deadline_ns` when (UTC) it expires. `reply` is the adapter's own word on where the
    answer goes (`Record.reply`); it stands with the request for as long as the request is remembered.
    """

    site: str
    flow: str
    place: str
    participant: str
    operation: Operation
    trigger: Trigger
    request: str | None
    key: str | None
    content: bytes = b""
    digest: bytes = b""
    refusal: Refusal | None = None
    depends: tuple[str, ...] = ()
    readings: bytes = b""
    stamps: Stamps = field(default_factory=dict)
    max_items: int = 1000
    linger_ns: int = 0
    deadline_ns: int = 0
    progress: bool = True
    reply: str = ""


class Accepted(NamedTuple):
    """What one candidate became."""

    admission: Admission
    item: int | None = None
    submission: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The answer to `accept`, one `Accepted` per candidate in the same order. `fast` tells whether the fast call is on disk as SENDING: then, and only then, send it."""

    accepted: Sequence[Accepted]
    fast: bool
    journalled: Stamp


class Awaited(NamedTuple):
    """A `message` request that is on disk and still waits for its registration."""

    flow: str
    place: str
    request: str
    received: Stamp


# ------------------------------------------------------------------------------------------------ field side: write-back


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWriteBack:
    """An outcome that the EMS has not been told yet. `generation` rises with each newer outcome of the place; `key` is '' where the record had none.

    `settled` is when its submission was settled, None for words before that and for the host's own refusals; `submission` is '' where there is none.
    `reply` is what the request that is answered came with (`Candidate.reply`).
    """

    id: int
    site: str
    flow: str
    place: str
    key: str
    generation: int
    outcome: EmsOutcome
    attempts: int
    due_ns: int
    item: int | None = None
    settled: Stamp | None = None
    submission: str = ""
    reply: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBackResult:
    """What became of a try: `state` is one of written, read_back_ok, retry, stuck, moved (DOMAIN 5, write-back machine)."""

    id: int
    generation: int
    state: str
    error: str = ""
    next_ns: int = 0
    stamp: Stamp | None = None


# ------------------------------------------------------------------------------------------------ market side


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingItem:
    """One item of a waiting submission, in order of arrival."""

    id: int
    key: str
    content: bytes
    received: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What the journal knows of a unit's member: None state = never seen; `content` holds the asset's own item (for defaults such as the aligned capacity)."""

    key: str
    state: ItemState | None
    asset_id: str = ""
    content: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCall:
    """The next submission that may go out. `call` is set when it was signed before (a retry sends the same bytes).

    `waited` names what outside the host kept it from going out before, None for nothing.
    """

    submission: str
    site: str
    flow: str
    operation: Operation
    state: SubmissionState
    items: Sequence[WaitingItem]
    attempts: int
    deadline_ns: int
    call: SignedCall | None = None
    members: Sequence[Member] = ()
    stamps: Stamps = field(default_factory=dict)
    waited: Wait | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoneDue:
    """Nothing may go out now; `next_ns` (UTC, 0 = none known) is when time alone makes something due."""

    next_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerNote:
    """The answer to a POST as evidence: status 0 when there was none; `detail` is one line for a person, `peer` the certificate that the server showed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    detail: str
    transaction_id: str = ""
    stamps: Stamps = field(default_factory=dict)
    peer: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemOutcome:
    """The outcome of one item: REGISTERED, REFUSED (with errors) or UNKNOWN."""

    item: int
    state: ItemState
    asset_id: str = ""
    errors: tuple[ErrorNote, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenItem:
    """One item of a submission as the tracker sees it."""

    id: int
    key: str
    state: ItemState
    asset_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSubmission:
    """A submission that went out, with its items in the order of the call (the order that `recordIndex`-like errors count by)."""

    id: str
    participant: str
    flow: str
    operation: Operation
    state: SubmissionState
    message_id: str
    transaction_id: str
    sent_ns: int
    items: Sequence[OpenItem]
    stamps: Stamps = field(default_factory=dict)
    site: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnMessage:
    """A signed return as it came: the exact body, the signature header, and what routes it. `content` is a digest of its meaning without its own timestamp.

    `correlation_id` is the id of ours that it echoes: that of our message where it names it, else the correlation id.
    `checks` names those that it passed, in order; `peer` is the certificate that the caller showed. Both are told once, when it is parked.
    """

    participant: str
    message_id: str
    transaction_id: str
    correlation_id: str
    content: bytes
    body: bytes
    headers: Mapping[str, str]
    kid: str
    late: bool
    received: Stamp
    quarantined: str = ""
    checks: str = ""
    peer: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """`new`, `duplicate` (same id and content: `receipt_ns` is the first one's) or `conflict` (same id, other content: both are stored, alarm raised)."""

    verdict: str
    return_id: int
    receipt_ns: int
    found: OpenSubmission | None = None
    """What a new one answers, as this commit saw it: of few items, found by its transaction id alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedReturn:
    """A stored return that is not settled yet; `found` is what it answers, where its own commit saw that."""

    id: int
    message: ReturnMessage
    found: OpenSubmission | None = None


class Overtaken(BridgeError):
    """An answer refuses a call of which these `returns` were on disk before it: what they say has to be looked at first."""

    def __init__(self, message: str, returns: Sequence[ParkedReturn]) -> None:
        super().__init__(message)
        self.returns = returns


# ------------------------------------------------------------------------------------------------ reading for people


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionView:
    """A submission as `submissions list|show` and the demo print it. `segments` name the archive's files that hold its older events."""

    id: str
    participant: str
    site: str
    flow: str
    operation: Operation
    state: SubmissionState
    transaction_id: str
    items: int
    outcomes: Mapping[str, int]
    reason: str
    attempts: int
    stamps: Stamps
    segments: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """An item as `submissions show` prints it."""

    id: int
    key: str
    place: str
    site: str
    flow: str
    state: ItemState
    asset_id: str
    errors: Sequence[ErrorNote]
    written_back: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One event of the append-only record."""

    writer: str
    epoch: int
    number: int
    at_ns: int
    kind: str
    subject: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmView:
    """One alarm row; `runbook` says what to do. `site` is the submission's where the alarm speaks of one. Times are UTC ns, 0 = not yet."""

    id: int
    code: str
    participant: str
    site: str
    subject: str
    text: str
    runbook: str
    count: int
    raised_ns: int
    last_ns: int
    cleared_ns: int
    acked_ns: int = 0
    acked_by: str = ""
    note: str = ""


class AlarmCount(NamedTuple):
    """How many alarms of one kind stand; `environment` is that of a hold of a whole environment."""

    code: str
    participant: str
    site: str
    environment: str
    acked: bool
    number: int


class JournalReader(HoldReader, AssetReader, KeyReader, AccessReader, Protocol):
    """The record as people read it: beside a running service or without one, never changing anything."""

    async def alarms(
        self,
        *,
        open_only: bool = True,
        participant: str = "",
        site: str = "",
        of_host: bool = False,
        limit: int = 1000,
    ) -> Sequence[AlarmView]:
        """Alarm rows, newest first; acknowledged ones stand until they are cleared. `of_host`: those alone that are of no participant and no site."""
        ...

    async def alarm_counts(self) -> Sequence[AlarmCount]:
        """How many alarms stand, for the metric."""
        ...

    async def alarm_codes(self, site: str, participants: Sequence[str]) -> Sequence[str]:
        """The codes of the alarms that stand for a site: its own, those of these participants as a whole, and the host's. The topic `alarms` says when to look again."""
        ...

    async def submissions(
        self,
        *,
        participant: str = "",
        participants: Sequence[str] | None = None,
        site: str = "",
        state: SubmissionState | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        before: str = "",
        limit: int = 100,
    ) -> Sequence[SubmissionView]:
        """Submissions, newest first: of one participant, or of any of `participants`; made from `since_ns` to `until_ns` (UTC, both with their millisecond); older than the one that is `before`, so that pages stay whole while new ones come."""
        ...

    async def submission(self, submission: str) -> SubmissionView | None:
        """One submission by its id; None when the journal has none."""
        ...

    async def submission_items(self, submission: str) -> Sequence[ItemView]:
        """The items of one submission, in the order of the call."""
        ...

    async def events(self, subject: str, *, limit: int = 1000) -> Sequence[EventView]:
        """The events of one subject (a submission id), oldest first."""
        ...

    async def member(self, participant: str, kind: Kind, key: str) -> Member:
        """What is known of one key."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """Gauges: waiting items, submissions by state (`submissions.<STATE>`), pending write-backs, parked returns, bytes."""
        ...

    async def close(self) -> None:
        """Finish what was handed in, then close. Safe to call twice."""
        ...


class Journal(JournalReader, People, AssetImporter, KeyKeeper, Access, Protocol):
    """The durable record of one host."""

    @property
    def full(self) -> bool:
        """Whether the last commit found no room (disk or cap): nothing is acknowledged until there is some again."""
        ...

    # life -----------------------------------------------------------------------------------------------------------

    async def acquire(self, lease: str) -> Fence:
        """Take `field:<site>` or `market:<participant>` for this process; the epoch rises. Raises `LeaseHeld` when another live process has it."""
        ...

    async def renew(self, fences: Sequence[Fence]) -> None:
        """Push the leases' expiry on; raises `Fenced` when one was taken over."""
        ...

    async def release(self, fences: Sequence[Fence]) -> None:
        """Give leases back at an orderly stop."""
        ...

    def woken(self, topic: str) -> asyncio.Event:
        """An event set (by any process on this journal, never by polling) when `topic` has work: `field:<site>` write-backs, `market:<participant>` calls or returns.

        Each call returns an event of its own (several adapters of one site wait apart); its waiter clears it before it looks.
        """
        ...

    # field side ------------------------------------------------------------------------------------------------------

    async def accept(
        self,
        fence: Fence,
        candidates: Sequence[Candidate],
        fast: FastCall | None = None,
        *,
        told: Callable[[Intake | None], None] | None = None,
    ) -> Intake:
        """Commit 1: admit each candidate in order (repeat of a request, then `submission.admit`), queue the new items, note write-backs (progress words where `progress`), events and evidence.

        A request is a repeat (SEEN, or REPEAT with the standing outcome written back again) when its `request` equals the last one handled at that
        place (`request`), or was seen at that flow and place in the last 7 days (`message`). A candidate with neither content nor refusal is REQUESTED:
        it waits for its registration, and the later candidate of the same request completes it. The same key twice in one call: the second is DUPLICATE_IN_REQUEST.
        Waiting items join the flow's open submission (state WAITING, up to `max_items`), else open one.

        `told` is called on the loop, once, the moment it is known what became of the commit, with None when it failed: before this call returns, and whether
        or not anybody still waits for it. A call that raises at once tells nobody.
        """
        ...

    async def preview(self, candidates: Sequence[Candidate]) -> Sequence[Admission]:
        """What `accept` would make of each candidate now; nothing is changed."""
        ...

    async def awaited(self, site: str) -> Sequence[Awaited]:
        """Requests of this site that still wait for their registration (after a restart too)."""
        ...

    async def due_writebacks(
        self, site: str, flows: Sequence[str], now_ns: int, limit: int
    ) -> tuple[Sequence[DueWriteBack], int]:
        """Outcomes of these flows to write now, oldest first, and when (UTC ns, 0 = none) the next one becomes due.

        None while the site's EMS may know more than the journal (`Scope.JOURNAL`, `Scope.EMS`): they would erase what it shows.
        """
        ...

    async def wrote_back(self, fence: Fence, results: Sequence[WriteBackResult], *, lazy: bool = False) -> None:
        """Note what became of write-backs; a result of an older generation is noted as an event and changes no state. `stuck` and `moved` raise an alarm.

        `lazy` notes may wait some milliseconds for a commit that is made anyway: a word that is written twice after a crash does no harm.
        """
        ...

    async def retry_stuck(self, fence: Fence, site: str, flows: Sequence[str]) -> None:
        """A link came back: everything stuck or in retry of these flows is due at once."""
        ...

    # market side -----------------------------------------------------------------------------------------------------

    async def recover(self, fence: Fence, *, repeats: bool = False) -> Sequence[str]:
        """At start-up of a market side: every SENDING of an earlier epoch becomes IN_DOUBT (alarm, write-back 5); their ids are returned.

        With `repeats` (the platform recognises a message id) everything in doubt goes again as the same message.
        """
        ...

    async def next_call(self, participant: str, now_ns: int, *, allow: Sequence[Operation]) -> DueCall | NoneDue:
        """The oldest submission that may go out: WAITING whose linger is over or which is full, RETRY_WAIT whose time has come.

        Units come with `members`; one whose members are all REGISTERED, or with a member that can never be (REFUSED, UNKNOWN, EXPIRED, CANCELLED), is due; with members still
        open it is passed over until a member changes or its deadline comes. A submission past its deadline is due too (the caller expires it).
        IN_DOUBT that a person, or a platform that recognises repeats, sends again comes first. Nothing that is held is due.
        """
        ...

    async def next_calls(
        self, participant: str, now_ns: int, *, allow: Sequence[Operation], most: int
    ) -> Sequence[DueCall] | NoneDue:
        """As many submissions that may go out now, in the order in which `next_call` would give them out one by one, together with 1,000 items at most."""
        ...

    async def past_deadline(self, participant: str, now_ns: int) -> tuple[Sequence[str], int]:
        """Submissions that wait although their deadline is over (the first of them), and when the next one's is (UTC ns, 0 = none)."""
        ...

    async def sending(self, fence: Fence, submission: str, call: SignedCall, items: int) -> Stamp:
        """Commit 2: the signed bytes and SENDING. The first `items` items belong to the call; the rest move, in order, to a new WAITING submission in front of the others.

        When this returns the call may leave, not before. Raises `Replaced` when an item's content was replaced since `next_call` gave it out, or the submission
        was settled, cancelled or held: ask again.
        """
        ...

    async def answered(
        self,
        fence: Fence,
        submission: str,
        state: SubmissionState,
        answer: AnswerNote,
        *,
        retry_ns: int = 0,
        cause: str = "",
        items: int = 1,
    ) -> Sequence[ParkedReturn]:
        """Journal the answer and the move it causes (AWAITING_RETURN with the transaction id, WAITING, RETRY_WAIT until `retry_ns`, IN_DOUBT).

        `items` is how many the submission has, which says how long this takes.

        IN_DOUBT with `retry_ns`: the same message goes again then, for the platform recognises repeats.

        Returns the parked returns that wait for this transaction id, message id or correlation id. Raises `TransactionKnown`, and nothing was journalled,
        when AWAITING_RETURN comes with the transaction id of another submission of the participant.
        """
        ...

    async def settle(
        self,
        fence: Fence,
        submission: str,
        state: SubmissionState,
        outcomes: Sequence[ItemOutcome],
        *,
        cause: str,
        return_id: int | None = None,
        answer: AnswerNote | None = None,
        stamps: Stamps | None = None,
        again: Sequence[Sequence[int]] = (),
    ) -> bool:
        """Move a submission to a settled or terminal state with its items' outcomes, their write-backs and the events, and wake what depends on them.

        Each group of `again` (item ids) becomes a new WAITING submission at the same place in line: the old items keep their outcome as evidence,
        the new ones stand for their references, and the EMS is told of these alone.

        On a terminal submission only enrichment that contradicts nothing is taken (asset ids); anything that contradicts is an event and a CONFLICT alarm, state kept.
        What the host says of itself (OVERDUE, UNRESOLVED, SET_ASIDE) is nothing then.

        Returns whether it moved: a return and a status answer that cross each other end it once. Raises `Overtaken` for an answer that refuses a call
        of which a return is on disk already: nothing of it may be sent again on that word.
        """
        ...

    async def refuse_waiting(self, fence: Fence, submission: str, state: SubmissionState, refusal: Refusal) -> None:
        """End a submission that never went out (REJECTED, EXPIRED, CANCELLED, SET_ASIDE): its items are refused by the host with this reason (EXPIRED and CANCELLED as such).

        Raises `Replaced` as `sending` does: the reason may not hold for the newer content.
        """
        ...

    async def set_aside(self, fence: Fence, submission: str, cause: str) -> None:
        """What cannot go on by itself becomes SET_ASIDE (alarm, write-back 11) and stands in nobody's way. What is in doubt stays so, and is not sent again."""
        ...

    async def park_return(self, fence: Fence, message: ReturnMessage) -> Parked:
        """Store a verified return durably; only then may the end point answer 2xx."""
        ...

    async def close_return(self, fence: Fence, return_id: int, verdict: str) -> None:
        """A parked return was dealt with: settled, orphan, conflict, late_note, quarantined."""
        ...

    async def unsettled_returns(self, participant: str, *, after: int = 0, limit: int = 100) -> Sequence[ParkedReturn]:
        """Returns that are on disk but not dealt with (after a restart), oldest first: at most `limit` of them, behind the one of id `after`."""
        ...

    async def find_submission(
        self,
        participant: str,
        *,
        transaction_id: str = "",
        message_id: str = "",
        correlation_id: str = "",
        submission: str = "",
    ) -> OpenSubmission | None:
        """The submission that a return or an answer speaks of."""
        ...

    async def open_submissions(self, participant: str) -> Sequence[OpenSubmission]:
        """Those that await a return (AWAITING_RETURN, OVERDUE, IN_DOUBT), for the tracker at start-up; items may be left empty."""
        ...

    # people ----------------------------------------------------------------------------------------------------------

    async def alarm(
        self,
        code: str,
        *,
        participant: str = "",
        site: str = "",
        subject: str = "",
        text: str = "",
        clear: bool = False,
    ) -> None:
        """Raise (or count again, or clear) an alarm row."""
        ...

    async def ack_alarm(
        self, alarm: int, by: str, note: str = "", *, more: Mapping[str, str] | None = None
    ) -> AlarmView:
        """Note, as an event too, that somebody knows of an alarm; it stands until it is cleared, and what is raised after that is a new row.

        `more` stands in the event, as a decision's does: by which token it came.
        Raises `NotPossible` when there is no such alarm or it was cleared.
        """
        ...
