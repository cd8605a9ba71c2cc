"""What the journal holds of keys: the newest item of each, where it stands, and which units wait for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.journal.port import Member
from bridge.journal.store import Row, Rows, Tx, dump
from bridge.model import ItemState, Kind
from bridge.submission import Standing, SubmissionState

_S = SubmissionState

# Where an item without an outcome of its own stands, by its submission.
_OPEN_ITEM: Final[Mapping[SubmissionState, ItemState]] = {
    _S.WAITING: ItemState.WAITING,
    _S.RETRY_WAIT: ItemState.WAITING,
    _S.SENDING: ItemState.SENDING,
    _S.IN_DOUBT: ItemState.IN_DOUBT,
    _S.AWAITING_RETURN: ItemState.SENT,
    _S.OVERDUE: ItemState.SENT,
    _S.SET_ASIDE: ItemState.SET_ASIDE,
    _S.EXPIRED: ItemState.EXPIRED,
    _S.CANCELLED: ItemState.CANCELLED,
}
NEVER: Final = frozenset(
    {ItemState.REFUSED, ItemState.UNKNOWN, ItemState.EXPIRED, ItemState.CANCELLED, ItemState.INVALID}
)

_KNOWN: Final = (
    "SELECT r.key, i.id, i.submission, i.outcome, s.state, i.digest, i.site, i.flow, s.attempts, i.asset_id, s.transaction_id,"
    " i.errors, i.progress, i.place, i.slot"
    " FROM json_each(?) k CROSS JOIN register r ON r.participant = ? AND r.kind = ? AND r.key = k.value"
    " JOIN items i ON i.id = r.item JOIN submissions s ON s.seq = i.submission"
)
_MEMBERS: Final = (
    "SELECT d.key, i.outcome, s.state, i.asset_id, i.content FROM depends d"
    " LEFT JOIN register r ON r.participant = d.participant AND r.kind = 'asset' AND r.key = d.key"
    " LEFT JOIN items i ON i.id = r.item LEFT JOIN submissions s ON s.seq = i.submission"
    " WHERE d.item = ? ORDER BY d.ord"
)


@dataclass(frozen=True, slots=True)
class Known:
    """The newest item of a key and its standing."""

    key: str
    item: int
    submission: int
    state: ItemState
    digest: bytes
    site: str
    flow: str
    closed: bool
    asset_id: str
    transaction_id: str
    errors: str
    progress: bool
    place: str
    slot: str

    @property
    def standing(self) -> Standing:
        """The part that the rule of admission asks for."""
        return Standing(state=self.state, digest=self.digest, site=self.site, flow=self.flow, closed=self.closed)


def item_state(outcome: str | None, submission: str) -> ItemState:
    """Where an item stands: its own outcome, or else where its submission stands."""
    if outcome:
        return ItemState(outcome)
    return _OPEN_ITEM.get(SubmissionState(submission), ItemState.UNKNOWN)


def state_sql(outcome: str, submission: str) -> str:
    """`item_state` as an SQL expression over these two columns."""
    words = " ".join(f"WHEN '{state.value}' THEN '{item.value}'" for state, item in _OPEN_ITEM.items())
    return f"coalesce(nullif({outcome}, ''), CASE {submission} {words} ELSE '{ItemState.UNKNOWN.value}' END)"


def known(rows: Rows, participant: str, kind: Kind, keys: Iterable[str]) -> dict[str, Known]:
    """What is known of these keys; keys never seen are absent."""
    found = rows.all(_KNOWN, (dump(sorted(set(keys))), participant, kind.value))
    return {row[0]: _known(row) for row in found}


def _known(row: Row) -> Known:
    key, item, submission, outcome, state, digest, site, flow, attempts, asset_id, transaction_id = row[:11]
    errors, progress, place, slot = row[11:]
    return Known(
        key=key,
        item=item,
        submission=submission,
        state=item_state(outcome, state),
        digest=digest,
        site=site,
        flow=flow,
        closed=attempts > 0,
        asset_id=asset_id,
        transaction_id=transaction_id,
        errors=errors,
        progress=bool(progress),
        place=place,
        slot=slot,
    )


def member(rows: Rows, participant: str, kind: Kind, key: str) -> Member:
    """What is known of one key."""
    row = rows.one(
        "SELECT i.outcome, s.state, i.asset_id, i.content FROM register r JOIN items i ON i.id = r.item"
        " JOIN submissions s ON s.seq = i.submission WHERE r.participant = ? AND r.kind = ? AND r.key = ?",
        (participant, kind.value, key),
    )
    if row is None:
        return Member(key=key, state=None)
    return Member(key=key, state=item_state(row[0], row[1]), asset_id=row[2], content=row[3])


def members(rows: Rows, item: int) -> list[Member]:
    """The members of one unit, in its own order."""
    return [
        Member(
            key=key,
            state=item_state(outcome, state) if state else None,
            asset_id=asset_id or "",
            content=content or b"",
        )
        for key, outcome, state, asset_id, content in rows.all(_MEMBERS, (item,))
    ]


def unblock_after(tx: Tx, participant: str, submission: int) -> None:
    """A submission's assets moved: look again at the waiting units that name one of them."""
    found = tx.all(
        "SELECT DISTINCT d.item FROM items i JOIN depends d ON d.participant = i.participant AND d.key = i.key"
        " JOIN submissions s ON s.seq = d.submission WHERE i.submission = ? AND i.kind = 'asset' AND s.state = 'WAITING'",
        (submission,),
    )
    look_again(tx, participant, [row[0] for row in found])


def units_of(tx: Tx, participant: str, keys: Iterable[str]) -> list[int]:
    """The waiting units (items) that name one of these assets."""
    found = tx.all(
        "SELECT DISTINCT d.item FROM json_each(?) k CROSS JOIN depends d ON d.participant = ? AND d.key = k.value"
        " JOIN submissions s ON s.seq = d.submission WHERE s.state = 'WAITING'",
        (dump(list(keys)), participant),
    )
    return [row[0] for row in found]


def look_again(tx: Tx, participant: str, units: Sequence[int]) -> None:
    """Work out whether these units (items) are blocked, and wake the market side when one is not; one that was is placed anew (`waits`)."""
    for unit in units:
        blocked = is_blocked([found.state for found in members(tx, unit)])
        tx.run(
            "UPDATE submissions SET placed_ns = CASE WHEN blocked = 1 AND ? = 0 THEN ? ELSE placed_ns END, blocked = ?"
            " WHERE seq = (SELECT submission FROM items WHERE id = ?)",
            (int(blocked), tx.now.wall_ns, blocked, unit),
        )
        if not blocked:
            tx.topics.add(f"market:{participant}")


def is_blocked(states: Sequence[ItemState | None]) -> bool:
    """Whether a unit must still wait: some member is open, and none can never be registered."""
    if any(state in NEVER for state in states):
        return False
    return any(state is not ItemState.REGISTERED for state in states)
