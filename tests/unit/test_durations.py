"""Our histograms are Prometheus' own, sample by sample."""

import random

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bridge.durations import DurationFamily
from bridge.metrics import COARSE_S, FINE_S

LABELS = ["site", "hop"]


def made(bounds_s):
    registry = CollectorRegistry()
    return registry, DurationFamily("smp_bridge_x_seconds", "What it is", LABELS, bounds_s=bounds_s, registry=registry)


def lines(registry):
    """What is scraped, without the moment at which a series was made, which ours do not tell."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@pytest.mark.parametrize("bounds_s", [FINE_S, COARSE_S, (1.0,)])
def test_it_counts_as_the_library_does(bounds_s):
    """Random durations, each bound itself, nothing, and more than the last bound."""
    registry, ours = made(bounds_s)
    library = CollectorRegistry()
    theirs = Histogram("smp_bridge_x_seconds", "What it is", LABELS, buckets=bounds_s, registry=library)
    chance = random.Random(7)  # noqa: S311 - a test's numbers
    values = [0.0, *bounds_s, 1e9, *(chance.expovariate(20) for _ in range(500))]
    for number, value in enumerate(values):
        labels = ("north", "sent") if number % 3 else ('a "quoted" one', "mapped")
        ours.labels(*labels).observe(value)
        theirs.labels(*labels).observe(value)
    assert lines(registry) == lines(library)
    assert registry.get_sample_value("smp_bridge_x_seconds_count", {"site": "north", "hop": "sent"}) > 300


def test_a_series_is_there_from_when_it_was_named():
    """And one that was never named is not; as many labels as were declared."""
    registry, ours = made((1.0,))
    assert "_bucket" not in "".join(lines(registry))
    ours.labels("north", "sent")
    assert registry.get_sample_value("smp_bridge_x_seconds_count", {"site": "north", "hop": "sent"}) == 0
    with pytest.raises(ValueError, match=r"has 2 label\(s\), not 1"):
        ours.labels("north")


def test_a_name_stands_for_one_family():
    registry, _ = made((1.0,))
    with pytest.raises(ValueError, match="Duplicated"):
        DurationFamily("smp_bridge_x_seconds", "Another", LABELS, bounds_s=(1.0,), registry=registry)
