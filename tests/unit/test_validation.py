"""Whether an item may be sent: shape, identifiers, rules across fields; each with its severity."""

import pytest

from bridge.identifiers import Severity
from bridge.model import HostReason, Kind
from bridge.profile import load_profile
from bridge.validation import compile_validator

PROFILE = load_profile("default")
ASSET = {
    "assetReference": "BESS001", "assetName": "North Yard Battery 001", "importMpan": "1012345678903", "postcode": "IP1 2AB",
    "gspGroup": "_A", "connectionType": "DISTRIBUTION", "connectionVoltageKv": 33.0, "technologyType": "SOLAR", "maxExportKw": 49500,
    "maxImportKw": 0, "meteringType": "HH", "meteringIntervalMs": 1800000, "effectiveFrom": "2026-11-23T00:00:00.000Z",
}  # fmt: skip
UNIT = {
    "unitReference": "ABERU-1", "unitName": "Aber", "bmParticipation": "NON_BM", "service": "DCH", "direction": "BOTH", "capacityKw": 100,
    "gspGroup": "_A", "effectiveFrom": "2026-11-23T00:00:00.000Z",
    "alignedAssets": [{"assetReference": "BESS001", "alignedCapacityKw": 60}, {"assetReference": "BESS002", "alignedCapacityKw": 40}],
}  # fmt: skip
GONE = object()
E, W = Severity.ERROR, Severity.WARN


def check(kind, item, severities=None, **changes):
    """What is found in this item with these fields changed: field, severity and code each."""
    changed = {name: value for name, value in {**item, **changes}.items() if value is not GONE}
    found = compile_validator(PROFILE, kind, severities or {}).check(changed)
    return [(finding.field, finding.severity, finding.code) for finding in found]


def asset(severities=None, **changes):
    return check(Kind.ASSET, ASSET, severities, **changes)


def unit(severities=None, **changes):
    return check(Kind.UNIT, UNIT, severities, **changes)


def test_what_is_right():
    """Nothing is found in a good asset and a good unit."""
    assert (asset(), unit()) == ([], [])


@pytest.mark.parametrize("name", sorted(set(ASSET) - {"importMpan"}))
def test_what_an_asset_needs(name):
    """DOMAIN 4, "* = required": each missing one is named."""
    assert asset(**{name: GONE}) == [(name, E, HostReason.MISSING_VALUE)]


