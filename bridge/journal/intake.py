"""Commit 1: what each candidate is, decided in order and without writing; `writing` then writes it, perhaps with the signed call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bridge.journal.holds import HeldMemo, gates
from bridge.journal.leases import MESSAGE_MEMORY_NS
from bridge.journal.port import Accepted, Awaited, Candidate, FastCall, Fence, Intake
from bridge.journal.standing import Known, known
from bridge.journal.store import Rows, Tx, dump, load_stamps
from bridge.journal.writing import Asking, Key, Where, Writing, key_of, where_of
from bridge.model import ItemState, Kind, Trigger
from bridge.submission import Admission, Standing, admit

_A = Admission


@dataclass(slots=True)
class _Asked:
    """What is remembered of a place's last request (or of one message request)."""

    request: str
    at_ns: int
    awaiting: bool
    reply: str = ""


@dataclass(slots=True)
class _Verdicts:
    """The first pass: what each candidate is, decided in order without writing."""

    admissions: list[Admission] = field(default_factory=list)
    asked: dict[Where, _Asked] = field(default_factory=dict)
    replies: dict[Where, str] = field(default_factory=dict)
    standing: dict[Key, Standing] = field(default_factory=dict)
    places: dict[Key, tuple[str, str]] = field(default_factory=dict)


def accept(
    tx: Tx, new_id: Callable[[], str], fence: Fence, candidates: Sequence[Candidate], fast: FastCall | None
) -> Intake:
    """Admit the candidates and write what follows. The stamp of the commit is put in by the caller."""
    held = HeldMemo(tx)
    fast, plain = _allowed(tx, fence, candidates, fast, held)
    if fast is not None and plain:
        return Intake(accepted=[_plain(tx, fence, candidates[0], fast, new_id, held)], fast=True, journalled=tx.now)
    accepting = _Accepting(tx, candidates, tx.now.wall_ns)
    verdicts = accepting.decide(fast)
    if fast is not None and any(verdicts.admissions[row] is not _A.NEW for row in fast.rows):
        fast = None
        verdicts = accepting.decide(None)
    accepted = accepting.write(tx, fence, verdicts, fast, new_id, held)
    return Intake(accepted=accepted, fast=fast is not None, journalled=tx.now)


def _allowed(
    tx: Tx, fence: Fence, candidates: Sequence[Candidate], fast: FastCall | None, held: HeldMemo
) -> tuple[FastCall | None, bool]:
    """Fences and holds in one look: raise `Fenced` without the field's, drop the fast call without the market's, when it is held, or with rows that are not its own.

    And whether nothing is left to decide: one whole record of an asset that was never seen, which nobody asked for by a request.
    """
    if fast is None or not _names_its_rows(fast, candidates):
        tx.check(fence)
        return None, False
    first = candidates[fast.rows[0]]
    kind = first.operation.kind
    found = gates(tx, fence, fast.market, first.site, (first.participant, kind.value, first.key or ""))
    if not found.one:
        tx.check(fence)
    held.note(first.participant, first.site, is_held=found.held)
    if not found.other or found.held:
        return None, False
    asked = first.request is not None or first.refusal is not None or not first.content
    return fast, len(candidates) == 1 and not (found.seen or asked) and kind is Kind.ASSET


def _plain(
    tx: Tx, fence: Fence, candidate: Candidate, fast: FastCall, new_id: Callable[[], str], held: HeldMemo
) -> Accepted:
    """Nearly every record is one of these, so it does without what `_Accepting` looks up and decides; what is written is the same."""
    writing = Writing(tx, fence, {}, fast, new_id, held)
    accepted = writing.one(Asking(candidate, where_of(candidate), key_of(candidate)), _A.NEW, signed=True)
    writing.flush()
    return accepted


def preview(rows: Rows, candidates: Sequence[Candidate], now_ns: int) -> list[Admission]:
    """What `accept` would make of each candidate; nothing is changed."""
    return _Accepting(rows, candidates, now_ns).decide(None).admissions


def awaited(rows: Rows, site: str) -> list[Awaited]:
    """Requests without their registration, oldest first."""
    found = rows.all(
        "SELECT flow, place, request, received FROM triggers WHERE site = ? AND awaiting = 1 ORDER BY at_ns, flow, place, slot",
        (site,),
    )
    return [Awaited(flow, place, request, load_stamps(text)["received"]) for flow, place, request, text in found]


def _names_its_rows(fast: FastCall, candidates: Sequence[Candidate]) -> bool:
    """Whether the call's rows are the candidates of its keys in their order, for that is the order of the items."""
    if not fast.rows or list(fast.rows) != sorted(set(fast.rows)) or fast.rows[-1] >= len(candidates):
        return False
    return [candidates[row].key for row in fast.rows] == list(fast.keys)


