"""What SMP holds already: imports that make it known, the first EMS that asks for it, and the list of everything known."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import orjson

from bridge.journal import writebacks
from bridge.journal.brownfield import (
    AssetPlace,
    AssetView,
    Direction,
    Import,
    ImportProblem,
    ImportReport,
    KnownAsset,
)
from bridge.journal.port import Candidate
from bridge.journal.standing import Known, known, look_again, state_sql, units_of
from bridge.journal.store import Row, Rows, Tx, dump_stamps
from bridge.model import ItemState, Kind, Operation
from bridge.submission import settled_state

_D = Direction
_I = ItemState

CALL_ITEMS: Final = 1000  # an import stands in submissions of the size of a call
_OPERATIONS: Final = {operation.kind: operation for operation in Operation}
_MAY_BE_HELD: Final = frozenset({_I.UNKNOWN, _I.SENDING, _I.SENT, _I.IN_DOUBT, _I.SET_ASIDE})
_NEVER_SENT: Final = frozenset({_I.EXPIRED, _I.CANCELLED, _I.INVALID})
_NAMED: Final = 50  # keys that an event names; the rest is in its blob
_KEPT: Final = (
    "participant, kind, key, site, flow, place, slot, request, progress, content, digest, readings, part, received_ns, received_mono,"
    " received_boot"
)
_VIEW: Final = (
    f"SELECT r.participant, r.kind, r.key, {state_sql('i.outcome', 's.state')}, i.asset_id, i.source, i.site, i.flow, s.transaction_id, s.id"  # noqa: S608 - constants
    " FROM register r JOIN items i ON i.id = r.item JOIN submissions s ON s.seq = i.submission"
)


@dataclass(frozen=True, slots=True)
class _Step:
    """One row and what becomes of it."""

    row: KnownAsset
    direction: Direction
    before: Known | None

    @property
    def state(self) -> ItemState:
        """What the journal will say of it."""
        return _I.REGISTERED if self.row.state is _I.REGISTERED else _I.UNKNOWN


# -------------------------------------------------------------------------------------------------------------- reading


def assets(
    rows: Rows, participant: str, kind: Kind | None, state: ItemState | None, after: AssetPlace, limit: int
) -> list[AssetView]:
    """See the port."""
    asked: dict[str, object] = {"r.participant = ?": participant, "r.kind = ?": kind.value if kind else ""}
    asked[f"{state_sql('i.outcome', 's.state')} = ?"] = state.value if state else ""
    conditions = {text: value for text, value in asked.items() if value}
    where = " AND ".join(["(r.participant, r.kind, r.key) > (?, ?, ?)", *conditions])
    found = rows.all(
        f"{_VIEW} WHERE {where} ORDER BY r.participant, r.kind, r.key LIMIT ?",
        (*after, *conditions.values(), limit),
    )
    return [_asset_view(row) for row in found]


def examine(rows: Rows, wanted: Import) -> ImportReport:
    """See the port."""
    steps, problems = _plan(rows, wanted)
    return _report(steps, problems, ())


def _asset_view(row: Row) -> AssetView:
    return AssetView(
        participant=row[0],
        kind=Kind(row[1]),
        key=row[2],
        state=ItemState(row[3]),
        asset_id=row[4],
        source=row[5],
        site=row[6],
        flow=row[7],
        transaction_id=row[8],
        submission=row[9],
    )


# ------------------------------------------------------------------------------------------------------------- deciding


def _plan(rows: Rows, wanted: Import) -> tuple[list[_Step], list[ImportProblem]]:
    before = {
        kind: known(rows, wanted.participant, kind, [row.key for row in wanted.rows if row.kind is kind])
        for kind in Kind
    }
    steps: list[_Step] = []
    problems: list[ImportProblem] = []
    seen: set[tuple[Kind, str]] = set()
    for number, row in enumerate(wanted.rows):
        found = before[row.kind].get(row.key)
        if (row.kind, row.key) in seen:
            problems.append(ImportProblem(row=number, field="key", text="stands twice; each may be named once"))
            continue
        seen.add((row.kind, row.key))
        decided = _decide(row, found, over_refused=wanted.over_refused)
        if isinstance(decided, Direction):
            steps.append(_Step(row, decided, found))
        else:
            problems.append(ImportProblem(row=number, field=decided[0], text=decided[1]))
    return steps, problems


def _decide(row: KnownAsset, found: Known | None, *, over_refused: bool) -> Direction | tuple[str, str]:
    """What becomes of a row, or the field and text of what it contradicts."""
    if row.state is not _I.REGISTERED and row.state not in _MAY_BE_HELD:
        return _D.LEAVE_OUT
    if found is None or found.state in _NEVER_SENT:
        return _D.ADD
    if found.state is _I.REFUSED:
        text = "SMP refused it when the bridge asked; if it is registered all the same, import it with --over-refused"
        return _D.ADD if over_refused else ("state", text)
    if row.state is not _I.REGISTERED:
        return _D.SAME  # the journal knows as much, or more
    if found.state not in (_I.REGISTERED, _I.UNKNOWN):
        return "state", f"it is on its way to SMP ({found.state.value}); import it once that call has an outcome"
    if row.asset_id and found.asset_id and row.asset_id != found.asset_id:
        return "asset_id", f"the journal knows it as {found.asset_id}; one of the two is wrong, so ask SMP which"
    if found.state is _I.UNKNOWN:
        return _D.RESOLVE
    return _D.FILL if row.asset_id and not found.asset_id else _D.SAME


def _report(steps: Sequence[_Step], problems: Sequence[ImportProblem], submissions: Sequence[str]) -> ImportReport:
    counts = Counter(step.direction for step in steps)
    return ImportReport(
        added=counts[_D.ADD],
        filled=counts[_D.FILL],
        resolved=counts[_D.RESOLVE],
        unchanged=counts[_D.SAME],
        left_out=counts[_D.LEAVE_OUT],
        problems=tuple(problems),
        submissions=tuple(submissions),
    )


# -------------------------------------------------------------------------------------------------------------- writing


def import_assets(tx: Tx, new_id: Callable[[], str], wanted: Import) -> ImportReport:
    """See the port."""
    steps, problems = _plan(tx, wanted)
    if problems:
        return _report(steps, problems, ())
    added = [step for step in steps if step.direction is _D.ADD]
    submissions = [_add(tx, new_id(), wanted, part) for part in _parts(added)]
    _move(tx, wanted, [step for step in steps if step.direction in (_D.FILL, _D.RESOLVE)])
    changed = [step.row.key for step in steps if step.direction in (_D.ADD, _D.RESOLVE) and step.row.kind is Kind.ASSET]
    if changed:
        look_again(tx, wanted.participant, units_of(tx, wanted.participant, changed))
    return _report(steps, (), submissions)


def _parts(steps: Sequence[_Step]) -> Iterable[list[_Step]]:
    """The rows of one kind and transaction id stand together, as they did in their call."""

    def call(step: _Step) -> tuple[str, str]:
        return step.row.kind.value, step.row.transaction_id

    for _, group in groupby(sorted(steps, key=call), key=call):
        rows = list(group)
        for start in range(0, len(rows), CALL_ITEMS):
            yield rows[start : start + CALL_ITEMS]


def _add(tx: Tx, submission: str, wanted: Import, steps: Sequence[_Step]) -> str:
    """A submission that never goes out, with an item for each row."""
    first = steps[0].row
    state = settled_state([step.state for step in steps])
    seq = tx.insert(
        "INSERT INTO submissions (id, participant, site, flow, operation, state, position, open, items, max_items, due_ns, deadline_ns,"
        " blocked, transaction_id, reason, stamps) VALUES (?, ?, '', '', ?, ?, 0, 0, ?, ?, 0, 0, 0, ?, ?, ?)",
        (
            submission,
            wanted.participant,
            _OPERATIONS[first.kind].value,
            state.value,
            len(steps),
            len(steps),
            first.transaction_id,
            f"imported by {wanted.by} from {wanted.file}",
            dump_stamps({"settled": tx.now}),
        ),
        key="seq",
    )
    (ids,) = tx.ids(("items", "id"))
    new = [(ids.next(), step) for step in steps if step.before is None]
    tx.many(_INSERT, [_item(tx, id_, seq, wanted.participant, step) for id_, step in new])
    for id_, step in [(ids.next(), step) for step in steps if step.before is not None]:
        _take_over(tx, id_, seq, step)
        new.append((id_, step))
    tx.many(
        "INSERT INTO register (participant, kind, key, item) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (participant, kind, key) DO UPDATE SET item = excluded.item",
        [(wanted.participant, step.row.kind.value, step.row.key, id_) for id_, step in new],
    )
    _event(tx, wanted, submission, "imported", steps)
    return submission


_INSERT: Final = (
    "INSERT INTO items (id, submission, participant, kind, key, site, flow, place, slot, request, progress, content, digest, readings, part,"
    " received_ns, received_mono, received_boot, outcome, asset_id, source) VALUES (?, ?, ?, ?, ?, '', '', '', '', NULL, 0, ?, ?, NULL, -1,"
    " ?, ?, ?, ?, ?, ?)"
)


def _item(tx: Tx, id_: int, seq: int, participant: str, step: _Step) -> tuple[object, ...]:
    row = step.row
    return (
        id_,
        seq,
        participant,
        row.kind.value,
        row.key,
        b"",
        b"",
        *tx.now,
        step.state.value,
        row.asset_id,
        row.source,
    )


def _take_over(tx: Tx, id_: int, seq: int, step: _Step) -> None:
    """The record of an EMS stands behind this key: it goes on with the import's outcome, and its places are told."""
    assert step.before is not None
    before, row = step.before.item, step.row
    tx.run(
        f"INSERT INTO items (id, submission, {_KEPT}, outcome, asset_id, source) SELECT ?, ?, {_KEPT}, ?, ?, ? FROM items WHERE id = ?",  # noqa: S608
        (id_, seq, step.state.value, row.asset_id, row.source, before),
    )
    tx.run(
        "UPDATE writebacks SET follows = ?, transaction_id = ?, ticket = CASE WHEN ticket < ? THEN ? ELSE ticket END WHERE follows = ?",
        (id_, row.transaction_id, id_, id_, before),
    )
    _tell(tx, id_, step.before.site)


