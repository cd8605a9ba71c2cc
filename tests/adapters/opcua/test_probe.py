"""A probe of a node-opcua server: what a session would deliver, what is wrong with nodes, types and rights, and not one write."""

import asyncio

import pytest
from opcua_peer import ASSETS, PLACES
from opcua_site import context_of, options_of, read_site, selection_of, selections_of

from adapters.opcua import ADAPTER
from bridge.api import LinkRefused, Quality

pytestmark = pytest.mark.asyncio(loop_scope="module")


def changed(peer, change, **options):
    """Ipswich's file with `change` made to its flows, on this server."""
    site = read_site()
    change(site["flows"])
    given = {"url": peer.url, "security": peer.security(), **options}
    return context_of(options_of(site, **given), selections_of(site))


async def looked(context):
    async with ADAPTER.probe(context) as probe:
        return await probe.look(0.1)


def told(look, **where):
    """The troubles at a place, as texts."""
    return [
        trouble.text for trouble in look.troubles if all(getattr(trouble, key) == value for key, value in where.items())
    ]


async def test_it_shows_what_a_session_delivers(peer):
    """The same fields with the same values, qualities and times, though nobody asked; and the server saw no write, no subscription and no call."""
    await peer.set(f"{ASSETS}/BESS002/Postcode", "IP9 9ZZ", source="2026-11-20T10:00:00Z")
    context = peer.context()
    look = await looked(context)
    stats = await peer.order("stats")
    assert (stats["writes"], stats["calls"], stats["monitored"], stats["subscriptions"]) == ([], [], [], [])
    await peer.request("BESS002")
    async with ADAPTER.open(context) as session:
        [arrival] = await session.receive()
    [record] = arrival.records
    [shown] = [each for each in look.records if (each.flow, each.place) == (record.flow, record.place)]
    assert shown.fields == record.fields
    assert shown.fields["postcode"].value == "IP9 9ZZ"
    assert [each.place for each in look.records if each.flow == "batteries"] == list(PLACES)
    assert list(look.troubles) == []
    beside = {(each.place, each.name): each.reading.value for each in look.beside}
    assert beside["BESS001", "submit.request"] == 0
    assert beside["BESS001", "outcome.transactionId"] == ""


async def test_what_is_not_there_is_named_and_the_rest_is_read(peer):
    """A field, a target and a trigger that no record has; a session would not open, and says one of them only."""

    def change(flows):
        flows["batteries"]["records"]["fields"]["export_kw"] = "MaxExport_MW"
        flows["batteries"]["outcome"]["errorCode"] = "Registration/Fault"
        flows["unit"]["records"]["each"] = "Objects/ems:EMS/ems:Plants/*"

    look = await looked(changed(peer, change))
    assert "no record has MaxExport_MW" in told(look, flow="batteries", name="export_kw")[0]
    assert "no record has Registration/Fault" in told(look, flow="batteries", name="outcome.errorCode")[0]
    assert "Plants" in told(look, flow="unit")[0]
    [first, *_] = look.records
    assert first.fields["name"].value == "Battery 1"
    assert first.fields["export_kw"].absent


async def test_what_some_records_lack_is_named(peer):
    """A unit among assets: the field that it has not is told with its name, and is no hindrance."""

    def change(flows):
        flows["batteries"]["records"]["each"] = "Objects/ems:EMS/ems:*/*"
        del flows["unit"]

    look = await looked(changed(peer, change))
    [text] = told(look, flow="batteries", name="reference")
    assert text == "1 of 4 records lack AssetReference: Units/UNIT01"
    assert all(not trouble.grave for trouble in look.troubles if trouble.name == "reference")


async def test_rights_and_types_of_targets(peer):
    """A target that this user may not write, and one whose type cannot hold its part, are told without writing."""

    def change(flows):
        flows["batteries"]["outcome"]["state"] = "Registration/Request"
        flows["batteries"]["outcome"]["transactionId"] = "Registration/ErrorCode"

    look = await looked(changed(peer, change))
    assert told(look, place="BESS001", name="outcome.state") == ["this user may not write it"]
    assert "holds a number" in told(look, place="BESS001", name="outcome.transactionId")[0]
    assert told(look, place="BESS001", name="outcome.updatedAt") == []
    assert (await peer.order("stats"))["writes"] == []


async def test_quality_and_triggers(peer):
    """Bad quality reaches the reading as it would reach a record; a trigger that holds no whole number is told."""
    await peer.set(f"{ASSETS}/BESS003/Name", "x", status="BadCommunicationError")

    def change(flows):
        flows["batteries"]["submit"]["sequence"] = "Name"

    look = await looked(changed(peer, change))
    [record] = [each for each in look.records if each.place == "BESS003"]
    assert (record.fields["name"].quality, record.fields["name"].detail) == (Quality.BAD, "BadCommunicationError")
    assert told(look, place="BESS001", name="submit.sequence") == ["holds str, must be a whole number"]


async def test_a_namespace_that_is_not_there(peer):
    """Without it no path leads anywhere; the server's own are named."""
    look = await looked(peer.context(namespaces={"ems": "urn:acme:other"}))
    [trouble] = look.troubles
    assert "urn:acme:other" in trouble.text
    assert "urn:acme:ems" in trouble.text
    assert list(look.records) == []


async def test_trust_is_that_of_a_session(peer):
    """A server that is not in the trust list is refused before any password leaves."""
    stranger = peer.security(server_certificates=[str(peer.client.certificate)])
    with pytest.raises(LinkRefused, match="not trusted"):
        await looked(peer.context(security=stranger))


async def test_a_look_is_made_anew_each_time(peer):
    """A value that changed between two looks, and a session that is open beside the probe and goes on hearing."""
    async with ADAPTER.open(peer.context()) as session, ADAPTER.probe(peer.context()) as probe:
        first = await probe.look(0.1)
        await peer.set(f"{ASSETS}/BESS001/MaxExport_kW", 1234)
        second = await probe.look(0.1)
        await peer.request("BESS001")
        async with asyncio.timeout(10):
            [arrival] = await session.receive()
    values = [look.records[0].fields["export_kw"].value for look in (first, second)]
    assert (values, arrival.records[0].fields["export_kw"].value) == ([49500, 1234], 1234)


async def test_a_method_that_numbers_requests_is_not_called(peer):
    """It is looked for, and whether this user may call it; calling it would use up a number."""
    flow = read_site()["flows"]["batteries"]
    flow["submit"]["sequence"] = "Objects/ems:EMS/ems:Register($place)"
    context = peer.context(methods=["Objects/ems:EMS/ems:Register"])
    look = await looked(context._replace(selections=[selection_of("batteries", flow)]))
    assert (await peer.order("stats"))["calls"] == []
    assert [each.name for each in look.beside if each.place == "BESS001"][0] == "submit.request"
    assert list(look.troubles) == []


async def test_the_redundant_server_that_is_away(peer):
    """It is only missed when it is needed, so a probe asks it too."""
    look = await looked(peer.context(redundant_urls=["opc.tcp://127.0.0.1:1"]))
    assert "opc.tcp://127.0.0.1:1 cannot be used" in told(look)[0]


async def test_the_alarm_word(peer):
    """Its node is looked for; none is there."""
    word = ADAPTER.word.model_validate({"node": "Objects/ems:EMS/ems:AlarmWord"})
    look = await looked(peer.context()._replace(word=word))
    assert told(look, name="alarms.word") == ["Objects/ems:EMS/ems:AlarmWord does not exist on the server"]
