"""Browse paths as a site writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.opcua.paths import Segment, absolute, relative

ASSETS = absolute("Objects/ems:EMS/ems:Assets/*")


def test_a_bare_segment_inherits_its_parents_namespace():
    """Below `each` and inside a path; from Objects on a bare segment is of namespace 0."""
    assert str(relative("Registration/State", ASSETS)) == "ems:Registration/ems:State"
    assert str(relative("di:Nameplate/Serial", ASSETS)) == "di:Nameplate/di:Serial"
    assert absolute("Objects/Server").segments == (Segment("", "Objects"), Segment("", "Server"))


def test_a_name_may_hold_what_a_browse_name_may_hold():
    """Only / and : part; a second colon belongs to the name."""
    assert relative("North Yard.1 (a)", ASSETS).segments == (Segment("ems", "North Yard.1 (a)"),)
    assert relative("ems:a:b", ASSETS).segments == (Segment("ems", "a:b"),)


@pytest.mark.parametrize("text", ["", "/", "a//b", "a/", "ems:", ":a", "a/ems:/b"])
def test_an_empty_segment_is_refused(text):
    """In words for an operator."""
    with pytest.raises(ValueError, match="none empty"):
        relative(text, ASSETS)


@pytest.mark.parametrize(
    ("pattern", "path", "inside"),
    [
        ("Objects/ems:A/*", "Objects/ems:A/ems:x", True),
        ("Objects/ems:A/*", "Objects/ems:A/ems:x/ems:y", False),
        ("Objects/ems:A/*", "Objects/ems:A", False),
        ("Objects/ems:A/*", "Objects/ems:B/ems:x", False),
        ("Objects/ems:A/*", "Objects/ems:A/other:x", False),
        ("Objects/ems:A/ems:S*", "Objects/ems:A/ems:State", True),
        ("Objects/ems:A/ems:S*", "Objects/ems:A/ems:Error", False),
        ("Objects/ems:A/ems:S*", "Objects/ems:A/ems:S*", True),
        ("Objects/ems:A/ems:S*", "Objects/ems:A/*", False),
        ("Objects/ems:A/ems:St?te", "Objects/ems:A/ems:S*", False),
        ("Objects/ems:A/ems:state", "Objects/ems:A/ems:State", False),
        ("Objects/ems:A/ems:[ab]1", "Objects/ems:A/ems:a1", True),
        ("Objects/ems:A/ems:[ab]1", "Objects/ems:A/ems:c1", False),
    ],
)
def test_what_a_writable_pattern_covers(pattern, path, inside):
    """Whole segments of one namespace, case-sensitive; a pattern covers another only when it covers all that the other can match."""
    assert absolute(pattern).covers(absolute(path)) is inside


NAMES = st.text(st.sampled_from("abAB*?[]x1"), min_size=1, max_size=4)


@given(NAMES, NAMES, st.text(st.sampled_from("abABx1"), min_size=1, max_size=4))
def test_covering_never_promises_too_much(mine, theirs, name):
    """Whatever the other pattern matches, a pattern that covers it matches too."""
    pattern, other = Segment("ems", mine), Segment("ems", theirs)
    if pattern.covers(other) and other.matches(name):
        assert pattern.matches(name)
