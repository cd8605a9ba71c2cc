"""The latency book: for each flow the figures of the last five minutes, its budget and the submissions that exceeded it. Pure."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from bridge.latency import HOST_SHARE, Stage, Wait
from bridge.measure.window import Figures, Window

EXEMPLARS: Final = 10  # kept of each flow


class Where(NamedTuple):
    """A flow of a site."""

    site: str
    flow: str


class Exemplar(NamedTuple):
    """A submission whose host share exceeded its flow's budget. `stages` are those up to its first byte, `slowest` is one of them."""

    submission: str
    wall_ns: int
    share_ns: int
    budget_ns: int
    stages: tuple[Stage, ...]
    slowest: Stage


class FlowBook:
    """One flow's part of the book."""

    __slots__ = ("_windows", "budget_ns", "exceeded", "exemplars", "source_difference_ns", "waits")

    def __init__(self, budget_ns: int = 0) -> None:
        self.budget_ns = budget_ns
        self.exceeded = 0
        self.exemplars: deque[Exemplar] = deque(maxlen=EXEMPLARS)
        self.waits: Counter[Wait] = Counter()
        self.source_difference_ns: int | None = None
        self._windows: dict[str, Window] = {}

    def add(self, figure: str, at_ns: int, value_ns: int) -> None:
        """One sample of the host's share (`HOST_SHARE`) or of a stage, by the hop that ends it."""
        window = self._windows.get(figure)
        if window is None:
            window = self._windows[figure] = Window()
        window.add(at_ns, value_ns)

    def figures(self, now_ns: int) -> Iterator[tuple[str, Figures]]:
        """Each figure that has samples. One costs up to some milliseconds, so let others have their turn in between."""
        for figure, window in list(self._windows.items()):
            found = window.figures(now_ns)
            if found is not None:
                yield figure, found


class Book:
    """The flows of one process. Every time is handed in."""

    def __init__(self, budgets: Mapping[Where, int] | None = None) -> None:
        """`budgets` names every flow of the configuration with its budget in nanoseconds, 0 where it has none."""
        self._flows = {where: FlowBook(budget_ns) for where, budget_ns in (budgets or {}).items()}

    def flows(self) -> list[tuple[Where, FlowBook]]:
        """The configured flows, then those that only the journal still knew."""
        return list(self._flows.items())

    def flow(self, where: Where) -> FlowBook:
        """The book of this flow."""
        found = self._flows.get(where)
        if found is None:
            found = self._flows[where] = FlowBook()
        return found

    def sent(
        self, where: Where, submission: str, stages: Sequence[Stage], share: Stage | None, *, at_ns: int, wall_ns: int
    ) -> Exemplar | None:
        """A first attempt with its stages, and the host's share where nothing outside the host kept it waiting; returns what exceeded the budget.

        `at_ns` (monotonic) and `wall_ns` (UTC) are when its first byte left. Stages that are not exact are left out.
        """
        book = self.flow(where)
        for stage in stages:
            if stage.exact:
                book.add(stage.hop, at_ns, stage.ns)
        if share is None or not share.exact:
            return None
        book.add(HOST_SHARE, at_ns, share.ns)
        if not book.budget_ns or share.ns <= book.budget_ns:
            return None
        own = _until_sent(stages)
        slowest = max(own, key=lambda stage: stage.ns, default=share)
        exemplar = Exemplar(submission, wall_ns, share.ns, book.budget_ns, own, slowest)
        book.exceeded += 1
        book.exemplars.append(exemplar)
        return exemplar


def _until_sent(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages that make the host's share: up to the first byte."""
    hops = [stage.hop for stage in stages]
    return tuple(stages[: hops.index("sent") + 1]) if "sent" in hops else ()
