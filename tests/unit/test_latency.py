"""Stages from stamps."""

from bridge.clock import Stamp
from bridge.latency import host_share, stages


def stamp(ms, boot="b"):
    return Stamp(1_000_000_000_000 + ms * 1_000_000, ms * 1_000_000, boot)


def test_stages_carry_the_name_of_the_hop_that_ends_them():
    """On the quiet path `signed` comes before `journalled`; neighbours are found by time."""
    found = stages(
        {"received": stamp(0), "mapped": stamp(1), "signed": stamp(3), "journalled": stamp(6), "sent": stamp(7)}
    )
    assert [(stage.hop, stage.ns // 1_000_000) for stage in found] == [
        ("mapped", 1), ("signed", 2), ("journalled", 3), ("sent", 1),
    ]  # fmt: skip
    assert all(stage.exact for stage in found)


def test_a_span_across_boots_uses_wall_time_and_is_flagged():
    """It is shown, and stays out of the histograms."""
    (stage,) = stages({"sent": stamp(0, "a"), "answered": stamp(5, "b")})
    assert (stage.ns // 1_000_000, stage.exact) == (5, False)


def test_the_source_clock_is_never_mixed_in():
    """The EMS's own time is another clock: no stage begins there, with a boot of ours or without."""
    for boot in ("", "b"):
        source = Stamp(1_000_000_000_000 - 2_000_000, 0, boot)
        found = stages({"source": source, "received": stamp(0), "mapped": stamp(1)})
        assert found == [("mapped", 1_000_000, True)]


def test_the_hosts_own_share_is_received_to_first_byte_out():
    """None before anything was sent."""
    assert host_share({"received": stamp(0)}) is None
    share = host_share({"received": stamp(0), "sent": stamp(4)})
    assert share.ns == 4_000_000
