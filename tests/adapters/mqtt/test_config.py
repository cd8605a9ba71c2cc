"""What a site file may say, and what the parts of it say together."""

import copy
import re

import pytest
from mqtt_site import CRAWLEY, SAMPLE, options_of, read_site, selections_of
from pydantic import ValidationError
from ruamel.yaml import YAML

from adapters.mqtt import ADAPTER
from adapters.mqtt.config import MqttOptions, Version
from bridge.api import Secret

SITES = [SAMPLE, CRAWLEY]


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_the_shipped_sites_are_accepted(path):
    """The sample and the demo's site fit the models, and nothing is wrong between their parts."""
    site = read_site(path)
    assert list(ADAPTER.check(options_of(site), selections_of(site))) == []


def test_the_samples_values_are_the_defaults():
    """Options that the sample spells out beside its own addresses stand at their defaults."""
    options, defaults = options_of(read_site(SAMPLE)), MqttOptions(host="x")
    own = {"host", "tls", "user", "password", "status_topic", "writable"}
    spelled = set(read_site(SAMPLE)["adapters"]["broker"]) - {"protocol"}
    assert spelled == set(MqttOptions.model_fields)
    for name in set(MqttOptions.model_fields) - own:
        assert getattr(options, name) == getattr(defaults, name), name


def test_the_readme_lists_every_option_and_its_default():
    """The table of options is the models' own."""
    table = (SAMPLE.parent / "README.md").read_text("utf-8").split("## Options")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    told = {name: default.strip() for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    assert set(told) == set(MqttOptions.model_fields)
    for name, field in MqttOptions.model_fields.items():
        shown = re.fullmatch(r'`"?([^`"]+)"?`', told[name])
        if shown and name not in {"host", "client_id"}:
            given = MqttOptions.model_validate({"host": "x", name: YAML(typ="safe").load(shown[1])})
            assert getattr(given, name) == field.default, name
        else:
            assert field.is_required() or field.default in {None, ()}, name


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"version": "4"}, '"3.1.1" or "5"'),
        ({"keepalive": "5"}, "unit"),
        ({"keepalive": "2500ms"}, "whole seconds"),
        ({"keepalive": "1s"}, "greater than or equal to 2"),
        ({"port": 0}, "port"),
        ({"password": Secret("x")}, "user"),
        ({"status_topic": "acme/{site}/status"}, "without placeholders"),
        ({"writable": ["a/{x}"]}, "must be `\\+`"),
        ({"max_payload": 10}, "1024"),
        ({"tls": {"certificate": __file__}}, "belong together"),
        ({"tls": {"insecure": True}}, "Extra inputs"),
        ({"websocket": {"path": "mqtt"}}, "begins with /"),
        ({"host": "mqtts://broker.acme.example"}, "a name or an address alone"),
        ({"host": "10.0.0.5:1883"}, "`port` is a key of its own"),
        ({"host": "broker.acme.example/mqtt"}, "a name or an address alone"),
        ({"host": "[fd00::5]"}, "fd00::5"),
        ({"host": " broker"}, "a name or an address alone"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, what):
    """With what would be right."""
    with pytest.raises(ValidationError, match=what):
        MqttOptions.model_validate({"host": "x", **options})


@pytest.mark.parametrize("host", ["broker", "broker.acme.example", "10.0.0.5", "::1", "fd00::5", "bröker.example"])
def test_names_and_addresses_are_hosts(host):
    """As they stand."""
    assert MqttOptions.model_validate({"host": host}).host == host


@pytest.mark.parametrize(("given", "version"), [("3.1.1", "3.1.1"), (5, "5"), ("5.0", "5"), (5.0, "5")])
def test_versions(given, version):
    """YAML makes a number of `5`; it means the same."""
    assert MqttOptions.model_validate({"host": "x", "version": given}).version is Version(version)


@pytest.mark.parametrize(
    ("part", "value", "what"),
    [
        ("records", {"each": "a/b", "key": "k", "fields": {"k": "k"}}, "needs a placeholder"),
        ("records", {"each": "a/+", "key": "k", "fields": {"k": "k"}}, "give it a name"),
        ("records", {"each": "a/{x}", "key": "k", "fields": {"k": "k"}, "csv": {}}, "belongs to `format: csv`"),
        ("records", {"each": "a/{x}", "key": "k", "fields": {"k": "k"}, "format": "xml"}, "'json', 'csv' or 'plain'"),
        ("records", {"each": "a/{x}", "key": "k", "fields": {"k": ""}}, "where the value is"),
        ("records", {"each": "a/{x}", "key": "k", "fields": {}}, "at least 1"),
        ("outcome", {"topic": "a/{x}/r", "payload": {"s": "status"}}, "known are state"),
        ("outcome", {"topic": "a/{x}/r", "payload": {"t": "transactionId"}}, "member for the state"),
        ("outcome", {"topic": "a/{x}/r", "payload": {"s": "state", "s.t": "errorCode"}}, "cannot be a value and hold"),
        ("outcome", {"topic": "a/{x}/r"}, "payload"),
    ],
)
def test_a_part_of_a_flow_that_cannot_be_is_refused(part, value, what):
    """Each model by itself."""
    with pytest.raises(ValidationError, match=what):
        getattr(ADAPTER, part).model_validate(value)


