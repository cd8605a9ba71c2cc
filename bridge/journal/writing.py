"""The second pass of commit 1: what is written of candidates that were admitted or refused: the queue, what each place is told, evidence, events."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bridge.journal import writebacks
from bridge.journal.assets import Adopted, adopt
from bridge.journal.calls import clock_of, envelope_digest
from bridge.journal.holds import HeldMemo
from bridge.journal.port import Accepted, Candidate, FastCall, Fence
from bridge.journal.queueing import Line, Queueing
from bridge.journal.standing import Known, look_again, units_of
from bridge.journal.store import NO_BLOB, Blob, Tx, dump_errors
from bridge.journal.writebacks import QUIET, Word
from bridge.model import EmsState, ErrorNote, HostReason, ItemState, Kind, Trigger
from bridge.submission import Admission

_A = Admission
Key = tuple[str, Kind, str]
Where = tuple[str, str, str, str]

_PART_BYTES: Final = 4


class Asking(NamedTuple):
    """A candidate and what it is looked up by, made once: a call may bring a thousand."""

    candidate: Candidate
    where: Where
    key: Key


def slot_of(candidate: Candidate) -> str:
    """The request id where each request stands alone, '' where only the place's last one counts."""
    return (candidate.request or "") if candidate.trigger is Trigger.MESSAGE else ""


def where_of(candidate: Candidate) -> Where:
    """Where the outcome of a candidate goes."""
    return (candidate.site, candidate.flow, candidate.place, slot_of(candidate))


def key_of(candidate: Candidate) -> Key:
    """What a candidate asks for: its participant, kind and reference."""
    return (candidate.participant, candidate.operation.kind, candidate.key or "")


class Writing:
    """One accept: `one` plans what each candidate changes, `flush` writes it."""

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

    def one(self, asking: Asking, admission: Admission, *, signed: bool) -> Accepted:
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
            if where_of(candidate) != where_of(planned.candidate):  # but each request is answered
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
        found = self._known[key_of(candidate)]
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
        found = self._known.get(key_of(candidate))
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
        site, flow, place, slot = where_of(candidate)
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
