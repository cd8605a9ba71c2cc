"""One trace per submission, made of the stamps that its hops left behind: ids, the W3C `traceparent`, and the spans. Pure.

Every id is derived from the submission's own id. So the `traceparent` can stand in a call before any span exists, and what another process
reports of the same submission, or this one after a restart, joins the same trace.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.clock import Stamp
from bridge.latency import stages
from bridge.platform import AnswerClass
from bridge.submission import SubmissionState

ROOT: Final = "submission"
UNANSWERED: Final = "unanswered"
TRACEPARENT: Final = "traceparent"  # W3C Trace Context, section 3.2
_CALL_HOPS: Final = ("mapped", "journalled", "signed", "sent", "answered")
_AGAIN_HOPS: Final = ("journalled", "sent", "answered")  # what a further attempt of the same bytes goes through
_END_HOPS: Final = ("returned", "settled")
_OF_ATTEMPT: Final = frozenset({"sent", "answered", *_END_HOPS, "written_back"})
_BOUND: Final = 1 << 64

Attribute = str | int | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span. Ids are bytes as OTLP has them (16 and 8; `parent` is empty for the root), times UTC nanoseconds; `error` is '' where all is well."""

    trace: bytes
    id: bytes
    parent: bytes
    name: str
    start_ns: int
    end_ns: int
    client: bool = False
    error: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """What every span of a submission says of it: names of the configuration and ids of our own, never what an asset is."""

    submission: str
    participant: str
    site: str
    flow: str
    operation: str
    items: int

    @property
    def attributes(self) -> dict[str, Attribute]:
        """As attributes; what is not known is left out."""
        said: dict[str, Attribute] = {
            "smp_bridge.submission": self.submission,
            "smp_bridge.participant": self.participant,
            "smp_bridge.site": self.site,
            "smp_bridge.flow": self.flow,
            "smp_bridge.operation": self.operation,
            "smp_bridge.items": self.items,
        }
        return {name: value for name, value in said.items() if value not in {"", 0}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call that was made, or tried: which one it was (from 0), its first byte, its answer's class and status (0: none), or why there was none."""

    number: int
    answer: str
    status: int
    failure: str
    sent: Stamp | None
    ended: Stamp | None


# ids ----------------------------------------------------------------------------------------------------------------


def trace_id(submission: str) -> bytes:
    """16 bytes, the same for the same submission wherever it is asked."""
    return hashlib.sha256(f"smp-bridge trace {submission}".encode()).digest()[:16]


def span_id(submission: str, *which: object) -> bytes:
    """8 bytes for one span of a submission, named by what tells it from the others."""
    return hashlib.sha256(f"smp-bridge span {submission} {' '.join(map(str, which))}".encode()).digest()[:8]


def sampled(trace: bytes, ratio: float) -> bool:
    """Whether this trace is one of the share that is kept: by its id alone, as OpenTelemetry's `traceidratio` decides, so that everybody agrees."""
    return int.from_bytes(trace[8:], "big") < round(ratio * _BOUND)


def traceparent(submission: str, ratio: float) -> str:
    """The header by which SMP could join the trace: its spans become children of the submission's."""
    trace = trace_id(submission)
    return f"00-{trace.hex()}-{span_id(submission, ROOT).hex()}-{sampled(trace, ratio):02x}"


# spans --------------------------------------------------------------------------------------------------------------


def call_spans(whose: Whose, stamps: Mapping[str, Stamp], attempt: Attempt) -> list[Span]:
    """The stages of one attempt, up to its answer or the moment in which it was given up."""
    hops = _CALL_HOPS if attempt.number == 0 else _AGAIN_HOPS
    # The journal's stamps may hold those of an earlier attempt.
    seen = {hop: stamp for hop, stamp in stamps.items() if hop not in _OF_ATTEMPT}
    seen |= {hop: stamp for hop, stamp in (("sent", attempt.sent), ("answered", attempt.ended)) if stamp is not None}
    made = []
    for span in _stages(whose, seen, hops, f"{attempt.number}"):
        attributes: dict[str, Attribute] = {**span.attributes, "smp_bridge.attempt": attempt.number}
        if span.name != "answered":
            made.append(_but(span, attributes=attributes))
            continue
        attributes["smp_bridge.answer"] = attempt.answer
        if attempt.status:
            attributes["http.response.status_code"] = attempt.status
        if attempt.failure:
            attributes["error.type"] = attempt.failure
        name = UNANSWERED if attempt.failure else span.name
        error = "" if attempt.answer == AnswerClass.ACCEPTED.value else attempt.answer
        made.append(_but(span, name=name, client=True, attributes=attributes, error=error))
    return made


def end_spans(
    whose: Whose, stamps: Mapping[str, Stamp], state: SubmissionState, *, cause: str, outcomes: Mapping[str, int]
) -> list[Span]:
    """How a submission ended: the last stages, and the root over all of it. `cause` is a word of ours such as return or status."""
    attributes: dict[str, Attribute] = {"smp_bridge.state": state.value, "smp_bridge.cause": cause}
    error = "" if state is SubmissionState.CONFIRMED else state.value
    made = []
    for span in _stages(whose, stamps, _END_HOPS, ""):
        last = span.name == "settled"
        made.append(_but(span, attributes={**span.attributes, **attributes}, error=error) if last else span)
    times = _times({hop: stamp for hop, stamp in stamps.items() if hop != "source"})  # not the EMS's own clock
    if times:
        counted = {f"smp_bridge.items.{word}": number for word, number in outcomes.items()}
        made.append(
            Span(
                trace=trace_id(whose.submission),
                id=span_id(whose.submission, ROOT),
                parent=b"",
                name=ROOT,
                start_ns=min(times.values()),
                end_ns=max(times.values()),
                error=error,
                attributes={**whose.attributes, **attributes, **counted},
            )
        )
    return made


def told_spans(
    whose: Whose, settled: Stamp, written: Stamp, *, which: str, items: int, state: str, error: bool
) -> list[Span]:
    """Outcomes of one submission that reached their places in the EMS together; the root does not wait for it. `which` tells it from its sisters."""
    (span,) = _stages(whose, {"settled": settled, "written_back": written}, ("written_back",), which)
    attributes: dict[str, Attribute] = {**span.attributes, "smp_bridge.items": items, "smp_bridge.write_back": state}
    return [_but(span, attributes=attributes, error=state if error else "")]


def _stages(whose: Whose, stamps: Mapping[str, Stamp], hops: Sequence[str], which: str) -> list[Span]:
    """The stages that end with these hops, as children of the root, each named by the hop that ends it."""
    times = _times(stamps)
    trace, root = trace_id(whose.submission), span_id(whose.submission, ROOT)
    said = whose.attributes
    made = []
    for stage in stages(stamps):
        if stage.hop not in hops:
            continue
        end_ns = times[stage.hop]
        attributes = said if stage.exact else {**said, "smp_bridge.inexact": True}
        made.append(
            Span(
                trace=trace,
                id=span_id(whose.submission, stage.hop, which),
                parent=root,
                name=stage.hop,
                start_ns=min(end_ns - stage.ns, end_ns),
                end_ns=end_ns,
                attributes=attributes,
            )
        )
    return made


def _times(stamps: Mapping[str, Stamp]) -> dict[str, int]:
    """When each hop was, in UTC nanoseconds: within one boot by the monotonic clock from its first stamp, so that a wall clock that was set meanwhile moves nothing."""
    first: dict[str, Stamp] = {}
    for stamp in sorted((stamp for stamp in stamps.values() if stamp.boot), key=lambda stamp: stamp.mono_ns):
        first.setdefault(stamp.boot, stamp)
    return {
        hop: first[stamp.boot].wall_ns + stamp.mono_ns - first[stamp.boot].mono_ns if stamp.boot else stamp.wall_ns
        for hop, stamp in stamps.items()
    }


def _but(
    span: Span, *, attributes: Mapping[str, Attribute], name: str = "", client: bool = False, error: str = ""
) -> Span:
    """The same span with these; by hand, for `dataclasses.replace` takes several times as long."""
    return Span(
        trace=span.trace,
        id=span.id,
        parent=span.parent,
        name=name or span.name,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        client=client,
        error=error,
        attributes=attributes,
    )
