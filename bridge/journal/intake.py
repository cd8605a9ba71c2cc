"""Commit 1: admit candidates, queue what is new, note what each place is to be told, and perhaps the signed call with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bridge.journal import writebacks
from bridge.journal.assets import Adopted, adopt
from bridge.journal.calls import clock_of, envelope_digest
from bridge.journal.holds import HeldMemo, gates
from bridge.journal.leases import MESSAGE_MEMORY_NS
from bridge.journal.port import Accepted, Awaited, Candidate, FastCall, Fence, Intake
from bridge.journal.queueing import Line, Queueing
from bridge.journal.standing import Known, known, look_again, units_of
from bridge.journal.store import NO_BLOB, Blob, Rows, Tx, dump, dump_errors, load_stamps
from bridge.journal.writebacks import QUIET, Word
from bridge.model import EmsState, ErrorNote, HostReason, ItemState, Kind, Trigger
from bridge.submission import Admission, Standing, admit

_A = Admission
Key = tuple[str, Kind, str]
Where = tuple[str, str, str, str]

_PART_BYTES: Final = 4


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
    writing = _Writing(tx, fence, {}, fast, new_id, held)
    accepted = writing.one(_Asking(candidate, _where(candidate), _key(candidate)), _A.NEW, signed=True)
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


def slot_of(candidate: Candidate) -> str:
    """The request id where each request stands alone, '' where only the place's last one counts."""
    return (candidate.request or "") if candidate.trigger is Trigger.MESSAGE else ""


def _where(candidate: Candidate) -> Where:
    return (candidate.site, candidate.flow, candidate.place, slot_of(candidate))


def _key(candidate: Candidate) -> Key:
    return (candidate.participant, candidate.operation.kind, candidate.key or "")


class _Asking(NamedTuple):
    """A candidate and what it is looked up by, made once: a call may bring a thousand."""

    candidate: Candidate
    where: Where
    key: Key


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
        self._asking = [_Asking(candidate, _where(candidate), _key(candidate)) for candidate in candidates]
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

    def _note_request(self, asking: _Asking, admission: Admission, verdicts: _Verdicts) -> None:
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

    def _admission(self, asking: _Asking, verdicts: _Verdicts, *, signed: bool) -> Admission:
        candidate = asking.candidate
        complete = bool(candidate.content) or candidate.refusal is not None
        if candidate.request is not None and self._handled(asking, verdicts, complete=complete):
            return _A.SEEN
        if candidate.refusal is not None:
            return _A.INVALID
        if not complete:
            return _A.REQUESTED
        return self._admit(asking, verdicts, signed=signed)

    def _handled(self, asking: _Asking, verdicts: _Verdicts, *, complete: bool) -> bool:
        candidate, where, _ = asking
        asked = verdicts.asked.get(where) or self._asked.get(where)
        if asked is None or asked.request != candidate.request or (asked.awaiting and complete):
            return False
        forgotten = candidate.trigger is Trigger.MESSAGE and asked.at_ns < self._now_ns - MESSAGE_MEMORY_NS
        return asked.awaiting or not forgotten

    def _admit(self, asking: _Asking, verdicts: _Verdicts, *, signed: bool) -> Admission:
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
        writing = _Writing(tx, fence, self._known, fast, new_id, held)
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


