"""Addresses as manuals count them, and as they are on the wire."""

import copy

import pytest
from modbus_site import SAMPLE, options_of, read_site, selections_of

from adapters.modbus import ADAPTER
from adapters.modbus.places import AddressBase, Span, Table, located

ZERO, ONE, REFERENCE = AddressBase.ZERO, AddressBase.ONE, AddressBase.REFERENCE


@pytest.mark.parametrize(
    ("base", "at", "table", "start", "found"),
    [
        (ZERO, 0, None, 0, Table.HOLDING),
        (ZERO, 65535, None, 65535, Table.HOLDING),
        (ZERO, 40001, None, 40001, Table.HOLDING),
        (ZERO, 16, Table.COILS, 16, Table.COILS),
        (ONE, 1, None, 0, Table.HOLDING),
        (ONE, 65536, Table.INPUT, 65535, Table.INPUT),
        (REFERENCE, 17, None, 16, Table.COILS),
        (REFERENCE, 10017, None, 16, Table.DISCRETE),
        (REFERENCE, 30001, None, 0, Table.INPUT),
        (REFERENCE, 40001, None, 0, Table.HOLDING),
        (REFERENCE, 49999, None, 9998, Table.HOLDING),
        (REFERENCE, 40400, Table.HOLDING, 399, Table.HOLDING),
        (REFERENCE, 100001, None, 0, Table.DISCRETE),
        (REFERENCE, 300001, None, 0, Table.INPUT),
        (REFERENCE, 465536, None, 65535, Table.HOLDING),
    ],
)
def test_where_an_address_is(base, at, table, start, found):
    """From 0, from 1, and as reference numbers of five and six digits (V1.1b3, 4.4)."""
    assert located(base, at, table) == (start, found)


@pytest.mark.parametrize(
    ("base", "at", "table", "says"),
    [
        (ZERO, 65536, None, "count from 0"),
        (ZERO, 400001, None, "address_base: reference"),
        (ONE, 0, None, "count from 1"),
        (REFERENCE, 0, None, "no reference number"),
        (REFERENCE, 20001, None, "no reference number"),
        (REFERENCE, 40000, None, "no reference number"),
        (REFERENCE, 50001, None, "no reference number"),
        (REFERENCE, 200001, None, "no reference number"),
        (REFERENCE, 465537, None, "no reference number"),
        (REFERENCE, 30001, Table.HOLDING, "input registers"),
    ],
)
def test_what_is_no_address_says_why(base, at, table, says):
    """Nothing is guessed: what does not fit the stated way of counting is an error."""
    with pytest.raises(ValueError, match=says):
        located(base, at, table)


def test_a_span_is_named_by_its_table():
    """What a person reads in an error."""
    assert str(Span(16, 1, Table.COILS)) == "coil 16"
    assert str(Span(0, 24, Table.INPUT)) == "input registers 0..23"
    assert str(Span(8, 2)) == "registers 8..9"


def problems(change, **options):
    site = copy.deepcopy(read_site(SAMPLE))
    change(site)
    return {problem.path: problem.text for problem in ADAPTER.check(options_of(site, **options), selections_of(site))}


def moved(site, by):
    """The sample with every address of the device `by` higher."""
    device = site["adapters"]["ems"]
    for name in ("magic", "version", "heartbeat"):
        device[name]["at"] += by
    device["writable"] = [
        f"{8 + by}..{9 + by}",
        {"from": 160 + by, "to": 179 + by, "every": 80, "count": 64},
        f"{6060 + by}..{6079 + by}",
    ]
    for flow in site["flows"].values():
        flow["records"]["each"]["base"] += by
        for name in ("request", "sequence", "status", "error"):
            flow["submit"][name] += by
    site["flows"]["batteries"]["records"]["each"]["count"]["from"] += by


@pytest.mark.parametrize(("base", "by"), [(0, 0), (1, 1), ("reference", 40001)])
def test_one_map_in_every_way_of_counting(base, by):
    """The sample written as its manual may have it: nothing is wrong with any of them."""
    assert problems(lambda site: moved(site, by), address_base=base) == {}


def test_a_problem_says_how_it_counts():
    """Where the site file counts otherwise than the wire, the text of a problem says so."""

    def change(site):
        moved(site, 1)
        site["adapters"]["ems"]["writable"] = ["9..10", "6061..6080"]

    text = problems(change, address_base=1)["flows.batteries.outcome.state"]
    assert "register 160 " in text
    assert "count from 0" in text


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        ("adapters/ems/magic", {"at": 0, "is": 1, "table": "coils"}, None, None),
        ("flows/unit/records/each/base", 70000, None, "0 to 65536"),
        ("adapters/ems/writable", [{"from": 8, "to": 9, "table": "input"}], "adapter.writable.0", "cannot write"),
        ("flows/unit/submit/request", 65536, "flows.unit.submit.request", "count from 0"),
        ("flows/unit/records/each", {"base": 6000, "table": "input"}, "flows.unit.outcome.state", "outcome.each"),
        ("flows/unit/records/each", {"base": 6000, "table": "coils"}, "flows.unit.records.fields.name.type", "single bits"),
        ("flows/unit/submit/sequence", {"at": 7, "table": "coils"}, "flows.unit.submit.sequence", "needs a register"),
        ("flows/unit/submit/request", {"at": 6, "table": "coils"}, "flows.unit.submit.equals", "can only be 1"),
        ("flows/unit/outcome/alarm", {"at": 79, "type": "uint16", "fixed": True}, "flows.unit.outcome.alarm", "outside"),
        ("flows/unit/outcome/alarm", {"at": 8, "type": "uint16", "fixed": True, "table": "coils"}, "flows.unit.outcome.alarm.type", "single bits"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_meant_are_found(path, value, where, what):
    """Read-only tables, bits where a number is needed, addresses outside the counting: each at its place."""

    def change(site):
        *parents, last = path.split("/")
        for parent in parents:
            site = site[parent]
        site[last] = value

    if where is None and what is None:
        assert problems(change) == {}
    elif where is None:
        with pytest.raises(ValueError, match=what):
            problems(change)
    else:
        assert what in problems(change)[where]
