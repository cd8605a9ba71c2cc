"""What a site file may say about OPC UA, and what its parts say together."""

import copy
import enum
import re
import subprocess
import sys
from pathlib import Path

import pytest
from opcua_site import IPSWICH, options_of, read_site, selection_of, selections_of
from pydantic import ValidationError

from adapters.opcua import ADAPTER
from adapters.opcua.config import OpcUaOptions, Security
from bridge.api import OutcomeField, Secret, Trigger

SAMPLE = Path(__file__).parents[3] / "adapters" / "opcua" / "sample.yaml"
URL = "opc.tcp://127.0.0.1:4840"
OPEN = {"policy": "None"}


@pytest.fixture
def files(tmp_path):
    """Any file will do: what is inside is looked at when a session opens."""
    for name in ("own.pem", "own.key", "server.pem"):
        (tmp_path / name).write_text("x")
    (tmp_path / "trusted").mkdir()
    return {
        "policy": "Basic256Sha256",
        "certificate": tmp_path / "own.pem",
        "private_key": tmp_path / "own.key",
        "server_certificates": [tmp_path / "server.pem"],
    }


@pytest.mark.parametrize("path", [SAMPLE, IPSWICH], ids=lambda path: path.name)
def test_the_shipped_sites_are_accepted(path):
    """The sample and the demo's site fit the models, and nothing is wrong between their parts."""
    site = read_site(path)
    assert list(ADAPTER.check(options_of(site, url=URL, security=OPEN), selections_of(site))) == []


def test_the_samples_values_are_the_defaults():
    """Options that the sample spells out beside its own addresses stand at their defaults."""
    options = options_of(read_site(SAMPLE), url=URL, security=OPEN)
    defaults = OpcUaOptions(url=URL, security=Security(policy="None"))
    for name in set(OpcUaOptions.model_fields) - {"url", "security", "namespaces", "writable"}:
        assert getattr(options, name) == getattr(defaults, name), name


def test_the_library_is_not_imported_with_the_adapter():
    """Naming the adapter costs nothing until a session opens."""
    code = "import adapters.opcua, sys; sys.exit('asyncua' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "http://10.0.0.5:4840"}, "HOST:PORT"),
        ({"url": "opc.tcp://user:secret@10.0.0.5:4840"}, "HOST:PORT"),
        ({"url": "opc.tcp://10.0.0.5:4840 "}, "HOST:PORT"),
        ({"timeout": "6s"}, "less than or equal to 5"),
        (
            {"publishing_interval": "1s", "sampling_interval": "50ms"},
            "samples 20 times between two publishes; set it to 20",
        ),
        ({"watch": "listening"}, "'subscription' or 'polling'"),
        ({"watch": "polling", "poll_interval": "1ms"}, "greater than or equal to 0.01"),
        ({"timeout": 4}, "duration with its unit"),
        ({"timeout": "4"}, "duration with its unit"),
        ({"sampling_interval": "0ms"}, "greater than 0"),
        ({"publishing_interval": "-1s"}, "duration with its unit"),
        ({"queue_size": 0}, "greater than or equal to 1"),
        ({"writable": ["EMS/*"]}, "must begin at Objects"),
        ({"writable": ["Objects"]}, "must begin at Objects"),
        ({"writable": ["Objects/ems:EMS//x"]}, "none empty"),
        ({"writable": ["Objects/:x"]}, "none empty"),
        ({"polling": "1s"}, "Extra inputs"),
    ],
)
def test_an_option_that_cannot_be_is_refused(changes, words):
    """Each with the words that an operator gets."""
    with pytest.raises(ValidationError, match=words):
        OpcUaOptions.model_validate({"url": URL, "security": OPEN, **changes})


