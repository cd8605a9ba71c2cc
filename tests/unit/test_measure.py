"""The latency book: windows, budgets, intervals."""

import pytest

from bridge.latency import HOST_SHARE, Stage, Wait
from bridge.measure.book import EXEMPLARS, Book, Where
from bridge.measure.intervals import MOST_NAMES, IntervalBook
from bridge.measure.window import MOST, SPAN_NS, Window

S = 1_000_000_000
MS = 1_000_000
NORTH = Where("north", "assets")


def filled(values, *, step_ns=MS, **options):
    window = Window(**options)
    for number, value in enumerate(values):
        window.add(number * step_ns, value)
    return window


# windows ------------------------------------------------------------------------------------------------------------


def test_percentiles_are_exact():
    """Of 0 to 100 each percentile is its own number, in whatever order they came."""
    found = filled([(number * 37) % 101 for number in range(101)]).figures(S)
    assert found == (101, 50, 95, 99, 100, SPAN_NS, False)


def test_percentiles_between_two_samples_are_linear():
    """As `statistics.quantiles` has it, ends included."""
    found = filled([0, 1000]).figures(S)
    assert (found.samples, found.p50_ns, found.p95_ns, found.p99_ns, found.max_ns) == (2, 500, 950, 990, 1000)


def test_one_sample_is_every_figure_and_none_is_no_figure():
    """No figure is made up."""
    assert filled([7]).figures(S)[:5] == (1, 7, 7, 7, 7)
    assert Window().figures(S) is None


def test_what_is_older_than_the_window_does_not_count():
    """The sample of five minutes ago still does, the one before it does not; later none is left."""
    window = filled([9, 5, 7], step_ns=S)
    assert window.figures(SPAN_NS + S)[:5] == (2, 6, 6.9, 6.98, 7)
    assert window.figures(2 * SPAN_NS) is None


def test_a_full_ring_says_how_far_it_reaches():
    """More samples than are kept: the newest count, and the window is as long as they reach back."""
    window = filled(range(10), step_ns=S, most=4)
    found = window.figures(10 * S)
    assert (found.samples, found.p50_ns, found.max_ns, found.full) == (4, 7.5, 9, True)
    assert found.span_ns == 4 * S  # the oldest came at 6 s
    later = window.figures(6 * S + SPAN_NS + 1)
    assert (later.samples, later.full, later.span_ns) == (3, False, SPAN_NS)


def test_a_ring_is_bounded():
    """However many come."""
    window = filled(range(MOST + 10), step_ns=1)
    assert window.figures(S).samples == MOST


# the book -----------------------------------------------------------------------------------------------------------

SENT = [
    Stage("mapped", 1 * MS, exact=True), Stage("signed", 2 * MS, exact=True), Stage("journalled", 9 * MS, exact=True),
    Stage("sent", 3 * MS, exact=True), Stage("answered", 500 * MS, exact=True),
]  # fmt: skip


def share(ms, *, exact=True):
    return Stage(HOST_SHARE, ms * MS, exact=exact)


def figures(book, where=NORTH):
    return {name: found.samples for name, found in book.flow(where).figures(S)}


def sent(book, submission="s-1", *, stages=SENT, whole=None, where=NORTH):
    return book.sent(where, submission, stages, whole or share(15), at_ns=MS, wall_ns=S)


def test_a_submission_beyond_its_budget_is_kept_with_its_slowest_stage():
    """The stages are those that make the share: SMP's own time is not the slowest of ours."""
    book = Book({NORTH: 10 * MS})
    exemplar = sent(book)
    assert (exemplar.submission, exemplar.share_ns, exemplar.budget_ns) == ("s-1", 15 * MS, 10 * MS)
    assert [stage.hop for stage in exemplar.stages] == ["mapped", "signed", "journalled", "sent"]
    assert exemplar.slowest.hop == "journalled"
    assert (book.flow(NORTH).exceeded, list(book.flow(NORTH).exemplars)) == (1, [exemplar])


@pytest.mark.parametrize(("budget_ms", "exceeded"), [(0, 0), (15, 0), (14, 1)])
def test_what_exceeds_a_budget(budget_ms, exceeded):
    """More than it does; exactly it does not; where there is none nothing does."""
    book = Book({NORTH: budget_ms * MS})
    sent(book)
    assert book.flow(NORTH).exceeded == exceeded
    assert figures(book) == {"host": 1, "mapped": 1, "signed": 1, "journalled": 1, "sent": 1, "answered": 1}


def test_a_flow_that_the_configuration_no_longer_has_has_no_budget():
    """Its submissions are still measured."""
    book = Book({NORTH: 1})
    gone = Where("north", "gone")
    assert sent(book, where=gone) is None
    assert figures(book, gone)["host"] == 1
    assert [where for where, _ in book.flows()] == [NORTH, gone]


def test_what_is_not_exact_is_in_no_figure():
    """A share or stage by wall time exceeds no budget either."""
    book = Book({NORTH: 1})
    stages = [Stage("mapped", 1, exact=True), Stage("sent", 9 * S, exact=False)]
    assert sent(book, stages=stages, whole=share(9000, exact=False)) is None
    assert figures(book) == {"mapped": 1}


def test_exemplars_are_the_last_few():
    """Bounded, the newest kept, each flow with its own."""
    book = Book({NORTH: 1})
    for number in range(EXEMPLARS + 5):
        sent(book, f"s-{number}")
    kept = [exemplar.submission for exemplar in book.flow(NORTH).exemplars]
    assert (kept[0], kept[-1], len(kept)) == ("s-5", f"s-{EXEMPLARS + 4}", EXEMPLARS)
    assert book.flow(NORTH).exceeded == EXEMPLARS + 5


def test_waits_are_counted_by_their_cause():
    """A counter of each flow."""
    book = Book()
    book.flow(NORTH).waits[Wait.HOLD] += 1
    assert book.flow(NORTH).waits == {Wait.HOLD: 1}


# intervals ----------------------------------------------------------------------------------------------------------


def test_an_interval_as_configured_revised_and_achieved():
    """The median of what came in the last five minutes, by the clock of the host."""
    now = 0
    book = IntervalBook(lambda: now)
    rhythm = book.of("north", "ems")
    rhythm.agreed("publishing", configured_s=0.05, revised_s=0.1)
    for seconds in (0.1, 0.3, 0.11):
        rhythm.achieved("publishing", seconds)
    [(site, adapter, name, interval)] = book.all()
    assert (site, adapter, name) == ("north", "ems", "publishing")
    assert (interval.configured_s, interval.revised_s) == (0.05, 0.1)
    assert interval.achieved(now).p50_ns == pytest.approx(0.11 * S)
    assert interval.achieved(SPAN_NS + 1) is None


def test_a_new_session_goes_on_with_its_adapters_intervals():
    """Agreed anew, measured on."""
    book = IntervalBook(lambda: 0)
    book.of("north", "ems").agreed("poll", configured_s=1.0)
    book.of("north", "ems").achieved("poll", 1.0)
    book.of("north", "ems").agreed("poll", configured_s=2.0)
    [(*_, interval)] = book.all()
    assert (interval.configured_s, interval.achieved(0).samples) == (2.0, 1)


def test_an_adapter_can_name_only_so_many_intervals():
    """Another's code cannot fill the memory or the metrics."""
    book = IntervalBook(lambda: 0)
    for number in range(MOST_NAMES + 3):
        book.of("north", "ems").achieved(f"name-{number}", 1.0)
        book.of("north", "ems").agreed(f"other-{number}", configured_s=1.0)
    assert len(list(book.all())) == MOST_NAMES