@pytest.mark.parametrize("name", sorted(set(UNIT) - {"direction"}))
def test_what_a_unit_needs(name):
    """DOMAIN 4, "* = required": each missing one is named."""
    assert unit(**{name: GONE}) == [(name, E, HostReason.MISSING_VALUE)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"assetReference": ""}, "assetReference"),
        ({"assetReference": "x" * 41}, "assetReference"),
        ({"assetName": "x" * 81}, "assetName"),
        ({"connectionType": "BOTH"}, "connectionType"),
        ({"technologyType": "FUSION"}, "technologyType"),
        ({"meteringType": "NONE"}, "meteringType"),
        ({"meteringIntervalMs": 100}, "meteringIntervalMs"),
        ({"maxExportKw": -1}, "maxExportKw"),
        ({"maxExportKw": 1.5}, "maxExportKw"),
        ({"maxExportKw": "5"}, "maxExportKw"),
        ({"maxExportKw": True}, "maxExportKw"),
        ({"connectionVoltageKv": 0}, "connectionVoltageKv"),
        ({"latitude": 91}, "latitude"),
        ({"services": "DCH"}, "services"),
        ({"effectiveFrom": "23/11/2026"}, "effectiveFrom"),
        ({"effectiveFrom": "2026-11-23T00:00:00"}, "effectiveFrom"),
        ({"controlContact": {"fax": "1"}}, "controlContact.fax"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_the_shape_of_an_asset(changes, expected):
    """A wrong type, size, word or an unknown field is an error that names the field."""
    [(field, severity, code)] = asset(**changes)
    assert (field, severity, code) == (expected, E, HostReason.SCHEMA)


@pytest.mark.parametrize("count", [0, 1, 1000, 1001])
def test_a_unit_has_1_to_1000_assets(count):
    """DOMAIN 4: 1 to 1000 aligned assets."""
    members = [{"assetReference": f"B{number}", "alignedCapacityKw": 1} for number in range(count)]
    found = unit(alignedAssets=members, capacityKw=0)
    assert found == ([] if count in (1, 1000) else [("alignedAssets", E, HostReason.SCHEMA)])


@pytest.mark.parametrize(
    ("changes", "field", "severity"),
    [
        ({"importMpan": "1012345678904"}, "importMpan", E),
        ({"exportMpan": "1315001165123"}, "exportMpan", E),
        ({"postcode": "IP1 2CB"}, "postcode", E),
        ({"gspGroup": "_I"}, "gspGroup", E),
        ({"gridSupplyPoint": "cowley"}, "gridSupplyPoint", W),
        ({"assetName": "=cmd()"}, "assetName", E),
        ({"assetReference": "a\nb"}, "assetReference", E),
        ({"services": ["DCH", "=x"]}, "services", E),
        ({"controlContact": {"phone": "none"}}, "controlContact.phone", W),
        ({"controlContact": {"email": "nobody"}}, "controlContact.email", W),
        ({"controlContact": {"name": "Jo\u202e"}}, "controlContact.name", E),
    ],
)
def test_identifiers_of_an_asset(changes, field, severity):
    """Each field that has a rule is held to it, with the severity of DOMAIN 2."""
    found = [entry for entry in asset({"mpan_group": "off"}, **changes) if entry[2] is HostReason.IDENTIFIER]
    assert found == [(field, severity, HostReason.IDENTIFIER)]


@pytest.mark.parametrize(
    ("changes", "field", "severity"),
    [
        ({"importMpan": GONE}, "importMpan or exportMpan or amsid", E),
        ({"maxExportKw": 0}, "maxExportKw and maxImportKw", E),
        ({"technologyType": "BATTERY_STORAGE"}, "storageCapacityKwh", E),
        ({"technologyType": "PUMPED_STORAGE"}, "storageCapacityKwh", E),
        ({"connectionVoltageKv": 30.0}, "connectionVoltageKv", W),
        ({"gspGroup": "_B"}, "importMpan", W),
        ({"exportMpan": "1310000000040"}, "exportMpan", W),
        ({"effectiveTo": "2026-11-22T00:00:00.000Z"}, "effectiveTo", E),
        ({"effectiveTo": "2026-11-23T00:00:00.000Z"}, "effectiveTo", E),
    ],
)
def test_rules_across_an_assets_fields(changes, field, severity):
    """DOMAIN 4 and 2: a metering point, some power, storage's capacity, usual voltages, the MPAN's own group, dates in order."""
    assert asset(**changes) == [(field, severity, HostReason.RULE)]


@pytest.mark.parametrize(
    "changes",
    [
        {"importMpan": GONE, "exportMpan": "1012345678903"},
        {"importMpan": GONE, "amsid": "A1"},
        {"maxExportKw": 0, "maxImportKw": 1},
        {"technologyType": "BATTERY_STORAGE", "storageCapacityKwh": 0},
        {"importMpan": "2400000000002"},
        {"effectiveTo": "2026-11-24T00:00:00.000Z"},
        *({"connectionVoltageKv": kv} for kv in (0.23, 0.4, 6.6, 11, 20, 22, 33, 66, 132, 275, 400)),
    ],
)
def test_the_right_side_of_those_rules(changes):
    """One metering point is enough, one direction of power, an independent network tells no group."""
    assert [entry for entry in asset(**changes) if entry[2] is HostReason.RULE] == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"bmParticipation": "BM"}, "bmUnitId"),
        ({"capacityKw": 101}, "capacityKw"),
        ({"alignedAssets": [*UNIT["alignedAssets"], {"assetReference": "BESS001", "alignedCapacityKw": 0}]}, "alignedAssets[2].assetReference"),
        ({"alignedAssets": [{"assetReference": "B", "alignedCapacityKw": 100, "effectiveFrom": "2027-01-01T00:00:00.000Z", "effectiveTo": "2026-12-01T00:00:00.000Z"}]}, "alignedAssets[0].effectiveTo"),
        ({"effectiveTo": "2026-01-01T00:00:00.000Z"}, "effectiveTo"),
    ],
)  # fmt: skip
def test_rules_across_a_units_fields(changes, field):
    """DOMAIN 4, "Local checks": a BM unit's id, capacity within the sum, no asset twice, dates in order."""
    assert unit(**changes) == [(field, E, HostReason.RULE)]


