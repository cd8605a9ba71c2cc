"""Erasing: where a person's data lie in the journal's rows, and their deletion in short commits that say who and why. Files are `bridge.journal.eraser`'s.

Gone afterwards: bytes with their nonce, the headers of their calls and returns (a signature over bytes that somebody could guess proves the guess), the
content of items and its digest, texts that quote it. What stays: references, places, states, asset and transaction ids, the events, and the digests in them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from bridge.journal.archive import delete_blobs
from bridge.journal.blocks import Event
from bridge.journal.people import Decision
from bridge.journal.port import Fence
from bridge.journal.store import Rows, Tx, dump
from bridge.journal.terms import Terms
from bridge.submission import SubmissionState

ERASED: Final = "erased"  # the kind of the event
RETURN_ERASED: Final = "return.erased"  # the same for a return
UNWIPED: Final = "unwiped"  # in the journal's own facts, from before the first deletion until the file was written anew
_CONTENT_KINDS: Final = frozenset({"SENDING", "WAITING", "joined"})  # their bytes are records and calls
_GONE: Final = "[erased]"
_PAGE: Final = 1000
_BLOBS: Final = 50
_DIGESTS: Final = 500  # that one event names
_ORPHAN_NS: Final = 24 * 3600 * 1_000_000_000
_IDS: Final = "(SELECT CAST(value AS BIGINT) FROM json_each(?))"

Subject = tuple[str, str]  # the kind of the event that will say so, and its subject


@dataclass(slots=True, kw_only=True)
class Place:
    """Bytes that events of one subject speak of: their digests, and which calls and returns (row ids) lose their headers with them."""

    digests: set[bytes] = field(default_factory=set)
    items: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Items whose content holds it, and their submissions (row and id)."""

    ids: frozenset[int]
    submissions: Mapping[int, str]
    open: tuple[str, ...]
    """Ids of those that have not ended: they need what they hold."""


# ------------------------------------------------------------------------------------------------------------- looking


def items(rows: Rows, participant: str, terms: Terms) -> Items:
    """The items that hold it."""
    found: dict[int, int] = {}
    last = 0
    while page := rows.all(
        "SELECT id, submission, content FROM items WHERE participant = ? AND id > ? ORDER BY id LIMIT ?",
        (participant, last, _PAGE),
    ):
        last = page[-1][0]
        found |= {id_: seq for id_, seq, content in page if terms.within(content)}
    named = rows.all(
        f"SELECT seq, id, state FROM submissions WHERE seq IN {_IDS} ORDER BY seq",  # noqa: S608 - a constant
        (dump(sorted(set(found.values()))),),
    )
    return Items(
        ids=frozenset(found),
        submissions={seq: id_ for seq, id_, _ in named},
        open=tuple(id_ for _, id_, state in named if not SubmissionState(state).terminal),
    )


def linked_blobs(rows: Rows, found: Items) -> set[int]:
    """The blobs of these items' readings and of the calls that carried them, whatever form they have there."""
    readings = rows.all(
        f"SELECT readings FROM items WHERE id IN {_IDS} AND readings IS NOT NULL",  # noqa: S608
        (dump(sorted(found.ids)),),
    )
    bodies = rows.all(
        f"SELECT body FROM calls WHERE submission IN {_IDS}",  # noqa: S608
        (dump(sorted(found.submissions)),),
    )
    return {row[0] for row in (*readings, *bodies)}


def blobs_with(rows: Rows, participant: str, terms: Terms, after: int) -> tuple[set[int], int | None]:
    """Of the next blobs behind the one of id `after` those that hold it, and where to go on (None: nowhere)."""
    page = rows.all(
        "SELECT id, bytes FROM blobs WHERE participant = ? AND id > ? ORDER BY id LIMIT ?", (participant, after, _BLOBS)
    )
    return {id_ for id_, data in page if terms.within(data)}, page[-1][0] if page else None


def digests_of(rows: Rows, blobs: Iterable[int]) -> dict[bytes, int]:
    """The digests of those of these blobs that are there."""
    found = rows.all(f"SELECT digest, id FROM blobs WHERE id IN {_IDS}", (dump(sorted(blobs)),))  # noqa: S608
    return dict(found)


