"""The stages of one submission as a waterfall, in text and for `--json`; made from the journal's stamps alone."""

from collections.abc import Mapping
from typing import Final

from bridge.clock import Stamp
from bridge.latency import Bar, host_share, source_difference_ns, waterfall

WIDE: Final = 40


def waterfall_lines(stamps: Mapping[str, Stamp]) -> list[str]:
    """For a terminal: start, duration, share and bar of each stage, the slowest marked; then the host's own share, and the source's clock apart."""
    bars = waterfall(stamps)
    total_ns = sum(max(0, bar.ns) for bar in bars)
    lines = ["Stages (ms, each named by the hop that ends it)"]
    if bars:
        lines.append(f"  {'STAGE':<14} {'START':>12} {'TOOK':>12} {'SHARE':>6}")
    lines += [_line(bar, total_ns) for bar in bars]
    share = host_share(stamps)
    if share is not None:
        lines.append(f"  received to first byte out: {share.ns / 1e6:.3f} ms{_flag(exact=share.exact)}")
    difference_ns = source_difference_ns(stamps)
    if difference_ns is not None:
        lines.append(f"  source clock difference, no part of the above: {difference_ns / 1e6:+.3f} ms")
    return lines


def waterfall_json(stamps: Mapping[str, Stamp]) -> dict[str, object]:
    """The same in milliseconds."""
    share, difference_ns = host_share(stamps), source_difference_ns(stamps)
    return {
        "stages": [
            {
                "stage": bar.hop,
                "start_ms": bar.start_ns / 1e6,
                "ms": bar.ns / 1e6,
                "share": round(bar.share, 4),
                "exact": bar.exact,
                "slowest": bar.slowest,
            }
            for bar in waterfall(stamps)
        ],
        "host_ms": None if share is None else share.ns / 1e6,
        "host_exact": None if share is None else share.exact,
        "source_clock_difference_ms": None if difference_ns is None else difference_ns / 1e6,
    }


def _line(bar: Bar, total_ns: int) -> str:
    before = round(WIDE * bar.start_ns / total_ns) if total_ns else 0
    drawn = " " * min(before, WIDE - 1) + "#" * max(1, round(WIDE * bar.share))
    mark = "  slowest" if bar.slowest else ""
    figures = f"{bar.start_ns / 1e6:>12.3f} {bar.ns / 1e6:>12.3f} {bar.share:>6.1%}"
    return f"  {bar.hop:<14} {figures}  {drawn:<{WIDE + 1}}{mark}{_flag(exact=bar.exact)}".rstrip()


def _flag(*, exact: bool) -> str:
    return "" if exact else "  (wall time: across boots or machines)"
