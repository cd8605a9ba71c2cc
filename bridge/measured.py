"""The latency book of one host: kept by the reports, shown as gauges and as `/api/v1/latency`."""

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import Gauge

from bridge.clock import Clock, iso_ms
from bridge.config import Config
from bridge.latency import HOST_SHARE, Stage
from bridge.measure.book import Book, Exemplar, FlowBook, Where
from bridge.measure.intervals import Interval, IntervalBook
from bridge.measure.window import SPAN_NS, Figures
from bridge.metrics import Metrics
from bridge.turns import Turns

_FIGURES: Final = {"p50": "p50_ns", "p95": "p95_ns", "p99": "p99_ns", "max": "max_ns"}


class Measured:
    """What `FieldReport` and `MarketReport` write into, and what is made of it when somebody asks."""

    def __init__(self, config: Config, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self.book = Book(
            {
                Where(site.name, flow.name): int(flow.latency_budget_s * 1e9)
                for site in config.sites.values()
                for flow in site.flows.values()
            }
        )
        self.intervals = IntervalBook(clock.mono_ns)
        self._shown: dict[Gauge, set[tuple[str, ...]]] = {}

    async def told(self) -> dict[str, Any]:
        """Everything as JSON; times in milliseconds but for `window_s`."""
        turns, now_ns = Turns(), self._clock.mono_ns()
        flows = []
        for where, book in self.book.flows():
            found = {}
            for figure, figures in book.figures(now_ns):
                found[figure] = _told(figures)
                await turns.give()
            flows.append(_flow(where, book, found))
        intervals = []
        for site, adapter, name, interval in self.intervals.all():
            intervals.append(_interval(site, adapter, name, interval, now_ns))
            await turns.give()
        exemplars = [
            {**where._asdict(), **_exemplar(exemplar)}
            for where, book in self.book.flows()
            for exemplar in book.exemplars
        ]
        return {
            "at": iso_ms(self._clock.wall_ns()),
            "window_s": SPAN_NS / 1e9,
            "flows": flows,
            "exceeded": sorted(exemplars, key=lambda shown: shown["at"], reverse=True),
            "intervals": intervals,
        }

    async def show(self) -> None:
        """Set the gauges, for one scrape at a time; a figure without a sample in the last five minutes is not shown."""
        turns, now_ns, metrics = Turns(), self._clock.mono_ns(), self._metrics
        latency, samples = _Series(metrics.latency, self._shown), _Series(metrics.latency_samples, self._shown)
        windows, interval = _Series(metrics.latency_window, self._shown), _Series(metrics.interval, self._shown)
        for where, book in self.book.flows():
            window_ns = 0
            for figure, figures in book.figures(now_ns):
                for statistic, attribute in _FIGURES.items():
                    latency.set((*where, figure, statistic), getattr(figures, attribute) / 1e9)
                samples.set((*where, figure), figures.samples)
                window_ns = min(window_ns or SPAN_NS, figures.span_ns)
                await turns.give()
            if window_ns:
                windows.set(where, window_ns / 1e9)
            if book.source_difference_ns is not None:
                metrics.source_difference.labels(*where).set(book.source_difference_ns / 1e9)
        for site, adapter, name, found in self.intervals.all():
            for which, seconds in _seconds(found, now_ns):
                interval.set((site, adapter, name, which), seconds)
            await turns.give()
        for series in (latency, samples, windows, interval):
            await series.sweep(turns)


class _Series:
    """A gauge whose series are those that were set in this scrape: the others go, and those that stay are not made anew."""

    def __init__(self, gauge: Gauge, shown: dict[Gauge, set[tuple[str, ...]]]) -> None:
        self._gauge = gauge
        self._shown = shown
        self._set: set[tuple[str, ...]] = set()

    def set(self, labels: tuple[str, ...], value: float) -> None:
        self._gauge.labels(*labels).set(value)
        self._set.add(labels)

    async def sweep(self, turns: Turns) -> None:
        for labels in self._shown.get(self._gauge, set()) - self._set:
            self._gauge.remove(*labels)
            await turns.give()
        self._shown[self._gauge] = self._set


def _told(figures: Figures) -> dict[str, Any]:
    shown: dict[str, Any] = {"samples": figures.samples}
    shown |= {f"{statistic}_ms": _ms(getattr(figures, attribute)) for statistic, attribute in _FIGURES.items()}
    return shown | {"window_s": round(figures.span_ns / 1e9, 3), "full": figures.full}


def _flow(where: Where, book: FlowBook, found: dict[str, Any]) -> dict[str, Any]:
    return {
        **where._asdict(),
        "budget_ms": _ms(book.budget_ns) if book.budget_ns else None,
        "over_budget": book.exceeded,
        "host": found.pop(HOST_SHARE, None),
        "stages": found,
        "waited_outside": {cause.value: number for cause, number in sorted(book.waits.items(), key=_by_cause)},
        "source_difference_ms": None if book.source_difference_ns is None else _ms(book.source_difference_ns),
    }


def _by_cause(entry: tuple[Any, int]) -> str:
    return str(entry[0].value)


def _exemplar(exemplar: Exemplar) -> dict[str, Any]:
    return {
        "submission": exemplar.submission,
        "at": iso_ms(exemplar.wall_ns),
        "host_ms": _ms(exemplar.share_ns),
        "budget_ms": _ms(exemplar.budget_ns),
        "stages": [_stage(stage) for stage in exemplar.stages],
        "slowest": exemplar.slowest.hop,
    }


def _stage(stage: Stage) -> dict[str, Any]:
    return {"stage": stage.hop, "ms": _ms(stage.ns)}


def _interval(site: str, adapter: str, name: str, interval: Interval, now_ns: int) -> dict[str, Any]:
    achieved = interval.achieved(now_ns)
    return {
        "site": site,
        "adapter": adapter,
        "interval": name,
        "configured_ms": None if interval.configured_s is None else _ms(interval.configured_s * 1e9),
        "revised_ms": None if interval.revised_s is None else _ms(interval.revised_s * 1e9),
        "achieved": None if achieved is None else _told(achieved),
    }


def _seconds(interval: Interval, now_ns: int) -> Iterator[tuple[str, float]]:
    achieved = interval.achieved(now_ns)
    known = {
        "configured": interval.configured_s,
        "revised": interval.revised_s,
        "achieved": None if achieved is None else achieved.p50_ns / 1e9,
    }
    yield from ((which, seconds) for which, seconds in known.items() if seconds is not None)


def _ms(ns: float) -> float:
    return round(ns / 1e6, 4)
