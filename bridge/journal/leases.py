"""Leases of a SQLite journal: a row with the epoch, and a lock file that the operating system frees when its owner dies."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bridge.errors import LeaseHeld
from bridge.journal.connections import translated
from bridge.journal.files import open_lock
from bridge.journal.port import Fence
from bridge.journal.store import Tx

LEASE_NS: Final = 30_000_000_000
MESSAGE_MEMORY_NS: Final = 7 * 24 * 3600 * 1_000_000_000


class LeaseLocks:
    """The lock files that this process holds, one per lease, for as long as it lives."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._held: dict[str, int] = {}

    def take(self, lease: str) -> bool:
        """Lock the lease's file; False when this process has it already. Raises `LeaseHeld` when another one has."""
        if lease in self._held:
            return False
        try:
            handle = open_lock(Path(f"{self._journal}.{quote(lease, safe='')}.lock"))
        except OSError as error:
            raise translated(error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise LeaseHeld(f"{lease} is worked by another live process", hint="stop that process first") from error
        self._held[lease] = handle
        return True

    def give(self, lease: str) -> None:
        """Unlock the lease's file. It stays on disk: removing it would let two owners lock two files of one name."""
        handle = self._held.pop(lease, None)
        if handle is not None:
            os.close(handle)

    def give_all(self) -> None:
        """Unlock everything."""
        for lease in tuple(self._held):
            self.give(lease)


def acquire(tx: Tx, lease: str, owner: str) -> Fence:
    """Write the next epoch. The caller holds the lock file."""
    tx.run(
        "INSERT INTO leases (lease, epoch, owner, expires_ns) VALUES (?, 1, ?, ?)"
        " ON CONFLICT (lease) DO UPDATE SET epoch = leases.epoch + 1, owner = excluded.owner, expires_ns = excluded.expires_ns",
        (lease, owner, tx.now.wall_ns + LEASE_NS),
    )
    row = tx.one("SELECT epoch FROM leases WHERE lease = ?", (lease,))
    assert row is not None
    forget_old_requests(tx, lease)
    return Fence(lease, row[0])


def forget_old_requests(tx: Tx, lease: str) -> None:
    """With the lease of a site: message requests are remembered for 7 days."""
    if lease.startswith("field:"):
        site, oldest = lease.removeprefix("field:"), tx.now.wall_ns - MESSAGE_MEMORY_NS
        tx.run("DELETE FROM triggers WHERE site = ? AND slot <> '' AND at_ns < ? AND awaiting = 0", (site, oldest))


def renew(tx: Tx, fences: Sequence[Fence]) -> None:
    """Push the expiry on."""
    for fence in fences:
        tx.check(fence)
        tx.run("UPDATE leases SET expires_ns = ? WHERE lease = ?", (tx.now.wall_ns + LEASE_NS, fence.lease))


def release(tx: Tx, fences: Sequence[Fence]) -> None:
    """Give back those that are still ours."""
    for fence in fences:
        tx.run("UPDATE leases SET owner = '' WHERE lease = ? AND epoch = ?", (fence.lease, fence.epoch))