class _Writing:
    """The second pass of one accept."""

    def __init__(
        self,
        tx: Tx,
        fence: Fence,
        before: dict[Key, Known],
        fast: FastCall | None,
        new_id: Callable[[], str],
        held: HeldMemo,
    ) -> None:
        self._tx = tx
        self._fence = fence
        self._known = before
        self._queue = Queueing(tx, new_id, fast)
        self._fast = fast
        self._held = held
        self._words: dict[Where, Word] = {}
        self._verdicts: dict[tuple[str, str, Admission], list[list[str | None]]] = {}
        self._pieces: dict[str, list[bytes]] = {}
        self._readings: dict[str, Blob] = {}
        self._adopted: list[Adopted] = []

    def one(self, asking: _Asking, admission: Admission, *, signed: bool) -> Accepted:
        """Plan what one candidate changes; `signed` when it is part of the fast call."""
        candidate, where, key = asking
        if admission is _A.NEW:
            return self._new(candidate, where[3], key, signed=signed)
        if admission is _A.REPLACE:
            return self._replace(candidate, key)
        if admission is _A.SEEN:
            again = where in self._words or writebacks.say_again(self._tx, where)
            return Accepted(admission=_A.REPEAT if again else _A.SEEN)
        if admission is _A.REPEAT:
            return self._repeat(candidate, key)
        if admission is _A.ADOPT:
            return self._adopt(candidate)
        self._refuse(candidate, admission)
        return Accepted(admission=admission)

    def flush(self) -> None:
        """Write the plan. The readings are one blob per participant: each candidate's behind their length (4 bytes, big-endian)."""
        self._readings = {whose: self._tx.blob(whose, b"".join(pieces)) for whose, pieces in self._pieces.items()}
        blobs = {participant: blob.id for participant, blob in self._readings.items()}
        self._queue.flush(blobs)
        if self._adopted:
            adopt(self._tx, self._adopted, blobs)
        if self._words:
            writebacks.say(self._tx, list(self._words.values()))
        self._unblock()
        self._events()

    # one verdict each ------------------------------------------------------------------------------------------------

    def _new(self, candidate: Candidate, slot: str, key: Key, *, signed: bool) -> Accepted:
        line = self._queue.line_for(candidate, signed=signed)
        item = self._queue.add(line, candidate, slot, key, self._keep(candidate))
        if candidate.progress:
            state = EmsState.SENT if line.fast else self._waiting(candidate)
            self._say(candidate, state, ticket=item, follows=item)
        return Accepted(_A.NEW, item, line.id)

    def _replace(self, candidate: Candidate, key: Key) -> Accepted:
        part = self._keep(candidate)
        planned = self._queue.planned(key)
        if planned is not None:
            item, line = self._queue.change(planned, candidate, slot_of(candidate), part)
            submission = line.id
        else:
            found = self._known[key]
            item = found.item
            moved = (found.place, found.slot) != (candidate.place, slot_of(candidate))
            submission = self._queue.replace(found, candidate, slot_of(candidate), part, moved=moved)
        step = writebacks.PENDING if candidate.progress else QUIET
        self._say(candidate, self._waiting(candidate), ticket=self._queue.last_item, follows=item, step=step)
        return Accepted(admission=_A.REPLACE, item=item, submission=submission)

    def _repeat(self, candidate: Candidate, key: Key) -> Accepted:
        planned = self._queue.planned(key)
        if planned is not None:  # the same record twice in one call: the first one's words stand
            if _where(candidate) != _where(planned.candidate):  # but each request is answered
                state = EmsState.SENT if planned.line.fast else self._waiting(candidate)
                step = writebacks.PENDING if candidate.progress else QUIET
                self._say(candidate, state, ticket=self._queue.last_item, follows=planned.id, step=step)
                self._queue.echo(planned.line)
            return Accepted(admission=_A.REPEAT, item=planned.id, submission=planned.line.id)
        found = self._known[key]
        told = self._waiting(candidate) if found.state is ItemState.WAITING else found.state.ems
        quiet = not candidate.progress and not told.final and told is not EmsState.IN_DOUBT
        word = self._word(candidate, told, ticket=self._queue.last_item, follows=found.item)
        word.transaction_id, word.asset_id, word.errors = found.transaction_id, found.asset_id, found.errors
        word.step = QUIET if quiet else writebacks.PENDING
        changed = candidate.trigger is Trigger.CHANGE
        if not (changed and writebacks.says_so_already(self._tx, word, same_request=False)):
            self._settle_drift(word)
            self._words[word.where] = word
            if (candidate.place, slot_of(candidate)) != (found.place, found.slot):
                self._tx.run("UPDATE submissions SET echoes = 1 WHERE seq = ?", (found.submission,))
        return Accepted(admission=_A.REPEAT, item=found.item, submission=self._queue.submission_id(found.submission))

    def _adopt(self, candidate: Candidate) -> Accepted:
        """The first record of an imported key: its place is told the standing outcome, and its content is what later ones are held against."""
        found = self._known[_key(candidate)]
        self._adopted.append(Adopted(found.item, candidate, slot_of(candidate), self._keep(candidate)))
        word = self._word(candidate, found.state.ems, ticket=self._queue.last_item, follows=found.item)
        word.transaction_id, word.asset_id, word.errors = found.transaction_id, found.asset_id, found.errors
        self._words[word.where] = word
        key = (candidate.participant, f"{candidate.site}/{candidate.flow}", _A.ADOPT)
        self._verdicts.setdefault(key, []).append([candidate.place, candidate.request, candidate.key, ""])
        return Accepted(admission=_A.ADOPT, item=found.item, submission=self._queue.submission_id(found.submission))

    def _waiting(self, candidate: Candidate) -> EmsState:
        """What is told of a record that waits: held when nothing of its participant or site may go out."""
        return EmsState.HELD if self._held(candidate.participant, candidate.site) else EmsState.RECEIVED

    def _settle_drift(self, word: Word) -> None:
        """The record is again what was registered."""
        before = writebacks.standing_word(self._tx, word.where)
        if before is not None and before[2] is EmsState.DRIFT:
            self._tx.clear_alarm(
                "DRIFT", participant=word.participant, site=word.site, subject=f"{word.flow}/{word.key}"
            )

    def _refuse(self, candidate: Candidate, admission: Admission) -> None:
        """DRIFT, a duplicate, an invalid record, or a request whose registration is awaited."""
        state, errors, alarm = _VERDICTS[admission](candidate)
        word = self._word(candidate, state, ticket=self._queue.last_item)
        word.errors = dump_errors(errors)
        found = self._known.get(_key(candidate))
        if admission is _A.DRIFT and found is not None:
            word.transaction_id, word.asset_id = found.transaction_id, found.asset_id
        if admission is _A.REQUESTED and not candidate.progress:
            word.step = QUIET
        if candidate.trigger is Trigger.CHANGE and writebacks.says_so_already(self._tx, word, same_request=False):
            return
        self._keep(candidate)
        self._words[word.where] = word
        key = (candidate.participant, f"{candidate.site}/{candidate.flow}", admission)
        self._verdicts.setdefault(key, []).append([candidate.place, candidate.request, candidate.key, *_sealed(errors)])
        if alarm:
            subject = f"{candidate.flow}/{candidate.key}"
            where = {"participant": candidate.participant, "site": candidate.site, "subject": subject}
            self._tx.raise_alarm(alarm, **where, text=f"{candidate.place}: {_texts(errors)[0]}")

    # small parts -----------------------------------------------------------------------------------------------------

    def _keep(self, candidate: Candidate) -> int:
        """Keep a candidate's readings as evidence; which part of its participant's blob they will be (-1 = none)."""
        if not candidate.readings:
            return -1
        mine = self._pieces.setdefault(candidate.participant, [])
        mine.append(len(candidate.readings).to_bytes(_PART_BYTES, "big") + candidate.readings)
        return len(mine) - 1

    def _say(
        self, candidate: Candidate, state: EmsState, *, ticket: int, follows: int, step: str = writebacks.PENDING
    ) -> None:
        word = self._word(candidate, state, ticket=ticket, follows=follows)
        word.step = step
        self._words[word.where] = word

    def _word(self, candidate: Candidate, state: EmsState, *, ticket: int, follows: int | None = None) -> Word:
        site, flow, place, slot = _where(candidate)
        return Word(
            site=site,
            flow=flow,
            place=place,
            slot=slot,
            participant=candidate.participant,
            key=candidate.key or "",
            state=state,
            request=candidate.request,
            ticket=ticket,
            follows=follows,
        )

    def _unblock(self) -> None:
        """New units look at their members; waiting units look again when an asset that could never be is asked for once more."""
        units: dict[str, set[int]] = {}
        again: dict[str, list[str]] = {}
        for planned in self._queue.new_items():
            participant, kind, key = planned.key
            if kind is Kind.UNIT:
                units.setdefault(participant, set()).add(planned.id)
            elif planned.key in self._known:
                again.setdefault(participant, []).append(key)
        for participant, keys in again.items():
            units.setdefault(participant, set()).update(units_of(self._tx, participant, keys))
        for participant, found in units.items():
            look_again(self._tx, participant, sorted(found))

    def _events(self) -> None:
        for line in self._queue.lines():
            self._line_event(line)
        for (participant, subject, admission), rows in self._verdicts.items():
            blob = self._readings.get(participant, NO_BLOB)
            data = {"columns": ["place", "request", "key", "errors"], "rows": rows}
            self._tx.event(self._fence, participant, f"record.{admission.value}", subject, data, blob=blob)

    def _line_event(self, line: Line) -> None:
        blob = self._readings.get(line.participant, NO_BLOB)
        data: dict[str, object] = {
            "items": line.added,
            "replaced": line.replaced,
            "total": line.items,
            "first": line.first,
            "parts": self._queue.parts(line),
        }
        if line.fast:
            assert self._fast is not None
            data |= {
                "message": self._fast.call.message_id,
                "kid": self._fast.call.kid,
                "readings": (blob.digest or b"").hex(),
                "envelope": envelope_digest(self._fast.call),
                **clock_of(self._fast.call),
            }
            self._tx.event(self._fence, line.participant, "SENDING", line.id, data, blob=self._queue.fast_body)
            return
        self._tx.event(self._fence, line.participant, "WAITING" if line.new else "joined", line.id, data, blob=blob)
        self._tx.topics.add(f"market:{line.participant}")