def _move(tx: Tx, wanted: Import, steps: Sequence[_Step]) -> None:
    """Items of ended submissions get the outcome or the asset id that was missing; the submissions' own states stay."""
    for step in steps:
        assert step.before is not None
        row, item = step.row, step.before.item
        tx.run(
            "UPDATE items SET outcome = ?, asset_id = CASE WHEN ? = '' THEN asset_id ELSE ? END, errors = '[]', source = ? WHERE id = ?",
            (_I.REGISTERED.value, row.asset_id, row.asset_id, row.source, item),
        )
        _tell(tx, item, step.before.site)
    by_submission: dict[int, list[_Step]] = {}
    for step in steps:
        assert step.before is not None
        by_submission.setdefault(step.before.submission, []).append(step)
    for seq, mine in by_submission.items():
        found = tx.one(
            "SELECT s.id, (SELECT count(*) FROM items i WHERE i.submission = s.seq AND i.outcome = 'unknown') FROM submissions s WHERE s.seq = ?",
            (seq,),
        )
        assert found is not None
        _event(tx, wanted, found[0], "imported", mine)
        if not found[1]:
            tx.clear_alarm("UNRESOLVED", participant=wanted.participant, subject=found[0])


def _tell(tx: Tx, item: int, site: str) -> None:
    writebacks.announce_outcome(tx, item)
    if site:
        tx.topics.add(f"field:{site}")