class _Accepting:
    """One accept: what the journal knew before, and what is to be written."""

    def __init__(self, rows: Rows, candidates: Sequence[Candidate], now_ns: int) -> None:
        self._rows = rows
        self._now_ns = now_ns
        self._asking = [Asking(candidate, where_of(candidate), key_of(candidate)) for candidate in candidates]
        self._known = self._load_known()
        self._asked = self._load_asked()

    # first pass ------------------------------------------------------------------------------------------------------

    def decide(self, fast: FastCall | None) -> _Verdicts:
        """What each candidate is, in order; a later one sees what the earlier ones would change."""
        verdicts = _Verdicts()
        signed = frozenset(fast.rows if fast else ())
        for row, asking in enumerate(self._asking):
            admission = self._admission(asking, verdicts, signed=row in signed)
            verdicts.admissions.append(admission)
            if asking.candidate.request is not None:
                self._note_request(asking, admission, verdicts)
        return verdicts

    def _note_request(self, asking: Asking, admission: Admission, verdicts: _Verdicts) -> None:
        """What is remembered of this request. One that is completed keeps its reply; one that is told again may have it sent elsewhere."""
        candidate, where, _ = asking
        request = candidate.request or ""
        before = verdicts.asked.get(where) or self._asked.get(where)
        if admission is _A.SEEN:
            if before is not None and candidate.reply not in ("", before.reply):
                verdicts.replies[where] = candidate.reply
            return
        completed = before is not None and before.awaiting and before.request == request
        reply = candidate.reply or (verdicts.replies.get(where, before.reply) if before and completed else "")
        verdicts.asked[where] = _Asked(request, self._now_ns, admission is _A.REQUESTED, reply)
        verdicts.replies.pop(where, None)

    def _admission(self, asking: Asking, verdicts: _Verdicts, *, signed: bool) -> Admission:
        candidate = asking.candidate
        complete = bool(candidate.content) or candidate.refusal is not None
        if candidate.request is not None and self._handled(asking, verdicts, complete=complete):
            return _A.SEEN
        if candidate.refusal is not None:
            return _A.INVALID
        if not complete:
            return _A.REQUESTED
        return self._admit(asking, verdicts, signed=signed)

    def _handled(self, asking: Asking, verdicts: _Verdicts, *, complete: bool) -> bool:
        candidate, where, _ = asking
        asked = verdicts.asked.get(where) or self._asked.get(where)
        if asked is None or asked.request != candidate.request or (asked.awaiting and complete):
            return False
        forgotten = candidate.trigger is Trigger.MESSAGE and asked.at_ns < self._now_ns - MESSAGE_MEMORY_NS
        return asked.awaiting or not forgotten

    def _admit(self, asking: Asking, verdicts: _Verdicts, *, signed: bool) -> Admission:
        candidate, _, key = asking
        place = (candidate.flow, candidate.place)
        if verdicts.places.setdefault(key, place) != place:
            return _A.DUPLICATE_IN_REQUEST
        standing = verdicts.standing.get(key)
        if standing is None and key in self._known:
            standing = self._known[key].standing
        admission = admit(
            standing,
            digest=candidate.digest,
            site=candidate.site,
            flow=candidate.flow,
            trigger=candidate.trigger,
        )
        if admission is _A.ADOPT and standing is not None:
            verdicts.standing[key] = standing._replace(
                digest=candidate.digest, site=candidate.site, flow=candidate.flow
            )
        if admission in (_A.NEW, _A.REPLACE):
            verdicts.standing[key] = Standing(
                state=ItemState.SENDING if signed else ItemState.WAITING,
                digest=candidate.digest,
                site=candidate.site,
                flow=candidate.flow,
                closed=signed,
            )
        return admission

    def _load_known(self) -> dict[Key, Known]:
        groups: dict[tuple[str, Kind], list[str]] = {}
        for candidate, _, (participant, kind, key) in self._asking:
            if key and candidate.content:
                groups.setdefault((participant, kind), []).append(key)
        return {
            (participant, kind, key): found
            for (participant, kind), keys in groups.items()
            for key, found in known(self._rows, participant, kind, keys).items()
        }

    def _load_asked(self) -> dict[Where, _Asked]:
        groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for candidate, (site, flow, place, slot), _ in self._asking:
            if candidate.request is not None:
                groups.setdefault((site, flow), []).append((place, slot))
        asked: dict[Where, _Asked] = {}
        for (site, flow), places in groups.items():
            found = self._rows.all(
                "SELECT t.place, t.slot, t.request, t.at_ns, t.awaiting, t.reply FROM json_each(?) p CROSS JOIN triggers t"
                " ON t.site = ? AND t.flow = ? AND t.place = p.value ->> 0 AND t.slot = p.value ->> 1",
                (dump(places), site, flow),
            )
            for place, slot, request, at_ns, awaiting, reply in found:
                asked[site, flow, place, slot] = _Asked(request, at_ns, bool(awaiting), reply)
        return asked

    # second pass -----------------------------------------------------------------------------------------------------

    def write(
        self,
        tx: Tx,
        fence: Fence,
        verdicts: _Verdicts,
        fast: FastCall | None,
        new_id: Callable[[], str],
        held: HeldMemo,
    ) -> list[Accepted]:
        """Write everything that the verdicts ask for, and one event per submission or kind of verdict."""
        writing = Writing(tx, fence, self._known, fast, new_id, held)
        signed = frozenset(fast.rows if fast else ())
        accepted = [
            writing.one(asking, admission, signed=row in signed)
            for row, (asking, admission) in enumerate(zip(self._asking, verdicts.admissions, strict=True))
        ]
        writing.flush()
        self._store_asked(tx, verdicts.asked)
        if verdicts.replies:
            changed = [(reply, *where) for where, reply in verdicts.replies.items()]
            tx.many("UPDATE triggers SET reply = ? WHERE site = ? AND flow = ? AND place = ? AND slot = ?", changed)
        return accepted

    def _store_asked(self, tx: Tx, asked: dict[Where, _Asked]) -> None:
        if not asked:
            return
        received = {where: candidate.stamps.get("received", tx.now) for candidate, where, _ in self._asking}
        shown = {stamp: dump({"received": list(stamp)}) for stamp in set(received.values())}
        tx.many(
            "INSERT INTO triggers (site, flow, place, slot, request, at_ns, awaiting, received, reply) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (site, flow, place, slot) DO UPDATE SET request = excluded.request, at_ns = excluded.at_ns,"
            " awaiting = excluded.awaiting, received = excluded.received, reply = excluded.reply",
            [
                (*where, row.request, row.at_ns, row.awaiting, shown[received[where]], row.reply)
                for where, row in asked.items()
            ],
        )
