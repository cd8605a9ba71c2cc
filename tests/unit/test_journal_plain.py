"""Commit 1 of one record of an asset that nobody knows is written without most of what decides about others: its rows are the same."""

import itertools

import apsw
import pytest

from bridge.clock import Stamp
from bridge.journal import intake, store
from bridge.journal.port import Candidate, FastCall, SignedCall
from bridge.journal.sqlite import open_journal
from bridge.model import Operation, Trigger
from bridge.submission import Admission

TABLES = ("submissions", "calls", "items", "register", "writebacks", "triggers", "blobs", "events", "depends")


class StillClock:
    """Always the same moment, so that the rows of two journals can be compared."""

    def now(self):
        return Stamp(self.wall_ns(), self.mono_ns(), "boot")

    def wall_ns(self):
        return 1_795_000_000_000_000_000

    def mono_ns(self):
        return 1


@pytest.fixture(autouse=True)
def same_nonces(monkeypatch):
    monkeypatch.setattr(store.os, "urandom", lambda count: b"n" * count)


def call():
    return SignedCall(message_id="m", correlation_id="s", method="POST", path="/a", headers={"x": "y"}, body=b"body", kid="k", profile="p")  # fmt: skip


def asset(**changes):
    values = {"site": "north", "flow": "assets", "place": "p", "participant": "acme", "operation": Operation.ASSET_CREATE, "trigger": Trigger.CHANGE,
              "request": None, "key": "A", "content": b"a", "digest": b"d" * 16, "readings": b"readings"}  # fmt: skip
    return Candidate(**(values | changes))


async def written(path, candidate, *, fenced=False):
    """All rows after this record came with its signed call, and what the caller was told."""
    ids = itertools.count()
    journal = await open_journal(path, clock=StillClock(), role="test", new_id=lambda: f"id-{next(ids)}")
    field, market = await journal.acquire("field:north"), await journal.acquire("market:acme")
    if fenced:
        market = market._replace(epoch=market.epoch + 1)
    told = await journal.accept(
        field, [candidate], FastCall(submission="s", keys=("A",), rows=(0,), call=call(), market=market)
    )
    await journal.close()
    db = apsw.Connection(str(path))
    rows = {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in TABLES}
    db.close()
    return rows, told


@pytest.mark.parametrize("progress", [True, False], ids=["progress is told", "it is not"])
@pytest.mark.parametrize("readings", [b"readings", b""], ids=["readings", "none"])
async def test_the_rows_are_those_of_the_long_way(tmp_path, monkeypatch, progress, readings):
    """Also with nothing to keep as evidence, and with nothing to tell the EMS yet."""
    candidate = asset(progress=progress, readings=readings)
    taken = []
    plain, allowed = intake._plain, intake._allowed
    monkeypatch.setattr(intake, "_plain", lambda *given: taken.append(1) or plain(*given))
    short, told = await written(tmp_path / "short.db", candidate)
    assert taken == [1]
    monkeypatch.setattr(intake, "_allowed", lambda *given: (allowed(*given)[0], False))
    long, same = await written(tmp_path / "long.db", candidate)
    assert taken == [1]
    assert short == long
    assert told == same
    assert (told.fast, told.accepted[0].admission, len(short["items"])) == (True, Admission.NEW, 1)


@pytest.mark.parametrize(
    ("changes", "fenced", "fast"),
    [
        ({"request": "1", "trigger": Trigger.REQUEST}, False, True),
        ({"operation": Operation.UNIT_CREATE, "depends": ("B",)}, False, True),
        ({}, True, False),
    ],
    ids=["asked for by a request", "a unit", "the market's lease is another's"],
)
async def test_all_else_goes_the_long_way(tmp_path, monkeypatch, changes, fenced, fast):
    """What has more to be decided than whether its key is known."""
    monkeypatch.setattr(intake, "_plain", None)
    _, told = await written(tmp_path / "journal.db", asset(**changes), fenced=fenced)
    assert told.fast is fast


async def test_a_known_key_goes_the_long_way(tmp_path):
    """The same record again is answered by what stands, not registered again."""
    path, ids = tmp_path / "journal.db", itertools.count()
    journal = await open_journal(path, clock=StillClock(), role="test", new_id=lambda: f"id-{next(ids)}")
    field, market = await journal.acquire("field:north"), await journal.acquire("market:acme")
    found = []
    for name in ("s1", "s2"):
        fast = FastCall(submission=name, keys=("A",), rows=(0,), call=call(), market=market)
        found.append(await journal.accept(field, [asset()], fast))
    await journal.close()
    assert [(told.fast, told.accepted[0].admission) for told in found] == [
        (True, Admission.NEW),
        (False, Admission.REPEAT),
    ]
