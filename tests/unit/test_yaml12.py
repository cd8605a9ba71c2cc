"""What libyaml makes of a file is what ruamel makes of it, to the last place; and where it might not be, ruamel is asked."""

import random
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bridge import yaml12
from bridge.config import tree as trees
from bridge.config.tree import read_tree

ROOT = Path(__file__).parents[2]
FOLDERS = ("config", "bridge", "adapters", "docs", "tests/adapters", "tests/unit")
FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.y*ml") if "node_modules" not in path.parts
)
PIECES = [
    "- ", "  ", "\n", "a: ", "b", "? ", ": ", ":", "{", "}", "[", "]", ", ", ",", "'", '"', "|", "|\n  ", ">\n  ", ">-", "|2", "&x ", "*x", "! ", "!t ",
    "!!str ", "!!int ", "<<: *x", "#", " # c", "\n\n", "\n  ", "\n    ", "---\n", "...\n", "%TAG", "1", "012", "1_0", "0x1f", "1e3", ".5", "-.inf", "~",
    "null", "yes", "no", "true", "=", "2026-11-23", "12:30:45", "é", "\\n", "\\x41", "\\/", "\\ ", "''", '""', "`", "@", "%", "a b", "a:b",
    "http://x:1/y?z#f", "-", "--", "x-", "\\t", "\\u00e9", "😀", " ", "a\n b", "\\\n", "?", "!", "&", "*", "&a", "*a", ",x", "k: v\n", "k2: v\n", "- i\n",
    "\u00a0", "\u0085", "\u2028", "\t", "\ufeff",
]  # fmt: skip
LETTERS = "-+.0123456789_:eExobTtZ infaINFuslr~NULTRUFASE<=y"


def _both_ways(path, monkeypatch):
    quick = read_tree(path, "f.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(trees, "quick_nodes", lambda _: None)
        return quick, read_tree(path, "f.yaml")


def _same(quick, careful):
    """The type of each value matters, too: 1 is not 1.0, nor true."""
    assert repr(quick.value) == repr(careful.value)
    assert (quick.values, quick.keys, quick.problems) == (careful.values, careful.keys, careful.problems)


def _flat(node, value_of, out):
    """Every node in order with its place and value."""
    place = (node.start_mark.line, node.start_mark.column)
    if node.id == "scalar":
        out.append((place, repr(value_of(node))))
        return out
    out.append((place, node.id, len(node.value)))
    for one in node.value:
        for child in one if node.id == "mapping" else (one,):
            _flat(child, value_of, out)
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_ours_is_one_tree_either_way(path, monkeypatch):
    """Value, places and problems of each YAML file in the source."""
    _same(*_both_ways(path, monkeypatch))


def test_shipped_files_are_read_the_quick_way():
    """What a start reads costs no parser in Python."""
    shipped = [path for path in FILES if path.relative_to(ROOT).parts[0] in {"config", "bridge"}]
    assert len(shipped) >= 7
    for path in [*shipped, *(ROOT / "adapters").glob("*/sample.yaml")]:
        assert yaml12.quick_nodes(path.read_text()) is not None, path


def test_what_libyaml_reads_ruamel_reads_alike():
    """Thousands of texts, made up of odd pieces and of damaged pieces of our own files: wherever libyaml is believed, ruamel says the same of every value and place."""
    draw, ours, believed = random.Random(12), [path.read_text() for path in FILES if "cases" not in path.parts], 0
    for _ in range(1000):
        text = _made_up(draw) if draw.random() < 0.5 else _damaged(draw, draw.choice(ours))
        nodes = yaml12.quick_nodes(text)
        try:
            quick = nodes and _flat(nodes, yaml12.quick_value, [])
        except (ValueError, RecursionError):
            continue  # ruamel is asked
        if quick:
            believed += 1
            assert quick == _flat(*yaml12.careful_nodes(text), []), text
    assert believed > 250


@pytest.mark.parametrize("text", ["!", "a: ! 5", "? ", "? a\n: b", ">#", "a: |\n  b", "a: >-  # c\n  b", "&a:b c", "- &é b", "%YAML 1.1\n---\na: no", "a:\tb", "a: b\u2028c", "a: b\u0085c", "\ufeffa: b"])  # fmt: skip
def test_where_the_two_grammars_differ_ruamel_is_asked(text):
    """Each of these has been seen to be read otherwise by libyaml, in some form."""
    assert yaml12.quick_nodes(text) is None


def _made_up(draw):
    return "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 9)))


def _damaged(draw, text):
    lines = text.split("\n")
    first = draw.randrange(len(lines))
    text = "\n".join(lines[first : first + draw.randint(1, 6)])
    for _ in range(draw.randint(0, 2)):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice([*PIECES, ""]) + text[at + draw.choice([0, 0, 1, 2]) :]
    return text


def test_plain_words_mean_the_same():
    """Numbers, truths, nothings, dates: by the core schema of YAML 1.2 as ruamel reads it."""
    draw = random.Random(4)
    words = ["no", "yes", "on", "012", "0o17", "0b101", "-0x1F", "1_000", "1e3", "1.", ".5", "-.5e+3", ".inf", "-.INF", ".nan", "12:30:45", "Null", "TRUE", "tRUE", "0b", "_1", "1__", "2026-11-23", "2026-1-2 3:04:05", "10.0.0.5", "-", "+"]  # fmt: skip
    words += ["".join(draw.choice(LETTERS) for _ in range(draw.randint(1, 6))) for _ in range(3500)]
    words += ["".join(draw.choice("-+.012_eExo") for _ in range(draw.randint(1, 5))) for _ in range(3500)]
    words = [word for word in dict.fromkeys(words) if word.strip() == word and not word.startswith(("- ", "-\n")) and ": " not in word and not word.endswith(":") and word != "-"]  # fmt: skip
    text = "\n".join(f"- {word}" for word in words if not word.startswith("---"))
    nodes, (root, value_of) = yaml12.quick_nodes(text), yaml12.careful_nodes(text)
    assert len(nodes.value) == len(root.value) > 4500
    for ours, theirs in zip(nodes.value, root.value, strict=True):
        assert _told(ours, yaml12.quick_value) in {_told(theirs, value_of), "asks ruamel"}, ours.value


def _told(node, value_of):
    try:
        return repr(value_of(node))
    except yaml12.NotPlain:
        return "asks ruamel"
    except ValueError:
        return "cannot be read"


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: 1\na: 2", "a: !secret x", "<<: {a: 1}", "? [a]\n: 1", "&a [*a]", "a: *b", "%YAML 3.0\n---\na: 1", "a: \x07", "a: b\n---\nc: d", "", "# nothing\n", "a: =", "a: 0b_", "{" * 150, "[" * 150 + "]" * 150, "- " * 150],
)  # fmt: skip
def test_what_is_odd_is_told_in_ruamels_words(text, tmp_path, monkeypatch):
    """Whoever sees first that something is wrong, the words and the place are the same."""
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    quick, careful = _both_ways(path, monkeypatch)
    assert quick.problems
    _same(quick, careful)


