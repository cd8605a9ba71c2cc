"""What breaks inside the bridge's own process, from outside: its disk, its clock, its way to find names. A test says in one small file what is wrong now.

The product has no hooks for this: SQLite's way to the disk, the machine's clock and the resolver are replaced before it starts.
"""

import os
import socket
from pathlib import Path

from failing_vfs import FULL, READ, SYNC, WRITE, FailingVfs

from bridge.clock import Stamp, SystemClock

SICK = "SMP_BRIDGE_TEST_SICK"
NAME = "localhost"  # what a resolver that fails no longer finds
ADDRESS = "127.0.0.1"
DISK = {
    "disk-full": ("-wal", "write", FULL), "wal-sync": ("-wal", "sync", SYNC), "wal-write": ("-wal", "write", WRITE),
    "journal-read": ("journal.db", "read", READ),
}  # fmt: skip
S = 1_000_000_000


class Sickness:
    """What the file says: words of `DISK`, `no-names`, and `clock-ahead:SECONDS`. Read anew when it was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._words: dict[str, str] = {}

    def now(self) -> dict[str, str]:
        status = self._path.stat()
        seen = (status.st_mtime_ns, status.st_ino)
        if seen != self._seen:
            pairs = [word.partition(":") for word in self._path.read_text().split()]
            self._seen, self._words = seen, {word: value for word, _, value in pairs}
        return self._words


class SickVfs(FailingVfs):
    """The default of its process; it refuses what the file says."""

    def __init__(self, sickness: Sickness) -> None:
        super().__init__(default=True)
        self._sickness = sickness

    def check(self, file, verb):
        words = self._sickness.now()
        self.failing = {(end, what): [code, None] for word, (end, what, code) in DISK.items() if word in words}
        super().check(file, verb)
        self.failed.clear()


def fall_sick() -> None:
    """From now on this process has the troubles that the file names; nothing without one."""
    if not os.environ.get(SICK):
        return
    sickness = Sickness(Path(os.environ[SICK]))
    fall_sick.kept = SickVfs(sickness)  # a VFS lives as long as its object
    _shift_clock(sickness)
    _lose_names(sickness)


def _shift_clock(sickness: Sickness) -> None:
    now, wall_ns = SystemClock.now, SystemClock.wall_ns

    def ahead_ns() -> int:
        return int(float(sickness.now().get("clock-ahead", "0")) * S)

    def shifted(self: SystemClock) -> Stamp:
        wall, mono, boot = now(self)
        return Stamp(wall + ahead_ns(), mono, boot)

    SystemClock.now = shifted
    SystemClock.wall_ns = lambda self: wall_ns(self) + ahead_ns()


def _lose_names(sickness: Sickness) -> None:
    found = socket.getaddrinfo

    def look_up(host, *rest, **more):
        if host not in (NAME, NAME.encode()):
            return found(host, *rest, **more)
        if "no-names" in sickness.now():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found(ADDRESS, *rest, **more)

    socket.getaddrinfo = look_up
