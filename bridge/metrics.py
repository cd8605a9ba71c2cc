"""Every metric of the bridge, declared once. Labels never carry personal data: names of the configuration, states and hops only."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.registry import Collector

from bridge.durations import DurationFamily

FINE_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
COARSE_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)


class _LatencyMetrics:
    """Stages, the host's share, budgets, rhythms."""

    def __init__(self, at: CollectorRegistry) -> None:
        self.stage = DurationFamily(
            "smp_bridge_stage_seconds",
            "Time of a stage by the hop that ends it, per participant",
            ["participant", "hop"],
            bounds_s=FINE_S,
            registry=at,
        )
        self.site_stage = DurationFamily(
            "smp_bridge_site_stage_seconds",
            "Time of a field stage by the hop that ends it, per site and flow",
            ["site", "flow", "hop"],
            bounds_s=COARSE_S,
            registry=at,
        )
        self.host = DurationFamily(
            "smp_bridge_host_seconds",
            "The host's own share: received to first byte out, per participant",
            ["participant"],
            bounds_s=FINE_S,
            registry=at,
        )
        self.latency = Gauge(
            "smp_bridge_latency_seconds",
            "Exact p50, p95, p99 and max over the last 5 minutes, of the host's own share (host) and of each stage by the hop that ends it, per site and flow",
            ["site", "flow", "hop", "statistic"],
            registry=at,
        )
        self.latency_samples = Gauge(
            "smp_bridge_latency_samples", "Samples behind these figures", ["site", "flow", "hop"], registry=at
        )
        self.latency_window = Gauge(
            "smp_bridge_latency_window_seconds",
            "How far back these figures reach: 300, or less where a figure had more samples than are kept (16384)",
            ["site", "flow"],
            registry=at,
        )
        self.budget_exceeded = Counter(
            "smp_bridge_budget_exceeded_total",
            "Submissions whose host share was more than the flow's latency_budget",
            ["site", "flow"],
            registry=at,
        )
        self.waited_outside = Counter(
            "smp_bridge_waited_outside_total",
            "Calls left out of the host's share and budget, by what outside the host kept them waiting (retry, resend, circuit, clock, hold, members, set_aside, boot)",
            ["site", "flow", "cause"],
            registry=at,
        )
        self.source_difference = Gauge(
            "smp_bridge_source_difference_seconds",
            "The host's clock at the last record's arrival less the source's own time: delay and difference of two clocks together, in no stage",
            ["site", "flow"],
            registry=at,
        )
        self.interval = Gauge(
            "smp_bridge_interval_seconds",
            "Poll and publish intervals: configured, revised by the server, achieved (median over the last 5 minutes)",
            ["site", "adapter", "interval", "which"],
            registry=at,
        )
        self.inexact = Counter(
            "smp_bridge_inexact_stages_total",
            "Stages across processes or boots, measured on wall time and left out of the histograms",
            ["participant", "hop"],
            registry=at,
        )


class _FieldMetrics:
    """Records, outcomes and links of the EMSs."""

    def __init__(self, at: CollectorRegistry) -> None:
        self.records = Counter(
            "smp_bridge_records_total", "Records by what they became", ["site", "flow", "admission"], registry=at
        )
        self.unusual = Counter(
            "smp_bridge_unusual_total",
            "Warnings of the rules about records that went on all the same",
            ["site", "flow"],
            registry=at,
        )
        self.writebacks = Counter(
            "smp_bridge_writebacks_total", "Write-backs by how they ended", ["site", "flow", "state"], registry=at
        )
        self.link = Gauge("smp_bridge_link_up", "Whether a session is open", ["site", "adapter"], registry=at)
        self.heard = Gauge(
            "smp_bridge_last_good_reading_monotonic_seconds",
            "CLOCK_MONOTONIC of the last good reading; health is its age",
            ["site", "adapter"],
            registry=at,
        )
        self.sessions = Counter("smp_bridge_sessions_total", "Sessions opened", ["site", "adapter"], registry=at)
        self.changes_lost = Counter(
            "smp_bridge_changes_lost_total",
            "Changes that the EMS says it could not keep until they were fetched",
            ["site", "adapter"],
            registry=at,
        )


