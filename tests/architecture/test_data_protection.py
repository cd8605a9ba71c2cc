"""docs/data-protection.md names every field of an item and every table of the journal: a new one has to be judged before it ships."""

import re
from pathlib import Path

from bridge.model import Kind
from bridge.vocabulary import load_vocabulary

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/data-protection.md").read_text()
ROW = re.compile(r"^\| (.+?) \|(.+)\|$", re.MULTILINE)
NAME = re.compile(r"`([\w.]+)`")


def section(title):
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def fields():
    """Every field by kind and dotted name, with whether the vocabulary calls it personal; members of a list too."""
    for kind in Kind:
        for name, spec in load_vocabulary().fields(kind).items():
            yield kind.value, name, spec.personal
            yield from ((kind.value, f"{name}.{inner}", each.personal) for inner, each in spec.item.items())


def test_every_field_is_judged():
    """A row for each, with a word and a reason, and none for a field that is no more; what the vocabulary calls personal is."""
    told = {}
    for name, rest in ROW.findall(section("Fields")):
        if NAME.fullmatch(name):
            kinds, word, why = (part.strip() for part in rest.split("|"))
            assert word in ("yes", "home", "no"), name
            assert why, name
            told |= {(kind, name.strip("`")): word for kind in kinds.split(", ")}
    known = {(kind, name): personal for kind, name, personal in fields()}
    assert told.keys() == known.keys()
    assert {place for place, word in told.items() if word == "yes"} == {
        place for place, found in known.items() if found
    }


def test_every_table_of_the_journal_is_named():
    """Where something is kept, what it holds of a person, whether it is erased and when it ends."""
    told = {name for row, _ in ROW.findall(section("Where they are kept")) for name in NAME.findall(row)}
    for engine in ("sqlite", "postgres"):
        schema = "".join(path.read_text() for path in sorted((ROOT / "bridge/journal/schema" / engine).glob("*.sql")))
        tables = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", schema))
        assert tables
        assert tables - told == set()
