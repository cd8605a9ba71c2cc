"""What the documents point at is there: files, headings, commands with their options, targets of make."""

import re
from functools import cache
from itertools import product, takewhile
from pathlib import Path

import click
import pytest
import typer

from bridge.cli import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "adapters/*/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # speaks of what was
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
CALL = re.compile(r"(?<!-u)(?:^|[\s;(/])smp-bridge +(?=[a-z])(.*)")
WORDS = re.compile(r"[a-z][a-z|-]*")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FORMS = {("readings", "1")}  # `smp-bridge readings 1` is how a file begins
COMMENT = re.compile(r"\s#\s.*")


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@cache
def anchors(path):
    """The anchors of a document's headings, as GitHub makes them."""
    text = FENCED.sub("", path.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def calls(text):
    """Every call of the command that stands in a block or in code of one line, without its comment; a line that goes on is one."""
    blocks = [block.replace("\\\n", " ") for block in FENCED.findall(text)]
    lines = [line for block in blocks for line in block.splitlines()]
    for line in (*lines, *CODE.findall(FENCED.sub("", text))):
        for found in CALL.finditer(COMMENT.sub("", line)):
            yield from alternatives(found[1].split())


def alternatives(said):
    """`keys list|rotate` is two calls."""
    words = list(takewhile(WORDS.fullmatch, said))
    for chosen in product(*(word.split("|") for word in words)):
        yield chosen, said[len(words) :]


@cache
def command(*words):
    """The command that these words lead to, as far as they do, and how many they were."""
    found, used = typer.main.get_command(app), 0
    for word in words:
        inner = found.get_command(click.Context(found), word) if hasattr(found, "get_command") else None
        if inner is None:
            break
        found, used = inner, used + 1
    return found, used


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_links_lead_somewhere(document):
    """A file beside it and, where one is named, its heading."""
    for target in LINK.findall(FENCED.sub("", document.read_text())):
        place, _, anchor = target.partition("#")
        if ":" in place:
            continue
        file = (document.parent / place).resolve() if place else document
        assert file.exists(), f"{target}: there is no {file}"
        assert not anchor or anchor in anchors(file), f"{target}: {file.name} has no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_commands_and_options_exist(document):
    """Each `smp-bridge …` names a command that there is, and options that it has."""
    for words, rest in calls(document.read_text()):
        if (*words, *rest) in FORMS:
            continue
        said = f"smp-bridge {' '.join((*words, *rest))}"
        found, used = command(*words)
        assert used == len(words) or used and not hasattr(found, "commands"), f"{said}: there is no such command"
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
            "--help"
        }
        assert set(OPTION.findall(" ".join(rest))) <= known, f"{said}: it has {', '.join(sorted(known))}"


def test_targets_of_make_exist():
    """Each `make …` of a document stands in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", document.read_text(), re.MULTILINE)
    }
    assert "demo" in told <= targets


def test_the_check_itself_sees_what_it_should():
    """A call in a block, one in a line, one that goes on, and alternatives; no comment, no prose."""
    text = "```\nsmp-bridge keys new --out K \\\n   --days 3   # --not an option\n```\nthe smp-bridge service, `smp-bridge keys list|rotate --json`, `sudo -u smp-bridge env A=b smp-bridge check`"
    assert list(calls(text)) == [
        (("keys", "new"), ["--out", "K", "--days", "3"]),
        (("keys", "list"), ["--json"]),
        (("keys", "rotate"), ["--json"]),
        (("check",), []),
    ]