class _MarketMetrics:
    """Calls, answers and returns of SMP."""

    def __init__(self, at: CollectorRegistry) -> None:
        self.answers = Counter(
            "smp_bridge_answers_total", "Answers of SMP by their class", ["participant", "answer"], registry=at
        )
        self.returns = Counter(
            "smp_bridge_returns_total", "Returns by what the end point made of them", ["verdict"], registry=at
        )
        self.refused_returns = Counter(
            "smp_bridge_refused_returns_total",
            "Refused messages at the end point by the one reason",
            ["reason"],
            registry=at,
        )
        self.circuit = Gauge(
            "smp_bridge_circuit_open", "Whether sending is paused after refusals", ["participant"], registry=at
        )
        self.in_flight = Gauge("smp_bridge_calls_in_flight", "Create calls under way", ["participant"], registry=at)


class _HostMetrics:
    """The host itself: journal, clock, keys, anchors, alarms, access."""

    def __init__(self, at: CollectorRegistry) -> None:
        self.journal = Gauge(
            "smp_bridge_journal",
            "What the journal holds, by count; `full` is 1 while it has no room",
            ["what"],
            registry=at,
        )
        self.clock_offset = Gauge(
            "smp_bridge_clock_offset_seconds",
            "What the operating system's discipline says has to be added to this machine's clock; NaN while it is not known",
            registry=at,
        )
        self.clock_max_error = Gauge(
            "smp_bridge_clock_max_error_seconds",
            "How wrong the clock may be at most, says its discipline; NaN while it is not known",
            registry=at,
        )
        self.clock_synchronised = Gauge(
            "smp_bridge_clock_synchronised",
            "Whether something synchronises this machine's clock; NaN while it is not known",
            registry=at,
        )
        self.signing_held = Gauge(
            "smp_bridge_signing_held", "Whether signing is held over the clock's offset", registry=at
        )
        self.smp_date = Gauge(
            "smp_bridge_smp_date_offset_seconds",
            "SMP's Date header less our clock at the last answer to a Create; only shown, and right to about a second, the header's resolution",
            ["participant"],
            registry=at,
        )
        self.traces = Counter(
            "smp_bridge_trace_reports_total",
            "Reports for traces by what became of them: sent, refused by the collector, or dropped (it could not be reached in time)",
            ["state"],
            registry=at,
        )
        self.expiry = Gauge(
            "smp_bridge_expiry_timestamp_seconds",
            "When a certificate or key ends (Unix time), by its place in the configuration and its file or key id",
            ["participant", "site", "what", "name"],
            registry=at,
        )
        self.anchor_age = Gauge(
            "smp_bridge_anchor_age_seconds",
            "Age of the newest anchor that a place of journal.anchors accepted from this process; it grows while nothing is sealed. NaN for none",
            ["place"],
            registry=at,
        )
        self.anchor_waiting = Gauge(
            "smp_bridge_anchor_waiting_seconds",
            "For how long an anchor has been due that this place did not accept; 0 when it has the newest that was due",
            ["place"],
            registry=at,
        )
        self.alarms = Gauge(
            "smp_bridge_alarms",
            "Alarms that stand, by whether somebody acknowledged them (open, acked); an environment is that of a hold of all of it",
            ["code", "participant", "site", "environment", "state"],
            registry=at,
        )
        self.admin_refused = Counter(
            "smp_bridge_admin_refused_total",
            "Requests that the admin listener refused: missing, malformed, signature, expired, unknown or revoked token, role, or origin; and connections: handshake, too_many_connections, head_too_slow, answer_not_read, bad_http",
            ["reason"],
            registry=at,
        )


class Metrics(_LatencyMetrics, _FieldMetrics, _MarketMetrics, _HostMetrics):
    """The registry of one process and its metrics by their names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        _LatencyMetrics.__init__(self, self.registry)
        _FieldMetrics.__init__(self, self.registry)
        _MarketMetrics.__init__(self, self.registry)
        _HostMetrics.__init__(self, self.registry)

    def render(self, keep: Callable[[str, Mapping[str, str]], bool] | None = None) -> bytes:
        """The text form that Prometheus scrapes; with `keep`, only the samples whose name and labels it says yes to."""
        return generate_latest(self.registry if keep is None else _Some(self.registry, keep))


class _Some(Collector):
    """A registry's samples that somebody may see."""

    def __init__(self, registry: CollectorRegistry, keep: Callable[[str, Mapping[str, str]], bool]) -> None:
        self._registry = registry
        self._keep = keep

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            samples = [sample for sample in family.samples if self._keep(sample.name, sample.labels)]
            if samples:
                some = Metric(family.name, family.documentation, family.type, family.unit)
                some.samples = samples
                yield some
