"""A draft of a site file whatever the EMS says: one line for each comment, letters of control escaped or replaced, and YAML in any case."""

from ruamel.yaml import YAML

from bridge.api import FlowDraft, Seen
from bridge.cli.placeholders import MARK
from bridge.cli.site_draft import Place, site_yaml
from bridge.profile import load_profile
from bridge.vocabulary import load_vocabulary

NASTY = 'a\x1b[31m "b"\n# c: \x7f\x85\u2028{d} é'


def drafted(**changes):
    flow = {
        "name": "assets",
        "records": {"each": NASTY, "key": "reference", "fields": {"reference": NASTY, "kw": "yes"}},
        "submit": {"when": "change"},
        "outcome": {"state": NASTY},
        "examples": {"reference": NASTY},
        "notes": {"records.fields.reference": NASTY},
        "open": {"records.each": NASTY},
    }
    seen = Seen(said=NASTY, columns=(), rows=(), flows=[FlowDraft(**flow)], notes=[NASTY], **changes)
    place = Place(site="leeds", adapter="ems", participant="acme", protocol="mqtt", options={"host": "h", "unit": 1})
    return site_yaml(place, seen, load_profile("default"), load_vocabulary())


def test_what_a_peer_says_stays_text():
    """Values come back as they were; nothing that is not printable is in the file, and no comment becomes a line of its own."""
    text = drafted()
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    flow = YAML(typ="safe").load(text)["flows"]["assets"]
    assert flow["records"]["each"] == NASTY
    assert flow["records"]["fields"] == {"reference": NASTY, "kw": "yes"}
    assert flow["outcome"] == {"state": NASTY}
    assert sum(MARK in line for line in text.splitlines()) > 3


def test_options_that_were_seen_to_be_otherwise_are_as_seen():
    """A single value is replaced, a list grows."""
    adapter = YAML(typ="safe").load(drafted(adds={"unit": 2, "writable": ["x"]}))["adapters"]["ems"]
    assert (adapter["unit"], adapter["host"], adapter["writable"]) == (2, "h", ["x"])
