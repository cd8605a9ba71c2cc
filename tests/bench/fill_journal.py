"""A journal of any size: `python tests/bench/fill_journal.py JOURNAL EVENTS`, on a journal that a bridge has filled a little and closed.

What stands in it is copied by SQL with new ids, numbers, keys, places and transaction ids, until it holds so many events: the rows are those that the
bridge itself wrote, and each copied asset has a place of its own. (Ids that an event names inside its `data` stay those of the first.) What was added
is then sealed by the journal's own code, so that `smp-bridge journal verify` finds it whole, and the anchor follows.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1])]

from bridge.clock import SystemClock  # noqa: E402
from bridge.journal import anchor, leases, sealing  # noqa: E402
from bridge.journal.opening import open_writer  # noqa: E402
from bridge.journal.store import Rows, Tx  # noqa: E402

AT_ONCE = 200_000  # events of one transaction
SEALED_AT_ONCE = 500  # blocks of one transaction
# Table, its own id, and the columns that are not copied as they are. `:name` is the span of that table's ids; k the number of the copy; `~` marks a copy's words.
MARK = "'~' || k"
COPIED = (
    ("blobs", "id", {}),
    ("events", "id", {
        "number": "number + k * n.span", "blob": "blob + k * :blobs",
        "subject": f"CASE WHEN subject IN (SELECT word FROM temp.words) THEN subject || {MARK} ELSE subject END",
    }),
    ("submissions", "seq", {
        "id": f"id || {MARK}", "position": "position + k * :submissions", "call": "call + k * :calls",
        "transaction_id": f"CASE transaction_id WHEN '' THEN '' ELSE transaction_id || {MARK} END",
    }),
    ("calls", "id", {
        "submission": "submission + k * :submissions", "message_id": f"message_id || {MARK}",
        "correlation_id": f"correlation_id || {MARK}", "body": "body + k * :blobs",
    }),
    ("items", "id", {
        "submission": "submission + k * :submissions", "key": f"key || {MARK}", "place": f"place || {MARK}", "readings": "readings + k * :blobs",
    }),
    ("register", "", {"key": f"key || {MARK}", "item": "item + k * :items"}),
    ("writebacks", "id", {
        "place": f"place || {MARK}", "key": f"key || {MARK}", "transaction_id": f"transaction_id || {MARK}",
        "follows": "follows + k * :items", "ticket": "ticket + k * :items",
    }),
    ("returns", "id", {
        "message_id": f"message_id || {MARK}", "transaction_id": f"transaction_id || {MARK}",
        "correlation_id": f"correlation_id || {MARK}", "body": "body + k * :blobs",
    }),
)  # fmt: skip


def fill(path, events):
    """Copy until the journal holds so many events, seal, and bring the anchor (beside the journal's directory) up to date. Returns how many it holds."""
    clock = SystemClock.here()
    db = open_writer(path, checkpoint=True, max_bytes=0)
    db.execute("PRAGMA synchronous = OFF")  # it is synced at the end
    db.execute("PRAGMA cache_size = -1000000")
    numbers = {}
    try:
        multiply(db, events)
        seal(db, clock, numbers)
        (held,) = db.execute("SELECT count(*) FROM events").fetchone()
        directory = path.parent
        named = directory.parent / f"{directory.name}.anchor" / f"{path.name}.json"
        assert named.exists(), f"the bridge keeps its anchor elsewhere than at {named}"
        anchor.write(named, anchor.current(Rows(db)), clock.wall_ns())
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.close()
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    return held


def multiply(db, events):
    """The rows of every life that the journal holds, again and again."""
    (before,) = db.execute("SELECT count(*) FROM events").fetchone()
    copies = max(0, round(events / before) - 1)
    spans = {
        table: db.execute(f"SELECT coalesce(max({id_}), 0) FROM {table}").fetchone()[0]
        for table, id_, _ in COPIED
        if id_
    }
    db.execute("CREATE TEMP TABLE words (word TEXT PRIMARY KEY) WITHOUT ROWID")
    db.execute("INSERT OR IGNORE INTO words SELECT id FROM submissions UNION SELECT message_id FROM returns")
    db.execute(
        "CREATE TEMP TABLE spans AS SELECT participant, writer, epoch, count(*) AS span FROM events GROUP BY 1, 2, 3"
    )
    db.execute("CREATE TEMP TABLE ks (k INTEGER PRIMARY KEY)")
    for table, *_ in COPIED:
        db.execute(f"CREATE TEMP TABLE first_{table} AS SELECT * FROM {table}")
    step = max(1, AT_ONCE // before)
    for first in range(1, copies + 1, step):
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM ks")
        db.executemany("INSERT INTO ks VALUES (?)", [(k,) for k in range(first, min(first + step, copies + 1))])
        for table, id_, changed in COPIED:
            db.execute(_copy(db, table, id_, changed), {**spans})
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _copy(db, table, id_, changed):
    """The statement that copies one table once for each number in `ks`."""
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    values = [f"t.{id_} + k * :{table}" if name == id_ else changed.get(name, f"t.{name}") for name in columns]
    numbered = " JOIN temp.spans n USING (participant, writer, epoch)" if table == "events" else ""
    order = f" ORDER BY k, t.{id_}" if id_ else ""
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM temp.ks CROSS JOIN temp.first_{table} t{numbered}{order}"


def seal(db, clock, numbers):
    """Close all that is not sealed yet into blocks, many of them in one transaction."""

    def tx():
        return Tx(db, clock, "fill", numbers, set())

    with db:
        fence = leases.acquire(tx(), sealing.SEALER, "fill")
    more = True
    while more:
        with db:
            for _ in range(SEALED_AT_ONCE):
                drafted = sealing.draft(Rows(db), clock.wall_ns())
                more = drafted is not None
                if not more:
                    break
                assert not drafted.gaps, drafted.gaps
                assert sealing.seal(tx(), fence, drafted)
    with db:
        leases.release(tx(), [fence])


if __name__ == "__main__":
    print(f"{fill(Path(sys.argv[1]).resolve(), int(sys.argv[2]))} events")
