"""Which requests fetch what, and what an image knows."""

import random

import pytest
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


@pytest.mark.parametrize("seed", range(20))
def test_an_image_holds_what_was_read_in_any_order(seed):
    """Near and far, below and above, over one another, in each table: as if each address stood in a dictionary."""
    drawn, image = random.Random(seed), Image()
    held = {table: {} for table in Table}

    def span():
        start = drawn.choice([0, 5, 40, 1000, 65_000]) + drawn.randrange(30)
        return Span(start, drawn.randrange(1, 20), drawn.choice([Table.HOLDING, Table.HOLDING, Table.COILS]))

    for _ in range(60):
        at = span()
        known = held[at.table]
        step = drawn.randrange(4)
        if step == 0:
            data = drawn.randbytes(2 * at.size)
            image.put(at, data)
            known |= {at.start + number: data[2 * number : 2 * number + 2] for number in range(at.size)}
        elif step == 1:
            image.settle(at)
            known |= {address: known.get(address, b"\0\0") for address in range(at.start, at.end)}
        words = [known.get(address) for address in range(at.start, at.end)]
        assert image.knows(at) == (None not in words)
        assert image.get(at) == (None if None in words else b"".join(words))
        assert image.filled(at) == b"".join(word or b"\0\0" for word in words)
        assert image.word(at) == int.from_bytes(words[0] or b"\0\0", "big")
    last = Span(65_535, 1)
    image.put(last, b"ZZ")
    assert image.get(last) == b"ZZ"


def test_an_image_of_a_few_registers_is_small():
    """However high they lie, and however often they are read."""
    image = Image()
    for _ in range(2):
        image.put(Span(65_000, 120), bytes(240))
    assert len(image._tables[Table.HOLDING]._data) == 240
