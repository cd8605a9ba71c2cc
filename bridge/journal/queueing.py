"""Which submission a new item joins, and the rows of new and replaced items, planned in memory and written at once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.clock import Stamp
from bridge.journal.calls import insert_call
from bridge.journal.port import Candidate, FastCall
from bridge.journal.standing import Known
from bridge.journal.store import NO_BLOB, Tx, dump_stamps
from bridge.model import Kind
from bridge.submission import SubmissionState

_INSERT: Final = (
    "INSERT INTO submissions (seq, id, participant, site, flow, operation, state, position, open, items, max_items, due_ns,"
    " placed_ns, deadline_ns, blocked, attempts, epoch, sent_ns, stamps, echoes, call) VALUES (:seq, :id, :participant, :site, :flow, :operation,"
    " :state, :seq, :open, :items, :max_items, :due, :now, :deadline, :blocked, :attempts, :epoch, :sent, :stamps, :echoes, :call)"
)
_WORD: Final = {kind: kind.value for kind in Kind}  # `value` is a call of Python's
_AT_ONCE: Final = 0  # no time of day: what need not wait is due even when the clock was set back
_JOIN_SHARE: Final = 0.9  # of the time that a record may wait, a submission it joins must have at least this left


@dataclass(slots=True, kw_only=True)
class Line:
    """A submission that items join in this accept."""

    seq: int
    id: str
    participant: str
    items: int
    new: bool
    deadline_ns: int = 0
    fast: bool = False
    open: bool = True
    added: int = 0
    replaced: int = 0
    first: int = 0


@dataclass(slots=True)
class Planned:
    """An item that this accept creates."""

    id: int
    line: Line
    candidate: Candidate
    slot: str
    part: int
    key: tuple[str, Kind, str]
    """Whose it is, what it is, and its reference."""


class Queueing:
    """The queue's part of one accept."""

    def __init__(self, tx: Tx, new_id: Callable[[], str], fast: FastCall | None) -> None:
        self._tx = tx
        self._new_id = new_id
        self._fast = fast
        self._items: dict[tuple[str, Kind, str], Planned] = {}
        self._replaced: list[tuple[Known, Candidate, str, int]] = []
        self._lines: dict[int, Line] = {}
        self._open: dict[tuple[str, str, str, str], Line] = {}
        self._ids: dict[int, str] = {}
        self._item_ids, self._seqs = tx.ids(("items", "id"), ("submissions", "seq"))
        self._fast_line: Line | None = None
        self._fast_row: dict[str, object] = {}
        self.fast_body = NO_BLOB

    @property
    def last_item(self) -> int:
        """The newest item so far."""
        return self._item_ids.last

    def line_for(self, candidate: Candidate, *, signed: bool) -> Line:
        """The submission that this new item joins: the fast call's (when `signed`), the flow's open one, or one opened for it."""
        if self._fast is not None and signed:
            if self._fast_line is None:
                self._fast_line = self._open_line(candidate, self._fast.submission, fast=True)
            return self._fast_line
        where = (candidate.participant, candidate.site, candidate.flow, candidate.operation.value)
        line = self._open.get(where) or self._find_open(where)
        if line is not None and (line.items >= candidate.max_items or self._ends_early(line, candidate)):
            self._close(line)
            line = None
        if line is None:
            line = self._open_line(candidate, self._new_id(), fast=False)
        self._open[where] = line
        return line

    def add(self, line: Line, candidate: Candidate, slot: str, key: tuple[str, Kind, str], part: int) -> int:
        """Plan a new item at the end of the line."""
        item = self._item_ids.next()
        line.items += 1
        line.added += 1
        line.first = line.first or item
        self._items[key] = Planned(item, line, candidate, slot, part, key)
        if not line.fast and line.items >= candidate.max_items:
            line.open = False
        return item

    def planned(self, key: tuple[str, Kind, str]) -> Planned | None:
        """The item of this key that this very accept creates."""
        return self._items.get(key)

    def change(self, planned: Planned, candidate: Candidate, slot: str, part: int) -> tuple[int, Line]:
        """Newer content for an item of this very accept."""
        if planned.slot != slot:
            self.echo(planned.line)
        planned.candidate, planned.slot, planned.part = candidate, slot, part
        return planned.id, planned.line

    def replace(self, found: Known, candidate: Candidate, slot: str, part: int, *, moved: bool) -> str:
        """Newer content for a waiting item; its submission's revision rises, so that bytes signed over the old content never go out."""
        self._replaced.append((found, candidate, slot, part))
        line = self._lines.get(found.submission)
        if line is None:
            line = Line(
                seq=found.submission,
                id=self.submission_id(found.submission),
                participant=candidate.participant,
                items=self._items_of(found.submission),
                new=False,
            )
            self._lines[line.seq] = line
        line.replaced += 1
        self._tx.run(
            "UPDATE submissions SET revision = revision + 1, echoes = CASE WHEN ? = 1 THEN 1 ELSE echoes END WHERE seq = ?",
            (moved, found.submission),
        )
        return line.id

    def echo(self, line: Line) -> None:
        """Another place or request follows an item of this submission too."""
        if line.fast:
            self._fast_row["echoes"] = 1
        else:
            self._tx.run("UPDATE submissions SET echoes = 1 WHERE seq = ?", (line.seq,))

    def submission_id(self, seq: int) -> str:
        """The id of a submission row."""
        if seq not in self._ids:
            row = self._tx.one("SELECT id FROM submissions WHERE seq = ?", (seq,))
            assert row is not None
            self._ids[seq] = row[0]
        return self._ids[seq]

    def lines(self) -> Iterable[Line]:
        """The submissions touched by this accept."""
        return self._lines.values()

    def parts(self, line: Line) -> list[list[int]]:
        """Which records of the intake's readings became which items of this line: runs of [first item, first part, how many], parts counted from 0."""
        pairs = [(planned.id, planned.part) for planned in self._items.values() if planned.line is line]
        pairs += [(found.item, part) for found, _, _, part in self._replaced if found.submission == line.seq]
        runs: list[list[int]] = []
        for item, part in pairs:
            last = runs[-1] if runs else None
            if part < 0:
                continue
            if last and (last[0] + last[2], last[1] + last[2]) == (item, part):
                last[2] += 1
            else:
                runs.append([item, part, 1])
        return runs

    def new_items(self) -> Iterable[Planned]:
        """The items created, and those replaced, as far as units must look at their members again."""
        yield from self._items.values()
        for found, candidate, slot, part in self._replaced:
            if candidate.operation.kind is Kind.UNIT:
                key = (candidate.participant, candidate.operation.kind, candidate.key or "")
                yield Planned(found.item, self._lines[found.submission], candidate, slot, part, key)

    def flush(self, readings: Mapping[str, int | None]) -> None:
        """Write the rows. `fast_body` is then the evidence of the fast call's body."""
        self._insert_fast()
        self._insert_items(readings)
        if self._replaced:
            self._update_items(readings)
        self._insert_members()
        joined = [
            (line.items, line.open, line.open, _AT_ONCE, line.seq)
            for line in self._lines.values()
            if line.added and not line.fast
        ]
        if joined:
            self._tx.many(
                "UPDATE submissions SET items = ?, open = ?, due_ns = CASE WHEN ? = 1 THEN due_ns ELSE ? END WHERE seq = ?",
                joined,
            )

    # rows ------------------------------------------------------------------------------------------------------------

    def _insert_fast(self) -> None:
        """The fast call and its submission, whole: one statement each on the quiet path."""
        line = self._fast_line
        if line is None:
            return
        assert self._fast is not None
        call = insert_call(self._tx, line.participant, line.seq, self._fast.call)
        self.fast_body = call.body
        self._tx.run(_INSERT, self._fast_row | {"items": line.items, "call": call.id})

    def _insert_items(self, readings: Mapping[str, int | None]) -> None:
        now = self._tx.now
        self._tx.many(
            "INSERT INTO items (id, submission, participant, kind, key, site, flow, place, slot, request, progress, content, digest,"
            " readings, part, received_ns, received_mono, received_boot) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_item_row(planned, readings, now) for planned in self._items.values()],
        )
        self._tx.many(
            "INSERT INTO register (participant, kind, key, item) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (participant, kind, key) DO UPDATE SET item = excluded.item",
            [(whose, _WORD[kind], name, planned.id) for (whose, kind, name), planned in self._items.items()],
        )

    def _update_items(self, readings: Mapping[str, int | None]) -> None:
        self._tx.many(
            "UPDATE items SET place = ?, slot = ?, request = ?, progress = ?, content = ?, digest = ?, readings = ?, part = ? WHERE id = ?",
            [
                (
                    c.place,
                    slot,
                    c.request,
                    c.progress,
                    c.content,
                    c.digest,
                    readings.get(c.participant) if part >= 0 else None,
                    part,
                    found.item,
                )
                for found, c, slot, part in self._replaced
            ],
        )
        self._tx.many(
            "DELETE FROM depends WHERE item = ?", [(found.item,) for found, c, _, _ in self._replaced if c.depends]
        )

    def _insert_members(self) -> None:
        units = [(p.id, p.line.seq, p.candidate) for p in self._items.values() if p.candidate.depends]
        units += [(found.item, found.submission, c) for found, c, _, _ in self._replaced if c.depends]
        if not units:
            return
        self._tx.many(
            "INSERT INTO depends (item, ord, submission, participant, key) VALUES (?, ?, ?, ?, ?)",
            [
                (item, position, seq, candidate.participant, key)
                for item, seq, candidate in units
                for position, key in enumerate(candidate.depends)
            ],
        )

    def _find_open(self, where: tuple[str, str, str, str]) -> Line | None:
        row = self._tx.one(
            "SELECT seq, id, items, deadline_ns FROM submissions WHERE participant = ? AND site = ? AND flow = ? AND operation = ? AND open = 1",
            where,
        )
        if row is None:
            return None
        line = self._lines.get(row[0]) or Line(seq=row[0], id=row[1], participant=where[0], items=row[2], new=False)
        line.deadline_ns = row[3]
        self._lines[line.seq] = line
        self._ids[line.seq] = line.id
        return line

    def _ends_early(self, line: Line, candidate: Candidate) -> bool:
        """Whether the line's deadline would cut off much of the time that the candidate may wait."""
        now = self._tx.now.wall_ns
        return 0 < line.deadline_ns < candidate.deadline_ns and (
            line.deadline_ns - now < (candidate.deadline_ns - now) * _JOIN_SHARE
        )

    def _close(self, line: Line) -> None:
        """Full, or old: it waits for nothing more."""
        line.open = False
        self._tx.run("UPDATE submissions SET open = 0, due_ns = ? WHERE seq = ?", (_AT_ONCE, line.seq))

    def _open_line(self, candidate: Candidate, id_: str, *, fast: bool) -> Line:
        one = candidate.max_items <= 1
        line = Line(
            seq=self._seqs.next(),
            id=id_,
            participant=candidate.participant,
            items=0,
            new=True,
            deadline_ns=candidate.deadline_ns,
            fast=fast,
            open=not (fast or one),
        )
        now = self._tx.now.wall_ns
        values = {
            "seq": line.seq,
            "id": id_,
            "participant": candidate.participant,
            "site": candidate.site,
            "flow": candidate.flow,
            "operation": candidate.operation.value,
            "state": (SubmissionState.SENDING if fast else SubmissionState.WAITING).value,
            "open": line.open,
            "max_items": candidate.max_items,
            "due": now + candidate.linger_ns if candidate.linger_ns and not one else _AT_ONCE,
            "now": now,
            "deadline": candidate.deadline_ns,
            "blocked": False,
            "attempts": int(fast),
            "epoch": self._fast.market.epoch if fast and self._fast else 0,
            "sent": now if fast else 0,
            "stamps": dump_stamps(self._stamps(candidate, fast=fast)),
            "items": 0,
            "echoes": 0,
            "call": None,
        }
        if fast:
            self._fast_row = values
        else:
            self._tx.run(_INSERT, values)
        self._lines[line.seq] = line
        self._ids[line.seq] = id_
        return line

    def _stamps(self, candidate: Candidate, *, fast: bool) -> dict[str, Stamp]:
        stamps = {**candidate.stamps, "journalled": self._tx.now}
        if fast and self._fast is not None:
            stamps |= self._fast.call.stamps
        return stamps

    def _items_of(self, seq: int) -> int:
        row = self._tx.one("SELECT items FROM submissions WHERE seq = ?", (seq,))
        return int(row[0]) if row else 0


def _item_row(planned: Planned, readings: Mapping[str, int | None], now: Stamp) -> tuple[object, ...]:
    c = planned.candidate
    received = c.stamps.get("received", now)
    blob = readings.get(c.participant) if planned.part >= 0 else None
    participant, kind, key = planned.key
    return (
        planned.id,
        planned.line.seq,
        participant,
        _WORD[kind],
        key,
        c.site,
        c.flow,
        c.place,
        planned.slot,
        c.request,
        c.progress,
        c.content,
        c.digest,
        blob,
        planned.part,
        *received,
    )