@pytest.mark.parametrize(("text", "seconds"), [("10ms", 0.01), ("250 ms", 0.25), ("2s", 2.0), ("1.5s", 1.5)])
def test_durations_carry_their_unit(text, seconds):
    """As everywhere in the configuration."""
    options = OpcUaOptions.model_validate({"url": URL, "security": OPEN, "sampling_interval": text})
    assert options.sampling_interval == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": "Basic128Rsa15"}, "Basic256Sha256"),
        ({"policy": "Basic256"}, "Basic256Sha256"),
        ({"mode": "None"}, "Sign"),
        ({"certificate": None}, "needs `certificate` and `private_key`"),
        ({"private_key": None}, "needs `certificate` and `private_key`"),
        ({"server_certificates": []}, "no server is trusted unseen"),
        ({"user": "smp-bridge"}, "belong together"),
        ({"password": Secret("x")}, "belong together"),
        ({"user_certificate": __file__}, "`user_certificate` and `user_private_key` belong together"),
        ({"user_private_key": __file__}, "`user_certificate` and `user_private_key` belong together"),
        (
            {
                "user": "a",
                "password": Secret("x"),
                "user_certificate": __file__,
                "user_private_key": __file__,
            },
            "not by both; remove one",
        ),
        ({"certificate": "missing.pem"}, "file"),
        ({"trust": "missing"}, "directory"),
    ],
)
def test_a_link_that_is_not_protected_as_it_seems_is_refused(files, changes, words):
    """Old policies, half a key pair, no trust, half a login."""
    with pytest.raises(ValidationError, match=words):
        Security.model_validate({**files, **changes})


def test_no_security_must_be_written_out_and_takes_no_password(files):
    """`policy: None` alone; a password beside it would travel in the clear."""
    assert Security.model_validate(OPEN).policy.value == "None"
    with pytest.raises(ValidationError, match="nothing is protected"):
        Security.model_validate({**OPEN, "user": "smp-bridge", "password": Secret("x")})
    with pytest.raises(ValidationError):
        OpcUaOptions.model_validate({"url": URL})


def test_a_directory_of_trusted_certificates_serves_instead_of_files(files, tmp_path):
    """Either is enough."""
    given = {**files, "server_certificates": [], "trust": tmp_path / "trusted"}
    assert Security.model_validate(given).trust == tmp_path / "trusted"


def test_the_password_is_not_shown(files):
    """Neither by str nor by repr of the options."""
    options = Security.model_validate({**files, "user": "smp-bridge", "password": Secret("hunter2")})
    assert "hunter2" not in f"{options} {options!r}"


def problems(change):
    """What `check` says of Ipswich after a change of its batteries or its adapter."""
    site = copy.deepcopy(read_site())
    change(site)
    (adapter,) = site["adapters"].values()
    options = options_of(site, url=URL, security=OPEN)
    assert adapter is not None
    return {problem.path: problem.text for problem in ADAPTER.check(options, selections_of(site))}


def test_a_target_outside_writable_is_a_problem_with_the_path_to_add():
    """Every target of both flows is inside; one that points at a set-point is not."""

    def change(site):
        site["flows"]["batteries"]["outcome"]["errorCode"] = "SetPoint_kW"

    found = problems(change)
    assert list(found) == ["flows.batteries.outcome.errorCode"]
    assert 'add "Objects/ems:EMS/ems:Assets/ems:*/ems:SetPoint_kW"' in found["flows.batteries.outcome.errorCode"]


@pytest.mark.parametrize(
    ("target", "text", "other"),
    [
        ("errorCode", "ems:MaxExport_kW", "the field `export_kw`"),
        ("errorCode", "Nameplate", "the field `rating`"),
        ("errorCode", "Registration/Request", "`submit.request`"),
        ("errorCode", "Registration/RequestSeq", "`submit.sequence`"),
        ("errorCode", "ems:Registration/State", "`outcome.state`"),
    ],
)
def test_a_target_that_is_read_or_written_already_is_a_problem(target, text, other):
    """The host would overwrite what it reads, a structure of which it reads a part too, or another of its results."""

    def change(site):
        next(iter(site["adapters"].values()))["writable"] = ["Objects/ems:EMS/ems:*/*/*", "Objects/ems:EMS/ems:*/*/*/*"]
        flow = site["flows"]["batteries"]
        flow["records"]["fields"]["rating"] = "Nameplate#Rating"
        flow["outcome"][target] = text

    words = f"is the node of {other} too; the host would overwrite it, so name another"
    assert problems(change) == {f"flows.batteries.outcome.{target}": words}


