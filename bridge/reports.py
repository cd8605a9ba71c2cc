"""From what the field and market sides report to the metrics that are scraped."""

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from bridge.clock import Clock, Stamp
from bridge.discipline import Standing
from bridge.field.report import FieldMetrics
from bridge.flow import FlowPlan
from bridge.latency import between, host_share, stages
from bridge.market.report import MarketMetrics
from bridge.metrics import Metrics
from bridge.platform import AnswerClass
from bridge.submission import Admission


class FieldReport(FieldMetrics):
    """Counts the field side's reports, and knows the age of each link's last good reading."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._heard_ns: dict[str, int | None] = {}

    def admitted(self, flow: FlowPlan, admission: Admission) -> None:
        """See `FieldMetrics`."""
        self._metrics.records.labels(flow.site, flow.name, admission.value).inc()

    def unusual(self, flow: FlowPlan) -> None:
        """See `FieldMetrics`."""
        self._metrics.unusual.labels(flow.site, flow.name).inc()

    def stage(self, site: str, flow: str, hop: str, before: Stamp, after: Stamp) -> None:
        """See `FieldMetrics`."""
        found = between(before, after, hop)
        if found.exact:
            self._metrics.site_stage.labels(site, flow, hop).observe(found.ns / 1e9)

    def link(self, site: str, adapter: str, *, up: bool) -> None:
        """See `FieldMetrics`."""
        self._metrics.link.labels(site, adapter).set(1 if up else 0)
        self._heard_ns.setdefault(f"{site}/{adapter}", None)
        if up:
            self._metrics.sessions.labels(site, adapter).inc()

    def heard(self, site: str, adapter: str, mono_ns: int) -> None:
        """See `FieldMetrics`."""
        self._heard_ns[f"{site}/{adapter}"] = mono_ns
        self._metrics.heard.labels(site, adapter).set(mono_ns / 1e9)

    def wrote_back(self, flow: FlowPlan, state: str, *, final: bool) -> None:
        """See `FieldMetrics`."""
        if final:
            self._metrics.writebacks.labels(flow.site, flow.name, state).inc()

    def ages_s(self) -> Mapping[str, float | None]:
        """The age of each link's last good reading in seconds; None before the first."""
        now = self._clock.mono_ns()
        return {name: None if heard is None else (now - heard) / 1e9 for name, heard in self._heard_ns.items()}


class MarketReport(MarketMetrics):
    """Counts the market side's reports."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._dates: dict[str, str] = {}

    def answered(self, participant: str, answer: AnswerClass, stamps: Mapping[str, Stamp]) -> None:
        """See `MarketMetrics`."""
        self._metrics.answers.labels(participant, answer.value).inc()
        share = host_share(stamps)
        if share is not None and share.exact:
            self._metrics.host.labels(participant).observe(share.ns / 1e9)
        self._stages(participant, stamps)

    def settled(self, participant: str, stamps: Mapping[str, Stamp]) -> None:
        """See `MarketMetrics`."""
        last = {hop: stamps[hop] for hop in ("answered", "returned", "settled") if hop in stamps}
        self._stages(participant, last)

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

    def _stages(self, participant: str, stamps: Mapping[str, Stamp]) -> None:
        for stage in stages(stamps):
            if stage.exact:
                self._metrics.stage.labels(participant, stage.hop).observe(stage.ns / 1e9)
            else:
                self._metrics.inexact.labels(participant, stage.hop).inc()


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
    try:
        when = parsedate_to_datetime(date)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return when.timestamp() + 0.5 - wall_ns / 1e9
    except (ValueError, OverflowError):
        return None
