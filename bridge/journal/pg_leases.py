"""Leases of a PostgreSQL journal: rows with owner, epoch and expiry, all by the database's own time."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.errors import LeaseHeld
from bridge.journal import leases
from bridge.journal.leases import forget_old_requests
from bridge.journal.port import Fence
from bridge.journal.store import Tx

_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000000)::bigint"
_FREE: Final = f"leases.owner IN ('', excluded.owner) OR leases.expires_ns <= {_NOW}"
_TAKE: Final = (
    f"INSERT INTO leases (lease, epoch, owner, expires_ns) VALUES (?, 1, ?, {_NOW} + ?)"  # noqa: S608
    " ON CONFLICT (lease) DO UPDATE SET epoch = leases.epoch + 1, owner = excluded.owner, expires_ns = excluded.expires_ns"
    f" WHERE {_FREE} RETURNING epoch"
)


RELEASED: Final = "leases"  # the topic that is woken when a lease is given back


class Held(NamedTuple):
    """A lease that another owner has, and for how long if nobody renews it."""

    lease: str
    owner: str
    left_s: float

    @property
    def error(self) -> LeaseHeld:
        """As the caller hears of it."""
        hint = f"stop that process first; if it died, the lease is free in {int(self.left_s) + 1} s"
        return LeaseHeld(f"{self.lease} is worked by another process ({self.owner})", hint=hint)


def acquire(tx: Tx, lease: str, owner: str, lease_ns: int) -> Fence | Held:
    """Write the next epoch, unless another owner's lease has not run out."""
    row = tx.one(_TAKE, (lease, owner, lease_ns))
    if row is None:
        held = tx.one(f"SELECT owner, expires_ns - {_NOW} FROM leases WHERE lease = ?", (lease,))  # noqa: S608
        whose, left_ns = held or ("", 0)
        return Held(lease, whose, max(0, left_ns) / 1e9)
    forget_old_requests(tx, lease)
    return Fence(lease, row[0])


def renew(tx: Tx, fences: Sequence[Fence], lease_ns: int) -> None:
    """Push the expiry on."""
    for fence in fences:
        tx.check(fence)
        tx.run(f"UPDATE leases SET expires_ns = {_NOW} + ? WHERE lease = ?", (lease_ns, fence.lease))  # noqa: S608


def release(tx: Tx, fences: Sequence[Fence]) -> None:
    """Give back those that are still ours, and tell those who wait."""
    leases.release(tx, fences)
    tx.topics.add(RELEASED)