def second_flow(**changes):
    """What `check` says of Ipswich with its batteries a second time, as `more`, after these changes of its parts."""

    def change(site):
        next(iter(site["adapters"].values()))["writable"] = ["Objects/ems:EMS/ems:*/*/*", "Objects/ems:EMS/ems:*/*/*/*"]
        more = site["flows"]["more"] = copy.deepcopy(site["flows"]["batteries"])
        for part, values in changes.items():
            more[part] |= values

    return problems(change)


def test_flows_that_say_the_same_of_the_same_records():
    """Two flows of one folder, or of one folder and some of its nodes, may write the same word; other folders are nobody's concern."""
    some = {"each": "Objects/ems:EMS/ems:Assets/ems:BESS*"}
    assert second_flow() == second_flow(records=some) == {}
    own = {"reference": "AssetReference"}
    others = {"each": "Objects/ems:EMS/ems:Generators/*", "fields": own}
    assert second_flow(records=others, outcome={"errorCode": "MaxExport_kW"}) == {}
    one = {"each": "Objects/ems:EMS/ems:Assets/ems:BESS001"}
    assert second_flow(records=one, outcome={"errorCode": "Registration/OwnCode"}) == {}


@pytest.mark.parametrize("each", ["*", "ems:BESS*", "ems:BESS001"])
@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("ems:MaxExport_kW", "the field `export_kw`"),
        ("Registration/Request", "`submit.request`"),
        ("Registration/State", "`outcome.state`"),
    ],
)
def test_a_target_over_another_flows_node(each, text, other):
    """Told where one of the two paths holds all that the other may be; once, at the target."""
    own = {"reference": "AssetReference", "name": "Name"}
    found = second_flow(
        records={"each": f"Objects/ems:EMS/ems:Assets/{each}", "fields": own},
        submit={"request": "Other/Request", "sequence": "Other/Seq"},
        outcome={"state": "Other/State", "errorCode": text},
    )
    words = f"is the node of {other} of the flow batteries too; the host would overwrite it, so name another"
    assert found == {"flows.more.outcome.errorCode": words}


def test_a_field_over_another_flows_target():
    """The writer is told, although its flow stands first."""
    found = second_flow(
        records={"each": "Objects/ems:EMS/ems:Assets/ems:BESS001", "fields": {"reference": "Registration/ErrorCode"}}
    )
    assert "of the field `reference` of the flow more" in found["flows.batteries.outcome.errorCode"]


def by_node_ids(**changes):
    """A flow of three places by node ids, with these parts of its outcome."""
    flow = {
        "records": {
            "places": ["A", "B", "C"],
            "key": "name",
            "fields": {"name": "ns=ems;s={place}/Name", "region": "ns=ems;s=B/Region"},
        },
        "submit": {"when": "change"},
        "outcome": {"state": "ns=ems;s={place}/State", **changes},
    }
    options = OpcUaOptions.model_validate(
        {"url": URL, "security": OPEN, "namespaces": {"ems": "urn:ems"}, "writable": ["ns=ems;s=*"]}
    )
    return {problem.path: problem.text for problem in ADAPTER.check(options, [selection_of("assets", flow)])}


def test_targets_by_node_ids_are_compared_place_by_place():
    """Also with an address that all places share, and where it is one node at one place only."""
    assert by_node_ids(errorText="ns=ems;s={place}/Text") == {}
    assert "of the field `name`" in by_node_ids(errorText="ns=ems;s={place}/Name")["flows.assets.outcome.errorText"]
    assert "of the field `region`" in by_node_ids(errorText="ns=ems;s={place}/Region")["flows.assets.outcome.errorText"]
    assert "of `outcome.state`" in by_node_ids(errorText="ns=ems;s={place}/State")["flows.assets.outcome.errorText"]


def test_an_empty_writable_names_every_target():
    """Nothing is writable unless it is listed."""

    def change(site):
        next(iter(site["adapters"].values()))["writable"] = []

    assert len(problems(change)) == 10


def test_a_prefix_that_is_not_declared_is_a_problem_where_it_stands():
    """In `writable`, in `each` and in a path below."""

    def change(site):
        adapter = next(iter(site["adapters"].values()))
        adapter["writable"].append("Objects/other:X")
        site["flows"]["unit"]["records"]["each"] = "Objects/oops:EMS/ems:Units/*"
        site["flows"]["batteries"]["records"]["fields"]["name"] = "what:Name"

    found = problems(change)
    assert "`other`" in found["adapter.writable[2]"]
    assert "`oops`" in found["flows.unit.records.each"]
    assert "`what`" in found["flows.batteries.records.fields.name"]


