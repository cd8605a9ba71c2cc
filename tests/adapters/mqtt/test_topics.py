"""Topic templates and patterns."""

import pytest

from adapters.mqtt.topics import pattern, plain, template


def test_a_template_matches_fills_and_subscribes():
    """Placeholders are whole levels; an empty level is no value."""
    topic = template("acme/{site}/asset/{asset}/registration")
    assert topic.names == ("site", "asset")
    assert topic.filter == "acme/+/asset/+/registration"
    assert topic.match(["acme", "a", "asset", "b c", "registration"]) == {"site": "a", "asset": "b c"}
    assert topic.fill({"site": "a", "asset": "b"}) == "acme/a/asset/b/registration"
    for other in ("acme/a/asset/b", "acme/a/asset/b/registration/request", "acme/a/unit/b/registration", "acme//asset/b/registration"):  # fmt: skip
        assert topic.match(other.split("/")) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "1 to 65535"),
        ("a" * 65_536, "1 to 65535"),
        ("a/+/b", "give it a name"),
        ("a/#", "give it a name"),
        ("a/dev-{asset}/b", "as a whole"),
        ("a/{Asset}/b", "as a whole"),
        ("a/{}/b", "as a whole"),
        ("a/{x}/{x}", "twice"),
        ("$share/group/a/{x}", "broker's own"),
        ("a/\x00/b", "control"),
        ("a/\ud800/b", "control"),
    ],
)
def test_a_template_that_cannot_be(text, what):
    """Each error says what would be right."""
    with pytest.raises(ValueError, match=what):
        template(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [("a/{x}", "must be `\\+`"), ("a/x+", "alone"), ("a/#/b", "last level"), ("a/b#", "last level"), ("$SYS/#", "own")],
)
def test_a_pattern_that_cannot_be(text, what):
    """Wildcards stand alone, `#` last."""
    with pytest.raises(ValueError, match=what):
        pattern(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("a/+/c", ["a/b/c", "a//c"], ["a/b", "a/b/c/d", "a/b/d", "b/b/c"]),
        ("a/#", ["a", "a/b", "a/b/c"], ["b", "b/a"]),
        ("a/b", ["a/b"], ["a", "a/b/", "a/+"]),
        ("#", ["a", "a/b"], ["$SYS/a"]),
        ("+/a", ["b/a"], ["$SYS/a"]),
    ],
)
def test_what_a_pattern_allows(text, inside, outside):
    """As MQTT defines filters; never the broker's own topics by a wildcard."""
    assert all(pattern(text).allows(topic) for topic in inside)
    assert not any(pattern(text).allows(topic) for topic in outside)


@pytest.mark.parametrize(
    ("text", "topic", "covered"),
    [
        ("a/+/c", "a/{x}/c", True),
        ("a/#", "a/{x}/{y}", True),
        ("a/b/c", "a/{x}/c", False),
        ("a/+/c", "a/{x}/{y}", False),
        ("a/+/c", "a/b/c", True),
        ("a/+", "a/{x}/c", False),
    ],
)
def test_a_pattern_covers_a_template_only_as_a_whole(text, topic, covered):
    """Every place's topic must be allowed, not some."""
    assert pattern(text).covers(template(topic)) is covered


def test_overlaps():
    """Two templates overlap when one topic could be both."""
    assert template("a/{x}/c").overlaps(template("a/b/{y}"))
    assert not template("a/{x}/c").overlaps(template("a/{x}/d"))
    assert not template("a/{x}").overlaps(template("a/{x}/d"))


def test_a_plain_topic_has_no_placeholder():
    """The status topic is one topic."""
    assert plain("acme/host/status") == "acme/host/status"
    with pytest.raises(ValueError, match="without placeholders"):
        plain("acme/{host}")
