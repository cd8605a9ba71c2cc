"""What the host writes must not lie over what it reads, nor over another of its results."""

import time

import pytest
from modbus_site import selection_of

from adapters.modbus import ADAPTER
from adapters.modbus.config import ModbusOptions
from bridge.api import InUse

ALL = [{"from": 0, "to": 65535}, {"from": 0, "to": 65535, "table": "coils"}]
STATE, KW = {"at": 8, "type": "uint16"}, "flows.assets.outcome.state"
NUMBER = {"type": "uint16"}


def flow(outcome=None, *, base=100, stride=20, count=3, fields=None, each=None, submit=None, crc=None, table="holding"):
    """Three records of a reference in registers 0 to 3, a number in 4 and 5, and their state in 8."""
    return {
        "records": {
            "each": {"base": base, "stride": stride, "count": count, "table": table},
            "key": "reference",
            "fields": {
                "reference": {"at": 0, "type": "string", "registers": 4},
                "kw": {"at": 4, "type": "int32"},
                **(fields or {}),
            },
            **({"crc": crc} if crc else {}),
        },
        "submit": submit or {"when": "change"},
        "outcome": {"state": STATE, **(outcome or {}), **({"each": each} if each else {})},
    }


def problems(given=None, /, *, options=None, **flows):
    """What `check` says of these flows; of one flow alone, which is `assets`, where it is given by itself."""
    made = ModbusOptions.model_validate({"host": "x", "writable": ALL, **(options or {})})
    named = {"assets": given, **flows} if given else flows
    found = ADAPTER.check(made, [selection_of(name, one) for name, one in named.items()])
    assert len({problem.path for problem in found}) == len(found), "one problem for each line"
    return {problem.path: problem.text for problem in found}


def fixed(at, **more):
    return {"at": at, "fixed": True, **NUMBER, **more}


def request(request, sequence, status, error):
    return {"when": "request", "request": request, "sequence": sequence, "status": status, "error": error}


def test_a_map_where_each_has_its_own():
    """Nothing is wrong with it, on whatever table and wherever the outcomes are."""
    assert problems(flow()) == {}
    assert problems(flow(table="input", each={"base": 100, "stride": 20})) == {}, "another table, the same numbers"
    assert problems(flow({"alarm": fixed(4)}), units=flow(base=600)) == {}


def test_the_text_says_where_what_and_what_would_be_right():
    """The whole of it, once."""
    assert problems(flow({"alarm": {"at": 5, **NUMBER}})) == {
        "flows.assets.outcome.alarm": "register 105 (record 0) is read as `kw` of record 0 of the flow assets; "
        "the host would overwrite what it reads, so give it registers of its own"
    }


@pytest.mark.parametrize(
    ("alarm", "read"),
    [
        ({"at": 5, "type": "uint16"}, "`kw` of record 0"),
        ({"at": 6, "type": "int8l"}, "`volts` of record 0"),
        ({"at": 7, "type": "uint16"}, "the scale factor of `volts` of record 0"),
        ({"at": 10, "type": "uint16"}, "the CRC of record 0"),
        ({"at": 12, "type": "uint16"}, "a part of what the CRC covers of record 0"),
        ({"at": 24, "type": "uint16"}, "`kw` of record 1"),
        (fixed(145), "`kw` of record 2"),
        (fixed(0), "the device's magic"),
        (fixed(1), "the device's version"),
        (fixed(5), "the device's heartbeat"),
        (fixed(2), "the count of the flow assets"),
        (fixed(6), "the request of the flow assets"),
        (fixed(7), "the sequence of the flow assets"),
        (fixed(604), "`kw` of record 0 of the flow units"),
    ],
)
def test_an_outcome_over_what_is_read(alarm, read):
    """Every register that is read for something, of this flow or another; `fixed`, of the next record, or one byte of it."""
    assets = flow(
        {"alarm": alarm},
        count={"from": 2, "max": 3},
        fields={"volts": {"at": 6, "type": "int16", "scale_at": 7}},
        crc={"over": [[0, 7], [11, 12]], "at": 10},
        submit=request(6, 7, 8, 9),
    )
    options = {"magic": {"at": 0, "is": 1}, "version": {"at": 1, "is": 1}, "heartbeat": {"at": 5}}
    found = problems(assets, units=flow(base=600), options=options)
    assert set(found) == {"flows.assets.outcome.alarm"}
    assert f"is read as {read}" in found["flows.assets.outcome.alarm"]