def test_a_glob_below_each_is_a_problem():
    """One field is one node."""

    def change(site):
        site["flows"]["batteries"]["submit"]["request"] = "*/Request"
        site["flows"]["batteries"]["outcome"]["state"] = "Registration/St?te"

    found = problems(change)
    assert "must name one node" in found["flows.batteries.submit.request"]
    assert "must name one node" in found["flows.batteries.outcome.state"]


def test_a_deadband_is_for_a_number_that_is_watched_by_itself():
    """A field that exists, and no part of a structure."""

    def change(site):
        flow = site["flows"]["batteries"]
        flow["submit"] = {"when": "change", "deadband": {"export_kw": 10, "serial": 1, "rating": 1}}
        flow["records"]["fields"]["rating"] = "Nameplate#Rating"

    found = problems(change)
    assert "is no field; the fields are reference" in found["flows.batteries.submit.deadband.serial"]
    assert "is part of a structure" in found["flows.batteries.submit.deadband.rating"]
    assert len(found) == 2


def test_a_field_of_a_structure_is_named_behind_its_path():
    """Dots part the names; an empty one is a slip."""

    def change(site):
        fields = site["flows"]["batteries"]["records"]["fields"]
        fields["name"] = "Nameplate#Address.Street"
        fields["postcode"] = "Nameplate#Address."
        fields["gsp_group"] = "Nameplate#"

    found = problems(change)
    assert set(found) == {f"flows.batteries.records.fields.{name}" for name in ("postcode", "gsp_group")}
    assert "such as Nameplate#Address.Postcode" in found["flows.batteries.records.fields.postcode"]


def test_a_name_is_asked_for_alone():
    """`$name` stands by itself behind #; another word with a $ is a slip."""

    def change(site):
        fields = site["flows"]["batteries"]["records"]["fields"]
        fields["name"] = "Technology#$name"
        fields["postcode"] = "Technology#$text"
        fields["gsp_group"] = "Nameplate#Kind.$name"

    found = problems(change)
    assert set(found) == {f"flows.batteries.records.fields.{name}" for name in ("postcode", "gsp_group")}
    assert "stands $text, and only $name alone is known" in found["flows.batteries.records.fields.postcode"]


@pytest.mark.parametrize(("model", "heading"), [(OpcUaOptions, "## Options"), (Security, "### `security`")])
def test_the_readme_lists_every_option_with_its_default(model, heading):
    """The tables are what the models are: nothing missing, nothing too much, no other default."""
    readme = (Path(__file__).parents[3] / "adapters/opcua/README.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|([^|]*)\|", readme.split(heading)[1].split("\n#")[0], re.MULTILINE)
    listed = {name: default.strip() for names, default in rows for name in re.findall(r"\w+", names)}
    assert set(listed) == set(model.model_fields)
    for name, field in model.model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            shown = listed[name].strip("`")
            value = (
                shown
                if shown.isdigit()
                else OpcUaOptions.model_validate({"url": URL, "security": OPEN, "poll_interval": shown}).poll_interval
            )
            assert float(value) == pytest.approx(field.default), name
        elif isinstance(field.default, enum.Enum):
            assert listed[name] == f"`{field.default.value}`", name
    if model is OpcUaOptions:
        usual = OpcUaOptions.model_validate({"url": URL, "security": OPEN})
        for name, usual_s in (("sampling_interval", usual.sampling_s()), ("poll_interval", usual.poll_s(1))):
            assert listed[name] == f"`{usual_s * 1000:.0f}ms`, or slower"


def test_the_key_must_be_a_field():
    """The key is read like any field."""
    flow = read_site()["flows"]["batteries"]
    flow["records"]["key"] = "serial"
    with pytest.raises(ValidationError, match="`key: serial` must be one of the names in `fields`"):
        selection_of("batteries", flow)


