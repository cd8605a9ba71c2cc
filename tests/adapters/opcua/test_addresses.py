"""Node ids, places and methods as a site file writes them, and what is wrong with them in words."""

import copy
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opcua_site import options_of, read_site, selections_of
from pydantic import ValidationError

from adapters.opcua import ADAPTER
from adapters.opcua.addresses import call, node_id, pattern
from adapters.opcua.paths import absolute

URL = "opc.tcp://10.0.0.5:4840"
OPEN = {"policy": "None"}


@pytest.mark.parametrize(
    ("text", "prefix", "value"),
    [
        ("ns=ems;s=Assets/A.Name", "ems", "Assets/A.Name"),
        ("ns=ems;s=a;b=c", "ems", "a;b=c"),
        ("i=2258", "", 2258),
        ("ns=ems;i=4294967295", "ems", 4294967295),
        ("ns=ems;g=00000000-0000-0000-0000-000000000007", "ems", UUID(int=7)),
        ("ns=ems;b=AP8=", "ems", b"\x00\xff"),
    ],
)
def test_a_node_id_is_read_as_opc_ua_writes_it(text, prefix, value):
    """Of every kind; the namespace is a name of `namespaces:`."""
    found = node_id(text)
    assert (found.prefix, found.value(), str(found)) == (prefix, value, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ns=2;s=Name", "number, which a server may give anew at each start; name it in `namespaces:`"),
        ("ns=;s=Name", "must be a node id such as ns=ems;s="),
        ("Registration/State", "must be a node id such as ns=ems;s="),
        ("ns=ems;i=4294967296", "behind i= must stand a number below 2^32, not 4294967296"),
        ("ns=ems;i=x", "behind i= must stand a number"),
        ("ns=ems;g=7", "behind g= must stand a GUID"),
        ("ns=ems;b=?", "behind b= must stand base64"),
        ("ns=ems;b=A", "behind b= must stand base64"),
    ],
)
def test_what_is_no_node_id_is_refused_in_words(text, words):
    """A namespace by its number above all: it would point elsewhere after a restart of the server."""
    with pytest.raises(ValueError, match="must|number") as raised:
        node_id(text)
    assert words in str(raised.value)


def test_a_glob_covers_texts_of_its_own_namespace_and_kind():
    """As in `writable:`; a path never covers a node id, nor the other way round."""
    allowed = pattern("ns=ems;s=Assets/*/State")
    assert allowed.covers(node_id("ns=ems;s=Assets/A/State"))
    assert not allowed.covers(node_id("ns=ems;s=Assets/A/Name"))
    assert not allowed.covers(node_id("ns=other;s=Assets/A/State"))
    assert not allowed.covers(node_id("ns=ems;i=7"))
    path = absolute("Objects/ems:State")
    assert not allowed.covers(path)
    assert not path.covers(node_id("ns=ems;s=State"))
    assert pattern("ns=ems;s=Tag[1].State").covers(node_id("ns=ems;s=Tag[1].State"))


@settings(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1, max_size=5))
def test_every_text_is_an_identifier(text, place):
    """What stands behind s= is anybody's to choose, and a place is put in wherever it is asked for."""
    found = node_id(f"ns=ems;s={text}")
    assert found.identifier == text
    assert node_id(f"ns=ems;s={{place}}/{place}").at(place).value() == f"{place}/{place}"


def test_a_call_has_a_path_and_arguments():
    """From Objects on; a browse name with brackets is none."""
    assert call("Registration/RequestSeq (a)") is None
    found = call("Objects/ems:EMS/ems:Register($place, name)")
    assert (str(found.path), found.arguments) == ("Objects/ems:EMS/ems:Register", ("$place", "name"))
    assert call("Objects/ems:EMS/ems:Register()").arguments == ()
    with pytest.raises(ValueError, match="must name one method"):
        call("Objects/ems:EMS/*($place)")


# a whole site


def listed(site):
    """Ipswich's batteries by their node ids."""
    flow = site["flows"]["batteries"]
    records = flow["records"]
    del records["each"]
    records["places"] = ["BESS001", "BESS002"]
    records["fields"] = {name: f"ns=ems;s=EMS/Assets/{{place}}/{path}" for name, path in records["fields"].items()}
    for part in (flow["submit"], flow["outcome"]):
        for name, path in part.items():
            if name != "when":
                part[name] = f"ns=ems;s=EMS/Assets/{{place}}/{path}"
    (adapter,) = site["adapters"].values()
    adapter["writable"].append("ns=ems;s=EMS/Assets/*/Registration/*")
    return site


def problems(change):
    site = listed(copy.deepcopy(read_site()))
    change(site)
    return {
        problem.path: problem.text
        for problem in ADAPTER.check(options_of(site, url=URL, security=OPEN), selections_of(site))
    }


def test_a_site_by_node_ids_is_accepted():
    """With places that are named, and targets inside `writable:`."""
    assert not problems(lambda _: None)


def test_what_is_wrong_with_node_ids_is_said_where_it_stands():
    """A path among them, a name that is not declared, a node for all places, a target outside."""

    def change(site):
        flow = site["flows"]["batteries"]
        flow["records"]["fields"]["name"] = "Name"
        flow["records"]["fields"]["postcode"] = "ns=what;s={place}"
        flow["records"]["fields"]["gsp_group"] = "ns=ems;s=EMS/GSPGroup"
        flow["records"]["fields"]["import_mpan"] = "ns=ems;i={place}"
        flow["submit"]["request"] = "ns=ems;s=EMS/Request"
        flow["outcome"]["errorCode"] = "ns=ems;s=EMS/Assets/{place}/SetPoint_kW"

    found = problems(change)
    base = "flows.batteries"
    assert "must be a node id such as" in found[f"{base}.records.fields.name"]
    assert "`what` is not in `namespaces:`" in found[f"{base}.records.fields.postcode"]
    assert "behind i= must stand a number below 2^32, not BESS001" in found[f"{base}.records.fields.import_mpan"]
    assert "is the same node for every place; put {place}" in found[f"{base}.submit.request"]
    assert 'add "ns=ems;s=EMS/Assets/BESS001/SetPoint_kW" there' in found[f"{base}.outcome.errorCode"]
    assert len(found) == 5


def test_a_method_must_be_allowed_and_its_arguments_known():
    """It may change something in the EMS, so only what is listed is called."""

    def change(site):
        site["flows"]["batteries"]["submit"]["sequence"] = "Objects/ems:EMS/ems:Register($place, serial)"

    found = ADAPTER.check(*changed(change))
    texts = [each.text for each in found if each.path == "flows.batteries.submit.sequence"]
    assert 'is outside `methods:` of its adapter; add "Objects/ems:EMS/ems:Register" there' in texts[0]
    assert "the argument `serial` is neither $place nor a field; the fields are reference" in texts[1]
    assert len(found) == 2


def changed(change):
    site = read_site()
    change(site)
    return options_of(site, url=URL, security=OPEN), selections_of(site)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"places": ["A"]}, "one of them"),
        ({"each": None}, "one of them"),
        ({"each": None, "places": ["A", "A"]}, "names one twice"),
    ],
)
def test_records_are_found_in_one_way(records, words):
    """By browsing or by a list."""
    site = read_site()
    site["flows"]["batteries"]["records"].update(records)
    with pytest.raises(ValidationError, match=words):
        selections_of(site)
