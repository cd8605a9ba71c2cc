"""Holds: what may not become SENDING until a person releases it. Looked at inside each commit that would send."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from bridge.errors import NotPossible
from bridge.journal import writebacks
from bridge.journal.moves import COLUMNS, Submission
from bridge.journal.people import Decision, HoldView, Scope
from bridge.journal.port import Fence
from bridge.journal.store import Row, Rows, Tx
from bridge.model import EmsState

# Arguments: participant, participant.
_PARTICIPANT_HELD: Final = (
    "released_ns = 0 AND (scope IN ('host', 'journal') OR (scope IN ('participant', 'profile') AND name = ?) OR (scope = 'environment' AND name ="
    " (SELECT environment FROM environments WHERE participant = ?)))"
)
_OF_EITHER: Final = f"({_PARTICIPANT_HELD}) OR (released_ns = 0 AND scope IN ('site', 'ems') AND name = ?)"
_HELD: Final = f"SELECT 1 FROM holds WHERE {_OF_EITHER} LIMIT 1"  # noqa: S608 - a constant
# Arguments: one lease, another one, those of `_OF_EITHER`, and a key.
_GATES: Final = (
    "SELECT (SELECT epoch FROM leases WHERE lease = ? AND owner <> ''), (SELECT epoch FROM leases WHERE lease = ? AND owner <> ''),"  # noqa: S608 - a constant
    f" (SELECT count(*) FROM holds WHERE {_OF_EITHER}), (SELECT item FROM register WHERE participant = ? AND kind = ? AND key = ?)"
)
SITE_HELD: Final = "site IN (SELECT name FROM holds WHERE released_ns = 0 AND scope IN ('site', 'ems'))"
_SHORTENED: Final = "#"
_OF_PARTICIPANT: Final = frozenset({Scope.PARTICIPANT, Scope.PROFILE})
_VIEW: Final = "scope, name, reason, held_by, held_ns, released_ns, released_by, release_reason"
_IN_SCOPE: Final[Mapping[Scope, str]] = {
    Scope.HOST: "? = ''",
    Scope.JOURNAL: "? = ''",
    Scope.PARTICIPANT: "participant = ?",
    Scope.PROFILE: "participant = ?",
    Scope.SITE: "site = ?",
    Scope.EMS: "site = ?",
    Scope.ENVIRONMENT: "participant IN (SELECT participant FROM environments WHERE environment = ?)",
}


def participant_held(rows: Rows, participant: str) -> bool:
    """Whether nothing of this participant may go out."""
    sql = f"SELECT 1 FROM holds WHERE {_PARTICIPANT_HELD} LIMIT 1"  # noqa: S608 - a constant
    return rows.one(sql, (participant, participant)) is not None


def held(rows: Rows, participant: str, site: str) -> bool:
    """Whether nothing of this participant at this site may go out."""
    return rows.one(_HELD, (participant, participant, site)) is not None


class Gates(NamedTuple):
    """What `Tx.holds` says of each of two fences, `held`, and whether the key was ever seen."""

    one: bool
    other: bool
    held: bool
    seen: bool


def gates(tx: Tx, one: Fence, other: Fence, site: str, key: tuple[str, str, str]) -> Gates:
    """All four with one statement, for they are asked for each record on the quiet path; `key` is (participant, word of its kind, reference)."""
    participant = key[0]
    row = tx.one(_GATES, (one.lease, other.lease, participant, participant, site, *key))
    assert row is not None
    return Gates(row[0] == one.epoch, row[1] == other.epoch, row[2] > 0, row[3] is not None)


def unreconciled(rows: Rows, site: str) -> bool:
    """Whether this site's EMS may know more than the journal does: then nothing is written into it that would erase what it shows."""
    sql = "SELECT 1 FROM holds WHERE released_ns = 0 AND (scope = 'journal' OR (scope = 'ems' AND name = ?)) LIMIT 1"
    return rows.one(sql, (site,)) is not None


