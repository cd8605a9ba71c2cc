"""No code names a path or a field of SMP: what the shipped profiles call things stands in the profiles alone."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "bridge/profiles").glob("*.yaml"))
# The simulated EMSs speak their own words, some of which our default profile happens to have chosen too.
EMSS = sorted((ROOT / "bridge/demo").glob("ems_*.py"))
CODE = [file for file in sorted((ROOT / "bridge").rglob("*.py")) if file not in EMSS]

# Words that the shipped profiles share with RFCs, with SQL columns, with our own configuration, events and API, or with the language of
# Python itself. Each group says whose word it is there; a word of SMP alone has no place here.
RFC = {
    "Authorization",  # RFC 9110
    "status",  # RFC 9457
    "payload",  # RFC 7515, and a key of a site file
}  # fmt: skip
# Keys of bridge.yaml, of a site file (its `outcome:` words included) and of a profile file itself.
CONFIG = {
    "environment", "sender", "recipient", "name", "unit", "errors", "field",
    "message", "code", "env", "when", "level", "market", "returns", "transactionId", "assetId", "updatedAt",
    "timestamp", "succeeded", "failed", "result", "authenticate",
}  # fmt: skip
# Names of identifier rules (DOMAIN 2), as a site's `severities` spells them.
RULES = {"gsp", "postcode", "phone", "email"}
SQL_AND_EVENTS = {"at", "id", "created", "total", "open", "end"}
COMMAND_LINE = {"assets", "kind", "token"}  # commands of ours, and a column of the files that one of them reads
TESTING = {"up", "down"}  # the two ways through the fault proxy
PYTHON = {"no"}  # an answer's word in a profile (`answers_signed: no`)
EXEMPT = RFC | CONFIG | RULES | SQL_AND_EVENTS | COMMAND_LINE | TESTING | PYTHON

_PLACES = ("body:", "protected:", "header:")


def _strings(content) -> Iterator[str]:
    if isinstance(content, dict):
        for value in content.values():
            yield from _strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value)
    elif isinstance(content, str):
        yield content


def names_of(content) -> tuple[set[str], set[str]]:
    """Every name of a field or header, and every whole path, that a profile's content gives."""
    names, paths = set(), set()
    for text in _strings(content):
        place = next((place for place in _PLACES if text.startswith(place)), "")
        rest = text.removeprefix(place)
        if rest.startswith("/"):
            names |= {part for part in rest.split("/") if not part.isdigit() and "{" not in part}
            if rest.count("/") > 1:
                paths.add(rest.partition("{")[0].rstrip("/"))
        elif place:
            names.add(rest)
    signed = [("signature", key) for key in ("header", "date_header", "certificate_header", "digest_header")]
    for section, key in (("token", "header"), *signed, ("transport", "idempotency_header")):
        if key in content.get(section, {}):
            names.add(content[section][key])
    return names - {""}, paths


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Every string that the code holds, and every attribute it names, docstrings left out."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def offences(source: str, names: set[str], paths: set[str]) -> list[str]:
    """What of the profiles the code names."""
    return [
        f"line {line}: {text!r}"
        for line, text in literals(source)
        if text in names or text.strip("/") in names or any(path in text for path in paths)
    ]


@cache
def all_names() -> tuple[set[str], set[str]]:
    names, paths = set(), set()
    for profile in PROFILES:
        more_names, more_paths = names_of(YAML(typ="safe").load(profile.read_text()))
        names |= more_names
        paths |= more_paths
    return names - EXEMPT, paths


@pytest.mark.parametrize("file", CODE, ids=lambda file: str(file.relative_to(ROOT)))
def test_code_names_nothing_of_a_profile(file):
    """No string in this file is a field, header or path of a shipped profile."""
    names, paths = all_names()
    assert offences(file.read_text(), names, paths) == []


def test_the_check_itself_sees_what_it_should():
    """A planted field, header and path are found; a docstring and an exempt word are not."""
    names, paths = all_names()
    assert {"assetReference", "messageId", "x-jws-signature", "mid", "X-Ticket"} <= names
    planted = '"""assetReference"""\nx = body["assetReference"]\ny = f"{base}/api/v1/assets"\nz = "x-jws-signature"\nw = "status"\n'
    assert sorted(text.split(":")[0] for text in offences(planted, names, paths)) == ["line 2", "line 3", "line 4"]


def test_no_word_is_exempt_without_need():
    """An exemption that no profile needs any more is struck."""
    names = set()
    for profile in PROFILES:
        names |= names_of(YAML(typ="safe").load(profile.read_text()))[0]
    used = {text for file in CODE for _, text in literals(file.read_text())}
    assert sorted(EXEMPT - (names & used)) == []