def _event(tx: Tx, wanted: Import, submission: str, kind: str, steps: Sequence[_Step]) -> None:
    """Who imported what; all rows are in the event's blob."""
    data = {
        "by": wanted.by,
        "file": wanted.file,
        "items": len(steps),
        "rows": dict(Counter(step.direction.value for step in steps)),
        "keys": [step.row.key for step in steps][:_NAMED],
    }
    rows = [[s.row.key, s.row.state.value, s.row.asset_id, s.row.source, s.direction.value] for s in steps]
    tx.event(None, wanted.participant, kind, submission, data, blob=tx.blob(wanted.participant, orjson.dumps(rows)))


# ------------------------------------------------------------------------------------------------------------- adopting


@dataclass(frozen=True, slots=True)
class Adopted:
    """The first record of an EMS for an imported key: from now on it is this place's, with this content."""

    item: int
    candidate: Candidate
    slot: str
    part: int


def adopt(tx: Tx, adopted: Sequence[Adopted], readings: Mapping[str, int | None]) -> None:
    """Give imported items the place and the content that first asked for them; what differs later is drift."""
    tx.many(
        "UPDATE items SET site = ?, flow = ?, place = ?, slot = ?, request = ?, progress = ?, content = ?, digest = ?, readings = ?, part = ?,"
        " received_ns = ?, received_mono = ?, received_boot = ? WHERE id = ?",
        [_adopted_row(tx, one, readings) for one in adopted],
    )


def _adopted_row(tx: Tx, one: Adopted, readings: Mapping[str, int | None]) -> tuple[object, ...]:
    c = one.candidate
    blob = readings.get(c.participant) if one.part >= 0 else None
    where = (c.site, c.flow, c.place, one.slot, c.request, c.progress)
    return (*where, c.content, c.digest, blob, one.part, *c.stamps.get("received", tx.now), one.item)