class HeldMemo:
    """`held`, asked once for each participant and site of one commit."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._known: dict[tuple[str, str], bool] = {}

    def note(self, participant: str, site: str, *, is_held: bool) -> None:
        """It was asked already."""
        self._known[participant, site] = is_held

    def __call__(self, participant: str, site: str) -> bool:
        """Whether nothing of this participant at this site may go out."""
        key = (participant, site)
        if key not in self._known:
            self._known[key] = held(self._rows, participant, site)
        return self._known[key]


def hold(tx: Tx, scope: Scope, name: str, decision: Decision) -> bool:
    """See the port. What waits is told that it is held."""
    row = tx.one(
        "INSERT INTO holds (scope, name, reason, held_by, held_ns) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (scope, name) WHERE released_ns = 0 DO NOTHING RETURNING id",
        (scope.value, name, decision.reason, decision.by, tx.now.wall_ns),
    )
    if row is None:
        return False
    _say(tx, "hold", scope, name, decision)
    tx.raise_alarm("HOLD", **_where(scope, name), text=f"held by {decision.by}: {decision.reason}")
    _tell(tx, scope, name, EmsState.HELD)
    return True


def release(tx: Tx, scope: Scope, name: str, decision: Decision) -> None:
    """See the port."""
    row = tx.one(
        "UPDATE holds SET released_ns = ?, released_by = ?, release_reason = ? WHERE scope = ? AND name = ? AND released_ns = 0 RETURNING id",
        (tx.now.wall_ns, decision.by, decision.reason, scope.value, name),
    )
    if row is None:
        raise NotPossible(
            f"{scope.value} {name} is not held".replace("  ", " "), hint="`smp-bridge hold --list` names what is"
        )
    _say(tx, "release", scope, name, decision)
    tx.clear_alarm("HOLD", **_where(scope, name))
    _tell(tx, scope, name, EmsState.RECEIVED)


def introduce(tx: Tx, environments: Mapping[str, str]) -> None:
    """See the port."""
    tx.many(
        "INSERT INTO environments (participant, environment) VALUES (?, ?)"
        " ON CONFLICT (participant) DO UPDATE SET environment = excluded.environment",
        list(environments.items()),
    )


def views(rows: Rows, *, standing_only: bool) -> list[HoldView]:
    """Holds, newest first."""
    where = "WHERE released_ns = 0" if standing_only else ""
    return [_view(row) for row in rows.all(f"SELECT {_VIEW} FROM holds {where} ORDER BY id DESC")]  # noqa: S608


def unknown_transactions(rows: Rows, site: str, shown: Sequence[str]) -> list[str]:
    """See the port: first what the places of the site were told, then every call of the site."""
    told = {row[0] for row in rows.all("SELECT DISTINCT transaction_id FROM writebacks WHERE site = ?", (site,))}
    rest = [text for text in dict.fromkeys(shown) if text and text not in told]
    rest = [text for text in rest if text.startswith(_SHORTENED) or not _called(rows, text)]
    short = [text for text in rest if text.startswith(_SHORTENED)]
    if short:
        every = rows.all(
            "SELECT DISTINCT transaction_id FROM submissions WHERE site IN (?, '') AND transaction_id <> ''", (site,)
        )
        digests = {_SHORTENED + sha256(row[0].encode()).hexdigest()[:17] for row in every}
        rest = [text for text in rest if not any(digest.startswith(text) for digest in digests)]
    return rest


def _called(rows: Rows, transaction_id: str) -> bool:
    sql = "SELECT 1 FROM submissions WHERE transaction_id = ? AND transaction_id <> '' LIMIT 1"
    return rows.one(sql, (transaction_id,)) is not None


def _tell(tx: Tx, scope: Scope, name: str, state: EmsState) -> None:
    """What waits in this scope hears where it stands, and the market sides look again."""
    sql = f"SELECT {COLUMNS} FROM submissions WHERE state IN ('WAITING', 'RETRY_WAIT') AND {_IN_SCOPE[scope]}"  # noqa: S608
    for submission in (Submission(*row) for row in tx.all(sql, (name,))):
        if state is EmsState.RECEIVED and held(tx, submission.participant, submission.site):
            continue  # another hold still covers it
        writebacks.announce(
            tx,
            submission.seq,
            submission.site,
            state=state,
            transaction_id=submission.transaction_id,
            everyone=False,
            echoes=submission.echoes,
        )
    tx.topics.update(f"market:{row[0]}" for row in tx.all("SELECT participant FROM environments"))
    if scope in _OF_PARTICIPANT:
        tx.topics.add(f"market:{name}")
    if scope.by_itself:  # write-backs waited too
        tx.topics.update(f"field:{row[0]}" for row in tx.all("SELECT DISTINCT site FROM writebacks"))


def _say(tx: Tx, kind: str, scope: Scope, name: str, decision: Decision) -> None:
    participant = name if scope in _OF_PARTICIPANT else ""
    data = {"scope": scope.value, "name": name, **decision.said()}
    tx.event(None, participant, kind, f"{scope.value}:{name}", data)


def _where(scope: Scope, name: str) -> dict[str, str]:
    return {
        "participant": name if scope in _OF_PARTICIPANT else "",
        "site": name if scope in (Scope.SITE, Scope.EMS) else "",
        "subject": "" if scope in (Scope.PARTICIPANT, Scope.SITE) else f"{scope.value}:{name}".rstrip(":"),
    }


def _view(row: Row) -> HoldView:
    return HoldView(
        scope=Scope(row[0]),
        name=row[1],
        reason=row[2],
        by=row[3],
        held_ns=row[4],
        released_ns=row[5],
        released_by=row[6],
        release_reason=row[7],
    )