def test_nothing_nests_without_end(tmp_path):
    """A hundred levels are read, one more is a problem with its place, and four hundred are no traceback."""
    path = tmp_path / "deep.yaml"
    path.write_text("[" * 100 + "]" * 100)
    assert not read_tree(path, "deep.yaml").problems
    path.write_text("[" * 101 + "]" * 101)
    (problem,) = read_tree(path, "deep.yaml").problems
    assert "more than 100 levels" in problem.text
    assert (problem.line, problem.column) == (1, 101)
    path.write_text("[" * 400 + "]" * 400)
    (problem,) = read_tree(path, "deep.yaml").problems
    assert "more than 100 levels" in problem.text


@pytest.mark.parametrize("text", ["a: {b: [1, 2.5, null, yes, 0x10]}\nc: &x [1]\nd: *x", "a: 2026-11-23", "a: &x {b: 1}\nc: {<<: *x}", "a: {b: 1}  # c\n", "- ? a\n  : b"])  # fmt: skip
def test_plain_values_are_ruamels(text):
    """`load` is `YAML(typ="safe").load`, dates and merge keys included."""
    assert yaml12.load(text) == YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "a: !secret x"])
def test_what_cannot_be_loaded_has_a_place(text):
    """The text and place that ruamel gives, without its classes."""
    with pytest.raises(yaml12.NotYaml) as ours:
        yaml12.load(text)
    with pytest.raises(YAMLError) as theirs:
        YAML(typ="safe", pure=True).load(text)
    mark = theirs.value.problem_mark
    assert (ours.value.text, ours.value.line, ours.value.column) == (theirs.value.problem, mark.line + 1, mark.column + 1)  # fmt: skip


def test_without_libyaml_everything_is_read_as_well(tmp_path, monkeypatch):
    """PyYAML built without libyaml, or none at all: the parser in Python reads it."""
    path = tmp_path / "a.yaml"
    path.write_text("a: [1, no]")
    monkeypatch.setattr(yaml12, "_composer", yaml12._composer.__wrapped__)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert yaml12.quick_nodes("a: 1") is None
    assert read_tree(path, "a.yaml").value == {"a": [1, "no"]}
