"""Which requests fetch what, and what an image knows."""

from hypothesis import given
from hypothesis import strategies as st

from adapters.modbus.layout import Image, requests
from adapters.modbus.places import Span, Table

SPANS = st.lists(st.builds(Span, st.integers(0, 2000), st.integers(1, 300), st.sampled_from(Table)), max_size=40)


@given(SPANS, st.integers(1, 125), st.integers(0, 20))
def test_requests_cover_every_register_within_the_limit(spans, limit, gap):
    """Whatever is wanted is fetched, and no request is longer than the device allows."""
    found = requests(spans, limit, gap, bits=2 * limit)
    fetched = {(span.table, at) for span in found for at in range(span.start, span.end)}
    assert {(span.table, at) for span in spans for at in range(span.start, span.end)} <= fetched
    assert all(1 <= span.size <= (2 * limit if span.table.holds_bits else limit) for span in found)


def test_neighbours_are_fetched_together():
    """Two values with a small gap cost one request; a wide gap costs two."""
    assert requests([Span(60, 2), Span(70, 4)], 125, 16) == [Span(60, 14)]
    assert requests([Span(60, 2), Span(90, 4)], 125, 16) == [Span(60, 2), Span(90, 4)]


def test_neighbours_may_be_kept_apart():
    """A gap of 0 joins what touches; -1 asks for each span by itself, once."""
    spans = [Span(60, 2), Span(62, 4), Span(60, 2)]
    assert requests(spans, 125, 0) == [Span(60, 6)]
    assert requests(spans, 125, -1) == [Span(60, 2), Span(62, 4)]


def test_long_spans_are_cut():
    """A record longer than one request is fetched in several."""
    assert requests([Span(0, 250)], 125, 16) == [Span(0, 125), Span(125, 125)]


def test_an_image_knows_what_it_was_given():
    """Registers that were never read are not zeros."""
    image = Image()
    image.put(Span(10, 2), b"\0\1\0\2")
    assert image.get(Span(10, 2)) == b"\0\1\0\2"
    assert image.word(Span(11, 1)) == 2
    assert image.get(Span(10, 3)) is None
    image.refuse(Span(12, 4), "exception 2")
    assert image.why(Span(10, 3)) == "exception 2"
    assert "20..29" in image.why(Span(20, 10))