def test_outcomes_elsewhere_over_what_is_read():
    """`outcome.each` with a base too low: the place of the third one is in the records."""
    assert "(record 2) is read as `reference` of record 0" in problems(flow(each={"base": 53, "stride": 20}))[KW]


def test_a_count_of_the_device_is_taken_at_its_most():
    """The records that may come are laid out too."""
    assets = {"base": 100, "count": {"from": 2, "max": 30}}
    assert "`kw` of record 25" in problems(flow({"alarm": fixed(604)}, **assets))["flows.assets.outcome.alarm"]
    assert problems(flow({"alarm": fixed(704)}, **assets)) == {}


@pytest.mark.parametrize(
    ("alarm", "well"),
    [
        ({"at": 6, "type": "bit", "bit": 3}, True),
        ({"at": 6, "type": "bit", "bit": 12}, False),
        ({"at": 6, "type": "uint16", "bits": "0..7"}, True),
        ({"at": 6, "type": "uint16", "bits": "0..8"}, False),
        ({"at": 6, "type": "int8l"}, True),
        ({"at": 6, "type": "int8h"}, False),
        ({"at": 6, "type": "bit", "bit": 3, "order": "BA"}, False),
        ({"at": 6, "type": "uint16"}, False),
    ],
)
def test_bits_beside_the_ems_own(alarm, well):
    """A register may be shared by bits of the EMS's and of ours, as long as no bit is."""
    found = problems(flow({"alarm": alarm}, fields={"flags": {"at": 6, "type": "uint8h"}}))
    assert set(found) == (set() if well else {"flows.assets.outcome.alarm"})


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"errorCode": {"at": 8, **NUMBER}}, "with state of the flow assets (record 0); one would overwrite"),
        ({"errorCode": {"at": 28, **NUMBER}}, "(record 0) shares registers with state of the flow assets (record 1)"),
        ({"errorCode": fixed(148)}, "register 148 shares registers with state of the flow assets (record 2)"),
        (
            {"alarm": {"at": 9, "type": "bit", "bit": 1}, "errorCode": {"at": 9, "type": "uint16", "bits": "0..3"}},
            "share",
        ),
    ],
)
def test_outcomes_of_one_flow_over_each_other(outcome, said):
    """Of one record or of two, `fixed` or not, bits too."""
    (text,) = problems(flow(outcome)).values()
    assert said in text


def test_bits_of_one_register_for_two_words():
    """Each has bits of its own there."""
    outcome = {"alarm": {"at": 9, "type": "bit", "bit": 4}, "errorCode": {"at": 9, "type": "uint16", "bits": "0..3"}}
    assert problems(flow(outcome)) == {}


def test_a_longer_stride_is_no_advice_within_one_record():
    """It helps between two records only."""
    (text,) = problems(flow({"errorCode": {"at": 8, **NUMBER}})).values()
    assert text.endswith("so give each registers of its own")


def test_a_stride_that_is_too_small_for_the_outcomes():
    """The text of one record would end in the next one's; the longer stride is well."""
    outcome = {"transactionId": {"at": 1, "type": "string", "registers": 9}}
    tight, wide = ({"state": {"at": 0, **NUMBER}, **outcome} for _ in range(2))
    found = problems(flow(tight, each={"base": 500, "stride": 9}))
    assert set(found) == {"flows.assets.outcome.transactionId"}
    assert found["flows.assets.outcome.transactionId"] == (
        "registers 501..509 (record 0) shares registers with state of the flow assets (record 1); "
        "one would overwrite the other, so give each registers of its own, or the records a longer `stride`"
    )
    assert problems(flow(wide, each={"base": 500, "stride": 10})) == {}
    alone = {"state": {"at": 0, "type": "string", "registers": 6}}
    assert set(problems(flow(alone, each={"base": 500, "stride": 5}))) == {KW}