def speaking(
    rows: Rows, participant: str, wanted: Iterable[bytes], terms: Terms
) -> tuple[dict[Subject, Place], dict[str, int]]:
    """Which subjects' events speak of these bytes; and how many events, by kind, hold it themselves, which no one can change."""
    places: dict[Subject, Place] = {}
    sealed: dict[str, int] = {}
    digests, last = frozenset(wanted), 0
    while page := rows.all(
        "SELECT id, participant, writer, epoch, number, at_ns, kind, subject, data, digest FROM events"
        " WHERE participant = ? AND id > ? ORDER BY id LIMIT ?",
        (participant, last, _PAGE),
    ):
        last = page[-1][0]
        for row in page:
            event = Event(*row[1:])
            note(places, event, digests)
            if terms.within_text(f"{event.subject} {event.data}"):
                sealed[event.kind] = sealed.get(event.kind, 0) + 1
    return places, sealed


def note(places: dict[Subject, Place], event: Event, digests: frozenset[bytes]) -> None:
    """Note which of these bytes an event speaks of."""
    mine = {event.digest, event.readings} & digests
    if mine:
        places.setdefault(subject_of(event), Place()).digests |= {digest for digest in mine if digest is not None}


def subject_of(event: Event) -> Subject:
    """Under which kind and subject the erasure of its bytes is told, so that an export of them takes it along."""
    kind = RETURN_ERASED if event.kind.split(".")[0] == "return" else ERASED
    return kind, event.subject


def content_digests(events: Iterable[Event], submissions: Iterable[str]) -> frozenset[bytes]:
    """The digests of records and calls of these submissions, whatever form the data have there."""
    wanted = frozenset(submissions)
    mine = [event for event in events if event.subject in wanted and event.kind in _CONTENT_KINDS]
    found = {event.digest for event in mine} | {event.readings for event in mine}
    return frozenset(digest for digest in found if digest is not None)


def envelopes_of(events: Iterable[Event], digests: Iterable[bytes]) -> tuple[set[str], set[int]]:
    """Message ids of calls and row ids of returns whose bodies these are: their headers go too."""
    wanted, messages, returns = frozenset(digests), set[str](), set[int]()
    for event in events:
        if event.digest in wanted and event.kind == "SENDING":
            messages.add(str(orjson.loads(event.data).get("message", "")))
        elif event.digest in wanted and event.kind == "return":
            returns.add(int(orjson.loads(event.data).get("return", 0)))
    return messages, returns


def in_use(rows: Rows, blobs: Iterable[int], now_ns: int) -> tuple[list[str], list[str]]:
    """Submissions and returns (message ids) that are not settled and need some of these bytes."""
    ids = dump(sorted(blobs))
    calls = rows.all(
        f"SELECT DISTINCT s.id, s.state FROM calls c JOIN submissions s ON s.seq = c.submission WHERE c.body IN {_IDS}",  # noqa: S608
        (ids,),
    )
    returns = rows.all(
        "SELECT message_id FROM returns WHERE verdict IN ('', 'orphan') AND (verdict = '' OR received_ns >= ?)"  # noqa: S608
        f" AND body IN {_IDS}",
        (now_ns - _ORPHAN_NS, ids),
    )
    return [id_ for id_, state in calls if not SubmissionState(state).terminal], [row[0] for row in returns]


# --------------------------------------------------------------------------------------------------- texts beside them


@dataclass(frozen=True, slots=True)
class _Text:
    """A column of texts that quote what SMP or a person said. `errors`: a JSON list of [code, text, field]."""

    table: str
    column: str
    key: str = "id"
    errors: bool = False


_TEXTS: Final = (
    _Text("items", "errors", errors=True),
    _Text("writebacks", "errors", errors=True),
    _Text("writebacks", "error"),
    _Text("alarms", "text"),
    _Text("alarms", "note"),
    _Text("submissions", "reason", key="seq"),
)
# Names by which everything is found again; they cannot go while the journal has to know what is registered.
_NAMES: Final = (("items", "key"), ("items", "place"), ("alarms", "subject"))
Texts = dict[tuple[str, str], dict[int, str]]


def texts(rows: Rows, participant: str, terms: Terms) -> Texts:
    """By table and column, the rows whose texts quote it, with the texts as they will be."""
    found: Texts = {}
    for text in _TEXTS:
        usual = "[]" if text.errors else ""
        read = rows.all(
            f"SELECT {text.key}, {text.column} FROM {text.table} WHERE participant = ? AND {text.column} <> ?",  # noqa: S608
            (participant, usual),
        )
        mine = {id_: _without(said, errors=text.errors) for id_, said in read if terms.within_text(said)}
        if mine:
            found[text.table, text.column] = mine
    return found


