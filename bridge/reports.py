"""From what the field and market sides report to the metrics that are scraped."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import Counter

from bridge.api import Intervals
from bridge.clock import Clock, Stamp, http_date_s
from bridge.discipline import Standing
from bridge.field.report import FieldMetrics
from bridge.flow import FlowPlan
from bridge.journal.port import OpenSubmission
from bridge.latency import Stage, Wait, between, host_share, stages
from bridge.market.answers import Outgoing
from bridge.market.report import MarketMetrics
from bridge.measure.book import Book, Where
from bridge.measure.intervals import IntervalBook
from bridge.measure.reach import Reach
from bridge.metrics import Metrics
from bridge.platform import AnswerClass
from bridge.submission import Admission

log = logging.getLogger(__name__)


class _Series:
    """The counters of a family by their labels' values, kept: looking one up takes the library longer than counting."""

    def __init__(self, family: Counter) -> None:
        self._family = family
        self._known: dict[tuple[str, ...], Counter] = {}

    def of(self, *values: str) -> Counter:
        """The counter with these values, which is shown from now on."""
        found = self._known.get(values)
        if found is None:
            found = self._known[values] = self._family.labels(*values)
        return found


class FieldReport(FieldMetrics):
    """Counts the field side's reports, and knows the age of each link's last good reading."""

    def __init__(
        self, metrics: Metrics, clock: Clock, book: Book | None = None, intervals: IntervalBook | None = None
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._book = book or Book()
        self._intervals = intervals or IntervalBook(clock.mono_ns)
        self._heard_ns: dict[str, int | None] = {}
        self._records = _Series(metrics.records)
        self.reaches: dict[tuple[str, str], Reach] = {}
        """Of each link, by site and adapter."""

    def admitted(self, flow: FlowPlan, admission: Admission, count: int) -> None:
        """See `FieldMetrics`."""
        self._records.of(flow.site, flow.name, admission.value).inc(count)

    def unusual(self, flow: FlowPlan) -> None:
        """See `FieldMetrics`."""
        self._metrics.unusual.labels(flow.site, flow.name).inc()

    def stage(self, site: str, flow: str, hop: str, before: Stamp, after: Stamp) -> None:
        """See `FieldMetrics`."""
        found = between(before, after, hop)
        if found.exact:
            self._metrics.site_stage.labels(site, flow, hop).observe(found.ns / 1e9)
            if hop == "written_back":  # the stages before it are the submission's, which the market side knows whole
                self._book.flow(Where(site, flow)).add(hop, after.mono_ns, found.ns)

    def source(self, site: str, flow: str, difference_ns: int) -> None:
        """See `FieldMetrics`."""
        self._book.flow(Where(site, flow)).source_difference_ns = difference_ns

    def intervals(self, site: str, adapter: str) -> Intervals:
        """See `FieldMetrics`."""
        return self._intervals.of(site, adapter)

    def link(self, site: str, adapter: str, *, up: bool) -> None:
        """See `FieldMetrics`."""
        self._metrics.link.labels(site, adapter).set(1 if up else 0)
        self._heard_ns.setdefault(f"{site}/{adapter}", None)
        reach = self.reaches.setdefault((site, adapter), Reach())
        if up:
            reach.good(self._clock.wall_ns())
            self._metrics.sessions.labels(site, adapter).inc()

    def broke(self, site: str, adapter: str, error: str) -> None:
        """See `FieldMetrics`."""
        self.reaches.setdefault((site, adapter), Reach()).bad(self._clock.wall_ns(), error)

    def lost(self, site: str, adapter: str, count: int) -> None:
        """See `FieldMetrics`."""
        self._metrics.changes_lost.labels(site, adapter).inc(count)

    def heard(self, site: str, adapter: str, mono_ns: int) -> None:
        """See `FieldMetrics`."""
        name = f"{site}/{adapter}"
        if self._heard_ns.get(name) is None:
            self._metrics.heard.labels(site, adapter).set_function(lambda: (self._heard_ns[name] or 0) / 1e9)
        self._heard_ns[name] = mono_ns

    def wrote_back(self, flow: FlowPlan, state: str, *, final: bool) -> None:
        """See `FieldMetrics`."""
        if final:
            self._metrics.writebacks.labels(flow.site, flow.name, state).inc()

    def ages_s(self) -> Mapping[str, float | None]:
        """The age of each link's last good reading in seconds; None before the first."""
        now = self._clock.mono_ns()
        return {name: None if heard is None else (now - heard) / 1e9 for name, heard in self._heard_ns.items()}


class MarketReport(MarketMetrics):
    """Counts the market side's reports, and keeps the latency book."""

    def __init__(self, metrics: Metrics, book: Book | None = None) -> None:
        self._metrics = metrics
        self._book = book or Book()
        self._dates: dict[str, str] = {}
        self._answers = _Series(metrics.answers)

    def answered(self, participant: str, out: Outgoing, answer: AnswerClass, stamps: Mapping[str, Stamp]) -> None:
        """See `MarketMetrics`. Only a first attempt has stages and a share; what waited outside the host has no share, nor the stage of that wait."""
        self._answers.of(participant, answer.value).inc()
        share, waited = host_share(stamps), out.waited
        if waited is None and share is not None and not share.exact:
            waited = Wait.BOOT
        if waited is not None:
            self._waited(out, waited)
            share = None
        if out.attempts or waited in _FURTHER:
            return
        if share is not None:
            self._metrics.host.labels(participant).observe(share.ns / 1e9)
        found = [stage for stage in stages(stamps) if waited is None or stage.hop != _AFTER_A_WAIT]
        self._stages(participant, found)
        if "sent" in stamps:
            self._sent(out, found, share, stamps["sent"])

    def settled(self, participant: str, found: OpenSubmission, stamps: Mapping[str, Stamp]) -> None:
        """See `MarketMetrics`."""
        known = {hop: stamps[hop] for hop in ("sent", "answered", "returned", "settled") if hop in stamps}
        if _of_an_earlier_attempt(known):
            del known["answered"]
        ends = [stage for stage in stages(known) if stage.hop in _ENDS]
        self._stages(participant, ends)
        book, at_ns = self._book.flow(Where(found.site, found.flow)), stamps["settled"].mono_ns
        for stage in ends:
            if stage.exact:
                book.add(stage.hop, at_ns, stage.ns)

    def smp_date(self, participant: str, date: str, answered: Stamp) -> None:
        """See `MarketMetrics`."""
        if not date or self._dates.get(participant) == date:  # the same second again says nothing new
            return
        self._dates[participant] = date
        offset_s = date_offset_s(date, answered.wall_ns)
        if offset_s is not None:
            self._metrics.smp_date.labels(participant).set(offset_s)

    def circuit(self, participant: str, *, open_: bool) -> None:
        """See `MarketMetrics`."""
        self._metrics.circuit.labels(participant).set(1 if open_ else 0)

    def returned(self, verdict: str) -> None:
        """See `MarketMetrics`."""
        self._metrics.returns.labels(verdict).inc()

    def refused(self, reason: str) -> None:
        """See `MarketMetrics`."""
        self._metrics.refused_returns.labels(reason).inc()

    def _waited(self, out: Outgoing, cause: Wait) -> None:
        self._metrics.waited_outside.labels(out.site, out.flow, cause.value).inc()
        self._book.flow(Where(out.site, out.flow)).waits[cause] += 1

    def _sent(self, out: Outgoing, found: Sequence[Stage], share: Stage | None, sent: Stamp) -> None:
        where = Where(out.site, out.flow)
        exceeded = self._book.sent(where, out.submission, found, share, at_ns=sent.mono_ns, wall_ns=sent.wall_ns)
        if exceeded is None:
            return
        self._metrics.budget_exceeded.labels(*where).inc()
        told = {
            "submission": out.submission,
            "host_ms": exceeded.share_ns / 1e6,
            "budget_ms": exceeded.budget_ns / 1e6,
            "slowest": exceeded.slowest.hop,
            "slowest_ms": exceeded.slowest.ns / 1e6,
        }
        log.warning("budget_exceeded", extra={**where._asdict(), **told})

    def _stages(self, participant: str, found: Sequence[Stage]) -> None:
        for stage in found:
            if stage.exact:
                self._metrics.stage.labels(participant, stage.hop).observe(stage.ns / 1e9)
            else:
                self._metrics.inexact.labels(participant, stage.hop).inc()


_FURTHER: Final = frozenset({Wait.RETRY, Wait.RESEND})
_AFTER_A_WAIT: Final = "signed"  # what waits is signed when it may go
_ENDS: Final = frozenset({"returned", "settled"})


def _of_an_earlier_attempt(stamps: Mapping[str, Stamp]) -> bool:
    """Whether the answer is older than the call: the last attempt had none, and its submission was settled all the same."""
    sent, answered = stamps.get("sent"), stamps.get("answered")
    return sent is not None and answered is not None and between(answered, sent, "").ns > 0


class ClockReport:
    """Shows what is known of the machine's clock; NaN for what is not."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for gauge in (metrics.clock_offset, metrics.clock_max_error, metrics.clock_synchronised):
            gauge.set(math.nan)
        metrics.signing_held.set(0)

    def __call__(self, standing: Standing) -> None:
        """Show this standing."""
        report, metrics = standing.report, self._metrics
        metrics.clock_offset.set(_figure(report.offset_s))
        metrics.clock_max_error.set(_figure(report.max_error_s))
        metrics.clock_synchronised.set(_figure(report.synchronised))
        metrics.signing_held.set(standing.held)


def _figure(value: float | None) -> float:
    return math.nan if value is None else float(value)


def date_offset_s(date: str, wall_ns: int) -> float | None:
    """A peer's `Date` (RFC 9110 section 6.6.1) less our UTC time, in seconds; None when it is none.

    The header names the second in which the answer was made, so half a second is added: the figure is right to half a second and the way here.
    """
    made_s = http_date_s(date)
    return None if made_s is None else made_s + 0.5 - wall_ns / 1e9
