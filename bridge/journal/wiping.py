"""Wiping: what deleted rows left in a SQLite journal's file and in its log. The file is written anew from what is in it, and the log is emptied."""

import time
from pathlib import Path
from typing import Final

import apsw

from bridge.errors import NotPossible
from bridge.journal.connections import translated

# A busy machine wrote 260 MB anew in 6.5 s, in which a service commits nothing.
BESIDE_BYTES: Final = 64 * 1024 * 1024
_PATIENCE_S: Final = 15.0
_PAUSE_S: Final = 0.01


def wipe(path: Path) -> None:
    """Write the journal at `path` anew and empty its log, beside a running service or without one. Nothing commits meanwhile.

    Raises `NotPossible` when others keep it busy, `JournalFull` where there is no room for a second copy, and `JournalUnusable`.
    """
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        until = time.monotonic() + _PATIENCE_S
        db.set_busy_handler(lambda _: _wait(until))
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("VACUUM")
        until = time.monotonic() + _PATIENCE_S
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError as error:
        raise NotPossible(
            "the journal was busy for too long: what deleted rows left in its file is still there",
            hint="stop the service, then run `smp-bridge journal wipe`",
        ) from error
    except apsw.Error as error:
        raise translated(error) from error
    finally:
        db.close()


def _wait(until: float) -> bool:
    time.sleep(_PAUSE_S)
    return time.monotonic() < until
