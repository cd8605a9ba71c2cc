"""CSV files for commands: what is read, and every problem with its place."""

import pytest

from bridge.cli.tables import read_table, write_table
from bridge.errors import ConfigError


def read(path, content, required=("reference", "state"), optional=("source",)):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, required, optional)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.csv"


@pytest.mark.parametrize(
    "content",
    [
        "reference,state\nA,registered\n",
        "reference;state\r\nA;registered\r\n",
        b"\xef\xbb\xbfreference,state\nA,registered",
        "State,Reference\nregistered,A\n",
        ' reference ; state \n\n  A ; "registered"\n;\n',
        "reference,state,source\nA,registered,\n",
        "reference,state,source\nA,registered\n",
    ],
)
def test_one_row_in_many_forms(path, content):
    """Separators, byte order mark, order, blanks, empty lines, quotes: the same row."""
    table = read(path, content)
    assert table.problems == []
    assert [line.cells for line in table.lines] == [{"reference": "A", "state": "registered", "source": ""}]


@pytest.mark.parametrize("name", ["Asset ID", "asset-id", "ASSET_ID", " asset  id "])
def test_names_of_columns(path, name):
    """However a spreadsheet spells it."""
    table = read(path, f"{name}\n7\n", ("asset_id",), ())
    assert table.lines[0].cells == {"asset_id": "7"}


def test_lines_are_those_of_the_file(path):
    """Also behind empty lines and cells with line breaks inside."""
    table = read(path, 'reference,state\n\n"A",x\n\n"B\nC",y\nD,z\n')
    assert [line.number for line in table.lines] == [3, 5, 7]
    assert [str(problem) for problem in table.problems] == [
        f"{path}:5: reference: is the text 'B?C', must not hold control characters or line breaks"
    ]


def test_every_problem_of_every_line(path):
    """Not only the first."""
    table = read(path, "reference,state\nA\x08,b\nB,x,y\nC\x07,z\n")
    assert [(problem.line, problem.path) for problem in table.problems] == [(2, "reference"), (3, ""), (4, "reference")]
    assert "has 3 cells, the header names 2" in table.problems[1].text
    with pytest.raises(ConfigError) as refused:
        table.check("Nothing was done")
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ["1: reference: is missing", "1: state: is missing"]),
        ("reference,stat\nA,b\n", ["1: stat: unknown column; did you mean `state`?", "1: state: is missing"]),
        ("reference,state,state\nA,b,c\n", ["1: state: stands twice"]),
        ("reference,state\nA,gr\xfc\xdfe\n".encode("latin-1"), ["2: is not UTF-8"]),
        ("reference,state\nA,b\n".encode("utf-16"), ["1: is not UTF-8"]),
    ],
)
def test_what_is_no_table(path, content, said):
    """It is said at once, with the line."""
    with pytest.raises(ConfigError) as refused:
        read(path, content)
    assert [text in str(problem) for text, problem in zip(said, refused.value.problems, strict=True)] == [True] * len(
        said
    )


def test_a_quote_that_never_ends(path):
    """The lines before it are read, and the place where it begins is told."""
    table = read(path, 'reference,state\nA,b\nC,"d\nE,f\n')
    assert [line.cells["reference"] for line in table.lines] == ["A"]
    [problem] = table.problems
    assert (problem.line, "is not CSV" in problem.text) == (3, True)


def test_a_file_that_is_not_there(tmp_path):
    """By its name."""
    with pytest.raises(ConfigError, match=r"none.csv: cannot be read"):
        read_table(tmp_path / "none.csv", ("reference",))


def test_what_is_written_reads_back(path):
    """Quotes, separators and letters of any kind; nothing is left beside the file."""
    rows = [('A,"b";c', "registered", "Zählerstände"), ("D", "unknown", "")]
    assert write_table(path, ("reference", "state", "source"), iter(rows)) == 2
    table = read(path, path.read_bytes())
    assert [tuple(line.cells.values()) for line in table.lines] == rows
    assert [file.name for file in path.parent.iterdir()] == [path.name]
