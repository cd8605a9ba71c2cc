"""Write-backs: which outcome each place of an EMS is to be told, and what became of telling it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.clock import Stamp
from bridge.journal.port import DueWriteBack, Fence, WriteBackResult
from bridge.journal.store import Row, Rows, Tx, dump, dump_stamps, load_errors, load_stamps
from bridge.model import EmsOutcome, EmsState, ItemState

LONGEST_RETRY_NS: Final = 60_000_000_000  # no writer plans its next try further ahead
PENDING: Final = "pending"
QUIET: Final = "quiet"  # the place follows an item, but wants no progress words
_OPEN_STEPS: Final = frozenset({"pending", "retry"})
_FAILED_STEPS: Final = frozenset({"stuck", "moved"})
_ALARMS: Final[Mapping[str, str]] = {"stuck": "STUCK", "moved": "MOVED"}

_EMS_OF_OUTCOME: Final = (
    "CASE i.outcome " + " ".join(f"WHEN '{state.value}' THEN {int(state.ems)}" for state in ItemState) + " END"
)
_ROW: Final = (
    "site, flow, place, slot, participant, key, state, transaction_id, asset_id, errors, request, step, follows, ticket,"
    " updated_ns, due_ns, generation, attempts, error"
)
_NEWER: Final = (
    " ON CONFLICT (site, flow, place, slot) DO UPDATE SET generation = writebacks.generation + 1, attempts = 0, error = '',"
    " participant = excluded.participant, key = excluded.key, state = excluded.state, transaction_id = excluded.transaction_id,"
    " asset_id = excluded.asset_id, errors = excluded.errors, request = excluded.request, step = excluded.step,"
    " follows = excluded.follows, updated_ns = excluded.updated_ns, due_ns = excluded.due_ns"
)
_SAY: Final = (
    f"INSERT INTO writebacks ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0, '')"  # noqa: S608
    + _NEWER
    + ", ticket = excluded.ticket"
)
# An item's outcome never replaces what its place was told since about a newer record.
_ANNOUNCING: Final = (
    f"INSERT INTO writebacks ({_ROW})"
    " SELECT{distinct} i.site, i.flow, i.place, i.slot, i.participant, i.key, coalesce("
    + _EMS_OF_OUTCOME
    + ", :state), :transaction,"
    " i.asset_id, i.errors, i.request, 'pending', i.id, i.id, :now, :now, 1, 0, ''"
    " FROM items i{join} WHERE i.submission = :submission AND (:everyone = 1 OR i.progress = 1){once}"
    + _NEWER
    + ", ticket = CASE WHEN writebacks.ticket > excluded.ticket THEN writebacks.ticket ELSE excluded.ticket END"
    " WHERE writebacks.follows = excluded.follows OR writebacks.ticket < excluded.ticket"
)
# SQLite takes the items of one place one after the other; PostgreSQL wants the one that would stand in the end.
_ANNOUNCE: Final[Mapping[str, str]] = {
    "sqlite": _ANNOUNCING.format(distinct="", join="", once=""),
    "postgres": _ANNOUNCING.format(
        distinct=" DISTINCT ON (i.site, i.flow, i.place, i.slot)",
        join=" LEFT JOIN writebacks w ON w.site = i.site AND w.flow = i.flow AND w.place = i.place AND w.slot = i.slot",
        once=" AND (w.id IS NULL OR w.follows = i.id OR w.ticket < i.id) ORDER BY i.site, i.flow, i.place, i.slot, i.id DESC",
    ),
}
_ECHO: Final = (
    "UPDATE writebacks SET generation = generation + 1, attempts = 0, error = '', step = 'pending', state = coalesce("  # noqa: S608
    + _EMS_OF_OUTCOME
    + ", :state), transaction_id = :transaction, asset_id = i.asset_id, errors = i.errors, updated_ns = :now, due_ns = :now"
    " FROM items i WHERE i.submission = :submission AND writebacks.follows = i.id AND (:everyone = 1 OR i.progress = 1)"
    " AND (writebacks.place <> i.place OR writebacks.slot <> i.slot)"
)
_WANTS_PROGRESS: Final = "SELECT 1 FROM items WHERE submission = ? AND progress = 1 LIMIT 1"

_WRITTEN: Final = (
    "SELECT w.id, w.participant, w.site, w.flow, w.place, w.generation, w.state, s.id, s.seq, s.stamps FROM writebacks w"
    " LEFT JOIN items i ON i.id = w.follows LEFT JOIN submissions s ON s.seq = i.submission"
    " WHERE w.id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
)
_NOTE: Final = (
    "UPDATE writebacks SET step = k.value ->> 0, error = k.value ->> 1, due_ns = CAST(k.value ->> 2 AS BIGINT),"
    " attempts = attempts + CAST(k.value ->> 3 AS BIGINT) FROM json_each(?) k WHERE writebacks.id = CAST(k.value ->> 4 AS BIGINT)"
)
# The words of the index `writebacks_untold`: a site may have a hundred thousand places, and as a rule none of these.
_AGAIN: Final = (
    "UPDATE writebacks SET step = 'pending', attempts = 0, due_ns = ?"
    " WHERE site = ? AND step IN ('retry', 'stuck') AND flow IN (SELECT value FROM json_each(?))"
)


@dataclass(slots=True, kw_only=True)
class Word:
    """What a place is to be told, as intake says it."""

    site: str
    flow: str
    place: str
    slot: str
    participant: str
    key: str
    state: EmsState
    request: str | None
    ticket: int
    transaction_id: str = ""
    asset_id: str = ""
    errors: str = "[]"
    follows: int | None = None
    step: str = PENDING

    @property
    def where(self) -> tuple[str, str, str, str]:
        """What the row is unique by."""
        return (self.site, self.flow, self.place, self.slot)


def say(tx: Tx, words: Sequence[Word]) -> None:
    """Write these words, each the newest of its place."""
    now = tx.now.wall_ns
    tx.many(_SAY, [_values(word, now) for word in words])
    tx.topics.update(f"field:{word.site}" for word in words if word.step == PENDING)


def _values(word: Word, now: int) -> tuple[object, ...]:
    told = (int(word.state), word.transaction_id, word.asset_id, word.errors, word.request)
    return (*word.where, word.participant, word.key, *told, word.step, word.follows, word.ticket, now, now)


def standing_word(tx: Tx, where: tuple[str, str, str, str]) -> tuple[int, str, EmsState] | None:
    """The row of a place: id, step and state."""
    row = tx.one("SELECT id, step, state FROM writebacks WHERE site = ? AND flow = ? AND place = ? AND slot = ?", where)
    return (row[0], row[1], EmsState(row[2])) if row else None


def says_so_already(tx: Tx, word: Word, *, same_request: bool) -> bool:
    """Whether the place was told, or is about to be told, the very same."""
    row = tx.one(
        "SELECT key, state, transaction_id, asset_id, errors, request, step FROM writebacks"
        " WHERE site = ? AND flow = ? AND place = ? AND slot = ?",
        word.where,
    )
    if row is None or row[6] in _FAILED_STEPS:
        return False
    told = (word.key, int(word.state), word.transaction_id, word.asset_id, word.errors)
    return row[:5] == told and (not same_request or row[5] == word.request)


def say_again(tx: Tx, where: tuple[str, str, str, str]) -> bool:
    """Tell a place its standing outcome once more; False when it has none to tell.

    One that is due may be on its way to where an earlier request asked for it: it is another generation, so that its end does not count for this request.
    """
    found = standing_word(tx, where)
    if found is None or found[1] == QUIET:
        return False
    row, step, _ = found
    now = tx.now.wall_ns
    if step in _OPEN_STEPS:
        tx.run("UPDATE writebacks SET generation = generation + 1, due_ns = ? WHERE id = ?", (now, row))
    else:
        tx.run(
            "UPDATE writebacks SET generation = generation + 1, step = 'pending', attempts = 0, error = '', due_ns = ? WHERE id = ?",
            (now, row),
        )
    tx.topics.add(f"field:{where[0]}")
    return True


def announce(
    tx: Tx, submission: int, site: str, *, state: EmsState, transaction_id: str, everyone: bool, echoes: bool
) -> None:
    """Tell every place of a submission's items where they stand: their own outcome, or `state`; `everyone` also those that want no progress words."""
    if not everyone and tx.one(_WANTS_PROGRESS, (submission,)) is None:
        return
    args = {
        "submission": submission,
        "state": int(state),
        "transaction": transaction_id,
        "everyone": everyone,
        "now": tx.now.wall_ns,
    }
    tx.run(_ANNOUNCE[tx.dialect], args)
    if echoes:
        tx.run(_ECHO, args)
    tx.topics.add(f"field:{site}")