def test_a_unit_whose_parts_are_not_all_known_is_not_judged_by_their_sum():
    """The missing capacities are filled from the assets before it is sent, and judged then."""
    assert unit(capacityKw=10_000, alignedAssets=[{"assetReference": "B"}]) == []


@pytest.mark.parametrize(
    ("bm_unit", "good"), [("T_HUMR-1", True), ("V__JZENO001", True), ("X_HUMR-1", False), ("T_HUMR_1", False)]
)
def test_a_bm_units_id(bm_unit, good):
    """It is held to the rule of DOMAIN 2."""
    found = unit(bmParticipation="BM", bmUnitId=bm_unit)
    assert found == ([] if good else [("bmUnitId", E, HostReason.IDENTIFIER)])


@pytest.mark.parametrize("severity", ["error", "warn", "off"])
def test_a_site_sets_the_severity(severity):
    """DOMAIN 2: "all severities configurable: `error|warn|off`"; only errors refuse."""
    found = asset({"mpan": severity}, importMpan="1012345678904")
    assert found == ([] if severity == "off" else [("importMpan", Severity(severity), HostReason.IDENTIFIER)])
    changed = {**ASSET, "importMpan": "1012345678904"}
    [*checked] = compile_validator(PROFILE, Kind.ASSET, {"mpan": severity}).check(changed)
    assert [finding.severity.value for finding in checked] == [severity] * (severity != "off")


def test_no_finding_repeats_a_value():
    """A reason says what would be right; the value, which may be a person's, stays out."""
    secret = "Jo Bloggs\u202e"
    validator = compile_validator(PROFILE, Kind.ASSET, {})
    for item in (
        {**ASSET, "controlContact": {"name": secret}},
        {**ASSET, "technologyType": secret},
        {**ASSET, "maxExportKw": secret},
    ):
        assert "Bloggs" not in " ".join(finding.reason for finding in validator.check(item))


@pytest.mark.parametrize(
    ("asset_changes", "unit_changes", "expected"),
    [
        ({}, {}, []),
        ({"gspGroup": "_B"}, {}, ["is in another GSP group than its unit"]),
        ({"effectiveFrom": "2026-12-01T00:00:00.000Z"}, {}, ["does not cover the whole time of its unit"]),
        ({"effectiveTo": "2027-12-01T00:00:00.000Z"}, {}, ["does not cover the whole time of its unit"]),
        ({"effectiveTo": "2027-12-01T00:00:00.000Z"}, {"effectiveTo": "2027-12-01T00:00:00.000Z"}, []),
        ({"effectiveTo": "2027-12-01T00:00:00.000Z"}, {"effectiveTo": "2027-12-02T00:00:00.000Z"}, ["does not cover the whole time of its unit"]),
    ],
)  # fmt: skip
def test_a_unit_beside_its_assets(asset_changes, unit_changes, expected):
    """DOMAIN 4: "same GSP group; dates nested", as far as the assets are known; each is a warning unless a site says more."""
    validator = compile_validator(PROFILE, Kind.UNIT, {})
    found = validator.check_members({**UNIT, **unit_changes}, {"BESS001": {**ASSET, **asset_changes}})
    assert [finding.reason for finding in found] == expected
    assert {finding.severity for finding in found} <= {W}
    off = compile_validator(PROFILE, Kind.UNIT, {"member_group": "off", "member_dates": "off"})
    assert off.check_members({**UNIT, **unit_changes}, {"BESS001": {**ASSET, **asset_changes}}) == []