def test_outcomes_of_two_flows():
    """Over each other they are refused; the same word about the same record, and what both call shared, may stand in one place."""
    elsewhere = {"base": 100, "stride": 20}
    there = "flows.units.outcome.state"
    assert (
        "shares registers with state of the flow assets (record 1)"
        in problems(flow(), units=flow(base=600, each={"base": 120, "stride": 20}))[there]
    )
    assert problems(flow(), units=flow()) == {}, "two flows for one table of assets"
    code = flow({"state": {"at": 8, "type": "int16"}})
    assert set(problems(flow(), units=code)) == {there}, "written in two ways"
    first, shifted = (flow({"state": {"at": at, "type": "string", "registers": 2}}) for at in (8, 9))
    assert set(problems(first, units=shifted)) == {there}, "not in the very same place"
    swapped = flow({"state": {"at": 9, **NUMBER}, "errorCode": STATE})
    assert set(problems(flow(), units=swapped)) == {"flows.units.outcome.errorCode"}
    assert problems(flow({"alarm": fixed(9)}), units=flow({"alarm": fixed(9)}, base=600)) == {}
    assert set(problems(flow({"alarm": fixed(9)}), units=flow({"errorCode": fixed(9)}, base=600))) == {
        "flows.units.outcome.errorCode"
    }
    assert set(problems(flow(each=elsewhere, base=700), units=flow(base=900, each=elsewhere))) == {there}


def test_coils_are_a_table_of_their_own():
    """What shares a coil is told of coils, whatever its `order`."""
    coil = {"type": "bit", "bit": 0, "table": "coils"}
    both = flow({"alarm": fixed(104, **coil), "errorCode": fixed(104)})
    assert set(problems(both)) == {"flows.assets.outcome.errorCode"}
    turned = flow({"alarm": fixed(9, **coil, order="BA")}, base=600)
    assert set(problems(flow({"alarm": fixed(9, **coil)}), units=turned)) == {"flows.units.outcome.alarm"}
    asked = {"when": "request", "request": {"at": 17, "table": "coils"}, "status": {"at": 33, "table": "coils"}}
    assert (
        "give it coils of its own"
        in problems(flow({"alarm": fixed(17, **coil)}, submit=asked))["flows.assets.outcome.alarm"]
    )
    assert (
        "shares coils with the status of the flow assets"
        in problems(flow({"alarm": fixed(33, **coil)}, submit=asked))["flows.assets.outcome.alarm"]
    )


@pytest.mark.parametrize(
    ("submit", "where", "said"),
    [
        (request(6, 7, 9, 9), "flows.assets.submit.error", "register 9 shares registers with the status"),
        (request(6, 7, 6, 9), "flows.assets.submit.status", "is read as the request of the flow assets"),
        (request(6, 7, 8, 7), "flows.assets.submit.error", "is read as the sequence of the flow assets"),
        (request(6, 7, 5, 9), "flows.assets.submit.status", "is read as the device's heartbeat"),
        (request(6, 7, 8, 124), "flows.assets.submit.error", "is read as `kw` of record 1"),
        (request(6, 7, 8, 148), KW, "(record 2) shares registers with the error of the flow assets"),
    ],
)
def test_the_answers_of_a_handshake_are_nobody_elses(submit, where, said):
    """Neither each other's, nor of what is read, nor of an outcome."""
    found = problems(flow(submit=submit), options={"heartbeat": {"at": 5}})
    assert set(found) == {where}
    assert said in found[where]


def test_two_handshakes():
    """With one `request` they share all; with two, each needs a status of its own: the one that rests would clear the other's."""
    first, second = request(6, 7, 8, 9), request(6, 7, 8, 9) | {"equals": 2}
    assert problems(flow(submit=first), units=flow(base=600, submit=second)) == {}
    other = flow(base=600, submit=request(16, 17, 8, 19))
    assert set(problems(flow(submit=first), units=other)) == {"flows.units.submit.status"}
    crossed = flow(base=600, submit=request(16, 17, 18, 6))
    assert "the request of the flow assets" in problems(flow(submit=first), units=crossed)["flows.units.submit.error"]


