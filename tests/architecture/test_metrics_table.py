"""docs/metrics.md lists every metric as it is declared."""

from pathlib import Path

from bridge.metrics import Metrics

DOC = Path(__file__).parents[2] / "docs/metrics.md"


def rows():
    """The table as the code has it."""
    made = [metric for name, metric in vars(Metrics()).items() if name != "registry"]
    for metric in made:
        suffix = "_total" if metric._type == "counter" else ""
        yield f"| `{metric._name}{suffix}` | {metric._type} | {', '.join(metric._labelnames)} | {metric._documentation} |"


def test_the_table_is_what_is_declared():
    """Name, type, labels and meaning of each; nothing missing, nothing too much."""
    listed = [line for line in DOC.read_text().splitlines() if line.startswith("| `")]
    assert listed == list(rows())
