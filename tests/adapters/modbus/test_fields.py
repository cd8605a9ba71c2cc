"""The fields of a record that lie over each other: a view of a part is one thing, a register list copied wrongly another."""

import pytest
from modbus_site import selection_of

from adapters.modbus import ADAPTER
from adapters.modbus.config import ModbusOptions

REFERENCE = {"at": 0, "type": "string", "registers": 4}
WORD = {"at": 4, "type": "uint16"}


def told(*, table="holding", crc=None, key="reference", **fields):
    """What `check` says of a flow with these fields beside its reference, by the place below `records`."""
    flow = {
        "records": {
            "each": {"base": 100, "stride": 40, "count": 3, "table": table},
            "key": key,
            "fields": fields if key in fields else {"reference": REFERENCE, **fields},
            **({"crc": crc} if crc else {}),
        },
        "submit": {"when": "change"},
        "outcome": {"state": {"at": 9000, "fixed": True, "type": "uint16"}},
    }
    options = ModbusOptions.model_validate({"host": "x", "writable": [9000]})
    start = "flows.assets.records."
    return {each.path.removeprefix(start): each.text for each in ADAPTER.check(options, [selection_of("assets", flow)])}


def test_the_text_says_where_over_what_and_what_would_be_right():
    """A line of the register list whose offset was not counted on; told once, at the later one."""
    assert told(export_kw={"at": 4, "type": "int32"}, import_kw={"at": 5, "type": "int32"}) == {
        "fields.import_kw": "lies at offsets 5..6, over `export_kw` (offsets 4..5, int32); correct `at`, `type` or `registers` of one of them"
    }
    assert told(export_kw={"at": 4, "type": "int32"}, import_kw={"at": 4, "type": "int32"}) == {
        "fields.import_kw": "is in the same place as `export_kw` (offsets 4..5); correct `at`, or name that field twice in the payload"
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (WORD, {"at": 4, "type": "int16"}),
        ({"at": 5, "type": "uint16"}, {"at": 4, "type": "uint32"}),
        ({"at": 4, "type": "float32"}, {"at": 5, "type": "uint16"}),
        ({"at": 4, "type": "string", "registers": 8}, {"at": 10, "type": "string", "registers": 4}),
        ({"at": 4, "type": "string", "registers": 8}, {"at": 5, "type": "uint16"}),
        ({"at": 4, "type": "bit", "bit": 3}, {"at": 4, "type": "bit", "bit": 3}),
        ({"at": 4, "type": "int8l"}, {"at": 4, "type": "uint8l"}),
        ({"at": 4, "type": "uint16", "bits": "0..4"}, {"at": 4, "type": "uint16", "bits": "4..7"}),
        ({"at": 4, "type": "datetime48"}, {"at": 6, "type": "epoch32"}),
    ],
)
def test_fields_in_each_others_way(first, second):
    """One problem, whichever of the two stands first."""
    assert set(told(first=first, second=second)) == {"fields.second"}
    assert set(told(second=second, first=first)) == {"fields.first"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (WORD, {"at": 5, "type": "uint16"}),
        (WORD, {"at": 4, "type": "bit", "bit": 3}),
        (WORD, {"at": 4, "type": "uint8h"}),
        (WORD, {"at": 4, "type": "uint16", "bits": "0..3"}),
        ({"at": 4, "type": "uint16", "bits": "0..7"}, {"at": 4, "type": "bit", "bit": 3}),
        ({"at": 4, "type": "uint16", "bits": "0..3"}, {"at": 4, "type": "uint16", "bits": "4..7"}),
        ({"at": 4, "type": "int8l"}, {"at": 4, "type": "int8h"}),
        ({"at": 4, "type": "uint32"}, {"at": 5, "type": "bit", "bit": 0}),
        ({"at": 4, "type": "uint32", "order": "CDAB"}, {"at": 4, "type": "uint32", "order": "CDAB", "bits": "0..3"}),
        ({"at": 4, "type": "int16", "scale_at": 6}, {"at": 5, "type": "int16", "scale_at": 6}),
        ({"at": 4, "type": "int16", "scale_at": 6}, {"at": 6, "type": "int16"}),
        (
            {"at": 4, "type": "bitset", "registers": 1, "of": "assets.reference"},
            {"at": 4, "type": "bitset", "registers": 1, "of": "assets.other"},
        ),
    ],
)
def test_fields_beside_each_other_and_views_of_a_part(first, second):
    """A word and its bits, a number and its digits, one scale factor for several: all of it is meant."""
    other = {"at": 8, "type": "uint16"}
    assert told(first=first, second=second, other=other) == {}
    assert told(second=second, first=first, other=other) == {}


def test_inputs_are_single_bits():
    """In a table of bits an address is one field."""
    flag = {"type": "bit", "bit": 0}
    of = {"table": "discrete", "key": "reference", "reference": {"at": 0, **flag}}
    assert not [place for place in told(**of, on={"at": 1, **flag}) if place.startswith("fields.")]
    assert "fields.on" in told(**of, on={"at": 0, **flag})


def test_a_scale_factor_inside_a_value():
    """Its register is counted wrongly, or the value's."""
    assert told(kw={"at": 4, "type": "int16", "scale_at": 6}, name={"at": 5, "type": "string", "registers": 4}) == {
        "fields.kw.scale_at": "is 6, a part of `name` (offsets 5..8); correct the one or the other"
    }
    assert set(told(kw={"at": 4, "type": "int16", "scale_at": 4})) == {"fields.kw.scale_at"}


def test_a_crc_that_covers_itself():
    """No record could ever have it."""
    assert told(crc={"over": [[0, 5]], "at": 5}) == {
        "crc.at": "is 5, which `over` covers: a CRC cannot be part of what it is made of, so leave it out there"
    }
    assert set(told(crc={"over": [[0, 1]], "at": 3})) == {"crc.at"}
    assert told(crc={"over": [[0, 4], [6, 7]], "at": 5}) == {}
    assert told(crc={"over": [[0, 4], [6, 7]], "at": 5}, held={"at": 5, "type": "uint16"}) == {}