def problems(change):
    site = copy.deepcopy(read_site(CRAWLEY))
    change(site)
    return {problem.path: problem.text for problem in ADAPTER.check(options_of(site), selections_of(site))}


def _set(site, path, value):
    *parents, last = path.split("/")
    for parent in parents:
        site = site[parent]
    site[last] = value


RESULT = "acme/crawley/ems/asset/{asset}/registration/result"


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        ("flows/chargers/records/fields/reference", "$charger", "flows.chargers.records.fields.reference", "$asset"),
        ("flows/chargers/submit/topic", "acme/{charger}/request", "flows.chargers.submit.topic", "{asset}"),
        ("flows/chargers/submit/topic", "acme/all/request", "flows.chargers.submit.topic", "{asset}"),
        (
            "flows/chargers/submit/topic",
            "acme/crawley/ems/unit/{asset}/registration",
            "flows.chargers.submit.topic",
            "could be a registration of the flow unit",
        ),
        (
            "flows/chargers/outcome/topic",
            "acme/{charger}/result",
            "flows.chargers.outcome.topic",
            "outside `writable:`",
        ),
        (
            "adapters/broker/writable",
            ["acme/crawley/ems/unit/+/registration/result"],
            "flows.chargers.outcome.topic",
            'add "acme/crawley/ems/asset/+/registration/result"',
        ),
        (
            "adapters/broker/writable",
            ["acme/crawley/ems/asset/EV001/registration/result", "acme/crawley/ems/unit/#"],
            "flows.chargers.outcome.topic",
            "outside `writable:`",
        ),
        ("adapters/broker/status_topic", "acme/crawley/ems/asset/x/registration", "adapter.status_topic", "chargers"),
        ("adapters/broker/status_topic", RESULT.format(asset="x"), "adapter.status_topic", "an outcome of the flow"),
        ("flows/chargers/submit", {"when": "change"}, "flows.chargers.outcome.payload", "nobody requests here"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_found(path, value, where, what):
    """Each problem stands at its place in the file and says what would be right."""
    assert what in problems(lambda site: _set(site, path, value))[where]


def test_an_outcome_that_the_host_would_hear_itself_is_found():
    """A result on a topic that is subscribed to would come back as a request."""

    def change(site):
        _set(site, "flows/chargers/outcome/topic", "acme/crawley/ems/asset/{asset}/registration/request")
        _set(site, "adapters/broker/writable", ["#"])

    assert "would hear itself" in problems(change)["flows.chargers.outcome.topic"]


def test_two_flows_of_the_same_records_have_outcomes_of_their_own():
    """A flow that was copied for another participant, say. With requests of its own it needs none, for the outcome tells whose it is."""

    def copied(site):
        site["flows"]["live"] = copy.deepcopy(site["flows"]["chargers"])

    def moved(site):
        copied(site)
        _set(site, "flows/live/outcome/topic", "acme/crawley/live/{asset}/result")
        _set(site, "adapters/broker/writable", ["acme/crawley/#"])

    def asked(site):
        copied(site)
        _set(site, "flows/live/submit/where", {"action": "create-live"})

    def anonymous(site):
        asked(site)
        _set(site, "flows/live/outcome/payload", {"state": "state"})

    assert "could be an outcome of the flow chargers" in problems(copied)["flows.live.outcome.topic"]
    assert "which has the same records" in problems(anonymous)["flows.live.outcome.topic"]
    assert (problems(moved), problems(asked)) == ({}, {})


def test_records_of_values_below_one_place_are_told_by_their_values():
    """Of `format: plain` assets and units may lie side by side: a place that has the values of the one has not those of the other."""

    def beside(site, *of_unit):
        for flow, name, values in (("chargers", "asset", ("name", "mpan")), ("unit", "unit", of_unit)):
            part = site["flows"][flow]
            part["records"] = {
                "each": f"acme/crawley/{{{name}}}", "key": "reference", "format": "plain",
                "fields": {"reference": f"${name}", **{value: value for value in values}},
            }  # fmt: skip
            part["submit"] = {"when": "change"}
            part["outcome"] = {"topic": f"acme/crawley/{{{name}}}/result", "payload": {"state": "state"}}
        _set(site, "adapters/broker/writable", ["acme/crawley/+/result"])

    assert problems(lambda site: beside(site, "service", "name")) == {}
    text = problems(lambda site: beside(site, "mpan", "name", "service"))["flows.unit.outcome.topic"]
    assert "which has the same records" in text


def test_one_topic_for_all_outcomes_needs_the_request_id():
    """With it the EMS can tell them apart; without it nobody could."""

    def shared(site):
        _set(site, "flows/chargers/outcome/topic", "acme/crawley/results")
        _set(site, "adapters/broker/writable", ["acme/crawley/#"])

    def anonymous(site):
        shared(site)
        _set(site, "flows/chargers/outcome/payload", {"state": "state"})

    assert problems(shared) == {}
    assert "nobody could tell" in problems(anonymous)["flows.chargers.outcome.topic"]
