"""What every part of one process is built with."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bridge.clock import Clock
from bridge.config import Config
from bridge.discipline import SigningGate
from bridge.field.traces import FieldTraces
from bridge.journal.port import Fence
from bridge.market.traces import MarketTraces
from bridge.measured import Measured
from bridge.metrics import Metrics
from bridge.reports import FieldReport, MarketReport


@dataclass(slots=True, kw_only=True)
class Shared:
    """One process's configuration, clock, reports and gate, and the leases it has taken so far."""

    config: Config
    clock: Clock
    metrics: Metrics
    measured: Measured
    field_report: FieldReport
    market_report: MarketReport
    look_at_ends: Callable[[], None]
    """Certificates or keys have changed: look at once when they end."""
    clock_state: Callable[[], Mapping[str, object]]
    """What is known of this machine's clock now, for evidence."""
    gate: SigningGate = field(default_factory=SigningGate)
    field_traces: FieldTraces = field(default_factory=FieldTraces)
    market_traces: MarketTraces = field(default_factory=MarketTraces)
    fences: list[Fence] = field(default_factory=list)
    jitter: Callable[[], float] = field(default_factory=lambda: random.Random().random)  # noqa: S311 - not secrets
