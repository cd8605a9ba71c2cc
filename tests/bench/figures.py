"""What is made of the samples: percentiles, medians of interleaved runs, and the table."""

import math
from dataclasses import dataclass
from statistics import median


def percentile(samples, share):
    """The smallest sample that at least this share of all samples does not exceed (nearest rank)."""
    ordered = sorted(samples)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def paired(runs, figure, contender, reference):
    """The median over the runs of this figure of one contender against the other's in the same run."""
    return median(run[contender][figure] / run[reference][figure] for run in runs)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. `met` is None where the figure has no goal, or where it could not be judged."""

    figure: str
    value: str
    floors: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None

    def cells(self):
        return (
            self.figure,
            self.value,
            self.floors,
            self.ratio,
            self.goal,
            {True: "met", False: "NOT MET", None: ""}[self.met],
        )


HEAD = ("figure", "bridge", "floor / with journal", "ratio", "goal", "")


def table(rows):
    """The rows under each other, as Markdown."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(HEAD))]
    written = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([written[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *written[1:]])