def test_what_is_wrong_already_is_told_once():
    """A table that cannot be written, a stride that is missing, records over each other: no second problem for the same slip."""
    over = flow({"state": {"at": 4, **NUMBER}}, table="input")
    assert "cannot be written" in problems(over)[KW]
    assert set(problems(flow(each={"base": 500}))) == {"flows.assets.outcome.each"}
    assert set(problems(flow(stride=5))) == {"flows.assets.records.each.stride"}


def test_many_records_are_laid_out_quickly():
    """A whole device of them, and maps that no device has: in a moment, not in the square of it."""
    outcome = {"transactionId": {"at": 9, "type": "string", "registers": 9}}
    begun = time.process_time()
    assert problems(flow(outcome, count=3000)) == {}
    assert problems(flow(outcome, count=1000), units=flow(base=104, count=1000)) != {}
    widest = {"state": {"at": 0, "type": "string", "registers": 120}}
    assert KW in problems(flow(widest, count=3000, each={"base": 0, "stride": 1}))
    assert problems(flow(widest, count=65_535, each={"base": 0, "stride": 60_000})) != {}
    assert time.process_time() - begun < 2


def beside(*adapters):
    """What `check` says of adapters that are given as their options and one flow each: which is told, of which other, where and what."""
    used = [
        InUse(
            ModbusOptions.model_validate({"host": "x", "writable": ALL, **options}),
            [selection_of("assets", given)] if given else [],
        )
        for options, given in adapters
    ]
    return [(clash.first, clash.second, clash.path, clash.text) for clash in ADAPTER.check_beside(used)]


def test_two_adapters_of_one_device_that_write_the_same():
    """A site file copied with another name and the same address: told once, although every outcome is written twice."""
    whole = flow({"errorCode": {"at": 9, **NUMBER}}, submit=request(6, 7, 8, 9))
    assert beside(({}, whole), ({}, whole)) == [
        (
            0,
            1,
            "flows.assets.submit.status",
            (
                "register 8 is the status of the flow assets of another adapter too, and one would overwrite the other; "
                "both adapters are of x:502 unit 1, so correct the address of one, or give each registers of its own"
            ),
        )
    ]
    assert [clash[:3] for clash in beside(({}, flow()), ({}, flow()), ({}, flow()))] == [(0, 1, KW), (0, 2, KW)]


@pytest.mark.parametrize("other", [{"unit": 2}, {"host": "y"}, {"port": 503}])
def test_adapters_of_other_devices_are_nobodys_concern(other):
    """Another unit, address or port is another device."""
    assert beside(({}, flow()), (other, flow())) == []


def test_two_adapters_of_one_device_that_keep_apart():
    """Each has its own records; both may read the same, and need not use a flow at all."""
    assert beside(({}, flow()), ({"poll": "5s"}, flow(base=600)), ({}, None)) == []
    assert beside(({}, flow(each={"base": 2000, "stride": 20})), ({}, flow(each={"base": 3000, "stride": 20}))) == []
    reads = {"heartbeat": {"at": 5}, "magic": {"at": 0, "is": 1}}
    assert beside((reads, flow()), (reads, flow(base=600))) == []


def test_an_adapter_that_writes_what_another_one_reads():
    """It is told of the one that writes, whichever stands first."""
    over = flow({"alarm": fixed(105)}, base=600)
    ((first, second, path, text),) = beside(({}, flow()), ({}, over))
    assert (first, second, path) == (0, 1, "flows.assets.outcome.alarm")
    assert text.startswith("register 105 is read as `kw` of record 0 of the flow assets; the host would overwrite")
    assert [clash[:3] for clash in beside(({}, over), ({}, flow()))] == [(1, 0, "flows.assets.outcome.alarm")]
    assert beside(({}, flow({"alarm": fixed(5)}, base=600)), ({"heartbeat": {"at": 5}}, flow()))[0][:2] == (1, 0)


def test_two_counts_of_addresses_are_one_device():
    """Each adapter's own `address_base` is taken off before they are laid side by side."""
    counted = flow(base=101)
    assert beside(({}, flow()), ({"address_base": 1, "writable": [{"from": 1, "to": 65536}]}, counted))[0][2] == KW
