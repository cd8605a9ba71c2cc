"""What is made of a record before its arrival is complete is what would be made of it then."""

import json

import pytest

from bridge.api import Outcome
from bridge.clock import Stamp
from bridge.field.readings import MOST_AHEAD, READINGS_FORM, Ahead, evidence, source_ns
from bridge.flow import Evaluated
from bridge.model import HostReason, Operation, Quality, Reading, Record, Trigger

RECEIVED = Stamp(1_795_000_000_123_456_789, 5, "boot")


class Plan:
    """Counts what it is asked."""

    site, name, participant, max_items, linger_ns = "north", "assets", "acme", 1000, 0
    operation, trigger, outcome = Operation.ASSET_CREATE, Trigger.REQUEST, Outcome()

    def __init__(self):
        self.asked = []

    def evaluate(self, record):
        self.asked.append(record.place)
        if record.fields.get("fail"):
            raise RuntimeError("ours")
        return Evaluated(key=record.place, content=record.problem.encode())


def record(place="1", *, received=RECEIVED, problem="", complete=True, raw=b"", **fields):
    named = {name: Reading(value=value) for name, value in fields.items()}
    return Record("assets", place, named, received, "7", complete, problem, raw)


def test_a_record_that_was_shown_is_not_evaluated_again():
    """It arrives with its time; the preparation is used once."""
    plan = Plan()
    ahead = Ahead({"assets": plan})
    early = record(received=Stamp(0, 0, ""), kw=5)
    ahead.look(early)
    late = early._replace(received=RECEIVED)
    made = ahead.take(late)
    assert (made.evaluated.key, plan.asked) == ("1", ["1"])
    assert ahead.take(late).evaluated == made.evaluated
    assert plan.asked == ["1", "1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"problem": "torn"},
        {"complete": False},
        {"fields": {"kw": Reading(value=5)}},
        {"place": "2"},
        {"flow": "others"},
        {},
    ],
)
def test_a_record_that_arrives_otherwise_is_evaluated_as_it_arrives(changes):
    """Equal fields are not the same fields, and a problem that came to light later counts, as do another place or flow."""
    plan = Plan()
    ahead = Ahead({"assets": plan, "others": plan})
    early = record(kw=5)
    ahead.look(early)
    late = early._replace(**changes)
    made = ahead.take(late)
    assert plan.asked == (["1", late.place] if changes else ["1"])
    assert made.candidate.place == late.place
    assert made.evaluated.content == changes.get("problem", "").encode()


def test_what_never_arrives_is_forgotten():
    """A device that keeps changing while it is read does not fill the memory."""
    plan = Plan()
    ahead = Ahead({"assets": plan})
    for number in range(3 * MOST_AHEAD):
        ahead.look(record(str(number)))
        assert len(ahead._made) <= MOST_AHEAD
    last = record("last")
    ahead.look(last)
    del plan.asked[:]
    ahead.take(last)
    assert plan.asked == []


def test_a_record_that_makes_the_host_fail_is_refused_wherever_it_is_looked_at(caplog):
    """Showing it raises nothing: the adapter's session goes on."""
    ahead = Ahead({"assets": Plan()})
    bad = record(fail=True)
    ahead.look(bad)
    refusal = ahead.take(bad).evaluated.refusal
    assert refusal.reason is HostReason.OTHER
    assert [entry.message for entry in caplog.records] == ["record_made_the_host_fail"]


@pytest.mark.parametrize("raw", [b"", b"\x00\x01"])
@pytest.mark.parametrize("problem", ["", "CRC: no"])
def test_evidence_has_the_time_of_arrival_first(raw, problem):
    """One line of JSON and the raw bytes behind it, whether it was prepared ahead or not."""
    ahead = Ahead({"assets": Plan()})
    early = record(received=Stamp(0, 0, ""), raw=raw, problem=problem, kw=5, name="é")
    late = early._replace(received=RECEIVED)
    plain = evidence(late, ahead.take(late))
    ahead.look(early)
    assert evidence(late, ahead.take(late)) == plain
    assert plain.startswith(READINGS_FORM)
    line, _, rest = plain.removeprefix(READINGS_FORM).partition(b"\n")
    said = json.loads(line)
    assert next(iter(said.items())) == ("received_ns", RECEIVED.wall_ns)
    assert rest == raw
    assert said.get("problem", "") == problem
    if raw:
        assert (said["good"], said["other"]) == (["kw", "name"], {})
    else:
        assert said["values"] == {"kw": [5, "good", None], "name": ["é", "good", None]}


def test_the_newest_source_time_counts():
    """A server's "never" is none."""
    fields = {
        "a": Reading(value=1, source_ns=5),
        "b": Reading(value=1, source_ns=7),
        "c": Reading(value=1, source_ns=2**63),
        "d": Reading(value=None, quality=Quality.BAD),
    }
    assert source_ns(Record("assets", "1", fields, RECEIVED)) == 7
    assert source_ns(Record("assets", "1", {}, RECEIVED)) == 0