def names(rows: Rows, participant: str, terms: Terms) -> dict[str, int]:
    """How many rows have a name that holds it, by table and column."""
    found = {}
    for table, column in _NAMES:
        read = rows.all(f"SELECT {column} FROM {table} WHERE participant = ?", (participant,))  # noqa: S608
        if count := sum(terms.within_text(said) for (said,) in read):
            found[f"{table}.{column}"] = count
    return found


def _without(said: str, *, errors: bool) -> str:
    """An error keeps its code and field; other text goes whole, for what surrounds a name tells of the person too."""
    return dump([[code, _GONE, field_] for code, _, field_ in orjson.loads(said)]) if errors else _GONE


# ------------------------------------------------------------------------------------------------------------ deleting


def erase_blobs(tx: Tx, fence: Fence, ids: Sequence[int]) -> None:
    """Delete bytes and nonces; their places in the file are overwritten where the engine does that."""
    _overwriting(tx)
    delete_blobs(tx, fence, ids)
    tx.run(f"UPDATE calls SET headers = '' WHERE body IN {_IDS}", (dump(list(ids)),))  # noqa: S608
    tx.run(f"UPDATE returns SET headers = '' WHERE body IN {_IDS}", (dump(list(ids)),))  # noqa: S608


def erase_envelopes(tx: Tx, participant: str, messages: Iterable[str], returns: Iterable[int]) -> None:
    """Delete the headers of calls and returns whose bodies are in the archive."""
    _overwriting(tx)
    tx.run(
        "UPDATE calls SET headers = '' WHERE participant = ? AND message_id IN (SELECT value FROM json_each(?))",
        (participant, dump(sorted(messages))),
    )
    tx.run(
        f"UPDATE returns SET headers = '' WHERE participant = ? AND id IN {_IDS}",  # noqa: S608
        (participant, dump(sorted(returns))),
    )


def say(tx: Tx, participant: str, places: Mapping[Subject, Place], decision: Decision) -> None:
    """One event for each subject (more where it lost very many pieces): who, why, and which digests stand for bytes that are gone."""
    for (kind, subject), place in sorted(places.items()):
        digests = sorted(digest.hex() for digest in place.digests)
        for start in range(0, max(1, len(digests)), _DIGESTS):
            said = {**decision.said(), "digests": digests[start : start + _DIGESTS]}
            tx.event(None, participant, kind, subject, said if start else said | {"items": sorted(place.items)})


def erase_items(tx: Tx, ids: Sequence[int]) -> None:
    """Delete the content of items and its digest: whatever their EMS shows from now on counts as what was registered, and is not kept."""
    _overwriting(tx)
    tx.run(f"UPDATE items SET content = ?, digest = ? WHERE id IN {_IDS}", (b"", b"", dump(list(ids))))  # noqa: S608


def erase_texts(tx: Tx, found: Texts) -> None:
    """Write the texts without it."""
    _overwriting(tx)
    keys = {(text.table, text.column): text.key for text in _TEXTS}
    for (table, column), rows in found.items():
        sql = f"UPDATE {table} SET {column} = ? WHERE {keys[table, column]} = ?"  # noqa: S608 - names of ours
        tx.many(sql, [(text, id_) for id_, text in rows.items()])


def replace_segment(tx: Tx, fence: Fence, segment: int, *, name: str, sha256: bytes, size: int) -> None:
    """A segment was written anew without some bytes: from now on this file is meant, and the record says so."""
    tx.check(fence)
    row = tx.one("SELECT participant, name FROM segments WHERE id = ?", (segment,))
    assert row is not None
    tx.run(
        "UPDATE segments SET name = ?, sha256 = ?, bytes = ? WHERE id = ?",
        (name, sha256, size, segment),
    )
    tx.event(fence, row[0], "archived.again", name, {"sha256": sha256.hex(), "instead_of": row[1]})


def named(rows: Rows, participant: str) -> set[bytes]:
    """The digests of which events in the journal say that their bytes were erased."""
    read = rows.all(
        "SELECT data FROM events WHERE participant = ? AND kind IN (?, ?)", (participant, ERASED, RETURN_ERASED)
    )
    return {digest for (data,) in read for digest in digests_in(data)}


def digests_in(data: str) -> list[bytes]:
    """The digests that the data of such an event name."""
    try:
        return [bytes.fromhex(digest) for digest in orjson.loads(data).get("digests", ())]
    except (ValueError, TypeError, AttributeError):  # not written by us
        return []


def _overwriting(tx: Tx) -> None:
    if tx.dialect == "sqlite":
        tx.all("PRAGMA secure_delete = ON")
