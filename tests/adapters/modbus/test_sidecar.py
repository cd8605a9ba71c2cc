"""The CSV file beside a register map."""

import pytest
from pydantic import ValidationError

from adapters.modbus.config import ModbusRecords, Sidecar
from adapters.modbus.sidecar import read_sheet
from adapters.modbus.targets import Column
from bridge.api import Quality, Reading

COLUMNS = {"name": Column(csv="name"), "mpan": Column(csv="mpan"), "kva": Column(csv="rated_kva", number=True)}
HEAD = "asset_no;name;mpan;rated_kva\n"


@pytest.fixture
def sheet(tmp_path):
    def make(text, **how):
        file = tmp_path / "assets.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_sheet(Sidecar(file=file, on="asset_no", **how), COLUMNS)

    return make


def values(sheet, number):
    return {name: reading.value for name, reading in sheet.readings(Reading(value=number)).items()}


def test_semicolons_decimal_commas_and_a_byte_order_mark(sheet):
    """As a spreadsheet saves it: joined on the number, text as it stands, numbers with their comma."""
    made = sheet(
        b"\xef\xbb\xbf" + (HEAD + '7;"Yard; North";1012345678903;49,5\r\n12;South;;1000\r\n').encode(), decimal=","
    )
    assert made.problems == []
    assert values(made, 7) == {"name": "Yard; North", "mpan": "1012345678903", "kva": 49.5}
    assert values(made, 12) == {"name": "South", "mpan": None, "kva": 1000}
    assert made.readings(Reading(value=12))["mpan"].absent


def test_columns_stand_in_any_order_and_under_other_names(sheet):
    """What the header says counts, not the place; columns that nobody asked for are left alone."""
    text = "rated_kva,remark,mpan,no,name\n1.5,x,2,007,N\n"
    made = sheet(text, column="no", delimiter=",")
    assert values(made, 7) == {"name": "N", "mpan": "2", "kva": 1.5}


@pytest.mark.parametrize("number", [7, 7.0, "7", " 007 "])
def test_a_number_is_joined_however_it_is_held(sheet, number):
    """A register's number, a float, and text with leading zeros are one asset."""
    assert values(sheet(HEAD + "7;N;1;1\n"), number)["name"] == "N"


def test_a_row_that_is_missing_spoils_the_fields(sheet):
    """Each field says which row is not there; a number that could not be read says why."""
    made = sheet(HEAD + "7;N;1;1\n")
    for reading in made.readings(Reading(value=8)).values():
        assert reading.quality is Quality.BAD
        assert "assets.csv has no row for asset_no 8" in reading.detail
    spoilt = made.readings(Reading(value=None, quality=Quality.BAD, detail="register 3: gone"))
    assert {reading.detail for reading in spoilt.values()} == {"register 3: gone"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "7;N;1;1\n8;M;2;2\n007;O;3;3\n", "assets.csv:4: asset_no 7 stands in line 2 already"),
        (HEAD + ";N;1;1\n", "assets.csv:2: asset_no is empty"),
        (HEAD + "7;N;1\n", "assets.csv:2: has 1 cell too few"),
        (HEAD + "7;N;1;1;1;1\n", "assets.csv:2: has 2 cells too many"),
        (HEAD + "7;N;1;49,5\n", "assets.csv:2: rated_kva is '49,5'; it must be a number such as 49.5"),
        (HEAD + "7;N;1;1.000,5\n", "must be a number"),
        ("asset_no;name;mpan\n7;N;1\n", "assets.csv:1: lacks the column rated_kva; it names asset_no, name, mpan"),
        ("asset_no,name,mpan,rated_kva\n7,N,1,1\n", "is ';' the delimiter?"),
        ("asset_no;name;mpan;name;rated_kva\n7;N;1;N;1\n", "names name twice"),
        ("", "lacks the column"),
        (HEAD.encode() + b"7;N\xe9;1;1\n", "assets.csv:2: is not UTF-8"),
        (HEAD + '7;"N;1;1\n', "is no CSV"),
    ],
)
def test_what_is_wrong_names_file_and_line(sheet, text, says):
    """Duplicates, gaps and numbers that are none are errors before anything starts."""
    assert any(says in problem for problem in sheet(text).problems), sheet(text).problems


def test_blank_lines_are_no_rows(sheet):
    """Spreadsheets leave empty lines at the end."""
    made = sheet(HEAD + "7;N;1;1\n\n;;;\n")
    assert made.problems == []
    assert len(made.rows) == 1


def test_delimiter_and_decimal_differ(tmp_path):
    """One character cannot be both."""
    file = tmp_path / "a.csv"
    file.write_text("")
    with pytest.raises(ValidationError, match="must differ"):
        Sidecar(file=file, on="n", delimiter=",", decimal=",")


def test_a_field_is_a_register_or_a_column():
    """The two kinds of field stand side by side in `fields:`."""
    records = ModbusRecords.model_validate(
        {"each": {"base": 0}, "key": "no", "fields": {"no": {"at": 0, "type": "uint16"}, "name": {"csv": "name"}}}
    )
    assert list(records.registers) == ["no"]
    assert list(records.columns) == ["name"]
    with pytest.raises(ValidationError, match="type"):
        ModbusRecords.model_validate({"each": {"base": 0}, "key": "no", "fields": {"no": {"at": 0}}})