def _texts(errors: Sequence[ErrorNote]) -> list[str]:
    return [" ".join(f"{note.code} {note.text}" for note in errors)]


def _sealed(errors: Sequence[ErrorNote]) -> list[str]:
    """Codes with their names: the texts may quote a person's data, and an event is never erased. The texts stand in the write-back's row."""
    return [" ".join(f"{note.code} {HostReason(int(note.code)).name.lower()}" for note in errors)]


def _host(reason: HostReason, text: str) -> tuple[ErrorNote, ...]:
    return (ErrorNote(code=str(int(reason)), text=text),)


def _invalid(candidate: Candidate) -> tuple[EmsState, tuple[ErrorNote, ...], str]:
    assert candidate.refusal is not None
    return EmsState.REFUSED_BY_HOST, _host(candidate.refusal.reason, candidate.refusal.text), ""


def _drift(candidate: Candidate) -> tuple[EmsState, tuple[ErrorNote, ...], str]:
    del candidate
    text = "the record differs from what was sent for this reference; nothing was sent again"
    return EmsState.DRIFT, _host(HostReason.DRIFT, text), "DRIFT"


def _duplicate_key(candidate: Candidate) -> tuple[EmsState, tuple[ErrorNote, ...], str]:
    text = f"{candidate.key} belongs to another site or flow of this participant"
    return EmsState.REFUSED_BY_HOST, _host(HostReason.DUPLICATE_KEY, text), "DUPLICATE_KEY"


def _duplicate_in_request(candidate: Candidate) -> tuple[EmsState, tuple[ErrorNote, ...], str]:
    text = f"{candidate.key} stands at another place too"
    return EmsState.REFUSED_BY_HOST, _host(HostReason.DUPLICATE_IN_REQUEST, text), ""


def _requested(candidate: Candidate) -> tuple[EmsState, tuple[ErrorNote, ...], str]:
    del candidate
    return EmsState.RECEIVED, (), ""


_VERDICTS: Final[dict[Admission, Callable[[Candidate], tuple[EmsState, tuple[ErrorNote, ...], str]]]] = {
    _A.INVALID: _invalid,
    _A.DRIFT: _drift,
    _A.DUPLICATE_KEY: _duplicate_key,
    _A.DUPLICATE_IN_REQUEST: _duplicate_in_request,
    _A.REQUESTED: _requested,
}
