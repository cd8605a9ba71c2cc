"""What people and links ask for is found by an index: a journal of ten million events answers as fast as a small one."""

from pathlib import Path

import pytest

from bridge.clock import SystemClock
from bridge.journal import alarms, returns, views, writebacks
from bridge.journal.opening import open_writer
from bridge.journal.port import Fence
from bridge.journal.store import Tx
from bridge.submission import SubmissionState

ASKED = {
    "a link that came back": (
        lambda tx: writebacks.retry_stuck(tx, Fence("field:north", 1), "north", ["assets"]),
        "writebacks",
    ),
    "returns that nobody dealt with": (lambda tx: returns.unsettled(tx, "acme", 0, 100), "r"),
    "whether a return waits": (lambda tx: returns.any_waiting(tx, "acme"), "returns"),
    "returns that wait for an answer": (lambda tx: returns.waiting_for(tx, "acme", "t", ["m"]), "r"),
    "the gauges' write-backs": (views.counts, "writebacks"),
    "the alarms that stand": (
        lambda tx: alarms.alarms(tx, open_only=True, participant="acme", site="", limit=50),
        "a",
    ),
    "a list by state": (
        lambda tx: views.submissions(tx, views.asked(state=SubmissionState.IN_DOUBT), 100),
        "submissions",
    ),
    "a list by participant and state": (
        lambda tx: views.submissions(tx, views.asked(participant="acme", state=SubmissionState.IN_DOUBT), 100),
        "submissions",
    ),
    "a further page of some participants' list by state and site": (
        lambda tx: views.submissions(
            tx,
            views.asked(participants=["acme"], site="north", state=SubmissionState.IN_DOUBT, before="s-1"),
            100,
        ),
        "submissions",
    ),
}


@pytest.fixture
def db(tmp_path: Path):
    connection = open_writer(tmp_path / "journal.db", checkpoint=True, max_bytes=0)
    yield connection
    connection.close()


def plans(db, ask):
    """What SQLite does for each statement."""
    found = []

    def noted(_cursor, sql, bindings):
        if sql.lstrip().startswith(("SELECT", "UPDATE")):
            explained = db.cursor()
            explained.exec_trace = None
            found.extend(row[3] for row in explained.execute(f"EXPLAIN QUERY PLAN {sql}", bindings))
        return True

    tx = Tx(db, SystemClock.here(), "test", {}, set())
    tx.check = lambda _fence: None
    db.exec_trace = noted
    try:
        ask(tx)
    finally:
        db.exec_trace = None
    return found


@pytest.mark.parametrize("what", sorted(ASKED))
def test_no_table_is_searched_from_end_to_end(db, what):
    """Neither the places of a site nor the submissions of years are looked through."""
    ask, table = ASKED[what]
    steps = [
        step for step in plans(db, ask) if f" {table} " in f"{step} " and step != f"SEARCH {table}"
    ]  # the last row
    assert steps
    for step in steps:
        assert any(
            f"INDEX {name}" in step
            for name in (
                "writebacks_",
                "submissions_state",
                "sqlite_autoindex_submissions",
                "returns_waiting",
                "alarms_standing",
            )
        ), step