def announce_item(tx: Tx, item: int) -> None:
    """Tell the places of one item what became of it (enrichment after the end)."""
    tx.run(
        "UPDATE writebacks SET generation = generation + 1, attempts = 0, error = '', step = 'pending', asset_id = i.asset_id,"
        " updated_ns = ?, due_ns = ? FROM items i WHERE i.id = ? AND writebacks.follows = i.id",
        (tx.now.wall_ns, tx.now.wall_ns, item),
    )


def announce_outcome(tx: Tx, item: int) -> None:
    """Tell the places of one item its outcome as it is now (a person moved it after the end)."""
    now = tx.now.wall_ns
    tx.run(
        "UPDATE writebacks SET generation = generation + 1, attempts = 0, error = '', step = 'pending',"  # noqa: S608
        f" state = coalesce({_EMS_OF_OUTCOME}, writebacks.state), asset_id = i.asset_id, errors = i.errors, updated_ns = ?, due_ns = ?"
        " FROM items i WHERE i.id = ? AND writebacks.follows = i.id",
        (now, now, item),
    )


def due(rows: Rows, site: str, flows: Sequence[str], now_ns: int, limit: int) -> tuple[list[DueWriteBack], int]:
    """Those due now, oldest first, and when the next one will be.

    The clock may have been set back: what was never tried is due whatever it says, and so is what seems to wait longer than any retry does.
    """
    named = dump(list(flows))
    latest = now_ns + LONGEST_RETRY_NS
    found = rows.table(
        "SELECT w.id, w.site, w.flow, w.place, w.key, w.generation, w.state, w.transaction_id, w.asset_id, w.errors, w.request,"
        " w.updated_ns, w.attempts, w.due_ns, w.follows, s.stamps, s.id, t.reply FROM"
        " (SELECT * FROM writebacks WHERE site = ? AND step IN ('pending', 'retry') AND (step = 'pending' OR due_ns <= ? OR due_ns > ?)"
        " AND flow IN (SELECT value FROM json_each(?)) ORDER BY due_ns, id LIMIT ?) w"
        " LEFT JOIN items i ON i.id = w.follows LEFT JOIN submissions s ON s.seq = i.submission LEFT JOIN triggers t ON t.site = w.site"
        " AND t.flow = w.flow AND t.place = w.place AND t.slot = w.slot AND t.request = w.request ORDER BY w.due_ns, w.id",
        (site, now_ns, latest, named, limit),
        18,
    )
    later = rows.one(
        "SELECT min(due_ns) FROM writebacks WHERE site = ? AND step IN ('pending', 'retry') AND step = 'retry' AND due_ns > ? AND due_ns <= ?"
        " AND flow IN (SELECT value FROM json_each(?))",
        (site, now_ns, latest, named),
    )
    return [_due(row) for row in found], (later[0] if later else None) or 0


