"""One submission's stages as a waterfall."""

from bridge.cli.waterfall import waterfall_json, waterfall_lines
from bridge.clock import Stamp
from bridge.latency import source_difference_ns, waterfall


def stamp(ms, boot="b"):
    return Stamp(1_000_000_000_000 + ms * 1_000_000, ms * 1_000_000, boot)


SOURCE = Stamp(1_000_000_000_000 - 7_000_000_000, 0, "")
STAMPS = {
    "source": SOURCE, "received": stamp(0), "mapped": stamp(1), "signed": stamp(3), "journalled": stamp(9),
    "sent": stamp(10), "answered": stamp(20, "c"),
}  # fmt: skip


def test_stages_follow_each_other_and_shares_make_a_whole():
    """Each begins where the one before ended; the slowest is one, the one across boots is flagged."""
    bars = waterfall(STAMPS)
    assert [(bar.hop, bar.start_ns // 10**6, bar.ns // 10**6) for bar in bars] == [
        ("mapped", 0, 1), ("signed", 1, 2), ("journalled", 3, 6), ("sent", 9, 1), ("answered", 10, 10),
    ]  # fmt: skip
    assert abs(sum(bar.share for bar in bars) - 1) < 1e-9
    assert [bar.hop for bar in bars if bar.slowest] == ["answered"]
    assert [bar.hop for bar in bars if not bar.exact] == ["answered"]


def test_the_source_clock_is_no_part_of_the_waterfall():
    """A source clock 7 s behind changes no stage; it is its own figure, negative for one that runs ahead."""
    without = {hop: at for hop, at in STAMPS.items() if hop != "source"}
    assert waterfall(STAMPS) == waterfall(without)
    assert source_difference_ns(STAMPS) == 7_000_000_000
    assert source_difference_ns({**STAMPS, "source": stamp(5)}) == -5_000_000
    assert source_difference_ns(without) is None


def test_the_text_marks_the_slowest_and_keeps_the_source_apart():
    """One line a stage with a bar, then the host's share, then the source's clock."""
    lines = waterfall_lines(STAMPS)
    [slow] = [line for line in lines if "slowest" in line]
    assert slow.split()[0] == "answered"
    assert "#" in slow
    assert "across boots" in slow
    assert lines[-2].endswith("received to first byte out: 10.000 ms")
    assert lines[-1].endswith("no part of the above: +7000.000 ms")


def test_one_that_has_only_arrived_has_no_stage():
    """Nothing is divided by nothing, and nothing is claimed."""
    assert waterfall({"received": stamp(0)}) == []
    assert waterfall_json({"received": stamp(0)})["host_ms"] is None