def test_the_triggers_that_the_adapter_knows():
    """Requests and changes; there are no messages in OPC UA."""
    assert set(ADAPTER.submit) == {Trigger.REQUEST, Trigger.CHANGE}


def test_targets_are_what_is_configured():
    """`progress` is no target, and what is left out is not written."""
    flow = read_site()["flows"]["batteries"]
    flow["outcome"] = {"state": "Registration/State", "alarm": "Registration/Alarm", "progress": False}
    outcome = selection_of("batteries", flow).outcome
    assert outcome.targets() == {OutcomeField.STATE: "Registration/State", OutcomeField.ALARM: "Registration/Alarm"}
    assert outcome.progress is False


def test_many_variables_are_looked_at_less_often_unless_it_is_configured():
    """Twenty thousand values a second is what a server on a small machine does beside its own work."""
    usual = OpcUaOptions.model_validate({"url": URL, "security": OPEN})
    assert [usual.sampling_s(), usual.sampling_s(1000), usual.sampling_s(20_000)] == [0.05, 0.05, 1.0]
    assert [usual.poll_s(7), usual.poll_s(5000), usual.poll_s(20_000)] == [0.25, 0.25, 1.0]
    given = {"url": URL, "security": OPEN, "sampling_interval": "20ms", "poll_interval": "30ms"}
    chosen = OpcUaOptions.model_validate(given)
    assert (chosen.sampling_s(20_000), chosen.poll_s(20_000)) == (0.02, 0.03)


def two_by_node_ids(first, second):
    """What `check` says of two flows of node ids, given as their places and the identifier of their state."""
    flows = [
        selection_of(
            name,
            {
                "records": {"places": places, "key": "key", "fields": {"key": f"ns=ems;s={{place}}/{name}"}},
                "submit": {"when": "change"},
                "outcome": {"state": f"ns=ems;s={state}"},
            },
        )
        for name, (places, state) in {"one": first, "two": second}.items()
    ]
    options = OpcUaOptions.model_validate(
        {"url": URL, "security": OPEN, "namespaces": {"ems": "urn:ems"}, "writable": ["ns=ems;s=*"]}
    )
    return {problem.path: problem.text for problem in ADAPTER.check(options, flows)}


def test_flows_by_node_ids_are_compared_place_by_place():
    """The same word of the same place may be written twice; of another place, or where the other flow reads, it may not."""
    assert two_by_node_ids((["A", "B"], "{place}/State"), (["C"], "{place}/State")) == {}
    assert two_by_node_ids((["A", "B"], "{place}/State"), (["B"], "{place}/State")) == {}
    assert set(two_by_node_ids((["A", "B"], "{place}/State"), (["C"], "A/State"))) == {"flows.two.outcome.state"}
    found = two_by_node_ids((["A"], "B/two"), (["B"], "{place}/State"))
    assert "of the field `key` of the flow two" in found["flows.one.outcome.state"]


def in_adapter(site, **settings):
    next(iter(site["adapters"].values())).update(settings)


def test_a_missing_namespace_is_told_once():
    """At the first place where its prefix stands; nothing lies outside `writable:` for it."""
    found = problems(lambda site: in_adapter(site, namespaces={}))
    words = (
        'the prefix `ems` is not in `namespaces:` of its adapter; add `ems: "urn:…"` there (it stands at 3 more places)'
    )
    assert found == {"adapter.writable[0]": words}


def test_a_namespace_by_its_number_is_told_with_what_to_write():
    """As a browser shows it: once for the flow, and not once more for each of its outcomes."""

    def change(site):
        site["flows"]["batteries"]["records"]["each"] = "Objects/2:EMS/2:Assets/*"

    (text,) = problems(change).values()
    assert text.startswith("the prefix `2` is a namespace by its number, which a server may give anew at each start;")
    assert text.endswith("and write ems: for 2:")


@pytest.mark.parametrize("node", ["ns=2;s=Assets.BESS001.Ref", "ns=ems;i=17"])
def test_a_node_id_below_each_is_no_browse_name(node):
    """It would be looked for as a child of that very name."""

    def change(site):
        site["flows"]["batteries"]["records"]["fields"]["name"] = node

    (text,) = problems(change).values()
    assert text.startswith("is a node id, and below `each` stand browse paths")