def _due(row: Row) -> DueWriteBack:
    id_, site, flow, place, key, generation, state, transaction_id, asset_id, errors = row[:10]
    request, updated_ns, attempts, due_ns, follows, stamps, submission, reply = row[10:]
    outcome = EmsOutcome(
        state=EmsState(state),
        transaction_id=transaction_id,
        asset_id=asset_id,
        errors=load_errors(errors),
        request=request,
        updated_ns=updated_ns,
    )
    return DueWriteBack(
        id=id_,
        site=site,
        flow=flow,
        place=place,
        key=key,
        generation=generation,
        outcome=outcome,
        attempts=attempts,
        due_ns=due_ns,
        item=follows,
        settled=load_stamps(stamps).get("settled") if stamps else None,
        submission=submission or "",
        reply=reply or "",
    )


def wrote_back(tx: Tx, fence: Fence, results: Sequence[WriteBackResult]) -> None:
    """Note the results: one event per submission (or flow) and state."""
    tx.check(fence)
    rows = {row[0]: row[1:] for row in tx.table(_WRITTEN, (dump([result.id for result in results]),), 10)}
    noted: dict[tuple[str, str, str], list[list[object]]] = {}
    told: dict[int, tuple[str, Stamp]] = {}
    fresh: list[tuple[WriteBackResult, Row]] = []
    for result in results:
        row = rows.get(result.id)
        if row is None:
            continue
        stale = row[4] != result.generation
        if not stale:
            fresh.append((result, row))
            if row[7] and result.stamp and result.state != "retry" and EmsState(row[5]).final:
                told[row[7]] = (row[8], result.stamp)
        subject = row[6] or f"{row[1]}/{row[2]}"
        kind = f"write_back.{result.state}" + (".superseded" if stale else "")
        noted.setdefault((row[0], subject, kind), []).append(
            [result.id, result.generation, row[5], row[3], result.error]
        )
    _note(tx, fresh)
    for seq, (stamps, stamp) in told.items():
        stamped = dump_stamps({**load_stamps(stamps), "written_back": stamp})
        tx.run("UPDATE submissions SET stamps = ? WHERE seq = ?", (stamped, seq))
    for (participant, subject, kind), entries in noted.items():
        columns = ["id", "generation", "state", "place", "error"]
        tx.event(fence, participant, kind, subject, {"columns": columns, "rows": entries})


def _note(tx: Tx, fresh: Sequence[tuple[WriteBackResult, Row]]) -> None:
    """The rows' steps, and the alarms that they raise or clear. As a rule no place has one, and nobody need look for each."""
    tx.run(_NOTE, (dump([(r.state, r.error, r.next_ns, int(r.state == "retry"), r.id) for r, _ in fresh]),))
    alarmed = tx.one("SELECT 1 FROM alarms WHERE code IN ('STUCK', 'MOVED') AND cleared_ns = 0 LIMIT 1") is not None
    for result, (participant, site, flow, place, *_) in fresh:
        where = {"participant": participant, "site": site, "subject": f"{flow}/{place}"}
        if result.state in _ALARMS:
            tx.raise_alarm(_ALARMS[result.state], **where, text=result.error)
        elif alarmed and result.state != "retry":
            tx.clear_alarm("STUCK", **where)
            tx.clear_alarm("MOVED", **where)


def retry_stuck(tx: Tx, fence: Fence, site: str, flows: Sequence[str]) -> None:
    """Everything stuck or in retry of these flows is due at once, with its tries counted anew."""
    tx.check(fence)
    tx.run(_AGAIN, (tx.now.wall_ns, site, dump(list(flows))))
    tx.topics.add(f"field:{site}")
