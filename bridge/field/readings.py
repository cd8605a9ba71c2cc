"""What is made of a record by itself, before anything is asked of the journal: its evaluation and its evidence; ahead of its arrival where the adapter still reads."""

import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import orjson

from bridge.flow import Evaluated, FlowPlan
from bridge.journal.port import Candidate
from bridge.model import HostReason, Kind, Quality, Reading, Record, Refusal

log = logging.getLogger(__name__)

READINGS_FORM: Final = b"smp-bridge readings 1\n"  # what tells these apart from what older versions kept
MOST_AHEAD: Final = 2000  # two calls' worth; what never came is forgotten with the rest
_GOOD: Final = Quality.GOOD
_QUALITIES: Final = {quality: quality.value for quality in Quality}
_MOST_NS: Final = 2**63  # what a column holds: the year 2262


class Prepared(NamedTuple):
    """A record as its flow sees it, what the journal is asked for it, and its readings as evidence, but for what only its arrival has: request, times, reply.

    All of it follows from `place`, `fields` and `problem`; `source_ns` is 0 where the protocol has no source times.
    """

    fields: Mapping[str, Reading]
    problem: str
    evaluated: Evaluated
    candidate: Candidate
    source_ns: int
    told: bytes


class Ahead:
    """Prepares the records of one site, at the latest when they arrive."""

    def __init__(self, plans: Mapping[str, FlowPlan]) -> None:
        self._plans = plans
        self._made: dict[int, Prepared] = {}

    def look(self, record: Record) -> None:
        """Prepare a record that is read while others of its arrival are not; never raises. The one that arrives holds the very same `fields`."""
        if len(self._made) >= MOST_AHEAD:
            self._made.clear()
        self._made[id(record.fields)] = self._prepare(record)  # it holds the fields, so that no others get this number

    def take(self, record: Record) -> Prepared:
        """The record that has arrived, prepared; it is not kept any longer."""
        made = self._made.pop(id(record.fields), None) if self._made else None
        if made is not None and record.complete and record.problem == made.problem:
            candidate = made.candidate
            if (candidate.flow, candidate.place) == (record.flow, record.place):
                return made
        return self._prepare(record)

    def _prepare(self, record: Record) -> Prepared:
        plan = self._plans[record.flow]
        evaluated = _evaluated(plan, record)
        candidate = candidate_of(plan, evaluated, record.place)
        return Prepared(record.fields, record.problem, evaluated, candidate, source_ns(record), _told(record))


def candidate_of(plan: FlowPlan, evaluated: Evaluated, place: str) -> Candidate:
    """What the journal is asked for one record of a flow, but for what only its arrival has."""
    return Candidate(
        site=plan.site,
        flow=plan.name,
        place=place,
        participant=plan.participant,
        operation=plan.operation,
        trigger=plan.trigger,
        request=None,
        key=evaluated.key,
        content=evaluated.content,
        digest=evaluated.digest,
        refusal=evaluated.refusal,
        depends=evaluated.members,
        max_items=1 if plan.operation.kind is Kind.UNIT else plan.max_items,
        linger_ns=plan.linger_ns,
        progress=plan.outcome.progress,
    )


def _evaluated(plan: FlowPlan, record: Record) -> Evaluated:
    """A record that makes our own code fail is refused like any other: it may not end the session again and again."""
    try:
        return plan.evaluate(record)
    except Exception as error:
        log.exception("record_made_the_host_fail", extra={"site": plan.site, "flow": plan.name, "place": record.place})
        text = f"the host failed at this record ({type(error).__name__}); the service's log says where"
        return Evaluated(key=None, refusal=Refusal(reason=HostReason.OTHER, text=text))


def source_ns(record: Record) -> int:
    """The newest source time among the readings, 0 where the protocol has none; a server's "never" (year 9999) is none."""
    newest = 0
    for reading in record.fields.values():
        found = reading.source_ns
        if found is not None and newest < found < _MOST_NS:
            newest = found
    return newest


def evidence(record: Record, prepared: Prepared) -> bytes:
    """The legacy leg as it came, in the form of docs/evidence.md, "The form of readings": quality and times, then the raw bytes where the protocol has them."""
    return b'%b{"received_ns":%d,%b\n%b' % (READINGS_FORM, record.received.wall_ns, prepared.told, record.raw)


def _told(record: Record) -> bytes:
    """All but the first member of the line of JSON."""
    try:
        return _line(record, _plain)
    except (TypeError, ValueError):  # text that is no Unicode, integers of thousands of digits, nesting without end
        return _line(record, _spelled)


def _line(record: Record, form: Callable[[object], object]) -> bytes:
    """What is said of the record, without the opening brace. Values stand in it only where there are no raw bytes; beside those the plain good fields are names alone, for this is the hot path."""
    said: dict[str, object] = {}
    if record.problem:
        said["problem"] = form(record.problem)
    if record.raw:
        good, other = [], {}
        for name, reading in record.fields.items():
            _, quality, source_ns, detail, _ = reading
            if quality is _GOOD and source_ns is None and not detail:
                good.append(name)
            else:
                other[name] = _marks(reading, form)
        said["good"], said["other"] = good, other
    else:
        said["values"] = {
            name: [form(reading.value), *_marks(reading, form)] for name, reading in record.fields.items()
        }
    return orjson.dumps(said, default=str, option=orjson.OPT_PASSTHROUGH_SUBCLASS)[1:]


def _marks(reading: Reading, form: Callable[[object], object]) -> list[object]:
    """Quality, source time, and what the adapter says of it where it says anything."""
    marks: list[object] = [_QUALITIES[reading.quality], _plain(reading.source_ns)]
    if reading.detail:
        marks.append(form(reading.detail))
    return marks


def _spelled(value: object) -> str:
    """Any value at all as ASCII."""
    try:
        return ascii(value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"


def _plain(value: object) -> object:
    """A value that any JSON encoder takes: integers beyond 64 bits and bytes become text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value
